r"""Tests of the GPU suite: its command line, and all of its pieces with tiny sizes on the CPU."""
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu_suite, queue
from benchmarks._gpu_pieces import Unfinished, Work
from benchmarks._record import RESULTS, ROOT, read_result
from benchmarks.gpu_speed import LATE, Setting, contenders, fewest_bytes, gathered_bytes, measure, speed

SCRIPT = ROOT / 'benchmarks' / 'gpu_suite.sh'
LIMIT = 240
pytest.importorskip('triton', reason='Triton is not installed: pip install triton')


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(SCRIPT), *arguments], env={**os.environ, 'PYTHON': sys.executable, **environment},
                          capture_output=True, text=True)


def test_list() -> None:
    result = call('list')
    assert result.returncode == 0, result.stderr
    lines = [line.split(maxsplit=3) for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == list(gpu_suite.PIECES)
    assert f'\nlimit={LIMIT} ' in SCRIPT.read_text()
    assert all(0 < int(seconds) <= LIMIT and unit == 's' for _, seconds, unit, _ in lines)
    for piece in gpu_suite.PIECES:
        assert f'\n{re.sub("|".join(gpu_suite.MODELS), "{model}", piece)} ' in gpu_suite.__doc__


def test_help_and_unknown_pieces() -> None:
    assert call('--help').returncode == 0 and '--smoke' in call('--help').stdout
    assert call().returncode != 0
    for arguments, fact in ((['run'], 'PIECE'), (['run', '--budget', '14 minutes', 'tests'], '14m'),
                            (['run', 'precision', 'speed-nonsense'], 'speed-nonsense')):
        result = call(*arguments)
        # Nothing is run, or else a mistake would take time on a GPU.
        assert result.returncode == 2 and fact in result.stderr and result.stdout == ''


def test_names_of_pieces() -> None:
    assert gpu_suite.pieces_of(['tests', 'precision']) == ['tests-emu-score', 'tests-relational', 'tests-rest',
                                                           'precision']
    assert gpu_suite.pieces_of(['speed-distmult', 'speed-distmult']) == ['speed-distmult']
    assert gpu_suite.pieces_of(['speed']) == [f'speed-{model}' for model in gpu_suite.MODELS]
    assert gpu_suite.pieces_of(['nbfnet-relational']) == ['nbfnet-relational']
    with pytest.raises(ValueError, match='^spee: '):
        gpu_suite.pieces_of(['spee'])


def test_pending_names_all_pieces_that_are_not_recorded() -> None:
    named: set[str] = set()
    for job in queue.parse(queue.PENDING.read_text()):
        for words in map(str.split, job.commands):
            if words[0] == 'benchmarks/gpu_suite.sh':
                # Only what exits with a code other than 0 before it is recorded may be there.
                assert words[1] == 'run' and job.needs == 'gpu', job.what
                named |= set(gpu_suite.pieces_of(words[4:] if words[2] == '--budget' else words[2:]))
    recorded = {path.stem for path in (RESULTS / 'h200').glob('*.json')}
    assert {piece for piece in gpu_suite.PIECES if piece.replace('-', '_') not in recorded} <= named


class Script:
    r"""The script with a mock of the interpreter. It prints a list of pieces, logs its calls, and does what the next
    line of the piece says: a command, and the exit code.
    """
    def __init__(self, folder: Path, pieces: dict[str, int], **codes: str) -> None:
        self.folder = folder
        listed = ''.join(f'{name} {seconds} s what it does\n' for name, seconds in pieces.items())
        (folder / 'list').write_text(listed)
        for name in pieces:
            (folder / name).write_text(''.join(f'{line}\n' for line in codes.get(name, ': 0').split(',')))
        python = folder / 'python'
        python.write_text(f"""#!/usr/bin/env bash
cd {folder}
[ "$3" != --list ] || exec cat list
name=${{@: -1}}
echo "${{@:3}}" >>log
line=$(head -n 1 "$name")
sed -i 1d "$name"
eval "${{line% *}}"
exit "${{line##* }}"
""")
        python.chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen([str(SCRIPT), *arguments], env={**os.environ, 'PYTHON': str(self.folder / 'python')},
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                                # Tests that run in the background ignore SIGINT, which the script would inherit.
                                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))

    def run(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        error = process.communicate(timeout=120)[1]
        return process.returncode, error

    @property
    def log(self) -> list[str]:
        path = self.folder / 'log'
        return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize('codes, expected, facts', [
    ({}, 0, []),
    ({'a': ': 75'}, 75, ['unfinished: a\n']),
    ({'a': ': 75', 'b': ': 1', 'c': ': 2'}, 1, ['failed: b c\n', 'unfinished: a\n']),
])
def test_exit_codes_of_all_pieces(tmp_path: Path, codes: dict[str, str], expected: int, facts: list[str]) -> None:
    script = Script(tmp_path, {'a': 100, 'b': 100, 'c': 100}, **codes)
    code, error = script.run('all')
    assert code == expected and error == ''.join(f'gpu_suite: {fact}' for fact in facts)
    # Each piece once, since there is no budget for more.
    assert script.log == [f'--limit {LIMIT} {name}' for name in 'abc']


def test_a_budget_repeats_unfinished_pieces(tmp_path: Path) -> None:
    script = Script(tmp_path, {'a': 100, 'b': 100}, a=': 75,: 75,: 0')
    assert script.run('run', '--budget', '2h', '--again', 'a', 'b') == (0, '')
    # Only the first calls measure again.
    assert script.log == [f'--limit {LIMIT} --again a', f'--limit {LIMIT} --again b'] + 2 * [f'--limit {LIMIT} a']


def test_a_budget_starts_only_what_can_end(tmp_path: Path) -> None:
    script = Script(tmp_path, {'long': 210, 'short': 50}, short='sleep 3; 75')
    # Once more would take 50 of the last 49 seconds.
    code, error = script.run('all', '--budget', '52s')
    assert code == 75 and error == 'gpu_suite: no time left for: long short\n'
    assert len(script.log) == 1
    limit = re.fullmatch(r'--limit (\d+) short', script.log[0])
    assert limit is not None and 50 <= int(limit[1]) <= 52


def test_an_interrupt_ends_all_pieces(tmp_path: Path) -> None:
    script = Script(tmp_path, {'a': 100, 'b': 100}, a='sleep 60; 75')
    process = script.start('all')
    while not script.log:
        time.sleep(0.05)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130 and len(script.log) == 1


def test_recorded_pieces_are_not_run_again(tmp_path: Path) -> None:
    (tmp_path / 'precision.json').write_text('{}')
    result = call('run', 'precision', OUT=str(tmp_path))
    assert result.returncode == 0, result.stderr
    assert 'already recorded' in result.stdout
    assert (tmp_path / 'precision.json').read_text() == '{}'


def test_accuracy_asks_for_its_data(tmp_path: Path) -> None:
    result = call('run', 'accuracy-distmult', OUT=str(tmp_path), PYG_EMU_DATA='')
    assert result.returncode == 1
    assert 'PYG_EMU_DATA' in result.stderr and 'FB15k-237' in result.stderr


def test_bytes_by_hand() -> None:
    setting = Setting('complex', batch=2, negatives=3, dim=5, entities=7)
    # Six ids of eight bytes, three times, eight passes over a table of seven rows of ten floats, four over six scores.
    assert fewest_bytes(setting, emu=False) == 6 * 8 * 3 + 8 * 7 * 10 * 4 + 4 * 6 * 4
    assert fewest_bytes(setting, emu=True) - fewest_bytes(setting, emu=False) == 4 * 6 * 4
    assert gathered_bytes(setting) == 3 * 6 * 10 * 4


def test_every_test_that_needs_a_gpu_is_run_on_it() -> None:
    chosen = [name for names in gpu_suite.TESTS.values() for name in names]
    marked = set()
    for path in (ROOT / 'tests').rglob('test_*.py'):
        names = re.findall(r'^@pytest\.mark\.gpu\n(?:@.*\n)*def (\w+)', path.read_text(), re.MULTILINE)
        marked |= {f'{path.relative_to(ROOT).as_posix()}::{name}' for name in names}
    assert len(marked) >= 10
    assert {name for name in marked if name.partition('::')[0] not in chosen} == {
        name for name in chosen if '::' in name}


def test_tests_that_end_early_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if a test file could not be imported: pytest then writes no report.
    monkeypatch.setattr(gpu_suite, '_call', lambda command, seconds: 4)
    with pytest.raises(SystemExit, match=r'^gpu_suite: .*\b4$'):
        gpu_suite.run_tests('emu-score', Work('tests_emu_score', tmp_path))
    assert read_result('tests_emu_score_unfinished', tmp_path)['metrics']['exit_code'] == 4


ENDLESS = r"""
import os, signal, time

def test_right():
    pass

def test_wrong():
    assert 1 == 2

def test_endless():
    os.kill(PID, signal.SIGINT)
    time.sleep(300)
"""


@pytest.mark.parametrize('spread', [False, True])
def test_interrupted_tests_report_what_they_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  spread: bool) -> None:
    path = tmp_path / 'test_mine.py'
    path.write_text(ENDLESS.replace('PID', str(os.getpid())))
    monkeypatch.setitem(gpu_suite.TESTS, 'emu-score', (str(path), ))
    monkeypatch.setattr(gpu_suite, 'num_cores', lambda: 1)
    if not spread:
        monkeypatch.setattr(gpu_suite.importlib.util, 'find_spec', lambda name: None)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Unfinished, match='2 tests, 1 of which failed'):
            gpu_suite.run_tests('emu-score', Work('tests_emu_score', tmp_path))
    finally:
        signal.signal(signal.SIGINT, handler)
    metrics = read_result('tests_emu_score_unfinished', tmp_path)['metrics']
    assert metrics['exit_code'] is None
    assert [name.split('.')[-2:] for name in metrics['failed']] == [['test_mine', 'test_wrong']]
    assert not (tmp_path / 'tests_emu_score.json').exists()


STUCK = r"""
import sys, time
from benchmarks import gpu_suite

def stuck(work):
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            if sys.argv[2] == 'politely':
                raise

gpu_suite.PIECES['stuck'] = gpu_suite.Piece(1, stuck, '')
sys.exit(gpu_suite.main(['--limit', sys.argv[1], 'stuck']))
"""


@pytest.mark.parametrize('manner, fact', [('politely', 'interrupted shortly before 2 s'), ('never', 'Timeout')])
def test_a_piece_ends_at_its_limit(tmp_path: Path, manner: str, fact: str) -> None:
    start = time.monotonic()
    result = subprocess.run([sys.executable, '-c', STUCK, '2', manner], cwd=ROOT, capture_output=True, text=True,
                            env={**os.environ, 'OUT': str(tmp_path)}, timeout=50)
    assert result.returncode == 1 and fact in result.stderr
    assert time.monotonic() - start < 45


def test_unfinished_pieces_have_a_code_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []

    def run(work: Work) -> Any:
        limits.append(work.left)
        raise Unfinished('step 1 of 4')

    monkeypatch.setitem(gpu_suite.PIECES, 'mine', gpu_suite.Piece(1, run, ''))
    monkeypatch.setenv('OUT', str(tmp_path))
    assert gpu_suite.main(['mine']) == 75
    assert limits == [None]


def test_contenders_that_there_was_no_time_for(tmp_path: Path) -> None:
    setting = Setting().tiny()
    made = contenders(setting, compiled=True)
    assert list(made)[0] == 'ours, graphs emu' and {'compiled emu', 'compiled vanilla'} < set(made)
    found = measure(setting, made, Work('compiled_distmult', tmp_path, seconds=0))
    assert found == {name: {'error': LATE} for name in made}
    with pytest.raises(Unfinished, match='ours, graphs emu, .*compiled vanilla'):
        speed(setting, Work('compiled_distmult', tmp_path, seconds=0), compiled=True)
    metrics = read_result('compiled_distmult_unfinished', tmp_path)['metrics']
    assert metrics['copy_bytes_per_second'] > 0 and metrics['ratios'] == {}


def test_contenders_that_would_take_too_long(tmp_path: Path) -> None:
    work = Work('speed_distmult', tmp_path, seconds=100)
    make = contenders(Setting().tiny())['eager emu']

    def slow() -> Any:
        assert work._end is not None
        work._end = time.monotonic() + 1.5
        time.sleep(1.0)
        return make()

    # The first one took at least one second, and at most half a second is left.
    found = measure(Setting().tiny(), {'slow': slow, 'next': make}, work)
    assert found['slow']['step_ms'] > 0.0 and found['next'] == {'error': LATE}


def test_scaling_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def scaled(setting: Setting, smoke: bool) -> dict[str, float]:
        measured.append(setting)
        work._end = 0.0 if len(measured) == 3 else work._end
        return {'step_ms': float(setting.negatives)}

    monkeypatch.setattr(gpu_suite, '_scaled', scaled)
    work = Work('scaling', tmp_path, smoke=True)
    with pytest.raises(Unfinished, match='dim=4'):
        gpu_suite.scaling(work)
    work._end = None
    metrics = read_result(gpu_suite.scaling(work).stem, tmp_path)['metrics']
    assert len(measured) == 6 and metrics['negatives']['exponent'] == pytest.approx(1.0)
    assert not (tmp_path / 'scaling_unfinished.json').exists()


def test_accuracy_continues_its_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyg_emu.experiments import runs
    from pyg_emu.training.interrupt import TrainingInterrupted

    asked = []

    def run_recipe(recipe: Any, folder: Path, **options: Any) -> Any:
        asked.append(options['resume'])
        raise TrainingInterrupted('stopped after step 2 of 4')

    monkeypatch.setattr(runs, 'run_recipe', run_recipe)
    for again in (False, True):
        with pytest.raises(Unfinished, match='step 2 of 4'):
            gpu_suite.accuracy('distmult', Work('accuracy_distmult', tmp_path, smoke=True, again=again))
    assert asked == ['auto', False]


@pytest.mark.gpu_suite
@pytest.mark.timeout(900)
def test_smoke(tmp_path: Path) -> None:
    before = sorted(path.name for path in (ROOT / 'benchmarks' / 'results').rglob('*'))
    result = call('--smoke', OUT=str(tmp_path))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    finished = [line.split()[1].rstrip(':') for line in result.stdout.splitlines()
                if line.startswith('== ') and line.endswith(' s')]
    assert finished == list(gpu_suite.PIECES)
    assert 'Error' not in result.stdout
    assert not list(tmp_path.iterdir())
    assert sorted(path.name for path in (ROOT / 'benchmarks' / 'results').rglob('*')) == before


def test_one_piece_from_its_function_to_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TRITON_INTERPRET', '1')
    path = gpu_suite.precision(Work('precision', tmp_path, smoke=True))
    errors = json.loads(path.read_text())['metrics']['relative_errors']
    assert len(errors) == 15
    for name, found in errors.items():
        limit = {'float32': 1e-5, 'float16': 1e-2, 'bfloat16': 5e-2}[name.split(', ')[1]]
        assert max(found.values()) < limit, name


def test_errors_that_are_not_finite_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def errors(name: str, dtype: str, *_: Any) -> dict[str, float]:
        if (name, dtype) == ('l2', 'float16'):
            raise ValueError('expected finite errors')
        return {'vanilla': 0.5}

    monkeypatch.setattr(gpu_suite, 'relative_errors', errors)
    with pytest.raises(SystemExit, match='l2, float16$'):
        gpu_suite.precision(Work('precision', tmp_path, smoke=True))
    cases = read_result('precision_unfinished', tmp_path)['metrics']['cases']
    assert len(cases) == 15 and 'finite' in cases['l2, float16']['error'] and cases['dot, float32'] == {'vanilla': 0.5}

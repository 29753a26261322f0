r"""Tests of the GPU suite: its command line, and all of its pieces with tiny sizes on the CPU."""
from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import gpu_suite
from benchmarks._record import ROOT
from benchmarks.gpu_speed import Setting, fewest_bytes, gathered_bytes

SCRIPT = ROOT / 'benchmarks' / 'gpu_suite.sh'
pytest.importorskip('triton', reason='Triton is not installed: pip install triton')


def call(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import sys

    return subprocess.run([str(SCRIPT), *arguments], env={**os.environ, 'PYTHON': sys.executable, **environment},
                          capture_output=True, text=True)


def test_list() -> None:
    result = call('list')
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == list(gpu_suite.PIECES)


def test_help_and_unknown_pieces() -> None:
    assert call('--help').returncode == 0 and '--smoke' in call('--help').stdout
    assert call().returncode != 0
    result = call('run', 'speed-nonsense', 'nothing')
    assert result.returncode == 1
    assert 'gpu_suite: failed: speed-nonsense nothing' in result.stderr


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
    marked = set()
    for path in (ROOT / 'tests').rglob('test_*.py'):
        names = re.findall(r'^@pytest\.mark\.gpu\n(?:@.*\n)*def (\w+)', path.read_text(), re.MULTILINE)
        marked |= {f'{path.relative_to(ROOT).as_posix()}::{name}' for name in names}
    assert len(marked) >= 10
    assert {name for name in marked if name.partition('::')[0] not in gpu_suite.TESTS} == {
        name for name in gpu_suite.TESTS if '::' in name}


def test_tests_that_end_early_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if a test file could not be imported: pytest then writes no report.
    monkeypatch.setattr(gpu_suite.subprocess, 'call', lambda command, cwd: 4)
    with pytest.raises(SystemExit, match=r'^gpu_suite: .*\b4$'):
        gpu_suite.run_tests(tmp_path, False)


@pytest.mark.gpu_suite
@pytest.mark.timeout(600)
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
    path = gpu_suite.precision(tmp_path, True)
    errors = json.loads(path.read_text())['metrics']['relative_errors']
    assert len(errors) == 15
    for name, found in errors.items():
        limit = {'float32': 1e-5, 'float16': 1e-2, 'bfloat16': 5e-2}[name.split(', ')[1]]
        assert max(found.values()) < limit, name

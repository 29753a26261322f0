from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks._record import RESULTS, read_results, write_result
from benchmarks._texts import TEXTS
from benchmarks.render_readme import EMPTY, FILES, TABLES, Table, render, render_file

TABLE = Table('runs/*', {'MRR': 'test.mrr', 'seconds': 'seconds', 'missing': 'test.none'}, 'how')


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(RESULTS.parent.parent)))
def test_tables_equal_their_results(path: Path) -> None:
    assert path.read_text(encoding='utf-8') == render_file(path), 'run python -m benchmarks.render_readme'


def test_markers_are_paired_and_known() -> None:
    for path in FILES:
        text = path.read_text(encoding='utf-8')
        opened, closed = (re.findall(rf'<!-- {mark}results:([\w-]+) -->', text) for mark in ('', '/'))
        assert opened == closed
        assert set(opened) <= {*TABLES, *TEXTS}


def test_recorded_runs_come_from_committed_code() -> None:
    dirty = [result['name'] for result in read_results() if result['commit']['dirty']]
    assert not dirty, 'expected results of a clean checkout, so that the commit identifies the code'


def test_table_worked_out_by_hand(tmp_path: Path) -> None:
    for seed, mrr, seconds in ((0, 0.25, 10.0), (1, 0.75, 20.0)):
        metrics = {'label': 'EMU', 'test': {'mrr': mrr}, 'seconds': seconds}
        write_result(f'runs/emu-seed{seed}', metrics, seed=seed, command='make it', folder=tmp_path)
    write_result('runs/uniform', {'test': {'mrr': 0.125}, 'seconds': 9.5}, seed=0, command='make it', folder=tmp_path)
    lines = render(TABLE, tmp_path).splitlines()
    assert lines[:4] == [
        '| how | MRR | seconds | missing |',
        '| --- | ---: | ---: | ---: |',
        '| EMU | 0.500 ± 0.354 | 15.0 ± 7.1 | - |',
        '| runs/uniform | 0.125 | 9.500 | - |',
    ]
    assert lines[5].startswith('up to 2 seeds: mean ± standard deviation; ')
    assert lines[5].endswith('Made by `make it`.')


def test_counts_have_no_decimals(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_result(f'runs/emu-seed{seed}', {'test': {'mrr': 0.5 + seed}, 'seconds': 1713}, seed=seed, folder=tmp_path)
    assert render(TABLE, tmp_path).splitlines()[2] == '| runs/emu | 1.000 ± 0.707 | 1,713 | - |'


def test_equal_labels_name_their_machines(tmp_path: Path) -> None:
    for name, cpu in (('a', 'fast'), ('b', 'slow')):
        path = write_result(f'runs/{name}', {'label': 'step', 'seconds': 1}, folder=tmp_path)
        result = json.loads(path.read_text()) | {'machine': {'cpu': cpu, 'cores': 2, 'threads': 2, 'gpu': None}}
        path.write_text(json.dumps(result))
    lines = render(TABLE, tmp_path).splitlines()
    assert [line.split(' | ')[0] for line in lines[2:4]] == ['| step, fast', '| step, slow']


def test_many_commands_stand_in_their_files(tmp_path: Path) -> None:
    for seed in range(4):
        write_result(f'runs/emu-seed{seed}', {'test': {'mrr': 0.5}}, seed=seed, folder=tmp_path,
                     command=f'python -m benchmarks.emu --seeds {seed} -v')
    assert render(TABLE, tmp_path).splitlines()[-1].endswith(
        'Made by `python -m benchmarks.emu` with options that each file names.')
    assert render(TABLE, tmp_path).splitlines()[-1].startswith('4 seeds: ')
    write_result('runs/other', {'test': {'mrr': 0.5}}, seed=0, folder=tmp_path, command='make it')
    assert '`python -m benchmarks.emu` and `make` with options' in render(TABLE, tmp_path).splitlines()[-1]


@pytest.mark.parametrize(('cores', 'text'), [((1, ), '1 core;'), ((2, ), '2 cores;'), ((2, 1), '1 or 2 cores;')])
def test_cores_of_a_machine(tmp_path: Path, cores: tuple[int, ...], text: str) -> None:
    for seed, count in enumerate(cores):
        path = write_result(f'runs/emu-seed{seed}', {'test': {'mrr': 0.5}}, seed=seed, folder=tmp_path)
        result = json.loads(path.read_text())
        result['machine'] |= {'cpu': 'some CPU', 'gpu': None, 'cores': count}
        path.write_text(json.dumps(result))
    assert f'some CPU, {text}' in render(TABLE, tmp_path).splitlines()[-1]


def test_only_blocks_are_rewritten_and_twice_is_once(tmp_path: Path) -> None:
    path = tmp_path / 'README.md'
    path.write_text('before 0.9\n<!-- results:demo -->\nstale\n<!-- /results:demo -->\nafter\n')
    text = render_file(path, tmp_path)
    assert text == f'before 0.9\n<!-- results:demo -->\n{EMPTY}\n<!-- /results:demo -->\nafter\n'
    path.write_text(text)
    assert render_file(path, tmp_path) == text


def test_unknown_table(tmp_path: Path) -> None:
    path = tmp_path / 'README.md'
    path.write_text('<!-- results:nonsense -->\n<!-- /results:nonsense -->\n')
    with pytest.raises(KeyError, match='nonsense'):
        render_file(path, tmp_path)

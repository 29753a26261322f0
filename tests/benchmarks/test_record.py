from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import _record
from benchmarks._record import ROOT, command_line, git_commit, read_result, read_results, spread, write_result


def test_result_says_where_it_comes_from(tmp_path: Path) -> None:
    metrics = {'mrr': torch.tensor(0.5), 'hits': {10: np.float64(0.75)}, 'curve': [0.25, (1, 2)]}
    path = write_result('umls/emu-seed3', metrics, seed=3, command=['python', '-m', 'x'], folder=tmp_path)
    assert path == tmp_path / 'umls' / 'emu-seed3.json'
    result = read_result('umls/emu-seed3', tmp_path)
    assert result['metrics'] == {'mrr': 0.5, 'hits': {'10': 0.75}, 'curve': [0.25, [1, 2]]}
    assert (result['name'], result['seed'], result['command']) == ('umls/emu-seed3', 3, 'python -m x')
    assert result['versions']['torch'] == torch.__version__
    assert result['machine']['cores'] >= 1
    assert set(result['commit']) == {'hash', 'dirty'}
    assert result['date'].endswith('+00:00')


def test_a_refused_result_leaves_the_old_one_and_no_trace(tmp_path: Path) -> None:
    write_result('a', {'mrr': 0.5}, folder=tmp_path)
    for value in (float('nan'), float('inf')):
        with pytest.raises(ValueError, match='not JSON compliant'):
            write_result('a', {'mrr': value}, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']
    assert read_result('a', tmp_path)['metrics'] == {'mrr': 0.5}


def test_settings_may_be_infinite(tmp_path: Path) -> None:
    recipe = {'negatives': {'mutation': {'mu': float('inf'), 'range': [float('-inf'), 1.5]}}, 'description': 'inf'}
    path = write_result('a', {'mrr': 0.5, 'recipe': recipe}, folder=tmp_path)
    assert json.loads(path.read_text())['metrics']['recipe']['negatives']['mutation']['mu'] == '.inf'
    assert read_result('a', tmp_path)['metrics']['recipe'] == recipe
    assert read_results('*', tmp_path)[0]['metrics']['recipe'] == recipe


def test_an_interrupted_write_leaves_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result('a', {'mrr': 0.5}, folder=tmp_path)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_record.os, 'replace', interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_result('a', {'mrr': 0.75}, folder=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['a.json']
    assert read_result('a', tmp_path)['metrics'] == {'mrr': 0.5}


@pytest.mark.parametrize('name', ['../outside', '/outside'])
def test_a_name_stays_in_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='^name: '):
        write_result(name, {}, folder=tmp_path / 'results')


def test_no_path_of_this_machine_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'sets' / 'umls').mkdir(parents=True)
    (tmp_path / 'sets' / 'umls' / 'train.txt').touch()
    argv = ['python', f'{ROOT}/examples/demo.py', '--data', f'{tmp_path}/sets/umls', f'--data={tmp_path}/sets/umls',
            f'{tmp_path}/elsewhere/out', 'a b', 'https://example.org/a']
    expected = ('python examples/demo.py --data $PYG_EMU_DATA/umls --data=$PYG_EMU_DATA/umls out '
                "'a b' https://example.org/a")
    monkeypatch.delenv('PYG_EMU_DATA', raising=False)
    assert command_line(argv) == expected
    monkeypatch.setenv('PYG_EMU_DATA', f'{tmp_path}/sets')
    assert command_line(argv) == expected
    path = write_result('a', {'note': f'read from {tmp_path}/sets/umls'}, command=argv, folder=tmp_path)
    assert str(tmp_path) not in path.read_text()
    assert str(ROOT) not in path.read_text()


def test_module_is_recorded_as_it_was_started(tmp_path: Path) -> None:
    (tmp_path / 'probe.py').write_text('from benchmarks._record import command_line; print(command_line())')
    started = [sys.executable, '-m', 'probe', '--seed', '0']
    result = subprocess.run(started, cwd=tmp_path, env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert result.stdout.strip() == 'python -m probe --seed 0', result.stderr


def test_commit_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: str) -> str:
        raise FileNotFoundError('git')

    monkeypatch.setattr(_record, '_git', missing)
    monkeypatch.setenv('PYG_EMU_COMMIT', 'abc')
    assert git_commit() == {'hash': 'abc', 'dirty': None}


def test_rewriting_tables_does_not_change_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a@b', *arguments], cwd=tmp_path, check=True)

    git('init', '-q')
    (tmp_path / 'benchmarks' / 'results').mkdir(parents=True)
    for name in ('code.py', 'README.md', 'benchmarks/results/a.json'):
        (tmp_path / name).write_text('1')
    git('add', '.')
    git('commit', '-q', '-m', 'first')
    monkeypatch.setattr(_record, 'ROOT', tmp_path)
    for name in ('README.md', 'benchmarks/results/a.json'):
        (tmp_path / name).write_text('2')
    assert git_commit()['dirty'] is False
    (tmp_path / 'code.py').write_text('2')
    assert git_commit()['dirty'] is True


def test_reading(tmp_path: Path) -> None:
    for name in ('b/two', 'b/one', 'c'):
        write_result(name, {}, folder=tmp_path)
    assert [result['name'] for result in read_results('b/*', tmp_path)] == ['b/one', 'b/two']
    assert [result['name'] for result in read_results(folder=tmp_path)] == ['b/one', 'b/two', 'c']
    assert read_results('none*', tmp_path) == []
    assert json.loads((tmp_path / 'c.json').read_text())['name'] == 'c'


def test_spread() -> None:
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert spread([4.0]) == (4.0, 0.0)

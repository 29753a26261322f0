r"""Tests of the time limit of a piece of the GPU suite, and of results that are written as they come."""
from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _gpu_pieces, _record
from benchmarks._gpu_pieces import Unfinished, Work
from benchmarks._record import read_result

CLEAN = {'hash': 'c0ffee', 'dirty': False}


@pytest.fixture(autouse=True)
def commit(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    r"""The commit of the code, which a test may change."""
    found = dict(CLEAN)
    for module in (_gpu_pieces, _record):
        monkeypatch.setattr(module, 'git_commit', lambda: dict(found))
    return found


def never() -> Any:
    raise AssertionError('expected the case of the earlier call')


def test_cases_are_written_as_they_come(tmp_path: Path) -> None:
    work = Work('mine', tmp_path, seed=3)
    assert not work.is_recorded and work.left is None and not work.is_late
    assert work.measure('a', lambda: {'ms': 1.5}) == {'ms': 1.5}
    written = read_result('mine_unfinished', tmp_path)
    assert written['metrics'] == {'cases': {'a': {'ms': 1.5}}} and written['seed'] == 3
    assert work.measure('a', never) == {'ms': 1.5}

    other = Work('mine', tmp_path)
    assert other.measure('a', never) == {'ms': 1.5}
    other.measure('b', lambda: 2)
    path = other.finish({'cases': other.cases})
    assert read_result(path.stem, tmp_path)['metrics'] == {'cases': {'a': {'ms': 1.5}, 'b': 2}}
    assert other.is_recorded and not (tmp_path / 'mine_unfinished.json').exists()


@pytest.mark.parametrize('change', [{'hash': 'other'}, {'dirty': True}, {'hash': None}])
def test_cases_of_other_code_are_measured_again(tmp_path: Path, commit: dict[str, Any], change: dict[str, Any]) -> None:
    commit |= change
    Work('mine', tmp_path).measure('a', lambda: 1)
    if 'other' in change.values():
        commit |= CLEAN
    assert Work('mine', tmp_path).cases == {}


@pytest.mark.parametrize('name', ['machine', 'versions'])
def test_cases_of_another_machine_are_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     name: str) -> None:
    Work('mine', tmp_path).measure('a', lambda: 1)
    assert Work('mine', tmp_path).cases == {'a': 1}
    found = getattr(_gpu_pieces, name)()
    monkeypatch.setattr(_gpu_pieces, name, lambda: {**found, 'gpu': 'another', 'torch': '0'})
    assert Work('mine', tmp_path).cases == {}


def test_errors_are_tried_again(tmp_path: Path) -> None:
    work = Work('mine', tmp_path)
    work.measure('a', lambda: {'error': 'out of memory'})
    work.measure('b', lambda: 1)
    assert Work('mine', tmp_path).cases == {'b': 1}


def test_a_repeated_piece_is_unfinished_until_its_end(tmp_path: Path) -> None:
    Work('mine', tmp_path).finish({'old': 1})
    Work('mine', tmp_path).add('a', 1)
    assert Work('mine', tmp_path, again=True).cases == {}
    work = Work('mine', tmp_path)
    assert not work.is_recorded and work.cases == {'a': 1}
    work.finish({'new': 1})
    assert work.is_recorded and read_result('mine', tmp_path)['metrics'] == {'new': 1}


@pytest.mark.parametrize('processes', [1, 2])
def test_nothing_is_measured_when_the_time_is_over(tmp_path: Path, processes: int) -> None:
    Work('mine', tmp_path).add('a', 1)
    work = Work('mine', tmp_path, seconds=0.0)
    assert work.is_late and work.left == 0.0
    assert work.measure('a', never) == 1
    with pytest.raises(Unfinished, match='^b: '):
        work.measure('b', never)
    with pytest.raises(Unfinished):
        work.measure_all(operator.add, {case: (case, 'x') for case in 'abc'}, processes)
    assert read_result('mine_unfinished', tmp_path)['metrics']['cases'] == {'a': 1}


@pytest.mark.parametrize('processes', [1, 2])
def test_cases_of_several_processes(tmp_path: Path, processes: int) -> None:
    work = Work('mine', tmp_path)
    work.add('earlier', 5)
    work.measure_all(operator.truediv, {'earlier': (0, 0), 'a': (6, 4), 'b': (1, 0), 'c': (3, 3)}, processes)
    assert {**work.cases, 'b': None} == {'earlier': 5, 'a': 1.5, 'b': None, 'c': 1.0}
    assert 'ZeroDivisionError' in work.cases['b']['error']

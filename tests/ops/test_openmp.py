r"""PyTorch's threads: short waits, a hint where there are too many, forked children."""
from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from pyg_emu.ops import openmp

ROOT = Path(__file__).resolve().parents[2]
needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(openmp, '_teams', {})
    monkeypatch.setattr(openmp, '_hinted', False)
    monkeypatch.setattr(openmp, 'usable_cores', lambda: 2)
    for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'):
        monkeypatch.delenv(name, raising=False)
    yield
    torch.set_num_threads(before)


def sleeping() -> int:
    return sum(thread.name == 'pyg_emu-openmp' for thread in threading.enumerate())


@pytest.mark.skipif(sys.platform != 'linux', reason='GNU OpenMP')
def test_one_team_sleeps(two_threads: None) -> None:
    before = sleeping()
    for _ in range(3):
        openmp.shorten_waits()
    assert sleeping() == before + 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
    openmp.shorten_waits()
    assert sleeping() == before + 1


def test_the_user_decides_by_environment(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('OMP_WAIT_POLICY', 'active')
    before = sleeping()
    openmp.shorten_waits()
    assert sleeping() == before


def test_hint_where_there_are_more_threads_than_cores(two_threads: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, 'usable_cores', lambda: 1)
    with pytest.warns(UserWarning, match=r'2 threads .* 1 core.*torch\.set_num_threads\(1\)'):
        openmp.shorten_waits()


STEP = """
import multiprocessing, os, sys, torch
torch.set_num_threads(2)
from pyg_emu.ops.row_update import row_adagrad_

def step():
    value, total = torch.ones(40, 8), torch.zeros(40, 8)
    row_adagrad_(value, total, torch.arange(40), torch.ones(40, 8), 0.1, 1e-8, backend='numba')
    torch.ones(1 << 20).add_(1.0)  # on PyTorch's own threads
    return value

first = step()
"""
FORK = """
child = os.fork()
if child == 0:
    os._exit(3 if torch.equal(step(), first) else 4)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
MULTIPROCESSING = """
with multiprocessing.get_context('fork').Pool(2) as pool:
    print(pool.apply(torch.get_num_threads), torch.equal(pool.apply(step), first))
"""
REFUSED = """
child = os.fork()
if child == 0:
    from pyg_emu.core.errors import BackendError
    try:
        step()
    except BackendError as error:
        print(error, flush=True)
        os._exit(5)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def python(code: str, **environment: str) -> str:
    found = {name: value for name, value in os.environ.items() if name != 'OMP_NUM_THREADS'}
    run = subprocess.run([sys.executable, '-c', STEP + code], cwd=ROOT, capture_output=True, text=True, timeout=120,
                         env={**found, 'PYTHONPATH': str(ROOT), **environment})
    assert run.returncode == 0, run.stderr
    return run.stdout


@needs_fork
def test_forked_child_trains() -> None:
    assert python(FORK, NUMBA_THREADING_LAYER='workqueue') == '3\n'


@needs_fork
def test_child_of_multiprocessing_trains() -> None:
    assert python(MULTIPROCESSING, NUMBA_THREADING_LAYER='workqueue') == '1 True\n'


@needs_fork
def test_layer_that_does_not_survive_a_fork_is_refused() -> None:
    pytest.importorskip('numba.np.ufunc.omppool')
    said = python(REFUSED, NUMBA_THREADING_LAYER='omp')
    assert 'NUMBA_THREADING_LAYER=workqueue' in said and "'spawn'" in said and said.endswith('5\n')

r"""OpenMP threads: short waits beside other processes, a hint where there are too many, forked children."""
from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pyg_emu.ops import openmp

ROOT = Path(__file__).resolve().parents[2]
linux = pytest.mark.skipif(sys.platform != 'linux', reason='GNU OpenMP')
needs_fork = pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')


class Machine:
    r"""A clock and the time that threads wait for a core, as a test sets them."""
    def __init__(self) -> None:
        self.now = 100.0
        self.waited: float | None = 0.0

    def pass_time(self, seconds: float, share: float) -> None:
        self.now += seconds
        if self.waited is not None:
            self.waited += share * seconds
        openmp.adapt_waits()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    machine = Machine()
    monkeypatch.setattr(openmp.time, 'monotonic', lambda: machine.now)
    monkeypatch.setattr(openmp, 'waited_for_a_core', lambda: machine.waited)
    monkeypatch.setattr(openmp, '_teams_beyond_the_cores', lambda num_threads: num_threads - 1)
    monkeypatch.setattr(openmp, '_hinted', False)
    monkeypatch.setattr(openmp, 'usable_cores', lambda: 4)
    for name in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'):
        monkeypatch.delenv(name, raising=False)
    waits = openmp._Waits()
    monkeypatch.setattr(openmp, '_waits', waits)
    yield machine
    waits.spin()
    torch.set_num_threads(before)


def teams() -> int:
    return len(openmp._waits.teams)


@linux
def test_threads_sleep_while_other_processes_need_the_cores(machine: Machine) -> None:
    machine.pass_time(1.0, share=0.1)
    assert teams() == 0
    machine.pass_time(0.01, share=1.0)  # too soon to look
    assert teams() == 0
    machine.pass_time(0.15, share=0.4)
    assert teams() == 1 and torch.get_num_threads() == 2
    machine.pass_time(0.15, share=0.4)
    assert teams() == 1
    machine.pass_time(0.3, share=0.0)
    assert teams() == 1  # not quiet for long enough
    machine.pass_time(0.3, share=0.2)
    machine.pass_time(0.4, share=0.0)
    assert teams() == 1
    machine.pass_time(0.2, share=0.0)
    assert teams() == 0


@linux
def test_teams_follow_the_number_of_threads(machine: Machine) -> None:
    machine.pass_time(0.15, share=1.0)
    torch.set_num_threads(1)
    machine.pass_time(0.15, share=1.0)
    assert teams() == 0
    torch.set_num_threads(3)
    machine.pass_time(0.15, share=1.0)
    assert teams() == 2


@linux
def test_regions_of_other_libraries_run_in_threads_of_their_own(machine: Machine) -> None:
    ran_in = []
    done = threading.Event()

    def region() -> None:
        ran_in.append(threading.current_thread())
        done.set()

    machine.pass_time(1.0, share=0.0)
    machine.now += 1.0
    machine.waited = 1.0
    openmp.adapt_waits([region])
    assert done.wait(10) and ran_in[0] is not threading.current_thread() and ran_in[0].is_alive()
    assert teams() == 2
    openmp._waits.spin()
    ran_in[0].join(10)
    assert not ran_in[0].is_alive()  # its team ends with it


@linux
def test_threads_sleep_where_waiting_is_not_counted(machine: Machine) -> None:
    machine.waited = None
    machine.pass_time(0.15, share=0.0)
    machine.pass_time(9.0, share=0.0)
    assert teams() == 1


@linux
def test_time_spent_waiting_is_read_from_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for task, waited in (('1', 2_000_000_000), ('2', 500_000_000)):
        (tmp_path / task).mkdir()
        (tmp_path / task / 'schedstat').write_text(f'7 {waited} 3\n')
    monkeypatch.setattr(openmp, '_TASKS', tmp_path)
    assert openmp.waited_for_a_core() == pytest.approx(2.5)
    with monkeypatch.context() as ended:  # a thread that ends while they are counted
        listed = os.listdir(tmp_path)
        ended.setattr(openmp.os, 'listdir', lambda place: [*listed, '3'])
        assert openmp.waited_for_a_core() == pytest.approx(2.5)
    (tmp_path / '2' / 'schedstat').unlink()
    assert openmp.waited_for_a_core() is None
    monkeypatch.setattr(openmp, '_TASKS', tmp_path / 'nowhere')
    assert openmp.waited_for_a_core() is None


@pytest.mark.parametrize('num_threads, cores, expected', [(1, 2, 0), (2, 2, 1), (4, 4, 1), (4, 8, 2), (2, 8, 7),
                                                          (8, 2, 1)])
def test_teams_number_more_threads_than_cores(monkeypatch: pytest.MonkeyPatch, num_threads: int, cores: int,
                                              expected: int) -> None:
    monkeypatch.setattr(os, 'sched_getaffinity', lambda process: range(cores), raising=False)
    monkeypatch.setattr(os, 'cpu_count', lambda: cores)
    found = openmp._teams_beyond_the_cores(num_threads)
    assert found == expected
    assert found == 0 or num_threads + found * (num_threads - 1) > cores


@pytest.mark.parametrize('name', ['OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'])
def test_the_user_decides_by_environment(machine: Machine, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, 'active')
    machine.pass_time(1.0, share=1.0)
    assert teams() == 0


def test_hint_where_there_are_more_threads_than_cores(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmp, 'usable_cores', lambda: 1)
    with pytest.warns(UserWarning, match=r'2 threads .* 1 core.*torch\.set_num_threads\(1\)'):
        openmp.adapt_waits()


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

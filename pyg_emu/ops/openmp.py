r"""OpenMP threads beside other processes, under a quota, and after a fork.

Threads of GNU OpenMP, which PyTorch's Linux builds and Numba's layer :obj:`omp` use, wait for one another by spinning,
milliseconds at a time. On an idle machine, this is fastest. If another process occupies the core that one of them
needs, all of them wait until the scheduler releases it, and a step takes 5 to 50 times as long. If a process has more
OpenMP threads than cores, GNU OpenMP spins at most 100 times before a thread sleeps (GOMP_SPINCOUNT in its manual).
While other processes need the cores, :func:`adapt_waits` therefore keeps further teams of threads that only sleep. The
number of threads that compute does not change, so neither do results.
"""
from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from pyg_emu.core.cores import usable_cores
from pyg_emu.core.warn import warn

_logger = logging.getLogger(__name__)
_hinted = False
#: Elements beyond which PyTorch divides an elementwise operation among threads, several times over.
_ENOUGH = 1 << 18
_TASKS = Path('/proc/self/task')


class _Waits:
    r"""Whether threads sleep while they wait for one another.

    The measure is the time that threads of this process are ready to run and wait for a core, which Linux counts,
    relative to the elapsed time. On two cores, it is below 10 % on a quiet machine. Beside one process that is always
    busy, it is above 45 % while threads spin, and 20 to 60 % while they sleep.
    """
    #: Seconds between two looks at the counters.
    INTERVAL = 0.1
    #: Share of the elapsed time spent waiting for a core above which threads sleep, and below which they spin again.
    CROWDED, QUIET = 0.3, 0.15
    #: Seconds that the machine has to be quiet before threads spin again.
    PATIENCE = 0.5

    def __init__(self) -> None:
        self.teams: list[threading.Event] = []
        self.num_threads = 0
        self.looked_at = self.crowded_at = -math.inf
        self.waited = 0.0

    def look(self, regions: Sequence[Callable[[], None]]) -> None:
        _hint()
        now = time.monotonic()
        if sys.platform != 'linux' or {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
            self.looked_at = now
            return
        waited = waited_for_a_core()
        # Where it is not counted, threads always sleep, prepared for other processes.
        share = 1.0 if waited is None else max(0.0, waited - self.waited) / (now - self.looked_at)
        self.looked_at, self.waited = now, waited or 0.0
        if share > self.QUIET:
            self.crowded_at = now
        num_threads = torch.get_num_threads()
        if self.teams and (now - self.crowded_at > self.PATIENCE or num_threads != self.num_threads):
            self.spin()
        if share > self.CROWDED and not self.teams:
            self.num_threads = num_threads
            self.sleep([_region] * _teams_beyond_the_cores(num_threads) + list(regions))

    def sleep(self, regions: Sequence[Callable[[], None]]) -> None:
        for region in regions:
            end = threading.Event()
            threading.Thread(target=_keep, args=(region, end), name='pyg_emu-openmp', daemon=True).start()
            self.teams.append(end)

    def spin(self) -> None:
        for end in self.teams:
            end.set()
        self.teams = []


def adapt_waits(regions: Sequence[Callable[[], None]] = ()) -> None:
    r"""Lets OpenMP threads sleep while they wait for one another if other processes need the cores, and spin if none
    does. Takes a microsecond, and 0.1 milliseconds ten times a second. Not thread-safe: :func:`parallel_section` of
    :mod:`pyg_emu.ops.numba_runtime` calls it under its lock.

    Nothing happens where :obj:`OMP_WAIT_POLICY` or :obj:`GOMP_SPINCOUNT` states what the user wants, and on systems
    whose builds of PyTorch do without GNU OpenMP.

    Args:
        regions (sequence of callable, optional): Functions that run a parallel region of another OpenMP library than
            PyTorch's, on more threads than one. (default: :obj:`()`)
    """
    if time.monotonic() - _waits.looked_at >= _waits.INTERVAL:
        _waits.look(regions)


def waited_for_a_core() -> float | None:
    r"""Seconds that the threads of this process were ready to run and waited for a core; :obj:`None` where the system
    does not count them.
    """
    total = 0
    try:
        for task in os.listdir(_TASKS):
            try:
                total += int((_TASKS / task / 'schedstat').read_bytes().split()[1])
            except (FileNotFoundError, ProcessLookupError):
                if (_TASKS / task).exists():  # and not ended meanwhile: the system does not count
                    return None
    except (OSError, ValueError, IndexError):
        return None
    return total * 1e-9


def _keep(region: Callable[[], None], end: threading.Event) -> None:
    # A thread that starts a parallel region owns a team of OpenMP threads for as long as it lives.
    region()
    end.wait()


def _region() -> None:
    torch.zeros(_ENOUGH).add_(1.0)


def _teams_beyond_the_cores(num_threads: int) -> int:
    r"""How many teams make more threads than cores: the first brings all its threads, each further one shares one."""
    if num_threads == 1:
        return 0
    cores = len(os.sched_getaffinity(0)) if sys.platform == 'linux' else os.cpu_count() or 1
    return max(1, (cores - num_threads) // (num_threads - 1) + 1)


def _hint() -> None:
    global _hinted
    if _hinted:
        return
    num_threads, cores = torch.get_num_threads(), usable_cores()
    if num_threads > cores:
        _hinted = True
        warn(f'PyTorch runs {num_threads} threads where this process may use {cores} '
             f'core{"s" if cores > 1 else ""}; call torch.set_num_threads({cores}), or set '
             f'OMP_NUM_THREADS={cores} before Python starts')


_waits = _Waits()


def _after_fork() -> None:
    # The threads of the parent's teams do not exist in the child, which would wait for them without end. PyTorch's
    # DataLoader does the same in its workers.
    global _waits
    _waits = _Waits()
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        _logger.info('PyTorch runs on one thread in this process, as OpenMP does not survive a fork')


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)

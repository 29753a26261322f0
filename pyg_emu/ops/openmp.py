r"""PyTorch's OpenMP threads beside other processes, under a quota, and after a fork.

Threads of GNU OpenMP, which PyTorch's Linux builds use, wait for one another by spinning, milliseconds at a time. Where
another process has the core that one of them needs, all wait until the scheduler takes it away again: a step takes 20
to 50 times as long. Waits are short, at most 100 turns before a thread sleeps, once a process has more OpenMP threads
than cores (GOMP_SPINCOUNT in GNU's manual). :func:`shorten_waits` brings that about by a second team of threads, which
sleeps. No thread count changes, so neither do results.
"""
from __future__ import annotations

import logging
import os
import sys
import threading
import warnings

import torch

from pyg_emu.core.cores import usable_cores

_logger = logging.getLogger(__name__)
_lock = threading.Lock()
_teams: dict[int, threading.Thread] = {}
_hinted = False
#: Elements beyond which PyTorch divides an elementwise operation among threads, several times over.
_ENOUGH = 1 << 18


def shorten_waits() -> None:
    r"""Makes PyTorch's OpenMP threads sleep instead of spin, once for each number of threads.

    Nothing happens where they number one, where :obj:`OMP_WAIT_POLICY` or :obj:`GOMP_SPINCOUNT` states what the user
    wants, and on systems whose builds of PyTorch do without GNU OpenMP.
    """
    num_threads = torch.get_num_threads()
    if num_threads in _teams or num_threads == 1:
        return
    with _lock:
        if num_threads in _teams:
            return
        _teams[num_threads] = threading.current_thread()
        _hint(num_threads)
        if sys.platform != 'linux' or {'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'} & os.environ.keys():
            return
        ready = threading.Event()

        def keep() -> None:
            torch.zeros(_ENOUGH).add_(1.0)
            ready.set()
            threading.Event().wait()

        # A thread that starts a parallel region owns a team for as long as it lives.
        _teams[num_threads] = threading.Thread(target=keep, name='pyg_emu-openmp', daemon=True)
        _teams[num_threads].start()
        ready.wait()


def _hint(num_threads: int) -> None:
    global _hinted
    cores = usable_cores()
    if num_threads > cores and not _hinted:
        _hinted = True
        warnings.warn(f'PyTorch runs {num_threads} threads where this process may use {cores} '
                      f'core{"s" if cores > 1 else ""}; call torch.set_num_threads({cores}), or set '
                      f'OMP_NUM_THREADS={cores} before Python starts', stacklevel=3)


def _after_fork() -> None:
    # The threads of the parent's teams do not exist in the child, which would wait for them without end. PyTorch's
    # DataLoader does the same in its workers.
    global _lock
    _lock = threading.Lock()
    _teams.clear()
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
        _logger.info('PyTorch runs on one thread in this process, as OpenMP does not survive a fork')


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)

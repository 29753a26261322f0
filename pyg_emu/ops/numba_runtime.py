r"""Shared settings of Numba kernels: the disk cache, the number of threads and the parallel section."""
from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch

_logger = logging.getLogger(__name__)
_lock = threading.RLock()
_announced: set[str] = set()

#: Fast-math flags: sums may be reassociated for vectorization, but NaN and infinity are preserved.
FASTMATH = {'reassoc', 'contract', 'arcp', 'nsz'}


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    r""":func:`numba.njit` with a disk cache. The cache is next to the module, or in the user's cache directory if the
    installation is read-only. If neither is writable, kernels are not cached.
    """
    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate


def announce(operator: str, kernel: Any) -> None:
    r"""Logs once per process that the kernels of :obj:`operator` may be compiled, and the location of the cache."""
    if operator not in _announced:
        _announced.add(operator)
        _logger.info('%s: compiling Numba kernels that are not cached yet (takes seconds); cache: %s',
                     operator, kernel.stats.cache_path or 'none, because no cache directory is writable')


@contextmanager
def parallel_section() -> Iterator[None]:
    r"""Context manager that runs kernels with PyTorch's number of threads.

    Only one section runs at a time. Numba's fallback threading layer does not support concurrent calls, and concurrent
    sections would compete for the same cores. The previous number of threads is restored on exit.
    """
    with _lock:
        before = numba.get_num_threads()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            numba.set_num_threads(before)

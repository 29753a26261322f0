r"""What Numba kernels share: the cache on disk, the number of threads, one parallel section at a time."""
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

#: What kernels may assume: sums are reassociated, to fill vector registers, but NaN and infinity keep their meaning.
FASTMATH = {'reassoc', 'contract', 'arcp', 'nsz'}


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    r""":func:`numba.njit` with a cache on disk: beside the module; in the user's cache directory where the installation
    is read-only; or none, where neither can be written.
    """
    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return decorate


def announce(operator: str, kernel: Any) -> None:
    r"""Logs, once per process, that :obj:`operator` may have to be compiled and where the result is kept."""
    if operator not in _announced:
        _announced.add(operator)
        _logger.info('%s: preparing Numba kernels; those that are new take some seconds and are then kept in %s',
                     operator, kernel.stats.cache_path or 'memory, as no directory for a cache is writable')


@contextmanager
def parallel_section() -> Iterator[None]:
    r"""Runs kernels on as many threads as PyTorch uses.

    One section runs at a time: Numba's fallback threading layer must not be entered twice, and two sections would only
    compete for the same cores. The setting of the surrounding program is restored.
    """
    with _lock:
        before = numba.get_num_threads()
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        try:
            yield
        finally:
            numba.set_num_threads(before)

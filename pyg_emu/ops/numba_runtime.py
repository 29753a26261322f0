r"""Shared settings of Numba kernels: the disk cache, the threads, and the parallel section."""
from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.core import event
from numba.core.caching import IndexDataCacheFile

from pyg_emu.core.cores import usable_cores
from pyg_emu.core.errors import BackendError
from pyg_emu.ops.openmp import adapt_waits

_logger = logging.getLogger(__name__)
_lock = threading.RLock()

#: Fast-math flags: sums may be reassociated for vectorization, but NaN and infinity are preserved.
FASTMATH = {'reassoc', 'contract', 'arcp', 'nsz'}


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    r""":func:`numba.njit` with a disk cache in :func:`cache_folder`. If that is not writable, Numba chooses a
    directory; if none is writable, kernels are not cached.
    """
    def decorate(function: Callable[..., Any]) -> Any:
        # Numba chooses the directory when it decorates. The setting of the surrounding program is restored.
        config: Any = numba.config
        before = config.CACHE_DIR
        try:
            config.CACHE_DIR = str(cache_folder(Path(function.__code__.co_filename)))
            return _keep(numba.njit(cache=True, **options)(function))
        except (RuntimeError, OSError):
            config.CACHE_DIR = before
            try:
                return _keep(numba.njit(cache=True, **options)(function))
            except RuntimeError:
                return numba.njit(**options)(function)
        finally:
            config.CACHE_DIR = before

    return decorate


class _KernelFiles(IndexDataCacheFile):
    r"""The files of a kernel in the disk cache, safe to be written by several processes at once.

    Numba numbers them. Two processes that compile a kernel for different types at the same time may choose the same
    number, and then the index leads to the code of the wrong types. Here, each file has a name of its own. At worst,
    the index lacks an entry, and a kernel is compiled again.
    """
    def _data_name(self, number: int) -> str:
        return self._data_name_pattern.format(number=number).removesuffix('nbc') + uuid.uuid4().hex[:16] + '.nbc'


def _keep(kernel: Any) -> Any:
    config: Any = numba.config
    if config.DISABLE_JIT:  # and the kernel is the Python function
        return kernel
    cache, files = kernel._cache, kernel._cache._impl
    cache._cache_file = _KernelFiles(cache.cache_path, files.filename_base, files.locator.get_source_stamp())
    return kernel


def cache_folder(source: Path) -> Path:
    r"""The directory of the compiled kernels of a module: a subfolder of :obj:`NUMBA_CACHE_DIR` or, where that is not
    set, of :obj:`pyg_emu/numba` in the user's cache directory, so that uninstalling the package leaves nothing among
    the packages.

    Numba compiles a kernel anew when its own module has changed. Kernels also contain the functions that they call, of
    other modules, which Numba does not look at. The subfolder is therefore named after the content of all sources that
    the kernels of :obj:`source` are compiled from.

    Args:
        source (Path): The file of the module.
    """
    if os.environ.get('NUMBA_CACHE_DIR'):
        return Path(os.environ['NUMBA_CACHE_DIR'], _fingerprint(source.parent))
    home = Path.home()
    if sys.platform == 'win32':
        base = Path(os.environ.get('LOCALAPPDATA') or home / 'AppData' / 'Local')
    elif sys.platform == 'darwin':
        base = home / 'Library' / 'Caches'
    else:
        base = Path(os.environ.get('XDG_CACHE_HOME') or home / '.cache')
    return base / 'pyg_emu' / 'numba' / _fingerprint(source.parent)


@functools.cache
def _fingerprint(folder: Path) -> str:
    r"""A digest of the modules in a folder and of the helpers that all kernels share."""
    digest = hashlib.sha256()
    for path in sorted({*folder.glob('*.py'), *Path(__file__).parent.glob('numba_*.py')}):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class _Announcer(event.Listener):
    r"""Says once for each operator that its kernels are being compiled, which takes long enough to look like a hang.

    Numba triggers the event only for what the cache does not hold. The level is that of a warning because Python shows
    it without any configuration; the logger :obj:`pyg_emu` silences it.
    """
    def __init__(self) -> None:
        self.announced: set[str] = set()

    def on_start(self, event: Any) -> None:
        name = event.data['dispatcher'].py_func.__module__
        module = name.split('.')
        if module[:2] != ['pyg_emu', 'ops'] or name == __name__:  # the kernel of this module takes a second
            return
        operator = module[2].removeprefix('numba_')
        if operator not in self.announced:
            self.announced.add(operator)
            _logger.warning('pyg_emu: compiling kernels (%s), once for this machine; this takes seconds to a minute. '
                            '"pyg-emu warmup" compiles them in advance.', operator)

    def on_end(self, event: Any) -> None:
        pass


announcer = _Announcer()
event.register('numba:compile', announcer)


@contextmanager
def parallel_section() -> Iterator[None]:
    r"""Context manager that runs kernels with PyTorch's number of threads, but no more than there are usable cores.

    Only one section runs at a time. Numba's own threading layer does not support concurrent calls, and concurrent
    sections would compete for the same cores. The previous number of threads is restored on exit.

    Raises:
        BackendError: If the process was forked from one whose kernels ran on a threading layer that does not survive
            a fork.
    """
    with _lock:
        adapt_waits(_launch())
        before = numba.get_num_threads()
        limit: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
        numba.set_num_threads(min(torch.get_num_threads(), limit, usable_cores()))
        try:
            yield
        finally:
            numba.set_num_threads(before)


_launched_in: int | None = None
_openmp_regions: tuple[Callable[[], None], ...] = ()


def _launch() -> tuple[Callable[[], None], ...]:
    r"""Starts the threads of Numba's threading layer, and refuses one that a fork has left without threads.

    The layer is Numba's choice or the user's. Threads of :obj:`workqueue` always sleep while they wait, and survive a
    fork, but make steps on a quiet machine slower than those of OpenMP.

    Returns:
        A parallel region for :func:`~pyg_emu.ops.openmp.adapt_waits` where the layer is OpenMP on more than one thread.
    """
    global _launched_in, _openmp_regions
    if _launched_in == os.getpid():
        return _openmp_regions
    try:
        layer = numba.threading_layer()
    except ValueError:  # not started yet
        numba.get_num_threads()
        layer = numba.threading_layer()
    if _forked and layer == 'omp' and sys.platform == 'linux':
        raise BackendError("Numba's threading layer 'omp' was started before this process was forked, and would end "
                           "it. Set NUMBA_THREADING_LAYER=workqueue, or start processes by 'spawn' instead of 'fork'")
    _launched_in = os.getpid()
    if layer == 'omp' and numba.config.NUMBA_NUM_THREADS > 1:  # type: ignore[attr-defined]
        _add_one(np.zeros(1))  # compiled now, with the other kernels
        _openmp_regions = _region,
    return _openmp_regions


def _region() -> None:
    numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    _add_one(np.zeros(64))


@jit(parallel=True)
def _add_one(values: Any) -> None:
    for i in numba.prange(len(values)):
        values[i] += 1.0


_forked = False


def _after_fork() -> None:
    global _lock, _forked
    _lock = threading.RLock()  # a thread that does not exist here may have held the old one
    try:
        _forked = bool(numba.threading_layer())
    except ValueError:  # not started yet
        pass


if hasattr(os, 'register_at_fork'):
    os.register_at_fork(after_in_child=_after_fork)

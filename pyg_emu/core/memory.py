r"""Recognition of failed allocations that different libraries report."""
from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

import torch

from pyg_emu.core.errors import OutOfMemoryError

# What PyTorch's allocators say in a RuntimeError of no class of its own.
_PHRASES = ("can't allocate memory", 'not enough memory', 'out of memory', 'bad_alloc', 'cannot allocate memory',
            'storage size calculation overflowed', 'invalid buffer size', 'numel: integer multiplication overflow')


def is_out_of_memory(error: BaseException) -> bool:
    r"""Whether an exception reports that memory could not be allocated on the host or on a device.

    Args:
        error (BaseException): The exception.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _PHRASES)


def release_memory() -> None:
    r"""Returns the cached memory of GPUs to the driver before a smaller attempt."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def installed_memory() -> Optional[int]:
    r"""The bytes of host memory that this process may use at most: those of the machine, of its container and of
    :obj:`ulimit -v`. :obj:`None` where the system does not tell.
    """
    limits = []
    try:
        limits.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    except (AttributeError, ValueError, OSError):  # Windows
        pass
    for path in ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory/memory.limit_in_bytes'):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # another version of cgroups, or no limit
            pass
    try:
        import resource
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        limits += [] if soft == resource.RLIM_INFINITY else [soft]
    except ImportError:
        pass
    return min((limit for limit in limits if limit > 0), default=None)


def check_fits(needed: int, task: str, remedy: str) -> None:
    r"""Refuses what exceeds the memory of the machine. Where systems promise more memory than they have, the
    allocation itself would succeed, and the process would be killed when it writes there.

    Args:
        needed (int): Bytes of host memory.
        task (str): What needs the memory, the subject of the sentence.
        remedy (str): What to do.

    Raises:
        OutOfMemoryError: If :obj:`needed` exceeds :func:`installed_memory`.
    """
    limit = installed_memory()
    if limit is not None and needed > limit:
        raise OutOfMemoryError(f'{task} needs {needed / 2**30:,.1f} GiB of memory, and {limit / 2**30:,.1f} GiB can be '
                               f'used; {remedy}')


@contextmanager
def memory_reported(task: str, remedy: str) -> Iterator[None]:
    r"""Turns a failed allocation inside of the block into an error of one sentence.

    Args:
        task (str): What needs the memory, the subject of the sentence.
        remedy (str): What to do.

    Raises:
        OutOfMemoryError: If memory could not be allocated.
    """
    try:
        yield
    except OutOfMemoryError:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(f'{task} needs more memory than is available; {remedy}') from error

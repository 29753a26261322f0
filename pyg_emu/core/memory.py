r"""Recognition of failed allocations, whichever library reports them."""
from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator

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

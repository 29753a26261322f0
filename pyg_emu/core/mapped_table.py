r"""Tables in memory-mapped files, for entity rows and optimiser state that do not fit into memory.

A mapped table is an ordinary tensor on the CPU, so that operators and optimisers read and write its rows in place. The
operating system reads those pages of the file that are touched, and takes memory back from pages that have not been
touched for a while. There are two kinds:

* :func:`create` makes a table for training. Its file has no name: no other process can open it, and it disappears when
  the process ends, also if it is killed. :func:`write_table` writes a copy that remains, such as for the checkpoints of
  a run.
* :func:`open_table` opens a file that :func:`write_table` has written. Changes stay in memory, and the file remains as
  it is.

Rows are looked up in any order. The operating system is advised of this, because it would otherwise read megabytes of
neighbouring rows with each row. Code that reads a whole table does so inside :func:`read_in_order`. A kernel would wait
for one row on the disk after the other; :func:`read_ahead` reads many at a time before the kernel runs.
"""
from __future__ import annotations

import functools
import math
import mmap
import os
import platform
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterator, Optional, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.files import open_regular, reason

try:
    import resource
except ImportError:  # not on this system
    resource = None  # type: ignore[assignment]

#: The types of a mapped table: those of the CPU kernels.
DTYPES = (torch.float32, torch.float64)

# Threads that wait for pages. A disk answers many requests in the time of one.
_READERS = 32
# Pages that a step may wait for without reading ahead, which takes time where all of them are in memory.
_FEW = 32
# Bytes that are written at a time.
_BLOCK = 2**24
# Of Linux. The constant of the standard library is newer than the oldest Python that is supported.
_NO_RESERVE = getattr(mmap, 'MAP_NORESERVE', 0x4000 if platform.machine() in ('x86_64', 'aarch64') else 0)


class _Mapping(mmap.mmap):
    r"""A mapped file, which lives as long as a tensor that shows it."""
    #: Where further tables go, or :obj:`None` if this one is not to be trained.
    folder: Optional[Path] = None
    #: Blocks that read it in order.
    readers: int = 0

    def advise(self) -> None:
        r"""Tells the system in which order rows are read, where it listens."""
        if hasattr(self, 'madvise'):
            self.madvise(mmap.MADV_NORMAL if self.readers > 0 else mmap.MADV_RANDOM)


# By the address of their first number.
_mappings: WeakValueDictionary[int, _Mapping] = WeakValueDictionary()


def is_mapped(tensor: Tensor) -> bool:
    r"""Whether a tensor shows rows of a mapped table, its own or those of a checkpoint."""
    return _mapping_of(tensor) is not None


def folder_of(tensor: Tensor) -> Optional[Path]:
    r"""The folder of a table that :func:`create` has made; :obj:`None` for any other tensor."""
    mapping = _mapping_of(tensor)
    return None if mapping is None else mapping.folder


def create(shape: Sequence[int], dtype: torch.dtype, folder: Path) -> Tensor:
    r"""Makes a table of zeros for training, in a file without a name.

    Args:
        shape (sequence of int): The shape of the table.
        dtype (torch.dtype): One of :obj:`DTYPES`.
        folder (Path): A folder on the disk that is to hold the file.

    Raises:
        CheckpointError: If the folder cannot be written to, or the disk has too little space.
    """
    size = math.prod(shape) * dtype.itemsize
    try:
        with tempfile.TemporaryFile(dir=folder, prefix='.pyg_emu-') as file:
            _reserve(file.fileno(), size)
            mapping = _Mapping(file.fileno(), size, access=mmap.ACCESS_WRITE)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'cannot make a table of {size / 2**30:,.1f} GiB in {folder} ({reason(error)}); free '
                              'some space, or choose a folder on another disk') from error
    mapping.folder = folder
    return _shown(mapping, shape, dtype, 0)


def create_like(tensor: Tensor, value: float = 0.0) -> Tensor:
    r"""Makes a table beside a mapped one, such as a moment of an optimiser.

    Args:
        tensor (torch.Tensor): A table that :func:`create` has made, or that shares its memory.
        value (float, optional): The value of all components. (default: :obj:`0.0`)

    Raises:
        ArgumentError: If the table is that of a checkpoint, beside which nothing is to be written.
        CheckpointError: See :func:`create`.
    """
    # Zeros are written, too: a file system would keep a list of the rows that are written later, among others that were
    # never written, which makes them slow.
    return _beside(tensor).fill_(value)


def _beside(tensor: Tensor) -> Tensor:
    folder = folder_of(tensor)
    if folder is None:
        raise ArgumentError('model: its entity rows are those of a checkpoint on the disk, which is not to be changed; '
                            'call map_entities(model, folder), which copies them, before the optimizer is created')
    return create(tensor.shape, tensor.dtype, folder)


def copied(tensor: Tensor, beside: Optional[Tensor] = None) -> Tensor:
    r"""A copy of a tensor, in a file if another tensor of its shape is in one.

    Args:
        tensor (torch.Tensor): The tensor.
        beside (torch.Tensor, optional): The other tensor. (default: the tensor itself)
    """
    beside = tensor if beside is None else beside
    if folder_of(beside) is None:
        return tensor.detach().clone()
    with read_in_order(tensor):
        return _beside(beside).copy_(tensor.detach())


@contextmanager
def read_in_order(*tensors: Tensor) -> Iterator[None]:
    r"""Announces that tables are read from the first row to the last inside of the block. Other tensors are left alone.

    Args:
        *tensors (torch.Tensor): The tables.
    """
    mappings = [mapping for mapping in map(_mapping_of, tensors) if mapping is not None]
    for mapping in mappings:
        mapping.readers += 1
        mapping.advise()
    try:
        yield
    finally:
        for mapping in mappings:
            mapping.readers -= 1
            mapping.advise()


def read_ahead(index: Tensor, *tables: Tensor) -> None:
    r"""Reads rows that are about to be used from the disk, many at a time, if pages were waited for of late.

    Args:
        index (torch.Tensor): The rows, int64.
        *tables (torch.Tensor): The tables, each contiguous. Those in memory are left alone.
    """
    mapped = [table for table in tables if _mapping_of(table) is not None]
    if not mapped or not _Waiting.look():
        return
    rows = index.detach().reshape(-1).numpy()
    parts = np.array_split(rows, min(_READERS, max(1, rows.size // 16)))
    jobs = [_readers().submit(_touch, table.detach().view(-1).numpy(), part, table.size(1))
            for table in mapped for part in parts]
    for job in jobs:
        job.result()


class _Waiting:
    r"""Whether this process has waited for pages since it was last asked."""
    pages = 0

    @classmethod
    def look(cls) -> bool:
        if resource is None:
            return False
        before, cls.pages = cls.pages, resource.getrusage(resource.RUSAGE_SELF).ru_majflt
        return cls.pages - before > _FEW


@functools.cache
def _readers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_READERS, thread_name_prefix='pyg_emu-reader')


def _touch(components: np.ndarray, rows: np.ndarray, width: int) -> None:
    r"""Reads a component of each page of some rows. NumPy lets other threads run meanwhile."""
    first = rows * width
    for offset in {*range(0, width, mmap.PAGESIZE // components.itemsize), width - 1}:
        components.take(first + offset)


def write_table(tensor: Tensor, file: IO[bytes]) -> None:
    r"""Writes a table in the format of :func:`numpy.save`, some rows at a time.

    Args:
        tensor (torch.Tensor): The table.
        file (file): A binary file.
    """
    array = tensor.detach().numpy()
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    rows = max(1, _BLOCK // max(1, array[:1].nbytes))
    with read_in_order(tensor):
        for start in range(0, len(array), rows):
            file.write(array[start:start + rows].data)


def open_table(path: Path, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    r"""Opens a table that :func:`write_table` has written. Changes to it do not reach the file.

    Args:
        path (Path): The file.
        shape (sequence of int): The shape that the table is to have.
        dtype (torch.dtype): The type that it is to have.

    Raises:
        CheckpointError: If the file cannot be read, or does not hold such a table.
    """
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    try:
        with open_regular(path) as file:
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError('its version is not 1.0')
            found, by_column, own = np.lib.format.read_array_header_1_0(file)
            if found != tuple(shape) or by_column or own != kind:
                raise ValueError(f'it holds {own} of shape {found}, and {kind} of shape {tuple(shape)} was expected')
            start = file.tell()
            if os.fstat(file.fileno()).st_size != start + math.prod(shape) * dtype.itemsize:
                raise ValueError('its size is not that of its table')
            mapping = _opened(file.fileno())
    except (OSError, ValueError) as error:
        raise CheckpointError(f'cannot read the table {path} ({reason(error)}); restore the file, use another '
                              'checkpoint of the run, or start over') from error
    return _shown(mapping, shape, dtype, start)


def _mapping_of(tensor: Tensor) -> Optional[_Mapping]:
    if not _mappings or tensor.device.type != 'cpu' or tensor.layout != torch.strided:
        return None
    return _mappings.get(tensor.untyped_storage().data_ptr())


def _opened(descriptor: int) -> _Mapping:
    if sys.platform != 'linux':
        return _Mapping(descriptor, 0, access=mmap.ACCESS_COPY)
    # Linux refuses a private mapping that may be written to and exceeds the memory, unless it is to reserve none.
    return _Mapping(descriptor, 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def _shown(mapping: _Mapping, shape: Sequence[int], dtype: torch.dtype, start: int) -> Tensor:
    kind: Any = torch.empty(0, dtype=dtype).numpy().dtype
    table = torch.from_numpy(np.frombuffer(mapping, kind, math.prod(shape), start)).view(*shape)
    _mappings[table.untyped_storage().data_ptr()] = mapping
    mapping.advise()
    return table


def _reserve(descriptor: int, size: int) -> None:
    r"""Gives a file its size, and its place on the disk. A full disk would otherwise kill the process in a step."""
    if hasattr(os, 'posix_fallocate'):
        os.posix_fallocate(descriptor, 0, size)
    else:
        os.ftruncate(descriptor, size)

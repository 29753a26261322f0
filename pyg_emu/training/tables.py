r"""Checkpoints of entity rows that are divided among processes, or in memory-mapped files.

The rows and their optimiser state are written into a folder of their own before the checkpoint that refers to them. The
checkpoint, :obj:`last.pt` or :obj:`best.pt`, holds everything else, and the name of the folder, the shapes of its
tensors and the digests of its files. A folder is never written to again, so a process that is killed at any moment
leaves the tables of the checkpoint before.

Divided rows are written by :mod:`torch.distributed.checkpoint`, each process its own part. Any number of processes
reads them: each reads the rows that it holds, and a process with a whole table all of them. The rows of each mapped
table are copied to a file of their own, in the format of :func:`numpy.save`. The tables that are trained on change
after that, and nothing refers to their files.
"""
from __future__ import annotations

import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Callable, Collection, Iterator, Mapping, Optional, Union

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.distributed import current, on_first, shared_errors
from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import Hashing, atomic_write, digest_of, new_digest, reason, rename, sync_folder
from pyg_emu.core.mapped_table import is_mapped, open_table, write_table
from pyg_emu.core.sharded_table import ShardedTable
from pyg_emu.models.sharded import sharded_tables

if TYPE_CHECKING:
    from torch.distributed.checkpoint import FileSystemReader

#: The key of a checkpoint that describes its tables, and that of a tensor that stands in them.
TABLES, TENSOR = 'tables', 'pyg_emu.table'

# What the metadata of a checkpoint consists of. A pickle could name any other function.
_METADATA = {
    ('torch.distributed.checkpoint.metadata', name) for name in (
        'Metadata', 'TensorStorageMetadata', 'ChunkStorageMetadata', 'MetadataIndex', 'TensorProperties',
        'BytesStorageMetadata', 'StorageMeta', '_MEM_FORMAT_ENCODING')
} | {('torch.distributed.checkpoint.filesystem', '_StorageInfo'), ('torch', 'Size'),
     ('torch.serialization', '_get_layout'), ('pathlib', 'PosixPath'), ('pathlib', 'WindowsPath')}


def write_tables(state: Mapping[str, Any], folder: Path, step: int) -> dict[str, Any]:
    r"""Writes the divided and the mapped tensors of a state. All processes have to call it.

    Args:
        state (dict): Tensors, numbers, and dictionaries and lists of them. A divided tensor is a
            :class:`~torch.distributed.tensor.DTensor`.
        folder (Path): The folder of all tables of a run.
        step (int): The step of the state, for the name of the tables.

    Returns:
        The state with a reference for each of these tensors: the state itself if there is none.

    Raises:
        CheckpointError: If the tables cannot be written.
    """
    tables: dict[str, Any] = {}
    mapped: dict[str, dict[str, Any]] = {}

    def refer(value: Any, place: str) -> Any:
        divided = hasattr(value, 'to_local')
        if not divided and not (isinstance(value, Tensor) and is_mapped(value)):
            return value
        tables[place] = value
        reference = {TENSOR: place, 'shape': list(value.shape), 'dtype': str(value.dtype).removeprefix('torch.')}
        return reference if divided else mapped.setdefault(place, reference)

    referring = _replaced(state, refer)
    if not tables:
        return dict(state)
    if mapped:  # of one process, which divides nothing
        referring[TABLES] = {'folder': _write_mapped(tables, mapped, folder, step), 'files': {}}
        return referring
    from torch.distributed.checkpoint import FileSystemWriter, save
    from torch.distributed.checkpoint.api import CheckpointException

    name = on_first(lambda: f'step-{step}-{os.urandom(4).hex()}')
    path = folder / name
    try:
        save(tables, storage_writer=FileSystemWriter(str(path), sync_files=True))
    except (CheckpointException, OSError) as error:
        raise CheckpointError(f'cannot write {path} ({_cause(error)}); free some space or choose another '
                              'folder, which all processes can write to') from error
    rank, world = current()
    digests: list[dict[str, str]] = [{} for _ in range(world)]
    own = [file for file in _files(path) if file.name.startswith(f'__{rank}_') or rank == 0 and file.name[0] == '.']
    with shared_errors():
        found = {file.name: _digest(file) for file in own}
    dist.all_gather_object(digests, found)
    referring[TABLES] = {'folder': name, 'files': {file: digest for part in digests for file, digest in part.items()}}
    return referring


def read_tables(state: Mapping[str, Any], folder: Path, model: torch.nn.Module) -> dict[str, Any]:
    r"""Reads the tensors that :func:`write_tables` has written: this process's rows if the model is divided, and whole
    tables if not. All processes of a divided model have to call it. Tensors that were mapped are mapped again, so that
    their rows are read where they are.

    Args:
        state (dict): What :func:`write_tables` has returned, or a part of it with the key :obj:`TABLES`.
        folder (Path): The folder of all tables of the run.
        model (torch.nn.Module): The model whose state it is.

    Raises:
        CheckpointError: If the tables are missing, damaged, or no tables of this package.
    """
    described = state.get(TABLES)
    if described is None:
        return dict(state)
    table = next(sharded_tables(model), None)
    tensors: dict[str, Any] = {}

    def make(value: Any, place: str) -> Any:
        if not (isinstance(value, dict) and TENSOR in value):
            return value
        if 'digest' in value:
            return _read_mapped(value, path)
        tensors[value[TENSOR]] = made = _empty(value, table)
        return made

    try:
        path = folder / Path(str(described['folder'])).name
        found = _replaced({key: value for key, value in state.items() if key != TABLES}, make)
        files = dict(described['files'])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f'the checkpoint refers to tables in {folder}, but does not describe them '
                              f'({reason(error)}); restore the checkpoint') from error
    with shared_errors():
        _check_files(path, files, *(current() if table is not None else (0, 1)))
    if not tensors:
        return found
    from torch.distributed.checkpoint import load
    from torch.distributed.checkpoint.api import CheckpointException
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', message='torch.distributed is disabled')
            load(tensors, storage_reader=_reader(path), no_dist=table is None)
    except (CheckpointException, OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f'{path} does not hold the tables that its checkpoint refers to ({_cause(error)}); '
                              'restore the folder, use another checkpoint of the run, or start over') from error
    return found


def tables_of(state: Mapping[str, Any]) -> Optional[str]:
    r"""The name of the tables that a state refers to, or :obj:`None`."""
    described = state.get(TABLES)
    return described.get('folder') if isinstance(described, dict) else None


def remove_tables(folder: Path, keep: Collection[Optional[str]] = ()) -> None:
    r"""Removes all tables of a run but those that are named, and the folder if nothing is left in it."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith('step-') and path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
    try:
        folder.rmdir()
    except OSError:
        pass


def whole_state(optimizer: Optimizer, model: torch.nn.Module) -> dict[str, Any]:
    r"""The state of an optimiser, in which what belongs to divided rows is a
    :class:`~torch.distributed.tensor.DTensor` of all of them.
    """
    state = optimizer.state_dict()
    return {**state, 'state': {number: {
        key: table.whole_like(value) if table is not None and _is_of(value, table.rows.shape) else value
        for key, value in values.items()} for number, values, table in _by_parameter(state, optimizer, model)}}


def own_state(state: Mapping[str, Any], optimizer: Optimizer, model: torch.nn.Module) -> dict[str, Any]:
    r"""The opposite of :func:`whole_state`, also for whole tensors."""
    return {**state, 'state': {number: {
        key: table.own_part(value) if table is not None and _is_of(value, table.shape) else value
        for key, value in values.items()} for number, values, table in _by_parameter(state, optimizer, model)}}


def _by_parameter(state: Mapping[str, Any], optimizer: Optimizer, model: torch.nn.Module
                  ) -> Iterator[tuple[int, Mapping[str, Any], Optional[ShardedTable]]]:
    tables = {id(table.rows): table for table in sharded_tables(model)}
    parameters = [value for group in optimizer.param_groups for value in group['params']]
    for number, values in state['state'].items():
        yield number, values, tables.get(id(parameters[number])) if number < len(parameters) else None


def _is_of(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def _empty(described: Mapping[str, Any], table: Optional[ShardedTable]) -> Any:
    dtype, shape = getattr(torch, described['dtype']), [int(size) for size in described['shape']]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f'{dtype} is no type of a tensor')
    if table is None:
        return torch.empty(shape, dtype=dtype)
    return table.whole_like(torch.empty([table.rows.size(0), *shape[1:]], dtype=dtype, device=table.device))


def _replaced(value: Any, function: Callable[[Any, str], Any], place: str = '') -> Any:
    r"""A copy of nested dictionaries and lists in which each value is what the function makes of it and its place."""
    value = function(value, place)
    if isinstance(value, Mapping) and TENSOR not in value:
        # The state of a module is of a class of its own.
        return {key: _replaced(one, function, f'{place}.{key}' if place else str(key)) for key, one in value.items()}
    if isinstance(value, list):
        return [_replaced(one, function, f'{place}.{number}') for number, one in enumerate(value)]
    return value


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.endswith('.tmp'))


def _write_mapped(tables: Mapping[str, Tensor], references: Mapping[str, dict[str, Any]], folder: Path, step: int
                  ) -> str:
    r"""Writes each table to a file, adds the digests of the files to the references, and returns the name of their
    folder, which depends on the content alone.
    """
    path = folder / f'step-{step}-{os.urandom(4).hex()}.tmp'  # removed with all tables that no checkpoint refers to
    try:
        path.mkdir(parents=True)
        digest = new_digest()
        for place, table in tables.items():
            references[place]['digest'] = _write_table(table, path / f'{place}.npy')
            digest.update(references[place]['digest'].encode())
        name = f'step-{step}-{digest.hexdigest()[:16]}'
        if (folder / name).exists():  # the same state, such as before a validation that failed
            shutil.rmtree(path)
        else:
            rename(path, folder / name)
        sync_folder(folder.parent)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, OSError):
            raise CheckpointError(f'cannot write {path} ({reason(error)}); free some space or choose another '
                                  'folder') from error
        raise
    return name


def _write_table(table: Tensor, path: Path) -> str:
    r"""Writes a table to a file and returns the digest of the file."""
    digest = ''

    def write(file: IO[bytes]) -> None:
        nonlocal digest
        hashing: Any = Hashing(file)
        write_table(table, hashing)
        digest = hashing.digest.hexdigest()

    atomic_write(path, write)
    return digest


def _read_mapped(described: Mapping[str, Any], folder: Path) -> Tensor:
    dtype, shape = getattr(torch, described['dtype']), [int(size) for size in described['shape']]
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f'{dtype} is no type of a tensor')
    path = folder / Path(f'{described[TENSOR]}.npy').name
    _check_file(path, str(described['digest']))
    return open_table(path, shape, dtype)


def _digest(path: Path) -> str:
    try:
        return digest_of(path)
    except OSError as error:
        raise CheckpointError(f'cannot read {path} ({reason(error)}); restore the file, use another checkpoint of the '
                              'run, or start over') from error


def _check_files(path: Path, digests: Mapping[str, str], rank: int, world: int) -> None:
    r"""Checks the digests of the files, each in one of the processes."""
    for number, (name, digest) in enumerate(sorted(digests.items())):
        if number % world == rank:
            _check_file(path / Path(name).name, digest)


def _check_file(path: Path, digest: str) -> None:
    if _digest(path) != digest:
        raise CheckpointError(f'{path} is truncated or damaged (its digest differs from that in the checkpoint); '
                              'restore the file, use another checkpoint of the run, or start over')


def _reader(path: Path) -> FileSystemReader:
    r"""A reader that does not execute what a file from an unknown source says."""
    from torch.distributed.checkpoint import FileSystemReader, Metadata

    class Reader(FileSystemReader):
        def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
            with open(path / '.metadata', 'rb') as file:
                metadata = _MetadataUnpickler(file).load()
            if not isinstance(metadata, Metadata):
                raise ValueError(f'{path / ".metadata"} holds no metadata')
            if metadata.storage_meta is not None:
                metadata.storage_meta.load_id = self.load_id
            return metadata

    return Reader(path)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _METADATA or module == 'torch' and isinstance(getattr(torch, name, None), torch.dtype):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'it names {module}.{name}, which is no metadata')


def _cause(error: Union[BaseException, Any]) -> str:
    r"""The failure of the first process that failed."""
    failures = getattr(error, 'failures', None)
    first = next(iter(failures.values()))[0] if failures else error
    return reason(first) if isinstance(first, Exception) else str(first)

r"""A fact store: a folder whose files are mapped into memory, for graphs whose facts do not fit comfortably.

The facts of each split are one file in NumPy's format, of shape :obj:`(3, F)` with heads, tails and relations as rows,
in int32 where all ids fit. Opening a store reads no facts: the system loads the parts that are used, drops them when
memory is short, and holds them once for all processes of a machine.

.. code-block:: text

    store.json                            sizes, data type, and the digests of the other files
    train.npy, valid.npy, test.npy        facts
    entities.json, relations.json         labels, in the order of their ids

:obj:`store.json` is written last, so a folder without it is no store.
"""
from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Optional, Union

import numpy as np
import torch

from pyg_emu.core.arguments import boolean, file_path, positive_integer, shown
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.core.files import atomic_write, open_regular, read_bytes, reason
from pyg_emu.data.checks import FACT_KEYS, check_data
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.collector import labels_of, warn_of_new_entities
from pyg_emu.data.io.columns import Column
from pyg_emu.data.io.parquet import BATCH, Chunk, FactSource, ParquetFacts, parquet_files, source_of
from pyg_emu.data.io.readers import unknown_relation
from pyg_emu.data.io.vocabulary import Vocabulary

#: The file that makes a folder a store.
MANIFEST = 'store.json'
_LABELS = {'entity_labels': 'entities.json', 'relation_labels': 'relations.json'}
_SIZES = {'entity_labels': 'num_nodes', 'relation_labels': 'num_relations'}
_FORMAT = 1
# What a store keeps of a graph.
_KEPT = (*FACT_KEYS, *_LABELS, 'num_nodes', 'num_relations')
_NARROW = np.dtype('<i4')
_WIDE = np.dtype('<i8')


def is_fact_store(folder: Path) -> bool:
    r"""Whether a folder is a fact store."""
    return (folder / MANIFEST).is_file()


def write_fact_store(
    source: Union[KGData, str, os.PathLike],
    folder: Union[str, os.PathLike],
    *,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    num_nodes: Optional[int] = None,
    num_relations: Optional[int] = None,
) -> Path:
    r"""Writes a fact store, which :func:`open_fact_store` and :func:`~pyg_emu.load_dataset` open.

    Parquet files are read in batches, so memory holds the distinct labels, and never all facts. Labels get the ids that
    :func:`~pyg_emu.load_dataset` gives them. Columns of integers hold ids from 0 on.

    .. code-block:: python

        write_fact_store('path/to/parquet', 'store')        # train.parquet, valid.parquet, test.parquet
        write_fact_store(load_dataset('path/to/text'), 'store')
        data = load_dataset('store')

    Args:
        source (KGData or str or os.PathLike): A graph, without inverse relations; a Parquet file, whose rows are
            training facts; or a folder of :obj:`train.parquet` and, if there are any, :obj:`valid.parquet` and
            :obj:`test.parquet`. Parquet needs the package pyarrow.
        folder (str or os.PathLike): The folder of the store, new or empty.
        head (str or int, optional): The column of the heads of Parquet files: its name, or its position from 0.
            (default: the one called head, or a usual synonym)
        relation (str or int, optional): The column of the relations. (default: likewise)
        tail (str or int, optional): The column of the tails. (default: likewise)
        num_nodes (int, optional): The number of entities, where columns hold ids. (default: the largest id plus one)
        num_relations (int, optional): The number of relations, where columns hold ids. (default: likewise)

    Returns:
        pathlib.Path: The folder.

    Raises:
        ArgumentError: If an argument is invalid, or pyarrow is not installed.
        DataError: If the source cannot be read, or holds something that is not a fact, names file, column and row; if
            a graph has attributes that the store does not keep; or if the folder holds other files.
        CheckpointError: If the store cannot be written.
    """
    file_path('folder', folder)
    target = Path(folder).expanduser()
    if not isinstance(source, (KGData, str, os.PathLike)):
        raise ArgumentError(f'source: expected a KGData, or the path of a Parquet file or of a folder with '
                            f'train.parquet, got {shown(source)}')
    options: dict[str, Any] = {'head': head, 'relation': relation, 'tail': tail, 'num_nodes': num_nodes,
                               'num_relations': num_relations}
    with ExitStack() as stack:
        if isinstance(source, KGData):
            given = [name for name, value in options.items() if value is not None]
            if given:
                raise ArgumentError(f'{given[0]}: applies to Parquet files, and the source is a KGData; leave it out')
            found = _of_graph(source)
            _prepare(target)
        else:
            files = parquet_files(Path(file_path('source', source)).expanduser())
            for name in ('num_nodes', 'num_relations'):
                if options[name] is not None:
                    options[name] = int(positive_integer(name, options[name]))
            tables = {split: ParquetFacts(path, (head, relation, tail)) for split, path in files.items()}
            _prepare(target)
            found = source_of(tables, options['num_nodes'], options['num_relations'], target, stack)
        _write(found, target)
    return target


def open_fact_store(
    folder: Union[str, os.PathLike],
    *,
    labels: bool = True,
    verify: bool = False,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Opens a fact store without reading its facts.

    :obj:`edge_index` and :obj:`edge_type` of the graph are int32 where all ids fit, and mapped into memory. Modifying
    them changes neither the files nor what other processes see. Loaders, samplers and rankings take the graph as any
    other, and :meth:`~pyg_emu.KGData.columns` returns the facts without a copy.

    Args:
        folder (str or os.PathLike): A folder that :func:`write_fact_store` wrote.
        labels (bool, optional): Whether to read the labels, which take memory in each process. (default: :obj:`True`)
        verify (bool, optional): Whether to read all files and compare their digests. Without it, truncated files are
            noticed, and other damage is not. (default: :obj:`False`)
        vocabulary (KGData, optional): A graph whose relations this one shares, see
            :func:`~pyg_emu.data.io.files.from_folder`. Where ids differ, the relations of the facts are read into
            memory. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities and relations keep their ids. Where ids differ, the facts
            are read into memory. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is invalid.
        DataError: If the folder is no store, a file is missing or damaged, or a relation is not among those of the
            vocabulary; names the file.
    """
    file_path('folder', folder)
    boolean('labels', labels)
    boolean('verify', verify)
    path = Path(folder).expanduser()
    manifest = _read_manifest(path)
    if verify:
        for name, digest in manifest['digests'].items():
            if _digest(path / name) != digest:
                raise _damaged(path / name, 'its digest differs from that in the manifest')
    graph: dict[str, Any] = {}
    for split, count in manifest['facts'].items():
        columns = _mapped(path / f'{split}.npy', count)
        prefix = '' if split == 'train' else f'{split}_'
        graph[f'{prefix}edge_index'], graph[f'{prefix}edge_type'] = columns[:2], columns[2]
    graph |= {name: manifest[name] for name in ('num_nodes', 'num_relations')}
    for name, file in _LABELS.items():
        if labels and file in manifest['digests']:
            graph[name] = _read_labels(path / file, manifest[_SIZES[name]])
    shared = {'relation_labels': labels_of('entities' if vocabulary is None else 'vocabulary',
                                           entities if vocabulary is None else vocabulary, 'relation'),
              'entity_labels': labels_of('entities', entities, 'entity')}
    for name, known in shared.items():
        if known is not None:
            _share_ids(graph, name, known, path)
    return KGData(**graph)


def _share_ids(graph: dict[str, Any], name: str, known: list[str], folder: Path) -> None:
    r"""Gives relations or entities the ids of the same labels in another graph."""
    if name not in graph:
        raise DataError(f'{folder}: without labels, its ids cannot be those of another graph; write the store of a '
                        'graph with labels, and open it with labels=True')
    vocabulary = Vocabulary(known, closed=name == 'relation_labels')
    numbers = vocabulary.number(graph[name])
    if (numbers < 0).any():
        unknown = graph[name][int((numbers < 0).argmax())]
        raise DataError(f'{folder / _LABELS[name]}: {unknown_relation(unknown, known)}')
    labels, ids = vocabulary.finish()
    ids = ids[numbers]
    if name == 'entity_labels':
        warn_of_new_entities(known, labels)
    if not np.array_equal(ids, np.arange(len(ids))):
        place = torch.from_numpy(ids)
        for key in [key for key in graph if 'edge_' in key]:
            other = not key.endswith('edge_index' if name == 'entity_labels' else 'edge_type')
            # Both are int64 then, since index and types have one data type.
            graph[key] = graph[key].long() if other else place[graph[key]]
    graph |= {name: labels, _SIZES[name]: len(labels)}


# Reading ######################################################################

def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f'{folder}: no such folder; expected one that write_fact_store wrote')
    if not path.exists():
        raise DataError(f'{folder} is no fact store, or writing it was interrupted: it has no {MANIFEST}; write it '
                        'with write_fact_store')
    try:
        found = json.loads(read_bytes(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error
    if not isinstance(found, dict) or found.get('format') != _FORMAT:
        got = found.get('format') if isinstance(found, dict) else found
        raise DataError(f'{path}: expected format {_FORMAT}, got {got!r:.50}; write the store with this version')
    sizes = [found.get('num_nodes'), found.get('num_relations')]
    facts, digests = found.get('facts'), found.get('digests')
    if isinstance(facts, dict):
        sizes += facts.values()
    if (not isinstance(facts, dict) or 'train' not in facts or not set(facts) <= set(SPLITS)
            or not isinstance(digests, dict) or not set(digests) <= {*_LABELS.values(), *(f'{s}.npy' for s in facts)}
            or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes)):
        raise _damaged(path, 'a size or a name is missing or wrong')
    return found


def _mapped(path: Path, count: int) -> torch.Tensor:
    try:
        open_regular(path).close()
        # Copy on write: a page that is modified belongs to this process alone.
        columns = np.load(path, mmap_mode='c', allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, reason(error)) from error
    if columns.shape != (3, count) or columns.dtype not in (_NARROW, _WIDE) or not columns.flags.c_contiguous:
        raise _damaged(path, f'expected {count} facts of shape (3, {count}), got {columns.dtype} of shape '
                             f'{columns.shape}')
    return torch.from_numpy(columns)


def _read_labels(path: Path, count: int) -> list[str]:
    try:
        found = json.loads(read_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, reason(error)) from error
    if not isinstance(found, list) or len(found) != count or not all(isinstance(label, str) for label in found):
        raise _damaged(path, f'expected {count} labels')
    return found


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f'{path}: missing, truncated or damaged ({why}); write the store again with write_fact_store')


def _digest(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, 'sha256').hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise _damaged(path, reason(error)) from error


# Writing ######################################################################

def _prepare(folder: Path) -> None:
    r"""Makes the folder of a store. Files of a store that was not completed are overwritten."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise CheckpointError(f'cannot make the folder {folder} ({reason(error)}); choose another one') from error
    if MANIFEST in there:
        raise DataError(f'folder: {folder} holds a fact store already; remove it, or choose another folder')
    strange = [name for name in there if name not in (*_LABELS.values(), *(f'{split}.npy' for split in SPLITS))
               and not (name.startswith('.') and name.endswith('.tmp'))]
    if strange:
        raise DataError(f'folder: expected a new or empty folder, but {folder} holds {", ".join(strange[:3])}')


def _write(source: FactSource, folder: Path) -> None:
    narrow = max(source.num_nodes, source.num_relations) < 2**31
    digests = {}
    for split, count in source.counts.items():
        path = folder / f'{split}.npy'
        atomic_write(path, partial(_write_columns, count=count, dtype=_NARROW if narrow else _WIDE,
                                   batches=source.batches(split)))
        digests[path.name] = _digest(path)
    for name, file in _LABELS.items():
        labels = source.labels[name]
        if labels is not None:
            text = json.dumps(labels).encode()
            atomic_write(folder / file, partial(_write_bytes, content=text))
            digests[file] = hashlib.sha256(text).hexdigest()
    manifest = {'format': _FORMAT, 'num_nodes': source.num_nodes, 'num_relations': source.num_relations,
                'dtype': 'int32' if narrow else 'int64', 'facts': dict(source.counts), 'digests': digests}
    atomic_write(folder / MANIFEST, partial(_write_bytes, content=(json.dumps(manifest, indent=2) + '\n').encode()))


def _write_bytes(file: IO[bytes], content: bytes) -> None:
    file.write(content)


def _write_columns(file: IO[bytes], count: int, dtype: np.dtype, batches: Iterable[Chunk]) -> None:
    np.lib.format.write_array_header_1_0(file, {'descr': dtype.str, 'fortran_order': False, 'shape': (3, count)})
    begin, done = file.tell(), 0
    for batch in batches:
        for row, values in zip((0, 2, 1), batch):
            file.seek(begin + (row * count + done) * dtype.itemsize)
            file.write(np.ascontiguousarray(values, dtype).data)
        done += len(batch[0])
    if done != count:
        raise DataError(f'the source holds {done} facts, and held {count} when its size was read; leave it unchanged '
                        'while it is read')


# Graphs #######################################################################

def _of_graph(data: KGData) -> FactSource:
    check_data(data)
    if data.has_inverse_relations:
        raise DataError('source: expected a graph without inverse relations; write the original one, and call '
                        'with_inverse_relations() after opening the store')
    strange = [key for key, value in data._store.items() if key not in _KEPT and value is not None]
    if strange:
        raise DataError(f'source: a fact store keeps only facts and labels, but the graph has {", ".join(strange)}; '
                        'remove this from the graph, and keep it elsewhere')

    def batches(split: str) -> Iterator[Chunk]:
        columns = data.columns(split)  # type: ignore[arg-type]
        for chunks in zip(*(column.split(BATCH) for column in columns)):
            yield [chunk.cpu().numpy() for chunk in chunks]

    counts = {str(split): data.num_facts(split) for split in SPLITS if data.num_facts(split) > 0}
    return FactSource(data.num_nodes or 0, data.num_relations, {name: getattr(data, name) for name in _LABELS}, counts,
                   batches)

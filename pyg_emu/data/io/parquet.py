r"""Facts of Parquet files in batches, for files that are larger than memory."""
from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np

from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError, DataWarning
from pyg_emu.core.files import reason
from pyg_emu.core.warn import warn
from pyg_emu.data.io.columns import Column, chosen_columns
from pyg_emu.data.io.frames import require
from pyg_emu.data.io.splits import SPLIT_NAMES
from pyg_emu.data.io.vocabulary import Vocabulary

#: Facts that are read or converted at a time.
BATCH = 1 << 20
#: The names of labels.
LABELS = ('entity_labels', 'relation_labels')

#: Heads, relations and tails of some facts. shape: :obj:`(3, n)`, or three arrays of shape :obj:`(n,)`.
Chunk = Union[np.ndarray, Sequence[np.ndarray]]


class FactSource(NamedTuple):
    r"""What a store is written from: sizes, labels, and how many facts of each split there are and what they are."""
    num_nodes: int
    num_relations: int
    labels: Mapping[str, Optional[list[str]]]
    counts: Mapping[str, int]
    batches: Callable[[str], Iterable[Chunk]]


def parquet_files(source: Path) -> dict[str, Path]:
    r"""The Parquet file of each split.

    Args:
        source (Path): A file, whose rows are training facts, or a folder of files that are called like splits.

    Raises:
        DataError: If there is none of training facts, or several of one split.
    """
    if not source.is_dir():
        if not source.is_file():
            raise DataError(f'{source}: no such file or folder; expected a Parquet file, or a folder with '
                            'train.parquet')
        return {'train': source}
    found = {split: [source / f'{name}.parquet' for name in names if (source / f'{name}.parquet').is_file()]
             for split, names in SPLIT_NAMES.items()}
    for split, files in found.items():
        if len(files) > 1:
            raise DataError(f"{source}: several files for the split '{split}' "
                            f"({', '.join(file.name for file in files)}); keep one of them")
    if not found['train']:
        raise DataError(f'{source}: no file train.parquet; expected it, and valid.parquet and test.parquet if there '
                        'are held-out facts')
    return {split: files[0] for split, files in found.items() if files}


class ParquetFacts:
    r"""A Parquet file of facts, read in batches.

    Args:
        path (Path): The file.
        chosen (sequence): Its columns, as a caller chose them.

    Raises:
        DataError: If it is no Parquet file, a column is missing, or holds neither integers nor text.
    """
    def __init__(self, path: Path, chosen: Sequence[Optional[Column]]) -> None:
        require('pyarrow', f'source: reading {path}', 'write the store from a KGData')
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        self._errors = (pa.ArrowException, OSError)
        try:
            self._file = pq.ParquetFile(path)
        except self._errors as error:
            raise DataError(f'{path}: cannot be read as Parquet ({reason(error)})') from error
        schema = self._file.schema_arrow
        names = list(schema.names)
        self.names = [names[place] for place in chosen_columns(chosen, names, len(names), str(path)).places]
        unread = [name for name in names if name not in self.names]
        if unread:
            warn(f'{path}: columns that are not read: {", ".join(map(repr, unread))}', DataWarning)
        self.count: int = self._file.metadata.num_rows
        #: Whether each column holds labels, and not ids.
        self.labelled = []
        for name in self.names:
            kind = schema.field(name).type
            inner = kind.value_type if pa.types.is_dictionary(kind) else kind
            text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
            if not text and not pa.types.is_integer(inner):
                raise DataError(f'{path}: column {name!r} has type {kind}; expected integers, which are ids, or text, '
                                'which is labels')
            self.labelled.append(text)
        if self.labelled[0] != self.labelled[2]:
            raise DataError(f'{path}: of the columns {self.names[0]!r} and {self.names[2]!r}, one holds text and the '
                            'other one integers; expected labels in both, or ids in both')

    def batches(self) -> Iterator[tuple[int, list[Any]]]:
        r"""The first row and the columns, as arrow arrays, of each batch.

        Raises:
            DataError: If the file is damaged, or a value is missing.
        """
        row = 0
        try:
            for batch in self._file.iter_batches(BATCH, columns=self.names):
                found = [batch.column(batch.schema.get_field_index(name)) for name in self.names]
                for name, column in zip(self.names, found):
                    if column.null_count > 0:
                        place = row + int(np.asarray(column.is_null()).argmax())
                        raise DataError(f'{self.path}: column {name!r}, row {place} (from 0): the value is missing; '
                                        'expected a label or an id')
                yield row, found
                row += batch.num_rows
        except self._errors as error:
            raise DataError(f'{self.path}: cannot be read as Parquet ({reason(error)})') from error

    def ids(self, column: Any) -> np.ndarray:
        r"""A column of integers.

        Raises:
            DataError: If a number has more than 63 bits.
        """
        import pyarrow as pa

        try:
            return np.asarray(column.cast(pa.int64()))
        except pa.ArrowException as error:
            raise DataError(f'{self.path}: ids do not fit into 64 bits ({reason(error)})') from error

    def check_labels(self, name: str, found: Sequence[str], codes: np.ndarray, row: int) -> None:
        r"""Refuses labels that text files cannot hold either."""
        wrong = [place for place, label in enumerate(found) if label == '' or '\0' in label]
        if wrong:
            first = int(np.isin(codes, wrong).argmax())
            raise DataError(f'{self.path}: column {name!r}, row {row + first} (from 0): '
                            f'{found[int(codes[first])]!r} is not a label; expected text without null bytes')


def source_of(tables: Mapping[str, ParquetFacts], num_nodes: Optional[int], num_relations: Optional[int], folder: Path,
                stack: ExitStack) -> FactSource:
    r"""Reads all files once: labels get provisional ids, which are spooled to disk, and ids are checked.

    Args:
        tables (dict): The files of the splits.
        num_nodes (int, optional): The number of entities, where columns hold ids, or :obj:`None` to take the largest.
        num_relations (int, optional): The number of relations, likewise.
        folder (Path): The folder of the temporary files.
        stack (contextlib.ExitStack): What closes them.

    Raises:
        ArgumentError: If a number is given where columns hold labels.
        DataError: If a row is no fact; names file, column and row.
        CheckpointError: If a temporary file cannot be written.
    """
    first = tables['train']
    for table in tables.values():
        if table.labelled != first.labelled:
            raise DataError(f'{table.path}: its columns {table.names} do not hold the same kinds of values as those of '
                            f'{first.path}; expected labels in both, or ids in both')
        if table.count == 0:
            raise DataError(f'{table.path}: the file has no rows; expected one per fact')
    entities, relations, _ = first.labelled
    for name, given, labelled in (('num_nodes', num_nodes, entities), ('num_relations', num_relations, relations)):
        if given is not None and labelled:
            raise ArgumentError(f'{name}: applies to ids, and {first.path} holds labels; leave it out')
    vocabularies = Vocabulary(), Vocabulary()
    spools: dict[str, _Spool] = {}
    largest = [-1, -1]
    for split, table in tables.items():
        if any(table.labelled):
            spools[split] = _Spool(folder, stack)
        for row, columns in table.batches():
            found = []
            for number, (name, column) in enumerate(zip(table.names, columns)):
                if table.labelled[number]:
                    found.append(_numbered(table, name, column, vocabularies[number % 2], row))
                else:
                    found.append(_checked(table, name, column, row))
                    largest[number % 2] = max(largest[number % 2], int(found[-1].max(initial=-1)))
            if split in spools:
                spools[split].append(np.stack(found))
    labels: dict[str, Optional[list[str]]] = dict.fromkeys(LABELS)
    sizes, final = [], []
    for name, vocabulary, labelled, limit, most in zip(LABELS, vocabularies, (entities, relations),
                                                       (num_nodes, num_relations), largest):
        ids = None
        if labelled:
            labels[name], ids = vocabulary.finish()
            most = len(ids) - 1
        argument = 'num_nodes' if name == 'entity_labels' else 'num_relations'
        if limit is not None and most >= limit:
            raise DataError(f'{argument}: got {limit}, but the largest id in {first.path.parent} is {most}; expected '
                            f'at least {most + 1}')
        sizes.append(most + 1 if limit is None else limit)
        final.append(ids)

    def batches(split: str) -> Iterator[Chunk]:
        table = tables[split]
        if split not in spools:
            for _, columns in table.batches():
                yield [table.ids(column) for column in columns]
            return
        for part in spools[split].batches():
            yield [values if ids is None else ids[values] for values, ids in zip(part, (final[0], final[1], final[0]))]

    return FactSource(sizes[0], sizes[1], labels, {split: table.count for split, table in tables.items()}, batches)


def _numbered(table: ParquetFacts, name: str, column: Any, vocabulary: Vocabulary, row: int) -> np.ndarray:
    r"""The provisional ids of a column of labels."""
    import pyarrow as pa

    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = np.asarray(encoded.indices)
    if pa.types.is_dictionary(column.type):  # Its dictionary may hold labels that do not occur, or one of them twice.
        found = np.asarray(encoded.dictionary.to_pylist(), dtype=object)
        used, codes = np.unique(codes, return_inverse=True)
        distinct = found[used].tolist()
    else:
        distinct = encoded.dictionary.to_pylist()
    table.check_labels(name, distinct, codes, row)
    return vocabulary.number(distinct)[codes]


def _checked(table: ParquetFacts, name: str, column: Any, row: int) -> np.ndarray:
    r"""The ids of a column of integers, none of them negative."""
    ids = table.ids(column)
    if len(ids) and ids.min() < 0:
        place = int((ids < 0).argmax())
        raise DataError(f'{table.path}: column {name!r}, row {row + place} (from 0): expected an id of at least 0, got '
                        f'{int(ids[place])}')
    return ids


class _Spool:
    r"""Facts with provisional ids, in a temporary file that has no name.

    Args:
        folder (Path): The folder of the file.
        stack (contextlib.ExitStack): What closes it.
    """
    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._number = 0
        try:
            self._file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
        except OSError as error:
            raise self._failed(error) from error

    def append(self, columns: np.ndarray) -> None:
        r"""Adds some facts. shape: :obj:`(3, n)`."""
        try:
            np.save(self._file, columns)
            self._file.flush()
        except OSError as error:
            raise self._failed(error) from error
        self._number += 1

    def batches(self) -> Iterator[np.ndarray]:
        r"""The facts, as they were added."""
        self._file.seek(0)
        for _ in range(self._number):
            yield np.load(self._file)

    def _failed(self, error: OSError) -> CheckpointError:
        return CheckpointError(f'cannot write a temporary file to {self._folder} ({reason(error)}); free some space, '
                               'or choose another folder')

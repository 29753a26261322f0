r"""Tables in files, Parquet and JSON Lines, to labelled facts."""
from __future__ import annotations

import importlib.util
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import pandas as pd

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.io.columns import COLUMNS, Column, chosen_columns
from pyg_emu.data.io.frames import require
from pyg_emu.data.io.labelled import LabelledFacts
from pyg_emu.data.io.tables import frame_facts, table_columns
from pyg_emu.data.io.textfiles import Syntax, opened, records


def read_parquet(path: Path, chosen: Sequence[Optional[Column]], split: Optional[Column],
                 weights: Optional[Column] = None) -> LabelledFacts:
    r"""Returns the facts of a Parquet file, of which only the columns that are needed are read.

    Args:
        path (Path): The file.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`.
        split (str or int, optional): The column of splits.
        weights (str or int, optional): The column of weights. (default: :obj:`None`)

    Raises:
        ArgumentError: If pyarrow is not installed, or an argument is neither a name nor a position.
        DataError: If the file cannot be read, or a row is not a fact; names file, column and row.
    """
    with _parquet(path) as file:
        names = file.schema_arrow.names
        found = table_columns(names, chosen, split, str(path), weights)
        # A column of this name is looked at even if nobody has asked for it, to say so.
        wanted = list(dict.fromkeys([*found.read, *(place for place, name in enumerate(names) if name == 'split')]))
        for place in found.labels:
            _check_type(path, names[place], file.schema_arrow.field(place).type)
        table = file.read(columns=[names[place] for place in wanted])
    if len(set(names)) < len(names):
        raise DataError(f'{path}: several columns have the same name, {names!r}; expected distinct names')
    df = pd.DataFrame({names[place]: table.column(names[place]).to_pandas() for place in wanted})
    return frame_facts(df, (0, 1, 2), None if found.split is None else 3, str(path),
                       lambda row, name: f'{path}: column {name!r}, row {row}',
                       [name for place, name in enumerate(names) if place not in wanted],
                       None if found.weights is None else len(found.labels))


def _check_type(path: Path, name: str, kind: Any) -> None:
    import pyarrow.types

    value = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    if not (pyarrow.types.is_integer(value) or pyarrow.types.is_string(value) or pyarrow.types.is_large_string(value)
            or pyarrow.types.is_string_view(value) or pyarrow.types.is_null(value)):
        raise DataError(f'{path}: column {name!r} has the type {kind}; expected text or integers')


def read_json_lines(path: Path, chosen: Sequence[Optional[Column]], split: Optional[Column],
                    weights: Optional[Column] = None) -> LabelledFacts:
    r"""Returns the facts of a file with a JSON object, or an array of values, on each line.

    Args:
        path (Path): The file.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`: keys, or positions among the keys
            of the first line. Arrays are read by position.
        split (str or int, optional): The key of splits, or its position.
        weights (str or int, optional): The key of weights, or its position. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is neither a name nor a position.
        DataError: If the file cannot be read, or a line is not a fact; names file and line.
    """
    keys: list[Any] = []
    columns: list[list[Any]] = []
    numbers: list[int] = []
    names: dict[Any, None] = {}
    arrays = False
    asked_split = asked_weights = None
    for number, row in _json_lines(path):
        place = f'{path}:{number}'
        if not numbers:
            arrays = isinstance(row, list)
            names = dict.fromkeys(range(len(row)) if arrays else row)
            found = table_columns([*names], _positions(chosen) if arrays else chosen, split, place, weights)
            asked_split = found.split
            asked_weights = None if found.weights is None else len(found.labels)
            keys = [[*names][position] for position in found.read]
            columns = [[] for _ in range(len(keys) + 1)]
        if isinstance(row, list) != arrays or (arrays and len(row) != len(names)):
            first = f'an array of {len(names)} values' if arrays else 'an object'
            raise DataError(f'{place}: expected {first}, as in the line before, got {shown(row)}')
        for key, column in zip(keys, columns):
            if not arrays and key not in row:
                raise DataError(f'{place}: there is no key {key!r}; its keys are {[*row]!r}')
            column.append(row[key])
        if not arrays:
            names.update(dict.fromkeys(row))
            # A column of this name is looked at even if nobody has asked for it, to say so.
            columns[-1].append(row.get('split'))
        numbers.append(number)
    if not numbers:
        raise DataError(f'{path}: the file has no facts; expected an object with head, relation and tail on each line')
    if 'split' in names and 'split' not in keys:
        keys.append('split')
    # Names that are no positions.
    df = pd.DataFrame({str(key): pd.Series(column, dtype=object) for key, column in zip(keys, columns)})
    return frame_facts(df, (0, 1, 2), None if asked_split is None else 3, str(path),
                       lambda row, name: f'{path}:{numbers[row]}: {name!r}',
                       [name for name in names if name not in keys], asked_weights)


def read_table(path: Path, format: str) -> pd.DataFrame:
    r"""Returns all columns of a file with names. Integers beside missing values stay integers. The index
    holds the rows from 0, or of JSON Lines the lines from 1.

    Args:
        path (Path): The file.
        format (str): :obj:`"parquet"` or :obj:`"jsonl"`.

    Raises:
        ArgumentError: If pyarrow is not installed.
        DataError: If the file cannot be read, or a line is not an object.
    """
    if format == 'parquet':
        with _parquet(path) as file:
            return file.read().to_pandas(integer_object_nulls=True)
    numbers, rows = [], []
    for number, row in _json_lines(path):
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: expected an object, got {shown(row)}')
        numbers.append(number)
        rows.append(row)
    return pd.DataFrame(rows, index=numbers, dtype=object)


def has_fact_columns(path: Path, format: str, chosen: Sequence[Optional[Column]]) -> bool:
    r"""Whether a file has columns of heads, relations and tails, as far as its schema or its first line tells. Without
    pyarrow, Parquet is taken to have them.

    Args:
        path (Path): The file.
        format (str): :obj:`"parquet"` or :obj:`"jsonl"`.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`.

    Raises:
        DataError: If it cannot be read.
    """
    if format == 'jsonl':
        _, row = next(_json_lines(path), (0, {}))
        if isinstance(row, list):
            return len(row) == len(COLUMNS) and not any(isinstance(value, (list, dict)) for value in row)
        names = [*row]
    elif importlib.util.find_spec('pyarrow') is None:
        return True
    else:
        with _parquet(path) as file:
            names = file.schema_arrow.names
    try:
        chosen_columns(chosen, names, len(names), str(path))
    except (ArgumentError, DataError):
        return False
    return True


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    require('pyarrow', f'{path}: reading Parquet', 'convert the file to text', extra='export')
    import pyarrow
    import pyarrow.parquet

    try:
        with opened(path) as handle, pyarrow.parquet.ParquetFile(handle) as file:
            yield file
    except pyarrow.ArrowException as error:
        raise DataError(f'{path}: not an intact Parquet file ({error}); write it again') from error


def _positions(chosen: Sequence[Optional[Column]]) -> list[Column]:
    r"""The usual order where nothing is asked for: arrays have no names."""
    return [position if column is None else column for position, column in enumerate(chosen)]


def _json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    r"""The number and the object or array of each line that is not blank.

    Raises:
        DataError: If the file cannot be read, or a line is neither; names file and line.
    """
    for number, fields in records(path, Syntax('\t', quotes=False)):
        line = '\t'.join(fields)
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:
            raise DataError(f'{path}:{number}: not JSON ({error}); expected an object or an array on each '
                            'line') from None
        if not isinstance(row, (dict, list)):
            raise DataError(f'{path}:{number}: expected an object or an array, got {shown(row)}')
        yield number, row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f'the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice')
    return row

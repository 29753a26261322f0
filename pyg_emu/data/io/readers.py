r"""Text files of facts to labels, exactly as written, or an error that names the line.

Reading has two paths. The fast one is pandas' C parser, set to leave everything as it is. The slow one
(:func:`_check`) runs only when that fails or meets an empty label: it walks the file record by record, to name the
line.
"""
from __future__ import annotations

import codecs
import csv
import difflib
import io
import warnings
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Collection, Iterator, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.errors import DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.columns import COLUMNS, Columns, role_of
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.textfiles import Syntax, opened, records, text_chunks


def read_columns(path: Path, text: TextFormat) -> list[np.ndarray]:
    r"""Returns heads, relations, tails and further columns of :obj:`path` as arrays of strings, see
    :func:`read_chunks`.
    """
    chunks = list(read_chunks(path, text))
    if len(chunks) == 1:
        return chunks[0]
    return [np.concatenate([np.empty(0, dtype=object), *(chunk[number] for chunk in chunks)])
            for number in range(len(COLUMNS) + len(text.more))]


def read_chunks(path: Path, text: TextFormat) -> Iterator[list[np.ndarray]]:
    r"""Yields heads, relations, tails and further columns of :obj:`path` as arrays of strings, some hundred thousand
    lines at a time.

    Lines with nothing but spaces are skipped, and so is a byte order mark.

    Args:
        path (Path): The file.
        text (TextFormat): How its lines become facts.

    Raises:
        DataError: If the file cannot be read, or a line is not a fact; names file and line. Facts before this line may
            have been returned.
    """
    layout = _layout(path, text)
    if layout is None:
        return
    first, has_header, columns = layout
    chunks = _parsed(path, text, columns, skip=int(has_header))
    if has_header and not text.announces_header:
        # A word that occurs again below stands for an entity or relation, not for a column. A file of several chunks is
        # read twice to find out.
        held = list(islice(chunks, 2))
        names = [first[place] for place in columns.places]
        repeated = next((name for found in chain(held, chunks) for name, column in zip(names, found)
                         if (column == name).any()), None)
        said = f'{path}: the first line ({", ".join(first)}) is read as '
        if repeated is not None:
            warn(f'{said}a fact, although it looks like a header, since {repeated!r} occurs in other '
                 'lines; pass header=True if it is one', DataWarning)
            yield from read_chunks(path, replace(text, header=False))
            return
        warn(f'{said}the names of the columns; pass header=True to confirm, or header=False if it is a fact',
             DataWarning)
        chunks = iter(held) if len(held) < 2 else _parsed(path, text, columns, skip=1)
    yield from chunks


def line_of(path: Path, text: TextFormat, row: int, num_rows: int) -> int:
    r"""The line of :obj:`path` that holds one of the :obj:`num_rows` facts that :func:`read_columns` has returned."""
    # Only a header stands before the facts.
    numbers = [number for number, _ in records(path, text.syntax_of(path))]
    return numbers[len(numbers) - num_rows + row]


def unknown_relation(relation: str, known: Collection[str]) -> str:
    r"""States that :obj:`relation` is not among the :obj:`known` ones, and which of them is the most similar."""
    nearest = difflib.get_close_matches(relation, list(known), n=1)
    hint = f' (nearest: {nearest[0]!r})' if nearest else ''
    return (f'the relation {relation!r} is not one of the {len(known)} relations of the vocabulary, the graph that the '
            f'model was trained on{hint}; rename it, or remove its facts')


def _layout(path: Path, text: TextFormat) -> Optional[tuple[list[str], bool, Columns]]:
    r"""The first line, whether it seems to be a header, and the columns; :obj:`None` for a file without lines."""
    syntax = text.syntax_of(path)
    number, first = next(records(path, syntax), (0, None))
    if first is None:
        return None
    has_header = text.announces_header or text.may_be_header(first)
    columns = text.columns_of(first, has_header, f'{path}:{number}')
    if columns is None:
        raise _wrong_width(path, number, first, len(COLUMNS), syntax)
    return first, has_header, columns


def _parsed(path: Path, text: TextFormat, columns: Columns, skip: int) -> Iterator[list[np.ndarray]]:
    syntax = text.syntax_of(path)
    with opened(path) as handle:
        try:
            for chunk in text_chunks(handle, syntax, skip):
                table = _table(chunk, syntax, columns.width)
                found = [table[place].to_numpy(dtype=object) for place in columns.read]
                # A line with too few columns ends in empty ones. pandas accepts an empty column too many.
                looked_at = (*found, table[columns.width - 1].to_numpy(dtype=object))
                if syntax.ends_in_delimiter(chunk) or any((column == '').any() for column in looked_at):
                    _check(path, text, columns, skip)
                yield found
        except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeError) as error:
            _check(path, text, columns, skip)
            raise DataError(f'{path}: cannot be read as lines of head, relation and tail ({error})') from error


def _table(chunk: bytes, syntax: Syntax, width: int) -> pd.DataFrame:
    r"""The fields of some records, as strings.

    Raises:
        pandas.errors.ParserError: If a record has more than :obj:`width` fields. (Or a warning of pandas as an error.)
        UnicodeError: If the text is not UTF-8.
    """
    # pandas takes the number of columns from the first line.
    first = syntax.record.match(chunk)
    if first is None or len(syntax.fields(first.group().decode())) != width:
        raise pd.errors.ParserError(f'expected {width} columns')
    with warnings.catch_warnings():
        warnings.simplefilter('error', pd.errors.ParserWarning)
        return pd.read_csv(
            io.BytesIO(codecs.BOM_UTF8 + chunk), sep=syntax.delimiter, header=None, names=list(range(width)),
            index_col=False, engine='c', encoding='utf-8',
            quoting=csv.QUOTE_MINIMAL if syntax.quotes else csv.QUOTE_NONE,
            # There are none; pandas would remove the leading spaces of lines at the end of its buffers.
            skip_blank_lines=False,
            # In pieces, pandas before 3 would cut the first line of each to the expected width.
            low_memory=False,
            # Strings as they are. (A categorical dtype is faster, but reads '01' and '1' as one number.)
            dtype=object, na_filter=False,
        )


def _check(path: Path, text: TextFormat, columns: Columns, skip: int) -> None:
    r"""Raises for the first line that is not a fact."""
    syntax = text.syntax_of(path)
    roles = [*(f'label of the {name}' for name in COLUMNS), *(f'column of {role}' for role in text.more)]
    for position, (number, row) in enumerate(records(path, syntax)):
        if position < skip:
            continue
        if len(row) != columns.width:
            raise _wrong_width(path, number, row, columns.width, syntax)
        for role, place in zip(roles, columns.read):
            if row[place] == '':
                raise DataError(f'{path}:{number}: the {role} is empty; expected some text')


def _wrong_width(path: Path, number: int, row: Sequence[str], width: int, syntax: Syntax) -> DataError:
    line = syntax.delimiter.join(row)
    fitting = [other for other in '\t,;| ' if other != syntax.delimiter and line.count(other) == 2]
    hint = f'; the line would fit delimiter={fitting[0]!r}' if fitting and width == len(COLUMNS) else ''
    if len(row) > width:
        hint = hint or '; pass head=, relation= and tail= with positions, such as 0, 1 and 2, to read three of them'
        if len({role_of(name) for name in row if len(name) > 1} - {None}) > 1:
            hint += ', or header=True if this line names the columns'
    what = 'head, relation, tail, ' if width == len(COLUMNS) else ''
    return DataError(f'{path}:{number}: {len(row)} column{"s" if len(row) > 1 else ""}, expected {width} ({what}'
                     f'separated by {syntax.delimiter!r}){hint}')

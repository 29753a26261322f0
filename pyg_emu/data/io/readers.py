r"""Text files of facts -> labels, exactly as written, and the one line that is wrong where one is.

Reading has two paths. The fast one is pandas' C parser, told to leave everything as it is. Only when that fails or
meets an empty label does the slow one (:func:`_check`) walk the file line by line, to name the line.
"""
from __future__ import annotations

import codecs
import csv
import difflib
import gzip
import io
import re
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Collection, Iterator, Optional, cast

import numpy as np
import pandas as pd

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning

COLUMNS = ('head', 'relation', 'tail')
#: File names without extension under which a split is known, the usual one first.
SPLIT_NAMES = {'train': ('train',), 'valid': ('valid', 'validation', 'dev', 'val'), 'test': ('test',)}
EXTENSIONS = ('.txt', '.tsv', '.csv')

_HEADERS = {('head', 'relation', 'tail'), ('subject', 'predicate', 'object'), ('source', 'relation', 'target'),
            ('subject', 'relation', 'object'), ('head', 'rel', 'tail'), ('from', 'rel', 'to')}


@dataclass(frozen=True)
class TextFormat:
    r"""How lines become facts. Labels are kept as they stand: no stripping, and :obj:`"NA"` is a label like any other.

    Args:
        delimiter (str, optional): What separates head, relation and tail. (default: a comma in :obj:`.csv`, else a tab)
        header (bool): Whether the first line names the columns and is not a fact. (default: :obj:`False`)
        comment (str, optional): Lines that begin with this are not read. (default: :obj:`None`, no such lines)
    """
    delimiter: Optional[str] = None
    header: bool = False
    comment: Optional[str] = None

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '\r\n"' or
                                           not self.delimiter.isascii()):
            raise ArgumentError(f'delimiter must be a single ASCII character such as a tab or a comma, got '
                                f'{self.delimiter!r}')
        if self.comment is not None and (self.comment == '' or '\n' in self.comment):
            raise ArgumentError(f'comment must be the beginning of a line such as "#", got {self.comment!r}')

    def delimiter_of(self, path: Path) -> str:
        return self.delimiter or (',' if self.quotes(path) else '\t')

    def quotes(self, path: Path) -> bool:
        r"""Whether quotation marks are syntax (:obj:`.csv`) or part of a label (anything else)."""
        return path.name.lower().removesuffix('.gz').endswith('.csv')


def find_splits(folder: Path, required: Collection[str]) -> dict[str, Path]:
    r"""The file of each split in :obj:`folder`; those that are neither there nor :obj:`required` are left out.

    Raises:
        DataError: If the folder cannot be read, or a required split has no file, or a split has more than one.
    """
    if (isinstance(required, str) or not isinstance(required, Collection)
            or any(split not in tuple(SPLIT_NAMES) for split in required)):
        raise ArgumentError(f'require_splits must be some of {tuple(SPLIT_NAMES)}, got {required!r}')
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    except FileNotFoundError:
        raise DataError(f'{folder}: no such folder; expected one with train.txt, valid.txt and test.txt') from None
    except OSError as error:
        raise DataError(f'{folder}: the folder cannot be read ({error.strerror})') from error

    found: dict[str, Path] = {}
    for split, stems in SPLIT_NAMES.items():
        accepted = {stem + extension + packed for stem in stems for extension in EXTENSIONS for packed in ('', '.gz')}
        files = [name for name in names if name in accepted]
        if len(files) > 1:
            raise DataError(f"{folder}: several files for the split '{split}' ({', '.join(files)}); keep one of them")
        if files:
            found[split] = folder / files[0]

    missing = [split for split in SPLIT_NAMES if split not in found and (split in required or split == 'train')]
    if missing:
        there = ', '.join(path.name for path in found.values()) or 'none of the three'
        message = (f"{folder}: no file for the split{'s' if len(missing) > 1 else ''} "
                   f"{' and '.join(repr(split) for split in missing)} (found: {there}); "
                   f"expected {', '.join(split + '.txt' for split in missing)} (or .tsv, .csv, each also as .gz)")
        if 'train' in found:
            enough = tuple(split for split in found if split in required or split == 'train')
            message += f'. To do without, pass require_splits={enough!r}'
        raise DataError(message)
    return found


def read_columns(path: Path, text: TextFormat) -> list[np.ndarray]:
    r"""Returns heads, relations and tails of :obj:`path` as arrays of strings.

    Lines with nothing but spaces are skipped, and so is a byte order mark.

    Raises:
        DataError: If the file cannot be read, or a line is not a fact: names file and line.
    """
    # A first line that is too long would set the width that pandas expects of all the others.
    first = _check(path, text, limit=1)
    if first is not None and not text.header and tuple(label.lower() for label in first) in _HEADERS:
        warnings.warn(f'{path}: the first line ({", ".join(first)}) looks like a header but is read as a fact; '
                      f'pass header=True if it is one', DataWarning, stacklevel=2)
    with _named_errors(path), _open(path) as handle, warnings.catch_warnings():
        warnings.simplefilter('error', pd.errors.ParserWarning)
        try:
            table = _parsed(cast(IO[bytes], io.BufferedReader(_Text(handle, text.comment))), path, text)
        except pd.errors.EmptyDataError:
            return [np.empty(0, dtype=object) for _ in COLUMNS]
        except (pd.errors.ParserError, pd.errors.ParserWarning, UnicodeError) as error:
            _check(path, text)
            _check(path, text, strict=True)
            raise DataError(f'{path}: cannot be read as lines of head, relation and tail ({error})') from error
    columns = [table[name].to_numpy(dtype=object) for name in COLUMNS]
    if any((column == '').any() for column in columns):
        _check(path, text)
    return columns


def first_unknown_relation(path: Path, text: TextFormat, known: Collection[str]) -> DataError:
    r"""The error for the first line of :obj:`path` whose relation is not :obj:`known`."""
    for number, (_, relation, _) in _records(path, text):
        if relation not in known:
            return DataError(f'{path}:{number}: {unknown_relation(relation, known)}')
    raise AssertionError('every relation is known')


def unknown_relation(relation: str, known: Collection[str]) -> str:
    r"""Says that :obj:`relation` is not among the :obj:`known` ones, and which comes nearest."""
    nearest = difflib.get_close_matches(relation, list(known), n=1)
    hint = f' (nearest: {nearest[0]!r})' if nearest else ''
    return (f'the relation {relation!r} is not one of the {len(known)} relations of the graph trained on, the '
            f'vocabulary{hint}; rename it, or leave its facts out')


def _parsed(handle: IO[bytes], path: Path, text: TextFormat) -> pd.DataFrame:
    return pd.read_csv(
        handle, sep=text.delimiter_of(path), header=None, names=list(COLUMNS), index_col=False,
        skiprows=1 if text.header else None, engine='c', encoding='utf-8',
        quoting=csv.QUOTE_MINIMAL if text.quotes(path) else csv.QUOTE_NONE,
        # In pieces, pandas before 3 would cut the first line of each to the expected width. Nor do pieces save memory:
        # equal labels of a column are one object.
        low_memory=False,
        # Strings as they stand. (A categorical dtype is faster, but reads '01' and '1' as one number.)
        dtype=object, na_filter=False,
    )


# The file, as bytes ##########################################################

@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    r"""Turns what the operating system or gzip say into one error that names the file."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f'{path}: not an intact gzip file ({error}); compress it anew, or drop .gz from the name of a '
                        f'plain text file') from error
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file') from error
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror or error})') from error


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with cast(IO[bytes], gzip.open(path, 'rb') if path.suffix == '.gz' else path.open('rb')) as handle:
        yield handle


class _Text(io.RawIOBase):
    r"""The bytes of a file without the lines that begin with :obj:`comment`. (pandas would cut off the rest of any line
    with it.) Stops at a null byte, where pandas before 3 would silently end the label.
    """
    def __init__(self, handle: IO[bytes], comment: Optional[str]) -> None:
        super().__init__()
        self._handle = handle
        self._comment = None if comment is None else comment.encode()
        self._ready = memoryview(b'')
        self._at_start = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while len(self._ready) == 0:
            lines = self._handle.readlines(1 << 20)
            if not lines:
                return 0
            if self._comment is not None:
                # Unlike pandas, the comparison would not see beyond a byte order mark.
                lines[0] = lines[0].removeprefix(codecs.BOM_UTF8) if self._at_start else lines[0]
                lines = [line for line in lines if not line.startswith(self._comment)]
            self._at_start = False
            block = b''.join(lines)
            if b'\0' in block:
                raise UnicodeError('there is a null byte in the text')
            self._ready = memoryview(block)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


_ENDS = re.compile('\r\n?')


# The slow path ###############################################################

class _Lines:
    r"""Decoded lines, without comments, that know the number of the last one and which byte is not UTF-8."""
    def __init__(self, handle: IO[bytes], path: Path, comment: Optional[str]) -> None:
        self.number = 0
        self._handle = handle
        self._path = path
        self._comment = comment

    def __iter__(self) -> Iterator[str]:
        offset = 0
        for raw in self._handle:
            self.number += 1
            start, offset = offset, offset + len(raw)
            if self.number == 1 and raw.startswith(codecs.BOM_UTF8):
                raw, start = raw[len(codecs.BOM_UTF8):], start + len(codecs.BOM_UTF8)
            try:
                line = raw.decode('utf-8')
                fault, reason = line.find('\0'), 'null byte'
                fault = fault if fault < 0 else len(line[:fault].encode())
            except UnicodeDecodeError as error:
                fault, reason = error.start, error.reason
            if fault >= 0:
                hint = ' (it looks compressed: end its name in .gz)' if raw.startswith(b'\x1f\x8b') else ''
                raise DataError(f'{self._path}:{self.number}: byte 0x{raw[fault]:02x} at offset {start + fault} of the '
                                f'file is not UTF-8 text ({reason}); expected text in UTF-8{hint}')
            if self._comment is None or not line.startswith(self._comment):
                yield line


def _records(path: Path, text: TextFormat, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    r"""The number of the (last) line and the fields of each record that has any."""
    delimiter = text.delimiter_of(path)
    with _named_errors(path), _open(path) as handle:
        lines = _Lines(handle, path, text.comment)
        rows: Iterator[list[str]]
        if text.quotes(path):
            rows = csv.reader(lines, delimiter=delimiter, strict=strict)
        else:
            # A lone carriage return ends a line for pandas, and for most editors.
            parts = (part for line in lines for part in _ENDS.split(line.rstrip('\r\n')))
            rows = (part.split(delimiter) if part else [] for part in parts)
        last = 0
        try:
            for position, row in enumerate(rows):
                last = lines.number
                blank = len(row) == 0 or (len(row) == 1 and row[0].strip(' ') == '')
                if not blank and not (text.header and position == 0):
                    yield last, row
        except csv.Error as error:
            raise DataError(f'{path}:{last + 1}: not CSV ({error}); expected quotation marks in pairs, around whole '
                            f'labels') from error


def _check(path: Path, text: TextFormat, limit: Optional[int] = None, strict: bool = False) -> Optional[list[str]]:
    r"""Raises for the first line (among the first :obj:`limit`) that is not a fact; returns the last one read."""
    row: Optional[list[str]] = None
    delimiter = text.delimiter_of(path)
    for count, (number, row) in enumerate(_records(path, text, strict), start=1):
        if len(row) != len(COLUMNS):
            raise DataError(f'{path}:{number}: {len(row)} column{"s" if len(row) > 1 else ""} where 3 are expected '
                            f'(head, relation, tail, separated by {delimiter!r}){_other_delimiter(row, delimiter)}')
        for name, label in zip(COLUMNS, row):
            if label == '':
                raise DataError(f'{path}:{number}: the label of the {name} is empty; expected some text')
        if count == limit:
            break
    return row


def _other_delimiter(row: list[str], delimiter: str) -> str:
    line = delimiter.join(row)
    fitting = [other for other in '\t,;| ' if other != delimiter and line.count(other) == 2]
    return f'; the line would fit delimiter={fitting[0]!r}' if fitting else ''

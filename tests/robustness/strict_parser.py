r"""An independent reader of files of facts: plain Python, one character after the other, after docs/data.md.

It shares no code with the package, holds the whole file in memory, and is slow.
"""
from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass, field
from typing import Optional, Sequence

#: The names that documentation gives for the columns.
DOCUMENTED_NAMES = (('head', 'relation', 'tail'), ('subject', 'predicate', 'object'))
Fact = tuple[str, str, str]


class Refused(Exception):
    r"""The file is not facts.

    Args:
        lines (set of int): The lines that an error may name; empty where no line is at fault.
    """
    def __init__(self, lines: set[int], why: str) -> None:
        super().__init__(f'{why} in line {sorted(lines)}')
        self.lines = lines


@dataclass
class Record:
    r"""The first line of a record and its fields."""
    line: int
    fields: list[str]


@dataclass
class Parsed:
    r"""The records of a file up to the first fault, and the fault."""
    records: list[Record] = field(default_factory=list)
    fault: Optional[Refused] = None


def decompressed(content: bytes) -> bytes:
    r"""The content of a gzip file.

    Raises:
        Refused: If it is damaged.
    """
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise Refused(set(), f'gzip: {error}') from error


def named_places(fields: Sequence[str]) -> Optional[list[int]]:
    r"""The columns of heads, relations and tails by the names of the documentation."""
    names = [name.strip().casefold() for name in fields]
    found = [[place for place, name in enumerate(names) if name in group] for group in zip(*DOCUMENTED_NAMES)]
    return [one[0] for one in found] if all(len(one) == 1 for one in found) else None


def facts(content: bytes, delimiter: str, quotes: bool, header: bool, comment: Optional[str] = None,
          places: Sequence[int] = (0, 1, 2)) -> list[Fact]:
    r"""The facts of a file.

    Args:
        content (bytes): The file.
        delimiter (str): The character between columns.
        quotes (bool): Whether quotation marks are syntax.
        header (bool): Whether the first line names the columns.
        comment (str, optional): The beginning of lines that are left out. (default: :obj:`None`)
        places (sequence of int): The columns of heads, relations and tails. (default: :obj:`(0, 1, 2)`)

    Raises:
        Refused: If a line is not a fact.
    """
    parsed = parse(content, delimiter, quotes, comment)
    rows = parsed.records
    if rows:
        width = len(rows[0].fields)
        if header:
            if width < 3:
                raise Refused({rows[0].line}, 'too few columns')
        elif width != 3:
            raise Refused({rows[0].line}, f'{width} columns')
        for row in rows[1 if header else 0:]:
            if len(row.fields) != width:
                raise Refused({row.line}, f'{len(row.fields)} columns')
            if any(row.fields[place] == '' for place in places):
                raise Refused({row.line}, 'an empty label')
    if parsed.fault is not None:
        raise parsed.fault
    return [(row.fields[places[0]], row.fields[places[1]], row.fields[places[2]]) for row in rows[1 if header else 0:]]


def parse(content: bytes, delimiter: str, quotes: bool, comment: Optional[str] = None) -> Parsed:
    r"""The records of a file, without comments and blank lines."""
    if content.startswith(b'\xef\xbb\xbf'):
        content = content[3:]
    parsed = Parsed()
    position, line = 0, 1
    while position < len(content):
        start = line
        if comment is not None and content.startswith(comment.encode(), position):
            position, line = _line_end(content, position, line)
            continue
        end, after = _line_end(content, position, line)
        if content[position:end].strip(b' \r\n') == b'':
            position, line = end, after
            continue
        if quotes:
            try:
                values, end, line = _quoted_record(content, position, line, delimiter.encode())
            except ValueError:
                # An error of encoding further down may be what has broken the quotation.
                parsed.fault = Refused({start} | _faults_of_encoding(content, position, start), 'quotation')
                return parsed
        else:
            line = after
            values = content[position:end].rstrip(b'\r\n').split(delimiter.encode())
        bad = _faults_of_encoding(content[:end], position, start)
        if bad:
            parsed.fault = Refused({min(bad)}, 'not text')
            return parsed
        parsed.records.append(Record(start, [value.decode() for value in values]))
        position = end
    return parsed


def _line_end(content: bytes, position: int, line: int) -> tuple[int, int]:
    r"""Where the next line begins, and its number."""
    while position < len(content):
        if content[position:position + 2] == b'\r\n':
            return position + 2, line + 1
        if content[position:position + 1] in (b'\r', b'\n'):
            return position + 1, line + 1
        position += 1
    return position, line


def _quoted_record(content: bytes, position: int, line: int, delimiter: bytes) -> tuple[list[bytes], int, int]:
    values: list[bytes] = []
    while True:
        if content[position:position + 1] == b'"':
            value = b''
            position += 1
            while True:
                if position >= len(content):
                    raise ValueError('no end')
                if content[position:position + 2] == b'""':
                    value += b'"'
                    position += 2
                elif content[position:position + 1] == b'"':
                    position += 1
                    break
                elif content[position:position + 1] in (b'\r', b'\n'):
                    end, line = _line_end(content, position, line)
                    value += content[position:end]
                    position = end
                else:
                    value += content[position:position + 1]
                    position += 1
            if position < len(content) and content[position:position + 1] not in (delimiter, b'\r', b'\n'):
                raise ValueError('text after a quotation')
        else:
            end = position
            while end < len(content) and content[end:end + 1] not in (delimiter, b'\r', b'\n'):
                end += 1
            value = content[position:end]
            position = end
        values.append(value)
        if content[position:position + 1] != delimiter:
            end, line = _line_end(content, position, line)
            return values, end, line
        position += 1


def _faults_of_encoding(content: bytes, start: int, line: int) -> set[int]:
    r"""The lines of the first byte that is no UTF-8 and of the first null, from a record on that begins in
    :obj:`line`.
    """
    part = content[start:]
    faults = [part.find(b'\0')]
    try:
        part.decode()
    except UnicodeDecodeError as error:
        faults.append(error.start)
    found = set()
    for fault in faults:
        position, current = 0, line
        while fault >= 0:
            position, after = _line_end(part, position, current)
            if position > fault:
                found.add(current)
                break
            current = after
    return found

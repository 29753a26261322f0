r"""Text files as bytes: opened safely, cut into records, without comments and blank lines.

A record is a line, or, where quotation marks are syntax, as many lines as a quoted label spans. One grammar serves both
the fast reader, which passes whole blocks on to pandas, and the slow one, which names the line of an error.
"""
from __future__ import annotations

import codecs
import gzip
import re
import stat
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Iterator, Optional, cast

from pyg_emu.core.errors import ArgumentError, DataError

BLOCK_BYTES = 1 << 20
#: No record is longer. A file without line ends would have to be held in memory as a whole.
MAX_RECORD_BYTES = 16 << 20
#: Text of about this length is turned into labels at a time.
CHUNK_BYTES = 16 << 20

_LINE_END = re.compile(rb'\r\n|\n|\r')
_LINE = re.compile(rb'[^\r\n]*+(?>\r\n|\n|\r)')
# Without one of these, a block has no blank line but perhaps its first.
_BEFORE_BLANK = (b'\n\n', b'\n ', b'\n\r', b'\r\r', b'\r ')


class _Unreadable(Exception):
    r"""No record begins here; holds the bytes from there on, as far as they were read."""
    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self.rest = rest


@dataclass(frozen=True)
class Syntax:
    r"""How bytes become records and fields.

    Args:
        delimiter (str): The character between fields.
        quotes (bool): Whether quotation marks are syntax. They then have to be strict CSV: around whole fields, in
            pairs, doubled inside of a field.
        comment (str, optional): Records that begin with this are left out. (default: :obj:`None`)
    """
    delimiter: str
    quotes: bool
    comment: Optional[str] = None

    @property
    def record(self) -> re.Pattern[bytes]:
        r"""A record with its line end."""
        return _csv_patterns(self.delimiter, self.comment)[0] if self.quotes else _LINE

    def complete(self, buffer: bytes, at_end: bool) -> int:
        r"""The length of the complete records at the beginning of :obj:`buffer`.

        Raises:
            _Unreadable: If what follows them is not the beginning of a record.
        """
        # A carriage return at the end may be the first half of a line end.
        limit = len(buffer) - (not at_end and buffer.endswith(b'\r'))
        if not self.quotes:
            return max(buffer.rfind(b'\n', 0, limit), buffer.rfind(b'\r', 0, limit)) + 1
        _, records, beginning, _ = _csv_patterns(self.delimiter, self.comment)
        match = records.match(buffer, 0, limit)
        end = 0 if match is None else match.end()
        if end < limit and (at_end or beginning.fullmatch(buffer, end, limit) is None):
            raise _Unreadable(buffer[end:])
        return end

    def kept(self, block: bytes) -> bytes:
        r""":obj:`block`, a sequence of records, without comments and blank lines. Line ends of lines become
        :obj:`"\\n"`; in quoted labels they are part of the label.
        """
        if not self.quotes and b'\r' in block:
            block = block.replace(b'\r\n', b'\n').replace(b'\r', b'\n')
        blank = _BEFORE_BLANK if b'\r' in block else _BEFORE_BLANK[:2]
        if self.comment is None and block[:1] not in (b'\n', b'\r', b' ') and not any(part in block for part in blank):
            return block
        return b''.join(record for record in self.record.findall(block) if not self.skips(record))

    def skips(self, record: bytes) -> bool:
        r"""Whether a record is a comment, or has nothing but spaces."""
        return not record.strip(b' \r\n') or (self.comment is not None and record.startswith(self.comment.encode()))

    def ends_in_delimiter(self, text: bytes) -> bool:
        r"""Whether a line ends in a delimiter, which pandas overlooks after the last column."""
        between = self.delimiter.encode()
        return any(between + end in text for end in (b'\n', b'\r')) or text.endswith(between)

    def fields(self, record: str) -> list[str]:
        r"""The fields of a record."""
        if not self.quotes:
            return record.rstrip('\r\n').split(self.delimiter)
        field = _csv_field(self.delimiter)
        found: list[str] = []
        position = 0
        while True:
            match = cast(re.Match[str], field.match(record, position))
            text, position = match.group(), match.end()
            found.append(text[1:-1].replace('""', '"') if text.startswith('"') else text)
            if record[position:position + 1] != self.delimiter:
                return found
            position += 1


@lru_cache(maxsize=16)
def _csv_patterns(delimiter: str, comment: Optional[str]) -> tuple[re.Pattern[bytes], ...]:
    r"""A record, records, the beginning of a record, and a field."""
    between = re.escape(delimiter).encode()
    inside = rb'"(?>[^"]|"")*+'
    plain = rb'[^"\r\n' + between + rb'][^\r\n' + between + rb']*+'
    field = rb'(?>' + inside + rb'"(?=[\r\n' + between + rb'])|' + plain + rb'|(?!"))'
    end = rb'(?>\r\n|\n|\r)'
    record = rb'(?>' + field + rb'(?:' + between + field + rb')*+' + end
    beginning = rb'(?:' + field + between + rb')*+(?>' + inside + rb'"?+|' + plain + rb')?+'
    if comment is not None:
        start = re.escape(comment).encode()
        record = record.replace(rb'(?>', rb'(?>' + start + rb'[^\r\n]*+' + end + rb'|', 1)
        beginning = rb'(?>' + start + rb'[^\r\n]*+|' + beginning + rb')'
    record += rb')'
    return tuple(map(re.compile, (record, rb'(?:' + record + rb')*+', beginning, field)))


@lru_cache(maxsize=16)
def _csv_field(delimiter: str) -> re.Pattern[str]:
    return re.compile(_csv_patterns(delimiter, None)[3].pattern.decode())


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    r"""Opens a file, decompressed where its name ends in :obj:`.gz`.

    Raises:
        DataError: If it is not a regular file, or cannot be read; names the file.
    """
    try:
        mode = path.stat().st_mode
        # Opening a pipe would wait for a writer, and a device may never end.
        if not stat.S_ISREG(mode):
            kinds = {stat.S_IFIFO: 'a named pipe', stat.S_IFDIR: 'a folder', stat.S_IFSOCK: 'a socket'}
            raise DataError(f'{path}: expected a regular file, got {kinds.get(stat.S_IFMT(mode), "a device")}; write '
                            'the facts to a file')
        with cast(IO[bytes], gzip.open(path, 'rb') if path.suffix.lower() == '.gz' else path.open('rb')) as handle:
            yield handle
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f'{path}: not an intact gzip file ({error}); compress it again, or remove .gz from the name of '
                        f'a plain text file') from error
    except FileNotFoundError as error:
        raise DataError(f'{path}: no such file') from error
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror or error})') from error


def blocks(handle: IO[bytes], syntax: Syntax) -> Iterator[bytes]:
    r"""The file as blocks of complete records, without a byte order mark. The last record gets a line end.

    Raises:
        _Unreadable: After the block before what is no record.
    """
    rest = b''
    at_start = True
    while True:
        piece = handle.read(BLOCK_BYTES)
        at_end = len(piece) == 0
        if at_start:
            piece, at_start = piece.removeprefix(codecs.BOM_UTF8), False
        if not syntax.quotes and not at_end and b'\n' not in piece and b'\r' not in piece:
            buffer, end = rest + piece, 0
        else:
            buffer = rest + piece
            if at_end and buffer and buffer[-1:] not in (b'\n', b'\r'):
                buffer += b'\n'
            try:
                end = syntax.complete(buffer, at_end)
            except _Unreadable as error:
                yield buffer[:len(buffer) - len(error.rest)]
                raise
        yield buffer[:end]
        rest = buffer[end:]
        if at_end:
            return
        # What has a null byte is no text, however long the line would become.
        if len(rest) > MAX_RECORD_BYTES or (b'\0' in rest and not syntax.skips(rest)):
            raise _Unreadable(rest)


def text_chunks(handle: IO[bytes], syntax: Syntax, skip: int = 0) -> Iterator[bytes]:
    r"""The records of a file in pieces of about :data:`CHUNK_BYTES`, without comments and blank lines.

    pandas removes a byte order mark even if it is part of the first label, loses spaces at the end of its buffers where
    it skips blank lines, and before version 3 ends a label at a null byte. It meets none of them here, if a byte order
    mark is put before each piece.

    Args:
        handle (file): The file, in binary mode.
        syntax (Syntax): Its records.
        skip (int, optional): Number of records to leave out at the beginning. (default: :obj:`0`)

    Raises:
        UnicodeError: If the file is not text in :obj:`syntax`.
    """
    held: list[bytes] = []
    size = 0
    try:
        for block in blocks(handle, syntax):
            block = syntax.kept(block)
            while skip > 0 and block:
                match = syntax.record.match(block)
                block = block[0 if match is None else match.end():]
                skip -= 1
            if b'\0' in block:
                raise UnicodeError('there is a null byte in the text')
            held.append(block)
            size += len(block)
            if size >= CHUNK_BYTES:
                yield b''.join(held)
                held, size = [], 0
    except _Unreadable:
        raise UnicodeError('not text, or not in pairs of quotation marks') from None
    if size > 0:
        yield b''.join(held)


def records(path: Path, syntax: Syntax) -> Iterator[tuple[int, list[str]]]:
    r"""The number of the first line and the fields of each record that is neither a comment nor blank.

    Raises:
        DataError: If the file cannot be read, is not UTF-8, or breaks the rules of quotation marks; names file and
            line.
    """
    number, offset = 1, 0
    with opened(path) as handle:
        # Offsets count the byte order mark, which is not part of any block.
        offset = len(codecs.BOM_UTF8) if handle.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
        handle.seek(0)
        try:
            for block in blocks(handle, syntax):
                for match in syntax.record.finditer(block):
                    raw = match.group()
                    if not syntax.skips(raw):
                        yield number, syntax.fields(_decoded(raw, path, number, offset))
                    number += len(_LINE_END.findall(raw))
                    offset += len(raw)
        except _Unreadable as error:
            # The fault may be one of encoding.
            _decoded(_whole_characters(error.rest), path, number, offset)
            if len(error.rest) > MAX_RECORD_BYTES:
                raise DataError(f'{path}:{number}: more than {MAX_RECORD_BYTES >> 20} MiB without the end of a line; '
                                'expected a fact in each line') from None
            raise DataError(f'{path}:{number}: not CSV: a quotation mark that begins in this line does not enclose a '
                            'whole label; expected quotation marks in pairs around whole labels, and "" for one inside '
                            'of a label') from None


def _whole_characters(raw: bytes) -> bytes:
    r""":obj:`raw` without the beginning of a character at its end, where reading has ended inside of one."""
    try:
        return raw[:codecs.utf_8_decode(raw, 'strict', False)[1]]
    except UnicodeDecodeError:
        return raw


def _decoded(raw: bytes, path: Path, number: int, offset: int) -> str:
    try:
        text = raw.decode('utf-8')
        fault, reason = raw.find(b'\0'), 'null byte'
    except UnicodeDecodeError as error:
        text, fault, reason = '', error.start, error.reason
    if fault < 0:
        return text
    hint = ' (it looks compressed: end its name in .gz)' if offset == 0 and raw.startswith(b'\x1f\x8b') else ''
    line = number + len(_LINE_END.findall(raw[:fault]))
    raise DataError(f'{path}:{line}: byte 0x{raw[fault]:02x} at offset {offset + fault} of the file is not UTF-8 text '
                    f'({reason}); expected text in UTF-8{hint}')


def check_delimiter(delimiter: Any) -> None:
    r"""Refuses what cannot separate columns.

    Raises:
        ArgumentError: If :obj:`delimiter` is not a single ASCII character other than a line end or quotation mark.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '\r\n"\0' or not delimiter.isascii():
        raise ArgumentError(f'delimiter: expected a single ASCII character such as a tab or a comma, got {delimiter!r}')


def check_comment(comment: Any) -> None:
    r"""Refuses what no line can begin with.

    Raises:
        ArgumentError: If :obj:`comment` is not a text without line ends.
    """
    if not isinstance(comment, str) or comment == '' or '\n' in comment or '\r' in comment or not _encodes(comment):
        raise ArgumentError(f'comment: expected the beginning of a line such as "#", got {comment!r}')


def _encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False

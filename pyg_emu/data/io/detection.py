r"""Which format a file has: what its name says, what its first bytes show, and whether the two agree."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from pyg_emu.core.arguments import one_of
from pyg_emu.core.errors import DataError
from pyg_emu.data.io.formats import EXTENSIONS
from pyg_emu.data.io.textfiles import opened

#: The formats of files and how they are called in messages.
FORMATS = {'text': 'lines of columns', 'ntriples': 'N-Triples', 'nquads': 'N-Quads', 'turtle': 'Turtle', 'trig': 'TriG',
           'rdfxml': 'RDF/XML', 'parquet': 'Parquet', 'jsonl': 'JSON Lines'}
RDF_FORMATS = ('ntriples', 'nquads', 'turtle', 'trig', 'rdfxml')
TABLE_FORMATS = ('parquet', 'jsonl')

#: What the ends of names say. Others than those of text decide, as those of text do in part: see :func:`format_of`.
SUFFIXES = {'.txt': 'text', '.tsv': 'text', '.csv': 'text', '.nt': 'ntriples', '.ntriples': 'ntriples',
            '.nq': 'nquads', '.nquads': 'nquads', '.ttl': 'turtle', '.turtle': 'turtle', '.trig': 'trig',
            '.rdf': 'rdfxml', '.owl': 'rdfxml', '.parquet': 'parquet', '.pq': 'parquet', '.jsonl': 'jsonl',
            '.ndjson': 'jsonl', '.json': 'jsonl'}

# What first bytes can show beside formats, and how that is called in messages.
_OTHERS = {'sqlite': 'an SQLite database', 'gzip': 'gzip', 'zip': 'a ZIP archive', 'array': 'a JSON array',
           'counted': 'a file of OpenKE, which begins with the number of its lines'}
_MAGIC = ((b'PAR1', 'parquet'), (b'SQLite format 3\0', 'sqlite'), (b'\x1f\x8b', 'gzip'), (b'PK\x03\x04', 'zip'))
_REMEDIES = {
    'sqlite': 'give its path to load_dataset with table= or query=', 'gzip': 'end its name in .gz',
    'zip': 'unpack it',
    'array': 'write an object or an array of values on each line, or read it with pandas and give the table',
    'counted': "give the folder, in the layout format='openke'",
}
_HEAD_BYTES = 1 << 14

_IRI = r'<[^\x00-\x20<>"{}|^`\\]*>'
_NODE = rf'(?:{_IRI}|_:[^\s<>"]+)'
_LITERAL = rf'"(?:[^"\\]|\\.)*"(?:@[\w-]+|\^\^{_IRI})?'
_STATEMENT = re.compile(rf'\s*{_NODE}\s*{_IRI}\s*(?:{_NODE}|{_LITERAL})\s*({_NODE})?\s*\.\s*(?:#.*)?')
_DIRECTIVE = re.compile(r'\s*(?:@prefix|@base|prefix|base)\s', re.IGNORECASE)
_XML = re.compile(r'\s*<(?:\?xml|!DOCTYPE rdf|rdf:RDF)', re.IGNORECASE)

# Which formats a file whose beginning shows a format can be read as.
_READABLE = {'ntriples': ('ntriples', 'nquads', 'turtle', 'trig'), 'nquads': ('nquads', ),
             'turtle': ('turtle', 'trig'), 'rdfxml': ('rdfxml', ), 'parquet': ('parquet', ), 'jsonl': ('jsonl', )}


@dataclass(frozen=True)
class Head:
    r"""The beginning of a file.

    Args:
        kind (str, optional): A format or another kind of file that the first bytes show. (default: :obj:`None`,
            nothing in particular)
    """
    kind: Optional[str] = None

    @property
    def name(self) -> str:
        r"""What the beginning shows, for messages."""
        return {**FORMATS, **_OTHERS}.get(str(self.kind), 'none of these')


def head_of(path: Path) -> Head:
    r"""Looks at the beginning of a file.

    Raises:
        DataError: If it is not a regular file, or cannot be read.
    """
    with opened(path) as handle:
        head = handle.read(_HEAD_BYTES)
    for magic, kind in _MAGIC:
        # A fact in text may begin with the four letters of Parquet, too.
        sure = kind != 'parquet' or b'\0' in head or SUFFIXES.get(plain_suffix(path.name)) == kind
        if sure and head.startswith(magic):
            return Head(kind)
    text = head.decode('utf-8-sig', errors='replace')
    lines = re.split(r'\r\n|\n|\r', text)
    # The last line may go on.
    lines = lines[:-1] if len(head) == _HEAD_BYTES and len(lines) > 1 else lines
    line = next((line for line in lines if line.strip() and not line.lstrip().startswith('#')), '')
    return Head(_kind_of(line))


def _kind_of(line: str) -> Optional[str]:
    r"""What the first line that is neither blank nor a comment shows."""
    statement = _STATEMENT.fullmatch(line)
    if statement is not None:
        return 'ntriples' if statement[1] is None else 'nquads'
    if re.match(r'\s*\[\s*(?:[\[{].*)?$', line):
        return 'array'
    # Other beginnings may be labels of a fact in text.
    if line.count('\t') == 2:
        return None
    if _DIRECTIVE.match(line) is not None:
        return 'turtle'
    if _XML.match(line) is not None:
        return 'rdfxml'
    if line.lstrip().startswith('{') and _is_json(line):
        return 'jsonl'
    return 'counted' if re.fullmatch(r'\s*\d+\s*', line) else None


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def plain_suffix(name: str) -> str:
    r"""The end of a name, without :obj:`.gz`, in lower case."""
    return Path(name.lower().removesuffix('.gz')).suffix


def check_format(value: Any, others: tuple[str, ...] = ()) -> None:
    r"""Checks the argument :obj:`format`.

    Args:
        value (Any): The argument.
        others (tuple of str, optional): Further names that are allowed. (default: :obj:`()`)

    Raises:
        ArgumentError: If it is no format.
    """
    if value is not None:
        one_of('format', value, (*FORMATS, *others))


def format_of(path: Path, asked: Optional[str] = None, is_text: bool = False) -> str:
    r"""The format of a file.

    The end of the name decides. Where it says little (:obj:`.txt`, or nothing known), the first line decides between
    text and the formats that can be told from it.

    Args:
        path (Path): The file.
        asked (str, optional): The argument :obj:`format`. (default: :obj:`None`)
        is_text (bool, optional): Whether other arguments say that it is text, such as :obj:`delimiter`. (default:
            :obj:`False`)

    Raises:
        DataError: If the file cannot be read, or its beginning contradicts its name or :obj:`asked`.
    """
    suffix = plain_suffix(path.name)
    named = SUFFIXES.get(suffix)
    found = asked or named or 'text'
    if found == 'parquet' and path.name.lower().endswith('.gz'):
        raise DataError(f'{path}: Parquet files are compressed internally; expected a name without .gz')
    head = head_of(path)
    if head.kind is None:
        if found == 'parquet':
            raise DataError(f'{path}: not Parquet, as {_said_by(asked, suffix)}, whose files begin with PAR1')
        return found
    if found in _READABLE.get(head.kind, ()):
        return found
    if found == 'text' and head.kind in FORMATS and head.kind != 'parquet':
        if asked is not None or is_text:
            return found
        # Names such as facts.txt and facts say nothing against it.
        if named is None or suffix == EXTENSIONS[0]:
            return head.kind
    if found == 'text' and head.kind == 'array':
        return found
    remedy = _REMEDIES.get(head.kind, f'pass format={head.kind!r}')
    raise DataError(f'{path}: looks like {head.name}, not like {FORMATS[found]}, as {_said_by(asked, suffix)}; '
                    f'{remedy}')


def _said_by(asked: Optional[str], suffix: str) -> str:
    if asked is not None:
        return f'format={asked!r} says'
    return f'the end of its name, {suffix}, says' if suffix in SUFFIXES else 'its name suggests'

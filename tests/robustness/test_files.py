r"""Mutated files of facts against :mod:`tests.robustness.strict_parser`: the same facts, or an error with file and
line.
"""
from __future__ import annotations

import gzip
import random
import resource
import warnings
from itertools import permutations
from pathlib import Path
from typing import Any, Optional, Sequence

import hypothesis
import pytest
from hypothesis import strategies as st

from pyg_emu import load_dataset
from pyg_emu.core.errors import DataError, DataWarning
from pyg_emu.data.io.columns import role_of
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.readers import read_columns
from tests.robustness import strict_parser
from tests.robustness.cases import Cases
from tests.robustness.strict_parser import Fact, Refused

pytestmark = pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')

#: Of :obj:`make robustness`, in all.
MUTATED, GENERATED = 18_000, 2_000
#: Tests that run beside one another.
SHARDS = 6
#: Files beyond all measure.
BOMBS = 10
#: MiB that reading such a file may add to the memory of the process.
MEMORY_MIB = 300

NAMES = ('facts.txt', 'facts.tsv', 'facts.csv', 'facts.txt.gz', 'facts.tsv.gz', 'facts.csv.gz')
LABELS = ('a', 'b', 'Rome', 'r', 'NA', 'null', '01', '1', '1.0', ' padded ', 'ü', 'e\u0301', '\u2028', '𝔘', 'x"y',
          'in', 'is in', '#', '#a', '-', "'", 'head', 'relation', 'tail', 'true', 'inf', '1e5', '\x1c', '\ufeff', ' ')
TOKENS = (b'\t', b',', b'"', b'""', b'\n', b'\r', b'\r\n', b' ', b'#', b'# ', b'\0', b'\xef\xbb\xbf', b'\xff', b'\xc3',
          b'\xe2\x80\xa8', b';', b'\n\n', b'\r\r', b'"\n', b'\n"', b',"', b'",', b'\x1a', b'a\tr\tb\n', b'"a",r,b\n')


def document(rng: random.Random, delimiter: str, quotes: bool, comment: Optional[str], header: bool) -> bytes:
    r"""A file as it should be, or nearly so."""
    end = rng.choice(['\n', '\n', '\r\n', '\r'])
    rows = [[rng.choice(LABELS) for _ in range(3)] for _ in range(rng.randrange(9))]
    if header:
        names = rng.choice([['head', 'relation', 'tail'], ['Subject', 'predicate', 'object'],
                            ['relation', 'tail', 'head'], ['tail', ' head', 'relation', 'weight']])
        rows = [names, *([*row, '1'][:len(names)] for row in rows)]
    lines = []
    for row in rows:
        if quotes:
            row = [f'"{label.replace(chr(34), chr(34) * 2)}"' if '"' in label or rng.random() < 0.3 else label
                   for label in row]
        lines.append(delimiter.join(row))
        if rng.random() < 0.1:
            lines.append(rng.choice(['', '  ', f'{comment or "#"} a note']))
    text = end.join(lines) + rng.choice(['', end])
    return rng.choice([b'', b'', b'\xef\xbb\xbf']) + text.encode()


def mutated(rng: random.Random, content: bytes) -> bytes:
    r"""The same with a few bytes changed."""
    parts = bytearray(content)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        at = rng.randrange(len(parts) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(parts):
            parts[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            parts[at:at + rng.randrange(1, 4)] = b''
        elif kind == 2:
            parts[at:at] = parts[rng.randrange(len(parts) + 1):][:rng.randrange(12)]
        elif kind == 3:
            del parts[at:]
        else:
            parts[at:at] = rng.choice(TOKENS)
    return bytes(parts)


def check(path: Path, content: bytes, options: dict[str, Any]) -> None:
    r"""Compares what is read with the independent reader."""
    compressed = path.suffix == '.gz'
    path.write_bytes(content)
    csv = path.name.removesuffix('.gz').endswith('.csv')
    delimiter = options.get('delimiter') or (',' if csv else '\t')
    try:
        plain = strict_parser.decompressed(content) if compressed else content
    except Refused:
        with pytest.raises(DataError) as error:
            read_columns(path, TextFormat(**options))
        assert path.name in str(error.value)
        return

    def expected(header: bool, places: Sequence[int] = (0, 1, 2)) -> Any:
        try:
            return strict_parser.facts(plain, delimiter, csv, header, options.get('comment'), places)
        except Refused as refused:
            return refused

    found, told = read(path, options)
    header = options.get('header')
    records = strict_parser.parse(plain, delimiter, csv, options.get('comment')).records
    first = records[0].fields if records else []
    places = strict_parser.named_places(first)
    if header is None:
        # A first line that is not announced is a fact, but for names of columns that do not occur as labels below.
        if places is not None and len(first) == 3:
            header = not any(row.fields[place:place + 1] == [first[place]] for row in records[1:] for place in places)
            assert isinstance(found, DataError) or any(path.name in text for text in told), 'no warning'
            # Where a label repeats a name and a later line is broken, either reading has an error in that line.
            places = places if header else [0, 1, 2]
        else:
            header, places = any('header=' in text for text in told), None
    rivals = [] if places is None else [name for place, name in enumerate(first)
                                        if place not in places and role_of(name.strip()) is not None]
    if not header:
        agree(path, expected(False), found)
    elif rivals and not {'head', 'relation', 'tail'} <= {name.strip().casefold() for name in first}:
        # A synonym stands beside the documented name.
        assert isinstance(found, DataError) and path.name in str(found), (rivals, found)
    elif places is not None:
        agree(path, expected(True, places), found)
    elif len(first) < 3:
        agree(path, expected(True), found)
    elif isinstance(found, DataError):  # the names are none of the documentation, or a line is at fault
        assert path.name in str(found)
    else:  # they are synonyms
        assert found in [expected(False), *(expected(True, places) for places in permutations(range(len(first)), 3))]


def agree(path: Path, expected: Any, found: Any) -> None:
    if isinstance(expected, Refused):
        assert isinstance(found, DataError), (expected, found)
        message = str(found)
        assert path.name in message, (expected, message)
        assert not expected.lines or any(f'{path.name}:{line}:' in message for line in expected.lines), (expected,
                                                                                                         message)
    else:
        assert not isinstance(found, DataError) and found == expected, (expected, found)


def read(path: Path, options: dict[str, Any]) -> tuple[Any, list[str]]:
    r"""The facts that the package reads, or its error; and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        try:
            columns = read_columns(path, TextFormat(**options))
            found: Any = list(zip(*(column.tolist() for column in columns)))
        except DataError as error:
            found = error
    return found, [str(one.message) for one in caught if issubclass(one.category, DataWarning)]


def loads_the_same(path: Path, options: dict[str, Any], expected: list[Fact]) -> None:
    r"""The same through :func:`~pyg_emu.load_dataset`."""
    data = load_dataset(path, fractions=(1.0, 0.0, 0.0), **options)
    assert data.entity_labels == sorted({label for head, _, tail in expected for label in (head, tail)})
    assert data.relation_labels == sorted({relation for _, relation, _ in expected})
    rows = sorted((data.entity_labels[head], data.relation_labels[relation], data.entity_labels[tail])
                  for head, relation, tail in data.facts('train').tolist())
    assert rows == sorted(expected)


@pytest.mark.parametrize('shard', range(SHARDS))
def test_mutated_files(tmp_path: Path, cases: Cases, shard: int) -> None:
    rng = cases.random()
    before = peak_mib()
    for _ in range(cases.count(MUTATED // SHARDS)):
        name = rng.choice(NAMES)
        csv = '.csv' in name
        options: dict[str, Any] = {'header': rng.choice([None, None, False, True])}
        if rng.random() < 0.4:
            options['comment'] = rng.choice(['#', '#', '//', '"' if not csv else '#', ' '])
        if rng.random() < 0.2:
            options['delimiter'] = rng.choice([';', ',', '\t', ' ', '|'])
        delimiter = options.get('delimiter') or (',' if csv else '\t')
        content = mutated(rng, document(rng, delimiter, csv, options.get('comment'), options['header'] is True))
        if name.endswith('.gz'):
            content = gzip.compress(content, 1, mtime=0)
            if rng.random() < 0.3:
                content = mutated(rng, content)
        with cases.attempt((name, content, options)):
            path = tmp_path / name
            check(path, content, options)
            if rng.random() < 0.1 and options['header'] is not None:
                found, _ = read(path, options)
                if isinstance(found, list) and found:
                    loads_the_same(path, options, found)
        path.unlink()
    assert peak_mib() < before + MEMORY_MIB


LINES = st.lists(st.tuples(*[st.text(st.sampled_from('ab"\t, \r\n#é\0\ufeff'), max_size=4)] * 3), max_size=6)


@pytest.mark.parametrize('csv', [False, True])
def test_generated_files(tmp_path: Path, cases: Cases, csv: bool) -> None:
    r"""Small files of the characters that matter, which hypothesis makes smaller where one fails."""
    path = tmp_path / ('facts.csv' if csv else 'facts.tsv')

    @hypothesis.seed(cases.seed)
    @hypothesis.settings(max_examples=cases.count(GENERATED // 2), derandomize=False, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(lines=LINES, end=st.sampled_from(['\n', '\r\n', '\r']), header=st.sampled_from([None, False]),
                      comment=st.sampled_from([None, '#']))
    def compare(lines: list[tuple[str, ...]], end: str, header: Optional[bool], comment: Optional[str]) -> None:
        cases.tried += 1
        content = end.join((',' if csv else '\t').join(line) for line in lines).encode()
        check(path, content, {'header': header, 'comment': comment})

    compare()


def test_files_that_go_on_and_on(tmp_path: Path, cases: Cases) -> None:
    r"""A small compressed file may hold a line that would not fit into memory."""
    rng = cases.random()
    for number in range(cases.count(BOMBS)):
        piece = rng.choice([b'a', b'\0', b'"', b' ', b'a\t', b'""', b'a,', b'"a', b'\xff', b'# '])
        path = tmp_path / rng.choice(['facts.csv.gz', 'facts.tsv.gz'])
        path.write_bytes(400 * gzip.compress(piece * ((1 << 20) // len(piece)), 1))
        before = peak_mib()
        with cases.attempt((number, piece, path.name)):
            with pytest.raises(DataError, match=path.name):
                read_columns(path, TextFormat(comment=rng.choice([None, '#'])))
            assert peak_mib() < before + MEMORY_MIB, peak_mib() - before


def peak_mib() -> float:
    r"""The most memory that the process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

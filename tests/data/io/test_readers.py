r"""Lines become labels exactly as written, and one error names the line that is wrong."""
from __future__ import annotations

import gzip
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.readers import TextFormat, find_splits, first_unknown_relation, read_columns

GOOD = b'a\tr\tb\nb\ts\ta\n'
FACTS = [('a', 'r', 'b'), ('b', 's', 'a')]


def read(folder: Path, content: bytes, name: str = 'train.txt', **options: Any) -> list[tuple[str, str, str]]:
    path = folder / name
    path.write_bytes(content)
    return list(zip(*read_columns(path, TextFormat(**options))))


def error(folder: Path, content: bytes, name: str = 'train.txt', **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, content, name, **options)
    assert str(folder / name) in str(caught.value)
    return str(caught.value).removeprefix(str(folder) + os.sep)


def test_labels_are_kept_as_they_stand(tmp_path: Path) -> None:
    labels = ['NA', 'null', 'nan', 'None', '01', '1', '1.0', 'True', ' a ', '"q', "'", '\\', '#', 'a#b', '-', '\x0c',
              'é\u2028']
    content = ''.join(f'{label}\tr {label}\t{label}\n' for label in labels)
    expected = [(label, f'r {label}', label) for label in labels]
    assert read(tmp_path, content.encode()) == expected


@pytest.mark.parametrize('content', [
    GOOD.rstrip(b'\n'), b'\xef\xbb\xbf' + GOOD, GOOD.replace(b'\n', b'\r\n'), GOOD.replace(b'\n', b'\r'),
    b'\n' + GOOD.replace(b'\n', b'\n\n') + b'\n',
], ids=['no last line end', 'byte order mark', 'windows', 'old mac', 'blank lines'])
def test_variants_of_the_same_text(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path, content) == FACTS
    assert read(tmp_path, gzip.compress(content), 'train.tsv.gz') == FACTS


def test_delimiter_comes_from_the_extension_or_from_the_caller(tmp_path: Path) -> None:
    commas = GOOD.replace(b'\t', b',')
    assert read(tmp_path, commas, 'train.csv') == FACTS
    assert read(tmp_path, gzip.compress(commas), 'train.csv.gz') == FACTS
    assert read(tmp_path, commas, delimiter=',') == FACTS
    assert read(tmp_path, GOOD.replace(b'\t', b' '), delimiter=' ') == FACTS


def test_quotation_marks_are_syntax_in_csv_alone(tmp_path: Path) -> None:
    content = b'"a,b",r,"say ""hi"""\n"two\nlines",r,c\n'
    assert read(tmp_path, content, 'train.csv') == [('a,b', 'r', 'say "hi"'), ('two\nlines', 'r', 'c')]
    assert read(tmp_path, b'"a",r,"b"\n', delimiter=',') == [('"a"', 'r', '"b"')]


def test_header_and_comments(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf# by hand\nhead\trelation\ttail\n#\ta\tb\tc\td\n' + GOOD + b' #x\tr\t#y\n# end'
    assert read(tmp_path, content, header=True, comment='#') == [*FACTS, (' #x', 'r', '#y')]
    # Without the option such lines are facts like any other.
    assert read(tmp_path, b'#a\tr\t#b\n') == [('#a', 'r', '#b')]


def test_long_comments_span_blocks(tmp_path: Path) -> None:
    line = b'entity %d\trelation\tother\n'
    content = b''.join((b'# %d\n' % i if i % 3 == 0 else b'') + line % i for i in range(60_000))
    facts = read(tmp_path, content, comment='#')
    assert [head for head, _, _ in facts] == [f'entity {i}' for i in range(60_000)]


def test_a_header_read_as_a_fact_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r'train\.txt: the first line \(Head, Relation, Tail\) looks like a header'):
        assert read(tmp_path, b'Head\tRelation\tTail\n' + GOOD) == [('Head', 'Relation', 'Tail'), *FACTS]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read(tmp_path, b'Head\tRelation\tTail\n' + GOOD, header=True) == FACTS


@pytest.mark.parametrize(('line', 'said'), [
    (b'a\tr\tb\tc\n', '4 columns where 3 are expected'),
    (b'a\tr\tb\t\n', '4 columns where 3 are expected'),
    (b'a\tr\n', '2 columns where 3 are expected'),
    (b'a\n', '1 column where 3 are expected'),
    (b'\tr\tb\n', 'the label of the head is empty'),
    (b'a\t\tb\n', 'the label of the relation is empty'),
    (b'a\tr\t\n', 'the label of the tail is empty'),
    (b'\t\t\n', 'the label of the head is empty'),
], ids=lambda value: repr(value) if isinstance(value, bytes) else '')
def test_the_bad_line_is_named_wherever_it_stands(tmp_path: Path, line: bytes, said: str) -> None:
    good = b'x\tr\ty\n'
    # Far enough down for parsers that work in blocks.
    for before in (0, 1, 2, 3, 60_000):
        for after in (0, 2):
            message = error(tmp_path, good * before + line + good * after)
            assert message.startswith(f'train.txt:{before + 1}: {said}')
    # Lines that are not read count all the same.
    message = error(tmp_path, b'#\n\n' + good + b'#\n' + line, comment='#')
    assert message.startswith(f'train.txt:5: {said}')


def test_blank_lines_are_told_from_lines_of_empty_labels(tmp_path: Path) -> None:
    assert read(tmp_path, b'\n' + GOOD + b'  \n' + GOOD + b'\n\n') == FACTS * 2
    assert read(tmp_path, GOOD + b' \t \t \n') == [*FACTS, (' ', ' ', ' ')]
    assert error(tmp_path, GOOD + b'\n \n' + GOOD + b'\t\t\n').startswith('train.txt:7: the label of the head is empty')


def test_numbers_are_labels(tmp_path: Path) -> None:
    # Were they read as numbers, '01' and '1' would be one entity.
    assert read(tmp_path, b'01\t1\t1.0\n1\t01\t1e0\n') == [('01', '1', '1.0'), ('1', '01', '1e0')]


@pytest.mark.parametrize(('content', 'fitting'), [(b'a,r,b\n', ','), (b'a r b\n', ' '), (b'a;r;b\n', ';')])
def test_another_delimiter_is_suggested(tmp_path: Path, content: bytes, fitting: str) -> None:
    assert error(tmp_path, content).endswith(f'the line would fit delimiter={fitting!r}')


def test_undecodable_bytes_are_located(tmp_path: Path) -> None:
    message = error(tmp_path, GOOD + b'caf\xe9\tr\tb\n')
    assert message.startswith('train.txt:3: byte 0xe9 at offset 15 of the file is not UTF-8')
    assert 'train.txt:1: byte 0xff at offset 4 of the file' in error(tmp_path, b'\xef\xbb\xbfa\xff\tr\tb\n')
    for options in ({}, {'comment': '#'}):
        message = error(tmp_path, GOOD + 'é'.encode() + b'\0\tr\tb\n', **options)
        assert message.startswith('train.txt:3: byte 0x00 at offset 14 of the file is not UTF-8 text (null byte)')
    message = error(tmp_path, b'\xef\xbb\xbf' + GOOD * 100_000 + b'\xff\tr\tb\n')
    assert message.startswith(f'train.txt:200001: byte 0xff at offset {3 + len(GOOD) * 100_000} of the file')
    assert 'end its name in .gz' in error(tmp_path, gzip.compress(GOOD))


def test_broken_archives(tmp_path: Path) -> None:
    lines = b''.join(b'a\tr\t%d\n' % number for number in range(100_000))
    whole = gzip.compress(lines, mtime=0)
    assert len(read(tmp_path, whole, 'train.txt.gz')) == 100_000
    for broken in (whole[:-4], whole[:-6] + b'\0\0\0\0\0\0', whole[:len(whole) // 2], lines):
        assert 'not an intact gzip file' in error(tmp_path, broken, 'train.txt.gz')


def test_broken_csv(tmp_path: Path) -> None:
    assert error(tmp_path, b'a,r,b\na,r,"b\nc,r,d\n', 'train.csv').startswith('train.csv:2: not CSV')
    assert error(tmp_path, b'a,r,b\n"x\ny",r,b,c\n', 'train.csv').startswith('train.csv:3: 4 columns')
    assert error(tmp_path, b'a,r,b\na,"",b\n', 'train.csv').startswith('train.csv:2: the label of the relation')


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r'nothing\.txt: no such file'):
        read_columns(tmp_path / 'nothing.txt', TextFormat())

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, 'Permission denied')

    (tmp_path / 'train.txt').write_bytes(GOOD)
    monkeypatch.setattr(Path, 'open', refuse)
    with pytest.raises(DataError, match=r'train\.txt: cannot be read \(Permission denied\)'):
        read_columns(tmp_path / 'train.txt', TextFormat())
    monkeypatch.setattr(Path, 'iterdir', refuse)
    with pytest.raises(DataError, match=r'the folder cannot be read \(Permission denied\)'):
        find_splits(tmp_path, ())


@pytest.mark.parametrize('options', [
    {'delimiter': ''}, {'delimiter': '\t\t'}, {'delimiter': '\n'}, {'delimiter': '→'}, {'comment': ''},
])
def test_impossible_formats(options: dict[str, str]) -> None:
    with pytest.raises(ArgumentError, match=f'^{next(iter(options))} must be'):
        TextFormat(**options)  # type: ignore[arg-type]


def test_splits_are_found_under_their_usual_names(tmp_path: Path) -> None:
    for name in ('train.tsv.gz', 'dev.txt', 'test.csv', 'train.md', 'entities.txt'):
        (tmp_path / name).touch()
    (tmp_path / 'train.txt').mkdir()
    found = find_splits(tmp_path, ('train', 'valid', 'test'))
    assert {split: path.name for split, path in found.items()} == {'train': 'train.tsv.gz', 'valid': 'dev.txt',
                                                                  'test': 'test.csv'}
    (tmp_path / 'valid.txt').touch()
    with pytest.raises(DataError, match=r"several files for the split 'valid' \(dev\.txt, valid\.txt\)"):
        find_splits(tmp_path, ())


def test_missing_splits_are_named(tmp_path: Path) -> None:
    every = ('train', 'valid', 'test')
    with pytest.raises(DataError, match='no such folder'):
        find_splits(tmp_path / 'nowhere', every)
    with pytest.raises(DataError, match=r"no file for the splits 'train' and 'valid' and 'test' \(found: none"):
        find_splits(tmp_path, every)
    (tmp_path / 'train.txt').touch()
    with pytest.raises(DataError, match=r"'valid' and 'test' \(found: train\.txt\).*pass require_splits=\('train',\)"):
        find_splits(tmp_path, every)
    assert list(find_splits(tmp_path, ())) == ['train']
    (tmp_path / 'test.txt').touch()
    with pytest.raises(DataError, match=r"'valid' .*expected valid\.txt .*require_splits=\('train', 'test'\)"):
        find_splits(tmp_path, every)
    (tmp_path / 'train.txt').unlink()
    with pytest.raises(DataError, match="no file for the split 'train'") as caught:
        find_splits(tmp_path, ())
    assert 'require_splits' not in str(caught.value)  # training facts cannot be done without
    for wrong in ('train', ['training'], False, [['train']]):
        with pytest.raises(ArgumentError, match='require_splits must be some of'):
            find_splits(tmp_path, wrong)  # type: ignore[arg-type]


def test_first_unknown_relation_counts_every_line(tmp_path: Path) -> None:
    path = tmp_path / 'train.txt'
    path.write_bytes(b'# x\n\na\tr\tb\na\tborn_inn\tb\n')
    message = str(first_unknown_relation(path, TextFormat(comment='#'), ['r', 'born_in']))
    assert message.startswith(f'{path}:4: ')
    assert "'born_inn' is not one of the 2 relations" in message and "nearest: 'born_in'" in message

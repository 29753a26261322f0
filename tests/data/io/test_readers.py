r"""Lines become labels exactly as written, and one error names the line that is wrong."""
from __future__ import annotations

import gzip
import os
import re
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io import textfiles
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.readers import line_of, read_chunks, read_columns, unknown_relation

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


def test_a_header_that_is_not_announced_is_recognised(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r'train\.txt.*Head, Relation, Tail.*header=False'):
        assert read(tmp_path, b'Head\tRelation\tTail\n' + GOOD) == FACTS
    with pytest.warns(DataWarning, match='subject, object, predicate'):
        assert read(tmp_path, b'\xef\xbb\xbfsubject\tobject\tpredicate\r\na\tb\tr\r\n') == [('a', 'r', 'b')]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read(tmp_path, b'Head\tRelation\tTail\n' + GOOD, header=True) == FACTS
        assert read(tmp_path, b'head\trelation\ttail\n', header=False) == [('head', 'relation', 'tail')]
        # Labels of toy facts that might be names of columns, too.
        assert read(tmp_path, b'x\tr\ty\n' + GOOD) == [('x', 'r', 'y'), *FACTS]


def test_a_first_fact_that_looks_like_a_header_stays_a_fact(tmp_path: Path) -> None:
    # What occurs again further down is an entity or a relation.
    content = b'head\trelation\ttail\nneck\trelation\thead\n'
    with pytest.warns(DataWarning, match="'relation'.*header=True"):
        assert read(tmp_path, content) == [('head', 'relation', 'tail'), ('neck', 'relation', 'head')]


@pytest.mark.parametrize(('first', 'options'), [
    (',head,relation,tail', {}), (',head,relation,tail', {'head': 1, 'relation': 2, 'tail': 3}),
    ('0,head,relation,tail', {}), (',s,p,o', {}), (',source,link,target', {'head': 1, 'relation': 2, 'tail': 3}),
    # Which of two is the relation is known where the caller says so.
    ('type,source,relation,target', {'head': 1, 'relation': 2, 'tail': 3}),
])
def test_other_columns_may_have_any_name(tmp_path: Path, first: str, options: dict[str, Any]) -> None:
    content = '\n'.join([first, '0,a,r,b', '1,b,s,a'])
    with pytest.warns(DataWarning, match='header=False'):
        assert read(tmp_path, content.encode(), 'train.csv', **options) == FACTS


@pytest.mark.parametrize('options', [{'head': 0, 'relation': 1, 'tail': 2}, {'more': {'weights': 3}}])
@pytest.mark.parametrize('lines', [
    ['subject verb object 0.5', 'object verb subject 0.7', 'object verb z 0.7'], ['start type end 1', 'a r b 1'],
    ['s p o 2', 'a r b 1'], ['x r y z', 'a r b c'],
])
def test_first_facts_stay_facts_beside_other_columns(tmp_path: Path, lines: list[str], options: dict[str, Any]) -> None:
    rows = [line.split(' ') for line in lines]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DataWarning)
        found = read(tmp_path, '\n'.join('\t'.join(row) for row in rows).encode(), **options)
    assert [list(row) for row in found] == [row if 'more' in options else row[:3] for row in rows]


def test_further_columns(tmp_path: Path) -> None:
    content = b'w,tail,relation,head,part\n1,b,r,a,train\n2,a,s,b,\n'
    assert 'train.csv:3: ' in error(tmp_path, content, 'train.csv', more={'split': 'part'})
    assert read(tmp_path, content[:-1] + b'test\n', 'train.csv', more={'split': 'part', 'weights': 'w'}) == [
        ('a', 'r', 'b', 'train', '1'), ('b', 's', 'a', 'test', '2')]
    for column in ('tail', 1):
        assert "'tail'" in error(tmp_path, content, 'train.csv', more={'weights': column}, header=True)
    with pytest.raises(ArgumentError, match="weights: .*'w'.*header=False"):
        read(tmp_path, content, 'train.csv', more={'weights': 'w'}, header=False)


def test_a_header_of_unknown_columns_is_suspected(tmp_path: Path) -> None:
    assert 'header=True' in error(tmp_path, b',source,relation,target,type\n0,a,r,b,c\n', 'train.csv')
    assert 'header=True' not in error(tmp_path, b'0,a,r,b,c\n', 'train.csv')


@pytest.mark.parametrize('names', [
    'tail,relation,head', 'Object,Predicate,Subject', 'TARGET,Type,Source', 't,r,h', 'o,p,s', 'to,rel,from',
    'tail_id,relation_type,head id', 'dst,edge_type,src', 'entity2,relation,entity1', ':END_ID,:TYPE,:START_ID',
    ' Tail , Relation , Head ', '"tail","relation","head"',
    'node2,relationship,node1',
])
def test_columns_are_found_by_name(tmp_path: Path, names: str) -> None:
    content = names.encode() + b'\nb,r,a\na,s,b\n'
    assert read(tmp_path, content, 'train.csv', header=True) == FACTS
    assert read(tmp_path, gzip.compress(content), 'train.csv.gz', header=True) == FACTS
    if names.strip()[0] not in 'to:' or len(names) > 8:
        with pytest.warns(DataWarning, match='header'):
            assert read(tmp_path, content, 'train.csv') == FACTS


def test_columns_are_chosen_by_position_or_name(tmp_path: Path) -> None:
    assert read(tmp_path, b'a\tb\tr\n', relation=2, tail=1) == [('a', 'r', 'b')]
    assert read(tmp_path, b'a\tb\tr\n', relation=np.int64(2), tail=np.int64(1)) == [('a', 'r', 'b')]
    wide = b'id\tsource\tkind\tgoal\tweight\n7\ta\tr\tb\t0.5\n8\tb\ts\ta\t\n'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert read(tmp_path, wide, head=1, relation=2, tail=3, header=True) == FACTS
        assert read(tmp_path, wide, head='source', relation='kind', tail='goal') == FACTS
    # What is not read although nobody said so is named.
    with pytest.warns(DataWarning, match="'id', 'weight'"):
        assert read(tmp_path, wide, relation='kind', tail='goal') == FACTS
    assert '2: 4 columns' in error(tmp_path, b'a\tr\tb\nx\ty\tz\tw\n')
    for options, said in (({'header': True}, ("'kind'", "'goal'")),
                          ({'relation': 'kind', 'tail': 'nowhere'}, ("'nowhere'", "'goal'"))):
        message = error(tmp_path, wide, **options)
        assert all(part in message for part in said)
    assert 'column 1' in error(tmp_path, b'a\tb\tr\n', head=1)
    assert '9' in error(tmp_path, b'a\tb\tr\n', head=9)
    with pytest.raises(ArgumentError, match='header=False'):
        read(tmp_path, wide, head='source', header=False)


@pytest.mark.parametrize(('line', 'said'), [
    (b'a\tr\tb\tc\n', '4 columns'),
    (b'a\tr\tb\t\n', '4 columns'),
    (b'a\tr\n', '2 columns'),
    (b'a\n', '1 column'),
    (b'""\n', '1 column'),
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


@pytest.mark.parametrize(('content', 'options'), [
    (b'head\trelation\ttail\r x\tr\ty\t\r', {'header': True}),
    (b'head\trelation\ttail\n x\tr\ty\t', {'header': True}),
    (b'a\tr\tb\nx\tr\ty\t\nx\tr\ty\t\n', {}),
    (b'"tail","head","relation","weight"\n ,b,#a,1,\na,b,relation,1\n', {'header': True, 'comment': '#'}),
])
def test_an_empty_column_too_many_is_one_too_many(tmp_path: Path, content: bytes, options: Any) -> None:
    name = 'train.csv' if b',' in content else 'train.txt'
    width = 5 if b',' in content else 4
    assert error(tmp_path, content, name, **options).startswith(f'{name}:2: {width} columns')


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
        assert 'gzip' in error(tmp_path, broken, 'train.txt.gz')


def test_broken_csv(tmp_path: Path) -> None:
    assert error(tmp_path, b'a,r,b\na,r,"b\nc,r,d\n', 'train.csv').startswith('train.csv:2: ')
    assert error(tmp_path, b'a,r,b\n"x\ny",r,b,c\n', 'train.csv').startswith('train.csv:2: 4 columns')
    assert error(tmp_path, b'a,r,b\na,"",b\n', 'train.csv').startswith('train.csv:2: the label of the relation')
    assert error(tmp_path, b'a,r,b\n""\n', 'train.csv').startswith('train.csv:2: 1 column')


@pytest.mark.parametrize(('content', 'line'), [
    (b'"Paris,in,France\n"Rome",in,Italy\n', 1),
    (b'a,r,b\n"Paris"x,in,France\n', 2),
    (b'a,r,b\na,"in" ,b\n', 2),
    (b'a,r,b\r\na,r,b\r\n"""Paris"",in,France\r\n', 3),
    (b'# "x\n\na,r,b\na,r,"b\n', 4),
    (b'a,r,""x\r"b",\xef\xbb\xbf,-', 1),  # a character of several bytes at the end, and no line feed
])
def test_quotation_marks_are_strict(tmp_path: Path, content: bytes, line: int) -> None:
    for size in (0, 6_000):  # more than one block
        before = b'c,r,' + b'd' * 200 + b'\n'
        before *= size
        message = error(tmp_path, before + content, 'train.csv', comment='#')
        assert message.startswith(f'train.csv:{size + line}: ') and 'quotation mark' in message
        assert error(tmp_path, gzip.compress(before + content), 'train.csv.gz', comment='#')


def test_what_csv_allows_is_read(tmp_path: Path) -> None:
    content = b'a"b,r,"c\r\n\r\nd"\r\n\r\n   \r\n"",r,b\n'.replace(b'"",r,b\n', b'"#1",r,"""quoted"""\r')
    assert read(tmp_path, content, 'train.csv') == [('a"b', 'r', 'c\r\n\r\nd'), ('#1', 'r', '"quoted"')]
    # A record that spans blocks, and comments with quotation marks of their own.
    long = b'"' + b'x,""\n' * 250_000 + b'"'
    content = b'# it"s, "\n' + long + b',r,b\n#"\n'
    (head, _, tail), = read(tmp_path, content, 'train.csv', comment='#')
    assert head == 'x,"\n' * 250_000 and tail == 'b'


def test_long_labels(tmp_path: Path) -> None:
    long = 'x' * 200_000
    for name, content in (('train.csv', f'{long},r,b\n"{long}",r,b\n'), ('train.txt', f'{long}\tr\tb\n' * 2)):
        assert [len(head) for head, _, _ in read(tmp_path, content.encode(), name)] == [200_000] * 2


@pytest.mark.parametrize('end', [b'\n', b'\r\n', b'\r'])
def test_lines_end_alike(tmp_path: Path, end: bytes) -> None:
    # Whatever ends a line, it is a line for comments, blank lines, headers and numbers of lines.
    lines = [b'# note', b'head\trelation\ttail', b'', b'a\tr\tb', b'# note', b'b\ts\ta', b'  ', b'']
    assert read(tmp_path, end.join(lines), header=True, comment='#') == FACTS
    message = error(tmp_path, end.join([*lines, b'x\ty']), header=True, comment='#')
    assert message.startswith(f'train.txt:{len(lines) + 1}: 2 columns')
    csv_lines = [line.replace(b'\t', b',') for line in lines]
    assert read(tmp_path, end.join(csv_lines), 'train.csv', header=True, comment='#') == FACTS
    message = error(tmp_path, end.join([*csv_lines, b'x,y']), 'train.csv', header=True, comment='#')
    assert message.startswith(f'train.csv:{len(lines) + 1}: 2 columns')


def test_a_comment_need_not_be_text(tmp_path: Path) -> None:
    for name, good in (('train.txt', GOOD), ('train.csv', GOOD.replace(b'\t', b','))):
        content = b'# caf\xe9\0\n' + good
        assert read(tmp_path, content, name, comment='#') == FACTS
        # The way through a file that names a wrong line accepts them as well.
        assert error(tmp_path, content + b'x\n', name, comment='#').startswith(f'{name}:4: 1 column')


def test_spaces_are_kept_wherever_buffers_end(tmp_path: Path) -> None:
    # pandas reads in buffers of 256 KiB: the second one begins at each of the bytes of a line in turn.
    line = b'  entity\tr\tother  \n'
    for shift in range(1, len(line) + 1):
        facts = read(tmp_path, b'x' * shift + b'\tr\ty\n' + line * 15_000)
        assert set(facts[1:]) == {('  entity', 'r', 'other  ')}


def test_a_byte_order_mark_is_removed_once(tmp_path: Path) -> None:
    mark = b'\xef\xbb\xbf'
    for options in ({}, {'comment': '#'}, {'header': False}):
        assert read(tmp_path, mark + mark + GOOD, **options) == [('\ufeffa', 'r', 'b'), FACTS[1]]
        assert read(tmp_path, GOOD + mark + GOOD, **options) == [*FACTS, ('\ufeffa', 'r', 'b'), FACTS[1]]
    content = mark + b'head\trelation\ttail\n' + mark + GOOD
    assert read(tmp_path, content, header=True) == [('\ufeffa', 'r', 'b'), FACTS[1]]


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / 'train.txt')
    for path in (tmp_path / 'train.txt', Path('/dev/zero'), tmp_path):
        with pytest.raises(DataError, match=re.escape(str(path))):
            read_columns(path, TextFormat())


def test_bombs_are_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / 'train.txt.gz'
    for byte, said in ((b'\0', 'byte 0x00 at offset 0'), (b'a', '16 MiB')):
        with gzip.open(path, 'wb', compresslevel=1) as file:
            for _ in range(24):
                file.write(byte * (1 << 20))
        for name in ('train.txt.gz', 'train.csv.gz'):
            path.rename(tmp_path / name)
            tracemalloc.start()
            with pytest.raises(DataError, match=f'{name}:1: .*{said}'):
                read_columns(tmp_path / name, TextFormat())
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < 64 << 20
            path = tmp_path / name


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r'nothing\.txt'):
        read_columns(tmp_path / 'nothing.txt', TextFormat())

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, 'Permission denied')

    (tmp_path / 'train.txt').write_bytes(GOOD)
    monkeypatch.setattr(Path, 'open', refuse)
    with pytest.raises(DataError, match=r'train\.txt.*Permission denied'):
        read_columns(tmp_path / 'train.txt', TextFormat())


@pytest.mark.parametrize('options', [
    {'delimiter': ''}, {'delimiter': '\t\t'}, {'delimiter': '\n'}, {'delimiter': '→'}, {'delimiter': 5},
    {'comment': ''}, {'comment': 5}, {'comment': 'a\rb'}, {'header': 'maybe'},
    {'header': 'false'}, {'header': 5}, {'header': 0}, {'head': 1.5}, {'relation': -1}, {'tail': True},
])
def test_impossible_formats(options: dict[str, Any]) -> None:
    (name, value), = options.items()
    with pytest.raises(ArgumentError, match=f'^{name}: .*{re.escape(repr(value))}'):
        TextFormat(**options)


def test_lines_are_counted_back_from_rows(tmp_path: Path) -> None:
    path = tmp_path / 'train.txt'
    path.write_bytes(b'# x\n\nhead\trelation\ttail\na\tr\tb\n# y\na\tborn_inn\tb\n')
    text = TextFormat(comment='#', header=True)
    assert [line_of(path, text, row, len(read_columns(path, text)[0])) for row in (0, 1)] == [4, 6]
    path.write_bytes(b'a,r,"b\n\nb"\n\na,born_inn,b\n')
    path = path.rename(tmp_path / 'train.csv')
    assert line_of(path, TextFormat(), 1, 2) == 5
    message = unknown_relation('born_inn', ['r', 'born_in'])
    assert "'born_inn'" in message and ' 2 relations' in message and "'born_in'" in message


# Pieces ######################################################################


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textfiles, 'BLOCK_BYTES', 7)
    monkeypatch.setattr(textfiles, 'CHUNK_BYTES', 11)


@pytest.mark.usefixtures('small_pieces')
def test_files_are_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / 'train.csv'
    path.write_bytes(b'\xef\xbb\xbf# x\r\nhead,relation,tail\r\n' + b'"a,""\n",r,\xef\xbb\xbfb\r\n\r\n#\r\n' * 20)
    text = TextFormat(comment='#', header=True)
    assert sum(1 for _ in read_chunks(path, text)) > 5
    assert list(zip(*read_columns(path, text))) == [('a,"\n', 'r', '\ufeffb')] * 20


@pytest.mark.usefixtures('small_pieces')
@pytest.mark.parametrize(('line', 'said'), [
    (b'a\tr\tb\tc\n', '4 columns'), (b'a\tr\tb\t\n', '4 columns'), (b'a\tr\n', '2 columns'),
    (b'a\t\tb\n', 'the label of the relation is empty'), (b'\xff\tr\tb\n', 'byte 0xff'), (b'\0\tr\tb\n', 'byte 0x00'),
])
def test_the_bad_line_is_named_in_any_piece(tmp_path: Path, line: bytes, said: str) -> None:
    good = b'x\tr\ty\n'
    for before in range(6):
        for after in range(3):
            assert error(tmp_path, good * before + line + good * after).startswith(f'train.txt:{before + 1}: {said}')


@pytest.mark.usefixtures('small_pieces')
def test_an_empty_quoted_column_too_many_in_any_piece(tmp_path: Path) -> None:
    for before in range(6):
        content = b'x,r,y\n' * before + b'a,r,b,""\n'
        assert error(tmp_path, content, 'train.csv').startswith(f'train.csv:{before + 1}: 4 columns')


@pytest.mark.usefixtures('small_pieces')
def test_headers_of_files_in_pieces(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match='header=False'):
        assert read(tmp_path, b'head\trelation\ttail\n' + GOOD * 9) == FACTS * 9
    with pytest.warns(DataWarning, match="'relation'.*header=True"):
        found = read(tmp_path, b'head\trelation\ttail\n' + GOOD * 9 + b'neck\trelation\thead\n')
    assert found == [('head', 'relation', 'tail'), *FACTS * 9, ('neck', 'relation', 'head')]

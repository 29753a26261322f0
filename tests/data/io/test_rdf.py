r"""RDF: which terms are entities, how they are called, and where a statement is that cannot be read."""
from __future__ import annotations

import builtins
import gzip
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import pytest

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.rdf import RDFReader

pytest.importorskip('pyoxigraph')

TRIPLES = b"""\
# Cities
<http://db.org/Bonn> <http://db.org/in> <http://db.org/Germany> .

_:b0 <http://db.org/in> <http://db.org/Germany> .
<http://db.org/Bonn> <http://db.org/name> "Bonn"@de .
<http://db.org/Bonn> <http://db.org/people> "3"^^<http://www.w3.org/2001/XMLSchema#int> . # many
<http://db.org/Germany> <http://db.org/has> <http://db.org/Bonn> .
"""
GERMANY, BONN = 'http://db.org/Germany', 'http://db.org/Bonn'


def read(folder: Path, content: bytes, name: str = 'a.nt', format: str = 'ntriples', **options: Any
         ) -> list[tuple[str, str, str]]:
    (folder / name).write_bytes(content)
    facts = RDFReader(**options).read(folder / name, format)
    return list(zip(*facts.columns))


def test_literals(tmp_path: Path) -> None:
    links = [(BONN, 'http://db.org/in', GERMANY), ('_:b0', 'http://db.org/in', GERMANY),
             (GERMANY, 'http://db.org/has', BONN)]
    with pytest.warns(DataWarning, match="a.nt: 2 of the 5 .*a.nt:5.*literals='keep'"):
        assert read(tmp_path, TRIPLES) == links
    with pytest.warns(DataWarning, match='2 of the 5'):
        assert read(tmp_path, TRIPLES, literals='leave out') == links
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        found = read(tmp_path, TRIPLES, literals='keep')
    assert found[2:4] == [(BONN, 'http://db.org/name', '"Bonn"@de'),
                          (BONN, 'http://db.org/people', '"3"^^<http://www.w3.org/2001/XMLSchema#int>')]
    with pytest.raises(DataError, match='a.nt:5: the tail is a literal, "Bonn"@de'):
        read(tmp_path, TRIPLES, literals='refuse')


def test_blank_nodes(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="1 of the 5 .*blank node.*a.nt:4.*blank_nodes='keep'"):
        assert '_:b0' not in {head for head, _, _ in read(tmp_path, TRIPLES, literals='keep', blank_nodes='leave out')}
    with pytest.raises(DataError, match='a.nt:4: the head is a blank node, _:b0'):
        read(tmp_path, TRIPLES, blank_nodes='refuse')


def test_places_count_what_is_left_out(tmp_path: Path) -> None:
    (tmp_path / 'a.nt').write_bytes(TRIPLES)
    with pytest.warns(DataWarning):
        facts = RDFReader().read(tmp_path / 'a.nt', 'ntriples')
    assert [facts.place(row, 'head') for row in range(3)] == [f'{tmp_path}/a.nt:{line}' for line in (2, 4, 7)]
    (tmp_path / 'a.ttl').write_bytes(TRIPLES)
    with pytest.warns(DataWarning, match='a.ttl: statement 3'):
        facts = RDFReader().read(tmp_path / 'a.ttl', 'turtle')
    assert facts.place(2, 'head') == f'{tmp_path}/a.ttl: statement 5'


def test_nodes_without_labels_have_the_same_ones_each_time(tmp_path: Path) -> None:
    content = b'@prefix x: <http://x/> .\nx:a x:p [ x:q _:deadbeef ] , ( x:b ) .\n_:deadbeef x:p _:b.c .\n'
    found = read(tmp_path, content, 'a.ttl', 'turtle')
    assert found == read(tmp_path, content, 'a.ttl', 'turtle')
    labels = {label for head, _, tail in found for label in (head, tail) if label.startswith('_:')}
    assert labels == {'_:a.ttl#1', '_:a.ttl#2', '_:deadbeef', '_:b.c'}
    content = (b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:x="http://x/">'
               b'<rdf:Description rdf:nodeID="n1"><x:p><rdf:Description rdf:about="http://x/a"/></x:p>'
               b'<x:q rdf:parseType="Resource"><x:r rdf:resource="http://x/b"/></x:q></rdf:Description></rdf:RDF>')
    assert {head for head, _, _ in read(tmp_path, content, 'a.rdf', 'rdfxml')} == {'_:n1', '_:a.rdf#1'}


def test_blank_nodes_of_several_files(tmp_path: Path) -> None:
    reader = RDFReader()
    for name in ('a.nt', 'b.nt', 'c.nt'):
        (tmp_path / name).write_bytes(b'_:x <r:> <a:> .\n' if name != 'c.nt' else b'_:z <r:> <a:> .\n')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        reader.read(tmp_path / 'a.nt', 'ntriples')
        reader.read(tmp_path / 'c.nt', 'ntriples')
    with pytest.warns(DataWarning, match=r'b\.nt: 1 blank .*_:x in .*a\.nt'):
        reader.read(tmp_path / 'b.nt', 'ntriples')


def test_named_graphs(tmp_path: Path) -> None:
    content = b'<a:> <r:> <b:> <g:1> .\n<a:> <r:> <b:> .\n<b:> <r:> <a:> _:g .\n'
    with pytest.warns(DataWarning, match="3 graphs.*'g:1' .*graphs="):
        assert read(tmp_path, content, 'a.nq', 'nquads') == [('a:', 'r:', 'b:'), ('a:', 'r:', 'b:'), ('b:', 'r:', 'a:')]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert len(read(tmp_path, content, 'a.nq', 'nquads', graphs=['g:1', '_:g'])) == 2
        assert len(read(tmp_path, content, 'a.nq', 'nquads', graphs=[''])) == 1
        assert read(tmp_path, content, 'a.nq', 'nquads', graphs=['g:1'], tail='graph') == [('a:', 'r:', 'g:1')]
    with pytest.raises(DataError, match="a.nq: .*'g:2'.*'g:1'"):
        read(tmp_path, content, 'a.nq', 'nquads', graphs=['g:2'])
    with pytest.raises(DataError, match='a.nq:2: the tail is the default graph'):
        read(tmp_path, content, 'a.nq', 'nquads', tail=3)
    with pytest.raises(ArgumentError, match='graphs: .*N-Triples'):
        read(tmp_path, content, 'a.nt', 'ntriples', graphs=['g:1'])


def test_prefixes(tmp_path: Path) -> None:
    short = {'db': 'http://db.org/', 'g': 'http://db.org/G', '': 'http://db.org/in', 'rest': 'http://other.org/'}
    found = read(tmp_path, TRIPLES, literals='keep', prefixes=short)
    assert found[0] == ('db:Bonn', ':', 'g:ermany') and found[2][2] == '"Bonn"@de'
    turtle = b'@prefix db: <http://db.org/> .\ndb:Bonn db:in <http://db.org/Germany>, <http://else.org/> .\n'
    assert read(tmp_path, turtle, 'a.ttl', 'turtle', prefixes=True) == [('db:Bonn', 'db:in', 'db:Germany'),
                                                                        ('db:Bonn', 'db:in', 'http://else.org/')]
    with pytest.raises(DataError, match="http://db.org/x and http://e.org/x .*'p:x'|http://e.org/x and .*'p:x'"):
        reader = RDFReader(prefixes=True)
        for name, space in (('a.ttl', b'http://db.org/'), ('b.ttl', b'http://e.org/')):
            (tmp_path / name).write_bytes(b'@prefix p: <%b> .\np:x p:r p:y .\n' % space)
            reader.read(tmp_path / name, 'turtle')
    with pytest.raises(DataError, match="'db:x'"):
        read(tmp_path, b'<db:x> <db:r> <http://db.org/x> .\n', prefixes=short)
    with pytest.raises(ArgumentError, match='prefixes: .*N-Triples'):
        read(tmp_path, TRIPLES, prefixes=True)


def test_columns(tmp_path: Path) -> None:
    content = b'<a:> <r:> <b:> .\n'
    assert read(tmp_path, content, head='object', tail=0) == [('b:', 'r:', 'a:')]
    with pytest.raises(DataError, match="a.nt.*'graph'.*'subject'"):
        read(tmp_path, content, head='graph')
    with pytest.raises(DataError, match='a.nt.*head.*tail'):
        read(tmp_path, content, head='object')


@pytest.mark.parametrize(('name', 'format', 'content', 'said'), [
    ('a.nt', 'ntriples', b'<a:> <r:> <b:> .\n\n<a:> <r:> .\n', ':3: '),
    ('a.nt', 'ntriples', b'<a:> <r:> <b:> .\n<a> <r:> <b:> .\n', ':2: .*absolute'),
    ('a.nt', 'ntriples', b'<a:> <r:> "\xff" .\n', ':1: .*UTF-8'), ('a.nt', 'ntriples', b'<a:> <r:> <b:\n', ':1: '),
    ('a.nt', 'ntriples', b'<a:> <r:> <<( <a:> <r:> <b:> )>> .\n', ':1: the tail is a statement'),
    ('a.nt', 'ntriples', b'a\tr\tb\n', ':1: '), ('a.nq', 'nquads', b'<a:> <r:> <b:> <g:> <h:> .\n', ':1: '),
    ('a.ttl', 'turtle', b'@prefix x: <http://x/> .\n\nx:a y:r x:b .\n', ':3: '),
    ('a.ttl', 'turtle', b'<a:> <r:> <b:> , .\n', ':1: '), ('a.trig', 'trig', b'<g:> { <a:> <r:> <b:> \n', ':'),
    ('a.rdf', 'rdfxml', b'<?xml version="1.0"?>\n<a>\n</b>\n', 'not RDF/XML'),
    ('a.nt.gz', 'ntriples', gzip.compress(b'<a:> <r:> <b:> .\n' * 99, mtime=0)[:-9], 'gzip'),
    ('a.nt.gz', 'ntriples', b'<a:> <r:> <b:> .\n', 'gzip'),
])
def test_damaged_files(tmp_path: Path, name: str, format: str, content: bytes, said: str) -> None:
    with pytest.raises(DataError, match=f'{tmp_path}/{name}.*{said}'):
        read(tmp_path, content, name, format)


def test_byte_order_marks_and_windows_line_ends(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbf<a:> <r:> <b:> .\r\n<b:> <r:> <a:> .\r\n') == [('a:', 'r:', 'b:'),
                                                                                     ('b:', 'r:', 'a:')]
    assert read(tmp_path, b'') == []


def test_without_pyoxigraph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def guarded(name: str, *args: Any, **kwargs: Any) -> Any:
        assert not name.startswith('pyoxigraph')
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, '__import__', guarded)
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ArgumentError, match=r'a.nt.*pip install pyoxigraph.*pyg_emu\[rdf\]'):
        read(tmp_path, TRIPLES)

r"""RDF, parsed by pyoxigraph, to labelled facts. IRIs and blank nodes are entities; literals are, if asked for."""
from __future__ import annotations

import codecs
import re
from itertools import islice
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Literal, Optional, Sequence, Union, cast

import numpy as np

from pyg_emu.core.arguments import one_of, shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.io.columns import COLUMNS, Column, chosen_columns
from pyg_emu.data.io.detection import FORMATS
from pyg_emu.data.io.frames import require
from pyg_emu.data.io.labelled import LabelledFacts
from pyg_emu.data.io.textfiles import opened

#: What is done with terms of a kind.
Treatment = Literal['keep', 'leave out', 'refuse']
#: Prefixes and what they stand for; or whether those that a file declares are used.
Prefixes = Union[dict[str, str], bool]

_TREATMENTS = ('keep', 'leave out', 'refuse')
_NAMES = ('subject', 'predicate', 'object', 'graph')
_WITH_GRAPHS = ('nquads', 'trig')
_BY_LINE = ('ntriples', 'nquads')
_WITH_PREFIXES = ('turtle', 'trig', 'rdfxml')
_BLANK_LABEL = re.compile(rb'_:([^\s<>"\',;()\[\]]+)|nodeID\s*=\s*["\']([^"\']+)')


class RDFReader:
    r"""Reads the RDF files of one graph.

    Labels are IRIs without angle brackets, :obj:`"_:name"` for blank nodes, and, if they are kept, literals as
    N-Triples writes them, with their language or datatype: :obj:`'"Bonn"@de'`. The same triple in two named graphs is
    two facts.

    Args:
        literals (str, optional): What to do with statements about literals: :obj:`"leave out"`, with a warning that
            counts them, :obj:`"keep"`, or :obj:`"refuse"`. (default: :obj:`"leave out"`)
        blank_nodes (str, optional): The same for blank nodes. (default: :obj:`"keep"`)
        graphs (list of str, optional): The IRIs of the named graphs that are read; :obj:`""` is the default graph.
            (default: all of them, as one graph)
        prefixes (dict or bool, optional): Prefixes by which IRIs are shortened, such as
            :obj:`{"dbr": "http://dbpedia.org/resource/"}`, or :obj:`True` for those that the file declares.
            (default: :obj:`None`, IRIs in full)
        head (str or int, optional): The column of the heads: :obj:`"subject"`, :obj:`"predicate"`, :obj:`"object"` or
            :obj:`"graph"`, or its position from 0. (default: :obj:`"subject"`)
        relation (str or int, optional): The column of the relations. (default: :obj:`"predicate"`)
        tail (str or int, optional): The column of the tails. (default: :obj:`"object"`)

    Raises:
        ArgumentError: If an argument is outside of its domain, or pyoxigraph is not installed.
    """
    def __init__(self, literals: Optional[Treatment] = None, blank_nodes: Optional[Treatment] = None,
                 graphs: Optional[Sequence[str]] = None, prefixes: Optional[Prefixes] = None,
                 head: Optional[Column] = None, relation: Optional[Column] = None, tail: Optional[Column] = None
                 ) -> None:
        self._treatment = {
            'literal': 'leave out' if literals is None else one_of('literals', literals, _TREATMENTS),
            'blank node': 'keep' if blank_nodes is None else one_of('blank_nodes', blank_nodes, _TREATMENTS)}
        if graphs is not None and (isinstance(graphs, str) or not isinstance(graphs, (list, tuple)) or not graphs
                                   or not all(isinstance(graph, str) for graph in graphs)):
            raise ArgumentError(f'graphs: expected a list of IRIs of named graphs, got {shown(graphs)}')
        if prefixes is not None and not isinstance(prefixes, bool) and not (isinstance(prefixes, dict) and all(
                isinstance(key, str) and isinstance(value, str) and value for key, value in prefixes.items())):
            raise ArgumentError('prefixes: expected a dictionary such as {"dbr": "http://dbpedia.org/resource/"}, or '
                                f'True, got {shown(prefixes)}')
        self._graphs = None if graphs is None else set(graphs)
        self._prefixes = prefixes
        self._chosen = (head, relation, tail)
        # Of the files before: which IRI a short label stands for, and in which file a blank node was.
        self._short: dict[str, str] = {}
        self._blank: dict[str, Path] = {}

    def read(self, path: Path, format: str) -> LabelledFacts:
        r"""Returns the facts of a file.

        Args:
            path (Path): The file.
            format (str): One of the RDF formats.

        Raises:
            ArgumentError: If an argument does not apply to the format.
            DataError: If the file cannot be read, or a statement is not a fact; names file and line or statement.
        """
        require('pyoxigraph', f'{path}: reading RDF', 'convert the file to text', extra='rdf')
        if self._graphs is not None and format not in _WITH_GRAPHS:
            raise ArgumentError(f'graphs: {path} is {FORMATS[format]}, which has no named graphs; leave it out')
        if self._prefixes is True and format not in _WITH_PREFIXES:
            raise ArgumentError(f'prefixes: {path} is {FORMATS[format]}, which declares none; give a dictionary')
        names = _NAMES if format in _WITH_GRAPHS else _NAMES[:3]
        positions = [position if column is None else column for position, column in enumerate(self._chosen)]
        places = chosen_columns(positions, names, len(names), str(path)).places
        statements = _Statements(path, format)
        columns, numbers = self._terms(statements, places)
        labels = self._labels(statements, dict.fromkeys(term for column in columns for term in column))
        return LabelledFacts([np.array([labels[term] for term in column], dtype=object) for column in columns],
                             lambda row, role: statements.place(numbers[row]))

    def _terms(self, statements: _Statements, places: Sequence[int]) -> tuple[list[list[Any]], list[int]]:
        r"""The terms of each column, and the numbers of their statements."""
        import pyoxigraph as ox

        kinds = {ox.NamedNode: 'IRI', ox.BlankNode: 'blank node', ox.Literal: 'literal'}
        columns: list[list[Any]] = [[], [], []]
        numbers: list[int] = []
        graphs: dict[str, int] = {}
        left_out: dict[str, list[int]] = {}
        # Equal terms become one object.
        known: dict[Any, Any] = {}
        for number, quad in enumerate(statements):
            graph = _graph_label(quad.graph_name)
            graphs[graph] = graphs.get(graph, 0) + 1
            if self._graphs is not None and graph not in self._graphs:
                continue
            terms = [(quad.subject, quad.predicate, quad.object, quad.graph_name)[place] for place in places]
            missed = None
            for role, term in zip(COLUMNS, terms):
                kind = kinds.get(type(term))
                if kind is None:
                    what = 'the default graph' if isinstance(term, ox.DefaultGraph) else 'a statement'
                    raise DataError(f'{statements.place(number)}: the {role} is {what}; expected an IRI')
                treatment = self._treatment.get(kind, 'keep')
                if treatment == 'refuse':
                    raise DataError(f'{statements.place(number)}: the {role} is a {kind}, {str(term):.80}; expected '
                                    f"none, as {_argument(kind)}='refuse' says")
                missed = kind if treatment == 'leave out' else missed
            if missed is not None:
                left_out.setdefault(missed, []).append(number)
                continue
            numbers.append(number)
            for column, term in zip(columns, terms):
                column.append(known.setdefault(term, term))
        for kind, found in left_out.items():
            warn(f'{statements.path}: {len(found)} of the {statements.count} statements are left out, since '
                 f'they hold a {kind} (the first: {statements.place(found[0])}); pass '
                 f"{_argument(kind)}='keep' to make entities of them", DataWarning)
        self._check_graphs(statements.path, graphs, _NAMES.index('graph') in places)
        return columns, numbers

    def _check_graphs(self, path: Path, found: dict[str, int], named: bool) -> None:
        r"""Checks that the graphs that were asked for exist. Warns if several are read as one."""
        names = ', '.join(f'{name!r} ({count} statements)' for name, count in islice(found.items(), 5))
        missing = [graph for graph in self._graphs or () if graph not in found]
        if missing:
            raise DataError(f'{path}: there is no graph {missing[0]!r}; the file has {len(found)}: {names}')
        if self._graphs is None and len(found) > 1 and not named:
            warn(f'{path}: {len(found)} graphs are read as one: {names}{", ..." if len(found) > 5 else ""}; '
                 'pass graphs= with a list of those to read', DataWarning)

    def _labels(self, statements: _Statements, terms: Iterable[Any]) -> dict[Any, str]:
        r"""The labels of distinct terms.

        Raises:
            DataError: If two IRIs get the same label.
        """
        import pyoxigraph as ox

        prefixes = statements.prefixes if self._prefixes is True else self._prefixes or {}
        starts = {start: prefix for prefix, start in prefixes.items() if start}
        # The longest one comes first.
        pattern = re.compile('|'.join(map(re.escape, sorted(starts, key=len, reverse=True)))) if starts else None
        labels: dict[Any, str] = {}
        blank = []
        for term in terms:
            if isinstance(term, ox.BlankNode):
                blank.append(term)
            elif isinstance(term, ox.Literal):
                labels[term] = str(term)
            else:
                match = None if pattern is None else pattern.match(term.value)
                label = term.value if match is None else f'{starts[match[0]]}:{term.value[match.end():]}'
                if pattern is not None and self._short.setdefault(label, term.value) != term.value:
                    raise DataError(f'{statements.path}: with prefixes=, {self._short[label]} and {term.value} would '
                                    f'both have the label {label!r}; choose other prefixes')
                labels[term] = label
        if blank:
            labels.update(self._blank_labels(statements, blank))
        return labels

    def _blank_labels(self, statements: _Statements, nodes: Sequence[Any]) -> dict[Any, str]:
        r"""Labels of blank nodes: as written, or by file and number, which no parser's choice of names changes."""
        written = None if statements.format in _BY_LINE else statements.blank_labels()
        labels, shared, unnamed = {}, [], 0
        for node in nodes:
            if written is not None and node.value not in written:
                unnamed += 1
                labels[node] = f'_:{statements.path.name}#{unnamed}'
                continue
            labels[node] = f'_:{node.value}'
            if self._blank.setdefault(node.value, statements.path) != statements.path:
                shared.append(node.value)
        if shared:
            warn(f'{statements.path}: {len(shared)} blank nodes have labels of blank nodes in other files, '
                 f'such as _:{shared[0]} in {self._blank[shared[0]]}; each label is read as one entity',
                 DataWarning)
        return labels


class _Statements:
    r"""The statements of a file, once they have been iterated over also its prefixes and their number."""
    def __init__(self, path: Path, format: str) -> None:
        self.path = path
        self.format = format
        self.count = 0
        self.prefixes: dict[str, str] = {}
        self._lines: Optional[list[int]] = None

    def __iter__(self) -> Iterator[Any]:
        import pyoxigraph as ox

        formats = {'ntriples': ox.RdfFormat.N_TRIPLES, 'nquads': ox.RdfFormat.N_QUADS, 'turtle': ox.RdfFormat.TURTLE,
                   'trig': ox.RdfFormat.TRIG, 'rdfxml': ox.RdfFormat.RDF_XML}
        with opened(self.path) as handle:
            stream = _Stream(handle)
            try:
                parser = ox.parse(cast(IO[bytes], stream), format=formats[self.format])
                for quad in parser:
                    self.count += 1
                    yield quad
                self.prefixes = dict(parser.prefixes)
            except SyntaxError as error:
                if stream.error is not None:
                    raise stream.error from None
                line = '' if error.lineno is None else f':{error.lineno}'
                told = re.sub(r'^Parser error .*?: ', '', str(error.msg))
                raise DataError(f'{self.path}{line}: not {FORMATS[self.format]}: {told}') from None
            except (OSError, ValueError):
                if stream.error is not None:
                    raise stream.error from None
                raise

    def place(self, number: int) -> str:
        r"""Where a statement is."""
        if self.format in _BY_LINE:
            if self._lines is None:
                with opened(self.path) as handle:
                    stripped = enumerate(map(bytes.strip, handle), start=1)
                    self._lines = [line for line, text in stripped if text and not text.startswith(b'#')]
            if number < len(self._lines):
                return f'{self.path}:{self._lines[number]}'
        return f'{self.path}: statement {number + 1}'

    def blank_labels(self) -> set[str]:
        r"""The labels of blank nodes that are written in the file."""
        with opened(self.path) as handle:
            return {(turtle or xml).decode(errors='replace').rstrip('.') for line in handle
                    for turtle, xml in _BLANK_LABEL.findall(line)}


class _Stream:
    r"""A file as the parser reads it, without a byte order mark. Keeps an error of the file, which the parser hides."""
    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._at_start = True
        self.error: Optional[BaseException] = None

    def read(self, size: int = -1) -> bytes:
        try:
            piece = self._handle.read(size)
        except BaseException as error:
            self.error = error
            raise
        if self._at_start:
            piece, self._at_start = piece.removeprefix(codecs.BOM_UTF8), False
        return piece


def _graph_label(graph: Any) -> str:
    value = getattr(graph, 'value', '')  # the default graph has none
    return f'_:{value}' if type(graph).__name__ == 'BlankNode' else value


def _argument(kind: str) -> str:
    return f'{kind.replace(" ", "_")}s'

r"""Files of facts in any format to labelled facts, with one set of options for all files of a graph."""
from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Collection, Optional, Sequence

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import Column
from pyg_emu.data.io.detection import FORMATS, RDF_FORMATS, TABLE_FORMATS, check_format, format_of
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.labelled import LabelledFacts
from pyg_emu.data.io.rdf import Prefixes, RDFReader, Treatment
from pyg_emu.data.io.readers import line_of, read_chunks, read_columns, unknown_relation
from pyg_emu.data.io.tablefiles import read_json_lines, read_parquet

_TEXT = ('delimiter', 'header', 'comment')
_RDF = ('literals', 'blank_nodes', 'graphs', 'prefixes')
_COLUMNS = ('head', 'relation', 'tail')


@dataclass(frozen=True)
class FactFiles:
    r"""How files become facts.

    Args:
        format (str, optional): The format. (default: what the name and the beginning of a file say)
        delimiter, header, comment: See :class:`~pyg_emu.data.io.formats.TextFormat`; text alone.
        head, relation, tail (str or int, optional): The columns, by name or position from 0.
        split (str or int, optional): The column of splits; not of RDF.
        literals, blank_nodes, graphs, prefixes: See :class:`~pyg_emu.data.io.rdf.RDFReader`; RDF alone.
        weights (str or int, optional): The column of the weights of facts; not of RDF.

    Raises:
        ArgumentError: If an argument is outside of its domain.
    """
    format: Optional[str] = None
    delimiter: Optional[str] = None
    header: Optional[bool] = None
    comment: Optional[str] = None
    head: Optional[Column] = None
    relation: Optional[Column] = None
    tail: Optional[Column] = None
    split: Optional[Column] = None
    literals: Optional[Treatment] = None
    blank_nodes: Optional[Treatment] = None
    graphs: Optional[Sequence[str]] = None
    prefixes: Optional[Prefixes] = None
    weights: Optional[Column] = None

    def __post_init__(self) -> None:
        check_format(self.format)
        self.text  # noqa: B018  (checks its arguments)
        self._rdf  # noqa: B018

    @cached_property
    def text(self) -> TextFormat:
        r"""How lines of text become facts."""
        more = {role: column for role, column in (('split', self.split), ('weights', self.weights))
                if column is not None}
        return TextFormat(self.delimiter, self.header, self.comment, self.head, self.relation, self.tail, more)

    @cached_property
    def _rdf(self) -> RDFReader:
        return RDFReader(self.literals, self.blank_nodes, self.graphs, self.prefixes, self.head, self.relation,
                         self.tail)

    @property
    def given(self) -> list[str]:
        r"""The names of the arguments that are given."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]

    def format_of(self, path: Path) -> str:
        r"""The format of a file, see :func:`~pyg_emu.data.io.detection.format_of`."""
        return format_of(path, self.format, any(name in _TEXT for name in self.given))

    def _checked_format(self, path: Path) -> str:
        format = self.format_of(path)
        refuse_others(self.given, options_of(format), f'{path} is {FORMATS[format]}')
        return format

    def add_to(self, collector: Collector, split: str, path: Path) -> None:
        r"""Adds the facts of a file to a graph; those of text in pieces, so that memory never holds all labels.

        Args:
            collector (Collector): Gathers the graph.
            split (str): The split of the facts, if the file does not name one.
            path (Path): The file.

        Raises:
            ArgumentError: As for :meth:`read`.
            DataError: As for :meth:`read`, or if a relation is not allowed; names file and line.
        """
        if self._checked_format(path) != 'text' or self.text.more:
            self.read(path).add_to(collector, split)
            return
        unknown: Optional[tuple[int, str]] = None
        count = 0
        for columns in read_chunks(path, self.text):
            # A line that is no fact is reported first, wherever it is.
            bad = collector.add(split, columns) if unknown is None else None
            if bad is not None:
                unknown = count + bad, columns[1][bad]
            count += len(columns[0])
        if unknown is not None:
            row, relation = unknown
            raise DataError(f'{path}:{line_of(path, self.text, row, count)}: '
                            f'{unknown_relation(relation, collector.relation_labels)}')

    def read(self, path: Path) -> LabelledFacts:
        r"""Returns the facts of a file.

        Args:
            path (Path): The file.

        Raises:
            ArgumentError: If an argument does not apply to the format of the file, or a package is not installed.
            DataError: If the file cannot be read, or a line, row or statement is not a fact; names it.
        """
        format = self._checked_format(path)
        chosen = (self.head, self.relation, self.tail)
        if format in RDF_FORMATS:
            return self._rdf.read(path, format)
        if format in TABLE_FORMATS:
            read = read_parquet if format == 'parquet' else read_json_lines
            return read(path, chosen, self.split, self.weights)
        columns = read_columns(path, self.text)
        if self.split is not None and len(columns[0]) == 0:
            raise DataError(f'{path}: the file has no facts; expected lines of head, relation, tail and split')
        more = dict(zip(self.text.more, columns[len(_COLUMNS):]))
        return LabelledFacts(columns[:len(_COLUMNS)],
                             lambda row, role: f'{path}:{line_of(path, self.text, row, len(columns[0]))}',
                             more.get('split'), more.get('weights'))


def options_of(format: str) -> tuple[str, ...]:
    r"""The arguments of :class:`FactFiles` that apply to a format."""
    own = _RDF if format in RDF_FORMATS else ('split', 'weights', *(() if format in TABLE_FORMATS else _TEXT))
    return ('format', *_COLUMNS, *own)


def refuse_others(given: Collection[str], allowed: Collection[str], what: str) -> None:
    r"""Refuses arguments that do not apply, which would be ignored.

    Args:
        given (collection of str): The names of the arguments that are given.
        allowed (collection of str): The names of those that apply.
        what (str): What they do not apply to, for the message.

    Raises:
        ArgumentError: If there is one.
    """
    for name in given:
        if name not in allowed:
            takes: Any = ', '.join(allowed) or 'none'
            raise ArgumentError(f'{name}: does not apply here, since {what}; what applies: {takes}')

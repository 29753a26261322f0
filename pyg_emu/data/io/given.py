r"""Facts that are given beside a graph: a tensor of ids, a table or a file of labels."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Literal, NamedTuple, Optional, Sequence, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below, kind_of, shown, tensors
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.columns import COLUMNS, chosen_columns, named_columns
from pyg_emu.data.io.detection import TABLE_FORMATS, format_of
from pyg_emu.data.io.factfiles import FactFiles
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.readers import line_of, read_columns
from pyg_emu.data.io.tablefiles import read_table
from pyg_emu.data.io.tables import label_column
from pyg_emu.data.io.textfiles import records
from pyg_emu.data.labels import unknown_label

#: Facts of a caller.
FactSource = Union[Tensor, pd.DataFrame, str, os.PathLike]

#: The column that tells true facts from false ones.
TRUTH = 'label'
_TRUE, _FALSE = ('1', '1.0', 'true', 'yes'), ('0', '-1', '0.0', '-1.0', 'false', 'no')


class GivenFacts(NamedTuple):
    r"""Facts of a caller.

    Args:
        facts (torch.Tensor): Their ids. shape: :obj:`(F, 3)`, int64.
        truth (torch.Tensor, optional): Whether each one is true, if a column says so. shape: :obj:`(F,)`, bool.
        place (callable): Describes where a fact was read, for messages.
    """
    facts: Tensor
    truth: Optional[Tensor]
    place: Callable[[int], str]

    def all_of(self, truth: bool, argument: str, remedy: str) -> Tensor:
        r"""Returns the facts, none of which may be labelled as the opposite.

        Args:
            truth (bool): Whether the facts have to be true, or false.
            argument (str): The name of the argument, for messages.
            remedy (str): What to do with others, for messages.

        Raises:
            DataError: If a label says otherwise; names the row, or file and line.
        """
        if self.truth is not None and bool((self.truth != truth).any()):
            expected, got = ('true', 'false') if truth else ('false', 'true')
            place = self.place(int((self.truth != truth).nonzero()[0, 0]))
            raise DataError(f'{place}: expected {expected} facts as {argument}, got one that its {TRUTH} calls {got}; '
                            f'{remedy}')
        return self.facts


def known_facts_of(known_facts: Optional[FactSource], data: KGData) -> Optional[Tensor]:
    r"""The ids :obj:`(F, 3)` of the argument :obj:`known_facts`, which are true. Facts about entities or relations that
    the graph does not have are left out with a warning.

    Args:
        known_facts (torch.Tensor or pandas.DataFrame or str, optional): See :func:`given_facts`.
        data (KGData): The graph.

    Raises:
        ArgumentError: See :func:`given_facts`.
        DataError: See :func:`given_facts`, or if a fact is labelled as false.
    """
    if known_facts is None:
        return None
    return given_facts('known_facts', known_facts, data, 'leave out').all_of(
        True, 'known_facts', 'leave out the facts that are false')


def false_facts_of(negatives: FactSource, data: KGData) -> Tensor:
    r"""The ids :obj:`(F, 3)` of the argument :obj:`negatives`, which are false.

    Args:
        negatives (torch.Tensor or pandas.DataFrame or str): See :func:`given_facts`.
        data (KGData): The graph.

    Raises:
        ArgumentError: See :func:`given_facts`.
        DataError: See :func:`given_facts`, or if a fact is labelled as true.
    """
    return given_facts('negatives', negatives, data).all_of(False, 'negatives', 'pass labelled facts as facts')


def given_facts(argument: str, value: Any, data: KGData, unknown: Literal['refuse', 'leave out'] = 'refuse'
                ) -> GivenFacts:
    r"""Reads facts about the entities and relations of a graph.

    Args:
        argument (str): The name of the argument, for messages.
        value (torch.Tensor or pandas.DataFrame or str): Ids :obj:`(F, 3)` with columns head, relation, tail; a table
            with these columns, or usual synonyms, of labels (or of ids, as integers, where labels are none); or a file
            of labels in any format of :func:`~pyg_emu.data.io.files.from_file`. A column :obj:`label`, or a fourth
            column of a file without a header, says which facts are true: 1 or 0, 1 or -1, true or false. Columns of
            other names, such as :obj:`weight`, are not read.
        data (KGData): The graph. Where it has no labels, its ids serve as such.
        unknown (str, optional): What to do with facts about entities or relations that the graph does not have:
            :obj:`"refuse"`, or :obj:`"leave out"` with a warning. (default: :obj:`"refuse"`)

    Raises:
        ArgumentError: If the value is of another type, or a tensor has another shape or ids out of range.
        DataError: If a table or file cannot be read, or a label is unknown; names the row, or file and line.
    """
    if isinstance(value, Tensor):
        return GivenFacts(_ids(argument, value, data), None, lambda row: f'{argument}: row {row}')
    if isinstance(value, pd.DataFrame):
        columns, truth = _columns_of_table(argument, value)
        return _looked_up(argument, columns, truth, data, unknown, lambda row: f'{argument}: row {value.index[row]}')
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes) or not os.fspath(value):
        raise ArgumentError(f'{argument}: expected a tensor of ids of shape (F, 3), a DataFrame with the columns head, '
                            f'relation and tail, or the path of a file, got {shown(value)}')
    path = Path(value).expanduser()
    format = format_of(path)
    if format != 'text':
        return _of_file(argument, path, format, data, unknown)
    text = _format(path, data)
    columns = read_columns(path, text)
    truth = columns[len(COLUMNS)] if TRUTH in text.more else None
    return _looked_up(argument, columns[:len(COLUMNS)], truth, data, unknown,
                      lambda row: f'{path}:{line_of(path, text, row, len(columns[0]))}')


def _ids(argument: str, facts: Tensor, data: KGData) -> Tensor:
    tensors(**{argument: facts})
    if facts.dim() != 2 or facts.size(1) != 3 or facts.dtype not in (torch.int64, torch.int32) or facts.is_meta:
        raise ArgumentError(f'{argument}: expected ids, int64 of shape (F, 3) with columns head, relation, tail, got '
                            f'{kind_of(facts)}')
    facts = facts.long().to(data.device)
    for column, (limit, what) in enumerate(((data.num_nodes, 'entities'), (data.num_relations, 'relations'),
                                            (data.num_nodes, 'entities'))):
        ids_below(argument, facts[:, column], limit, f'number of {what}', wait=True)
    return facts


def _columns_of_table(argument: str, table: pd.DataFrame) -> tuple[list[np.ndarray], Optional[np.ndarray]]:
    names = list(table.columns)
    try:
        places = chosen_columns((None, None, None), names, len(names), 'the table').places
        columns = [label_column(table.iloc[:, place], names[place]) for place in places]
        truth, place = None, _truth_column(names, 'the table')
        if place is not None:
            truth = table.iloc[:, place].map(lambda value: str(int(value)) if isinstance(value, (bool, np.bool_)) else
                                             str(value)).to_numpy(dtype=object)
    except DataError as error:
        raise DataError(f'{argument}: {error}') from None
    return columns, truth


def _of_file(argument: str, path: Path, format: str, data: KGData, unknown: str) -> GivenFacts:
    r"""The facts of a file that is not text."""
    if format in TABLE_FORMATS:
        table = read_table(path, format)
        columns, truth = _columns_of_table(str(path), table)
        return _looked_up(argument, columns, truth, data, unknown, lambda row: f'{path}: row {table.index[row]}')
    found = FactFiles(format).read(path)
    return _looked_up(argument, found.columns, None, data, unknown, lambda row: found.place(row, 'head'))


def _format(path: Path, data: KGData) -> TextFormat:
    r"""How to read the facts of a file, and the column that says which of them are true, if it has one. A first line
    that names columns is a header, unless it is a fact of labels of the graph.
    """
    _, first = next(records(path, TextFormat().syntax_of(path)), (0, []))
    names = [name.strip().casefold() for name in first]
    header = TRUTH in names or TextFormat().may_be_header(first) and not _has_labels(data, first)
    known = named_columns(names) if header else None
    if known is None:
        return TextFormat(header=False, more={TRUTH: 3} if len(first) == 4 else {})
    truth = _truth_column(names, str(path))
    return TextFormat(header=True, more={} if truth is None else {TRUTH: truth})


def _truth_column(names: Sequence[Any], what: str) -> Optional[int]:
    r"""The position of the column that says which facts are true."""
    places = [place for place, name in enumerate(names) if str(name).strip().casefold() == TRUTH]
    if len(places) > 1:
        raise DataError(f'{what}: expected one column {TRUTH!r} that says which facts are true, got {len(places)}')
    return places[0] if places else None


def _has_labels(data: KGData, row: list[str]) -> bool:
    r"""Whether a row of text begins with a head, a relation and a tail of the graph."""
    held = data.entity_labels or (), data.relation_labels or (), data.entity_labels or ()
    return len(row) >= len(COLUMNS) and all(label in labels for label, labels in zip(row, held))


def _looked_up(argument: str, columns: list[np.ndarray], truth: Optional[np.ndarray], data: KGData, unknown: str,
               place: Any) -> GivenFacts:
    entities, relations = (pd.Index([*map(str, range(size or 0))] if labels is None else labels, dtype=object)
                           for labels, size in ((data.entity_labels, data.num_nodes),
                                                (data.relation_labels, data.num_relations)))
    found = []
    for kind, labels, column in zip(('entity', 'relation', 'entity'), (entities, relations, entities), columns):
        codes, distinct = pd.factorize(column)
        ids = labels.get_indexer(pd.Index(distinct, dtype=object))[codes] if len(column) else np.empty(0, np.int64)
        missing = ids < 0
        if missing.any() and unknown == 'refuse':
            row = int(missing.argmax())
            raise DataError(f'{place(row)}: {unknown_label(kind, column[row], list(labels))}')
        found.append(ids)
    facts = np.stack(found, axis=1).astype(np.int64)
    kept = (facts >= 0).all(axis=1)
    if not kept.all():
        row = int((~kept).argmax())
        which = int((facts[row] < 0).argmax())
        warn(f'{argument}: {int((~kept).sum())} of {len(facts)} facts are left out, which are about entities '
             f'or relations that the graph does not have, such as the {COLUMNS[which]} '
             f'{columns[which][row]!r} ({place(row)})', DataWarning)
    true = None if truth is None else torch.from_numpy(_truth(truth, place)[kept]).to(data.device)
    rows = np.flatnonzero(kept)
    return GivenFacts(torch.from_numpy(facts[kept]).to(data.device), true, lambda row: place(int(rows[row])))


def _truth(values: np.ndarray, place: Any) -> np.ndarray:
    text = np.array([str(value).strip().casefold() for value in pd.unique(pd.Series(values, dtype=object))])
    codes = pd.factorize(pd.Series(values, dtype=object))[0]
    wrong = ~np.isin(text, (*_TRUE, *_FALSE))
    if wrong[codes].any():
        row = int(wrong[codes].argmax())
        raise DataError(f'{place(row)}: the {TRUTH}, or fourth column, says whether a fact is true; expected 1 or 0, 1 '
                        f'or -1, true or false, got {values[row]!r}. A column of weights needs a name, in a file by a '
                        f'first line such as {", ".join((*COLUMNS, "weight"))}')
    return np.isin(text, _TRUE)[codes]

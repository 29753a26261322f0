r"""A :class:`pandas.DataFrame` of labelled facts to a :class:`~pyg_emu.KGData` and back."""
from __future__ import annotations

from functools import partial
from typing import Any, Callable, NamedTuple, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import instance
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import COLUMNS, Column, chosen_columns, further_columns
from pyg_emu.data.io.labelled import LabelledFacts
from pyg_emu.data.io.splits import SPLIT_NAMES
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS


def from_dataframe(
    df: pd.DataFrame,
    fractions: Optional[Sequence[float]] = None,
    seed: int = 0,
    *,
    head: Optional[Column] = None,
    relation: Optional[Column] = None,
    tail: Optional[Column] = None,
    split: Optional[Column] = None,
    weights: Optional[Column] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Makes a graph from a table with a row per fact.

    Facts are split at random such that every entity and every relation of valid and test also occurs in train, as far
    as that is possible (:func:`~pyg_emu.data.io.splitting.split_facts`), or as a column says.

    Args:
        df (pandas.DataFrame): Labels: strings, or integers, which become strings.
        fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int, optional): The same seed gives the same split. (default: :obj:`0`)
        head (str or int, optional): Column of the heads: its name, or its position from 0.
            (default: the one called head, or a usual synonym such as subject, source or h, in any case)
        relation (str or int, optional): Column of the relations. (default: likewise)
        tail (str or int, optional): Column of the tails. (default: likewise)
        split (str or int, optional): Column that holds :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`, instead of
            :obj:`fractions`. (default: :obj:`None`)
        weights (str or int, optional): Column of the weights of facts, finite numbers above 0; see
            :class:`~pyg_emu.KGData`. Each copy of a fact keeps its own weight. (default: :obj:`None`, all facts count
            equally)
        vocabulary (KGData, optional): A graph whose relations this one shares. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities and relations keep their ids; see
            :func:`~pyg_emu.data.io.files.from_folder`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If a column is missing, or a label is missing, empty, or neither a string nor an integer; names the
            row.
    """
    instance('df', df, pd.DataFrame)
    check_split_or_fractions(split, fractions)
    collector = Collector(vocabulary, entities)
    frame_facts(df, (head, relation, tail), split, weights=weights).add_to(collector, 'all')
    return collector.finish(DEFAULT_FRACTIONS if fractions is None and split is None else fractions, seed)


def to_dataframe(data: KGData) -> pd.DataFrame:
    r"""The labelled facts of all splits, as a table with the columns head, relation, tail and split, and weight if
    they have weights.

    If the graph has no labels, the table contains its ids instead. :func:`from_dataframe` with :obj:`split="split"`
    reads the table.

    Args:
        data (KGData): The graph.

    Raises:
        DataError: If two entities or two relations have the same label, and so would become one.
    """
    instance('data', data, KGData)
    entities = _distinct(data.entity_labels, data.num_nodes, 'entities')
    relations = _distinct(data.relation_labels, data.num_relations, 'relations')
    tables = []
    for split in SPLITS:
        facts = data.facts(split).cpu().numpy()
        table = pd.DataFrame({'head': entities[facts[:, 0]], 'relation': relations[facts[:, 1]],
                              'tail': entities[facts[:, 2]], 'split': split}, dtype=object)
        weights = data.weights(split)
        tables.append(table if weights is None else table.assign(weight=weights.cpu().numpy()))
    return pd.concat(tables, ignore_index=True)


def check_split_or_fractions(split: Optional[Column], fractions: Optional[Sequence[float]]) -> None:
    r"""Checks that facts are split in one way.

    Raises:
        ArgumentError: If there are a column of splits and fractions.
    """
    if split is not None and fractions is not None:
        raise ArgumentError('fractions, split: give one of the two; the column says where each fact belongs')


class TableColumns(NamedTuple):
    r"""The columns of a table that are read.

    Args:
        facts (tuple of int): The positions of heads, relations and tails.
        split (int, optional): The position of the splits. (default: :obj:`None`)
        weights (int, optional): The position of the weights. (default: :obj:`None`)
    """
    facts: tuple[int, int, int]
    split: Optional[int]
    weights: Optional[int] = None

    @property
    def read(self) -> list[int]:
        r"""All positions that are read."""
        return [*self.labels, *([] if self.weights is None else [self.weights])]

    @property
    def labels(self) -> list[int]:
        r"""The positions of text: heads, relations, tails and splits."""
        return [*self.facts] if self.split is None else [*self.facts, self.split]


def table_columns(names: Sequence[Any], chosen: Sequence[Optional[Column]], split: Optional[Column],
                  what: str, weights: Optional[Column] = None) -> TableColumns:
    r"""The columns that a caller asked for, of a table with names.

    Args:
        names (sequence): The names of all columns.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`.
        split (str or int, optional): The argument :obj:`split`.
        what (str): The table, for messages.
        weights (str or int, optional): The argument :obj:`weights`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is neither a name nor a position.
        DataError: If there is no such column, no column has the name of a role, or one column is to serve twice.
    """
    names = list(names)
    more = {role: column for role, column in (('split', split), ('weights', weights)) if column is not None}
    found = further_columns(more, chosen_columns(chosen, names, len(names), what), names, what)
    positions = dict(zip(more, found.more))
    return TableColumns(found.places, positions.get('split'), positions.get('weights'))


def frame_facts(df: pd.DataFrame, chosen: Sequence[Optional[Column]], split: Optional[Column], what: str = 'the table',
                place: Optional[Callable[[int, Any], str]] = None, unread: Sequence[Any] = (),
                weights: Optional[Column] = None) -> LabelledFacts:
    r"""The labelled facts of a table with a row for each.

    Args:
        df (pandas.DataFrame): The table.
        chosen (sequence): The arguments :obj:`head`, :obj:`relation` and :obj:`tail`.
        split (str or int, optional): The argument :obj:`split`.
        what (str, optional): The table, for messages. (default: :obj:`"the table"`)
        place (callable, optional): Describes a place, from a row and the name of a column. (default: both of them)
        unread (sequence, optional): The names of further columns of the source, of which :obj:`df` is a part.
            (default: :obj:`()`)
        weights (str or int, optional): The argument :obj:`weights`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is neither a name nor a position.
        DataError: If a column is missing, or a label is missing, empty, or neither a string nor an integer.
    """
    names = list(df.columns)
    found = table_columns(names, chosen, split, what, weights)
    if len(df) == 0:
        raise DataError(f'{what} has no rows; expected one per fact')
    _warn_of_unread_columns(df, found, unread, what)

    def located(row: int, name: Any) -> str:
        return f'column {name!r}, row {df.index[row]}' if place is None else place(row, name)

    labels = [label_column(df.iloc[:, position], names[position], partial(located, name=names[position]))
              for position in found.labels]
    roles = {**dict(zip((*COLUMNS, 'split'), found.labels)), 'weights': found.weights or 0}
    return LabelledFacts(labels[:3], lambda row, role: located(row, names[roles[role]]),
                         None if found.split is None else labels[3],
                         None if found.weights is None else df.iloc[:, found.weights].to_numpy())


def _warn_of_unread_columns(df: pd.DataFrame, found: TableColumns, others: Sequence[Any], what: str) -> None:
    unread = [name for position, name in enumerate(df.columns) if position not in found.read]
    unread += [name for name in others if name not in unread]
    if 'split' in unread and list(df.columns).count('split') == 1 and df['split'].isin(
            sorted(set().union(*SPLIT_NAMES.values()))).all():
        unread.remove('split')
        warn(f"{what} has a column 'split', which is not read, and its facts are split at random; pass "
             "split='split' to keep its splits", DataWarning)
    if unread:
        warn(f'{what} has columns that are not read: {", ".join(map(repr, unread))}', DataWarning)


def label_column(column: pd.Series, name: Any, place: Optional[Callable[[int], str]] = None) -> np.ndarray:
    r"""The labels of a column, as strings.

    Args:
        column (pandas.Series): Strings, or integers, which become strings.
        name (Any): The name of the column, for messages.
        place (callable, optional): Describes a row, for messages. (default: the column and the row)

    Raises:
        DataError: If a label is missing, empty, or neither a string nor an integer; names the row.
    """
    def located(row: int) -> str:
        return f'column {name!r}, row {column.index[row]}' if place is None else place(row)

    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(f'{located(int(missing.argmax()))}: the label is missing; expected text')
    if pd.api.types.is_integer_dtype(column):
        return column.astype(str).to_numpy(dtype=object)
    values = column.to_numpy(dtype=object)
    kind = pd.api.types.infer_dtype(values, skipna=False)
    if kind == 'integer':
        return pd.Series(values).map(str).to_numpy(dtype=object)
    if kind == 'string':
        # What UTF-8 cannot hold, and the null byte, at which pandas before 3 would end the label.
        wrong = (values == '') | column.astype(object).str.contains('[\x00\ud800-\udfff]').to_numpy(dtype=bool)
    else:
        wrong = np.array([not isinstance(value, str) or value == '' for value in values])
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'{located(row)}: {values[row]!r} is not a label; expected text that UTF-8 can hold, or '
                        'integers throughout')
    return values


def _distinct(labels: Optional[list[str]], count: Optional[int], what: str) -> np.ndarray:
    index = pd.Index([str(position) for position in range(count or 0)] if labels is None else labels, dtype=object)
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        raise DataError(f'two {what} have the label {repeated!r}, and would become one; expected distinct labels')
    return index.to_numpy(dtype=object)

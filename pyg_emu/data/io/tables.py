r"""A :class:`pandas.DataFrame` of labelled facts to a :class:`~pyg_emu.KGData` and back."""
from __future__ import annotations

import warnings
from typing import Any, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import instance
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.collector import Collector
from pyg_emu.data.io.columns import Column, chosen_columns
from pyg_emu.data.io.readers import unknown_relation
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
    split: Optional[str] = None,
    vocabulary: Optional[KGData] = None,
    entities: Optional[KGData] = None,
) -> KGData:
    r"""Makes a graph from a table with a row per fact.

    Facts are split at random such that every entity and every relation of valid and test also occurs in train, as far
    as that is possible (:func:`~pyg_emu.data.io.splitting.split_facts`), or as a column says.

    Args:
        df (pandas.DataFrame): Labels: strings, or integers, which become strings.
        fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The same seed gives the same split. (default: :obj:`0`)
        head (str or int, optional): Column of the heads: its name, or its position from 0.
            (default: the one called head, or a usual synonym such as subject, source or h, in any case)
        relation (str or int, optional): Column of the relations. (default: likewise)
        tail (str or int, optional): Column of the tails. (default: likewise)
        split (str, optional): Column that holds :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`, instead of
            :obj:`fractions`. (default: :obj:`None`)
        vocabulary (KGData, optional): A graph whose relations this one shares. (default: :obj:`None`)
        entities (KGData, optional): A graph whose entities and relations keep their ids; see
            :func:`~pyg_emu.data.io.files.from_folder`. (default: :obj:`None`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If a column is missing, or a label is missing, empty, or neither a string nor an integer; names the
            row.
    """
    instance('df', df, pd.DataFrame)
    if split is not None and fractions is not None:
        raise ArgumentError('fractions, split: give one of the two; the column says where each fact belongs')
    names = list(df.columns)
    places = chosen_columns((head, relation, tail), names, len(names), 'the table').places
    if split is not None and names.count(split) != 1:
        raise DataError(f'the table has {names.count(split) or "no"} column{"s" * (names.count(split) > 1)} {split!r} '
                        f'for split=; its columns are {names!r}')
    if len(df) == 0:
        raise DataError('the table has no rows; expected one per fact')
    _warn_of_unread_columns(df, [*(names[place] for place in places), *([] if split is None else [split])])
    columns = [label_column(df.iloc[:, place], names[place]) for place in places]
    collector = Collector(vocabulary, entities)
    parts = {'all': np.ones(len(df), dtype=bool)} if split is None else _parts(df, split)
    for name, mask in parts.items():
        bad = collector.add(name, [column[mask] for column in columns])
        if bad is not None:
            row = int(np.flatnonzero(mask)[bad])
            raise DataError(f'column {names[places[1]]!r}, row {df.index[row]}: '
                            f'{unknown_relation(columns[1][row], collector.relation_labels)}')
    return collector.finish(DEFAULT_FRACTIONS if fractions is None and split is None else fractions, seed)


def to_dataframe(data: KGData) -> pd.DataFrame:
    r"""The labelled facts of all splits, as a table with the columns head, relation, tail and split.

    Where the graph has no labels, its ids serve as such. :func:`from_dataframe` with :obj:`split="split"` reads it
    back.

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
        tables.append(pd.DataFrame({'head': entities[facts[:, 0]], 'relation': relations[facts[:, 1]],
                                    'tail': entities[facts[:, 2]], 'split': split}, dtype=object))
    return pd.concat(tables, ignore_index=True)


def _warn_of_unread_columns(df: pd.DataFrame, read: Sequence[Any]) -> None:
    unread = [name for name in df.columns if name not in read]
    if 'split' in unread and df['split'].isin(sorted(set().union(*SPLIT_NAMES.values()))).all():
        unread.remove('split')
        warnings.warn("the table has a column 'split', which is not read, and its facts are split at random; pass "
                      "split='split' to keep its splits", DataWarning, stacklevel=4)
    if unread:
        warnings.warn(f'the table has columns that are not read: {", ".join(map(repr, unread))}', DataWarning,
                      stacklevel=4)


def _parts(df: pd.DataFrame, split: str) -> dict[str, np.ndarray]:
    r"""Which rows belong to which split."""
    given = label_column(df[split], split)
    parts = {name: np.isin(given, aliases) for name, aliases in SPLIT_NAMES.items()}
    stray = ~np.logical_or.reduce(list(parts.values()))
    if stray.any():
        row = int(stray.argmax())
        raise DataError(f'column {split!r}, row {df.index[row]}: {given[row]!r} is not a split; expected one of '
                        f'{SPLITS}')
    if not parts['train'].any():
        raise DataError(f"column {split!r} assigns no fact to 'train'; expected at least one to train on")
    return parts


def label_column(column: pd.Series, name: Any) -> np.ndarray:
    r"""The labels of a column, as strings.

    Args:
        column (pandas.Series): Strings, or integers, which become strings.
        name (Any): The name of the column, for messages.

    Raises:
        DataError: If a label is missing, empty, or neither a string nor an integer; names the row.
    """
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(f'column {name!r}, row {column.index[int(missing.argmax())]}: the label is missing; expected '
                        'text')
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
        raise DataError(f'column {name!r}, row {column.index[row]}: {values[row]!r} is not a label; expected text that '
                        f'UTF-8 can hold, or integers throughout')
    return values


def _distinct(labels: Optional[list[str]], count: Optional[int], what: str) -> np.ndarray:
    index = pd.Index([str(position) for position in range(count or 0)] if labels is None else labels, dtype=object)
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        raise DataError(f'two {what} have the label {repeated!r}, and would become one; expected distinct labels')
    return index.to_numpy(dtype=object)

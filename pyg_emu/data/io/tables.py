r"""Labelled facts, in a folder, a file or a :class:`pandas.DataFrame`, to a :class:`~pyg_emu.KGData` and
back."""
from __future__ import annotations

import csv
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Collection, Mapping, Optional, Sequence, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.io.readers import (
    COLUMNS,
    SPLIT_NAMES,
    TextFormat,
    find_splits,
    first_unknown_relation,
    read_columns,
    unknown_relation,
)
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS, split_facts
from pyg_emu.data.io.vocabulary import Vocabulary


def from_folder(
    folder: Union[str, os.PathLike],
    *,
    require_splits: Collection[str] = SPLITS,
    delimiter: Optional[str] = None,
    header: bool = False,
    comment: Optional[str] = None,
    vocabulary: Optional[KGData] = None,
) -> KGData:
    r"""Reads a folder of :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`: lines of head, relation and tail.

    Files may end in :obj:`.txt`, :obj:`.tsv` or :obj:`.csv`, and in :obj:`.gz` after that; :obj:`valid` may also be
    called :obj:`validation`, :obj:`dev` or :obj:`val`. Labels are kept as they stand in the file. Ids follow the
    alphabetical (code point) order of the labels of all splits, so they do not depend on the order of lines.

    Args:
        folder (str or os.PathLike): The folder.
        require_splits (collection of str): Splits that have to be there and hold facts; :obj:`"train"` always does.
            (default: :obj:`("train", "valid", "test")`)
        delimiter (str, optional): What separates the columns. (default: a comma in :obj:`.csv`, else a tab)
        header (bool): Whether the first line of each file names the columns. (default: :obj:`False`)
        comment (str, optional): Lines that begin with this are not read. (default: :obj:`None`)
        vocabulary (KGData, optional): A graph whose relations, and their ids, this one shares, while its entities are
            its own: the graph to infer on in the inductive setting. (default: :obj:`None`)

    Raises:
        DataError: If a file is missing, empty or unreadable, or a line is not a fact; names file and line.
    """
    text = TextFormat(delimiter, header, comment)
    folder = Path(folder)
    collector = _Collector(vocabulary)
    for split, path in find_splits(folder, require_splits).items():
        collector.add_file(split, path, text)
        if collector.count(split) == 0 and (split == 'train' or split in require_splits):
            raise DataError(f"{path}: the split '{split}' has no facts; expected lines of head, relation and tail")
    return collector.finish()


def from_file(
    path: Union[str, os.PathLike],
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    *,
    delimiter: Optional[str] = None,
    header: bool = False,
    comment: Optional[str] = None,
    vocabulary: Optional[KGData] = None,
) -> KGData:
    r"""Reads one file of facts and splits them as :func:`from_dataframe` does.

    Args:
        path (str or os.PathLike): The file.
        fractions (sequence of float): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The same seed gives the same split. (default: :obj:`0`)
        delimiter, header, comment, vocabulary: See :func:`from_folder`.

    Raises:
        DataError: If the file is empty or unreadable, or a line is not a fact; names file and line.
    """
    path = Path(path)
    collector = _Collector(vocabulary)
    collector.add_file('all', path, TextFormat(delimiter, header, comment))
    if collector.count('all') == 0:
        raise DataError(f'{path}: the file has no facts; expected lines of head, relation and tail')
    return collector.finish(fractions, seed)


def from_dataframe(
    df: pd.DataFrame,
    fractions: Optional[Sequence[float]] = None,
    seed: int = 0,
    *,
    head: str = 'head',
    relation: str = 'relation',
    tail: str = 'tail',
    split: Optional[str] = None,
    vocabulary: Optional[KGData] = None,
) -> KGData:
    r"""Makes a graph from a table with a row per fact.

    Facts are split at random such that every entity and every relation of valid and test also occurs in train, as far
    as that is possible (:func:`~pyg_emu.data.io.splitting.split_facts`), or as a column says.

    Args:
        df (pandas.DataFrame): Labels: strings, or integers, which become strings.
        fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The same seed gives the same split. (default: :obj:`0`)
        head (str): Column of the heads. (default: :obj:`"head"`)
        relation (str): Column of the relations. (default: :obj:`"relation"`)
        tail (str): Column of the tails. (default: :obj:`"tail"`)
        split (str, optional): Column that holds :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`, instead of
            :obj:`fractions`. (default: :obj:`None`)
        vocabulary (KGData, optional): A graph whose relations this one shares; see :func:`from_folder`.

    Raises:
        DataError: If a column is missing, or a label is missing, empty, or neither a string nor an integer; names the
        row.
    """
    if split is not None and fractions is not None:
        raise ArgumentError('fractions and split exclude each other: the split column says where each fact belongs')
    names = (head, relation, tail) + (() if split is None else (split,))
    missing = [name for name in names if name not in df.columns]
    if missing:
        raise DataError(f'the table has no column {missing[0]!r} (it has {list(df.columns)!r}); pass head=, relation= '
                        f'and tail= with the names of its columns')
    if len(df) == 0:
        raise DataError('the table has no rows; expected one per fact')
    if split is None and 'split' in df.columns and df['split'].isin(sorted(set().union(*SPLIT_NAMES.values()))).all():
        warnings.warn("the table has a column 'split', which is not read, and its facts are split at random; pass "
                      "split='split' to keep its splits", DataWarning, stacklevel=2)
    columns = [_labels(df, name) for name in names]
    collector = _Collector(vocabulary)
    if split is None:
        parts = {'all': np.ones(len(df), dtype=bool)}
    else:
        given = columns.pop()
        parts = {name: np.isin(given, aliases) for name, aliases in SPLIT_NAMES.items()}
        stray = ~np.logical_or.reduce(list(parts.values()))
        if stray.any():
            row = int(stray.argmax())
            raise DataError(f'column {split!r}, row {df.index[row]}: {given[row]!r} is not a split; expected one of '
                            f'{SPLITS}')
        if not parts['train'].any():
            raise DataError(f"column {split!r} assigns no fact to 'train'; expected at least one to train on")
    for name, mask in parts.items():
        bad = collector.add(name, [column[mask] for column in columns])
        if bad is not None:
            row = int(np.flatnonzero(mask)[bad])
            raise DataError(f'column {relation!r}, row {df.index[row]}: '
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
    entities = _distinct(data.entity_labels, data.num_nodes, 'entities')
    relations = _distinct(data.relation_labels, data.num_relations, 'relations')
    tables = []
    for split in SPLITS:
        facts = data.facts(split).cpu().numpy()
        tables.append(pd.DataFrame({'head': entities[facts[:, 0]], 'relation': relations[facts[:, 1]],
                                    'tail': entities[facts[:, 2]], 'split': split}, dtype=object))
    return pd.concat(tables, ignore_index=True)


def to_folder(data: KGData, folder: Union[str, os.PathLike]) -> Path:
    r"""Writes :obj:`train.txt`, :obj:`valid.txt` and :obj:`test.txt`, tab-separated, as :func:`from_folder` reads them.

    A split without facts gets no file. Files are complete or not there at all.

    Args:
        data (KGData): The graph. Where it has no labels, its ids serve as such.
        folder (str or os.PathLike): The folder, made where it does not exist.

    Raises:
        DataError: If a label cannot be written (it is empty, holds a tab, a line break or a null byte, or is no valid
            Unicode), or two entities have the same label, or the folder cannot be written.
    """
    folder = Path(folder)
    table = to_dataframe(data)
    for column in COLUMNS:
        labels = pd.Series(table[column].unique(), dtype=object)
        bad = labels[labels.str.contains('[\t\r\n\x00]') | (labels == '')]
        if len(bad) > 0:
            raise DataError(f'the {column} label {bad.iloc[0]!r} cannot be written to a tab-separated file; expected '
                            f'text without tabs, line breaks and null bytes')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            part = table.loc[table['split'] == split, list(COLUMNS)]
            target = folder / f'{split}.txt'
            if len(part) > 0:
                _write(part, target)
            else:
                target.unlink(missing_ok=True)
    except UnicodeEncodeError as error:
        raise DataError(f'{folder}: a label is not valid Unicode text ({error}); expected text that UTF-8 can '
                        f'hold') from error
    except OSError as error:
        raise DataError(f'{folder}: cannot be written ({error.strerror})') from error
    return folder


def _write(part: pd.DataFrame, target: Path) -> None:
    # A label may begin with what would be taken for a byte order mark: a real one in front of it protects it.
    encoding = 'utf-8-sig' if str(part.iat[0, 0]).startswith('\ufeff') else 'utf-8'
    with tempfile.NamedTemporaryFile('w', encoding=encoding, newline='', dir=target.parent, prefix=f'.{target.name}.',
                                     delete=False) as handle:
        try:
            part.to_csv(handle, sep='\t', header=False, index=False, quoting=csv.QUOTE_NONE, lineterminator='\n')
            handle.flush()
            os.fsync(handle.fileno())
        except BaseException:
            os.unlink(handle.name)
            raise
    os.chmod(handle.name, 0o644)
    os.replace(handle.name, target)


def assemble(
    facts: Mapping[str, Union[np.ndarray, Tensor]],
    num_nodes: int,
    num_relations: int,
    entity_labels: Optional[list[str]] = None,
    relation_labels: Optional[list[str]] = None,
) -> KGData:
    r"""The checked graph with these facts, of shape :obj:`(F, 3)`, by split."""
    edges: dict[str, Any] = {}
    for split, part in facts.items():
        part = torch.as_tensor(part)
        prefix = '' if split == 'train' else f'{split}_'
        edges[f'{prefix}edge_index'] = part[:, [0, 2]].t().contiguous()
        edges[f'{prefix}edge_type'] = part[:, 1].contiguous()
    data = KGData(num_nodes=num_nodes, num_relations=num_relations, entity_labels=entity_labels,
                  relation_labels=relation_labels, **edges)
    data.validate()
    return data


class _Collector:
    r"""Gathers labelled facts, split by split, and makes a graph of them."""
    def __init__(self, vocabulary: Optional[KGData] = None) -> None:
        if vocabulary is not None and vocabulary.relation_labels is None:
            raise ArgumentError('vocabulary must be a graph with relation labels, but its relation_labels are None')
        self._entities = Vocabulary()
        self._relations = Vocabulary(None if vocabulary is None else vocabulary.relation_labels)
        self._facts: dict[str, tuple[np.ndarray, ...]] = {}

    @property
    def relation_labels(self) -> list[str]:
        r"""The relations so far, or the only ones allowed."""
        return self._relations.finish()[0]

    def add(self, split: str, columns: Sequence[np.ndarray]) -> Optional[int]:
        r"""Adds heads, relations and tails; returns the first row whose relation is not allowed, if there is one."""
        relations, = self._relations.add(columns[1])
        if self._relations.fixed and (relations < 0).any():
            return int((relations < 0).argmax())
        heads, tails = self._entities.add(columns[0], columns[2])
        self._facts[split] = (heads, relations, tails)
        return None

    def add_file(self, split: str, path: Path, text: TextFormat) -> None:
        if self.add(split, read_columns(path, text)) is not None:
            raise first_unknown_relation(path, text, self.relation_labels)

    def count(self, split: str) -> int:
        return len(self._facts[split][0])

    def finish(self, fractions: Optional[Sequence[float]] = None, seed: int = 0) -> KGData:
        entity_labels, entity_ids = self._entities.finish()
        relation_labels, relation_ids = self._relations.finish()
        facts = {split: np.stack([entity_ids[heads], relation_ids[relations], entity_ids[tails]], axis=1)
                 for split, (heads, relations, tails) in self._facts.items()}
        if fractions is not None:
            facts = split_facts(facts['all'], fractions, seed)
        return assemble(facts, len(entity_labels), len(relation_labels), entity_labels, relation_labels)


def _labels(df: pd.DataFrame, name: str) -> np.ndarray:
    column = df[name]
    if isinstance(column, pd.DataFrame):
        raise DataError(f'the table has more than one column {name!r}; expected one')
    missing = column.isna().to_numpy()
    if missing.any():
        raise DataError(f'column {name!r}, row {df.index[int(missing.argmax())]}: the label is missing; expected text')
    if pd.api.types.is_integer_dtype(column):
        return column.astype(str).to_numpy(dtype=object)
    values = column.to_numpy(dtype=object)
    if pd.api.types.infer_dtype(values, skipna=False) == 'string':
        # What UTF-8 cannot hold, and the null byte, at which pandas before 3 would end the label.
        wrong = (values == '') | column.astype(object).str.contains('[\x00\ud800-\udfff]').to_numpy(dtype=bool)
    else:
        wrong = np.array([not isinstance(value, str) or value == '' for value in values])
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'column {name!r}, row {df.index[row]}: {values[row]!r} is not a label; expected text that '
                        f'UTF-8 can hold, or integers throughout')
    return values


def _distinct(labels: Optional[list[str]], count: int, what: str) -> np.ndarray:
    index = pd.Index([str(position) for position in range(count)] if labels is None else labels, dtype=object)
    if not index.is_unique:
        repeated = index[index.duplicated()][0]
        raise DataError(f'two {what} have the label {repeated!r}, and would become one; expected distinct labels')
    return index.to_numpy(dtype=object)

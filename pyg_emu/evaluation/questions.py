r"""Many questions at once: a table or a file with a question in each row."""
from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Union

import numpy as np
import pandas as pd

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.columns import COLUMNS, role_of
from pyg_emu.data.io.detection import FORMATS, TABLE_FORMATS, format_of
from pyg_emu.data.io.formats import TextFormat
from pyg_emu.data.io.tablefiles import read_table
from pyg_emu.data.io.textfiles import records
from pyg_emu.data.labels import unknown_label
from pyg_emu.evaluation.prediction import Predictions, predict
from pyg_emu.evaluation.ranking import check_graph

#: What stands in the place of the answer.
UNKNOWN = '?'

#: The arguments that :func:`answer` hands on to :func:`~pyg_emu.predict`.
_OPTIONS = [name for name in inspect.signature(predict).parameters
            if name not in ('model', 'data', 'heads', 'relations', 'tails', 'k')]

Questions = Union[pd.DataFrame, str, os.PathLike]


def answer(model: Any, data: KGData, questions: Questions, k: int = 10, **options: Any) -> Predictions:
    r"""Answers many questions: each row names two of head, relation and tail, and the third is predicted.

    .. code-block:: python

        answer(model, data, pd.DataFrame({'head': ['virus', '?'], 'relation': ['causes', 'causes'],
                                          'tail': ['?', 'disease_or_syndrome']}))
        answer(model, data, 'questions.tsv', k=3, exclude_known=True)

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The labels and the known facts, on the device of the model.
        questions (pandas.DataFrame or str): A table with the columns head, relation and tail, or usual synonyms, of
            labels (or ids, as integers, if the data has no labels), in which :obj:`"?"` (or a missing value) stands for
            the answer; or a table with two of these columns; or a file with such a table: text, Parquet or JSON Lines.
            Text without a header has three columns.
        k (int, optional): Number of answers to a question. (default: :obj:`10`)
        **options (optional): Further arguments of :func:`~pyg_emu.predict`.

    Returns:
        Predictions: The answers as :func:`~pyg_emu.predict` returns them, in the order of the questions, with a column
        :obj:`question`, the position of the question from 0. A question without answers has no row.

    Raises:
        ArgumentError: If an argument is outside its domain.
        DataError: If a row does not name two of the three, or a label does not exist; names the row, or file and line.
    """
    check_graph(data)
    for option in options:
        if option not in _OPTIONS:
            raise ArgumentError(f'{option}: answer takes no such argument, but {", ".join(_OPTIONS)}; heads, relations '
                                'and tails are columns of questions')
    table, places = _table(questions)
    asked = (table == UNKNOWN).to_numpy()
    wrong = asked.sum(1) != 1
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(f'{places[row]}: expected two of head, relation and tail, and {UNKNOWN!r} for the third, got '
                        f'{", ".join(map(repr, table.iloc[row]))}')
    _check_labels(table, asked, places, data)
    parts = []
    for place, name in enumerate(COLUMNS):
        rows = np.flatnonzero(asked[:, place])
        if len(rows) == 0:
            continue
        known = [column for column in COLUMNS if column != name]
        own = table.iloc[rows][known].assign(question=rows)
        unique = own[known].drop_duplicates()
        arguments: dict[str, Any] = {f'{column}s': unique[column].tolist() for column in known}
        found = pd.DataFrame(predict(model, data, k=k, **arguments, **options))
        keys = found[known].astype(str) if len(found) else found[known].astype(object)
        found = found.join(keys.add_suffix(' asked'))
        own = own.astype(dict.fromkeys(known, str)).rename(columns={c: f'{c} asked' for c in known})
        parts.append(own.merge(found, on=[f'{column} asked' for column in known]))
    columns = ['question', *COLUMNS, 'rank', 'score', 'known']
    if not parts:
        return Predictions(columns=columns)
    answers = pd.concat(parts)
    order = np.lexsort((answers['rank'], answers['question']))
    return Predictions(answers.iloc[order][columns].reset_index(drop=True))


def _table(questions: Any) -> tuple[pd.DataFrame, Any]:
    r"""A column of text for each of head, relation and tail, and the name of each row."""
    if isinstance(questions, pd.DataFrame):
        return _of_frame(questions, 'questions')
    if not isinstance(questions, (str, os.PathLike)) or isinstance(os.fspath(questions), bytes) or not str(questions):
        raise ArgumentError('questions: expected a DataFrame with the columns head, relation and tail, or the path of '
                            f'a file, got {shown(questions)}')
    path = Path(questions).expanduser()
    format = format_of(path)
    if format in TABLE_FORMATS:
        return _of_frame(read_table(path, format), str(path))
    if format != 'text':
        raise DataError(f'{path}: expected questions as text, Parquet or JSON Lines, got {FORMATS[format]}')
    lines = list(records(path, TextFormat().syntax_of(path)))
    if not lines:
        raise DataError(f'{path}: expected lines of head, relation and tail, got none')
    names = [role_of(name.strip()) for name in lines[0][1]]
    header = len(set(names) - {None}) >= 2 and not _is_question(lines[0][1])
    width = len(names) if header else len(COLUMNS)
    rows = lines[1:] if header else lines
    for number, row in rows:
        if len(row) != width:
            raise DataError(f'{path}:{number}: expected {width} columns, got {len(row)}; without a header, lines hold '
                            f'head, relation and tail, with {UNKNOWN!r} for the answer')
    table = pd.DataFrame([row for _, row in rows], columns=range(width), dtype=object)
    table = _chosen(table, names if header else list(COLUMNS), str(path))
    return table.replace('', UNKNOWN), [f'{path}:{number}' for number, _ in rows]


def _is_question(row: list[str]) -> bool:
    r"""Whether a first line holds a question rather than names of columns."""
    # An index that pandas has written has an empty name, too.
    names = {name.strip().casefold() for name in row}
    return UNKNOWN in row or (row.count('') == 1 and len(row) == len(COLUMNS) and len(names & {*COLUMNS}) < 2)


def _of_frame(frame: pd.DataFrame, place: str) -> tuple[pd.DataFrame, list[str]]:
    table = _chosen(frame, [role_of(name) for name in frame.columns], place)
    table = pd.DataFrame({role: _texts(table[role]) for role in COLUMNS}, index=table.index, dtype=object)
    return table, [f'{place}: row {row}' for row in frame.index]


def _texts(column: pd.Series) -> list[str]:
    r"""The labels of a column as text, and :obj:`UNKNOWN` for missing values."""
    values, missing = column.tolist(), column.isna().tolist()
    # pandas turns integers beside missing values into floats, which are exact below 2^53.
    floats = any(missing) and all(isinstance(value, (float, np.floating)) and float(value).is_integer() and
                                  abs(float(value)) < 2**53 for value, gap in zip(values, missing) if not gap)
    return [UNKNOWN if gap else str(int(value) if floats else value) for value, gap in zip(values, missing)]


def _chosen(table: pd.DataFrame, roles: list[Any], place: str) -> pd.DataFrame:
    for role in COLUMNS:
        if roles.count(role) > 1:
            raise DataError(f'{place}: expected one column of {role}s, got {roles.count(role)}')
    if len(set(roles) & {*COLUMNS}) < 2:
        raise DataError(f'{place}: expected columns of heads, relations and tails, or two of these, got '
                        f'{", ".join(map(repr, table.columns)) or "none"}')
    return pd.DataFrame({role: table.iloc[:, roles.index(role)] if role in roles else UNKNOWN for role in COLUMNS},
                        index=table.index, dtype=object)


def _check_labels(table: pd.DataFrame, asked: np.ndarray, places: Any, data: KGData) -> None:
    for number, (column, labels) in enumerate(zip(COLUMNS, (data.entity_labels, data.relation_labels,
                                                            data.entity_labels))):
        size = data.num_relations if column == 'relation' else data.num_nodes or 0
        names = pd.Index([str(each) for each in range(size)] if labels is None else labels, dtype=object)
        wrong = ~table[column].isin(names).to_numpy() & ~asked[:, number]
        if wrong.any():
            row = int(wrong.argmax())
            kind = 'relation' if column == 'relation' else 'entity'
            raise DataError(f'{places[row]}: {unknown_label(kind, table[column].iloc[row], list(names))}')
        if labels is None:
            table[column] = [value if value == UNKNOWN else int(value) for value in table[column]]

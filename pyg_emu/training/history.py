r"""The history of a run: one row of numbers per evaluation."""
from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Mapping, Optional, Sequence

import torch

from pyg_emu.core.arguments import one_of
from pyg_emu.core.drawing import new_figure
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.files import read_bytes, reason

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, float]


class History:
    r"""Rows of numbers with :obj:`step` as the first column.

    A row may lack columns of earlier rows or have additional ones. Checkpoints contain the rows, so that all log files
    can be restored from a checkpoint.
    """
    def __init__(self) -> None:
        self.columns: list[str] = []
        self.rows: list[Row] = []

    def append(self, row: Mapping[str, float]) -> None:
        r"""Adds a row.

        Args:
            row (dict): The numbers by column.
        """
        self.rows.append(dict(row))
        self.columns += [name for name in row if name not in self.columns]

    def replace(self, rows: Iterable[Mapping[str, float]]) -> None:
        r"""Replaces all rows."""
        self.columns, self.rows = [], []
        for row in rows:
            self.append(row)

    def frame(self) -> pd.DataFrame:
        r"""Returns the rows as a :class:`pandas.DataFrame`. Missing numbers are NaN."""
        import pandas as pd
        frame = pd.DataFrame(self.rows, columns=self.columns)
        return frame.astype({'step': 'int64'}) if self.rows else frame

    def plot(self, metric: str = 'mrr') -> Any:
        r"""Plots the loss and a validation metric against steps. Requires matplotlib.

        Args:
            metric (str, optional): The metric. (default: :obj:`"mrr"`)

        :rtype: :class:`matplotlib.figure.Figure`

        Raises:
            ArgumentError: If there are no rows, or they have no such metric; names those that they have.
        """
        return plot_history(self.frame(), metric)

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks."""
        return table_html(self.frame())

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the rows as tensors, which load much faster from a checkpoint than dictionaries."""
        values = [[row.get(name, 0.0) for name in self.columns] for row in self.rows]
        present = [[name in row for name in self.columns] for row in self.rows]
        shape = len(self.rows), len(self.columns)
        return {'columns': list(self.columns), 'values': torch.tensor(values, dtype=torch.float64).reshape(shape),
                'present': torch.tensor(present, dtype=torch.bool).reshape(shape)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Restores the rows of a checkpoint.

        Raises:
            CheckpointError: If a row has no step, or the state is otherwise damaged.
        """
        columns, present = list(state['columns']), state['present']
        if columns and ('step' not in columns or not bool(present[:, columns.index('step')].all())):
            raise CheckpointError('the history lacks the step of a row; the file is damaged')
        self.columns, self.rows = list(state['columns']), []
        for values, present in zip(state['values'].tolist(), state['present'].tolist()):
            self.rows.append({name: int(value) if name == 'step' else value
                              for name, value, there in zip(self.columns, values, present) if there})

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({len(self)} rows)'


def plot_history(frame: pd.DataFrame, metric: str = 'mrr', best_step: Optional[int] = None) -> Any:
    r"""Plots the loss and a validation metric against steps.

    Args:
        frame (pandas.DataFrame): The rows of a history.
        metric (str, optional): The metric. (default: :obj:`"mrr"`)
        best_step (int, optional): A step to mark. (default: :obj:`None`)

    :rtype: :class:`matplotlib.figure.Figure`

    Raises:
        ArgumentError: If there are no rows, or they have no such metric, or matplotlib is not installed.
    """
    if len(frame) == 0:
        raise ArgumentError('plot(): the history has no rows yet; the first one comes with the first evaluation')
    known = [str(name).removeprefix('valid_') for name in frame.columns if str(name).startswith('valid_')]
    if known:
        one_of('metric', metric, known)
    figure = new_figure('plot()', 7.0, 3.0)
    names = ['loss', *([f'valid_{metric}'] if known else [])]
    for number, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        rows = frame[['step', name]].dropna()
        axes.plot(rows['step'], rows[name], marker='o' if len(rows) < 30 else None)
        axes.set(xlabel='step', ylabel=name.replace('valid_', 'validation '))
        if name != 'loss' and best_step is not None:
            axes.axvline(best_step, color='grey', linestyle=':')
    return figure


def table_html(frame: pd.DataFrame) -> str:
    r"""A table for notebooks, with as many rows as pandas shows."""
    import pandas as pd
    return str(frame.to_html(index=False, max_rows=pd.get_option('display.max_rows')))


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, float]], header: bool = True) -> bytes:
    r"""Returns rows as lines of a CSV file. Missing numbers are empty fields.

    Args:
        columns (list of str): The columns.
        rows (iterable of dict): The rows.
        header (bool, optional): Whether to start with a line of column names. (default: :obj:`True`)
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    if header:
        writer.writerow(columns)
    writer.writerows([row.get(name, '') for name in columns] for row in rows)
    return buffer.getvalue().encode()


def read_csv(path: Path) -> list[Row]:
    r"""Reads the rows of a :obj:`history.csv`. An incomplete last line, written by a killed process, is omitted.

    Raises:
        CheckpointError: If the file cannot be read or a field is not a number. The message names the line.
    """
    try:
        lines = read_bytes(path).decode().splitlines(keepends=True)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f'cannot read {path} ({reason(error)}); restore the file or remove it') from error
    if lines and not lines[-1].endswith('\n'):
        lines.pop()
    rows: list[Row] = []
    for number, values in enumerate(csv.DictReader(lines), start=2):
        try:
            if None in values or None in values.values() or not values.get('step'):
                raise ValueError
            rows.append({name: int(value) if name == 'step' else float(value)
                         for name, value in values.items() if value != ''})
        except ValueError as error:
            raise CheckpointError(f'{path}:{number}: expected a number or an empty field for each column of the first '
                                  f'line, got {lines[number - 1].strip()!r}; restore the file or remove it') from error
    return rows

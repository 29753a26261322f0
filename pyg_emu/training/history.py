r"""The course of a run, one row per evaluation, in memory and in a CSV file that survives a kill at any moment."""
from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Mapping, Optional, Union

from pyg_emu.core.errors import CheckpointError
from pyg_emu.core.files import atomic_write

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, float]


class History:
    r"""Rows of numbers with a common set of columns, the first of which is :obj:`step`.

    A row reaches the file in one write, so a kill can cut off the last line and nothing else; a cut line is dropped
    when the file is read again.

    Args:
        path (str or Path, optional): The CSV file. If :obj:`None`, rows stay in memory. (default: :obj:`None`)
    """
    def __init__(self, path: Optional[Union[str, Path]] = None):
        self.path = None if path is None else Path(path)
        self.rows: list[Row] = []

    def resume(self, step: int) -> None:
        r"""Reads the file's rows up to and including :obj:`step`, and cuts it there: what a run wrote after its last
        checkpoint will be written again.
        """
        if self.path is None or not self.path.exists():
            self.rows = [row for row in self.rows if row['step'] <= step]
            return
        self.rows = [row for row in _read(self.path) if row['step'] <= step]
        text = ''.join(_line(values) for values in self._table()).encode()
        atomic_write(self.path, lambda file: file.write(text))

    def append(self, row: Mapping[str, float]) -> None:
        r"""Adds a row.

        Args:
            row (dict): Column to number. Every row has the columns of the first one.

        Raises:
            CheckpointError: If the file cannot be written to.
        """
        row = dict(row)
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(f'a row with the columns {list(row)} does not fit a history of {list(self.rows[0])}')
        self.rows.append(row)
        if self.path is None:
            return
        lines = _line(row.values())
        if len(self.rows) == 1:
            lines = _line(row) + lines
        try:
            with open(self.path, 'ab', buffering=0) as file:
                file.write(lines.encode())
                os.fsync(file.fileno())
        except OSError as error:
            raise CheckpointError(f'cannot write {self.path} ({error.strerror}); free some space, or choose another '
                                  f'run folder that can be written to') from error

    def frame(self) -> pd.DataFrame:
        r"""The rows as a :class:`pandas.DataFrame`."""
        import pandas as pd
        frame = pd.DataFrame(self.rows)
        return frame.astype({'step': 'int64'}) if self.rows else frame

    def _table(self) -> list[Iterable[object]]:
        return [self.rows[0], *(row.values() for row in self.rows)] if self.rows else []

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({len(self)} rows)'


def _read(path: Path) -> list[Row]:
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith('\n'):
        lines.pop()
    rows: list[Row] = []
    for number, values in enumerate(csv.DictReader(lines), start=2):
        try:
            rows.append({name: int(value) if name == 'step' else float(value) for name, value in values.items()})
        except (TypeError, ValueError) as error:
            raise CheckpointError(f'{path}:{number}: expected a number in every column, got {list(values.values())}; '
                                  f'restore the file or remove it') from error
    return rows


def _line(values: Iterable[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator='\n').writerow(values)
    return buffer.getvalue()

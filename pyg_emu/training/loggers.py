r"""Loggers: where the numbers of a run go."""
from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import AbstractSet, Any, Iterator, Mapping, Optional, Protocol, Sequence, Union, runtime_checkable

from pyg_emu.core.arguments import file_path, shown
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.files import append, atomic_write, read_bytes, reason
from pyg_emu.training.history import csv_lines

#: Ends the names of our event files, so that others in the same folder can be told from them.
EVENTS_SUFFIX = '.pyg_emu'


@dataclass(frozen=True)
class RunInfo:
    r"""What a logger learns about a run before the first row.

    Args:
        name (str): The name of the run.
        run_dir (Path, optional): The run folder.
        first_step (int): Steps that were taken before; not 0 if the run is resumed.
        num_steps (int): Steps that the run will have in the end.
        rows (tuple of dict, optional): The rows up to :obj:`first_step`, logged by an earlier part of the run.
        settings (dict, optional): What the run is made of: model, criterion, optimiser, ... as in :obj:`run.json`.
    """
    name: str
    run_dir: Optional[Path]
    first_step: int
    num_steps: int
    rows: tuple[Mapping[str, float], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Logger(Protocol):
    r"""Receives the numbers of a run. Any object with these three methods is one.

    .. code-block:: python

        class Printer:
            def start(self, run):
                print(run.name, 'from step', run.first_step)

            def log(self, step, values):
                print(step, values['loss'])

            def close(self):
                pass

        Trainer(..., loggers=[Printer()])

    :meth:`log` is called once per row of the history, that is, at every evaluation, after the checkpoint that belongs
    to it. A row holds

    * :obj:`"seconds"`, the time spent in training steps, and :obj:`"steps_per_second"` since the last row;
    * :obj:`"loss"`, the mean over the steps since the last row, and the mean of each of the criterion's
      :obj:`terms`, such as :obj:`"loss_mutated"`, :obj:`"loss_vanilla"` and :obj:`"loss_penalty"`, and of those of
      each :class:`~pyg_emu.LearningPart`, such as :obj:`"transform.sampler.generator_loss"`;
    * :obj:`"lr"`, the learning rate;
    * :obj:`"grad_norm"`, the norm of all gradients before clipping, the mean over every :obj:`log_every`-th step;
    * :obj:`"valid_..."`, the numbers of the validation.

    A resumed run begins after its last checkpoint and repeats the rows that came later. With several processes, only
    the first one has loggers. An exception of a logger ends the training; the run can be resumed.

    A logger may also have a method :meth:`fail` without arguments. It is called before :meth:`close` if training ends
    with an exception.
    """
    def start(self, run: RunInfo) -> None:
        r"""Called before the first step."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        r"""Called with each row.

        Args:
            step (int): Steps taken.
            values (dict): Name to number.
        """

    def close(self) -> None:
        r"""Called at the end, also if training ends with an exception."""


class CSVLogger:
    r"""Writes the rows to a CSV file.

    A row is appended in full or not at all. A file that was changed or cut by others, and one to which a row brings new
    columns, is written anew.

    Args:
        path (str or Path): The file.
    """
    def __init__(self, path: Union[str, Path]) -> None:
        self.path = Path(file_path('path', path))
        self._columns: list[str] = []
        self._rows: list[dict[str, float]] = []
        self._size = 0

    def start(self, run: RunInfo) -> None:
        r"""Writes the rows of an earlier part of the run, if the file does not hold exactly these.

        Raises:
            CheckpointError: If the file holds something before the first row of the run, or cannot be written.
        """
        self._rows = [dict(row) for row in run.rows]
        self._columns = []
        for row in self._rows:
            self._add_columns(row)
        try:
            found = read_bytes(self.path) if self.path.exists() else b''
        except OSError as error:
            raise CheckpointError(f'cannot read {self.path} ({reason(error)}); choose another file or remove this '
                                  'one') from error
        if not self._rows:
            if found:
                raise CheckpointError(f'{self.path} exists already, and the run has no rows yet; choose another file '
                                      'or remove this one')
            self._size = 0
            return
        text = csv_lines(self._columns, self._rows)
        self._size = len(text)
        if found != text:
            atomic_write(self.path, lambda file: file.write(text))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        r"""Writes a row.

        Raises:
            CheckpointError: If the file cannot be written.
        """
        row = {'step': step, **{name: value for name, value in values.items() if name != 'step'}}
        same = not self._add_columns(row)
        self._rows.append(row)
        line = csv_lines(self._columns, [row], header=False)
        if same and append(self.path, line, self._size):
            self._size += len(line)
            return
        text = csv_lines(self._columns, self._rows)
        atomic_write(self.path, lambda file: file.write(text))
        self._size = len(text)

    def close(self) -> None:
        r"""Does nothing: every row is on disk."""

    def _add_columns(self, row: Mapping[str, float]) -> bool:
        new = [name for name in row if name not in self._columns]
        self._columns += new
        return bool(new)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


class TensorBoardLogger:
    r"""Writes the rows as scalars for TensorBoard.

    Args:
        path (str or Path): The folder of the event files.

    Raises:
        ArgumentError: If the package :obj:`tensorboard` is not installed.
    """
    def __init__(self, path: Union[str, Path]) -> None:
        if importlib.util.find_spec('tensorboard') is None:
            raise ArgumentError('tensorboard: the package tensorboard is not installed; run pip install tensorboard')
        self.path = Path(file_path('path', path))
        self._writer: Any = None

    def start(self, run: RunInfo) -> None:
        r"""Opens an event file, and writes the rows of an earlier part of the run from the first one on that the folder
        lacks. TensorBoard hides what was logged before from this step on, or after :obj:`run.first_step`.
        """
        from torch.utils.tensorboard import SummaryWriter
        found = self._found() if run.rows else set()
        lacking = next((number for number, row in enumerate(run.rows) if not _points(row) <= found), len(run.rows))
        rows = run.rows[lacking:]
        first = int(rows[0]['step']) if rows else run.first_step + 1
        self._writer = SummaryWriter(str(self.path), purge_step=first, filename_suffix=EVENTS_SUFFIX)
        for row in rows:
            self.log(int(row['step']), row)

    def _found(self) -> set[tuple[str, int]]:
        r"""The names and steps of the scalars that TensorBoard shows of the folder."""
        from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
        if not self.path.is_dir():
            return set()
        events = EventAccumulator(str(self.path), size_guidance={SCALARS: 0})  # 0: all of them
        events.Reload()
        return {(name, event.step) for name in events.Tags()[SCALARS] for event in events.Scalars(name)}

    def log(self, step: int, values: Mapping[str, float]) -> None:
        r"""Adds a scalar for each number."""
        for name, value in values.items():
            if name != 'step':
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        r"""Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}({str(self.path)!r})'


def _points(row: Mapping[str, float]) -> set[tuple[str, int]]:
    return {(name, int(row['step'])) for name in row if name != 'step'}


def check_loggers(loggers: Any) -> list[Logger]:
    r"""Returns a list of loggers, or raises :class:`~pyg_emu.core.errors.ArgumentError` naming what is none."""
    # Not any iterable: classes have the method, tensors may not be iterated over.
    if isinstance(loggers, (str, bytes)) or not isinstance(loggers, (Sequence, AbstractSet, Iterator)):
        raise ArgumentError(f'loggers: expected a list of loggers, got {shown(loggers)}')
    found = list(loggers)
    for number, logger in enumerate(found):
        if isinstance(logger, type) or not all(callable(getattr(logger, name, None))
                                               for name in ('start', 'log', 'close')):
            raise ArgumentError(f'loggers[{number}]: expected an object with the methods start, log and close, got '
                                f'{shown(logger)}')
    return found

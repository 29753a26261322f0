r"""The state of a run at a step, which is saved in a checkpoint and restored when a run is resumed."""
from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import CheckpointError, PygEmuError
from pyg_emu.core.files import reason
from pyg_emu.core.mapped_table import read_in_order
from pyg_emu.training.history import History, plot_history, table_html
from pyg_emu.training.parts import LearningParts
from pyg_emu.training.schedules import IMPLEMENTATION, Schedule
from pyg_emu.training.stability import LossMeter
from pyg_emu.training.tables import own_state, whole_state

if TYPE_CHECKING:
    import pandas as pd

#: What the optimisers of PyTorch and of this package keep for a parameter. Those of a user may keep anything.
_MOMENTS = ('step', 'sum', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'square_avg', 'acc_delta', 'grad_avg')
#: The types of the entries of :class:`Progress`.
_KINDS: dict[str, tuple[type, ...]] = {
    'step': (int, ), 'seconds': (int, float), 'best_step': (int, type(None)), 'best_metric': (int, float, type(None)),
    'best_metrics': (dict, ), 'stale': (int, ), 'best_digest': (str, type(None)), 'reported': (dict, ),
    'metric': (str, type(None)), 'mode': (str, type(None))}


@dataclass(frozen=True)
class TrainResult:
    r"""The result of :meth:`Trainer.fit`.

    Args:
        steps (int): The number of steps, including those before the run was resumed.
        best_step (int, optional): The step with the best validation, or :obj:`None` without validation.
        best_metric (float, optional): The monitored metric at that step.
        metrics (dict): All numbers of that validation.
        history (pandas.DataFrame, optional): One row per evaluation, see :class:`~pyg_emu.training.Logger`.
        seconds (float): The time of training steps, without validation and checkpoints.
        stopped_early (bool): Whether training stopped because patience was exhausted. It is :obj:`False` if
            :obj:`max_seconds` ended it.
        run_dir (Path, optional): The run folder.
    """
    steps: int
    best_step: Optional[int]
    best_metric: Optional[float]
    metrics: dict[str, float]
    history: pd.DataFrame = field(repr=False)
    seconds: float
    stopped_early: bool
    run_dir: Optional[Path] = None

    def plot(self, metric: str = 'mrr') -> Any:
        r"""Plots the loss and a validation metric against steps. Requires matplotlib.

        Args:
            metric (str, optional): The metric. (default: :obj:`"mrr"`)

        :rtype: :class:`matplotlib.figure.Figure`

        Raises:
            ArgumentError: If the history has no rows, or no such metric; names those that it has.
        """
        return plot_history(self.history, metric, self.best_step)

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks: the numbers of the best step, and the history."""
        best = '' if self.best_step is None else f', best at step {self.best_step}: {self.best_metric:.4f}'
        early = ', stopped early' if self.stopped_early else ''
        return f'<p>{self.steps} steps in {self.seconds:.0f} s{best}{early}</p>\n{table_html(self.history)}'


@dataclass
class Progress:
    r"""The numbers that describe the progress of a run.

    Args:
        step (int, optional): The number of steps.
        seconds (float, optional): The time of these steps.
        best_step (int, optional): The step with the best validation.
        best_metric (float, optional): The monitored metric at that step.
        best_metrics (dict, optional): All numbers of that validation.
        stale (int, optional): The number of validations since then.
        best_digest (str, optional): The digest of :obj:`best.pt`.
        reported (dict, optional): The content of :obj:`metrics.json`, except for the ranking of the test facts.
        metric (str, optional): The name of the monitored metric.
        mode (str, optional): Whether more (:obj:`"max"`) or less (:obj:`"min"`) of it is better.
    """
    step: int = 0
    seconds: float = 0.0
    best_step: Optional[int] = None
    best_metric: Optional[float] = None
    best_metrics: dict[str, float] = field(default_factory=dict)
    stale: int = 0
    best_digest: Optional[str] = None
    reported: dict[str, Any] = field(default_factory=dict)
    metric: Optional[str] = None
    mode: Optional[str] = None

    def judge(self, value: float, metrics: Mapping[str, float], mode: Literal['max', 'min'] = 'max') -> bool:
        r"""Records a validation and returns whether it is better than all before.

        Args:
            value (float): The monitored metric.
            metrics (dict): All numbers of the validation.
            mode (str, optional): Whether higher (:obj:`"max"`) or lower (:obj:`"min"`) values are better.
                (default: :obj:`"max"`)
        """
        best = self.best_metric
        if best is not None and not (value > best if mode == 'max' else value < best):
            self.stale += 1
            return False
        self.best_step, self.best_metric, self.best_metrics, self.stale = self.step, value, dict(metrics), 0
        return True


class RunState:
    r"""Collects and restores the state of a run.

    Args:
        model (torch.nn.Module): The model.
        schedule (Schedule): The schedule, which selects the current optimiser.
        loader (TripletLoader): The loader.
        meter (LossMeter): The running mean of the loss.
        history (History): The rows of the history.
        learning (LearningParts): The criterion and the other learned parts.
    """
    def __init__(self, model: torch.nn.Module, schedule: Schedule, loader: Any, meter: LossMeter, history: History,
                 learning: LearningParts) -> None:
        self.model = model
        self.schedule = schedule
        self.history = history
        self.progress = Progress()
        self._device = next(model.parameters()).device
        parts = {'loader': loader, 'schedule': schedule, 'meter': meter}
        self._parts: dict[str, Any] = {name: part for name, part in parts.items()
                                       if hasattr(part, 'state_dict') and hasattr(part, 'load_state_dict')}
        self._parts |= learning.states()

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state as tensors, numbers, and dictionaries of them."""
        random = {'cpu': torch.get_rng_state()}
        if self._device.type == 'cuda':
            random['cuda'] = torch.cuda.get_rng_state(self._device)
        return {'step': self.progress.step, 'run': asdict(self.progress), 'random': random,
                'model': self.model.state_dict(), 'optimizer': whole_state(self.schedule.optimizer, self.model),
                'optimizer_kind': type(self.schedule.optimizer).__name__, 'schedule_kind': repr(self.schedule),
                'history': self.history.state_dict(),
                'parts': {name: part.state_dict() for name, part in self._parts.items()}}

    def load_state_dict(self, state: Mapping[str, Any], path: Path) -> None:
        r"""Restores a state. Must be called after the schedule has started.

        Args:
            state (dict): The result of :meth:`state_dict`.
            path (Path): The file of the state, for messages.

        Raises:
            CheckpointError: If the state is incomplete or belongs to a run with other parts.
        """
        needed = ('run', 'random', 'model', 'optimizer', 'parts')
        missing = [key for key in needed if not isinstance(state.get(key), dict)]
        if missing:
            raise CheckpointError(f'{path} is not the last.pt of a run, because it has no {", ".join(missing)}; '
                                  'expected a file written by Trainer. A best.pt contains weights only and cannot be '
                                  'resumed')
        if set(self._parts) != set(state['parts']):
            raise CheckpointError(f'{path} contains the state of {", ".join(state["parts"])}, but this run has '
                                  f'{", ".join(self._parts)}; continue with the same objects as before')
        # Older checkpoints do not record the schedule.
        began, own = state.get('schedule_kind', repr(self.schedule)), repr(self.schedule)
        if began != own:
            raise CheckpointError(f'{path} was saved with the schedule {began}, but this run has {own}; continue with '
                                  'the same schedule as before, or start over')
        self.progress = _progress(state['run'], path)
        try:
            self._load_parts(state, path)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, PygEmuError):
                if str(path) in str(error):
                    raise
                raise CheckpointError(f'{path}: {error}') from error
            raise CheckpointError(f'{path} contains a state that does not match this run ({reason(error)}); continue '
                                  'with the same objects as before, or start over') from error

    def _load_parts(self, state: Mapping[str, Any], path: Path) -> None:
        if 'history' in state:
            self.history.load_state_dict(state['history'])
        with read_in_order(*state['model'].values()):
            self.model.load_state_dict(state['model'])
        for name, part in self._parts.items():
            part.load_state_dict(state['parts'][name])
        # Loaded after the schedule, which may have changed the current optimiser.
        self._load_optimizer(state, path)
        torch.set_rng_state(state['random']['cpu'])
        if self._device.type == 'cuda' and 'cuda' in state['random']:
            torch.cuda.set_rng_state(state['random']['cuda'], self._device)

    def _load_optimizer(self, state: Mapping[str, Any], path: Path) -> None:
        optimizer = self.schedule.optimizer
        # Older checkpoints do not record the class.
        kind, own = state.get('optimizer_kind'), type(optimizer).__name__
        if kind is not None and kind != own:
            # PyTorch would load it and fail in the next step.
            raise CheckpointError(f'{path} contains the state of {kind}, but the optimiser of this run is {own}; '
                                  'continue with the same optimiser as before')
        _check_values(state['optimizer'], path)
        try:
            optimizer.load_state_dict(own_state(_as_implemented(state['optimizer'], optimizer), optimizer, self.model))
        except ValueError as error:
            raise CheckpointError(f'{path} contains the state of an optimiser with other parameters ({error}); '
                                  'continue with the same optimiser as before') from error


def _progress(state: Mapping[str, Any], path: Path) -> Progress:
    r"""The progress that a checkpoint holds.

    Raises:
        CheckpointError: If an entry is missing, unknown, or of another type.
    """
    try:
        found = Progress(**state)
    except TypeError as error:
        raise CheckpointError(f'{path} is not the last.pt of a run ({error})') from error
    for name, kinds in _KINDS.items():
        value = getattr(found, name)
        if isinstance(value, bool) or not isinstance(value, kinds):
            expected = ' or '.join('None' if kind is type(None) else kind.__name__ for kind in kinds)
            raise CheckpointError(f'{path}: expected {expected} as run.{name}, got {shown(value)}; the file is damaged')
    return found


def _check_values(state: Mapping[str, Any], path: Path) -> None:
    r"""Checks that the state of an optimiser holds tensors and numbers, before a step fails on it."""
    for number, entry in state['state'].items():
        for name, value in entry.items():
            if name in _MOMENTS and not isinstance(value, (Tensor, int, float)):
                raise CheckpointError(f'{path}: expected a tensor as optimizer.state.{number}.{name}, got '
                                      f'{shown(value)}; the file is damaged')


def _as_implemented(state: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    r"""Returns the saved state of an optimiser with the implementation of :obj:`optimizer`. PyTorch would restore the
    saved implementation: a step that cannot be captured fails in a CUDA graph, and a learning rate loaded to the CPU
    would become a constant of the graph.
    """
    saved, own = state['param_groups'], optimizer.param_groups
    if len(saved) != len(own):
        return dict(state)  # PyTorch raises an error for it.
    groups = [{**group, **{key: present[key] for key in IMPLEMENTATION if key in present},
               'lr': _rate_like(group['lr'], present['lr'])} for group, present in zip(saved, own)]
    return {**state, 'param_groups': groups}


def _rate_like(saved: Any, own: Any) -> Any:
    if isinstance(own, Tensor):
        return torch.full_like(own, float(saved))
    return float(saved) if isinstance(saved, Tensor) else saved

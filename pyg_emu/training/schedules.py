r"""Schedules that change the learning rate, or the optimizer, during training.

A schedule starts with the optimizer of the run, updates it after every step, and can be saved and restored at any step.
:class:`~pyg_emu.Trainer` calls :meth:`step` of :attr:`Schedule.optimizer`, which a schedule may replace.
"""
from __future__ import annotations

from typing import Any, Callable, ClassVar, Iterable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from pyg_emu.core.arguments import boolean, is_number, positive_number, share, shown
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.optimizers import RowAdam


class Schedule:
    r"""Base class of schedules, with a constant learning rate."""
    #: The current optimizer.
    optimizer: Optimizer
    #: Whether the learning rate changes after each step.
    every_step: ClassVar[bool] = False
    #: Whether the course depends on the length of the run, so that a run cannot be continued with more steps.
    follows_num_steps: ClassVar[bool] = True
    #: Whether, for a model with row-sparse gradients, no part of the loss may have a dense one.
    row_sparse_only: ClassVar[bool] = False

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        r"""Starts the schedule.

        Args:
            optimizer (torch.optim.Optimizer): The initial optimizer.
            num_steps (int): The number of steps of the run.
        """
        self.optimizer = optimizer

    def step(self) -> None:
        r"""Advances the schedule. Called after each optimizer step."""

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the state that :meth:`load_state_dict` restores, without the state of the optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Restores a state of :meth:`state_dict`. Called after :meth:`start` and before the state of the current
        optimizer is restored.
        """

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


class Constant(Schedule):
    r"""Keeps the learning rate constant."""
    follows_num_steps = False


class _TorchSchedule(Schedule):
    r"""Base class of schedules that use :mod:`torch.optim.lr_scheduler`."""
    every_step = True
    _num_steps: int
    _scheduler: LRScheduler

    def __init__(self, end_factor: float = 0.0):
        self.end_factor = float(share('end_factor', end_factor))

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._num_steps = num_steps
        # An optimizer of an earlier run restarts with its initial learning rate.
        for group in optimizer.param_groups:
            rate = group.get('initial_lr', group['lr'])
            if isinstance(group['lr'], Tensor):
                group['lr'].copy_(rate)  # In place, because CUDA graphs refer to this tensor.
            else:
                group['lr'] = float(rate)

    def step(self) -> None:
        self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return {**self._scheduler.state_dict(), 'num_steps': self._num_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        state = dict(state)
        num_steps = state.pop('num_steps', self._num_steps)
        if num_steps != self._num_steps:
            raise CheckpointError(f'num_steps: expected {num_steps}, as at the start of this run, because {self} '
                                  f'depends on it, got {self._num_steps}; continue with num_steps={num_steps}, or '
                                  'start a new run')
        self._scheduler.load_state_dict(state)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(end_factor={self.end_factor})'


class LinearDecay(_TorchSchedule):
    r"""Decays the learning rate linearly.

    Args:
        end_factor (float, optional): The fraction of the learning rate after the last step.
            (default: :obj:`0.0`)
    """
    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._scheduler = LinearLR(optimizer, start_factor=1.0, end_factor=self.end_factor, total_iters=num_steps)


class CosineDecay(_TorchSchedule):
    r"""Decays the learning rate along half a cosine.

    Args:
        end_factor (float, optional): The fraction of the learning rate after the last step.
            (default: :obj:`0.0`)
    """
    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        rates = {float(group['lr']) for group in optimizer.param_groups}
        if len(rates) > 1 and self.end_factor > 0.0:
            raise ArgumentError(f'end_factor: CosineDecay with end_factor > 0 expects the same learning rate in all '
                                f'parameter groups, got {sorted(rates)}')
        self._scheduler = CosineAnnealingLR(optimizer, T_max=num_steps, eta_min=self.end_factor * max(rates))


class SwitchOptimizer(Schedule):
    r"""Replaces the optimizer during training.

    The defaults reproduce the reference implementation of the `"Optimal Embedding Guided Negative Sample Generation"
    <https://arxiv.org/abs/2504.03327>`_ paper: Adagrad for the first half of the steps, then Adam with a tenth of its
    learning rate. The paper itself reports Adam only.

    Args:
        at (float, optional): The fraction of the steps after which the optimizer is replaced. (default: :obj:`0.5`)
        factor (float, optional): The factor of the second learning rate relative to the first. (default: :obj:`0.1`)
        make (callable, optional): A function that creates the second optimizer from parameter groups, each with its
            :obj:`lr`. If :obj:`None`, :class:`torch.optim.Adam` is used, or :class:`~pyg_emu.RowAdam` with
            :obj:`sparse=True`. (default: :obj:`None`)
        sparse (bool, optional): Whether the gradients of the model are row-sparse. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`at` is not between 0 and 1, or :obj:`factor` is not positive and finite.
    """
    row_sparse_only = True  # RowAdam

    def __init__(self, at: float = 0.5, factor: float = 0.1,
                 make: Optional[Callable[[Iterable[dict[str, Any]]], Optimizer]] = None, sparse: bool = False):
        if not (is_number(at) and 0.0 < at < 1.0):
            raise ArgumentError(f'at: expected a fraction of the steps in (0, 1), got {shown(at)}')
        positive_number('factor', factor, 'a positive, finite factor of the learning rate')
        if make is not None and (not callable(make) or isinstance(make, type) and not issubclass(make, Optimizer)):
            raise ArgumentError(f'make: expected a function of parameter groups, got {shown(make)}')
        boolean('sparse', sparse)
        self.at = at
        self.factor = factor
        self.make: Callable[[Iterable[dict[str, Any]]], Optimizer] = make or (RowAdam if sparse else _adam)

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._completed = 0
        self._switch_step = max(1, round(self.at * num_steps))

    def step(self) -> None:
        self._completed += 1
        if self._completed == self._switch_step:
            self._switch()

    def state_dict(self) -> dict[str, Any]:
        return {'completed': self._completed, 'switch_step': self._switch_step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._completed = int(state['completed'])
        self._switch_step = int(state['switch_step'])
        if self._completed >= self._switch_step:
            self._switch()

    def _switch(self) -> None:
        groups: list[dict[str, Any]] = [{'params': _parameters(group), 'lr': float(group['lr']) * self.factor}
                                        for group in self.optimizer.param_groups]
        self.optimizer = self.make(groups)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(at={self.at}, factor={self.factor})'


def _adam(groups: Iterable[dict[str, Any]]) -> Optimizer:
    groups = list(groups)
    # capturable keeps the state on the GPU, where it would be anyway, and allows CUDA graphs.
    capturable = all(value.is_cuda for group in groups for value in group['params'])
    return torch.optim.Adam(groups, fused=True, capturable=capturable)


def _parameters(group: Mapping[str, Any]) -> list[Tensor]:
    return list(group['params'])

r"""How the learning rate, or the optimiser itself, changes over the steps of a run.

A schedule is handed the run's optimiser, decides after every step what comes next, and can be saved and restored at any
step. :class:`~pyg_emu.Trainer` steps :attr:`Schedule.optimizer`, which a schedule may replace.
"""
from __future__ import annotations

import math
from typing import Any, Callable, ClassVar, Iterable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.optimizers import RowAdam


class Schedule:
    r"""Base class: the constant schedule."""
    #: The optimiser in charge.
    optimizer: Optimizer
    #: Whether the learning rate changes in each step.
    every_step: ClassVar[bool] = False
    #: Whether the course depends on the length of the run, so that a run cannot be continued with more steps.
    follows_num_steps: ClassVar[bool] = True
    #: Whether, for a model with row-sparse gradients, no part of the loss may have a dense one.
    row_sparse_only: ClassVar[bool] = False

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        r"""Takes charge of a run.

        Args:
            optimizer (torch.optim.Optimizer): The optimiser to begin with.
            num_steps (int): The length of the run.
        """
        self.optimizer = optimizer

    def step(self) -> None:
        r"""Moves on; called after each step of the optimiser."""

    def state_dict(self) -> dict[str, Any]:
        r"""What :meth:`load_state_dict` needs to continue, the optimiser's own state aside."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Continues where :meth:`state_dict` left off; called after :meth:`start`, and before the optimiser in
        charge is given its state.
        """

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}()'


class Constant(Schedule):
    r"""The learning rate stays what it is."""
    follows_num_steps = False


class _TorchSchedule(Schedule):
    r"""A schedule of :mod:`torch.optim.lr_scheduler`."""
    every_step = True
    _num_steps: int
    _scheduler: LRScheduler

    def __init__(self, end_factor: float = 0.0):
        if not 0.0 <= end_factor <= 1.0:
            raise ArgumentError(f'end_factor is the share of the learning rate that is left at the end and must lie in '
                                f'[0, 1], got {end_factor}')
        self.end_factor = end_factor

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._num_steps = num_steps
        # The initial learning rate again, where the optimiser comes from an earlier run.
        for group in optimizer.param_groups:
            rate = group.get('initial_lr', group['lr'])
            if isinstance(group['lr'], Tensor):
                group['lr'].copy_(rate)  # in place, for those who hold it
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
            raise CheckpointError(f'num_steps: {self} follows it, and this run was begun with {num_steps}, got '
                                  f'{self._num_steps}; continue with num_steps={num_steps}, or start over')
        self._scheduler.load_state_dict(state)

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(end_factor={self.end_factor})'


class LinearDecay(_TorchSchedule):
    r"""The learning rate falls in equal steps.

    Args:
        end_factor (float, optional): Share of the learning rate that is left after the last step.
            (default: :obj:`0.0`)
    """
    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._scheduler = LinearLR(optimizer, start_factor=1.0, end_factor=self.end_factor, total_iters=num_steps)


class CosineDecay(_TorchSchedule):
    r"""The learning rate falls along half a cosine.

    Args:
        end_factor (float, optional): Share of the learning rate that is left after the last step.
            (default: :obj:`0.0`)
    """
    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        rates = {float(group['lr']) for group in optimizer.param_groups}
        if len(rates) > 1 and self.end_factor > 0.0:
            raise ArgumentError(f'CosineDecay with end_factor > 0 needs one learning rate for all parameter groups, '
                                f'got {sorted(rates)}')
        self._scheduler = CosineAnnealingLR(optimizer, T_max=num_steps, eta_min=self.end_factor * max(rates))


class SwitchOptimizer(Schedule):
    r"""Changes the optimiser on the way.

    The defaults are what produced the numbers of `"Optimal Embedding Guided Negative Sample Generation"
    <https://arxiv.org/abs/2504.03327>`_ in its reference implementation: Adagrad for the first half of the steps, then
    Adam at a tenth of its learning rate. (The paper itself says Adam.)

    Args:
        at (float, optional): Share of the steps after which to switch. (default: :obj:`0.5`)
        factor (float, optional): The second learning rate, as a share of the first. (default: :obj:`0.1`)
        make (callable, optional): Makes the second optimiser from parameter groups, each with its :obj:`lr`. If
            :obj:`None`, :class:`torch.optim.Adam`, or :class:`~pyg_emu.RowAdam` if :obj:`sparse`.
            (default: :obj:`None`)
        sparse (bool, optional): Whether the model's gradients are row-sparse. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`at` is not between 0 and 1, or :obj:`factor` not positive and finite.
    """
    row_sparse_only = True  # RowAdam

    def __init__(self, at: float = 0.5, factor: float = 0.1,
                 make: Optional[Callable[[Iterable[dict[str, Any]]], Optimizer]] = None, sparse: bool = False):
        if not 0.0 < at < 1.0:
            raise ArgumentError(f'at is the share of the steps after which to switch and must lie in (0, 1), got {at}')
        if not (factor > 0.0 and math.isfinite(factor)):
            raise ArgumentError(f'factor scales the learning rate and must be positive, got {factor}')
        self.at = at
        self.factor = factor
        self.make = make if make is not None else (RowAdam if sparse else _adam)

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
    # On a GPU its state lies there in any case; only if told so may a CUDA graph hold the step.
    capturable = all(value.is_cuda for group in groups for value in group['params'])
    return torch.optim.Adam(groups, fused=True, capturable=capturable)


def _parameters(group: Mapping[str, Any]) -> list[Tensor]:
    return list(group['params'])

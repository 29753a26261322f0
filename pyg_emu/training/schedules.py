r"""Schedules that change the learning rate, or the optimizer, during training.

A schedule starts with the optimizer of the run, updates it after every step, and can be saved and restored at any step.
:class:`~pyg_emu.Trainer` calls :meth:`step` of :attr:`Schedule.optimizer`, which a schedule may replace.
"""
from __future__ import annotations

import inspect
import re
from typing import Any, Callable, ClassVar, Iterable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler

from pyg_emu.core.arguments import boolean, is_number, positive_number, share, shown
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.training.optimizers import RowAdam

#: The settings of an optimizer that select an implementation, with equal steps: CUDA graphs or not, and the device.
IMPLEMENTATION = ('foreach', 'fused', 'capturable')
#: The options that mean the same in all optimizers of PyTorch.
_SHARED = ('weight_decay', 'decoupled_weight_decay', 'maximize')


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
        self.check(optimizer)
        self.optimizer = optimizer

    def check(self, optimizer: Optimizer) -> None:
        r"""Checks that the schedule goes with an optimizer. Called by :meth:`start`, and for a recipe when it is read.

        Args:
            optimizer (torch.optim.Optimizer): The initial optimizer, whose parameters may be others than those of the
                run.

        Raises:
            ArgumentError: If it does not.
        """

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
        _check_begun(self, 'num_steps', state.pop('num_steps', None), self._num_steps)
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

    Adam continues with the weight decay and the direction (:obj:`maximize`) of the first optimizer. Options that Adam
    has, but with a meaning of its own (:obj:`betas`, :obj:`eps`, :obj:`amsgrad`), must have their default values in the
    first one. Options that Adam does not have, such as :obj:`momentum` or :obj:`lr_decay`, act until the replacement.

    Args:
        at (float, optional): The fraction of the steps after which the optimizer is replaced. (default: :obj:`0.5`)
        factor (float, optional): The factor of the second learning rate relative to the first. (default: :obj:`0.1`)
        make (callable, optional): A function that creates the second optimizer from parameter groups, each with its
            :obj:`lr` and nothing else. If :obj:`None`, :class:`torch.optim.Adam` is used, or :class:`~pyg_emu.RowAdam`
            with :obj:`sparse=True`. (default: :obj:`None`)
        sparse (bool, optional): Whether the gradients of the model are row-sparse; not to be set beside :obj:`make`.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`at` is not between 0 and 1, :obj:`factor` is not positive and finite, or :obj:`make` and
            :obj:`sparse` are both given; at the start, if the second optimizer would lack an option of the first one.
        CheckpointError: If a run is resumed with another number of steps or another :obj:`make`.
    """
    row_sparse_only = True  # RowAdam

    def __init__(self, at: float = 0.5, factor: float = 0.1,
                 make: Optional[Callable[[Iterable[dict[str, Any]]], Optimizer]] = None, sparse: bool = False):
        if not (is_number(at) and 0.0 < at < 1.0):
            raise ArgumentError(f'at: expected a fraction of the steps in (0, 1), got {shown(at)}')
        positive_number('factor', factor, 'a positive, finite factor of the learning rate')
        if make is not None and (not callable(make) or isinstance(make, type) and not issubclass(make, Optimizer)):
            raise ArgumentError(f'make: expected a function of parameter groups, got {shown(make)}')
        if boolean('sparse', sparse) and make is not None:
            raise ArgumentError('sparse: expected False beside make, which decides what the second optimizer is, got '
                                'True')
        self.at = at
        self.factor = factor
        self.make: Callable[[Iterable[dict[str, Any]]], Optimizer] = make or (RowAdam if sparse else _adam)
        # None if make decides.
        self._kind: Optional[type[Optimizer]] = None if make else RowAdam if sparse else torch.optim.Adam

    def start(self, optimizer: Optimizer, num_steps: int) -> None:
        super().start(optimizer, num_steps)
        self._num_steps = num_steps
        self._completed = 0
        self._switch_step = max(1, round(self.at * num_steps))

    def check(self, optimizer: Optimizer) -> None:
        if self._kind is None:
            return
        for group in optimizer.param_groups:
            for name, value in group.items():
                if name not in self._carried(group) and self._is_lost(name, value, optimizer):
                    raise ArgumentError(f'optimizer: {self} changes to {self._kind.__name__}, which would not get '
                                        f'{name}={value!r} of {type(optimizer).__name__}; leave {name} out, choose '
                                        'another schedule, or make the second optimizer by the argument make')

    def step(self) -> None:
        self._completed += 1
        if self._completed == self._switch_step:
            self._switch()

    def state_dict(self) -> dict[str, Any]:
        return {'completed': self._completed, 'switch_step': self._switch_step, 'num_steps': self._num_steps,
                'make': self._second()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        _check_begun(self, 'num_steps', state.get('num_steps'), self._num_steps)
        _check_begun(self, 'make', state.get('make'), self._second())
        self._completed = int(state['completed'])
        self._switch_step = int(state['switch_step'])
        if self._completed >= self._switch_step:
            self._switch()

    def _switch(self) -> None:
        groups: list[dict[str, Any]] = [{'params': _parameters(group), 'lr': float(group['lr']) * self.factor,
                                         **self._carried(group)} for group in self.optimizer.param_groups]
        made = self.make(groups)
        if not isinstance(made, Optimizer):
            raise ArgumentError(f'make: expected a function that returns an optimizer, got one that returns '
                                f'{shown(made)}')
        self.optimizer = made

    def _carried(self, group: Mapping[str, Any]) -> dict[str, Any]:
        r"""The options of a parameter group that go over to the second optimizer."""
        known = {} if self._kind is None else inspect.signature(self._kind).parameters
        return {name: group[name] for name in _SHARED if name in group and name in known}

    def _is_lost(self, name: str, value: Any, optimizer: Optimizer) -> bool:
        r"""Whether an option was given to the first optimizer that the second one would need."""
        assert self._kind is not None
        if name in ('params', 'lr', 'initial_lr', 'differentiable', *IMPLEMENTATION):
            return False
        known = inspect.signature(self._kind).parameters
        if name in _SHARED:
            return bool(value)
        own = inspect.signature(type(optimizer).__init__).parameters
        if name not in own and all(one.kind is not one.VAR_KEYWORD for one in own.values()):
            return False  # The class sets it, and nobody can leave it out.
        value = tuple(value) if isinstance(value, list) else value
        return name in known and value not in (_default(type(optimizer), name), known[name].default)

    def _second(self) -> str:
        r"""What makes the second optimizer, to compare it with that of a checkpoint."""
        if self._kind is not None:
            return self._kind.__name__
        return getattr(self.make, '__name__', None) or re.sub(r' at 0x[0-9a-f]+', '', repr(self.make))

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(at={self.at}, factor={self.factor})'


def _adam(groups: Iterable[dict[str, Any]]) -> Optimizer:
    groups = list(groups)
    # capturable keeps the state on the GPU, where it would be anyway, and allows CUDA graphs.
    capturable = all(value.is_cuda for group in groups for value in group['params'])
    return torch.optim.Adam(groups, fused=True, capturable=capturable)


def _default(kind: type[Optimizer], name: str) -> Any:
    r"""The default of an option, also of one that a class hands on to its base class."""
    for base in kind.__mro__:
        found = inspect.signature(base.__init__).parameters.get(name)  # type: ignore[misc]
        if found is not None:
            return found.default
    return None


def _check_begun(schedule: Schedule, name: str, saved: Any, own: Any) -> None:
    r"""Checks that a run goes on as it began. Older checkpoints do not say."""
    if saved is not None and saved != own:
        raise CheckpointError(f'{name}: expected {saved}, as at the start of this run, because {schedule} depends on '
                              f'it, got {own}; continue with {name}={saved}, or start a new run')


def _parameters(group: Mapping[str, Any]) -> list[Tensor]:
    return list(group['params'])

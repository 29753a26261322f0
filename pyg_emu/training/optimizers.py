r"""Optimizers for large tables of which a step updates only a few rows.

PyTorch's sparse optimizers have the same formulas and the same state. For a table larger than the caches, they take
longer than a complete training step. Create the model with :obj:`sparse=True` for row-sparse gradients. The cost
of a step then does not depend on the number of entities.
"""
from __future__ import annotations

import functools
import inspect
import math
from typing import Any, Callable, ClassVar, Mapping, Optional

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from pyg_emu.core.arguments import boolean, is_number, non_negative
from pyg_emu.core.errors import ArgumentError, PygEmuError
from pyg_emu.core.mapped_table import copied, create_like, folder_of, is_mapped, read_in_order
from pyg_emu.ops.row_update import row_adagrad_, row_adam_


def _checked(function: Callable[..., None], positive: tuple[str, ...] = ()) -> Callable[..., None]:
    r"""Makes :meth:`__init__` of an optimizer name its argument where PyTorch's own checks do not.

    Args:
        function (callable): The method.
        positive (tuple of str, optional): Arguments that may not be zero. (default: none)
    """
    names = list(inspect.signature(function).parameters)[1:]

    @functools.wraps(function)
    def checked(self: Any, *args: Any, **options: Any) -> None:
        given = {**dict(zip(names, args)), **options}
        for name, value in given.items():
            if name in ('lr', 'eps', 'lr_decay', 'weight_decay', 'initial_accumulator_value'):
                if name == 'lr' and isinstance(value, Tensor) and value.numel() == 1:
                    continue
                if non_negative(name, value) == 0 and name in positive:
                    raise ArgumentError(f'{name}: expected a positive number, got {value!r}')
            elif name == 'betas':
                if (not isinstance(value, (tuple, list)) or len(value) != 2
                        or not all(is_number(beta) and 0.0 <= beta < 1.0 for beta in value)):
                    raise ArgumentError(f'betas: expected two numbers in [0, 1), got {value!r:.100}')
            elif name in ('maximize', 'differentiable') or (name in ('foreach', 'fused') and value is not None):
                boolean(name, value)
        if given.get('foreach') and given.get('fused'):
            raise ArgumentError('foreach, fused: expected at most one of the two to be True, got both')
        try:
            function(self, *args, **options)
        except PygEmuError:
            raise
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            if given.keys() - set(names) or not given.keys() & {'params'}:  # a wrong or missing argument
                raise
            raise ArgumentError(f'params: {str(error).partition(chr(10))[0]:.200}; expected model.parameters(), or '
                                'groups of such') from error
    return checked


class _MappedState(TorchFunctionMode):
    r"""Makes :func:`torch.full_like` of a table in a memory-mapped file another such table."""
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.full_like and is_mapped(args[0]):
            return create_like(args[0], args[1])
        return func(*args, **(kwargs or {}))


@functools.wraps(torch.optim.Adagrad.__init__)
def _init_adagrad(self: torch.optim.Adagrad, *args: Any, **options: Any) -> None:
    with _MappedState():
        torch.optim.Adagrad.__init__(self, *args, **options)


class RowAdagrad(torch.optim.Adagrad):
    r""":class:`torch.optim.Adagrad` that updates the rows of a row-sparse gradient in one pass. Arguments and state are
    those of :class:`torch.optim.Adagrad`, which also handles dense gradients. The state of a table that
    :func:`~pyg_emu.map_entities` has moved into a file is in a file, too.

    .. code-block:: python

        model = DistMult(data.num_nodes, data.num_relations, 100, sparse=True)
        optimizer = RowAdagrad(model.parameters(), lr=0.1)

    Raises:
        ArgumentError: In :meth:`step`, if a gradient is row-sparse and :obj:`weight_decay` is not zero, because weight
            decay changes every row.
    """
    recipe_name: ClassVar[str] = 'adagrad'
    #: Whether row-sparse gradients are taken.
    takes_row_sparse: ClassVar[bool] = True

    #: Whether the state of tables in memory-mapped files is in such files, too.
    maps_state: ClassVar[bool] = True

    __init__ = _checked(_init_adagrad)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(_placed(state_dict, self))

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        r"""Performs a single optimization step.

        Args:
            closure (callable, optional): A closure that reevaluates the loss and returns it. (default: :obj:`None`)
        """
        loss = _evaluate(closure)
        held: list[tuple[Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group['params']:
                gradient = parameter.grad
                if gradient is not None and gradient.is_sparse:
                    self._step_rows(parameter, gradient, group)
                    held.append((parameter, gradient))
                    parameter.grad = None
                elif gradient is not None:
                    _check_memory(parameter)
        try:
            super().step()
        finally:
            for parameter, gradient in held:
                parameter.grad = gradient
        return loss

    def _step_rows(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        if group['weight_decay'] != 0:
            raise ArgumentError(f'weight_decay: expected 0, because the gradient is row-sparse, got '
                                f'{group["weight_decay"]}')
        state = self.state[parameter]
        state['step'] += 1
        rate = float(group['lr'])
        if group['lr_decay'] != 0:
            rate /= 1.0 + (float(state['step']) - 1.0) * group['lr_decay']
        rows, values = _rows(gradient, group['maximize'])
        row_adagrad_(parameter, state['sum'], rows, values, rate, group['eps'])


class RowAdam(torch.optim.SparseAdam):
    r""":class:`torch.optim.SparseAdam` that updates the rows of the gradient in one pass. Arguments and state are those
    of :class:`torch.optim.SparseAdam`. The moments of a row decay only in steps in which the row has a gradient. Those
    of a table that :func:`~pyg_emu.map_entities` has moved into a file are in files, too.

    .. code-block:: python

        model = DistMult(data.num_nodes, data.num_relations, 100, sparse=True)
        optimizer = RowAdam(model.parameters(), lr=0.001)

    Raises:
        ArgumentError: In :meth:`step`, if a gradient is dense.
    """
    recipe_name: ClassVar[str] = 'sparse_adam'
    takes_row_sparse: ClassVar[bool] = True
    #: Whether dense gradients are refused.
    row_sparse_only: ClassVar[bool] = True
    maps_state: ClassVar[bool] = True

    __init__ = _checked(torch.optim.SparseAdam.__init__, positive=('lr', 'eps'))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(_placed(state_dict, self))

    @torch.no_grad()
    def step(self, closure: Optional[Callable[[], Any]] = None) -> Any:
        r"""Performs a single optimization step.

        Args:
            closure (callable, optional): A closure that reevaluates the loss and returns it. (default: :obj:`None`)
        """
        loss = _evaluate(closure)
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is not None:
                    self._step_rows(parameter, parameter.grad, group)
        return loss

    def _step_rows(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        if not gradient.is_sparse:
            _check_memory(parameter)
            raise ArgumentError('params: RowAdam expects row-sparse gradients, got a dense gradient of shape '
                                f'{tuple(gradient.shape)}; create the model with sparse=True and without a '
                                'regularizer of whole tables, or use torch.optim.Adam')
        state = self.state[parameter]
        if len(state) == 0:
            zeros = create_like if is_mapped(parameter) else torch.zeros_like
            state.update(step=0, exp_avg=zeros(parameter), exp_avg_sq=zeros(parameter))
        state['step'] += 1
        first, second = group['betas']
        rate = float(group['lr']) * math.sqrt(1.0 - second**state['step']) / (1.0 - first**state['step'])
        rows, values = _rows(gradient, group['maximize'])
        row_adam_(parameter, state['exp_avg'], state['exp_avg_sq'], rows, values, rate, (first, second), group['eps'])


def _evaluate(closure: Optional[Callable[[], Any]]) -> Any:
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()


def _check_memory(parameter: Tensor) -> None:
    if is_mapped(parameter):
        raise ArgumentError(f'params: expected a row-sparse gradient of the rows in a memory-mapped file, got a dense '
                            f'gradient of shape {tuple(parameter.shape)}; use losses and penalties whose gradients are '
                            'row-sparse, such as EMULoss and N3Regularizer, or train without map_entities')


def _placed(state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    r"""A saved state in which that of tables in memory-mapped files is in such files, and all else is in memory."""
    parameters = [value for group in optimizer.param_groups for value in group['params']]
    placed = {}
    for number, values in state['state'].items():
        parameter = parameters[number] if number < len(parameters) else None
        placed[number] = {key: _placed_value(value, parameter, optimizer.state.get(parameter, {}).get(key))
                          if isinstance(value, Tensor) and parameter is not None else value
                          for key, value in values.items()}
    return {**state, 'state': placed}


def _placed_value(value: Tensor, parameter: Tensor, own: Any) -> Tensor:
    if folder_of(parameter) is None or value.shape != parameter.shape:
        return value.clone() if is_mapped(value) else value
    if not isinstance(own, Tensor) or folder_of(own) is None:
        return copied(value, parameter)
    with read_in_order(value):
        return own.copy_(value)


def _rows(gradient: Tensor, maximize: bool) -> tuple[Tensor, Tensor]:
    r"""Returns the unique row indices and the gradients of these rows."""
    gradient = gradient.coalesce()
    values = gradient.values()
    return gradient.indices()[0], -values if maximize else values

r"""One training step: from a batch to updated weights."""
from __future__ import annotations

import inspect
from typing import Any, Callable, Iterable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.gradients import clip_gradients, gradient_norm
from pyg_emu.data.batch import Batch
from pyg_emu.models.mapped import mapped_tables
from pyg_emu.models.sharded import sharded_tables
from pyg_emu.training.stability import scalars


class PlainStep:
    r"""Performs training steps: the loss of a batch, its gradients, and a step of the optimiser.

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): The loss, :obj:`criterion(model, batch) -> scalar`.
        optimizer (torch.optim.Optimizer): The optimiser.
        max_grad_norm (float, optional): The maximum norm of the gradients. The gradients of each optimiser are clipped
            to a joint norm. (default: :obj:`None`)
        others (iterable of torch.optim.Optimizer, optional): The optimisers of other learned parts, stepped after
            :obj:`optimizer`. (default: none)
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], optimizer: Optimizer, *,
                 max_grad_norm: Optional[float] = None, others: Iterable[Optimizer] = ()) -> None:
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.others = tuple(others)
        #: The terms of the last loss, if the criterion has an attribute :obj:`terms`.
        self.terms: Mapping[str, Tensor] = {}
        self._divided = {id(table.rows) for table in sharded_tables(model)}
        self._norm: Optional[Tensor] = None

    def __call__(self, batch: Batch) -> Tensor:
        r"""Performs one training step.

        Args:
            batch (Batch): The batch.

        Returns:
            torch.Tensor: The detached loss.

        Raises:
            ArgumentError: If the criterion does not return a scalar with a gradient.
        """
        optimizers = (self.optimizer, *self.others)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self.criterion(self.model, batch)
        check_loss(loss)
        loss.backward()
        for optimizer in optimizers:
            if self.max_grad_norm is not None:
                values = (value for group in optimizer.param_groups for value in group['params'])
                norm = clip_gradients(values, self.max_grad_norm, self._divided)
                self._norm = norm if optimizer is self.optimizer else self._norm
            optimizer.step()
        self.terms = scalars(getattr(self.criterion, 'terms', None), loss)
        return loss.detach()

    def gradient_norm(self) -> Optional[Tensor]:
        r"""Returns the norm of the last step's gradients before clipping, without synchronizing with the device."""
        if self._norm is not None:
            return self._norm
        found = [value for group in self.optimizer.param_groups for value in group['params'] if value.grad is not None]
        whole, own = ([value.grad for value in found if (id(value) in self._divided) == part]
                      for part in (False, True))
        return gradient_norm(whole, own)


def check_loss(loss: Any) -> None:
    r"""Checks that the return value of a criterion can be minimized.

    Raises:
        ArgumentError: If it is not a scalar tensor, or does not depend on any parameter.
    """
    if not isinstance(loss, Tensor):
        raise ArgumentError(f'criterion: expected it to return a scalar tensor, got {_kind(loss)}')
    if loss.dim() != 0:
        raise ArgumentError('criterion: expected it to return a scalar tensor, got a tensor of shape '
                            f'{tuple(loss.shape)}')
    if not loss.requires_grad:
        raise ArgumentError('criterion: expected it to return a loss with a gradient, got one that depends on no '
                            'parameter; remove detach(), item() and no_grad(), and use parameters that require '
                            'gradients')


def check_step(model: Any, criterion: Any, optimizer: Any) -> None:
    r"""Checks the arguments of a training step.

    Raises:
        ArgumentError: If :obj:`model` is not a module with parameters, :obj:`criterion` is not a function,
            :obj:`optimizer` is not an optimiser, or it has none of the model's parameters.
    """
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f'model: expected a torch.nn.Module, got {_kind(model)}')
    if next(model.parameters(), None) is None:
        raise ArgumentError(f'model: expected a model with parameters, got {type(model).__name__} without any; the '
                            'model is the first argument, and the criterion the second')
    if isinstance(criterion, type) or not callable(criterion):
        raise ArgumentError('criterion: expected a function of a model and a batch, such as EMULoss(), got '
                            f'{_kind(criterion)}')
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError('optimizer: expected a torch.optim.Optimizer, such as '
                            f'torch.optim.Adagrad(model.parameters(), lr=0.1), got {_kind(optimizer)}')
    own = {id(value) for value in model.parameters()}
    if not any(id(value) in own for group in optimizer.param_groups for value in group['params']):
        raise ArgumentError(f'optimizer: expected parameters of {type(model).__name__}, got none of them; create it '
                            'with model.parameters() after moving the model to its device and type')


def check_parts(model: Any, criterion: Any, loader: Any, optimizer: Any) -> None:
    r"""Checks the arguments of a training run.

    Raises:
        ArgumentError: If those of a step are wrong, or :obj:`loader` does not yield an infinite sequence of batches.
    """
    check_step(model, criterion, optimizer)
    if isinstance(loader, type) or not all(callable(getattr(loader, name, None))
                                           for name in ('batches', 'state_dict', 'load_state_dict')):
        raise ArgumentError('loader: expected a TripletLoader, or an object with batches(), state_dict() and '
                            f'load_state_dict(), got {_kind(loader)}')


def check_closure(optimizer: Optimizer) -> None:
    r"""Checks that an optimiser takes a step from the gradients of one loss.

    Raises:
        ArgumentError: If its :obj:`step` needs arguments, such as the closure of :class:`torch.optim.LBFGS`.
    """
    needed = [name for name, value in inspect.signature(optimizer.step).parameters.items()
              if value.default is value.empty and value.kind is value.POSITIONAL_OR_KEYWORD]
    if needed:
        raise ArgumentError(f'optimizer: expected one whose step() needs no arguments, got {type(optimizer).__name__}, '
                            f'whose step() needs {", ".join(needed)}; train with it in a loop of your own or with '
                            'LinkPredictionModule')


def check_mapped(model: torch.nn.Module, optimizer: Optimizer, graph: bool) -> None:
    r"""Checks that entity rows in memory-mapped files are trained in a way that leaves them there.

    Raises:
        ArgumentError: If the optimiser does not keep its state in such files or does not have the rows, or steps are to
            be captured as CUDA graphs.
    """
    rows = [table for table in mapped_tables(model) if table.requires_grad]
    if not rows:
        return
    if graph:
        raise ArgumentError('graph: expected False for entity rows in memory-mapped files, which are on the CPU, got '
                            'True')
    if not getattr(optimizer, 'maps_state', False):
        raise ArgumentError('optimizer: expected RowAdagrad or RowAdam, whose state goes to memory-mapped files like '
                            f'the entity rows of the model, got {_kind(optimizer)}')
    own = {id(value) for group in optimizer.param_groups for value in group['params']}
    if any(id(table) not in own for table in rows):
        raise ArgumentError('optimizer: expected the entity rows of the model among its parameters; create it after '
                            'map_entities, with model.parameters()')


def _kind(value: Any) -> str:
    return f'the class {value.__name__}' if isinstance(value, type) else f'an object of type {type(value).__name__}'

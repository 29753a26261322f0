r"""One training step: from a batch to updated weights."""
from __future__ import annotations

from typing import Any, Callable, Iterable, Mapping, Optional

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.training.stability import clip_gradients, gradient_norm


class PlainStep:
    r"""Takes training steps: the loss of a batch, its gradients, and the optimiser.

    Args:
        model (torch.nn.Module): The model.
        criterion (callable): The loss, :obj:`criterion(model, batch) -> scalar`.
        optimizer (torch.optim.Optimizer): The optimiser.
        max_grad_norm (float, optional): The norm that gradients are clipped to: those of each optimiser to a common
            norm. (default: :obj:`None`)
        others (iterable of torch.optim.Optimizer, optional): Optimisers of parts that learn beside the model, stepped
            after :obj:`optimizer`. (default: none)
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], optimizer: Optimizer, *,
                 max_grad_norm: Optional[float] = None, others: Iterable[Optimizer] = ()) -> None:
        self.model = model
        self.criterion = criterion
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.others = tuple(others)
        #: The terms of the last loss, if the criterion has :obj:`terms`.
        self.terms: Mapping[str, Tensor] = {}
        self._norm: Optional[Tensor] = None

    def __call__(self, batch: Batch) -> Tensor:
        r"""Takes one step.

        Args:
            batch (Batch): The batch.

        Returns:
            torch.Tensor: The loss, detached.

        Raises:
            ArgumentError: If the criterion returns no scalar, or one without a gradient.
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
                norm = clip_gradients(values, self.max_grad_norm)
                self._norm = norm if optimizer is self.optimizer else self._norm
            optimizer.step()
        self.terms = getattr(self.criterion, 'terms', None) or {}
        return loss.detach()

    def gradient_norm(self) -> Optional[Tensor]:
        r"""The norm of the last step's gradients, before they were clipped. Does not wait for the device."""
        if self._norm is not None:
            return self._norm
        found = (value.grad for group in self.optimizer.param_groups for value in group['params'])
        return gradient_norm(grad for grad in found if grad is not None)


def check_loss(loss: Any) -> None:
    r"""Checks that something can be learned from what a criterion returned.

    Raises:
        ArgumentError: If it is not a scalar tensor, or depends on no parameter.
    """
    if not isinstance(loss, Tensor):
        raise ArgumentError(f'criterion must return a scalar loss, got {_kind(loss)}; expected a tensor')
    if loss.dim() != 0:
        raise ArgumentError(f'criterion must return a scalar loss, got a tensor of shape {tuple(loss.shape)}')
    if not loss.requires_grad:
        raise ArgumentError('criterion must return a loss with a gradient, got one that depends on no parameter; leave '
                            'out detach(), item() and no_grad(), and let parameters require gradients')


def check_parts(model: Any, criterion: Any, loader: Any, optimizer: Any) -> None:
    r"""Checks the arguments of a training.

    Raises:
        ArgumentError: If :obj:`model` is no module or has no parameters, :obj:`criterion` no function, :obj:`loader`
            offers no batches without end, or :obj:`optimizer` is no optimiser, or one that moves none of the model's
            parameters.
    """
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f'model: expected a torch.nn.Module, got {_kind(model)}')
    if next(model.parameters(), None) is None:
        raise ArgumentError(f'model: {type(model).__name__} has no parameters, so that there is nothing to learn; '
                            'expected the model, then the criterion, the loader and the optimiser')
    if isinstance(criterion, type) or not callable(criterion):
        raise ArgumentError('criterion: expected a function of a model and a batch, such as EMULoss(), got '
                            f'{_kind(criterion)}')
    if isinstance(loader, type) or not all(callable(getattr(loader, name, None))
                                           for name in ('batches', 'state_dict', 'load_state_dict')):
        raise ArgumentError('loader: expected a TripletLoader, or an object with batches(), state_dict() and '
                            f'load_state_dict(), got {_kind(loader)}')
    if not isinstance(optimizer, Optimizer):
        raise ArgumentError('optimizer: expected a torch.optim.Optimizer, such as '
                            f'torch.optim.Adagrad(model.parameters(), lr=0.1), got {_kind(optimizer)}')
    own = {id(value) for value in model.parameters()}
    if not any(id(value) in own for group in optimizer.param_groups for value in group['params']):
        raise ArgumentError(f'optimizer: it holds none of the parameters of {type(model).__name__}, so that nothing '
                            'would be learned; make it of model.parameters(), after the model has its device and type')


def _kind(value: Any) -> str:
    return f'the class {value.__name__}' if isinstance(value, type) else f'an object of type {type(value).__name__}'

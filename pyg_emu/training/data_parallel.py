r"""The loss of a batch whose rows are divided among processes, with the gradients of all in each of them."""
from __future__ import annotations

from typing import Any, Callable, Iterable

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.training.sharding import shard


class DataParallelLoss:
    r"""A criterion for :class:`~pyg_emu.training.step.PlainStep`: each process scores its own rows, and
    :class:`~torch.nn.parallel.DistributedDataParallel` averages the gradients to those of the whole batch.

    A loss is a mean over rows, so each process is weighted by its number of rows, and batches need not divide evenly.
    Penalties on whole tables are the same in all processes, and the mean does not change them.

    Args:
        model (torch.nn.Module): The model. All processes begin with the first one's weights.
        criterion (callable): :obj:`criterion(model, batch)` returns the scalar loss.
        learned (iterable of torch.Tensor, optional): Further parameters that the loss trains. (default: none)

    Raises:
        ArgumentError: If gradients are row-sparse on GPUs.
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor],
                 learned: Iterable[Tensor] = ()) -> None:
        self.rank, self.world = current()
        device = next(model.parameters()).device
        if device.type == 'cuda' and any(getattr(part, 'sparse', False) for part in model.modules()):
            raise ArgumentError('model: NCCL cannot average row-sparse gradients; make the model with sparse=False')
        self._loss = _Loss(model, criterion, learned)
        self._parallel = DistributedDataParallel(self._loss)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        r"""The loss of this process's rows, times their weight: its mean over the processes is the batch's loss."""
        part = shard(batch, self.rank, self.world)
        rows = part.batch.head_index.numel() if part.own else 0
        return self._parallel(part.batch, rows / batch.head_index.numel() * self.world)


    @property
    def terms(self) -> dict[str, Tensor]:
        r"""The terms of the last loss, with the weight of this process's rows, if the criterion has terms."""
        return self._loss.terms


class _Loss(torch.nn.Module):
    r"""The criterion as a module with all parameters that it trains, as DistributedDataParallel needs it."""
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], learned: Iterable[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        own = {id(value) for value in self.parameters()}
        self.learned = torch.nn.ParameterList(value for value in learned
                                              if isinstance(value, torch.nn.Parameter) and id(value) not in own)
        self.terms: dict[str, Tensor] = {}

    def forward(self, batch: Batch, weight: float) -> Tensor:
        loss = self.criterion(self.model, batch)
        if loss.dim() != 0:
            return loss  # PlainStep raises the error.
        terms = getattr(self.criterion, 'terms', None) or {}
        self.terms = {name: value * weight for name, value in terms.items()}
        return _Reaching.apply(loss * weight, *(value for value in self.parameters() if value.requires_grad))


class _Reaching(torch.autograd.Function):
    r"""Returns a loss unchanged and connects it with every parameter, some of which receive no gradient.

    DistributedDataParallel waits for all parameters. It can search for those that a loss does not depend on, but does
    so in every step, and warns if there are none.
    """
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (grad, *[None] * ctx.count)

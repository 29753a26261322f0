r"""The loss of a batch whose rows are divided among processes, with the gradients of the whole batch in each
process."""
from __future__ import annotations

from typing import Any, Callable, Iterable

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.training.sharding import shard
from pyg_emu.training.stability import scalars


class DataParallelLoss:
    r"""A criterion for :class:`~pyg_emu.training.step.PlainStep` with several processes. Each process scores its own
    rows, and :class:`~torch.nn.parallel.DistributedDataParallel` averages the gradients over the processes.

    A loss is a mean over rows, so the loss of each process is weighted by its number of rows (or the sum of their
    weights, if facts have weights), and the batch size need
    not be divisible by the number of processes. Penalties on whole tables are the same in all processes, so averaging
    does not change them.

    Args:
        model (torch.nn.Module): The model. All processes start with the weights of the first process.
        criterion (callable): The loss, :obj:`criterion(model, batch) -> scalar`.
        learned (iterable of torch.Tensor, optional): Additional parameters of the loss. (default: none)

    Raises:
        ArgumentError: If gradients are row-sparse on GPUs.
    """
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor],
                 learned: Iterable[Tensor] = ()) -> None:
        self.rank, self.world = current()
        device = next(model.parameters()).device
        if device.type == 'cuda' and any(getattr(part, 'sparse', False) for part in model.modules()):
            raise ArgumentError('model: expected dense gradients, because NCCL cannot average row-sparse gradients; '
                                'create the model with sparse=False')
        self._loss = _Loss(model, criterion, learned)
        self._parallel = DistributedDataParallel(self._loss)

    def __call__(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        r"""Returns the weighted loss of this process's rows. Its mean over the processes is the loss of the batch."""
        part = shard(batch, self.rank, self.world)
        rows = part.batch.head_index.numel() if part.own else 0
        share: Any = rows / batch.head_index.numel()
        own = part.batch.weight
        if own is not None and batch.weight is not None and part.own:
            share = own.sum() / batch.weight.sum()
        return self._parallel(part.batch, share * self.world)


    @property
    def terms(self) -> dict[str, Tensor]:
        r"""The terms of the last loss, weighted like the loss, if the criterion has terms."""
        return self._loss.terms


class _Loss(torch.nn.Module):
    r"""A module with the criterion and all parameters that it trains, as required by DistributedDataParallel."""
    def __init__(self, model: torch.nn.Module, criterion: Callable[..., Tensor], learned: Iterable[Tensor]) -> None:
        super().__init__()
        self.model = model
        self.criterion = criterion
        own = {id(value) for value in self.parameters()}
        self.learned = torch.nn.ParameterList(value for value in learned
                                              if isinstance(value, torch.nn.Parameter) and id(value) not in own)
        self.terms: dict[str, Tensor] = {}

    def forward(self, batch: Batch, weight: Any) -> Tensor:
        loss = self.criterion(self.model, batch)
        if loss.dim() != 0:
            return loss  # PlainStep raises the error.
        terms = scalars(getattr(self.criterion, 'terms', None), loss)
        self.terms = {name: value * weight for name, value in terms.items()}
        return _Reaching.apply(loss * weight, *(value for value in self.parameters() if value.requires_grad))


class _Reaching(torch.autograd.Function):
    r"""Returns a loss unchanged and connects it with all parameters, including those without a gradient.

    DistributedDataParallel waits for the gradients of all parameters. Its own search for unused parameters runs in
    every step, and warns if there are none.
    """
    @staticmethod
    def forward(ctx: Any, loss: Tensor, *parameters: Tensor) -> Tensor:
        ctx.count = len(parameters)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (grad, *[None] * ctx.count)

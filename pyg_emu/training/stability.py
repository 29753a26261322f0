r"""Keeping training finite: losses watched on the device, weights checked, gradients clipped."""
from __future__ import annotations

from typing import Iterable

import torch
from torch import Tensor

from pyg_emu.core.distributed import current, minimum_, sum_


class LossMeter:
    r"""The running mean of a loss, and the first step at which it was not finite, without waiting for the device.

    Args:
        device (torch.device): Where the losses are.
    """
    def __init__(self, device: torch.device):
        exact = torch.float32 if device.type == 'mps' else torch.float64
        self._sum = torch.zeros((), dtype=exact, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._finite_steps = torch.zeros((), dtype=torch.long, device=device)
        self._count = 0

    def add(self, loss: Tensor) -> None:
        r"""Takes in the loss of one step."""
        loss = loss.detach()
        self._sum += loss
        self._finite &= loss.isfinite()
        self._finite_steps += self._finite
        self._count += 1

    def read(self) -> tuple[float, int]:
        r"""Returns the mean since the last :meth:`reset`, and the number of steps, since the meter was made, before the
        first loss that was not finite: the mean over the processes, and the smallest number. Waits for the device.
        """
        # In place, so that what one process saves is what all have seen.
        sum_(self._sum).div_(current()[1])
        minimum_(self._finite_steps)
        total, finite_steps = torch.stack([self._sum, self._finite_steps.to(self._sum.dtype)]).tolist()
        return total / max(self._count, 1), int(finite_steps)

    def reset(self) -> None:
        r"""Begins a new mean."""
        self._sum.zero_()
        self._count = 0

    def state_dict(self) -> dict[str, Tensor | int]:
        r"""The running mean."""
        return {'sum': self._sum.cpu(), 'count': self._count}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        r"""Continues a running mean; steps are counted anew."""
        self._sum.fill_(float(state['sum']))
        self._count = int(state['count'])


def nonfinite_weights(model: torch.nn.Module) -> list[str]:
    r"""Names of the parameters that hold NaN or infinity. Waits for the device, once."""
    # A sum is NaN or infinite as soon as one summand is, and unlike an element-wise test takes no memory.
    names = [name for name, _ in model.named_parameters()]
    sums = torch.stack([value.detach().sum(dtype=torch.float32) for value in model.parameters()])
    return [name for name, good in zip(names, sums.isfinite().tolist()) if not good]


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> None:
    r"""Scales all gradients so that their common norm is at most :obj:`max_norm`.

    As :func:`torch.nn.utils.clip_grad_norm_`, which does not take the row-sparse gradients of embedding tables.

    Args:
        parameters (iterable of torch.Tensor): All that is learned; what has no gradient is passed over.
        max_norm (float): The largest norm.
    """
    parameters = [value for value in parameters if value.grad is not None]
    for parameter in parameters:
        if parameter.grad.is_sparse:  # type: ignore[union-attr]
            # A row that occurs twice counts by its sum.
            parameter.grad = parameter.grad.coalesce()  # type: ignore[union-attr]
    values = [grad.values() if grad.is_sparse else grad
              for grad in (parameter.grad for parameter in parameters) if grad is not None]
    if not values:
        return
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in values]))
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)

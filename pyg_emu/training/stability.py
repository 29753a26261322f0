r"""What is measured and limited during training: the loss and its terms, gradients, weights."""
from __future__ import annotations

from typing import Any, Iterable, Mapping, Optional

import torch
from torch import Tensor

from pyg_emu.core.distributed import current, minimum_, sum_


class LossMeter:
    r"""Running means of the loss, of its terms and of the gradient norm, and the first step at which the loss was not
    finite. All sums are on the device; only :meth:`read` waits for it.

    Args:
        device (torch.device): Where the losses are.
    """
    def __init__(self, device: torch.device):
        self._exact = torch.float32 if device.type == 'mps' else torch.float64
        self._names: tuple[str, ...] = ('loss', )
        self._sums = torch.zeros(1, dtype=self._exact, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)
        self._finite_steps = torch.zeros((), dtype=torch.long, device=device)
        self._count = 0
        self._norm = torch.zeros((), dtype=self._exact, device=device)
        self._norms = 0

    def add(self, loss: Tensor, terms: Optional[Mapping[str, Tensor]] = None) -> None:
        r"""Adds one step.

        Args:
            loss (torch.Tensor): The loss, a scalar.
            terms (dict, optional): The terms of the loss, scalars by name. (default: :obj:`None`)
        """
        loss = loss.detach()
        if not terms and len(self._names) == 1:
            self._sums += loss
        else:
            values = {'loss': loss, **(terms or {})}
            if tuple(values) != self._names:
                values = self._widened(values)
            self._sums += torch.stack([*values.values()])
        self._finite &= loss.isfinite()
        self._finite_steps += self._finite
        self._count += 1

    def add_norm(self, norm: Tensor) -> None:
        r"""Adds the gradient norm of a step; not every step has to be measured."""
        self._norm += norm.detach()
        self._norms += 1

    def _widened(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        r"""Makes room for new terms; a term that is missing in a step counts as zero there."""
        new = tuple(name for name in values if name not in self._names)
        if new:
            self._sums = torch.cat([self._sums, self._sums.new_zeros(len(new))])
            self._names += new
        return {name: values.get(name, torch.zeros_like(values['loss'])) for name in self._names}

    def read(self) -> tuple[dict[str, float], int]:
        r"""Returns the means since the last :meth:`reset` by name (:obj:`"loss"`, the terms, :obj:`"grad_norm"`), and
        the number of steps, since the meter was made, before the first loss that was not finite. Of several processes,
        the mean over all and the smallest number. Waits for the device.
        """
        # In place, so that what one process saves is what all have seen.
        sum_(self._sums).div_(current()[1])
        minimum_(self._finite_steps)
        *sums, norm, finite_steps = torch.cat([self._sums, self._norm.unsqueeze(0),
                                               self._finite_steps.to(self._exact).unsqueeze(0)]).tolist()
        means = {name: value / max(self._count, 1) for name, value in zip(self._names, sums)}
        if self._norms:
            means['grad_norm'] = norm / self._norms
        return means, int(finite_steps)

    def reset(self) -> None:
        r"""Begins new means."""
        self._sums.zero_()
        self._norm.zero_()
        self._count = self._norms = 0

    def state_dict(self) -> dict[str, Any]:
        r"""The running means."""
        return {'names': list(self._names), 'sums': self._sums.cpu(), 'count': self._count, 'norm': self._norm.cpu(),
                'norms': self._norms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Continues running means; steps are counted anew."""
        if 'sum' in state:  # a checkpoint of format 1
            state = {'names': ['loss'], 'sums': [float(state['sum'])], 'count': state['count'], 'norm': 0.0, 'norms': 0}
        self._names = tuple(state['names'])
        self._sums = torch.as_tensor(state['sums']).to(self._sums, copy=True)
        self._count = int(state['count'])
        self._norm.fill_(float(state['norm']))
        self._norms = int(state['norms'])


def nonfinite_weights(model: torch.nn.Module) -> list[str]:
    r"""Names of the parameters that hold NaN or infinity. Waits for the device, once."""
    # A sum is NaN or infinite as soon as one summand is, and unlike an element-wise test takes no memory.
    names = [name for name, _ in model.named_parameters()]
    sums = torch.stack([value.detach().sum(dtype=torch.float32) for value in model.parameters()])
    return [name for name, good in zip(names, sums.isfinite().tolist()) if not good]


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    r"""The norm of all gradients together, on their device, without waiting for it.

    Args:
        gradients (iterable of torch.Tensor): The gradients, dense or row-sparse. They are not changed.
    """
    # A row that occurs twice counts by its sum.
    norms = [torch.linalg.vector_norm(grad.coalesce().values() if grad.is_sparse else grad) for grad in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


def clip_gradients(parameters: Iterable[Tensor], max_norm: float) -> Optional[Tensor]:
    r"""Scales all gradients so that their common norm is at most :obj:`max_norm`.

    As :func:`torch.nn.utils.clip_grad_norm_`, which does not accept the row-sparse gradients of embedding tables.

    Args:
        parameters (iterable of torch.Tensor): All parameters; those without a gradient are skipped.
        max_norm (float): The largest norm.

    Returns:
        The norm before, or :obj:`None` if there are no gradients.
    """
    parameters = [value for value in parameters if value.grad is not None]
    for parameter in parameters:
        if parameter.grad.is_sparse:  # type: ignore[union-attr]
            # A row that occurs twice counts by its sum.
            parameter.grad = parameter.grad.coalesce()  # type: ignore[union-attr]
    values = [grad.values() if grad.is_sparse else grad
              for grad in (parameter.grad for parameter in parameters) if grad is not None]
    if not values:
        return None
    norm = gradient_norm(values)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(factor)
    return norm

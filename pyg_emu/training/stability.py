r"""Measuring the loss, its terms and the weights during training."""
from __future__ import annotations

from typing import Any, Mapping, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import is_number, shown
from pyg_emu.core.distributed import current, minimum_, sum_
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.mapped_table import read_in_order
from pyg_emu.models.sharded import sharded_tables


def scalars(terms: Any, loss: Tensor) -> dict[str, Tensor]:
    r"""Returns the terms of a loss as scalar tensors on its device, without one that is called :obj:`"loss"`: the loss
    is what is minimised.

    Args:
        terms (dict): The attribute :obj:`terms` of a criterion or of a part that learns. Anything but a dictionary has
            another meaning in a class of the user, and is no terms.
        loss (torch.Tensor): The loss.

    Raises:
        ArgumentError: If a term is neither a number nor a scalar tensor.
    """
    found: dict[str, Tensor] = {}
    for name, value in (terms.items() if isinstance(terms, Mapping) else ()):
        if is_number(value):
            value = loss.new_full((), float(value))
        elif not isinstance(value, Tensor) or value.dim() != 0:
            got = f'a tensor of shape {tuple(value.shape)}' if isinstance(value, Tensor) else shown(value)
            raise ArgumentError(f'terms[{name!r}]: expected a number or a scalar tensor, got {got}')
        if name != 'loss':
            found[str(name)] = value.detach()
    return found


class LossMeter:
    r"""Running means of the loss, its terms and the gradient norm, and the first step with a loss that is not finite.
    All sums are on the device. Only :meth:`read` synchronizes with it.

    Args:
        device (torch.device): The device of the losses.
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
            loss (torch.Tensor): The scalar loss.
            terms (dict, optional): The terms of the loss by name, from :func:`scalars`. (default: :obj:`None`)
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
        r"""Adds the gradient norm of a step. It need not be measured in every step."""
        self._norm += norm.detach()
        self._norms += 1

    def _widened(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        r"""Adds new terms. A term that is missing in a step counts as zero."""
        new = tuple(name for name in values if name not in self._names)
        if new:
            self._sums = torch.cat([self._sums, self._sums.new_zeros(len(new))])
            self._names += new
        return {name: values.get(name, torch.zeros_like(values['loss'])) for name in self._names}

    def read(self) -> tuple[dict[str, float], int]:
        r"""Returns the means since the last :meth:`reset` by name (:obj:`"loss"`, the terms, :obj:`"grad_norm"`), and
        the number of steps before the first loss that is not finite, since the meter was created. With several
        processes, returns the means over all of them and the smallest number. Synchronizes with the device.
        """
        # In place, so that the saved state of one process is that of all.
        sum_(self._sums).div_(current()[1])
        minimum_(self._finite_steps)
        *sums, norm, finite_steps = torch.cat([self._sums, self._norm.unsqueeze(0),
                                               self._finite_steps.to(self._exact).unsqueeze(0)]).tolist()
        means = {name: value / max(self._count, 1) for name, value in zip(self._names, sums)}
        if self._norms:
            means['grad_norm'] = norm / self._norms
        return means, int(finite_steps)

    def reset(self) -> None:
        r"""Starts new means."""
        self._sums.zero_()
        self._norm.zero_()
        self._count = self._norms = 0

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the running means."""
        return {'names': list(self._names), 'sums': self._sums.cpu(), 'count': self._count, 'norm': self._norm.cpu(),
                'norms': self._norms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        r"""Restores running means. Steps are counted from zero."""
        if 'sum' in state:  # A checkpoint of format 1.
            state = {'names': ['loss'], 'sums': [float(state['sum'])], 'count': state['count'], 'norm': 0.0, 'norms': 0}
        self._names = tuple(state['names'])
        self._sums = torch.as_tensor(state['sums']).to(self._sums, copy=True)
        self._count = int(state['count'])
        self._norm.fill_(float(state['norm']))
        self._norms = int(state['norms'])


def nonfinite_weights(model: torch.nn.Module) -> list[str]:
    r"""Returns the names of the parameters that contain NaN or infinity. Synchronizes with the device once."""
    # A sum is NaN or infinite if any summand is. Unlike an element-wise test, it needs no memory.
    names = [name for name, _ in model.named_parameters()]
    with read_in_order(*model.parameters()):
        sums = torch.stack([value.detach().sum(dtype=torch.float32) for value in model.parameters()])
    # Entity rows may be divided among processes. All of them have to know.
    finite = minimum_(sums.isfinite().to(torch.float32))
    return [name for name, good in zip(names, finite.tolist()) if not good]


def drifted_weights(model: torch.nn.Module) -> list[str]:
    r"""Returns the names of the parameters that differ between the processes, of those that each of them holds whole.
    Synchronizes with the device and the other processes once.
    """
    own = {id(table.rows) for table in sharded_tables(model)}
    replicated = {name: value for name, value in model.named_parameters() if id(value) not in own}
    sums = torch.stack([value.detach().sum(dtype=torch.float64) for value in replicated.values()])
    smallest = minimum_(torch.cat([sums, -sums]))
    same = (smallest[:len(replicated)] == -smallest[len(replicated):]).tolist()
    return [name for name, equal in zip(replicated, same) if not equal]

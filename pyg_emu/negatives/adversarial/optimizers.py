r"""The optimizers that generators and discriminators have of their own."""
from __future__ import annotations

from typing import Any, Iterable, Mapping

import torch
from torch import Tensor
from torch.optim import Optimizer

#: The settings of a group that are no matter of a state: how large steps are, and which implementation takes them.
_OWN = ('lr', 'fused', 'foreach', 'capturable')


def make_adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Adam:
    r"""Makes Adam in one kernel where there is one: on CPUs and on GPUs of CUDA, for real numbers.

    Args:
        parameters (iterable of torch.Tensor): What it trains.
        lr (float): The learning rate.
    """
    values = list(parameters)
    fused = all(value.device.type in ('cpu', 'cuda') and value.is_floating_point() for value in values)
    return torch.optim.Adam(values, lr=lr, fused=fused)


def load_optimizer(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    r"""Continues from the state of another optimizer, with the learning rate and the implementation of this one.

    Args:
        optimizer (torch.optim.Optimizer): The optimizer.
        state (dict): What :meth:`state_dict` of the other one returned.

    Raises:
        ValueError: If the other one trains parameters in other groups.
    """
    own = [{key: group[key] for key in _OWN if key in group} for group in optimizer.param_groups]
    optimizer.load_state_dict({**state, 'param_groups': [{**saved, **kept} for saved, kept
                                                         in zip(state['param_groups'], own, strict=True)]})


def step_if(optimizer: Optimizer, usable: Tensor) -> None:
    r"""Takes a step, or leaves weights, moments and counts of steps as they are.

    Args:
        optimizer (torch.optim.Optimizer): The optimizer.
        usable (torch.Tensor): Whether to take it, a boolean scalar on the device. The host waits for it unless the
            optimizer is fused. :class:`torch.optim.SparseAdam` waits for the device in any case.
    """
    if all(group.get('fused') for group in optimizer.param_groups):
        # Fused optimizers read this attribute on the device. Gradient scalers skip steps in the same way.
        optimizer.found_inf = (~usable).to(torch.float32)  # type: ignore[attr-defined]
        optimizer.step()
    elif bool(usable):
        optimizer.step()

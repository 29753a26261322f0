r"""Random numbers with a Beta distribution, also for parameters close to zero."""
from __future__ import annotations

from typing import Optional, Sequence

import torch
from torch import Tensor


def beta_logits(alpha: float, beta: float, shape: Sequence[int], dtype: torch.dtype, device: torch.device,
                generator: Optional[torch.Generator]) -> Tensor:
    r"""Draws :math:`\log(w / (1 - w))` with :math:`w \sim \mathrm{Beta}(\alpha, \beta)`; its :func:`torch.sigmoid` is
    :math:`w`. :class:`torch.distributions.Beta` takes no generator.

    A beta variate is a ratio of gamma variates, which PyTorch does not draw in half precision on a CPU, and which
    underflow for small parameters. Their logarithms do not: Gamma(a) is Gamma(a + 1) U^(1 / a).

    Args:
        alpha (float): :math:`\alpha`.
        beta (float): :math:`\beta`.
        shape (sequence of int): The shape of the result.
        dtype (torch.dtype): Its type; half precision becomes single precision.
        device (torch.device): Its device.
        generator (torch.Generator, optional): The random generator.
    """
    dtype = torch.promote_types(dtype, torch.float32)
    parameters = (alpha, beta)
    larger = [torch.full(tuple(shape), value + 1.0, dtype=dtype, device=device) for value in parameters]
    gamma = torch._standard_gamma(torch.stack(larger), generator)
    chance = torch.empty_like(gamma).exponential_(generator=generator)
    left, right = (own.log() - other / value for own, other, value in zip(gamma, chance, parameters))
    return left - right

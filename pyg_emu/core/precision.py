r"""The types that code computes in: those of its operands beside :class:`torch.autocast`, and those of sums."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def without_autocast(tensor: Tensor) -> AbstractContextManager[Any]:
    r"""Returns a context in which matrix products keep the type of their operands. Inside :class:`torch.autocast` they
    would be rounded to 8 bits of precision, which changes ranks and lets different entities tie.

    Args:
        tensor (torch.Tensor): A tensor on the device of the computation.
    """
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def at_least_single(tensor: Tensor) -> Tensor:
    r"""Returns a tensor in single precision if it is in half precision, for sums that would overflow float16 and lose
    digits in bfloat16. Its gradient is in half precision.

    Args:
        tensor (torch.Tensor): Floating-point numbers.
    """
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

r"""How code that computes in the types of its operands stands beside :class:`torch.autocast`."""
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

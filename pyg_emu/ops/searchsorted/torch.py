r"""The reference of :func:`~pyg_emu.ops.searchsorted.searchsorted` in PyTorch."""
from __future__ import annotations

import torch
from torch import Tensor


def search(sorted_sequence: Tensor, values: Tensor, right: bool) -> Tensor:
    r"""See :func:`~pyg_emu.ops.searchsorted.searchsorted`."""
    return torch.searchsorted(sorted_sequence, values, right=right)

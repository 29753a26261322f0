r"""Binary search for many values at once."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled

# For fewer values, PyTorch takes less than a millisecond, and nothing has to be compiled.
_WORTH = 4096


@uncompiled
def searchsorted(
    sorted_sequence: Tensor,
    values: Tensor,
    right: bool = False,
    backend: Optional[str] = None,
) -> Tensor:
    r"""Returns where values would be inserted into an ascending sequence, as :func:`torch.searchsorted` does.

    PyTorch's implementation on the CPU searches for one value after the other, and waits for memory and for an
    unpredictable branch at each step. The Numba implementation advances many searches by one step together, without
    branches. It supports int64. By default, it runs for at least 4,096 values.

    Args:
        sorted_sequence (torch.Tensor): The sequence, ascending. shape: :obj:`(M,)`.
        values (torch.Tensor): The values. shape: any, of the type of :obj:`sorted_sequence`.
        right (bool, optional): Whether a value is inserted after the entries that are equal to it.
            (default: :obj:`False`, before them)
        backend (str, optional): See :mod:`pyg_emu.ops.backend`. (default: :obj:`None`, by device)

    :rtype: :class:`torch.Tensor` of the shape of :obj:`values`, int64.
    """
    if backend is None and values.numel() < _WORTH:
        return torch.searchsorted(sorted_sequence, values, right=right)
    # Backends are chosen by a floating-point tensor; ids and keys are integers.
    like = torch.empty(0, dtype=torch.float32, device=values.device)
    module = load_backend('searchsorted', like, backend, dtypes=(sorted_sequence.dtype, values.dtype))
    found: Tensor = module.search(sorted_sequence, values, right)
    return found

r"""The reference implementation of :mod:`~pyg_emu.ops.row_linear` by matrix products, for every device and dtype."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch.nn import functional as F

#: Bytes of a node's summed weights that exist at a time: few enough for the cache of a CPU, enough to keep a GPU busy.
CHUNK_BYTES = {'cpu': 2**20, 'cuda': 128 * 2**20}


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    r"""See :func:`~pyg_emu.ops.row_linear.row_linear`; :obj:`x` has shape :obj:`(N, D)`."""
    return F.linear(x, weight, bias)


def folded(x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
    r"""See :func:`~pyg_emu.ops.row_linear.pna_linear`."""
    out = x.new_empty(x.size(0), x.size(1), weight.size(2))
    for rows in chunks(x, weight):
        torch.bmm(x[rows], folded_weights(scalers[rows], weight), out=out[rows])
    return out


def chunks(x: Tensor, weight: Tensor) -> list[slice]:
    r"""Slices of nodes whose summed weights take :obj:`CHUNK_BYTES`."""
    limit = CHUNK_BYTES.get(x.device.type, CHUNK_BYTES['cuda'])
    size = max(1, limit // max(1, weight[0].numel() * weight.element_size()))
    return [slice(start, start + size) for start in range(0, x.size(0), size)]


def folded_weights(scalers: Tensor, weight: Tensor) -> Tensor:
    r"""The summed weights of some nodes. shape: :obj:`(V, D, O)`."""
    return (scalers @ weight.flatten(1)).view(-1, *weight.shape[1:])

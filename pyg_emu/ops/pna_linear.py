r"""The linear layer of principal neighbourhood aggregation, with the scalers of each node folded into the weights."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: The size limit of folded weights in bytes: fits into a CPU cache and still occupies a GPU.
_CHUNK_BYTES = {'cpu': 2**20, 'cuda': 128 * 2**20}


def pna_linear(x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
    r"""Applies a linear map to the scaled statistics of nodes,

    .. math::
        \mathbf{y}_v = \sum_k c_{vk}\, \mathbf{W}_k \mathbf{x}_v = \Big(\sum_k c_{vk} \mathbf{W}_k\Big) \mathbf{x}_v,

    as in equation 8 (section 3.3) of the `"Principal Neighbourhood Aggregation" <https://arxiv.org/abs/2004.05718>`_
    paper. The form on the right sums the weights of a node once for all queries of a batch, which divides the number of
    multiplications by :math:`K`. Folded weights are computed for chunks of nodes and recomputed in the backward pass,
    so their memory does not grow with the number of nodes.

    Args:
        x (torch.Tensor): The statistics of the nodes. shape: :obj:`(V, B, D)`.
        scalers (torch.Tensor): The scalers :math:`c`, which receive no gradient. shape: :obj:`(V, K)`.
        weight (torch.Tensor): The weights :math:`\mathbf{W}`. shape: :obj:`(K, D, O)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, O)`.
    """
    device = x.device.type
    # Autocast as in PyTorch's own linear layers, which leave double precision unchanged.
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, scalers, weight = x.to(dtype), scalers.to(dtype), weight.to(dtype)
    out: Tensor = _PNALinear.apply(x, scalers.to(x.dtype), weight)
    return out


class _PNALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, scalers, weight)
        out = x.new_empty(x.size(0), x.size(1), weight.size(2))
        for rows in _chunks(x, weight):
            torch.bmm(x[rows], _folded(scalers[rows], weight), out=out[rows])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        x, scalers, weight = ctx.saved_tensors
        needs_x, _, needs_weight = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if needs_x else None
        # Transposing before folding is faster: products with a transposed view take twice as long on a CPU.
        transposed = weight.transpose(1, 2).contiguous()
        # At least float32, because the sum runs over thousands of nodes.
        total = torch.zeros(weight.size(0), weight[0].numel(), device=x.device,
                            dtype=torch.promote_types(weight.dtype, torch.float32))
        for rows in _chunks(x, weight):
            if grad_x is not None:
                torch.bmm(grad[rows], _folded(scalers[rows], transposed), out=grad_x[rows])
            if needs_weight:
                own = torch.bmm(x[rows].transpose(1, 2), grad[rows]).flatten(1)
                total += scalers[rows].t() @ own
        return grad_x, None, total.view_as(weight).to(weight.dtype) if needs_weight else None


def _chunks(x: Tensor, weight: Tensor) -> list[slice]:
    limit = _CHUNK_BYTES.get(x.device.type, _CHUNK_BYTES['cuda'])
    size = max(1, limit // (weight[0].numel() * weight.element_size()))
    return [slice(start, start + size) for start in range(0, x.size(0), size)]


def _folded(scalers: Tensor, weight: Tensor) -> Tensor:
    r"""Returns the folded weights of a chunk of nodes. shape: :obj:`(V, D, O)`."""
    return (scalers @ weight.flatten(1)).view(-1, *weight.shape[1:])

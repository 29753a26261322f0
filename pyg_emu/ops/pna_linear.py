r"""The linear map behind principal neighbourhood aggregation, with each node's scalers folded into its weights."""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Bytes of folded weights that are held at a time: few enough for a CPU's cache, many enough to keep a GPU busy.
_CHUNK_BYTES = {'cpu': 2**20, 'cuda': 128 * 2**20}


def pna_linear(x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
    r"""Applies a linear map to the statistics of nodes, each times every scaler,

    .. math::
        \mathbf{y}_v = \sum_k c_{vk}\, \mathbf{W}_k \mathbf{x}_v = \Big(\sum_k c_{vk} \mathbf{W}_k\Big) \mathbf{x}_v,

    (section 3.3 of the `"Principal Neighbourhood Aggregation" <https://arxiv.org/abs/2004.05718>`_ paper, equation 8)
    by the form on the right: the weights of a node are added up once for all queries of a batch, which takes a
    :math:`K`-th of the multiplications. They are made for some nodes at a time and made again for the gradient, so that
    memory does not grow with them.

    Args:
        x (torch.Tensor): Statistics of nodes. shape: :obj:`(V, B, D)`.
        scalers (torch.Tensor): :math:`c`, which gets no gradient. shape: :obj:`(V, K)`.
        weight (torch.Tensor): :math:`\mathbf{W}`. shape: :obj:`(K, D, O)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, O)`.
    """
    device = x.device.type
    # As PyTorch's own linear layers do, which leave double precision as it is.
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
        # Transposed before they are folded: products with a transposed view take twice as long on a CPU.
        transposed = weight.transpose(1, 2).contiguous()
        # In float32 at least: thousands of nodes add up.
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
    r"""The weights of some nodes. shape: :obj:`(V, D, O)`."""
    return (scalers @ weight.flatten(1)).view(-1, *weight.shape[1:])

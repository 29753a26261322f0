r"""Linear maps in which a row's result depends neither on its place among other rows nor on their number.

Matrix products of CPU libraries compute the last rows of a matrix, or a matrix of few rows, by other instructions than
the rest, and so round them differently. Entities with equal features then get different scores, and the batch size
changes ranks. Both operators compute each row by one sequence of operations on the CPU (:obj:`"numba"`). On a GPU
(:obj:`"torch"`) all rows of one call are computed alike by the tiles of cuBLAS, which may choose other tiles for
another number of rows.
"""
from __future__ import annotations

from types import ModuleType
from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import tensors
from pyg_emu.core.derivatives import first_order
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.precision import without_autocast
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled
from pyg_emu.ops.row_linear.torch import chunks, folded_weights

_OPERATOR = 'row_linear'


def row_linear(x: Tensor, weight: Tensor, bias: Optional[Tensor] = None, backend: Optional[str] = None) -> Tensor:
    r"""Applies a linear map, as :func:`torch.nn.functional.linear` does: :math:`\mathbf{y} = \mathbf{W} \mathbf{x} +
    \mathbf{b}`. Equal rows of :obj:`x` have equal results, bit for bit, on the CPU in float32 and float64.

    Under autocast and inside :func:`torch.compile`, it is :func:`torch.nn.functional.linear` itself.

    Args:
        x (torch.Tensor): shape: :obj:`(..., D)`.
        weight (torch.Tensor): :math:`\mathbf{W}`. shape: :obj:`(O, D)`.
        bias (torch.Tensor, optional): :math:`\mathbf{b}`. (default: :obj:`None`) shape: :obj:`(O,)`.
        backend (str, optional): :obj:`"torch"` or :obj:`"numba"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(..., O)`.

    Raises:
        ArgumentError: If the shapes do not go together.
        BackendError: If the requested backend is not available.
    """
    tensors(x=x, weight=weight, optional=('bias', ), bias=bias)
    if weight.dim() != 2:
        raise ArgumentError(f'weight: expected shape (O, D), got {tuple(weight.shape)}')
    if x.dim() == 0 or x.size(-1) != weight.size(1):
        raise ArgumentError(f'x: expected shape (..., {weight.size(1)}), to go with weight of shape '
                            f'{tuple(weight.shape)}, got {tuple(x.shape)}')
    if bias is not None and tuple(bias.shape) != (weight.size(0), ):
        raise ArgumentError(f'bias: expected shape {(weight.size(0), )}, to go with weight of shape '
                            f'{tuple(weight.shape)}, got {tuple(bias.shape)}')
    narrow = torch.is_autocast_enabled(x.device.type) and weight.dtype != torch.float64
    if narrow or torch.compiler.is_compiling() or x.dtype != weight.dtype:
        return F.linear(x, weight, bias)
    module = load_backend(_OPERATOR, x, backend)
    out: Tensor = _RowLinear.apply(x.reshape(-1, x.size(-1)), weight, bias, module)
    return out.view(*x.shape[:-1], weight.size(0))


@uncompiled
def pna_linear(x: Tensor, scalers: Tensor, weight: Tensor, backend: Optional[str] = None) -> Tensor:
    r"""Applies a linear map to the statistics of nodes, each times every scaler,

    .. math::
        \mathbf{y}_v = \sum_k c_{vk}\, \mathbf{W}_k \mathbf{x}_v = \Big(\sum_k c_{vk} \mathbf{W}_k\Big) \mathbf{x}_v,

    (section 3.3 of the `"Principal Neighbourhood Aggregation" <https://arxiv.org/abs/2004.05718>`_ paper, equation 8)
    by the form on the right. The weights of a node are summed once for all queries of a batch, which takes a
    :math:`K`-th of the multiplications. They exist for some nodes at a time and are computed again for the gradient, so
    memory does not grow with the number of nodes. Nodes with equal statistics and scalers have equal results, as in
    :func:`row_linear`.

    Args:
        x (torch.Tensor): Statistics of nodes. shape: :obj:`(V, B, D)`.
        scalers (torch.Tensor): :math:`c`, without gradient. shape: :obj:`(V, K)`.
        weight (torch.Tensor): :math:`\mathbf{W}`. shape: :obj:`(K, D, O)`.
        backend (str, optional): As in :func:`row_linear`. (default: :obj:`None`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, O)`.

    Raises:
        ArgumentError: If the shapes do not go together.
        BackendError: If the requested backend is not available.
    """
    tensors(x=x, scalers=scalers, weight=weight)
    if weight.dim() != 3:
        raise ArgumentError(f'weight: expected shape (K, D, O), got {tuple(weight.shape)}')
    if x.dim() != 3 or x.size(2) != weight.size(1):
        raise ArgumentError(f'x: expected shape (V, B, {weight.size(1)}), to go with weight of shape '
                            f'{tuple(weight.shape)}, got {tuple(x.shape)}')
    if tuple(scalers.shape) != (x.size(0), weight.size(0)):
        raise ArgumentError(f'scalers: expected shape {(x.size(0), weight.size(0))}, one of each kind for each node of '
                            f'x, got {tuple(scalers.shape)}')
    device = x.device.type
    # As PyTorch's linear layers, which keep double precision under autocast.
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(device)
        x, scalers, weight = x.to(dtype), scalers.to(dtype), weight.to(dtype)
    out: Tensor = _PNALinear.apply(x, scalers.to(x.dtype), weight, load_backend(_OPERATOR, x, backend))
    return out


class _RowLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Optional[Tensor], module: ModuleType) -> Tensor:
        ctx.save_for_backward(x, weight)
        return module.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        with without_autocast(x):
            return (grad @ weight if needs_x else None, grad.t() @ x if needs_weight else None,
                    grad.sum(0) if needs_bias else None, None)


class _PNALinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scalers: Tensor, weight: Tensor, module: ModuleType) -> Tensor:
        ctx.save_for_backward(x, scalers, weight)
        return module.folded(x, scalers, weight)

    @staticmethod
    @first_order('pna_linear', 'give row_linear the statistics times each scaler, side by side')
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        x, scalers, weight = ctx.saved_tensors
        needs_x, _, needs_weight, _ = ctx.needs_input_grad
        grad_x = torch.empty_like(x) if needs_x else None
        # Transposed before they are summed: products with a transposed view take twice as long on a CPU.
        transposed = weight.transpose(1, 2).contiguous()
        # In float32 at least, because thousands of nodes add up.
        total = torch.zeros(weight.size(0), weight[0].numel(), device=x.device,
                            dtype=torch.promote_types(weight.dtype, torch.float32))
        with without_autocast(x):
            for rows in chunks(x, weight):
                if grad_x is not None:
                    torch.bmm(grad[rows], folded_weights(scalers[rows], transposed), out=grad_x[rows])
                if needs_weight:
                    own = torch.bmm(x[rows].transpose(1, 2), grad[rows]).flatten(1)
                    total += scalers[rows].t() @ own
        return grad_x, None, total.view_as(weight).to(weight.dtype) if needs_weight else None, None

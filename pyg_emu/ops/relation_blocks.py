r"""Message passing with one block-diagonal weight for each relation.

It is computed by plain matrix products: that of a relation multiplies only the features of its own edges. The loop over
relations is in Python, and memory grows with the edges of the largest relation.
"""
from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.precision import without_autocast
from pyg_emu.ops.basis_sum.operator import check_messages, check_parameter
from pyg_emu.ops.interop import uncompiled
from pyg_emu.ops.relational import EdgeOrders


@uncompiled
def block_sum(x: Tensor, weight: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor] = None) -> Tensor:
    r"""Sums the messages of R-GCN whose weights are block-diagonal (equation 4 of the `"Modeling Relational Data with
    Graph Convolutional Networks" <https://arxiv.org/abs/1703.06103>`_ paper):

    .. math::
        \mathbf{y}_v = \sum_{(u, r, v) \in \mathcal{E}} w_{(u, r, v)}\, \mathrm{diag}(\mathbf{Q}_{r1}, \ldots,
        \mathbf{Q}_{rK})^{\top}\, \mathbf{x}_u.

    One block is a full matrix for each relation. The output is differentiable with respect to :obj:`x` and
    :obj:`weight`, and deterministic.

    Args:
        x (torch.Tensor): The node features. shape: :obj:`(V, K * C)`.
        weight (torch.Tensor): The blocks. shape: :obj:`(R, K, C, C_out)`.
        edges (EdgeOrders): The graph.
        edge_weight (torch.Tensor, optional): :math:`w`, without gradient, in the order of :obj:`edge_index`. shape:
            :obj:`(E,)`. (default: :obj:`None`, ones)

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, K * C_out)`.

    Raises:
        ArgumentError: If a tensor has the wrong shape, dtype or device, or :obj:`edge_weight` requires a gradient.
    """
    tensors(x=x, weight=weight)
    check_messages(x, edges, edge_weight)
    check_parameter('weight', weight, ('K', 'C', 'C_out'), x, edges)
    if weight.size(1) * weight.size(2) != x.size(1):
        raise ArgumentError(f'weight: expected K * C = {x.size(1)} as many columns as x has, got K = {weight.size(1)} '
                            f'and C = {weight.size(2)}')
    out: Tensor = _BlockSum.apply(x, weight, edges, edge_weight)
    return out


class _Relation(NamedTuple):
    r"""The edges of a relation, of which those with the same target are adjacent.

    Args:
        number (int): The relation.
        source (torch.Tensor): shape: :obj:`(E_r,)`.
        target (torch.Tensor): shape: :obj:`(E_r,)`.
        share (torch.Tensor, optional): The weights of the edges. shape: :obj:`(E_r, 1)`.
    """
    number: int
    source: Tensor
    target: Tensor
    share: Optional[Tensor]


def _relations(edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Iterator[_Relation]:
    order = edges.by_relation
    share = None if edge_weight is None else edge_weight[order.edge_id].unsqueeze(1)
    ptr = order.ptr.tolist()
    for number, (start, stop) in enumerate(zip(ptr, ptr[1:])):
        if stop > start:
            own = slice(start, stop)
            yield _Relation(number, order.source[own], order.target[own], None if share is None else share[own])


class _BlockSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, weight, edge_weight)
        ctx.edges = edges
        blocks, width = weight.size(1), weight.size(3)
        out = x.new_zeros(x.size(0), blocks * width)
        with without_autocast(x):
            for part in _relations(edges, edge_weight):
                rows = _blocks(x, part.source, part.share, blocks)
                _add(out, part.target, (rows @ weight[part.number]).transpose(0, 1).reshape(-1, blocks * width))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        x, weight, edge_weight = ctx.saved_tensors
        blocks = weight.size(1)
        grad_x, grad_weight = torch.zeros_like(x), torch.zeros_like(weight)
        with without_autocast(x):
            for part in _relations(ctx.edges, edge_weight):
                slope = _blocks(grad, part.target, part.share, blocks)
                rows = _blocks(x, part.source, None, blocks)
                grad_weight[part.number] = rows.transpose(1, 2) @ slope
                back = slope @ weight[part.number].transpose(1, 2)
                _add(grad_x, part.source, back.transpose(0, 1).reshape(-1, x.size(1)))
        return grad_x, grad_weight, None, None


def _blocks(x: Tensor, index: Tensor, share: Optional[Tensor], blocks: int) -> Tensor:
    r"""Rows of :obj:`x`, weighted and divided into blocks. shape: :obj:`(K, E_r, C)`."""
    rows = x.index_select(0, index)
    return (rows if share is None else rows * share).view(index.numel(), blocks, -1).transpose(0, 1)


def _add(out: Tensor, index: Tensor, rows: Tensor) -> None:
    # Rows of one node are added in the order of edges on a CPU. index_add_ on a GPU has no order, sorting has one.
    if out.is_cuda:
        out.index_put_((index, ), rows, accumulate=True)
    else:
        out.index_add_(0, index, rows)

r"""The PyTorch reference of :func:`~pyg_emu.ops.relational_conv`: gather, compose, reduce.

It materializes all messages at once.
"""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor
from torch_geometric.utils import segment

from pyg_emu.ops.relational.operator import PNA_EPSILON, Boundary, BoundaryRows, EdgeOrders, message_count


def run(x: Tensor, relation: Tensor, edges: EdgeOrders, message: str, aggregate: str, boundary: Optional[Boundary],
        edge_weight: Optional[Tensor], edge_mask: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.relational_conv`."""
    order = edges.by_target
    source, rel_type, edge_id = order.source, order.relation, order.edge_id
    if edge_mask is not None:
        kept = edge_mask[edge_id].nonzero().squeeze(-1)
        source, rel_type, edge_id = source[kept], rel_type[kept], edge_id[kept]
    count = message_count(order, edge_mask)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])

    vectors = relation[rel_type].unsqueeze(1) if relation.dim() == 2 else relation.transpose(0, 1)[rel_type]
    messages = _compose(x[source], vectors, message)
    if edge_weight is not None:
        messages = messages * edge_weight[edge_id].view(-1, 1, 1)

    if isinstance(boundary, BoundaryRows):
        boundary = boundary.dense(x.size(0))
    count = count.view(-1, 1, 1)
    if aggregate == 'sum':
        return _sum(messages, ptr, boundary)
    if aggregate in ('max', 'min'):
        return _extremum(messages, ptr, boundary, count, aggregate)
    divisor = (count + (boundary is not None)).clamp(min=1)
    mean = _sum(messages, ptr, boundary) / divisor
    if aggregate == 'mean':
        return mean
    square = _sum(messages.square(), ptr, None if boundary is None else boundary.square()) / divisor
    std = (square - mean.square()).clamp(min=PNA_EPSILON).sqrt()
    extrema = [_extremum(messages, ptr, boundary, count, which) for which in ('max', 'min')]
    return torch.stack([mean, *extrema, std], dim=2)


def _compose(x: Tensor, vectors: Tensor, message: str) -> Tensor:
    if message == 'product':
        return x * vectors
    if message == 'sum':
        return x + vectors
    x_re, x_im = x.chunk(2, dim=-1)
    r_re, r_im = vectors.chunk(2, dim=-1)
    return torch.cat([x_re * r_re - x_im * r_im, x_re * r_im + x_im * r_re], dim=-1)


def _sum(messages: Tensor, ptr: Tensor, boundary: Optional[Tensor]) -> Tensor:
    out = segment(messages, ptr, reduce='sum')
    return out if boundary is None else out + boundary


def _extremum(messages: Tensor, ptr: Tensor, boundary: Optional[Tensor], count: Tensor, which: str) -> Tensor:
    out = _first_extremum(messages, ptr, which)
    if boundary is None:
        return torch.where(count > 0, out, torch.zeros_like(out))
    # torch.maximum would split the gradient between equal values.
    prefer = boundary >= out if which == 'max' else boundary <= out
    return torch.where(prefer | boundary.isnan() | (count == 0), boundary, out)


def _first_extremum(messages: Tensor, ptr: Tensor, which: str) -> Tensor:
    r"""Of equal messages, the gradient goes to the first. What becomes of it in :func:`segment` depends on whether
    torch-scatter is installed. Nodes without messages have any value."""
    num_nodes, num_messages = ptr.numel() - 1, messages.size(0)
    if num_messages == 0:
        return messages.sum(dim=0).expand(num_nodes, -1, -1)
    with torch.no_grad():
        target = torch.repeat_interleave(ptr.diff())
        reached = (messages == segment(messages, ptr, reduce=which)[target]) | messages.isnan()
        position = torch.arange(num_messages, device=ptr.device).view(-1, 1, 1)
        first = ptr.new_full((num_nodes, *messages.shape[1:]), num_messages - 1)
        first.scatter_reduce_(0, target.view(-1, 1, 1).expand_as(messages),
                              torch.where(reached, position, num_messages - 1), 'amin')
    return messages.gather(0, first)

r"""The CPU implementation of :func:`~pyg_emu.ops.basis_sum`. The features of an edge are read once for all bases.

The rows of a node's output, one for each basis, stay in the first-level cache until its last edge.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from numba import prange
from torch import Tensor

from pyg_emu.core.derivatives import first_order
from pyg_emu.ops.numba_runtime import FASTMATH, jit, parallel_section
from pyg_emu.ops.relational import EdgeOrders, Edges

_TASKS = 64  # Enough to balance the load of any machine; results do not depend on it.


def run(x: Tensor, coefficient: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.basis_sum`."""
    return _BasisSum.apply(x, coefficient, edges, edge_weight)


class _BasisSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, coefficient: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Tensor:
        ctx.save_for_backward(x, coefficient, edge_weight)
        ctx.edges = edges
        out = x.new_empty(x.size(0), coefficient.size(1), x.size(1))
        order = edges.by_target
        with parallel_section():
            _forward(_parts(order), order.ptr.numpy(), order.source.numpy(), order.relation.numpy(),
                     _weights(order, edge_weight, x), _array(x), _array(coefficient), out.numpy())
        return out

    @staticmethod
    @first_order('basis_sum', 'add the messages with torch.Tensor.index_add instead')
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        x, coefficient, edge_weight = ctx.saved_tensors
        order = ctx.edges.by_source
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
        slope = x.new_empty(order.source.numel(), coefficient.size(1))
        grad_coefficient = torch.empty_like(coefficient, memory_format=torch.contiguous_format)
        with parallel_section():
            _backward(_parts(order), order.ptr.numpy(), order.target.numpy(), order.relation.numpy(),
                      _weights(order, edge_weight, x), _array(x), _array(coefficient), _array(grad), grad_x.numpy(),
                      slope.numpy())
            _add_rows(order.relation.numpy(), slope.numpy(), grad_coefficient.numpy())
        return grad_x, grad_coefficient, None, None


def _array(value: Tensor) -> np.ndarray:
    return value.detach().contiguous().numpy()


def _weights(order: Edges, edge_weight: Optional[Tensor], x: Tensor) -> np.ndarray:
    return (x.new_ones(order.edge_id.numel()) if edge_weight is None else edge_weight.detach()[order.edge_id]).numpy()


def _parts(order: Edges) -> np.ndarray:
    r"""Divides the nodes into consecutive parts with about equally many nodes and edges."""
    work = order.ptr.numpy() + np.arange(order.ptr.numel())
    return np.searchsorted(work, np.linspace(0, work[-1], _TASKS + 1)).astype(np.int64)


@jit(parallel=True, fastmath=FASTMATH, error_model='numpy')
def _forward(parts, ptr, source, relation, weight, x, coefficient, out):
    num_bases, width = out.shape[1:]
    for task in prange(parts.size - 1):
        for node in range(parts[task], parts[task + 1]):
            own = out[node]
            own[:] = 0
            for e in range(ptr[node], ptr[node + 1]):
                row = x[source[e]]
                for b in range(num_bases):
                    share = weight[e] * coefficient[relation[e], b]
                    for k in range(width):
                        own[b, k] += share * row[k]


@jit(parallel=True, fastmath=FASTMATH, error_model='numpy')
def _backward(parts, ptr, target, relation, weight, x, coefficient, grad, grad_x, slope):
    num_bases, width = grad.shape[1:]
    for task in prange(parts.size - 1):
        for node in range(parts[task], parts[task + 1]):
            row, own = x[node], grad_x[node]
            own[:] = 0
            for e in range(ptr[node], ptr[node + 1]):
                for b in range(num_bases):
                    share = weight[e] * coefficient[relation[e], b]
                    other = grad[target[e], b]
                    total = x.dtype.type(0)
                    for k in range(width):
                        own[k] += share * other[k]
                        total += row[k] * other[k]
                    slope[e, b] = weight[e] * total


@jit(fastmath=FASTMATH, error_model='numpy')
def _add_rows(relation, slope, out):
    r"""Adds the rows of edges to those of their relations, in the order of edges."""
    total = np.zeros(out.shape)
    for e in range(relation.size):
        for b in range(out.shape[1]):
            total[relation[e], b] += slope[e, b]
    out[:] = total

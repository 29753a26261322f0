r"""The CPU implementation of :func:`~pyg_emu.ops.relational_conv`, which iterates over sorted edges in feature blocks.

Only edge weights, edge masks and their gradients have one entry per edge. The loops are in
:mod:`~pyg_emu.ops.relational.numba_kernels` and :mod:`~pyg_emu.ops.relational.numba_backward`.
"""
from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.derivatives import first_order
from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.numba_runtime import parallel_section
from pyg_emu.ops.relational import numba_backward as backward_kernels
from pyg_emu.ops.relational import numba_kernels as kernels
from pyg_emu.ops.relational.numba_kernels import LANES
from pyg_emu.ops.relational.operator import PNA_EPSILON, Boundary, BoundaryRows, EdgeOrders, Edges, message_count

_TASKS = 64  # Enough to balance the load of any machine; constant, so results do not depend on the number of threads.
_COPIES = 8  # The minimum number of tasks for the gradient of extrema, each with its own gradients of all nodes.
_MIN_PIECE = 4096  # The minimum number of edges in a task.


def run(x: Tensor, relation: Tensor, edges: EdgeOrders, message: str, aggregate: str, boundary: Optional[Boundary],
        edge_weight: Optional[Tensor], edge_mask: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.relational_conv`."""
    num_edges = edges.by_target.edge_id.numel()
    if num_edges >= 2**31:
        raise ArgumentError(f"edges: backend 'numba' supports fewer than 2^31 edges, got {num_edges}")
    node, fill = None, 0.0
    if isinstance(boundary, BoundaryRows):
        node, boundary, fill = boundary
    differentiate = torch.is_grad_enabled() and any(
        operand is not None and operand.requires_grad for operand in (x, relation, boundary, edge_weight))
    shape: tuple[int, int, int] = tuple(x.shape)  # type: ignore[assignment]
    job = _Job(edges, message, aggregate, node, fill, edge_mask, shape, differentiate)
    return _RelationalConv.apply(x, relation, boundary, edge_weight, job)


class _RelationalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, relation: Tensor, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
                job: _Job) -> Tensor:
        out, arg = job.forward(x, relation, boundary, edge_weight)
        ctx.save_for_backward(x, relation, boundary, edge_weight, out if job.aggregate == 'pna' else None, arg)
        ctx.job = job
        return out

    @staticmethod
    @first_order('relational_conv', 'add the messages with torch.Tensor.index_add instead')
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        return (*ctx.job.backward(grad, *ctx.saved_tensors, ctx.needs_input_grad), None)


@dataclass(frozen=True)
class _Layout:
    r"""The mapping from the :obj:`B * D` features of a node to blocks of lanes.

    Args:
        column (numpy.ndarray): The feature of each lane, negative for padding. shape: :obj:`(blocks * lanes,)`.
        place (numpy.ndarray): The column of the lane's mean in a row of :obj:`B * 4 * D` statistics, negative for
            padding. shape: :obj:`(blocks * lanes,)`.
        lane (torch.Tensor): The lane of each feature. shape: :obj:`(B, D)`.
    """
    column: np.ndarray
    place: np.ndarray
    lane: Tensor

    @property
    def num_blocks(self) -> int:
        return self.column.size // LANES


@functools.lru_cache(maxsize=64)
def _layout(size: int, width: int, rotate: bool) -> _Layout:
    features = np.arange(size * width, dtype=np.int64).reshape(size, width)
    if rotate:
        # The first half of a block holds real parts, the second half the imaginary parts of the same components.
        halves = features.reshape(size, 2, width // 2).transpose(1, 0, 2).reshape(2, -1)
        halves = np.pad(halves, ((0, 0), (0, -halves.shape[1] % (LANES // 2))), constant_values=-1)
        column = halves.reshape(2, -1, LANES // 2).transpose(1, 0, 2).reshape(-1)
    else:
        column = np.pad(features.reshape(-1), (0, -features.size % LANES), constant_values=-1)
    place = np.where(column < 0, -1, column // max(width, 1) * (4 * width) + column % max(width, 1))
    lane = np.empty(features.size, np.int64)
    lane[column[column >= 0]] = np.flatnonzero(column >= 0)
    return _Layout(np.ascontiguousarray(column), place, torch.from_numpy(lane).view(size, width))


@dataclass(frozen=True)
class _Job:
    r"""The non-differentiable arguments."""
    edges: EdgeOrders
    message: str
    aggregate: str
    node: Optional[Tensor]
    fill: float
    edge_mask: Optional[Tensor]
    shape: tuple[int, int, int]
    differentiate: bool

    @property
    def layout(self) -> _Layout:
        _, size, width = self.shape
        return _layout(size, width, self.message == 'rotate')

    @property
    def num_relations(self) -> int:
        return self.edges.by_relation.ptr.numel() - 1

    def _column(self, layout: _Layout) -> np.ndarray:
        return layout.place if self.aggregate == 'pna' else layout.column

    # Operands in the kernels' layout ########################################

    def _pack(self, rows: Tensor, layout: _Layout) -> np.ndarray:
        out = _empty((layout.num_blocks, rows.size(0), LANES), rows.detach().numpy().dtype)
        kernels.pack(rows.detach().reshape(rows.size(0), -1).contiguous().numpy(), layout.column, out)
        return out

    def _pack_relation(self, relation: Tensor, layout: _Layout) -> np.ndarray:
        relation = relation.detach()
        if relation.dim() == 2:
            relation = relation.unsqueeze(0).expand(self.shape[1], -1, -1)
        return self._pack(relation.transpose(0, 1), layout)

    def _per_edge(self, order: Edges, edge_weight: Optional[Tensor],
                  dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
        edge_id = order.edge_id
        weight = edge_id.new_empty(0, dtype=dtype) if edge_weight is None else edge_weight.detach()[edge_id]
        mask = edge_id.new_empty(0, dtype=torch.bool) if self.edge_mask is None else self.edge_mask[edge_id]
        return weight.numpy(), mask.numpy()

    def _gather(self, x: np.ndarray, relation: np.ndarray, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
                layout: _Layout, out: np.ndarray, arg: np.ndarray) -> None:
        order, dtype = self.edges.by_target, x.dtype
        pieces = _pieces(layout, order.source.numel())
        weight, mask = self._per_edge(order, edge_weight, torch.from_numpy(x).dtype)
        dense = np.empty((layout.num_blocks, 0, LANES), dtype)
        node = np.full((layout.num_blocks, LANES), -1, np.int64)
        row = np.zeros((layout.num_blocks, LANES), dtype)
        kind = 0
        if self.node is not None and boundary is not None:
            kind = 2
            lane = layout.lane.numpy()
            node.reshape(-1)[lane] = self.node.numpy()[:, None]
            row.reshape(-1)[lane] = boundary.detach().numpy()
        elif boundary is not None:
            kind, dense = 1, self._pack(boundary, layout)
        statistic = {'sum': 'sum', 'mean': 'sum', 'pna': 'all'}.get(self.aggregate, 'extrema')
        kernels.gather_kernel(self.message, statistic, arg.size > 0)(
            order.ptr.numpy(), _owner(order, pieces), order.source.numpy(), order.relation.numpy(), weight, mask, x,
            relation, kind, dense, node, row, dtype.type(self.fill), self._column(layout), self.shape[2],
            dtype.type(PNA_EPSILON), kernels.AGGREGATES[self.aggregate], out, arg)

    # Passes #################################################################

    def forward(self, x: Tensor, relation: Tensor, boundary: Optional[Tensor],
                edge_weight: Optional[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Returns the output and the edge of each extremum, as its position among the node's edges, negative for the
        boundary: :obj:`(blocks, V, 2, L)`. Without gradients, the second result has no rows."""
        num_nodes, size, width = self.shape
        layout = self.layout
        shape = (num_nodes, size, 4, width) if self.aggregate == 'pna' else self.shape
        out = torch.from_numpy(_empty(shape, x.detach().numpy().dtype))
        kept = num_nodes if self.differentiate and self._extrema() else 0
        # int16 takes half the memory and suffices for low degrees.
        short = kept == 0 or int(self.edges.by_target.ptr.diff().max()) < 2**15
        arg = _empty((layout.num_blocks, kept, 2, LANES), np.int16 if short else np.int32)
        with parallel_section():
            self._gather(self._pack(x, layout), self._pack_relation(relation, layout), boundary, edge_weight, layout,
                         out.view(num_nodes, math.prod(shape[1:])).numpy(), arg)
        return out, torch.from_numpy(arg)

    def backward(self, grad: Tensor, x: Tensor, relation: Tensor, boundary: Optional[Tensor],
                 edge_weight: Optional[Tensor], out: Optional[Tensor], kept: Tensor,
                 needs: tuple[bool, ...]) -> tuple[Optional[Tensor], ...]:
        layout = self.layout
        grad = grad.contiguous()
        with parallel_section():
            blocks, vectors = self._pack(x, layout), self._pack_relation(relation, layout)
            count = message_count(self.edges.by_target, self.edge_mask) + int(boundary is not None)
            received = _Received(grad, out, kept.numpy(), count)
            grads: list[Optional[Tensor]] = [None, None, None, None]
            if needs[0] or needs[1]:
                shared = relation.dim() == 2
                grads[:2] = self._spread(blocks, vectors, received, edge_weight, layout, shared)
            if needs[2] and boundary is not None:
                grads[2] = self._boundary_grad(boundary, received, layout)
            if needs[3] and edge_weight is not None:
                grads[3] = self._weight_grad(blocks, vectors, received, edge_weight, layout)
        return tuple(grads)

    def _extrema(self) -> tuple[tuple[int, int], ...]:
        r"""Returns, for each requested extremum, its row in :obj:`arg` and its offset in a row of the output."""
        width = self.shape[2]
        return {'max': ((0, 0), ), 'min': ((1, 0), ), 'pna': ((0, width), (1, 2 * width))}.get(self.aggregate, ())

    def _constant(self, received: _Received) -> Tensor:
        r"""Returns the gradient of all messages of a node, for sums and means. shape: :obj:`(V, B, D)`."""
        if self.aggregate == 'mean':
            return received.grad / received.count.clamp(min=1).view(-1, 1, 1)
        return received.grad

    def _spread(self, x: np.ndarray, relation: np.ndarray, received: _Received, edge_weight: Optional[Tensor],
                layout: _Layout, shared: bool) -> tuple[Tensor, Tensor]:
        num_nodes, size, width = self.shape
        extrema = len(self._extrema()) > 0
        order, dtype = self.edges.by_target if extrema else self.edges.by_source, torch.from_numpy(x).dtype
        # Each piece sums its own relation gradients, and its own feature gradients if edges are sorted by target. These
        # sums should not take more memory than the node features.
        pieces = min(_pieces(layout, order.source.numel()), max(1, num_nodes // max(1, self.num_relations)))
        if extrema:
            pieces = min(pieces, -(-_COPIES // max(1, layout.num_blocks)))
        grad_x = _empty((layout.num_blocks, pieces if extrema else 1, num_nodes, LANES), x.dtype)
        grad_r = _empty((layout.num_blocks, pieces, self.num_relations, LANES), x.dtype)
        walked = order.ptr.numpy(), _owner(order, pieces)
        operands = order.relation.numpy(), *self._per_edge(order, edge_weight, dtype), x, relation
        if extrema:
            backward_kernels.trace_kernel(self.message, self.aggregate)(
                *walked, order.source.numpy(), *operands, *received.rows(self._column(layout), width), grad_x, grad_r)
        else:
            constant = self._pack(self._constant(received), layout)
            backward_kernels.spread_kernel(self.message)(
                *walked, order.target.numpy(), *operands, constant, grad_x, grad_r)
        out_x = torch.from_numpy(_empty((num_nodes, size * width), x.dtype))
        kernels.unpack(grad_x, layout.column, out_x.numpy())
        out_r = torch.empty(self.num_relations, size * width, dtype=dtype, device='cpu')
        kernels.unpack(grad_r, layout.column, out_r.numpy())
        grad_relation = out_r.view(self.num_relations, size, width)
        return out_x.view(self.shape), grad_relation.sum(dim=1) if shared else grad_relation.transpose(0, 1)

    def _boundary_grad(self, boundary: Tensor, received: _Received, layout: _Layout) -> Tensor:
        num_nodes, size, width = self.shape
        index: tuple[Tensor, ...] = (torch.arange(num_nodes, device='cpu'), )
        if self.node is not None:
            index = (self.node, torch.arange(size, device='cpu'))
        grad, count = received.grad[index], received.count[index[0]].clamp(min=1)
        count = count.view(-1, *[1] * (boundary.dim() - 1))
        if self.aggregate in ('sum', 'mean'):
            return grad if self.aggregate == 'sum' else grad / count
        gradients = [grad]
        total = torch.zeros_like(boundary)
        if self.aggregate == 'pna':
            assert received.out is not None
            mean, _, _, deviation = received.out[index].unbind(-2)
            of_mean, *gradients, of_deviation = grad.unbind(-2)
            linear = (of_deviation / deviation).masked_fill(deviation <= _floor(deviation), 0)
            total = (of_mean + linear * (boundary - mean)) / count
        arg = torch.from_numpy(received.arg)
        block, lane = layout.lane // LANES, layout.lane % LANES
        for (which, _), gradient in zip(self._extrema(), gradients):
            if self.node is not None:
                origin = arg[block, self.node.unsqueeze(-1), which, lane]
            else:
                origin = arg[block.unsqueeze(0), index[0].view(-1, 1, 1), which, lane.unsqueeze(0)]
            total = total + gradient * (origin < 0)
        return total

    def _weight_grad(self, x: np.ndarray, relation: np.ndarray, received: _Received, edge_weight: Tensor,
                     layout: _Layout) -> Tensor:
        order, column = self.edges.by_target, self._column(layout)
        weight, mask = self._per_edge(order, edge_weight, edge_weight.dtype)
        rows = received.rows(column, self.shape[2])
        if self.aggregate == 'pna':
            slopes = np.empty((layout.num_blocks, self.shape[0], 2, LANES), x.dtype)
            backward_kernels.pna_slopes(rows[0], rows[1], *rows[3:], slopes)
        elif self.aggregate in ('max', 'min'):
            slopes = np.zeros((layout.num_blocks, self.shape[0], 1, LANES), x.dtype)
        else:
            slopes = self._pack(self._constant(received), layout)[:, :, None]
        out = torch.zeros_like(edge_weight)
        offsets = dict(self._extrema())
        backward_kernels.edge_weights(
            kernels.MESSAGES[self.message], order.ptr.numpy(), order.source.numpy(), order.target.numpy(),
            order.relation.numpy(), weight, mask, x, relation, slopes, received.arg, rows[0], column,
            offsets.get(0, -1), offsets.get(1, -1), out.numpy())
        return torch.empty_like(out).index_copy_(0, order.edge_id, out)


@dataclass(frozen=True)
class _Received:
    r"""The state of the backward pass: the output gradient, the output (for :obj:`"pna"` only), the edge of each
    extremum and the number of messages of each node."""
    grad: Tensor
    out: Optional[Tensor]
    arg: np.ndarray
    count: Tensor

    def rows(self, column: np.ndarray, width: int) -> tuple[Any, ...]:
        r"""Returns the state in the kernels' layout."""
        grad = self.grad.view(self.grad.size(0), math.prod(self.grad.shape[1:]))
        out = grad if self.out is None else self.out.view_as(grad)
        return grad.numpy(), out.numpy(), self.arg, self.count.numpy(), column, width, _floor(grad)


def _floor(values: Tensor) -> Any:
    r"""Returns the standard deviation of a clamped variance, in the precision of :obj:`values`."""
    return np.sqrt(np.dtype(values.detach().numpy().dtype).type(PNA_EPSILON))


def _empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    r"""Allocates an array whose rows of lanes are aligned to cache lines.

    NumPy requests huge pages from the system and PyTorch does not. Filling new memory is several times slower without
    them.
    """
    line, count = 64 // np.dtype(dtype).itemsize, math.prod(shape)
    memory = np.empty(count + line, dtype)
    first = -memory.ctypes.data % 64 // memory.itemsize
    return memory[first:first + count].reshape(shape)


def _pieces(layout: _Layout, num_edges: int) -> int:
    return max(1, min(-(-_TASKS // max(1, layout.num_blocks)), num_edges // _MIN_PIECE))


def _owner(order: Edges, pieces: int) -> np.ndarray:
    r"""Returns the first node that begins in each piece of edges, followed by the number of nodes."""
    ptr, num_edges = order.ptr.numpy(), order.source.numel()
    owner = np.searchsorted(ptr[:-1], [num_edges * piece // pieces for piece in range(pieces + 1)])
    owner[0], owner[pieces] = 0, ptr.size - 1
    return owner

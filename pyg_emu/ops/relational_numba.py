r"""The CPU implementation of :func:`~pyg_emu.ops.relational_conv`: walks over sorted edges, a block of features at a
time.

Nothing but edge weights, masks and their gradients has an entry per edge. The walks themselves are in
:mod:`~pyg_emu.ops.relational_numba_kernels` and :mod:`~pyg_emu.ops.relational_numba_backward`.
"""
from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyg_emu.errors import ArgumentError
from pyg_emu.ops import relational_numba_backward as backward_kernels
from pyg_emu.ops import relational_numba_kernels as kernels
from pyg_emu.ops.numba_runtime import announce, parallel_section
from pyg_emu.ops.relational import PNA_EPSILON, Boundary, BoundaryRows, EdgeOrders, Edges, message_count

_TASKS = 64  # Enough for any machine's threads to share evenly; a constant, so that the results do not depend on them.
_LANES = 64  # Measured: sums and statistics alike are faster than with 32, and no slower than with 128.
_MIN_PIECE = 4096  # Edges in a piece that are worth a task of their own.


def run(x: Tensor, relation: Tensor, edges: EdgeOrders, message: str, aggregate: str, boundary: Optional[Boundary],
        edge_weight: Optional[Tensor], edge_mask: Optional[Tensor]) -> Tensor:
    r"""Convolves checked arguments; see :func:`~pyg_emu.ops.relational_conv`."""
    num_edges = edges.by_target.edge_id.numel()
    if num_edges >= 2**31:
        raise ArgumentError(f"edges: backend 'numba' takes fewer than 2^31 edges, got {num_edges}")
    announce('relational', kernels.pack)
    node, fill = None, 0.0
    if isinstance(boundary, BoundaryRows):
        node, boundary, fill = boundary
    job = _Job(edges, message, aggregate, node, fill, edge_mask, tuple(x.shape))  # type: ignore[arg-type]
    return _RelationalConv.apply(x, relation, boundary, edge_weight, job)


class _RelationalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, relation: Tensor, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
                job: _Job) -> Tensor:
        out = job.forward(x, relation, boundary, edge_weight)
        ctx.save_for_backward(x, relation, boundary, edge_weight, out if job.aggregate == 'pna' else None)
        ctx.job = job
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        return (*ctx.job.backward(grad, *ctx.saved_tensors, ctx.needs_input_grad), None)


@dataclass(frozen=True)
class _Layout:
    r"""How the :obj:`B * D` features of a node lie in blocks of lanes.

    Args:
        lanes (int): Lanes in a block.
        column (numpy.ndarray): The feature of each lane, negative for padding. shape: :obj:`(blocks * lanes,)`.
        place (numpy.ndarray): The column of its mean in a row of :obj:`B * 4 * D` statistics; likewise.
        lane (torch.Tensor): The lane of each feature. shape: :obj:`(B, D)`.
    """
    lanes: int
    column: np.ndarray
    place: np.ndarray
    lane: Tensor

    @property
    def num_blocks(self) -> int:
        return self.column.size // self.lanes


@functools.lru_cache(maxsize=64)
def _layout(size: int, width: int, rotate: bool, lanes: int = _LANES) -> _Layout:
    features = np.arange(size * width, dtype=np.int64).reshape(size, width)
    if rotate:
        # Real parts in the first half of a block, the imaginary parts of the same components in the second.
        halves = features.reshape(size, 2, width // 2).transpose(1, 0, 2).reshape(2, -1)
        halves = np.pad(halves, ((0, 0), (0, -halves.shape[1] % (lanes // 2))), constant_values=-1)
        column = halves.reshape(2, -1, lanes // 2).transpose(1, 0, 2).reshape(-1)
    else:
        column = np.pad(features.reshape(-1), (0, -features.size % lanes), constant_values=-1)
    place = np.where(column < 0, -1, column // max(width, 1) * (4 * width) + column % max(width, 1))
    lane = np.empty(features.size, np.int64)
    lane[column[column >= 0]] = np.flatnonzero(column >= 0)
    return _Layout(lanes, np.ascontiguousarray(column), place, torch.from_numpy(lane).view(size, width))


@dataclass(frozen=True)
class _Job:
    r"""All that is not differentiated."""
    edges: EdgeOrders
    message: str
    aggregate: str
    node: Optional[Tensor]
    fill: float
    edge_mask: Optional[Tensor]
    shape: tuple[int, int, int]

    @property
    def layout(self) -> _Layout:
        _, size, width = self.shape
        return _layout(size, width, self.message == 'rotate')

    @property
    def num_relations(self) -> int:
        return self.edges.by_relation.ptr.numel() - 1

    # Operands as the kernels want them ######################################

    def _pack(self, rows: Tensor, layout: _Layout) -> np.ndarray:
        out = np.empty((layout.num_blocks, rows.size(0), layout.lanes), rows.detach().numpy().dtype)
        kernels.pack(rows.detach().reshape(rows.size(0), -1).contiguous().numpy(), layout.column, out)
        return out

    def _pack_relation(self, relation: Tensor, layout: _Layout) -> np.ndarray:
        relation = relation.detach()
        if relation.dim() == 2:
            relation = relation.unsqueeze(0).expand(self.shape[1], -1, -1)
        return self._pack(relation.transpose(0, 1), layout)

    def _per_edge(self, order: Edges, edge_weight: Optional[Tensor],
                  dtype: torch.dtype) -> tuple[np.ndarray, np.ndarray]:
        weight = torch.empty(0, dtype=dtype) if edge_weight is None else edge_weight.detach()[order.edge_id]
        mask = torch.empty(0, dtype=torch.bool) if self.edge_mask is None else self.edge_mask[order.edge_id]
        return weight.numpy(), mask.numpy()

    def _gather(self, statistic: str, x: np.ndarray, relation: np.ndarray, boundary: Optional[Tensor],
                edge_weight: Optional[Tensor], layout: _Layout, out: np.ndarray, arg: np.ndarray) -> None:
        order, dtype = self.edges.by_target, x.dtype
        pieces = _pieces(layout, order.source.numel())
        weight, mask = self._per_edge(order, edge_weight, torch.from_numpy(x).dtype)
        dense = np.empty((layout.num_blocks, 0, layout.lanes), dtype)
        node = np.full((layout.num_blocks, layout.lanes), -1, np.int64)
        row = np.zeros((layout.num_blocks, layout.lanes), dtype)
        kind = 0
        if self.node is not None and boundary is not None:
            kind = 2
            lane = layout.lane.numpy()
            node.reshape(-1)[lane] = self.node.numpy()[:, None]
            row.reshape(-1)[lane] = boundary.detach().numpy()
        elif boundary is not None:
            kind, dense = 1, self._pack(boundary, layout)
        column = layout.place if statistic == 'all' else layout.column
        kernels.gather_kernel(self.message, statistic, layout.lanes)(
            order.ptr.numpy(), _owner(order, pieces), order.source.numpy(), order.relation.numpy(), weight, mask, x,
            relation, kind, dense, node, row, dtype.type(self.fill), column, self.shape[2], dtype.type(PNA_EPSILON),
            kernels.AGGREGATES[self.aggregate], out, arg)

    # Passes #################################################################

    def forward(self, x: Tensor, relation: Tensor, boundary: Optional[Tensor], edge_weight: Optional[Tensor]) -> Tensor:
        num_nodes, size, width = self.shape
        statistic = {'sum': 'sum', 'mean': 'sum', 'pna': 'all'}.get(self.aggregate, 'extrema')
        layout = self.layout
        shape = (num_nodes, size, 4, width) if self.aggregate == 'pna' else self.shape
        # NumPy asks the system for large pages, PyTorch does not: filling new memory is then several times as slow.
        out = torch.from_numpy(np.empty(shape, x.detach().numpy().dtype))
        with parallel_section():
            self._gather(statistic, self._pack(x, layout), self._pack_relation(relation, layout), boundary, edge_weight,
                         layout, out.view(num_nodes, math.prod(shape[1:])).numpy(), np.empty((0, 0, 2, 0), np.int32))
        return out

    def backward(self, grad: Tensor, x: Tensor, relation: Tensor, boundary: Optional[Tensor],
                 edge_weight: Optional[Tensor], out: Optional[Tensor],
                 needs: tuple[bool, ...]) -> tuple[Optional[Tensor], ...]:
        num_nodes = self.shape[0]
        layout = self.layout
        grad = grad.contiguous()
        with parallel_section():
            blocks, vectors = self._pack(x, layout), self._pack_relation(relation, layout)
            slopes = self._slopes(grad, out, boundary is not None, layout)
            arg = self._arg(blocks, vectors, boundary, edge_weight, layout)
            rows = grad.view(num_nodes, math.prod(grad.shape[1:])).numpy()
            grads: list[Optional[Tensor]] = [None, None, None, None]
            if needs[0] or needs[1]:
                shared = relation.dim() == 2
                grads[:2] = self._spread(blocks, vectors, slopes, arg, rows, edge_weight, layout, shared)
            if needs[2] and boundary is not None:
                grads[2] = self._boundary_grad(boundary, slopes, arg, grad, layout)
            if needs[3] and edge_weight is not None:
                grads[3] = self._weight_grad(blocks, vectors, slopes, arg, rows, edge_weight, layout)
        return tuple(grads)

    def _extrema(self) -> tuple[tuple[int, int], ...]:
        r"""Row of :obj:`arg` and offset in a row of the output, for each extremum that was asked for."""
        width = self.shape[2]
        return {'max': ((0, 0), ), 'min': ((1, 0), ), 'pna': ((0, width), (1, 2 * width))}.get(self.aggregate, ())

    def _slopes(self, grad: Tensor, out: Optional[Tensor], has_boundary: bool, layout: _Layout) -> np.ndarray:
        r"""How the gradient of a message depends on it. shape: :obj:`(blocks, V, 1 or 2, L)`."""
        if self.aggregate in ('max', 'min'):
            return np.zeros((layout.num_blocks, self.shape[0], 1, layout.lanes), grad.numpy().dtype)
        if self.aggregate == 'sum':
            return self._pack(grad, layout)[:, :, None]
        count = message_count(self.edges.by_target, self.edge_mask) + int(has_boundary)
        if self.aggregate == 'mean':
            return self._pack(grad / count.clamp(min=1).view(-1, 1, 1), layout)[:, :, None]
        assert out is not None
        slopes = np.empty((layout.num_blocks, self.shape[0], 2, layout.lanes), grad.numpy().dtype)
        floor = np.sqrt(slopes.dtype.type(PNA_EPSILON))
        backward_kernels.pna_slopes(grad.flatten(1).numpy(), out.flatten(1).numpy(), count.numpy(), layout.place,
                                    self.shape[2], floor, slopes)
        return slopes

    def _arg(self, x: np.ndarray, relation: np.ndarray, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
             layout: _Layout) -> np.ndarray:
        r"""Which edge each extremum came from. Found again rather than kept: the forward pass stays fast and small."""
        wanted = len(self._extrema()) > 0
        arg = np.empty((layout.num_blocks, self.shape[0] if wanted else 0, 2, layout.lanes), np.int32)
        if wanted:
            self._gather('positions', x, relation, boundary, edge_weight, layout, np.empty((0, 0), x.dtype), arg)
        return arg

    def _spread(self, x: np.ndarray, relation: np.ndarray, slopes: np.ndarray, arg: np.ndarray, rows: np.ndarray,
                edge_weight: Optional[Tensor], layout: _Layout, shared: bool) -> tuple[Tensor, Tensor]:
        num_nodes, size, width = self.shape
        order, dtype = self.edges.by_source, torch.from_numpy(x).dtype
        # Each piece adds up relation vectors of its own, which must not outweigh the nodes' features.
        pieces = min(_pieces(layout, order.source.numel()), max(1, num_nodes // max(1, self.num_relations)))
        grad_x = np.zeros_like(x)
        grad_r = np.zeros((layout.num_blocks, pieces, self.num_relations, layout.lanes), x.dtype)
        if self.aggregate not in ('max', 'min'):
            weight, mask = self._per_edge(order, edge_weight, dtype)
            backward_kernels.spread_kernel(self.message, self.aggregate == 'pna', layout.lanes)(
                order.ptr.numpy(), _owner(order, pieces), order.target.numpy(), order.relation.numpy(), weight, mask, x,
                relation, slopes, grad_x, grad_r)
        by_target = self.edges.by_target
        weight, _ = self._per_edge(by_target, edge_weight, dtype)
        column = layout.place if self.aggregate == 'pna' else layout.column
        offsets = dict(self._extrema())
        if offsets:
            backward_kernels.extremum_kernel(self.message, layout.lanes)(
                arg, by_target.source.numpy(), by_target.relation.numpy(), weight, x, relation, rows, column,
                offsets.get(0, -1), offsets.get(1, -1), grad_x, grad_r)
        out_x = torch.from_numpy(np.empty((num_nodes, size * width), x.dtype))
        kernels.unpack(grad_x[:, None], layout.column, out_x.numpy())
        out_r = torch.empty(self.num_relations, size * width, dtype=dtype)
        kernels.unpack(grad_r, layout.column, out_r.numpy())
        grad_relation = out_r.view(self.num_relations, size, width)
        return out_x.view(self.shape), grad_relation.sum(dim=1) if shared else grad_relation.transpose(0, 1)

    def _boundary_grad(self, boundary: Tensor, slopes: np.ndarray, arg: np.ndarray, grad: Tensor,
                       layout: _Layout) -> Tensor:
        num_nodes, size, width = self.shape

        def at(blocks: np.ndarray) -> Tensor:
            r"""Values of blocks :obj:`(blocks, V, L)` at the boundary: :obj:`(B, D)`, or :obj:`(V, B, D)` if dense."""
            values = torch.from_numpy(blocks)
            block, lane = layout.lane // layout.lanes, layout.lane % layout.lanes
            if self.node is not None:
                return values[block, self.node.unsqueeze(-1), lane]
            return values[block.unsqueeze(0), torch.arange(num_nodes).view(-1, 1, 1), lane.unsqueeze(0)]

        out = at(slopes[:, :, 0])
        if self.aggregate == 'pna':
            out = out + at(slopes[:, :, 1]) * boundary
        if self.node is not None:
            grad = grad[self.node, torch.arange(size)]
        for which, offset in self._extrema():
            received = grad[..., offset // width, :] if self.aggregate == 'pna' else grad
            out = out + received * (at(arg[:, :, which]) < 0)
        return out

    def _weight_grad(self, x: np.ndarray, relation: np.ndarray, slopes: np.ndarray, arg: np.ndarray, rows: np.ndarray,
                     edge_weight: Tensor, layout: _Layout) -> Tensor:
        order = self.edges.by_target
        weight, mask = self._per_edge(order, edge_weight, edge_weight.dtype)
        out = torch.zeros_like(edge_weight)
        offsets = dict(self._extrema())
        column = layout.place if self.aggregate == 'pna' else layout.column
        backward_kernels.edge_weights(
            kernels.MESSAGES[self.message], order.source.numpy(), order.target.numpy(), order.relation.numpy(), weight,
            mask, x, relation, slopes, arg, rows, column, offsets.get(0, -1), offsets.get(1, -1), out.numpy())
        return torch.empty_like(out).index_copy_(0, order.edge_id, out)


def _pieces(layout: _Layout, num_edges: int) -> int:
    return max(1, min(-(-_TASKS // max(1, layout.num_blocks)), num_edges // _MIN_PIECE))


def _owner(order: Edges, pieces: int) -> np.ndarray:
    r"""The first node that begins in each piece of edges; the last entry is the number of nodes."""
    ptr, num_edges = order.ptr.numpy(), order.source.numel()
    owner = np.searchsorted(ptr[:-1], [num_edges * piece // pieces for piece in range(pieces + 1)])
    owner[0], owner[pieces] = 0, ptr.size - 1
    return owner

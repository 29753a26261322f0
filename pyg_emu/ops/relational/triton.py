r"""The CUDA implementation of :func:`~pyg_emu.ops.relational_conv` in Triton, without atomics.

In the forward pass, a program computes one node and a block of features. It reads each message once, for all
aggregations. In the backward pass, a program computes one node (edges sorted by source) or one relation (edges sorted
by relation). Nodes and relations with many edges are divided into pieces for load balancing, see
:mod:`~pyg_emu.ops.relational.triton_kernels`. Results do not depend on the order of the programs.

The forward pass also stores the edge of each extremum, as int16 if the node degrees allow it. Features in float16 and
bfloat16 are converted to float32 when loaded. Sums are float32 and rounded once.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
import triton
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from pyg_emu.core.derivatives import first_order
from pyg_emu.ops.relational import triton_kernels as kernels
from pyg_emu.ops.relational.operator import PNA_EPSILON, Boundary, BoundaryRows, EdgeOrders, Edges
from pyg_emu.ops.triton_runtime import mend_interpreter

# Edges and features of a tile. Tiles of this size, with four accumulators each, fit into registers.
_EDGES = 8
_LANES = 128
# The minimum number of edges in a piece. It is larger for graphs with many edges per node, so that the partial sums do
# not take more memory than the node features.
_PIECE = 256
# The degree from which the positions of edges need more than int16.
_NARROW = 2**15

# The accumulators of each aggregation: sum, sum of squares, maximum, minimum.
_ACCUMULATORS = {'sum': (1, 0, 0, 0), 'mean': (1, 0, 0, 0), 'max': (0, 0, 1, 0), 'min': (0, 0, 0, 1),
                 'pna': (1, 1, 1, 1)}

# Cache by the edge ids of an order: the position of each edge among the edges with the same target.
_positions: Any = WeakTensorKeyDictionary()
# Cache by the pointers of an order: the maximum number of edges of a key.
_degrees: Any = WeakTensorKeyDictionary()

if not isinstance(kernels.gather_nodes, triton.JITFunction):
    mend_interpreter()


def run(x: Tensor, relation: Tensor, edges: EdgeOrders, message: str, aggregate: str, boundary: Optional[Boundary],
        edge_weight: Optional[Tensor], edge_mask: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.relational_conv`."""
    node, fill = None, 0.0
    if isinstance(boundary, BoundaryRows):
        node, boundary, fill = boundary
    job = _Job(edges, message, aggregate, node, fill, edge_mask)
    return _RelationalConv.apply(x, relation, boundary, edge_weight, job)


class _RelationalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, relation: Tensor, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
                job: _Job) -> Tensor:
        keep = any(ctx.needs_input_grad)
        with torch.cuda.device_of(x):
            out, positions, counts = job.forward(x, relation, boundary, edge_weight, keep)
        if keep:
            ctx.save_for_backward(x, relation, boundary, edge_weight, out if job.aggregate == 'pna' else None,
                                  positions, counts)
            ctx.job = job
        return out

    @staticmethod
    @first_order('relational_conv', 'add the messages with torch.Tensor.index_add instead')
    def backward(ctx: Any, grad: Tensor) -> tuple[Optional[Tensor], ...]:
        with torch.cuda.device_of(grad):
            return (*ctx.job.backward(grad.contiguous(), *ctx.saved_tensors, ctx.needs_input_grad), None)


class _Walk(NamedTuple):
    r"""Edges in one order, in the kernels' layout. Placeholders stand for absent tensors and are never read."""
    order: Edges
    mask: Tensor
    weight: Tensor
    constants: dict[str, bool]

    @classmethod
    def of(cls, order: Edges, edge_mask: Optional[Tensor], edge_weight: Optional[Tensor]) -> _Walk:
        mask = order.source if edge_mask is None else edge_mask[order.edge_id].view(torch.uint8)
        weight = order.source if edge_weight is None else edge_weight.detach()[order.edge_id]
        return cls(order, mask, weight, {'MASKED': edge_mask is not None, 'WEIGHTED': edge_weight is not None})

    @property
    def num_edges(self) -> int:
        return self.order.source.numel()

    @property
    def num_keys(self) -> int:
        return self.order.ptr.numel() - 1


class _Upstream(NamedTuple):
    r"""The terms of message gradients: the output gradient, the slopes of mean and deviation, the edges of extrema."""
    grad: Tensor
    slopes: Tensor
    positions: Tensor
    counts: Tensor


@dataclass(frozen=True)
class _Job:
    r"""The non-differentiable arguments."""
    edges: EdgeOrders
    message: str
    aggregate: str
    node: Optional[Tensor]
    fill: float
    edge_mask: Optional[Tensor]

    @property
    def accumulators(self) -> dict[str, int]:
        return dict(zip(('SUM', 'SQUARE', 'HIGH', 'LOW'), _ACCUMULATORS[self.aggregate]))

    def forward(self, x: Tensor, relation: Tensor, boundary: Optional[Tensor], edge_weight: Optional[Tensor],
                keep: bool) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the output and, for the backward pass, the positions of extrema and the number of messages."""
        num_nodes, size, width = x.shape
        lanes, flags = size * width, self.accumulators
        statistics, extrema = sum(flags.values()), flags['HIGH'] + flags['LOW']
        out = x.new_empty((num_nodes, size, 4, width) if self.aggregate == 'pna' else x.shape)
        walk = _Walk.of(self.edges.by_target, self.edge_mask, edge_weight)
        positions = x.new_empty((num_nodes if keep else 0, extrema, lanes), dtype=self._position_dtype())
        counts = x.new_empty(num_nodes if keep else 0, dtype=torch.int32)
        if out.numel() == 0:
            return out, positions, counts
        piece = _piece(walk)
        pieces, blocks = walk.num_edges // piece, _blocks(lanes)
        partial = x.new_empty((pieces, statistics, lanes), dtype=torch.float32)
        partial_at = x.new_empty((pieces, extrema, lanes), dtype=torch.int32)
        partial_count = x.new_empty(pieces, dtype=torch.int32)
        x, relation = x.contiguous(), relation.contiguous()
        order = walk.order
        operands = (order.source, order.relation, walk.mask, walk.weight, x, relation, partial, partial_at,
                    partial_count)
        stride = _batch_stride(relation)
        constants = {'MESSAGE': self.message, 'WIDTH': width, 'PIECE': piece, 'BLOCK_E': _EDGES,
                     'BLOCK_F': _block(lanes), **walk.constants, **flags}
        if pieces > 0:
            kernels.gather_pieces[pieces, blocks](order.ptr, order.target, *operands, lanes, stride, **constants)
        kind = 'none' if boundary is None else 'dense' if self.node is None else 'rows'
        kernels.gather_nodes[num_nodes, blocks](
            order.ptr, *operands, x if boundary is None else boundary.contiguous(),
            order.ptr if self.node is None else self.node, self.fill, PNA_EPSILON, out, positions, counts, lanes,
            stride, AGGREGATE=self.aggregate, BOUNDARY=kind, KEEP=keep, **constants)
        return out, positions, counts

    def backward(self, grad: Tensor, x: Tensor, relation: Tensor, boundary: Optional[Tensor],
                 edge_weight: Optional[Tensor], out: Optional[Tensor], positions: Tensor, counts: Tensor,
                 needs: tuple[bool, ...]) -> tuple[Optional[Tensor], ...]:
        num_nodes, size, width = x.shape
        x, contiguous_relation = x.contiguous(), relation.contiguous()
        slopes = grad
        if out is not None:
            slopes = x.new_empty((num_nodes, 2, size, width))
            if slopes.numel() > 0:
                kernels.pna_slopes[num_nodes, _blocks(size * width)](
                    grad, out, counts, slopes, _floor(x.dtype), size * width, WIDTH=width, BLOCK_F=_block(size * width))
        upstream = _Upstream(grad, slopes, positions, counts)
        grads: list[Optional[Tensor]] = [None, None, None, None]
        if needs[0]:
            grads[0] = found = torch.empty_like(x)
            self._spread('x', found, (size * width, width), x, contiguous_relation, edge_weight, upstream)
        if needs[1]:
            if relation.dim() == 3:
                grads[1] = found = torch.empty_like(contiguous_relation)
                strides = width, _batch_stride(relation)
                self._spread('relation', found, strides, x, contiguous_relation, edge_weight, upstream)
            else:
                found = x.new_empty((relation.size(0), size, width), dtype=torch.float32)
                self._spread('relation', found, (size * width, width), x, contiguous_relation, edge_weight, upstream)
                grads[1] = found.sum(dim=1).to(relation.dtype)
        if needs[2] and boundary is not None:
            grads[2] = self._boundary_grad(boundary, upstream)
        if needs[3] and edge_weight is not None:
            grads[3] = self._weight_grad(x, contiguous_relation, edge_weight, upstream)
        return tuple(grads)

    def _spread(self, to: str, found: Tensor, strides: tuple[int, int], x: Tensor, relation: Tensor,
                edge_weight: Optional[Tensor], upstream: _Upstream) -> None:
        r"""Writes the gradient of the features or of the relation vectors to :obj:`found`. :obj:`strides` are the
        strides of its rows and of the batch.
        """
        order = self.edges.by_source if to == 'x' else self.edges.by_relation
        if found.numel() == 0:
            return
        walk, width = _Walk.of(order, self.edge_mask, edge_weight), x.size(2)
        lanes = x.size(1) * width
        piece = _piece(walk, x.size(0))
        pieces, blocks = walk.num_edges // piece, _blocks(lanes)
        partial = x.new_empty((pieces, lanes), dtype=torch.float32)
        operands = (order.target, order.source, order.relation, self._positions(order), walk.mask, walk.weight, x,
                    relation, *upstream, partial)
        stride = _batch_stride(relation)
        constants = {'MESSAGE': self.message, 'AGGREGATE': self.aggregate, 'TO': to, 'WIDTH': width, 'PIECE': piece,
                     'BLOCK_E': _EDGES, 'BLOCK_F': _block(lanes), **walk.constants}
        if pieces > 0:
            key = order.source if to == 'x' else order.relation
            kernels.spread_pieces[pieces, blocks](key, *operands, lanes, stride, **constants)
        kernels.spread_keys[walk.num_keys, blocks](order.ptr, *operands, found, *strides, lanes, stride, **constants)

    def _weight_grad(self, x: Tensor, relation: Tensor, edge_weight: Tensor, upstream: _Upstream) -> Tensor:
        found = torch.empty_like(edge_weight)
        walk, lanes = _Walk.of(self.edges.by_target, self.edge_mask, edge_weight), x.size(1) * x.size(2)
        if lanes == 0 or walk.num_edges == 0:
            return found.zero_()
        order, stride = walk.order, _batch_stride(relation)
        kernels.spread_weights[triton.cdiv(walk.num_edges, _EDGES), ](
            order.edge_id, order.target, order.source, order.relation, self._positions(order), walk.mask, walk.weight,
            x, relation, *upstream, found, walk.num_edges, lanes, stride, MESSAGE=self.message,
            AGGREGATE=self.aggregate, MASKED=walk.constants['MASKED'], WIDTH=x.size(2), BLOCK_E=_EDGES,
            BLOCK_F=_block(lanes))
        return found

    def _boundary_grad(self, boundary: Tensor, upstream: _Upstream) -> Tensor:
        r"""Returns the gradient of the boundary condition, which is a message of each node."""
        grad, slopes, positions, counts = upstream
        rows, count = boundary, counts.view(-1, 1, 1)
        where: tuple[Any, ...] = (slice(None), )
        if self.node is not None:
            where = (self.node, torch.arange(rows.size(0), device=rows.device))
            count = counts[self.node].unsqueeze(1)
        grad = grad[where]
        size, width = boundary.shape[-2:]
        came = positions.view(*positions.shape[:2], size, width).transpose(1, 2)[where] < 0
        if self.aggregate == 'sum':
            return grad
        if self.aggregate == 'mean':
            return (grad / count).to(boundary.dtype)
        if self.aggregate == 'pna':
            constant, linear = slopes.transpose(1, 2)[where].float().unbind(-2)
            return (constant + linear * rows + (grad[..., 1:3, :] * came).sum(-2)).to(boundary.dtype)
        return grad * came.squeeze(-2)

    def _position_dtype(self) -> torch.dtype:
        if self.aggregate not in ('max', 'min', 'pna'):
            return torch.int16
        # int16 halves the memory traffic per message in the backward pass. The degree check synchronizes with the
        # device, but only once for each graph.
        ptr = self.edges.by_target.ptr
        if ptr not in _degrees:
            _degrees[ptr] = int(ptr.diff().max()) if ptr.numel() > 1 else 0
        return torch.int16 if _degrees[ptr] < _NARROW else torch.int32

    def _positions(self, order: Edges) -> Tensor:
        r"""Returns the position of each edge among the edges with the same target. shape: :obj:`(E,)`, int32."""
        if order.edge_id not in _positions:
            by_target = self.edges.by_target
            start = by_target.ptr[by_target.target]
            local = (torch.arange(start.numel(), device=start.device) - start).int()
            by_id = torch.empty_like(local).index_copy_(0, by_target.edge_id, local)
            _positions[order.edge_id] = by_id[order.edge_id]
        found: Tensor = _positions[order.edge_id]
        return found


def _piece(walk: _Walk, num_rows: Optional[int] = None) -> int:
    r"""Returns the number of edges in a piece, a power of two to limit the number of compiled kernels."""
    rows = walk.num_keys if num_rows is None else num_rows
    return max(_PIECE, triton.next_power_of_2(triton.cdiv(walk.num_edges, max(rows, 1))))


def _batch_stride(relation: Tensor) -> int:
    r"""Returns the stride between the relation vectors of two batch rows, or zero if they are shared."""
    return relation.size(1) * relation.size(2) if relation.dim() == 3 else 0


def _block(lanes: int) -> int:
    r"""Returns the smallest power of two of at least :obj:`lanes`, at most the maximum tile width."""
    return min(_LANES, triton.next_power_of_2(lanes))


def _blocks(lanes: int) -> int:
    return triton.cdiv(lanes, _block(lanes))


def _floor(dtype: torch.dtype) -> float:
    r"""Returns the standard deviation of a clamped variance, rounded as in the output, plus one rounding error."""
    return float(torch.tensor(PNA_EPSILON).sqrt().to(dtype)) * (1 + torch.finfo(dtype).eps)

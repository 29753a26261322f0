r"""Relational message passing without a tensor of per-edge features: the operator of Neural Bellman-Ford Networks."""
from __future__ import annotations

from typing import Any, Literal, NamedTuple, Optional, Protocol, Union

import torch
from torch import Tensor
from typing_extensions import Self

from pyg_emu.core.arguments import ids_below, instance, kind_of, on_device, one_of, tensors
from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled

#: How node features and relation vectors are combined: the composition of DistMult, TransE and RotatE, respectively.
Message = Literal['product', 'sum', 'rotate']
#: How the messages of a node are aggregated: to one vector, or to four for :obj:`"pna"`.
Aggregate = Literal['sum', 'mean', 'max', 'min', 'pna']

MESSAGES = ('product', 'sum', 'rotate')
AGGREGATES = ('sum', 'mean', 'max', 'min', 'pna')
#: The order of the statistics of :obj:`"pna"`.
PNA_STATISTICS = ('mean', 'max', 'min', 'std')
#: The lower bound of variances, which keeps the gradient of the standard deviation finite.
PNA_EPSILON = 1e-6


class Edges(Protocol):
    r"""Edges sorted by a key, as in :class:`pyg_emu.data.index.EdgeOrder`."""
    @property
    def ptr(self) -> Tensor:
        r"""The position of the first edge of each key. shape: :obj:`(K + 1,)`, int64."""

    @property
    def source(self) -> Tensor:
        r"""shape: :obj:`(E,)`, int64."""

    @property
    def target(self) -> Tensor:
        r"""shape: :obj:`(E,)`, int64."""

    @property
    def relation(self) -> Tensor:
        r"""shape: :obj:`(E,)`, int64."""

    @property
    def edge_id(self) -> Tensor:
        r"""The column of each edge in :obj:`edge_index`. shape: :obj:`(E,)`, int64."""


class EdgeOrders(NamedTuple):
    r"""The edges of one graph in the orders that the forward and backward passes use.

    Args:
        by_target (EdgeOrder): Edges sorted by target, for the forward pass and the gradient of edge weights.
        by_source (EdgeOrder): Edges sorted by source, for the gradient of node features.
        by_relation (EdgeOrder): Edges sorted by relation, for the gradient of relation vectors.
    """
    by_target: Edges
    by_source: Edges
    by_relation: Edges

    @classmethod
    def of(cls, data: Any) -> Self:
        r"""Returns the cached edge orders of a :class:`~pyg_emu.KGData`, or of any object with an :meth:`edges_by`
        method."""
        return cls(data.edges_by('target'), data.edges_by('source'), data.edges_by('relation'))


class BoundaryRows(NamedTuple):
    r"""A sparse boundary condition with one node per batch row: :obj:`boundary[node[b], b] = value[b]`, and :obj:`fill`
    elsewhere. It replaces a dense tensor of shape :obj:`(V, B, D)`.

    Args:
        node (torch.Tensor): The node of each batch row. shape: :obj:`(B,)`, int64.
        value (torch.Tensor): The boundary condition of that node. shape: :obj:`(B, D)`.
        fill (float, optional): The boundary condition of all other nodes. (default: :obj:`0.0`)
    """
    node: Tensor
    value: Tensor
    fill: float = 0.0

    def dense(self, num_nodes: int) -> Tensor:
        r"""Returns the boundary condition as a dense tensor. shape: :obj:`(num_nodes, B, D)`."""
        size, width = self.value.shape
        out = self.value.new_full((num_nodes, size, width), self.fill)
        return out.index_put((self.node, torch.arange(size, device=self.node.device)), self.value)


#: What :func:`relational_conv` accepts as a boundary condition.
Boundary = Union[Tensor, BoundaryRows]


@uncompiled
def relational_conv(
    x: Tensor,
    relation: Tensor,
    edges: EdgeOrders,
    *,
    message: Message = 'product',
    aggregate: Aggregate = 'sum',
    boundary: Optional[Boundary] = None,
    edge_weight: Optional[Tensor] = None,
    edge_mask: Optional[Tensor] = None,
    backend: Optional[str] = None,
) -> Tensor:
    r"""Computes one message for each edge and aggregates them at the target nodes, the generalized Bellman-Ford
    iteration (equation 4) of the `"Neural Bellman-Ford Networks" <https://arxiv.org/abs/2106.06935>`_ paper:

    .. math::
        \mathbf{h}_v = \bigoplus \big( \{ w_{(u,r,v)} \, (\mathbf{x}_u \otimes \mathbf{w}_r) : (u, r, v) \in \mathcal{E}
        \} \cup \{ \mathbf{b}_v \} \big).

    The queries of a batch are computed together. Each query has its own node features and, optionally, its own relation
    vectors.

    :math:`\otimes` is the component-wise product (:obj:`"product"`), the sum (:obj:`"sum"`) or the complex product of
    rows :math:`[\mathrm{re}, \mathrm{im}]` (:obj:`"rotate"`). :math:`\bigoplus` is a sum, mean, maximum or minimum.
    With :obj:`"pna"`, it gives the four statistics of the `"Principal Neighbourhood Aggregation"
    <https://arxiv.org/abs/2004.05718>`_ paper in one pass over the edges: mean, maximum, minimum and standard deviation
    :math:`\sqrt{\max(\overline{m^2} - \overline{m}^2, 10^{-6})}`.

    The boundary condition :math:`\mathbf{b}_v`, if given, is an additional message of every node. The output of a node
    without messages is zero (:math:`10^{-3}` for the standard deviation). The output is differentiable once with
    respect to :obj:`x`, :obj:`relation`, :obj:`boundary` and :obj:`edge_weight`.

    The fused backends (:obj:`"numba"` and :obj:`"triton"`) create no tensor of per-edge features, neither in the
    forward nor in the backward pass. Their results are bitwise identical in every run and for any number of threads. If
    several messages are equal to the extremum, the boundary condition receives the gradient if it is one of them.
    Otherwise the first such edge in :obj:`edges.by_target` receives it.

    Args:
        x (torch.Tensor): The node features. shape: :obj:`(V, B, D)`.
        relation (torch.Tensor): The relation vectors, shared or separate for each batch row. shape: :obj:`(R, D)` or
            :obj:`(B, R, D)`.
        edges (EdgeOrders): The graph, *e.g.*, :obj:`EdgeOrders.of(data)`.
        message (str, optional): :obj:`"product"`, :obj:`"sum"` or :obj:`"rotate"`. (default: :obj:`"product"`)
        aggregate (str, optional): :obj:`"sum"`, :obj:`"mean"`, :obj:`"max"`, :obj:`"min"` or :obj:`"pna"`.
            (default: :obj:`"sum"`)
        boundary (torch.Tensor or BoundaryRows, optional): The boundary condition, dense or sparse. shape:
            :obj:`(V, B, D)` if dense. (default: :obj:`None`)
        edge_weight (torch.Tensor, optional): The weight of each message, in the order of :obj:`edge_index`. shape:
            :obj:`(E,)`. (default: :obj:`None`)
        edge_mask (torch.Tensor, optional): :obj:`True` for the edges to use, in the order of :obj:`edge_index`. shape:
            :obj:`(E,)`, bool. (default: :obj:`None`, all edges)
        backend (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, D)`, or :obj:`(V, B, 4, D)` for :obj:`"pna"`, in the order of
        :obj:`PNA_STATISTICS`.

    Raises:
        ArgumentError: If a tensor has the wrong shape, dtype or device, or :obj:`message` or :obj:`aggregate` is
            unknown.
        BackendError: If the requested backend is not available.
    """
    tensors(x=x, relation=relation, optional=('edge_weight', 'edge_mask'),
            edge_weight=edge_weight, edge_mask=edge_mask)
    instance('edges', edges, EdgeOrders)
    if not isinstance(boundary, BoundaryRows):
        tensors(optional=('boundary',),
                boundary=boundary)
    _check(x, relation, edges, message, aggregate)
    _check_optional(x, edges.by_target.edge_id.numel(), boundary, edge_weight, edge_mask)
    module = load_backend('relational', x, backend)
    return module.run(x, relation, edges, message, aggregate, boundary, edge_weight, edge_mask)


def message_count(edges: Edges, edge_mask: Optional[Tensor] = None) -> Tensor:
    r"""Returns the number of unmasked edges that end at each node. shape: :obj:`(V,)`, int64.

    Args:
        edges (EdgeOrder): The edges, sorted by target.
        edge_mask (torch.Tensor, optional): :obj:`True` for the edges to use, in the order of :obj:`edge_index`. shape:
            :obj:`(E,)`. (default: :obj:`None`, all edges)
    """
    if edge_mask is None:
        return edges.ptr.diff()
    # Differences of cumulative sums, because selecting edges by a mask would synchronize with the GPU.
    kept = edge_mask[edges.edge_id].cumsum(0)
    return torch.cat([kept.new_zeros(1), kept])[edges.ptr].diff()


def _check(x: Tensor, relation: Tensor, edges: EdgeOrders, message: str, aggregate: str) -> None:
    one_of('message', message, MESSAGES)
    one_of('aggregate', aggregate, AGGREGATES)
    if x.dim() != 3 or not x.is_floating_point():
        raise ArgumentError(f'x: expected a floating-point tensor of shape (V, B, D), got {kind_of(x)}')
    num_nodes, size, width = x.shape
    if message == 'rotate' and width % 2 != 0:
        raise ArgumentError(f"x: expected an even number of components D for message 'rotate', got {width}")
    num_relations = edges.by_relation.ptr.numel() - 1
    if tuple(relation.shape) not in ((num_relations, width), (size, num_relations, width)):
        raise ArgumentError(f'relation: expected shape {(num_relations, width)} or {(size, num_relations, width)} for '
                            f'x of shape {tuple(x.shape)} and {num_relations} edge types, got '
                            f'{tuple(relation.shape)}')
    for name, order in (('by_target', edges.by_target), ('by_source', edges.by_source)):
        if order.ptr.numel() != num_nodes + 1:
            raise ArgumentError(f'edges.{name}: expected {num_nodes} nodes as in x, got {order.ptr.numel() - 1}')
    _check_like('relation', relation, x)
    on_device('edges.by_target', edges.by_target.ptr, x.device, 'x')


def _check_optional(x: Tensor, num_edges: int, boundary: Optional[Boundary], edge_weight: Optional[Tensor],
                    edge_mask: Optional[Tensor]) -> None:
    _, size, width = x.shape
    if isinstance(boundary, BoundaryRows):
        node = boundary.node
        if tuple(node.shape) != (size,) or node.dtype != torch.int64:
            raise ArgumentError(f'boundary.node: expected int64 node ids of shape {(size,)}, got {kind_of(node)}')
        if tuple(boundary.value.shape) != (size, width):
            raise ArgumentError(f'boundary.value: expected shape {(size, width)}, got {tuple(boundary.value.shape)}')
        _check_like('boundary.value', boundary.value, x)
        on_device('boundary.node', node, x.device, 'x')
        ids_below('boundary.node', node, x.size(0), 'nodes of x')
    elif boundary is not None:
        if boundary.shape != x.shape:
            raise ArgumentError(f'boundary: expected shape {tuple(x.shape)} like x, got {tuple(boundary.shape)}')
        _check_like('boundary', boundary, x)
    if edge_weight is not None:
        if tuple(edge_weight.shape) != (num_edges,):
            raise ArgumentError(f'edge_weight: expected shape {(num_edges,)}, got {tuple(edge_weight.shape)}')
        _check_like('edge_weight', edge_weight, x)
    if edge_mask is not None:
        if tuple(edge_mask.shape) != (num_edges,) or edge_mask.dtype != torch.bool:
            raise ArgumentError(f'edge_mask: expected torch.bool of shape {(num_edges,)}, got {kind_of(edge_mask)}')
        on_device('edge_mask', edge_mask, x.device, 'x')


def _check_like(name: str, value: Tensor, x: Tensor) -> None:
    if value.dtype != x.dtype:
        raise ArgumentError(f'{name}: expected {x.dtype} like x, got {value.dtype}')
    on_device(name, value, x.device, 'x')

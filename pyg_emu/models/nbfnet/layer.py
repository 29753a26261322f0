r"""A layer of NBFNet: one generalised Bellman-Ford iteration followed by a linear layer."""
from __future__ import annotations

from typing import Callable, Optional, Union

import torch
from torch import Tensor
from torch_geometric.nn.inits import reset
from torch_geometric.nn.resolver import activation_resolver

from pyg_emu.ops.relational import Aggregate, BoundaryRows, EdgeOrders, Message, message_count, relational_conv
from pyg_emu.ops.row_linear import pna_linear, row_linear

# The factors of each statistic in principal neighbourhood aggregation: 1, s and 1 / s.
_NUM_SCALERS = 3
_NUM_STATISTICS = 4


def degree_scale(edges: EdgeOrders, edge_mask: Optional[Tensor] = None, dtype: torch.dtype = torch.float32) -> Tensor:
    r"""Returns the scaler :math:`s_v = \log(d_v + 1) / \overline{\log(d + 1)}` of principal neighbourhood aggregation
    for the in-degrees :math:`d`. The mean is over all nodes. shape: :obj:`(V,)`.

    Args:
        edges (EdgeOrders): The graph.
        edge_mask (torch.Tensor, optional): :obj:`True` for the edges to use. shape: :obj:`(E,)`. (default: :obj:`None`,
            all edges)
        dtype (torch.dtype, optional): The data type of the result, promoted to at least float32. (default:
            :obj:`torch.float32`)
    """
    dtype = torch.promote_types(dtype, torch.float32)
    degree = message_count(edges.by_target, edge_mask) + 1
    if degree.device.type != 'cpu' or degree.numel() == 0:  # The size of a table would require synchronization.
        logarithm = degree.to(dtype).log()
    else:
        # One logarithm per degree. On the CPU, the last bit of a logarithm may depend on its position in a vector.
        logarithm = torch.arange(int(degree.max()) + 1, device=degree.device).to(dtype).log()[degree]
    mean = logarithm.mean()
    # Without edges, all logarithms are zero, and so are all scalers.
    return logarithm / torch.where(mean > 0, mean, torch.ones_like(mean))


class NBFNetLayer(torch.nn.Module):
    r"""A layer of :class:`~pyg_emu.NBFNet`:

    .. math::
        \mathbf{h}'_v = \mathbf{h}_v + \mathrm{ReLU}\big(\mathrm{norm}\big(\mathbf{W} [\mathbf{h}_v,
        \mathbf{m}_v] + \mathbf{b}\big)\big),

    where :math:`\mathbf{m}` is the result of :func:`~pyg_emu.ops.relational.relational_conv` for :math:`\mathbf{h}`,
    the relation vectors and the boundary condition. With :obj:`"pna"`, it has twelve values per component, four
    statistics times three scalers. They are never materialized, see :func:`~pyg_emu.ops.row_linear.pna_linear`.

    Args:
        in_channels (int): The width of the input.
        out_channels (int): The width of the output.
        num_edge_types (int): The number of relations, including inverse ones.
        query_channels (int): The width of the query.
        message (str): See :func:`~pyg_emu.ops.relational.relational_conv`.
        aggregate (str): See :func:`~pyg_emu.ops.relational.relational_conv`.
        layer_norm (bool): Whether to normalise the output of the linear layer.
        dependent (bool): Whether relation vectors are a linear function of the query. Otherwise, they are a table.
        act (str, callable or None): The activation.
    """
    def __init__(self, in_channels: int, out_channels: int, num_edge_types: int, query_channels: int, message: Message,
                 aggregate: Aggregate, layer_norm: bool, dependent: bool, act: Union[str, Callable, None]) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_edge_types = num_edge_types
        self.message = message
        self.aggregate = aggregate
        self.dependent = dependent
        # Public checkpoints use the same attribute names.
        self.layer_norm = torch.nn.LayerNorm(out_channels) if layer_norm else None
        if dependent:
            self.relation_linear = torch.nn.Linear(query_channels, num_edge_types * in_channels)
        else:
            self.relation = torch.nn.Embedding(num_edge_types, in_channels)
        factor = _NUM_STATISTICS * _NUM_SCALERS if aggregate == 'pna' else 1
        self.linear = torch.nn.Linear((1 + factor) * in_channels, out_channels)
        self.act = None if act is None else activation_resolver(act)

    def reset_parameters(self) -> None:
        r"""Resets all parameters."""
        for module in self.children():
            reset(module)

    def relation_vectors(self, query: Tensor) -> Tensor:
        r"""Returns the relation vectors. shape: :obj:`(B, R, in_channels)`, or :obj:`(R, in_channels)` if they do not
        depend on the query.

        Args:
            query (torch.Tensor): The queries. shape: :obj:`(B, query_channels)`.
        """
        if self.dependent:
            vectors = row_linear(query, self.relation_linear.weight, self.relation_linear.bias)
            return vectors.view(query.size(0), self.num_edge_types, self.in_channels)
        return self.relation.weight

    def propagate(self, x: Tensor, query: Tensor, boundary: BoundaryRows, edges: EdgeOrders,
                  edge_weight: Optional[Tensor] = None, edge_mask: Optional[Tensor] = None) -> Tensor:
        r"""Returns the aggregated messages: :obj:`(V, B, in_channels)`, or :obj:`(V, B, 4, in_channels)` with
        :obj:`"pna"`.
        """
        relation = self.relation_vectors(query)
        # Sums over thousands of messages need at least float32 on the CPU, even if the linear layers use less.
        dtype = x.dtype if x.is_cuda or x.dtype == torch.float64 else torch.float32
        boundary = boundary._replace(value=boundary.value.to(dtype))
        return relational_conv(x.to(dtype), relation.to(dtype), edges, message=self.message, aggregate=self.aggregate,
                               boundary=boundary, edge_weight=None if edge_weight is None else edge_weight.to(dtype),
                               edge_mask=edge_mask)

    def forward(self, x: Tensor, query: Tensor, boundary: BoundaryRows, edges: EdgeOrders,
                scale: Optional[Tensor] = None, edge_weight: Optional[Tensor] = None,
                edge_mask: Optional[Tensor] = None) -> Tensor:
        r"""Computes the output of the layer without the shortcut.

        Args:
            x (torch.Tensor): The input. shape: :obj:`(V, B, in_channels)`.
            query (torch.Tensor): The queries. shape: :obj:`(B, query_channels)`.
            boundary (BoundaryRows): The boundary condition.
            edges (EdgeOrders): The graph.
            scale (torch.Tensor, optional): The :func:`degree_scale` of the graph, required for :obj:`"pna"`.
                shape: :obj:`(V,)`. (default: :obj:`None`)
            edge_weight (torch.Tensor, optional): The weight of each message. shape: :obj:`(E,)`. (default: :obj:`None`)
            edge_mask (torch.Tensor, optional): :obj:`True` for the edges to use. shape: :obj:`(E,)`, bool.
                (default: :obj:`None`, all edges)

        :rtype: :class:`torch.Tensor` of shape :obj:`(V, B, out_channels)`.
        """
        update = self.propagate(x, query, boundary, edges, edge_weight, edge_mask)
        if self.aggregate == 'pna':
            assert scale is not None
            out = self._combine(x, update, scale)
        else:
            out = row_linear(torch.cat([x, update.to(x.dtype)], dim=-1), self.linear.weight, self.linear.bias)
        if self.layer_norm is not None:
            out = self.layer_norm(out)
        return out if self.act is None else self.act(out)

    def _combine(self, x: Tensor, statistics: Tensor, scale: Tensor) -> Tensor:
        weight, (width, out_width) = self.linear.weight, (self.in_channels, self.out_channels)
        # The columns after those of the input: (component * 4 + statistic) * 3 + scaler.
        blocks = weight[:, width:].view(out_width, width, _NUM_STATISTICS, _NUM_SCALERS)
        blocks = blocks.permute(3, 2, 1, 0).reshape(_NUM_SCALERS, _NUM_STATISTICS * width, out_width)
        scalers = torch.stack([torch.ones_like(scale), scale, 1.0 / scale.clamp(min=0.01)], dim=1)
        out = row_linear(x, weight[:, :width], self.linear.bias)
        return out + pna_linear(statistics.flatten(2).to(x.dtype), scalers, blocks)

    def extra_repr(self) -> str:
        return (f'{self.in_channels}, {self.out_channels}, message={self.message!r}, aggregate={self.aggregate!r}, '
                f'dependent={self.dependent}')

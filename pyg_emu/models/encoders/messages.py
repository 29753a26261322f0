r"""The edges along which an encoder passes messages."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.data.graph import KGData
from pyg_emu.data.index import EdgeOrder, ordinary_tensors
from pyg_emu.ops.relational import EdgeOrders


class MessageGraph(NamedTuple):
    r"""Edges in the orders that message passing needs, and the number of edges of each relation at each target.

    The weight of an edge is

    .. math::
        w_{(u, r, v)} = \frac{1}{|\mathcal{N}_v^r|}, \qquad \mathcal{N}_v^r = \{ u : (u, r, v) \in \mathcal{E} \},

    so that the messages of a relation are averaged (equation 1 of the `"Diversified and Adaptive Negative Sampling on
    Knowledge Graphs" <https://arxiv.org/abs/2410.07592>`_ paper). An edge that occurs several times counts as often. If
    facts have weights, the average is weighted by them.

    Args:
        edges (EdgeOrders): The edges.
        count (torch.Tensor): :math:`|\mathcal{N}_v^r|` for each edge, in the order of :obj:`edge_index`: how often the
            weight of the edge is contained in the sum of all weights of :math:`\mathcal{N}_v^r`. shape: :obj:`(E,)`.
    """
    edges: EdgeOrders
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count

    @classmethod
    @ordinary_tensors()
    def build(cls, edge_index: Tensor, edge_type: Tensor, num_nodes: int, num_edge_types: int,
              weight: Optional[Tensor] = None) -> MessageGraph:
        r"""Sorts edges and counts the neighbours of each node.

        Args:
            edge_index (torch.Tensor): Sources and targets. shape: :obj:`(2, E)`, int64.
            edge_type (torch.Tensor): The type of each edge. shape: :obj:`(E,)`, int64.
            num_nodes (int): The number of nodes.
            num_edge_types (int): The number of edge types.
            weight (torch.Tensor, optional): The weights of the edges. shape: :obj:`(E,)`. (default: :obj:`None`)
        """
        orders = EdgeOrders(*(EdgeOrder.build(edge_index, edge_type, key, num_nodes, num_edge_types)
                              for key in ('target', 'source', 'relation')))
        return cls(orders, _count(edge_index, edge_type, num_edge_types, weight))

    @classmethod
    def of(cls, data: KGData) -> MessageGraph:
        r"""Returns the training facts of a graph and their inverses, sorted once.

        Args:
            data (KGData): The graph, with or without inverse relations.
        """
        if data.has_inverse_relations:
            return data.cached('message_graph', lambda: cls(EdgeOrders.of(data), _count_of(data)))
        return data.cached('message_graph', lambda: cls.of(data.with_inverse_relations()))

    @classmethod
    def sample(cls, data: KGData, size: int, generator: torch.Generator | None) -> MessageGraph:
        r"""Returns :obj:`size` random training facts and their inverses, drawn without replacement.

        Args:
            data (KGData): The graph.
            size (int): The number of facts.
            generator (torch.Generator, optional): The random stream.
        """
        facts = data.facts('train')
        chosen = torch.randperm(facts.size(0), generator=generator, device=facts.device)[:size]
        head, relation, tail = facts.t().index_select(1, chosen).unbind(0)
        edge_index = torch.stack([torch.cat([head, tail]), torch.cat([tail, head])])
        edge_type = torch.cat([relation, relation + data.num_relations])
        weight = data.weights('train')
        weight = None if weight is None else weight[chosen].repeat(2)
        return cls.build(edge_index, edge_type, data.num_nodes or 0, 2 * data.num_relations, weight)

    def weight_as(self, x: Tensor) -> Tensor:
        r"""The weights :math:`w` in the data type of :obj:`x`. shape: :obj:`(E,)`."""
        return 1.0 / self.count.to(x.dtype)


def _count_of(data: KGData) -> Tensor:
    assert data.edge_type is not None
    return _count(data.edge_index, data.edge_type, data.num_edge_types, data.edge_weight)


def _count(edge_index: Tensor, edge_type: Tensor, num_edge_types: int, weight: Optional[Tensor]) -> Tensor:
    key = edge_index[1] * num_edge_types + edge_type
    _, place, count = key.unique(return_inverse=True, return_counts=True)
    if weight is None:
        return count[place]
    return torch.zeros_like(count, dtype=weight.dtype).index_add_(0, place, weight)[place] / weight

r"""Subgraphs by entities or edges, with consistent splits and labels."""
from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch_geometric.utils import segment, select

from pyg_emu.core.arguments import ids_below
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.checks import FACT_KEYS, WEIGHT_KEYS, check_data

if TYPE_CHECKING:
    from pyg_emu.data.graph import KGData

Graph = TypeVar('Graph', bound='KGData')


def induced_subgraph(data: Graph, subset: Any) -> Graph:
    r"""Returns the subgraph of :obj:`data` induced by a subset of its entities, with the facts between them in each
    split.

    Args:
        data (KGData): The graph.
        subset (torch.Tensor): The entities to keep, as distinct ids in the order of their new ids, or as a boolean mask
            of shape :obj:`(num_nodes,)`.

    Raises:
        ArgumentError: If :obj:`subset` is neither, or contains an id twice or out of range.
        DataError: If the graph is invalid.
    """
    check_data(data)
    size = data.num_nodes or 0
    kept = _positions('subset', subset, size, data.device, 'number of entities')
    place = torch.full((size, ), -1, dtype=torch.int64, device=data.device)
    place[kept] = torch.arange(kept.numel(), device=data.device)
    out = copy.copy(data)
    for index_key, type_key, weight_key in zip(FACT_KEYS[::2], FACT_KEYS[1::2], WEIGHT_KEYS):
        edge_index, edge_type = data._store.get(index_key), data._store.get(type_key)
        if edge_index is not None and edge_type is not None:
            ends = place[edge_index]
            inside = (ends >= 0).all(0)
            out[index_key], out[type_key] = ends[:, inside], edge_type[inside].long()
            if data._store.get(weight_key) is not None:
                out[weight_key] = data._store[weight_key][inside]
    labels = data.entity_labels
    if labels is not None:
        out.entity_labels = [labels[number] for number in kept.tolist()]
    for key, value in data._store.items():
        # PyG decides by sizes alone, which may coincide with those of facts and labels of relations.
        if key not in (*FACT_KEYS, *WEIGHT_KEYS, 'entity_labels', 'relation_labels', 'num_nodes') and (
                data.is_node_attr(key)):
            out[key] = select(value, kept, dim=data.__cat_dim__(key, value))
    out.num_nodes = kept.numel()
    return out


def edge_subgraph(data: Graph, subset: Any) -> Graph:
    r"""Returns a subgraph of :obj:`data` with a subset of the columns of :obj:`edge_index`, all entities and all
    held-out facts.

    Args:
        data (KGData): The graph.
        subset (torch.Tensor): The edges to keep, as columns or a boolean mask of shape :obj:`(E,)`.

    Raises:
        ArgumentError: If :obj:`subset` is neither, or contains a column twice or out of range.
        DataError: If the graph is invalid.
    """
    check_data(data)
    assert data.edge_type is not None
    kept = _positions('subset', subset, data.edge_type.numel(), data.device, 'number of edges')
    out = copy.copy(data)
    out.edge_index, out.edge_type = data.edge_index[:, kept], data.edge_type[kept]
    if data.edge_weight is not None:
        out.edge_weight = data.edge_weight[kept]
    return out


def sorted_edges(data: Graph, by_source: bool) -> Tensor:
    r"""Returns the columns of :obj:`edge_index` sorted by one end, then by the other, then by relation."""
    check_data(data)
    assert data.edge_type is not None
    order = torch.argsort(data.edge_type, stable=True)
    for end in ((1, 0) if by_source else (0, 1)):
        order = order[torch.argsort(data.edge_index[end][order], stable=True)]
    return order


def merged_edges(data: Graph) -> Graph:
    r"""Returns the graph with each edge of :obj:`edge_index` once, sorted by source. Weights of copies are added."""
    order = sorted_edges(data, by_source=True)
    assert data.edge_type is not None
    edges = torch.cat([data.edge_index, data.edge_type.unsqueeze(0)])[:, order]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = (edges[:, 1:] != edges[:, :-1]).any(0)
    out = edge_subgraph(data, order[first])
    if data.edge_weight is not None:
        ends = torch.cat([first.nonzero().squeeze(1), first.new_tensor([first.numel()], dtype=torch.int64)])
        out.edge_weight = segment(data.edge_weight[order], ends, reduce='sum')
    return out


def _positions(name: str, subset: Any, size: int, device: torch.device, what: str) -> Tensor:
    try:
        given = torch.as_tensor(subset, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise ArgumentError(f'{name}: expected a tensor of ids or a boolean mask, got '
                            f'{type(subset).__name__}') from None
    if given.dtype == torch.bool:
        if given.shape != (size, ):
            raise ArgumentError(f'{name}: expected a mask of shape ({size},), got {tuple(given.shape)}')
        return given.nonzero().squeeze(1)
    if given.dim() != 1 or given.is_floating_point() or given.is_complex():
        raise ArgumentError(f'{name}: expected ids of shape (n,) or a boolean mask, got {given.dtype} of shape '
                            f'{tuple(given.shape)}')
    ids_below(name, given, size, what, wait=True)
    ids, count = given.unique(return_counts=True)
    if bool((count > 1).any()):
        raise ArgumentError(f'{name}: expected distinct ids, got {int(ids[count > 1][0])} more than once')
    return given.long()

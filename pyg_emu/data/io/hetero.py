r"""Heterogeneous graphs of PyG to a :class:`~pyg_emu.KGData`: types of nodes, types of edges as relations."""
from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.checks import check_weights
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.collector import assemble
from pyg_emu.data.io.pyg import LINK_SPLIT, PASS_PARTS, link_split_facts, padded_weights
from pyg_emu.data.io.splits import by_split, split_or_keep
from pyg_emu.data.io.splitting import DEFAULT_FRACTIONS
from pyg_emu.data.io.weights import split_weighted

EdgeType = tuple[str, str, str]

# What PyG's transforms put before the name of a relation for the edges in reverse.
_REVERSE = 'rev_'
# Attributes of edges that hold no fact: the structure itself.
_EDGE_KEYS = ('edge_index', )


def from_hetero(source: Any, fractions: Optional[Sequence[float]] = None, seed: int = 0, *,
                weights: Optional[str] = None) -> KGData:
    r"""Makes a graph from a :class:`~torch_geometric.data.HeteroData`. Each type of edges is a relation, and the nodes
    of all types are the entities, one type after the other.

    .. code-block:: python

        data = load_dataset(hetero, fractions=(0.8, 0.1, 0.1))
        data.entity_labels[:2], data.relation_labels   # ['author/0', 'author/1'], ['writes', 'cites']
        evaluate(model, data, candidates=RelationCandidates.of_types(data))

        train, val, test = RandomLinkSplit(edge_types=[('author', 'writes', 'paper')])(hetero)
        data = load_dataset({'train': train, 'val': val, 'test': test})   # all held-out facts are of 'writes'

    A type of edges in reverse, such as :class:`~torch_geometric.transforms.ToUndirected` adds
    (:obj:`("paper", "rev_writes", "author")`), is left out if it holds the edges of its counterpart:
    :meth:`KGData.with_inverse_relations` adds them again. Entities are labelled by type and number, relations by the
    name of the type of edges, or by all three parts where two have the same name. :obj:`data.node_type` numbers the
    type of each entity, in the order of :obj:`source.node_types`.

    Of the parts of :class:`~torch_geometric.transforms.RandomLinkSplit`, held-out positives are facts of their split,
    and negatives are not read. Types of edges that it did not split are training facts. Other graphs by split hold
    the facts of their own split.

    Args:
        source (torch_geometric.data.HeteroData or dict): The graph, or one for each split.
        fractions (sequence of float, optional): Shares of train, valid and test, of one graph. (default: :obj:`None`)
        seed (int, optional): Seed of that split. (default: :obj:`0`)
        weights (str, optional): The attribute that holds the weights of edges, such as :obj:`"edge_weight"`: finite
            numbers above 0, see :class:`~pyg_emu.KGData`. Edges without it have weight 1.
            (default: :obj:`None`, all facts count equally)

    Raises:
        DataError: If :obj:`source` is something else, there are no edges, an edge ends at a node that is not there,
            edges have attributes, which would be ignored, edges in reverse differ from their counterpart, or parts have
            different nodes or types of edges.
        ArgumentError: If there are no :obj:`fractions` for one graph, or some for several.
    """
    parts: dict[str, HeteroData] = by_split(source) if isinstance(source, Mapping) else {'all': source}
    for part in parts.values():
        if not isinstance(part, HeteroData):
            raise DataError(f'source: expected a HeteroData, got {shown(part)}')
    for kind in source.edge_types if 'all' in parts else ():
        if _held_out(source[kind]):
            raise DataError(f'HeteroData{list(kind)}: it has edge_label or edge_label_index of a part of '
                            f'RandomLinkSplit, which would be ignored; {PASS_PARTS}')
    if 'all' in parts and fractions is None:
        raise ArgumentError(f'HeteroData has no splits; pass fractions=, such as {DEFAULT_FRACTIONS}')
    if weights is not None and not isinstance(weights, str):
        raise ArgumentError(f'weights: expected the name of an attribute of edges, such as edge_weight, got '
                            f'{shown(weights)}')
    first = next(iter(parts.values()))
    sizes = _sizes(first)
    starts = dict(zip(sizes, torch.tensor([0, *sizes.values()]).cumsum(0).tolist()))
    _check_parts(parts, sizes)
    # Of RandomLinkSplit, the edges of a part are those that messages may pass along, and not the facts of its split.
    links = 'all' not in parts and any(_held_out(part[kind]) for part in parts.values() for kind in part.edge_types)
    read = _EDGE_KEYS if weights is None else (*_EDGE_KEYS, weights)
    kept = [_forward_types(part, (*read, *LINK_SPLIT) if links else read) for part in parts.values()][0]
    facts, values = {}, {}
    for split, part in parts.items():
        own = [_facts_of(part, split, kind, sizes) if not links else
               _facts_of_link_split(part, first, split, kind, sizes) for kind in kept]
        given = None if weights is None else _weights(part, kept, weights)
        if given is not None:
            values[split] = torch.cat([padded_weights(value, found, split) if links else value
                                       for value, found in zip(given, own)])
        shifts = [torch.tensor([starts[kind[0]], relation, starts[kind[2]]]) for relation, kind in enumerate(kept)]
        facts[split] = torch.cat([found + shift for found, shift in zip(own, shifts)])
    names = [kind[1] for kind in kept]
    relations = [name if names.count(name) == 1 else '__'.join(kind) for name, kind in zip(names, kept)]
    entities = [f'{name}/{number}' for name, size in sizes.items() for number in range(size)]
    if weights is None:
        out = assemble(split_or_keep(facts, fractions, seed), len(entities), len(kept), entities, relations)
    elif 'all' in facts:
        assert fractions is not None
        split_facts, shares = split_weighted(facts['all'].numpy(), values['all'].numpy(), fractions, seed)
        out = assemble(split_facts, len(entities), len(kept), entities, relations, weights=shares)
    else:
        out = assemble(split_or_keep(facts, fractions, seed), len(entities), len(kept), entities, relations,
                       weights=values)
    out.node_type = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor([*sizes.values()]))
    return out


def _check_parts(parts: Mapping[str, HeteroData], sizes: dict[str, int]) -> None:
    r"""Refuses parts with other nodes or types of edges than the first one."""
    (name, first), *others = parts.items()
    for split, part in others:
        if part.edge_types != first.edge_types:
            raise DataError(f'HeteroData: expected the same types of edges in all splits, got {first.edge_types} in '
                            f'{name} and {part.edge_types} in {split}')
        for kind, size in sizes.items():
            found = part[kind].num_nodes if kind in part.node_types else None
            if found is not None and found != size:
                raise DataError(f'HeteroData: expected the same nodes in all splits, got {size} of type {kind!r} in '
                                f'{name} and {found} in {split}')


def _held_out(edges: Any) -> bool:
    r"""Whether RandomLinkSplit has split edges of one type."""
    return any(edges.get(key) is not None for key in LINK_SPLIT)


def _facts_of(part: HeteroData, split: str, kind: EdgeType, sizes: dict[str, int]) -> Tensor:
    r"""The edges of one type as facts of relation 0, with the numbers of nodes of their types. shape: :obj:`(E, 3)`."""
    head, tail = _edges(part, kind, sizes)
    return torch.stack([head, torch.zeros_like(head), tail], 1)


def _facts_of_link_split(part: HeteroData, first: HeteroData, split: str, kind: EdgeType, sizes: dict[str, int]
                         ) -> Tensor:
    r"""The facts of a split as :func:`_facts_of` returns them."""
    edges = _facts_of(part, split, kind, sizes)
    if _held_out(part[kind]):
        return link_split_facts(part[kind], split, edges)
    if not torch.equal(part[kind].edge_index, first[kind].edge_index):
        raise DataError(f'HeteroData{list(kind)}: its edges differ between the splits, and RandomLinkSplit did not '
                        'split them (edge_label_index is missing); give the same edges in all splits')
    return edges if split == 'train' else edges[:0]


def _sizes(source: HeteroData) -> dict[str, int]:
    r"""The number of nodes of each type. Warns of their attributes, which no model reads."""
    unread = [f'{name}.{key}' for name in source.node_types for key in source[name].keys() if key != 'num_nodes']
    if unread:
        warn(f'HeteroData: attributes of nodes that are not read: {", ".join(unread)}', DataWarning)
    ends = {name for kind in source.edge_types for name in (kind[0], kind[2])}
    sizes = {}
    for name in dict.fromkeys((*source.node_types, *sorted(ends))):
        size = source[name].num_nodes if name in source.node_types else None
        if size is None:
            raise DataError(f'HeteroData: the number of nodes of type {name!r} is not known; set '
                            f'data[{name!r}].num_nodes')
        sizes[name] = int(size)
    return sizes


def _weights(source: HeteroData, kinds: Sequence[EdgeType], key: str) -> list[Tensor]:
    r"""The weights of the edges of each type."""
    given = {kind: source[kind].get(key) for kind in kinds}
    if all(value is None for value in given.values()):
        raise DataError(f'HeteroData: no type of edges has {key} (weights={key!r}); its attributes are '
                        f'{", ".join(sorted({name for kind in kinds for name in source[kind].keys()}))}')
    found = []
    for kind, value in given.items():
        edges = source[kind].edge_index
        if value is None:
            value = torch.ones(edges.size(1))
        elif isinstance(value, Tensor) and value.dim() == 2 and value.size(1) == 1:
            value = value.squeeze(1)
        check_weights(f'HeteroData{list(kind)}.{key}', value, edges.size(1), 'one for each edge', edges.device)
        found.append(value.float())
    return found


def _forward_types(source: HeteroData, read: Sequence[str]) -> list[EdgeType]:
    r"""The types of edges without those in reverse. Attributes of edges that are not :obj:`read` are refused."""
    kinds: list[EdgeType] = source.edge_types
    kept = []
    for kind in kinds:
        strange = [key for key in source[kind].keys() if key not in read]
        if strange:
            raise DataError(f'HeteroData{list(kind)}: attributes of edges that would be ignored: {", ".join(strange)}; '
                            'all facts count alike unless weights= names their weights; remove them')
        head, name, tail = kind
        forward = (tail, name.removeprefix(_REVERSE), head)
        if not name.startswith(_REVERSE) or forward not in kinds:
            kept.append(kind)
        elif not _is_reverse(source[kind].get('edge_index'), source[forward].get('edge_index')):
            raise DataError(f'HeteroData{list(kind)}: its edges are not those of {list(forward)} in reverse, as its '
                            'name says; rename it if it is a relation of its own')
    if not kept:
        raise DataError('HeteroData: expected at least one type of edges, got none')
    return kept


def _is_reverse(edges: Any, forward: Any) -> bool:
    if not isinstance(edges, Tensor) or not isinstance(forward, Tensor) or edges.shape != forward.shape:
        return False
    forward = forward.flip(0)
    width = int(torch.cat([edges, forward]).max()) + 1 if edges.numel() > 0 else 1
    left, right = ((value[0].long() * width + value[1].long()).sort().values for value in (edges, forward))
    return torch.equal(left, right)


def _edges(source: HeteroData, kind: EdgeType, sizes: dict[str, int]) -> tuple[Tensor, Tensor]:
    edges = source[kind].get('edge_index')
    place = f'HeteroData{list(kind)}.edge_index'
    if not isinstance(edges, Tensor) or edges.dim() != 2 or edges.size(0) != 2 or edges.dtype not in (
            torch.int64, torch.int32, torch.int16):
        found = f'{edges.dtype} of shape {tuple(edges.shape)}' if isinstance(edges, Tensor) else type(edges).__name__
        raise DataError(f'{place}: expected integers of shape (2, E), got {found}')
    for row, name in ((0, kind[0]), (1, kind[2])):
        wrong = ((edges[row] < 0) | (edges[row] >= sizes[name])).nonzero()
        if wrong.numel() > 0:
            column = int(wrong[0])
            raise DataError(f'{place}, column {column}: node {int(edges[row, column])} of type {name!r}, which has '
                            f'{sizes[name]} nodes')
    return edges[0].long(), edges[1].long()

r"""Graphs whose labels get the ids that they have elsewhere: known labels keep their ids, new ones come after them."""
from __future__ import annotations

import copy
from typing import Any, NamedTuple, Optional, Sequence, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.checks import FACT_KEYS, WEIGHT_KEYS, check_data
from pyg_emu.data.graph import KGData

#: Attributes that are neither facts nor values of entities.
_OTHERS = ('entity_labels', 'relation_labels', 'num_nodes', 'num_relations', 'has_inverse_relations')


class Matched(NamedTuple):
    r"""How the entities or the relations of a graph go with known ones.

    Args:
        labels (list of str, optional): The known labels, followed by the new ones of the graph; :obj:`None` if the ids
            serve as labels.
        size (int): The number of known and new ones.
        place (torch.Tensor): The new id of each id of the graph, int64.
        new (list): The labels, or ids, that only the graph has.
        absent (list): The labels, or ids, that the graph does not have.
    """
    labels: Optional[list[str]]
    size: int
    place: Tensor
    new: list[Any]
    absent: list[Any]


class Aligned(NamedTuple):
    r"""The result of :func:`aligned`.

    Args:
        data (KGData): The graph with known ids.
        entities (Matched): Where its entities went.
        relations (Matched): Where its relations went.
    """
    data: KGData
    entities: Matched
    relations: Matched


def aligned(data: KGData, entities: Union[Sequence[str], int], relations: Union[Sequence[str], int]) -> Aligned:
    r"""Returns a graph with known ids. Known entities and relations keep their ids, also those that the graph does not
    have. New ones get the ids after them, in the order of their ids in the graph. The order of facts stays.

    Args:
        data (KGData): The graph.
        entities (list of str or int): The known labels in the order of their ids; or their number, if ids serve as
            labels.
        relations (list of str or int): Likewise.

    Raises:
        ArgumentError: If one side has labels and the other one has none.
        DataError: If the graph is invalid, or has values for its entities and none for a known entity that it does not
            have.
    """
    check_data(data)
    nodes = _matched('entity', entities, data.entity_labels, data.num_nodes or 0)
    types = _matched('relation', relations, data.relation_labels, data.num_relations)
    values = [key for key in data._store.keys()
              if key not in (*FACT_KEYS, *WEIGHT_KEYS, *_OTHERS) and data.is_node_attr(key)]
    if values and nodes.absent:
        raise DataError(f'data.{values[0]}: expected a value for each entity, got none for {nodes.absent[0]!r}, which '
                        f'the graph does not have ({len(nodes.absent)} such entities); remove {values[0]}')
    out = copy.copy(data)
    place, kind = nodes.place.to(data.device), types.place.to(data.device)
    if data.has_inverse_relations:
        kind = torch.cat([kind, kind + types.size])
    for index_key, type_key in zip(FACT_KEYS[::2], FACT_KEYS[1::2]):
        edge_index, edge_type = data._store.get(index_key), data._store.get(type_key)
        if edge_index is not None and edge_type is not None:
            out[index_key], out[type_key] = place[edge_index], kind[edge_type]
    for key in values:
        value = data[key]
        if isinstance(value, Tensor):
            out[key] = torch.empty_like(value).index_copy_(0, place.to(value.device), value)
        else:
            order = torch.empty_like(nodes.place).index_copy_(0, nodes.place, torch.arange(nodes.size))
            out[key] = [value[number] for number in order.tolist()]
    out.num_nodes, out.num_relations = nodes.size, types.size
    out.entity_labels, out.relation_labels = nodes.labels, types.labels
    return Aligned(out, nodes, types)


def _matched(kind: str, known: Union[Sequence[str], int], labels: Optional[Sequence[str]], size: int) -> Matched:
    if isinstance(known, int) != (labels is None):
        given, expected = ('none', 'labels') if labels is None else ('labels', 'none')
        raise ArgumentError(f'data.{kind}_labels: expected {expected}, as the {kind} ids that are to be kept have, got '
                            f'{given}; both need labels, or ids serve as such on both sides')
    if isinstance(known, int):
        return Matched(None, max(size, known), torch.arange(size), [*range(known, size)], [*range(size, known)])
    assert labels is not None
    index, own = pd.Index(list(known), dtype=object), pd.Index(list(labels), dtype=object)
    place = index.get_indexer(own)
    is_new = place < 0
    place[is_new] = len(index) + np.arange(int(is_new.sum()))
    there = np.zeros(len(index) + int(is_new.sum()), dtype=bool)
    there[place] = True
    new = own[is_new].tolist()
    return Matched([*known, *new], len(there), torch.from_numpy(place.astype(np.int64)), new,
                   index[~there[:len(index)]].tolist())

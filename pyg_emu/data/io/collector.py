r"""Labelled facts, split by split, to a checked :class:`~pyg_emu.KGData`."""
from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.splitting import split_facts
from pyg_emu.data.io.vocabulary import Vocabulary
from pyg_emu.data.io.weights import split_weighted


class Edges(NamedTuple):
    r"""Facts as a graph holds them.

    Args:
        edge_index (torch.Tensor): Heads and tails. shape: :obj:`(2, F)`, int64.
        edge_type (torch.Tensor): Relations. shape: :obj:`(F,)`, int64.
    """
    edge_index: Tensor
    edge_type: Tensor


def assemble(
    facts: Mapping[str, Union[np.ndarray, Tensor, Edges]],
    num_nodes: int,
    num_relations: int,
    entity_labels: Optional[list[str]] = None,
    relation_labels: Optional[list[str]] = None,
    *,
    weights: Optional[Mapping[str, Union[np.ndarray, Tensor]]] = None,
) -> KGData:
    r"""The checked graph with these facts, of shape :obj:`(F, 3)` or as :class:`Edges`, and their weights, by split."""
    edges: dict[str, Any] = {}
    for split, part in facts.items():
        if not isinstance(part, Edges):
            part = torch.as_tensor(part)
            part = Edges(part[:, [0, 2]].t().contiguous(), part[:, 1].contiguous())
        prefix = '' if split == 'train' else f'{split}_'
        edges[f'{prefix}edge_index'], edges[f'{prefix}edge_type'] = part
    for split, values in (weights or {}).items():
        edges['edge_weight' if split == 'train' else f'{split}_edge_weight'] = torch.as_tensor(values)
    data = KGData(num_nodes=num_nodes, num_relations=num_relations, entity_labels=entity_labels,
                  relation_labels=relation_labels, **edges)
    data.validate()
    return data


class Collector:
    r"""Gathers labelled facts, split by split, and makes a graph of them.

    Args:
        vocabulary (KGData, optional): A graph whose relations are the only ones allowed, and keep their ids.
            (default: the relations of :obj:`entities`)
        entities (KGData, optional): A graph whose entities keep their ids; other entities get the ids after them.
            (default: :obj:`None`)

    Raises:
        ArgumentError: If one of the graphs is not a :class:`~pyg_emu.KGData` with labels.
    """
    def __init__(self, vocabulary: Optional[KGData] = None, entities: Optional[KGData] = None) -> None:
        self._known = labels_of('entities', entities, 'entity')
        vocabulary_name = 'entities' if vocabulary is None else 'vocabulary'
        relations = labels_of(vocabulary_name, entities if vocabulary is None else vocabulary, 'relation')
        self._entities = Vocabulary(self._known, closed=False)
        self._relations = Vocabulary(relations, closed=relations is not None)
        self._facts: dict[str, list[tuple[np.ndarray, ...]]] = {}
        self._weights: dict[str, list[np.ndarray]] = {}

    @property
    def relation_labels(self) -> list[str]:
        r"""The relations so far, or the only ones allowed."""
        return self._relations.finish()[0]

    def add(self, split: str, columns: Sequence[np.ndarray]) -> Optional[int]:
        r"""Adds heads, relations and tails; returns the first row whose relation is not allowed, if there is one."""
        relations, = self._relations.add(columns[1])
        if self._relations.closed and (relations < 0).any():
            return int((relations < 0).argmax())
        heads, tails = self._entities.add(columns[0], columns[2])
        self._facts.setdefault(split, []).append((heads, relations, tails))
        return None

    def add_weights(self, split: str, weights: np.ndarray) -> None:
        r"""Adds the weights of facts that were added, in the same order."""
        self._weights.setdefault(split, []).append(weights)

    def count(self, split: str) -> int:
        r"""Number of facts of a split so far."""
        return sum(len(heads) for heads, _, _ in self._facts.get(split, []))

    def finish(self, fractions: Optional[Sequence[float]] = None, seed: int = 0, in_order: bool = False) -> KGData:
        r"""The checked graph; facts added as :obj:`"all"` are split by :obj:`fractions`.

        Args:
            fractions (sequence of float, optional): Shares of train, valid and test. (default: :obj:`None`)
            seed (int, optional): Seed of that split. (default: :obj:`0`)
            in_order (bool, optional): Whether to sort the facts by their ids first, for sources without an order of
                their own. (default: :obj:`False`)
        """
        entity_labels, entity_ids = self._entities.finish()
        relation_labels, relation_ids = self._relations.finish()
        edges = {split: self._edges(split, entity_ids, relation_ids) for split in list(self._facts)}
        weights = {split: np.concatenate(parts) for split, parts in self._weights.items()}
        for split in edges if in_order else ():
            (heads, tails), relations = edges[split].edge_index.numpy(), edges[split].edge_type.numpy()
            keys = (tails, relations, heads)
            order = np.lexsort((weights[split], *keys) if weights else keys)
            edges[split] = Edges(edges[split].edge_index[:, order], edges[split].edge_type[order])
            weights = {**weights, split: weights[split][order]} if weights else weights
        if self._known is not None:
            warn_of_new_entities(self._known, entity_labels)
        sizes = len(entity_labels), len(relation_labels)
        if fractions is None:
            return assemble(edges, *sizes, entity_labels, relation_labels, weights=weights)
        ends, kinds = edges.pop('all')
        facts = torch.stack([ends[0], kinds, ends[1]], dim=1).numpy()
        if weights:
            parts, weights = split_weighted(facts, weights['all'], fractions, seed)
        else:
            parts = split_facts(facts, fractions, seed)
        return assemble(parts, *sizes, entity_labels, relation_labels, weights=weights)

    def _edges(self, split: str, entity_ids: np.ndarray, relation_ids: np.ndarray) -> Edges:
        r"""The facts of a split with final ids. Provisional ones are freed piece by piece."""
        stop = self.count(split)
        edges = Edges(torch.empty(2, stop, dtype=torch.int64), torch.empty(stop, dtype=torch.int64))
        (heads, tails), relations = edges.edge_index.numpy(), edges.edge_type.numpy()
        parts = self._facts.pop(split)
        while parts:
            head, relation, tail = parts.pop()
            own = slice(stop - len(head), stop)
            heads[own], relations[own], tails[own] = entity_ids[head], relation_ids[relation], entity_ids[tail]
            stop = own.start
        return edges


def warn_of_new_entities(known: Sequence[str], labels: Sequence[str]) -> None:
    r"""Warns of entities after those of the graph that is given as :obj:`entities`."""
    new = labels[len(known):]
    if new:
        warn(f'{len(new)} of the {len(labels)} entities are not among those of entities= and get the ids from '
             f'{len(known)} on: {", ".join(map(repr, new[:3]))}{", ..." if len(new) > 3 else ""}', DataWarning)


def labels_of(name: str, data: Any, kind: str) -> Optional[list[str]]:
    r"""The labels of a graph that is given as an argument.

    Raises:
        ArgumentError: If it is no :class:`~pyg_emu.KGData`, or has no labels.
    """
    if data is None:
        return None
    labels = getattr(data, f'{kind}_labels', None)
    if not isinstance(data, KGData) or labels is None:
        what = f'its {kind}_labels are None' if isinstance(data, KGData) else f'got {type(data).__name__}'
        raise ArgumentError(f'{name}: expected a KGData with {kind} labels, but {what}')
    return list(labels)

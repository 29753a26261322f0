r"""A knowledge graph as a PyG :class:`~torch_geometric.data.Data` with facts, splits, labels and cached indices."""
from __future__ import annotations

import copy
import html
from numbers import Integral
from typing import Any, Callable, Literal, Optional, TypeVar, Union

import pandas as pd
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage
from typing_extensions import Self

from pyg_emu.core.arguments import boolean, one_of, shown
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.core.warn import warn
from pyg_emu.data.checks import FACT_KEYS, WEIGHT_KEYS, check_data, refuse_edge_attributes
from pyg_emu.data.index import EdgeOrder, FactIndex, Stamp, ordinary_tensors
from pyg_emu.data.labels import is_integer, label_of, spelled, unknown_label
from pyg_emu.data.report import DataReport, make_report, make_warnings
from pyg_emu.data.selection import edge_subgraph, induced_subgraph, merged_edges, sorted_edges

T = TypeVar('T')
Split = Literal['train', 'valid', 'test', 'all']
Device = Union[int, str, torch.device]

#: The splits whose facts a :class:`KGData` can hold.
SPLITS: tuple[Split, ...] = ('train', 'valid', 'test')

#: Facts that a notebook shows.
_SHOWN_FACTS = 5
_SIZE_KEYS = ('num_nodes', 'num_relations', 'has_inverse_relations')
#: The prefix of what :meth:`KGData.cached` holds for others.
_FOREIGN = 'cached/'
_LABEL_KEYS = ('entity_labels', 'relation_labels')
_DEFAULTS: dict[str, Any] = {**dict.fromkeys((*FACT_KEYS, *WEIGHT_KEYS, *_LABEL_KEYS)), 'has_inverse_relations': False}


class KGData(Data):
    r"""A knowledge graph with its splits.

    The training facts are :obj:`edge_index` and :obj:`edge_type`. The object can be copied, moved, saved and loaded
    like any :class:`~torch_geometric.data.Data`. Its indices (:meth:`facts`, :meth:`fact_index`, :meth:`edges_by`) are
    built on first use on the device of the data, move with :meth:`to`, and are shared by all consumers. They are
    dropped if facts are assigned or modified in place, and are not saved. Call :meth:`drop_indices` after modifications
    that PyTorch does not track, such as those through :obj:`tensor.data` or a NumPy view.

    .. code-block:: python

        data = KGData(edge_index=torch.tensor([[0, 1], [1, 2]]), edge_type=torch.tensor([0, 0]), num_nodes=3)
        data.fact_index('train').contains(torch.tensor(0), torch.tensor(0), torch.tensor(1))  # tensor(True)

    Use :class:`~pyg_emu.TripletLoader` to create a :class:`~pyg_emu.Batch` of facts.

    Args:
        edge_index (torch.Tensor, optional): The heads and tails of the training facts. shape: :obj:`(2, E)`, int64.
            (Without inverse relations, :obj:`edge_index` and :obj:`edge_type` of a split may both be int32.)
        edge_type (torch.Tensor, optional): The relations of the training facts. shape: :obj:`(E,)`, int64.
            (default: relation 0 for all facts, if no split has relations)
        num_nodes (int, optional): The number of entities. (default: the number of entity labels, or else the largest id
            in any split plus one)
        num_relations (int, optional): The number of relations, without inverse ones. (default: inferred like
            :obj:`num_nodes`)
        valid_edge_index (torch.Tensor, optional): The heads and tails of the validation facts. shape: :obj:`(2, F)`.
        valid_edge_type (torch.Tensor, optional): The relations of the validation facts. shape: :obj:`(F,)`.
        test_edge_index (torch.Tensor, optional): The heads and tails of the test facts. shape: :obj:`(2, F)`.
        test_edge_type (torch.Tensor, optional): The relations of the test facts. shape: :obj:`(F,)`.
        edge_weight (torch.Tensor, optional): The weights of the training facts in losses and in messages of
            :class:`~pyg_emu.NBFNet` and :class:`~pyg_emu.RGCN`: finite, positive floating-point numbers. A fact of
            weight 2 counts like two copies of the fact. shape: :obj:`(E,)`. (default: :obj:`None`, all facts count
            equally)
        valid_edge_weight (torch.Tensor, optional): The weights of the validation facts. Rankings do not use weights.
            shape: :obj:`(F,)`. (default: :obj:`None`)
        test_edge_weight (torch.Tensor, optional): The weights of the test facts. shape: :obj:`(F,)`.
            (default: :obj:`None`)
        entity_labels (list of str, optional): The label of each entity. Integers become strings, also if they are
            assigned later.
        relation_labels (list of str, optional): The label of each relation, without inverse ones.
        has_inverse_relations (bool, optional): Whether :obj:`edge_index` also contains the reverse of each fact, with
            type :math:`r + R`. (default: :obj:`False`)
        **kwargs (optional): Additional attributes of entities or of the graph, as in
            :class:`~torch_geometric.data.Data`.

    Raises:
        DataError: If another attribute describes edges, such as :obj:`edge_attr`, because it would be ignored.
    """
    edge_type: Optional[Tensor]
    edge_weight: Optional[Tensor]
    valid_edge_weight: Optional[Tensor]
    test_edge_weight: Optional[Tensor]
    valid_edge_index: Optional[Tensor]
    valid_edge_type: Optional[Tensor]
    test_edge_index: Optional[Tensor]
    test_edge_type: Optional[Tensor]
    entity_labels: Optional[list[str]]
    relation_labels: Optional[list[str]]
    num_relations: int
    has_inverse_relations: bool

    def __init__(
        self,
        edge_index: Optional[Tensor] = None,
        edge_type: Optional[Tensor] = None,
        num_nodes: Optional[int] = None,
        num_relations: Optional[int] = None,
        *,
        valid_edge_index: Optional[Tensor] = None,
        valid_edge_type: Optional[Tensor] = None,
        test_edge_index: Optional[Tensor] = None,
        test_edge_type: Optional[Tensor] = None,
        edge_weight: Optional[Tensor] = None,
        valid_edge_weight: Optional[Tensor] = None,
        test_edge_weight: Optional[Tensor] = None,
        entity_labels: Optional[list[str]] = None,
        relation_labels: Optional[list[str]] = None,
        has_inverse_relations: bool = False,
        **kwargs: Any,
    ) -> None:
        self.__dict__.update({'_cache': {}, '_stamp': None, '_label_ids': {}})
        refuse_edge_attributes(kwargs, edge_index, num_nodes)
        weights = zip(WEIGHT_KEYS, (edge_weight, valid_edge_weight, test_edge_weight))
        super().__init__(edge_index=edge_index, edge_type=edge_type, valid_edge_index=valid_edge_index,
                         valid_edge_type=valid_edge_type, test_edge_index=test_edge_index,
                         test_edge_type=test_edge_type, entity_labels=entity_labels, relation_labels=relation_labels,
                         **{key: value for key, value in weights if value is not None}, **kwargs)
        if boolean('has_inverse_relations', has_inverse_relations):
            self.has_inverse_relations = True
        elif ((num_relations is None or (isinstance(num_relations, Integral) and num_relations == 1))
                and (relation_labels is None or len(relation_labels) == 1)):
            self._fill_single_relation()
        if num_nodes is None:
            num_nodes = self._largest('edge_index') if entity_labels is None else len(entity_labels)
        if num_relations is None:
            num_relations = self._largest('edge_type') if relation_labels is None else len(relation_labels)
            if relation_labels is None and has_inverse_relations and num_relations is not None:
                num_relations = (num_relations + 1) // 2
        # PyG's own functions create empty objects and fill them later, so there is nothing to infer from.
        if num_nodes is not None:
            self.num_nodes = num_nodes
        if num_relations is not None:
            self.num_relations = num_relations

    def __setattr__(self, key: str, value: Any) -> None:
        super().__setattr__(key, _normalised(key, value))

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, _normalised(key, value))

    def _fill_single_relation(self) -> None:
        r"""Assigns relation 0 to all edges if no split has relations."""
        if any(self._store.get(key) is not None for key in FACT_KEYS[1::2]):
            return
        for index_key, type_key in zip(FACT_KEYS[::2], FACT_KEYS[1::2]):
            edge_index = self._store.get(index_key)
            if isinstance(edge_index, Tensor) and edge_index.dim() == 2:
                self[type_key] = edge_index.new_zeros(edge_index.size(1))

    def _largest(self, suffix: str) -> Optional[int]:
        values = [value for key, value in self._store.items() if key in FACT_KEYS and key.endswith(suffix)]
        values = [value for value in values if isinstance(value, Tensor) and value.numel() > 0]
        return max((int(value.max()) + 1 for value in values), default=None)

    def __getattr__(self, key: str) -> Any:
        if key in _DEFAULTS and key not in self.__dict__['_store']:
            return _DEFAULTS[key]
        return super().__getattr__(key)

    def __repr__(self) -> str:
        parts = [f'{key}={self._store.get(key)}' for key in ('num_nodes', 'num_relations')]
        parts += [f'{split}={self.num_facts(split)}' for split in SPLITS if self._edges(split)[1] is not None]
        parts += ['inverse relations'] if self.has_inverse_relations else []
        parts += ['weights'] if self.edge_weight is not None else []
        parts += ['labels'] if self.entity_labels is not None else []
        return f'{self.__class__.__name__}({", ".join(parts)})'

    def _repr_html_(self) -> str:
        r"""The HTML representation for notebooks: sizes, and the first facts of the first split that has some."""
        rows = {split: [self.num_facts(split)] for split in SPLITS if self._edges(split)[1] is not None}
        parts = [f'<p>{html.escape(repr(self))}</p>', pd.DataFrame(rows, index=['facts']).to_html() if rows else '']
        first = next((split for split in rows if self.num_facts(split) > 0), None)
        index, kind = (None, None) if first is None else self._edges(first)
        if first is not None and index is not None and kind is not None and index.dim() == 2:
            number = min(_SHOWN_FACTS, self.num_facts(first))  # inverse edges follow the facts
            facts = torch.stack([index[0, :number], kind[:number], index[1, :number]], dim=1).tolist()
            names = (self.entity_labels, self.relation_labels, self.entity_labels)
            labelled = [[each if labels is None or not 0 <= each < len(labels) else labels[each]
                         for each, labels in zip(fact, names)] for fact in facts]
            frame = pd.DataFrame(labelled, columns=['head', 'relation', 'tail'])
            parts.append(f'<p>the first facts of {first}</p>{frame.to_html(index=False)}')
        return '\n'.join(part for part in parts if part)

    # Copies and moves ########################################################

    def __deepcopy__(self, memo: Optional[dict[int, Any]]) -> Self:
        out = self.__class__.__new__(self.__class__)
        for key, value in self.__getstate__().items():
            out.__dict__[key] = copy.deepcopy(value, memo)
        out._store._parent = out
        return out

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, '_cache': {}, '_stamp': None, '_label_ids': {}}

    def apply(self, func: Callable, *args: str) -> Self:
        # By default, `Data` calls `func` on each of possibly millions of labels.
        return super().apply(func, *(args or self._tensor_keys()))

    def apply_(self, func: Callable, *args: str) -> Self:
        return super().apply_(func, *(args or self._tensor_keys()))

    def _tensor_keys(self) -> list[str]:
        return [key for key in self._store.keys() if key not in _LABEL_KEYS]

    def to(self, device: Device, *args: str, non_blocking: bool = False) -> Self:
        cache = self._valid_cache() if len(args) == 0 else {}
        with ordinary_tensors():
            super().to(device, *args, non_blocking=non_blocking)
            if cache:
                moved = {key: value.to(device, non_blocking=non_blocking) for key, value in cache.items()
                         if not key.startswith(_FOREIGN)}
                self.__dict__.update(_cache=moved, _stamp=self._current_stamp())
        return self

    def cpu(self, *args: str) -> Self:
        return self.to('cpu', *args)

    def cuda(self, device: Optional[Union[int, str]] = None, *args: str, non_blocking: bool = False) -> Self:
        return self.to('cuda' if device is None else device, *args, non_blocking=non_blocking)

    # Facts and their indices #################################################

    @property
    def device(self) -> torch.device:
        r"""The device of the facts."""
        for key in ('edge_index', 'valid_edge_index', 'test_edge_index'):
            if key in self._store:
                return self._store[key].device
        return torch.device('cpu')

    @property
    def num_edge_types(self) -> int:
        r"""The number of edge types: :math:`R`, or :math:`2R` with inverse relations."""
        return 2 * self.num_relations if self.has_inverse_relations else self.num_relations

    def _edges(self, split: str) -> tuple[Optional[Tensor], Optional[Tensor]]:
        one_of('split', split, (*SPLITS, 'all'))
        prefix = '' if split == 'train' else f'{split}_'
        return self._store.get(f'{prefix}edge_index'), self._store.get(f'{prefix}edge_type')

    def num_facts(self, split: Split = 'train') -> int:
        r"""Returns the number of facts of a split, without inverse edges."""
        one_of('split', split, (*SPLITS, 'all'))
        if split == 'all':
            return sum(self.num_facts(part) for part in SPLITS)
        edge_type = self._edges(split)[1]
        if edge_type is None:
            return 0
        return edge_type.numel() // 2 if split == 'train' and self.has_inverse_relations else edge_type.numel()

    def facts(self, split: Split = 'train') -> Tensor:
        r"""Returns the facts of a split with columns head, relation and tail, without inverse edges. Do not modify
        them.

        Each column is contiguous in memory.

        Args:
            split (str, optional): :obj:`"train"`, :obj:`"valid"`, :obj:`"test"`, or :obj:`"all"` for the three splits
                in this order. (default: :obj:`"train"`)

        :rtype: :class:`torch.Tensor` of shape :obj:`(F, 3)`. :obj:`F` is zero if the data does not have the split.

        Raises:
            ArgumentError: If the split is unknown.
        """
        one_of('split', split, (*SPLITS, 'all'))
        return self._cached(f'facts/{split}', lambda: self._build_facts(split)).t()

    def _build_facts(self, split: Split) -> Tensor:
        if split == 'train' and self.has_inverse_relations:
            edge_index, edge_type = self._edges(split)
            if edge_index is not None and edge_type is not None:
                facts = torch.stack([edge_index[0], edge_type, edge_index[1]])
                return facts[:, edge_type < self.num_relations].contiguous()
        parts = self._columns_of_all() if split == 'all' else [self.columns(split)]
        return torch.stack([torch.cat(column).long() if len(column) > 1 else column[0].long()
                            for column in zip(*parts)])

    def columns(self, split: Split = 'train') -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns the heads, relations and tails of a split, without inverse edges. Do not modify them.

        Unlike :meth:`facts`, this makes no copy of the facts of a split, unless there are inverse edges among them. The
        data type is that of :obj:`edge_index`: int64, or int32 in data of a fact store.

        Args:
            split (str, optional): As in :meth:`facts`. (default: :obj:`"train"`)

        :rtype: three :class:`torch.Tensor` of shape :obj:`(F,)`.

        Raises:
            ArgumentError: If the split is unknown.
        """
        one_of('split', split, (*SPLITS, 'all'))
        parts = self._columns_of_all() if split == 'all' else []
        if len(parts) == 1:
            return parts[0]
        if len(parts) > 1 or (split == 'train' and self.has_inverse_relations):
            head, relation, tail = self.facts(split).unbind(1)
            return head, relation, tail
        edge_index, edge_type = self._edges(split)
        if edge_index is None or edge_type is None:
            nothing = torch.empty(0, dtype=torch.int64, device=self.device)
            return nothing, nothing, nothing
        return edge_index[0], edge_type, edge_index[1]

    def _columns_of_all(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        r"""The columns of the splits that have facts, or those of the training split."""
        return [self.columns(part) for part in SPLITS if self.num_facts(part) > 0] or [self.columns('train')]

    def weights(self, split: Split = 'train') -> Optional[Tensor]:
        r"""Returns the weights of the facts of a split in the order of :meth:`facts`, or :obj:`None` if no fact has
        one. A split without weights has ones. Do not modify them.

        Args:
            split (str, optional): As in :meth:`facts`. (default: :obj:`"train"`)

        :rtype: :class:`torch.Tensor` of shape :obj:`(F,)`.
        """
        one_of('split', split, (*SPLITS, 'all'))
        if self.edge_weight is None:
            return None
        return self._cached(f'weights/{split}', lambda: self._build_weights(split))

    def _build_weights(self, split: Split) -> Tensor:
        if split == 'all':
            return torch.cat([self._build_weights(part) for part in SPLITS])
        assert self.edge_weight is not None
        found = self._store.get('edge_weight' if split == 'train' else f'{split}_edge_weight')
        if found is None:
            return self.edge_weight.new_ones(self.num_facts(split))
        if split == 'train' and self.has_inverse_relations:
            found = found[self.edge_type < self.num_relations]  # type: ignore[operator]
        return found

    def fact_index(self, split: Split = 'train') -> FactIndex:
        r"""Returns an index of the facts of a split: known tails, known heads, and membership of triples.

        Args:
            split (str, optional): As in :meth:`facts`. (default: :obj:`"train"`)
        """
        one_of('split', split, (*SPLITS, 'all'))
        if split == 'all' and self.num_facts('all') == self.num_facts('train'):
            return self.fact_index('train')
        return self._cached(f'fact_index/{split}', lambda: FactIndex.of_columns(
            self._columns_of_all() if split == 'all' else [self.columns(split)], self.num_nodes or 0,
            self.num_relations))

    def edges_by(self, key: Literal['target', 'source', 'relation']) -> EdgeOrder:
        r"""Returns the edges of :obj:`edge_index`, including inverse ones, sorted by target, source or relation.

        Args:
            key (str): :obj:`"target"`, :obj:`"source"` or :obj:`"relation"`.

        Raises:
            ArgumentError: If :obj:`key` is unknown.
            DataError: If there are no edges.
        """
        edge_index, edge_type = self._edges('train')
        if edge_index is None or edge_type is None:
            raise DataError('edge_index, edge_type: expected edges to sort, got None')
        one_of('key', key, ('target', 'source', 'relation'))
        return self._cached(f'edges_by/{key}', lambda: EdgeOrder.build(edge_index, edge_type, key, self.num_nodes or 0,
                                                                       self.num_edge_types))

    def _current_stamp(self) -> Stamp:
        return Stamp.of([self._store.get(key) for key in (*FACT_KEYS, *WEIGHT_KEYS)],
                        [self._store.get(key) for key in _SIZE_KEYS])

    def _valid_cache(self) -> dict[str, Any]:
        stamp = self._current_stamp()
        held = self.__dict__['_stamp']
        if held is None or not held.matches(stamp):
            # A new dictionary instead of clearing the old one, which unchanged shallow copies of the data still use.
            self.__dict__.update(_cache={}, _stamp=stamp)
        return self.__dict__['_cache']

    def cached(self, key: str, build: Callable[[], T]) -> T:
        r"""Returns what :obj:`build` made of the facts when it was first called. It is dropped, as all indices are, if
        facts change, and is neither saved nor moved.

        Args:
            key (str): The name of the index.
            build (callable): A function without arguments.
        """
        if not isinstance(key, str) or not callable(build):
            raise ArgumentError(f'key, build: expected a string and a function without arguments, got {shown(key)} and '
                                f'{shown(build)}')
        return self._cached(f'{_FOREIGN}{key}', build)

    def _cached(self, key: str, build: Callable[[], T]) -> T:
        cache = self._valid_cache()
        if key not in cache:
            with ordinary_tensors():
                cache[key] = build()
        return cache[key]

    def drop_indices(self) -> None:
        r"""Drops all cached indices. They are rebuilt on the next use."""
        self.__dict__.update(_cache={}, _stamp=None)

    @ordinary_tensors()
    def with_inverse_relations(self) -> Self:
        r"""Returns a copy whose :obj:`edge_index` also contains the reverse of each fact, with type :math:`r + R`."""
        out = copy.copy(self)
        if not self.has_inverse_relations:
            edge_index, edge_type = self._edges('train')
            if edge_index is None or edge_type is None:
                raise DataError('edge_index, edge_type: expected facts to reverse, got None')
            out.edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1).long()
            out.edge_type = torch.cat([edge_type, edge_type + self.num_relations]).long()
            if self.edge_weight is not None:
                out.edge_weight = self.edge_weight.repeat(2)
            out.has_inverse_relations = True
            # Facts do not include inverse edges, so both objects share the indices of facts.
            shared = {key: value for key, value in self._valid_cache().items()
                      if not key.startswith(('edges_by', _FOREIGN))}
            out.__dict__.update(_cache=shared, _stamp=out._current_stamp())
        return out

    def subgraph(self, subset: Tensor) -> Self:
        r"""Returns the subgraph induced by a subset of entities, with the facts between them in each split. Entities
        get new ids.

        Args:
            subset (torch.Tensor): The entities to keep, as distinct ids in the order of their new ids, or as a boolean
                mask of shape :obj:`(num_nodes,)`.

        Raises:
            ArgumentError: If :obj:`subset` is neither, or contains an id twice or out of range.
        """
        return induced_subgraph(self, subset)

    def edge_subgraph(self, subset: Tensor) -> Self:
        r"""Returns a subgraph with a subset of the training edges, all entities and all held-out facts.

        Args:
            subset (torch.Tensor): The edges to keep, as columns of :obj:`edge_index` or a boolean mask of shape
                :obj:`(E,)`.

        Raises:
            ArgumentError: If :obj:`subset` is neither, or contains a column twice or out of range.
        """
        return edge_subgraph(self, subset)

    def sort(self, sort_by_row: bool = True) -> Self:
        r"""Returns a copy with training edges sorted by source, or by target if :obj:`sort_by_row` is :obj:`False`."""
        return edge_subgraph(self, sorted_edges(self, boolean('sort_by_row', sort_by_row)))

    def coalesce(self) -> Self:
        r"""Returns a copy with training edges sorted by source and without duplicates. Edges between the same entities
        with different relations are kept. The weight of a fact is the sum of the weights of its copies.
        """
        return merged_edges(self)

    # Checks and labels #######################################################

    def validate(self, raise_on_error: bool = True) -> bool:
        r"""Checks the requirements of the rest of the package, and warns about valid but suspicious data.

        Args:
            raise_on_error (bool, optional): If set to :obj:`False`, invalid data only raises a warning. (default:
                :obj:`True`)

        Returns:
            Whether the data is valid.

        Raises:
            DataError: If ids are out of range or have the wrong dtype or shape, if labels do not match, if an attribute
                of edges would be ignored, or if there are no training facts.
        """
        boolean('raise_on_error', raise_on_error)
        try:
            check_data(self)
        except DataError as error:
            if raise_on_error:
                raise
            warn(str(error), DataWarning)
            return False
        for message in make_warnings(self):
            warn(message, DataWarning)
        return True

    def report(self) -> DataReport:
        r"""Counts facts and suspicious properties of the data: duplicates, reversed pairs, facts in several splits,
        unseen entities and relations, near-duplicate labels, isolated entities, swapped columns, and relations by kind.

        :rtype: :class:`~pyg_emu.data.report.DataReport`, a dictionary that prints as a table.

        Raises:
            DataError: If the data is invalid.
        """
        check_data(self)
        return make_report(self)

    def entity_id(self, label: Union[str, int]) -> int:
        r"""Returns the id of the entity with the given label. An integer is a label, not an id.

        Args:
            label (str or int): The label.

        Raises:
            DataError: If the label is unknown. The message names the most similar one.
        """
        return self._label_id('entity', self.entity_labels, label)

    def relation_id(self, label: Union[str, int]) -> int:
        r"""Returns the id of the relation with the given label, see :meth:`entity_id`.

        Args:
            label (str or int): The label.

        Raises:
            DataError: If the label is unknown. The message names the most similar one.
        """
        return self._label_id('relation', self.relation_labels, label)

    def has_integer_labels(self, kind: Literal['entity', 'relation']) -> bool:
        r"""Returns whether any label is an integer. In this case, an integer given as an entity or relation is a label,
        not an id.

        Args:
            kind (str): :obj:`"entity"` or :obj:`"relation"`.
        """
        one_of('kind', kind, ('entity', 'relation'))
        labels = self.entity_labels if kind == 'entity' else self.relation_labels
        return labels is not None and self._ids_by_label(kind, labels)[1]

    def _ids_by_label(self, kind: str, labels: list[str]) -> tuple[dict[str, int], bool]:
        r"""Returns the id of each label, and whether any label is an integer. Cached until the labels change."""
        held, ids, integers = self.__dict__['_label_ids'].get(kind, (None, {}, False))
        if held is not labels or len(ids) != len(labels):
            ids, integers = dict(zip(labels, range(len(labels)))), any(map(is_integer, labels))
            self.__dict__['_label_ids'] = {**self.__dict__['_label_ids'], kind: (labels, ids, integers)}
        return ids, integers

    def _label_id(self, kind: str, labels: Optional[list[str]], label: Any) -> int:
        if labels is None:
            raise DataError(f'{kind}_labels: expected labels to look up {label!r}, got None; use ids, or set '
                            f'data.{kind}_labels')
        label = label_of(label)
        for _ in range(2):  # the second time without the cache: a label in the list may have been replaced
            found = self._ids_by_label(kind, labels)[0].get(label) if isinstance(label, str) else None
            if found is not None and labels[found] == label:
                return found
            self.__dict__['_label_ids'] = {}
        raise unknown_label(kind, label, labels)


def _normalised(key: str, value: Any) -> Any:
    r"""A value as the graph holds it: labels as strings, and sizes as integers of Python. Products of those of NumPy,
    such as the keys of facts, overflow without an error.
    """
    if key in _LABEL_KEYS:
        return spelled(value)
    if key in ('num_nodes', 'num_relations') and isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return value


# Allows `torch.load(..., weights_only=True)` to load a saved KGData.
torch.serialization.add_safe_globals([KGData, DataEdgeAttr, DataTensorAttr, GlobalStorage])

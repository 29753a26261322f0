r"""Entities and relations as users name them: labels, ids or a mask; and sets of entities for each relation."""
from __future__ import annotations

from numbers import Integral
from typing import Any, Iterable, Literal, Mapping, Optional, Sequence, Union

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import instance, kind_of, one_of, shown, tensors
from pyg_emu.core.entries import entries
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData, Split
from pyg_emu.data.index import FactIndex
from pyg_emu.ops.searchsorted import searchsorted

#: An entity or a relation, or several: labels or ids.
Names = Union[str, int, Sequence[Union[str, int]], Tensor]
#: A set of entities or relations: labels or ids, or a boolean mask over all of them.
Members = Union[Names, Sequence[bool], np.ndarray]
Kind = Literal['entity', 'relation']


class RelationCandidates:
    r"""For each relation, the entities that may be its tails and those that may be its heads.

    .. code-block:: python

        data = load_dataset('UMLS')
        RelationCandidates(data, tails={'causes': ['virus', 'bacterium']})  # heads, and other relations: all entities
        RelationCandidates.seen(data)                                       # entities seen at that end of the relation
        RelationCandidates.of_types(data, types)                            # entities of a type seen at that end
        evaluate(model, data, candidates=RelationCandidates.seen(data))

    A relation without a set has all entities as candidates.

    Args:
        data (KGData): The entities, the relations and their labels.
        tails (dict, optional): The set of tails of a relation: labels or ids, or a boolean mask, by label or id of the
            relation. (default: :obj:`None`)
        heads (dict, optional): The set of heads of a relation, likewise. (default: :obj:`None`)

    Raises:
        ArgumentError: If a set is empty, an id is out of range, a relation is given twice, or no set is given.
        DataError: If a label does not exist.
    """
    def __init__(self, data: KGData, tails: Optional[Mapping[Any, Members]] = None,
                 heads: Optional[Mapping[Any, Members]] = None) -> None:
        instance('data', data, KGData)
        ends: list[int] = []
        entities: list[Tensor] = []
        for argument, sets, offset in (('tails', tails, 0), ('heads', heads, data.num_relations)):
            if sets is not None and not isinstance(sets, Mapping):
                raise ArgumentError(f'{argument}: expected a dictionary from relations to entities, got {shown(sets)}')
            for name, value in (sets or {}).items():
                end = int(ids_of(argument, name, data, 'relation')[0]) + offset
                if end in ends:
                    raise ArgumentError(f'{argument}: expected one set for each relation, got two for {name!r}')
                ends.append(end)
                entities.append(members(f'{argument}[{name!r}]', value, data, 'entity'))
        sizes = torch.tensor([part.numel() for part in entities], device=data.device)
        if not ends:
            raise ArgumentError('tails, heads: expected sets of entities by relation, got none')
        self._set(torch.tensor(ends, device=data.device).repeat_interleave(sizes), torch.cat(entities), data)

    @classmethod
    def seen(cls, data: KGData, split: Split = 'train') -> RelationCandidates:
        r"""The candidates of a relation are the entities that facts have at the same end of it: its range for tails,
        its domain for heads. A relation without facts has all entities as candidates.

        Args:
            data (KGData): The facts.
            split (str, optional): The facts to look at: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`.
                (default: :obj:`"train"`)
        """
        instance('data', data, KGData)
        one_of('split', split, ('train', 'valid', 'test', 'all'))
        out = cls.__new__(cls)
        end, entity, _ = ends_of_relations(data.fact_index(split))
        out._set(end, entity, data)
        return out

    @classmethod
    def of_types(cls, data: KGData, types: Union[None, Tensor, Sequence[Any], Mapping[Any, Any]] = None,
                 split: Split = 'train') -> RelationCandidates:
        r"""The candidates of a relation are the entities of a type that facts have at the same end of it. A relation
        without facts, or whose entities have no types, has all entities as candidates.

        Args:
            data (KGData): The facts.
            types (torch.Tensor or sequence or dict, optional): The type of each entity: numbers of at least 0, or -1
                for none, as a tensor of shape :obj:`(num_nodes,)`; names, or :obj:`None` for none, as a sequence in the
                order of the ids; or a dictionary from labels or ids of entities to names, where others have no type.
                (default: :obj:`data.node_type`, which :func:`~pyg_emu.load_dataset` keeps of a heterogeneous graph)
            split (str, optional): The facts to look at. (default: :obj:`"train"`)

        Raises:
            ArgumentError: If there is not one type for each entity, an entity has two, or no entity has one.
        """
        instance('data', data, KGData)
        one_of('split', split, ('train', 'valid', 'test', 'all'))
        types = data.get('node_type') if types is None else types
        if types is None:
            raise ArgumentError('types: expected the type of each entity, because the data has no node_type; load a '
                                "HeteroData, whose nodes have types, or pass types=, such as {'virus': 'organism'}")
        kind, num_types = _types_of(types, data)
        end, entity, _ = ends_of_relations(data.fact_index(split))
        typed = kind[entity] >= 0
        # The distinct types of each end, then the entities of each of these types.
        pair = torch.unique(end[typed] * num_types + kind[entity[typed]])
        of_type, order = kind.sort(stable=True)
        start = torch.searchsorted(of_type, torch.arange(num_types + 1, device=kind.device))
        wanted = pair % num_types
        count = start[wanted + 1] - start[wanted]
        row = torch.repeat_interleave(count)
        place = torch.arange(row.numel(), device=row.device) - (count.cumsum(0) - count)[row]
        out = cls.__new__(cls)
        out._set(torch.div(pair, num_types, rounding_mode='floor')[row], order[start[wanted][row] + place], data)
        return out

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], data: KGData) -> RelationCandidates:
        r"""Makes the sets that a dictionary describes, as recipes write them.

        .. code-block:: python

            {'seen': 'train'}                                  # RelationCandidates.seen(data, 'train')
            {'types': {'virus': 'organism'}}                   # RelationCandidates.of_types(data, types)
            {'types': {'virus': 'organism'}, 'split': 'all'}
            {'tails': {'causes': ['virus', 'bacterium']}}      # RelationCandidates(data, tails, heads)

        Args:
            value (dict): The arguments of one of the three.
            data (KGData): The graph.

        Raises:
            ArgumentError: If the keys are others, or a value is outside its domain.
            DataError: If a label does not exist.
        """
        instance('data', data, KGData)
        keys = {*value} if isinstance(value, Mapping) else set()
        try:
            if keys == {'seen'}:
                return cls.seen(data, value['seen'])
            if keys in ({'types'}, {'types', 'split'}):
                return cls.of_types(data, value['types'], value.get('split', 'train'))
            if keys and keys <= {'tails', 'heads'}:
                return cls(data, value.get('tails'), value.get('heads'))
        except (ArgumentError, DataError) as error:
            raise type(error)(f'candidates: {error}') from None
        raise ArgumentError('candidates: expected a dictionary with the key seen, with types, or with tails and heads, '
                            f'got {shown(value)}')

    def _set(self, end: Tensor, entity: Tensor, data: KGData) -> None:
        self.num_nodes = data.num_nodes or 0
        self.num_relations = data.num_relations
        key = torch.unique(end * self.num_nodes + entity)
        if key.numel() == 0:
            raise ArgumentError('split: expected facts that show which entities fit a relation, got none')
        #: The end of each member, ascending: :math:`r` for tails of relation :math:`r` and :math:`R + r` for heads.
        #: shape: :obj:`(M,)`.
        self.end = torch.div(key, max(self.num_nodes, 1), rounding_mode='floor')
        #: The members, ascending for each end. shape: :obj:`(M,)`.
        self.entity = key - self.end * self.num_nodes
        #: The position of the first member of each end. shape: :obj:`(2R + 1,)`.
        self.ptr = torch.searchsorted(self.end, torch.arange(2 * self.num_relations + 1, device=key.device))
        self._key = key

    @property
    def device(self) -> torch.device:
        r"""The device of the sets."""
        return self.end.device

    def allowed(self, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        r"""Returns which entities are candidates of each query.

        Args:
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str): The predicted side.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, num_nodes)`, bool.
        """
        end, row = torch.unique(self._end(rel_type, side), return_inverse=True)
        count = self.ptr[end + 1] - self.ptr[end]
        allowed = (count == 0).unsqueeze(1).repeat(1, self.num_nodes)
        slot = torch.repeat_interleave(count)
        place = torch.arange(slot.numel(), device=slot.device) + (self.ptr[end] - (count.cumsum(0) - count))[slot]
        allowed[slot, self.entity[place]] = True
        return allowed[row]

    def contains(self, entity: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        r"""Returns whether each entity is a candidate for a query of its relation. dtype: bool."""
        end = self._end(rel_type, side)
        wanted = end * self.num_nodes + entity
        place = searchsorted(self._key, wanted).clamp_(max=self._key.numel() - 1)
        return (entries(self._key, place) == wanted) | (self.ptr[end + 1] == self.ptr[end])

    def _end(self, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        return rel_type if side == 'tail' else rel_type + self.num_relations

    def check(self, argument: str, data: KGData) -> None:
        r"""Checks that the sets are those of a graph.

        Raises:
            ArgumentError: If the graph has another number of entities or relations, or is on another device.
        """
        found = (self.num_nodes, self.num_relations)
        if found != (data.num_nodes, data.num_relations):
            raise ArgumentError(f'{argument}: expected sets for {data.num_nodes} entities and {data.num_relations} '
                                f'relations, got sets for {found[0]} and {found[1]}; make them of the same data')
        if self.device != data.device:
            raise ArgumentError(f'{argument}: expected sets on {data.device} like data, got sets on {self.device}; '
                                'make them after data.to(device)')

    def __repr__(self) -> str:
        ends = int((self.ptr[1:] > self.ptr[:-1]).sum())
        return (f'{self.__class__.__name__}({ends} of {2 * self.num_relations} ends of relations have a set, '
                f'{self.entity.numel() / max(ends, 1):.0f} entities on average)')


def ends_of_relations(index: FactIndex) -> tuple[Tensor, Tensor, Tensor]:
    r"""The distinct entities at both ends of each relation: ends, :math:`r` for tails of relation :math:`r` and
    :math:`R + r` for heads, their entities, and the numbers of facts. Ascending; shape of each: :obj:`(M,)`.
    """
    size, relations = max(index.num_nodes, 1), max(index.num_relations, 1)
    pattern, answer = index.unpacked(index.keys)
    tails = pattern < index.num_nodes * index.num_relations
    end = torch.where(tails, pattern % relations, pattern % relations + index.num_relations)
    pair, count = torch.unique(end * size + answer, return_counts=True)
    return torch.div(pair, size, rounding_mode='floor'), pair % size, count


def _types_of(types: Any, data: KGData) -> tuple[Tensor, int]:
    r"""The type of each entity, numbered from 0, or -1 for none; and the number of types."""
    num_nodes = data.num_nodes or 0
    if isinstance(types, Mapping):
        named: dict[int, Any] = {}
        for (entity, name), number in zip(types.items(), ids_of('types', list(types), data, 'entity').tolist()):
            if number in named and named[number] != name:  # by its label and by its id
                raise ArgumentError(f'types: expected one type for each entity, got two for {entity!r}, '
                                    f'{shown(named[number])} and {shown(name)}')
            named[number] = name
        types = [named.get(number) for number in range(num_nodes)]
    if not isinstance(types, Tensor):
        if isinstance(types, (str, bytes)) or not isinstance(types, Iterable):
            raise ArgumentError(f'types: expected the type of each entity, got {shown(types)}')
        types = torch.from_numpy(pd.factorize(pd.Series(list(types), dtype=object))[0].astype(np.int64))
    tensors(types=types)
    if (types.is_floating_point() or types.is_complex() or types.dtype == torch.bool
            or tuple(types.shape) != (num_nodes,)):
        raise ArgumentError(f'types: expected one type for each of the {num_nodes} entities, integers of shape '
                            f'({num_nodes},), got {kind_of(types)}')
    names, found = torch.unique(types.long().to(data.device), return_inverse=True)
    none = int((names < 0).sum())
    if none == names.numel():
        raise ArgumentError('types: expected at least one entity with a type, got none')
    return torch.where(found < none, -1, found - none), names.numel() - none


def members(argument: str, value: Any, data: KGData, kind: Kind) -> Tensor:
    r"""The ids of a set of entities or relations, ascending and without repetition.

    Args:
        argument (str): The name of the argument, for messages.
        value (str or int or sequence): Labels or ids, in any order, repeated or not; or a boolean mask over all
            entities or relations: a tensor, an array or a sequence.
        data (KGData): The entities and relations and their labels.
        kind (str): :obj:`"entity"` or :obj:`"relation"`.

    :rtype: :class:`torch.Tensor`, int64, on the device of :obj:`data`.

    Raises:
        ArgumentError: If the set is empty, an id is out of range, or a mask has another shape.
        DataError: If a label does not exist.
    """
    size = (data.num_nodes if kind == 'entity' else data.num_relations) or 0
    values = _as_list(argument, value)
    if values and all(isinstance(each, (bool, np.bool_)) for each in values):
        if len(values) != size:
            raise ArgumentError(f'{argument}: expected a mask of shape ({size},), one value for each {kind}, got '
                                f'({len(values)},)')
        found = torch.tensor(values, device=data.device).nonzero().squeeze(1)
    else:
        given = value if isinstance(value, Tensor) else values
        found = ids_of(argument, given, data, kind).unique() if values else torch.empty(0)
    if found.numel() == 0:
        raise ArgumentError(f'{argument}: expected at least one {kind}, got an empty set')
    return found


def ids_of(argument: str, value: Any, data: KGData, kind: Kind) -> Tensor:
    r"""The ids of entities or relations, in the order given.

    Args:
        argument (str): The name of the argument, for messages.
        value (str or int or sequence): Labels or ids.
        data (KGData): The entities and relations and their labels.
        kind (str): :obj:`"entity"` or :obj:`"relation"`.

    :rtype: :class:`torch.Tensor` of one dimension, int64, on the device of :obj:`data`.

    Raises:
        ArgumentError: If there is none, or an id is out of range.
        DataError: If a label does not exist.
    """
    values = _as_list(argument, value)
    if len(values) == 0:
        raise ArgumentError(f'{argument}: expected at least one label or id, got none')
    find, limit = (data.entity_id, data.num_nodes) if kind == 'entity' else (data.relation_id, data.num_relations)
    # Where labels are integers, an integer is a label, and ids are given as a tensor.
    labelled = not isinstance(value, Tensor) and data.has_integer_labels(kind)
    ids = []
    for position, each in enumerate(values):
        number = isinstance(each, Integral) and not isinstance(each, (bool, np.bool_))
        if isinstance(each, str) or labelled and number:
            try:
                each = find(each if isinstance(each, str) else int(each))
            except DataError as error:
                raise DataError(f'{argument}: {error}{_edge_type_hint(value, data, kind)}') from None
        elif not number or not 0 <= int(each) < (limit or 0):
            raise ArgumentError(f'{argument}: expected labels or ids in [0, {limit}), got {shown(each)} at '
                                f'position {position}{_edge_type_hint(each, data, kind)}')
        ids.append(int(each))
    return torch.tensor(ids, device=data.device)


def _edge_type_hint(value: Any, data: KGData, kind: Kind) -> str:
    r"""What the relation of a type of edges is called, if :obj:`value` is one, as a HeteroData names them."""
    if kind == 'entity' or not isinstance(value, tuple) or len(value) != 3 or not all(
            isinstance(part, str) for part in value):
        return ''
    found = [label for label in ('__'.join(value), value[1]) if label in (data.relation_labels or ())]
    return f'; the relation of the edges {value} is called {found[0]!r}' if found else ''


def _as_list(argument: str, value: Any) -> list[Any]:
    r"""One value or several as a list."""
    if isinstance(value, (Tensor, np.ndarray)):
        if isinstance(value, Tensor):
            tensors(**{argument: value})
            if value.is_meta:
                raise ArgumentError(f'{argument}: expected labels or ids, got a tensor without data, on the device '
                                    'meta')
        if value.ndim > 1:
            raise ArgumentError(f'{argument}: expected one dimension, got the shape {tuple(value.shape)}')
        value = value.tolist()
    if isinstance(value, dict):
        raise ArgumentError(f'{argument}: expected labels or ids, got a dictionary')
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return [value]
    # A set of strings has another order in each process.
    return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)

r"""Entities and relations as users name them: labels, ids or a mask; and the set of entities that compete in a ranking.
"""
from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Iterable, Literal, Optional, Sequence, Union

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.arguments import shown, tensors
from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.graph import KGData

#: An entity or a relation, or several: labels or ids.
Names = Union[str, int, Sequence[Union[str, int]], Tensor]
#: A set of entities or relations: labels or ids, or a boolean mask over all of them.
Members = Union[Names, Sequence[bool], np.ndarray]
Kind = Literal['entity', 'relation']


@dataclass(frozen=True)
class Candidates:
    r"""The entities that compete in a ranking.

    Args:
        index (torch.Tensor): Their ids, ascending. shape: :obj:`(C,)`, int64.
        place (torch.Tensor): The position of each entity in :obj:`index`, or -1 if it does not compete.
            shape: :obj:`(V,)`, int64.
    """
    index: Tensor
    place: Tensor

    @classmethod
    def of(cls, value: Optional[Members], data: KGData) -> Optional[Candidates]:
        r"""Reads the argument :obj:`candidates`; :obj:`None` stands for all entities.

        Args:
            value (str or int or sequence, optional): Labels or ids, or a mask. See :func:`members`.
            data (KGData): The entities and their labels.
        """
        if value is None:
            return None
        index = members('candidates', value, data, 'entity')
        place = torch.full((data.num_nodes or 0,), -1, device=index.device)
        place[index] = torch.arange(index.numel(), device=index.device)
        return cls(index, place)

    def contains(self, entity: Tensor) -> Tensor:
        r"""Whether each entity competes. dtype: bool."""
        return self.place[entity] >= 0

    def filter(self, ptr: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        r"""The rows of a :class:`~pyg_emu.data.index.Ragged` without other entities, as positions in :obj:`index`."""
        place = self.place[index]
        kept = place >= 0
        total = torch.cat([ptr.new_zeros(1), kept.cumsum(0)])
        return total[ptr], place[kept]


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
                raise DataError(f'{argument}: {error}') from None
        elif not number or not 0 <= int(each) < (limit or 0):
            raise ArgumentError(f'{argument}: expected labels or ids in [0, {limit}), got {shown(each)} at '
                                f'position {position}')
        ids.append(int(each))
    return torch.tensor(ids, device=data.device)


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

r"""Negatives of a fitting type."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import kind_of, shown
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling.pools import Pools, PoolSampler


class TypedSampler(PoolSampler):
    r"""Entities of a fitting type, drawn uniformly, with replacement. The type is one of two:

    * Without :obj:`types`, negatives for a tail are entities that are a tail in training facts of the relation, and
      negatives for a head are entities that are a head in them: type constraints under the local closed-world
      assumption of the `"Type-Constrained Representation Learning in Knowledge Graphs"
      <https://arxiv.org/abs/1508.02593>`_ paper.
    * With :obj:`types`, negatives have the type of the entity that is predicted, for every relation.

    If there is no entity to draw (the relation has no training facts, the predicted entity has no type, no other entity
    has its type, or with :obj:`filtered`, all of them are known answers), draws are uniform over all entities (with
    :obj:`filtered`, over all unknown ones). All draws are exact, without rejection rounds.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, sampler=TypedSampler(filtered=True))

    Args:
        types (torch.Tensor, optional): The type of each entity, a number of at least 0, or -1 for none. An entity
            without a type is drawn for no triple that has a type. shape: :obj:`(num_nodes,)`, int64. (default:
            :obj:`None`, the ends of the relations)
        uniform (float, optional): The probability that a candidate is drawn uniformly from all entities instead (with
            :obj:`filtered`, from all unknown ones). With zero, a model does not learn to reject entities that do not
            fit, and ranks poorly among all. (default: :obj:`0.0`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. Ends of relations are always those of the training
            facts. (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling, if :obj:`types` has another length than
            there are entities, or the batch has no :obj:`source`.
    """
    def __init__(self, types: Optional[Tensor] = None, uniform: float = 0.0, filtered: bool = False,
                 split: str = 'train') -> None:
        super().__init__(uniform, filtered, split)
        self.types = None if types is None else _checked(types)

    def _build(self, train: FactIndex, largest_sum: int) -> Pools:
        if self.types is None:
            pool, entity, _ = ends_of_relations(train)
            return Pools(pool, entity, 2 * train.num_relations, train.num_nodes, train.num_relations)
        if self.types.numel() != train.num_nodes:
            raise ArgumentError(f'types: expected a type for each of the {train.num_nodes} entities, got '
                                f'{self.types.numel()}')
        # Types may be any numbers; pools are numbered from 0.
        names, of_entity = torch.unique(self.types.to(train.device), return_inverse=True)
        return pools_of_types(torch.where(names[of_entity] < 0, -1, of_entity), names.numel(), train)

    def __repr__(self) -> str:
        types = '' if self.types is None else f'types={kind_of(self.types)}, '
        return (f'{self.__class__.__name__}({types}uniform={self.uniform}, filtered={self.filtered}, '
                f'split={self.split!r})')


def pools_of_types(types: Tensor, num_types: int, train: FactIndex) -> Pools:
    r"""Pools of the entities of each type.

    Args:
        types (torch.Tensor): The type of each entity, in :obj:`[0, num_types)`, or -1 for none. shape: :obj:`(V,)`,
            int64.
        num_types (int): Number of types.
        train (FactIndex): The training facts.
    """
    pool, entity = types.sort(stable=True)
    typed = pool >= 0
    of_entity = torch.where(types < 0, num_types, types)
    return Pools(pool[typed], entity[typed], num_types, train.num_nodes, train.num_relations, of_entity=of_entity)


def _checked(types: Any) -> Tensor:
    if not isinstance(types, Tensor):
        raise ArgumentError(f'types: expected a tensor of int64 with the type of each entity, got {shown(types)}; use '
                            'torch.tensor(types)')
    integer = not (types.is_floating_point() or types.is_complex() or types.dtype == torch.bool)
    if types.dim() != 1 or not integer or types.is_meta or types.layout is not torch.strided:
        raise ArgumentError(f'types: expected int64 of shape (num_nodes,), got {kind_of(types)} on {types.device}')
    if types.numel() > 0 and int(types.min()) < -1:
        raise ArgumentError(f'types: expected numbers of at least 0, or -1 for no type, got {int(types.min())}')
    return types.long()

r"""Negatives from a set of candidates."""
from __future__ import annotations

from functools import partial
from typing import Any, Optional, Union

import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import RelationCandidates, members
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import draw_unknown, redraw
from pyg_emu.negatives.sampling.pools import Pools, PoolSampler


class CandidateSampler(PoolSampler):
    r"""Entities drawn uniformly, with replacement, from the candidates that :func:`~pyg_emu.evaluate` and
    :func:`~pyg_emu.predict` take: a set for all triples, or one for each relation and end. Other entities are never
    drawn.

    .. code-block:: python

        drugs = ['aspirin', 'ibuprofen', 'insulin']
        transform = EMUNegatives(num_negatives=64, sampler=CandidateSampler(drugs, filtered=True))

    A triple without a negative among its candidates (the predicted entity is the only one, or with :obj:`filtered`, all
    are known answers) has its slots masked out, and :attr:`num_exhausted` counts it. :class:`TypedSampler` draws
    uniformly from all entities there.

    Args:
        candidates (sequence or RelationCandidates or dict, optional): Labels or ids, or a boolean mask over all
            entities; or a :class:`~pyg_emu.RelationCandidates` of the graph that batches come from, or a dictionary
            that describes one, such as :obj:`{"seen": "train"}`. (default: :obj:`None`, all entities)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. (default: :obj:`"train"`)

    Raises:
        ArgumentError: When sampling, if the candidates do not fit the graph, or the batch has no :obj:`source`.
        DataError: When sampling, if a label does not exist.
    """
    def __init__(self, candidates: Union[None, list[Any], dict[str, Any], RelationCandidates] = None,
                 filtered: bool = False, split: str = 'train') -> None:
        super().__init__(0.0, filtered, split)
        self.candidates = candidates

    def _pools(self, batch: Batch, train: FactIndex, largest_sum: int) -> Pools:
        sets = self.candidates
        if isinstance(sets, dict):
            sets = RelationCandidates.from_dict(sets, batch.source)  # type: ignore[arg-type]
        if isinstance(sets, RelationCandidates):
            sets.check('candidates', batch.source)  # type: ignore[arg-type]
            return Pools(sets.end, sets.entity, 2 * train.num_relations, train.num_nodes, train.num_relations)
        if self.candidates is None:
            entity = torch.arange(train.num_nodes, device=train.device)
        else:
            entity = members('candidates', self.candidates, batch.source, 'entity')  # type: ignore[arg-type]
        everyone = torch.zeros(train.num_nodes, dtype=torch.int64, device=train.device)
        return Pools(torch.zeros_like(entity), entity, 1, train.num_nodes, train.num_relations, of_entity=everyone)

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        state = self._prepare(batch)
        pools, target = state.pools, batch.target_index
        pool = pools.find(target, batch.rel_type, batch.corrupts_tail)
        size = pools.size(pool)
        entity = pools.draw(pool, num_negatives, generator)
        if self.candidates is None and not self.filtered:
            return Negatives(entity)
        if self.filtered:
            wrong = state.known.is_known(entity, batch.known_index, batch.rel_type, batch.corrupts_tail)
            assert state.members is not None
            pattern = state.known.pattern(batch.known_index, batch.rel_type, batch.corrupts_tail)
            left = state.members.any_left(pool, pattern)
            entity = redraw(entity, wrong & left.unsqueeze(1), partial(state.draw, batch, pool, generator))
        else:
            first = pools.entity[pools.ptr[pool].clamp(max=pools.entity.numel() - 1)]
            left = (size > 1) | (first != target)
        entity, left = self._anywhere(state.known, batch, entity, size == 0, left, generator)
        self._count_exhausted(left)
        return Negatives(entity, left.unsqueeze(1).expand_as(entity).contiguous())

    def _anywhere(self, known: FactIndex, batch: Batch, entity: Tensor, open_: Tensor, left: Tensor,
                  generator: Optional[torch.Generator]) -> tuple[Tensor, Tensor]:
        r"""Draws any entity where the relation has no set."""
        if not isinstance(self.candidates, (RelationCandidates, dict)):
            return entity, left
        if not self.filtered:
            drawn = torch.randint(batch.num_nodes, entity.shape, generator=generator, device=entity.device)
            return torch.where(open_.unsqueeze(1), drawn, entity), open_ | left
        ends = batch.known_index, batch.rel_type, batch.corrupts_tail
        drawn = draw_unknown(known, *ends, entity.size(1), generator)
        some = known.count(*ends) < known.num_nodes
        return torch.where(open_.unsqueeze(1), drawn, entity), torch.where(open_, some, left)

    def __repr__(self) -> str:
        given = self.candidates if isinstance(self.candidates, RelationCandidates) else shown(self.candidates)
        return (f'{self.__class__.__name__}(candidates={given}, filtered={self.filtered}, split={self.split!r})')

r"""What samplers share that can leave the known facts out."""
from __future__ import annotations

from typing import Any, Callable, Optional

import torch
from torch import Tensor

from pyg_emu.core.contract import Negatives
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling.base import BaseSampler

#: Draws candidates for some patterns: (known entities, relations, sides, number) -> ids of shape :obj:`(B, number)`.
Draw = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class FilteredSampler(BaseSampler):
    r"""Base class of samplers that can leave the known facts out.

    Args:
        filtered (bool): If set to :obj:`True`, a candidate that would make a known fact is never drawn. A triple whose
            pattern has every entity as a known answer has no negative: its slots are masked out and it is counted in
            :attr:`num_exhausted`. (default: :obj:`False`)
        split (str): Which facts are known: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If :obj:`split` is unknown.
    """
    def __init__(self, filtered: bool = False, split: str = 'train') -> None:
        if split not in ('train', 'valid', 'test', 'all'):
            raise ArgumentError(f"split must be 'train', 'valid', 'test' or 'all', got {split!r}")
        self.filtered = filtered
        self.split = split
        # On the batch's device, so that counting costs no step a copy to the host.
        self._exhausted: Optional[Tensor] = None

    @property
    def num_exhausted(self) -> int:
        r"""How many triples were met so far that had no negative left."""
        return 0 if self._exhausted is None else int(self._exhausted)

    def _known_facts(self, batch: Any) -> FactIndex:
        r"""The index of the facts that are known, on the batch's device."""
        return self._facts(batch, self.split, 'filtered sampling needs batch.source, the KGData whose facts are known')

    @staticmethod
    def _facts(batch: Any, split: Any, missing: str) -> FactIndex:
        if batch.source is None:
            raise ArgumentError(missing)
        index: FactIndex = batch.source.fact_index(split)
        if index.device != batch.head_index.device:
            device = str(batch.head_index.device)
            raise ArgumentError(f'the batch is on {device} and its facts are on {index.device}: move the data before '
                                f'the loader is made, data.to({device!r})')
        return index

    def _negatives(self, index: FactIndex, batch: Any, entity: Tensor) -> Negatives:
        r"""Masks out and counts the triples that have no negative left; their entities do not matter."""
        if index.max_known < index.num_nodes:
            return Negatives(entity)
        left = index.count(batch.known_index, batch.rel_type, batch.side) < index.num_nodes
        exhausted = left.numel() - left.sum()
        self._exhausted = exhausted if self._exhausted is None else self._exhausted + exhausted
        return Negatives(entity, left.unsqueeze(1).expand_as(entity).contiguous())

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(filtered={self.filtered}, split={self.split!r})'


def draw_unknown(index: FactIndex, known: Tensor, rel_type: Tensor, tails: Tensor, num_negatives: int,
                 generator: Optional[torch.Generator]) -> Tensor:
    r"""Entities that are no known answers, uniformly: a rank among those that are left, mapped to its entity, so that
    nothing depends on the host and nothing is drawn again.

    Args:
        index (FactIndex): What is known.
        known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
        rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
        tails (torch.Tensor): True where the tail is predicted. shape: :obj:`(B,)`.
        num_negatives (int): :obj:`N`.
        generator (torch.Generator, optional): The random stream.

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N)`.
    """
    num_left = index.num_nodes - index.count(known, rel_type, tails)
    rank = random_below(num_left.unsqueeze(1).expand(-1, num_negatives), generator)
    return index.unknown(rank, known, rel_type, tails)


def replace(entity: Tensor, wrong: Tensor, batch: Any, draw: Draw) -> Tensor:
    r"""Puts another draw in the place of each wrong candidate.

    Args:
        entity (torch.Tensor): Candidates; overwritten on a CPU. shape: :obj:`(B, N)`.
        wrong (torch.Tensor): Which to replace. shape: :obj:`(B, N)`, boolean.
        batch (KGData): The batch.
        draw (callable): Called with some known entities, relations, sides (true: tail) and a number of candidates, such
            as a partial :func:`draw_unknown`.
    """
    known, relation, tails = batch.known_index, batch.rel_type, batch.corrupts_tail
    if entity.is_cuda:  # picking the few that are wrong would need a copy to the host
        return torch.where(wrong, draw(known, relation, tails, entity.size(1)), entity)
    slot = wrong.view(-1).nonzero().squeeze(1)
    row = torch.div(slot, entity.size(1), rounding_mode='floor')
    entity.view(-1).index_copy_(0, slot, draw(known[row], relation[row], tails[row], 1).squeeze(1))
    return entity


def random_below(high: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    r"""Integers in :obj:`[0, high)`, element by element; 0 where :obj:`high` is 0."""
    # 53 random bits: for up to 2^31 entities, no probability is off by more than a factor of 1 + 2^-22.
    draw = torch.rand(high.shape, generator=generator, device=high.device, dtype=torch.float64)
    return (draw * high).long()

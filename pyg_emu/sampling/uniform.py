r"""Uniform negatives, with or without the known facts among them."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.contract import Negatives
from pyg_emu.errors import ArgumentError
from pyg_emu.index import FactIndex
from pyg_emu.sampling.base import BaseSampler


class UniformSampler(BaseSampler):
    r"""Entities drawn uniformly, with replacement.

    Args:
        filtered (bool): If set to :obj:`True`, a candidate that would make a known fact is never drawn. The draw is
            exact and uniform over what is left; nothing is drawn again until it fits. A triple whose pattern has every
            entity as a known answer has no negative: its slots are masked out and it is counted in
            :attr:`num_exhausted`. (default: :obj:`False`)
        split (str): Which facts are known: :obj:`"train"` or :obj:`"all"`. (default: :obj:`"train"`)
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

    def _sample(self, batch: Any, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        known = batch.known_index
        shape = (known.numel(), num_negatives)
        if not self.filtered:
            return Negatives(torch.randint(batch.num_nodes, shape, generator=generator, device=known.device))
        if batch.source is None:
            raise ArgumentError('filtered sampling needs batch.source, the KGData whose facts are known')
        index = batch.source.fact_index(self.split)
        if index.device != known.device:
            raise ArgumentError(f'the batch is on {known.device} and its facts are on {index.device}: '
                                f'move the data before the loader is made, data.to({str(known.device)!r})')
        draw = self._draw_ranked if known.is_cuda else self._draw_rejected
        entity = draw(index, batch, num_negatives, generator)
        if index.max_known < index.num_nodes:
            return Negatives(entity)
        left = index.count(known, batch.rel_type, batch.side) < index.num_nodes
        exhausted = left.numel() - left.sum()
        self._exhausted = exhausted if self._exhausted is None else self._exhausted + exhausted
        return Negatives(entity, left.unsqueeze(1).expand(shape).contiguous())

    @staticmethod
    def _draw_ranked(index: FactIndex, batch: Any, num_negatives: int, generator: Optional[torch.Generator]) -> Tensor:
        r"""A rank among the entities that are left, mapped to its entity: nothing depends on the host."""
        known = batch.known_index
        num_left = index.num_nodes - index.count(known, batch.rel_type, batch.side)
        rank = _random_below(num_left.unsqueeze(1).expand(-1, num_negatives), generator)
        return index.unknown(rank, known, batch.rel_type, batch.side)

    @staticmethod
    def _draw_rejected(index: FactIndex, batch: Any, num_negatives: int,
                       generator: Optional[torch.Generator]) -> Tensor:
        r"""Any entity, and where it turns out to be known, one by rank instead. The outcome has the same distribution:
        :math:`1/V + (c/V) / (V - c) = 1 / (V - c)` for each of the :math:`V - c` that are left.
        """
        known, relation, tails = batch.known_index, batch.rel_type, batch.corrupts_tail
        shape = (known.numel(), num_negatives)
        entity = torch.randint(index.num_nodes, shape, generator=generator, device=known.device)
        slot = index.is_known(entity, known, relation, tails).view(-1).nonzero().squeeze(1)
        row = torch.div(slot, num_negatives, rounding_mode='floor')
        known, relation, tails = known[row], relation[row], tails[row]
        num_left = index.num_nodes - index.count(known, relation, tails)
        rank = _random_below(num_left.unsqueeze(1), generator)
        entity.view(-1).index_copy_(0, slot, index.unknown(rank, known, relation, tails).squeeze(1))
        return entity

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(filtered={self.filtered}, split={self.split!r})'


def _random_below(high: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    r"""Integers in :obj:`[0, high)`, element by element; 0 where :obj:`high` is 0."""
    # 53 random bits: for up to 2^31 entities, no probability is off by more than a factor of 1 + 2^-22.
    draw = torch.rand(high.shape, generator=generator, device=high.device, dtype=torch.float64)
    return (draw * high).long()

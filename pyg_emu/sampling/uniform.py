r"""Uniform negatives, with or without the known facts among them."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.contract import Negatives
from pyg_emu.errors import ArgumentError
from pyg_emu.sampling.base import BaseSampler


class UniformSampler(BaseSampler):
    r"""Entities drawn uniformly, with replacement.

    Args:
        filtered (bool): If set to :obj:`True`, a candidate that would make a known fact is never drawn. The draw is exact:
            a rank among the entities that are left, mapped to its entity. A triple whose pattern has every entity as a
            known answer has no negative: its slots are masked out and it is counted in :attr:`num_exhausted`.
            (default: :obj:`False`)
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
        num_left = index.num_nodes - index.count(known, batch.rel_type, batch.side)
        # 53 random bits over at most 2^31 entities: the deviation from uniform is below 1e-6 of a probability.
        draw = torch.rand(shape, generator=generator, device=known.device, dtype=torch.float64)
        rank = (draw * num_left.unsqueeze(1)).long()
        entity = index.unknown(rank, known, batch.rel_type, batch.side)
        if index.max_known < index.num_nodes:
            return Negatives(entity)
        left = num_left > 0
        exhausted = left.numel() - left.sum()
        self._exhausted = exhausted if self._exhausted is None else self._exhausted + exhausted
        return Negatives(entity, left.unsqueeze(1).expand(shape).contiguous())

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(filtered={self.filtered}, split={self.split!r})'

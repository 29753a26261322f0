r"""The base class of samplers that can leave out known facts."""
from __future__ import annotations

from functools import partial
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, one_of
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.base import BaseSampler

#: Draws candidates for some patterns: (known entities, relations, sides, number) -> ids of shape :obj:`(B, number)`.
Draw = Callable[[Tensor, Tensor, Tensor, int], Tensor]


class FilteredSampler(BaseSampler):
    r"""Base class of samplers that can leave out known facts.

    Args:
        filtered (bool, optional): If set to :obj:`True`, no candidate that would make a known fact is drawn. A triple
            for which every entity is a known answer has no negative: its slots are masked out, and
            :attr:`num_exhausted` counts it. (default: :obj:`False`)
        split (str, optional): Which facts are known: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If :obj:`split` is unknown, or has no effect because :obj:`filtered` is :obj:`False`.
    """
    def __init__(self, filtered: bool = False, split: str = 'train') -> None:
        one_of('split', split, ('train', 'valid', 'test', 'all'))
        self.filtered = boolean('filtered', filtered)
        if split != 'train' and not filtered:
            raise ArgumentError(f'split: says which facts are known, and without filtered=True known facts are drawn '
                                f'like others; give filtered=True, or leave out split={split!r}')
        self.split = split
        # On the batch's device, so that counting costs no step a copy to the host.
        self._exhausted: Optional[Tensor] = None

    @property
    def num_exhausted(self) -> int:
        r"""Number of triples so far that had no negative left."""
        return 0 if self._exhausted is None else int(self._exhausted)

    def _known_facts(self, batch: Batch) -> FactIndex:
        r"""The index of the known facts, on the device of the batch."""
        return self._facts(batch, self.split)

    def _facts(self, batch: Batch, split: Any) -> FactIndex:
        return facts_of(batch, split, self)

    def _negatives(self, index: FactIndex, batch: Batch, entity: Tensor) -> Negatives:
        r"""Masks out and counts the triples that have no negative left."""
        if index.max_known < index.num_nodes:
            return Negatives(entity)
        left = index.count(batch.known_index, batch.rel_type, batch.side) < index.num_nodes
        self._count_exhausted(left)
        return Negatives(entity, left.unsqueeze(1).expand_as(entity).contiguous())

    def _count_exhausted(self, left: Tensor) -> None:
        r"""Adds to :attr:`num_exhausted`. :obj:`left` :obj:`(B,)` is true for triples that have a negative."""
        exhausted = left.numel() - left.sum()
        self._exhausted = exhausted if self._exhausted is None else self._exhausted + exhausted

    def __repr__(self) -> str:
        return f'{self.__class__.__name__}(filtered={self.filtered}, split={self.split!r})'


def facts_of(batch: Batch, split: Any, user: Any) -> FactIndex:
    r"""The index of the facts that a batch comes from, on the device of the batch.

    Args:
        batch (Batch): The batch.
        split (str): The split of the facts.
        user (Any): What needs them, for the message.

    Raises:
        ArgumentError: If the batch has no :obj:`source`, or one on another device.
    """
    if batch.source is None:
        raise ArgumentError(f'batch.source: {user} needs the KGData that the triples come from, and it is None; '
                            'set batch.source = data, or take batches from TripletLoader')
    index: FactIndex = batch.source.fact_index(split)
    if index.device != batch.head_index.device:
        device = str(batch.head_index.device)
        raise ArgumentError(f'batch: it is on {device}, its source on {index.device}; call data.to({device!r}) '
                            'before the loader is made')
    return index


def draw_unknown(index: FactIndex, known: Tensor, rel_type: Tensor, tails: Tensor, num_negatives: int,
                 generator: Optional[torch.Generator]) -> Tensor:
    r"""Draws entities that are no known answers, uniformly. It draws a rank among those entities and maps it to its
    entity, so that the host does not wait and nothing is drawn again.

    Args:
        index (FactIndex): The known facts.
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


def replace(entity: Tensor, wrong: Tensor, batch: Batch, draw: Draw) -> Tensor:
    r"""Replaces each wrong candidate by another draw.

    Args:
        entity (torch.Tensor): Candidates; overwritten on a CPU. shape: :obj:`(B, N)`.
        wrong (torch.Tensor): True where a candidate is replaced. shape: :obj:`(B, N)`.
        batch (Batch): The batch.
        draw (callable): Takes known entities, relations, sides (true: tail) and a number of candidates, like a partial
            :func:`draw_unknown`.
    """
    known, relation, tails = batch.known_index, batch.rel_type, batch.corrupts_tail
    return redraw(entity, wrong, lambda row, number: draw(known[row], relation[row], tails[row], number))


def redraw(entity: Tensor, wrong: Tensor, draw: Callable[[Any, int], Tensor]) -> Tensor:
    r"""Replaces each wrong candidate by another draw for its row.

    Args:
        entity (torch.Tensor): Candidates; overwritten on a CPU. shape: :obj:`(B, N)`.
        wrong (torch.Tensor): True where a candidate is replaced. shape: :obj:`(B, N)`.
        draw (callable): Takes rows of the batch, as an index :obj:`(K,)` or as a slice, and a number of candidates.
    """
    if entity.is_cuda:  # Selecting the wrong ones alone would need a copy to the host.
        return torch.where(wrong, draw(slice(None), entity.size(1)), entity)
    slot = wrong.view(-1).nonzero().squeeze(1)
    row = torch.div(slot, entity.size(1), rounding_mode='floor')
    entity.view(-1).index_copy_(0, slot, draw(row, 1).squeeze(1))
    return entity


def mix_with_uniform(entity: Tensor, share: float, batch: Batch, index: Optional[FactIndex],
                     generator: Optional[torch.Generator]) -> Tensor:
    r"""Replaces each candidate by a uniform draw with a given probability.

    Args:
        entity (torch.Tensor): Candidates; overwritten on a CPU. shape: :obj:`(B, N)`.
        share (float): The probability.
        batch (Batch): The batch.
        index (FactIndex, optional): The known facts, which are not drawn, or :obj:`None` to draw any entity.
        generator (torch.Generator, optional): The random stream.
    """
    if share == 0.0:
        return entity
    chosen = torch.rand(entity.shape, generator=generator, device=entity.device) < share
    if index is not None:
        return replace(entity, chosen, batch, partial(draw_unknown, index, generator=generator))
    anywhere = torch.randint(batch.num_nodes, entity.shape, generator=generator, device=entity.device)
    return torch.where(chosen, anywhere, entity)


def random_below(high: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    r"""Integers in :obj:`[0, high)`, element by element; 0 where :obj:`high` is 0."""
    # 53 random bits: for up to 2^31 entities, no probability is off by more than a factor of 1 + 2^-22.
    draw = torch.rand(high.shape, generator=generator, device=high.device, dtype=torch.float64)
    return (draw * high).long()

r"""Uniform negatives that are spread evenly over the entities."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.data.batch import Batch
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler


class StratifiedSampler(FilteredSampler):
    r"""Uniform negatives, one from each of :math:`N` equal parts of the entities: slot :math:`n` of a triple holds a
    uniform draw from the :math:`n`-th part. Over all slots, every entity is drawn with equal probability, as by
    :class:`~pyg_emu.UniformSampler`; the negatives of one triple differ more from one another.

    Where the entities are divided among processes (:func:`~pyg_emu.models.shard_entities`), nearly the same number of
    negatives of each triple belongs to each process, and none waits for another one. The draw does not depend on the
    number of processes.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=256, sampler=StratifiedSampler())

    Args:
        filtered (bool): If set to :obj:`True`, no candidate that would make a known fact is drawn: the parts are those
            of the other entities. A triple for which every entity is a known answer has no negative: its slots are
            masked out, and :attr:`num_exhausted` counts it. (default: :obj:`False`)
        split (str): The split whose facts are known: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling filtered, if the batch has no
            :obj:`source`.
    """
    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        known = batch.known_index
        shape = (known.numel(), num_negatives)
        if not self.filtered:
            return Negatives(_spread(known.new_full((1, 1), batch.num_nodes), shape, generator))
        index, tails = self._known_facts(batch), batch.corrupts_tail
        left = index.num_nodes - index.count(known, batch.rel_type, tails)
        rank = _spread(left.unsqueeze(1), shape, generator)
        return self._negatives(index, batch, index.unknown(rank, known, batch.rel_type, tails))


def _spread(high: Tensor, shape: tuple[int, int], generator: Optional[torch.Generator]) -> Tensor:
    r"""Integers in :obj:`[0, high)` of a shape :obj:`(B, N)`, each column from its own part of the range; 0 where
    :obj:`high` is 0.
    """
    draw = torch.rand(shape, generator=generator, device=high.device, dtype=torch.float64)
    place = (draw + torch.arange(shape[1], device=high.device)) / shape[1]
    # The last part may round up to its end.
    return torch.minimum((place * high).long(), (high - 1).clamp(min=0))

r"""Uniform negatives, with or without the known facts among them."""
from __future__ import annotations

from functools import partial
from typing import Optional

import torch
from torch import Tensor

from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler, draw_unknown, replace


class UniformSampler(FilteredSampler):
    r"""Entities drawn uniformly, with replacement. :class:`~pyg_emu.EMUNegatives` uses an unfiltered one by default.
    Known facts are left out with:

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, sampler=UniformSampler(filtered=True))

    Args:
        filtered (bool): If set to :obj:`True`, no candidate that would make a known fact is drawn. The draw is exact
            and uniform over the other entities, without rejection rounds. A triple for which every entity is a known
            answer has no negative: its slots are masked out, and :attr:`num_exhausted` counts it.
            (default: :obj:`False`)
        split (str): The split whose facts are known: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`.
            (default: :obj:`"train"`)

    Raises:
        ArgumentError: If an argument is outside of its domain; when sampling filtered, if the batch has no
            :obj:`source`.
    """
    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        known = batch.known_index
        if not self.filtered:
            shape = (known.numel(), num_negatives)
            return Negatives(torch.randint(batch.num_nodes, shape, generator=generator, device=known.device))
        index = self._known_facts(batch)
        draw = self._draw_ranked if known.is_cuda else self._draw_rejected
        return self._negatives(index, batch, draw(index, batch, num_negatives, generator))

    @staticmethod
    def _draw_ranked(index: FactIndex, batch: Batch, num_negatives: int,
                     generator: Optional[torch.Generator]) -> Tensor:
        return draw_unknown(index, batch.known_index, batch.rel_type, batch.corrupts_tail, num_negatives, generator)

    @staticmethod
    def _draw_rejected(index: FactIndex, batch: Batch, num_negatives: int,
                       generator: Optional[torch.Generator]) -> Tensor:
        r"""Draws any entity and replaces a known one by a draw by rank. The distribution is the same:
        :math:`1/V + (c/V) / (V - c) = 1 / (V - c)` for each of the :math:`V - c` unknown entities.
        """
        known = batch.known_index
        entity = torch.randint(index.num_nodes, (known.numel(), num_negatives), generator=generator,
                               device=known.device)
        return replace(entity, index.is_known(entity, known, batch.rel_type, batch.corrupts_tail), batch,
                       partial(draw_unknown, index, generator=generator))

r"""The reference of :mod:`~pyg_emu.ops.mix_partners` in PyTorch, for all devices."""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.ops.mix_partners.operator import PartnerPools
from pyg_emu.ops.plan import MixPlan


def choose(index: Tensor, pooled: Tensor, kept: Optional[Tensor], words: Tensor, weight: Tensor,
           pools: PartnerPools) -> MixPlan:
    r"""See :func:`~pyg_emu.ops.mix_partners.mix_partners`."""
    size, first = pools.size.unsqueeze(1), pools.first.unsqueeze(1)
    pooled = pooled & (size > 0)
    single = ~pooled
    free = single if kept is None else kept & single
    rank = free.cumsum(1).sub_(1)
    others = rank[:, -1:].clamp(min=0)
    place = words.bitwise_right_shift(32).add_(2**31)
    place = place.mul_(torch.where(pooled, size, others)).bitwise_right_shift_(32)
    # Drawn from one less than there are: at and after the negative itself, the next one is meant.
    beyond = place >= rank
    if pools.left_out is None:
        place += beyond & single
    else:
        left_out = pools.left_out.unsqueeze(1)
        place += torch.where(pooled, (left_out >= 0) & (place >= left_out), beyond)
    # The columns of the free negatives side by side. All others end up in the last one.
    last = index.size(1)
    rank.masked_fill_(~free, last)
    column = torch.arange(last, device=index.device)
    free_columns = index.new_zeros(index.size(0), last + 1).scatter_(1, rank, column.expand_as(rank))
    alone = ~(pooled | free & (others > 0))
    slot = torch.where(alone, column, free_columns.gather(1, place.clamp(max=last)))
    partner = index.gather(1, slot)
    if pools.index.numel() > 0:
        place = place.add_(first).masked_fill_(single, 0)
        partner = torch.where(pooled, pools.index.take(place), partner)
    weight = weight.masked_fill(alone, 1.0)
    return MixPlan(weight, partner, (1.0 - weight).masked_fill_(single, 0.0), slot.masked_fill_(pooled, -1))

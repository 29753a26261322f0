r"""The CPU implementation of :mod:`~pyg_emu.ops.mix_partners`, which reads each negative twice."""
from __future__ import annotations

from typing import Optional

import numpy as np
import torch
from numba import prange
from torch import Tensor

from pyg_emu.ops.mix_partners.operator import PartnerPools
from pyg_emu.ops.numba_runtime import jit, parallel_section
from pyg_emu.ops.plan import MixPlan


def choose(index: Tensor, pooled: Tensor, kept: Optional[Tensor], words: Tensor, weight: Tensor,
           pools: PartnerPools) -> MixPlan:
    r"""See :func:`~pyg_emu.ops.mix_partners.mix_partners`."""
    if kept is None:
        kept = pooled.new_ones(1, 1).expand(pooled.shape)
    left_out = torch.full_like(pools.size, -1) if pools.left_out is None else pools.left_out
    weight = weight.clone(memory_format=torch.contiguous_format)
    partner, slot = (torch.empty_like(index, memory_format=torch.contiguous_format) for _ in range(2))
    label = torch.empty_like(weight)
    operands = (index.contiguous(), pooled.contiguous(), kept, words.contiguous(), pools.index.contiguous(),
                pools.first.contiguous(), pools.size.contiguous(), left_out.contiguous(), weight, partner, label,
                slot)
    with parallel_section():
        _choose(*(tensor.detach().numpy() for tensor in operands))
    return MixPlan(weight, partner, label, slot)


@jit(parallel=True)
def _choose(index, pooled, kept, words, pool, first, size, left_out, weight,  # type: ignore[no-untyped-def]
            partner, label, slot):
    for b in prange(index.shape[0]):
        free = np.empty(index.shape[1], np.int64)
        count = 0
        for n in range(index.shape[1]):
            if kept[b, n] and not (pooled[b, n] and size[b] > 0):
                free[count] = n
                count += 1
        rank = -1
        for n in range(index.shape[1]):
            draw = (words[b, n] >> 32) + 2**31
            if pooled[b, n] and size[b] > 0:
                place = (draw * size[b]) >> 32
                if left_out[b] >= 0 and place >= left_out[b]:
                    place += 1
                partner[b, n] = pool[first[b] + place]
                slot[b, n] = -1
                label[b, n] = 1 - weight[b, n]
                continue
            label[b, n] = 0
            rank += kept[b, n]
            if kept[b, n] and count > 1:
                place = (draw * (count - 1)) >> 32
                slot[b, n] = free[place + (place >= rank)]
            else:
                slot[b, n] = n
                weight[b, n] = 1
            partner[b, n] = index[b, slot[b, n]]

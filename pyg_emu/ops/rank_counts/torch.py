r"""The reference implementation of :func:`~pyg_emu.ops.rank_counts` in plain PyTorch, for every device and dtype.

Identical rows tie exactly if PyTorch's kernels treat all columns alike. Distances do, matrix products may not.
"""
from __future__ import annotations

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.core.precision import without_autocast
from pyg_emu.ops.rank_counts.blocks import BLOCK_BYTES as BLOCK_BYTES

#: The last bits of a matrix product may depend on the other rows.
EXACT = False

# The maximum size in bytes of an intermediate (queries, entities, components) or (targets, entities) tensor.
_BYTES = 256 * 2**20


def score_block(query: Tensor, table: Tensor, interaction: Interaction) -> Tensor:
    r"""Computes the scores of all entities in blocks of entities. shape: :obj:`(Q, V)`."""
    with without_autocast(table):
        if interaction.matrix_product:
            return query @ table.t()
        order = interaction.distance_order
        if order is not None and table.dtype in (torch.float32, torch.float64):
            # Unlike broadcasting, this creates no (Q, V, d) tensor. Matrix products would not keep ties.
            return -torch.cdist(query, table, p=order, compute_mode='donot_use_mm_for_euclid_dist')
        size = max(1, _BYTES // max(1, query.numel() * query.element_size()))
        return torch.cat([interaction(query.unsqueeze(1), part) for part in table.split(size)], dim=1)


def count(scores: Tensor, row: Tensor, target: Tensor, own: Tensor, ptr: Tensor,
          index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Computes counts from checked arguments: greater, equal, candidates and whether a score is NaN.
    shape: :obj:`(B,)` each.

    Args:
        scores (torch.Tensor): The scores of all entities. shape: :obj:`(Q, V)`.
        row (torch.Tensor): The row of :obj:`scores` for each target. shape: :obj:`(B,)`.
        target (torch.Tensor): The targets, or -1 for one that is none of these entities. shape: :obj:`(B,)`.
        own (torch.Tensor): The scores of the targets. shape: :obj:`(B,)`.
        ptr (torch.Tensor): The position of the first filtered id of each row. shape: :obj:`(Q + 1,)`.
        index (torch.Tensor): The filtered ids, without duplicates within a row. shape: :obj:`(ptr[-1],)`.
    """
    own = own.unsqueeze(1)
    here = (target >= 0).to(torch.int64)
    size = max(1, _BYTES // max(1, scores.size(1) * scores.element_size()))
    greater, equal = [], []
    for part, value in zip(row.split(size), own.split(size)):
        block = scores[part]
        greater.append((block > value).sum(1))
        equal.append((block == value).sum(1))
    above = torch.cat(greater)
    same = torch.cat(equal) - here  # The target ties with itself.
    num_filtered = ptr[row + 1] - ptr[row]

    # One slot per pair of target and filtered id. Targets of the same row share its ids.
    slot = torch.repeat_interleave(num_filtered)
    first = num_filtered.cumsum(0) - num_filtered
    entity = index[torch.arange(slot.numel(), device=slot.device) + (ptr[row] - first)[slot]]
    filtered = scores[row[slot], entity]
    other = entity != target[slot]
    value = own[slot, 0]
    above -= torch.zeros_like(above).index_add_(0, slot, ((filtered > value) & other).to(above.dtype))
    same -= torch.zeros_like(same).index_add_(0, slot, ((filtered == value) & other).to(same.dtype))
    candidates = scores.size(1) - here - torch.zeros_like(above).index_add_(0, slot, other.to(above.dtype))
    return above, same, candidates, scores.isnan().any(1)[row] | own[:, 0].isnan()

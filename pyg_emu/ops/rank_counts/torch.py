r"""The reference implementation of :func:`~pyg_emu.ops.rank_counts` in plain PyTorch, for every device and dtype.

Identical rows tie exactly as far as PyTorch's own kernels treat all columns alike; distances do, matrix products may
not.
"""
from __future__ import annotations

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction

# Bytes that one intermediate of (queries, entities, components) or (targets, entities) may take.
_BYTES = 256 * 2**20


def score_block(query: Tensor, table: Tensor, interaction: Interaction) -> Tensor:
    r"""Scores of all entities, :obj:`(Q, V)`, in blocks of entities."""
    if interaction.matrix_product:
        return query @ table.t()
    order = interaction.distance_order
    if order is not None and table.dtype in (torch.float32, torch.float64):
        # Unlike broadcasting, this holds no (Q, V, d) tensor. The detour by a matrix product would not keep ties.
        return -torch.cdist(query, table, p=order, compute_mode='donot_use_mm_for_euclid_dist')
    size = max(1, _BYTES // max(1, query.numel() * query.element_size()))
    return torch.cat([interaction(query.unsqueeze(1), part) for part in table.split(size)], dim=1)


def count(scores: Tensor, row: Tensor, target: Tensor, ptr: Tensor,
          index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Counts of checked arguments: greater, equal, candidates and whether a score is NaN, each of shape :obj:`(B,)`.

    Args:
        scores (torch.Tensor): Scores of all entities. shape: :obj:`(Q, V)`.
        row (torch.Tensor): Row of :obj:`scores` that belongs to each target. shape: :obj:`(B,)`.
        target (torch.Tensor): The targets. shape: :obj:`(B,)`.
        ptr (torch.Tensor): Where each row's filtered ids begin. shape: :obj:`(Q + 1,)`.
        index (torch.Tensor): Filtered ids, none twice in a row. shape: :obj:`(ptr[-1],)`.
    """
    own = scores[row, target].unsqueeze(1)
    size = max(1, _BYTES // max(1, scores.size(1) * scores.element_size()))
    greater, equal = [], []
    for part, value in zip(row.split(size), own.split(size)):
        block = scores[part]
        greater.append((block > value).sum(1))
        equal.append((block == value).sum(1))
    above = torch.cat(greater)
    same = torch.cat(equal) - 1  # The target ties with itself.
    num_filtered = ptr[row + 1] - ptr[row]

    # One slot per (target, filtered id): targets that share a row share its ids.
    slot = torch.repeat_interleave(num_filtered)
    first = num_filtered.cumsum(0) - num_filtered
    entity = index[torch.arange(slot.numel(), device=slot.device) + (ptr[row] - first)[slot]]
    filtered = scores[row[slot], entity]
    other = entity != target[slot]
    value = own[slot, 0]
    above -= torch.zeros_like(above).index_add_(0, slot, ((filtered > value) & other).to(above.dtype))
    same -= torch.zeros_like(same).index_add_(0, slot, ((filtered == value) & other).to(same.dtype))
    candidates = scores.size(1) - 1 - torch.zeros_like(above).index_add_(0, slot, other.to(above.dtype))
    return above, same, candidates, scores.isnan().any(1)[row]

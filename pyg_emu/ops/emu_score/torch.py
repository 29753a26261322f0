r"""The reference implementation of :func:`~pyg_emu.ops.emu_score`: equation 6, written out in plain PyTorch.

It runs on every device and in every dtype, holds the :obj:`(B, N, d)` tensor of candidates, and is what the fused
implementations are tested against.
"""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan


def run(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    plan: Plan | None,
    interaction: Interaction,
    vanilla: bool,
    sparse_grad: bool,
) -> tuple[Tensor | None, Tensor | None]:
    r"""Vanilla and mutated scores of checked arguments; see :func:`~pyg_emu.ops.emu_score`."""
    rows: Tensor = _SparseRows.apply(table, index) if sparse_grad else table[index]
    query = query.unsqueeze(1)
    vanilla_score = interaction(query, rows) if vanilla else None
    mutated_score = None if plan is None else interaction(query, mutate(positive, rows, plan))
    return vanilla_score, mutated_score


def mutate(positive: Tensor, rows: Tensor, plan: Plan) -> Tensor:
    r"""The mutated candidates, equation 6 (or 22, for a :class:`~pyg_emu.ops.MixPlan`).

    Args:
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        rows (torch.Tensor): The negatives. shape: :obj:`(B, N, d)`.
        plan (MaskPlan or MixPlan): How they are mixed.

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N, d)`.
    """
    positive = positive.unsqueeze(1)
    if isinstance(plan, MixPlan):
        weight = plan.weight.unsqueeze(-1)
        return weight * rows + (1 - weight) * positive
    assert isinstance(plan, MaskPlan)
    mask = plan.bank[plan.index]
    if plan.index.dim() == 1:
        mask = mask.unsqueeze(1)
    if mask.dtype == torch.bool:
        return torch.where(mask, positive, rows)
    return mask * positive + (1 - mask) * rows


class _SparseRows(torch.autograd.Function):
    r""":obj:`table[index]` with a coalesced row-sparse gradient; that of an embedding layer is not."""
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.table_size = table.size()
        return table[index]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index, ) = ctx.saved_tensors
        ids = index.reshape(1, -1)
        return torch.sparse_coo_tensor(ids, grad.flatten(0, 1), ctx.table_size, check_invariants=False).coalesce(), None

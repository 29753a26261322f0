r"""The reference implementation of :func:`~pyg_emu.ops.emu_score`: equation 6 in plain PyTorch.

It supports every device, dtype and interaction, and the fused implementations are tested against it. If gradients are
required, it materializes the :obj:`(B, N, d)` tensors of candidates and mutated candidates, and the tensors that the
interaction saves for the backward pass. Otherwise, it scores triples in chunks of bounded size.
"""
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.ops.plan import MixPlan, Plan

# The maximum size in bytes of the candidates of a chunk if no gradients are required.
_BYTES = 64 * 2**20


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
    r"""Computes vanilla and mutated scores from checked arguments, see :func:`~pyg_emu.ops.emu_score`."""
    size, row_bytes = index.size(0), index.size(1) * table.size(1) * table.element_size()
    leaves = (query, positive, table, *(value for value in plan or () if value is not None))
    kept = torch.is_grad_enabled() and any(value.requires_grad for value in leaves)
    chunk = size if kept else _BYTES // max(row_bytes, 1)
    if chunk >= size:
        return _scores(query, positive, table, index, plan, interaction, vanilla, sparse_grad)
    found = []
    for start in range(0, size, max(chunk, 1)):
        rows = slice(start, start + max(chunk, 1))
        found.append(_scores(query[rows], positive[rows], table, index[rows], None if plan is None else plan.rows(rows),
                             interaction, vanilla, sparse_grad))
    vanilla_scores, mutated_scores = zip(*found)
    return (torch.cat(vanilla_scores) if vanilla else None, None if plan is None else torch.cat(mutated_scores))


def _scores(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, plan: Plan | None, interaction: Interaction,
            vanilla: bool, sparse_grad: bool) -> tuple[Tensor | None, Tensor | None]:
    partners = plan.partner if isinstance(plan, MixPlan) else None
    # One look-up for negatives and partners, so that a row-sparse gradient is coalesced only once.
    ids = index if partners is None else torch.cat([index, partners], dim=1)
    rows = sparse_rows(table, ids) if sparse_grad else table[ids]
    rows, partner = rows.split([index.size(1), ids.size(1) - index.size(1)], dim=1)
    query = query.unsqueeze(1)
    vanilla_score = interaction(query, rows) if vanilla else None
    if plan is None:
        return vanilla_score, None
    return vanilla_score, interaction(query, mixed(positive, rows, plan, partner))


def mixed(positive: Tensor, negative: Tensor, plan: Plan, partner: Tensor | None = None) -> Tensor:
    r"""The mutated candidates of checked arguments; see :func:`~pyg_emu.ops.mutate`."""
    other = positive.unsqueeze(1)
    if isinstance(plan, MixPlan):
        if plan.partner is not None:
            assert partner is not None
            other = partner
        weight = plan.weight.unsqueeze(-1)
        return weight * negative + (1 - weight) * other
    mask = plan.bank[plan.index]
    if plan.index.dim() == 1:
        mask = mask.unsqueeze(1)
    if mask.dtype == torch.bool:
        return torch.where(mask, other, negative)
    return mask * other + (1 - mask) * negative


def sparse_rows(table: Tensor, index: Tensor) -> Tensor:
    r""":obj:`table[index]` with a coalesced row-sparse gradient, unlike an embedding layer.

    Args:
        table (torch.Tensor): shape: :obj:`(V, d)`.
        index (torch.Tensor): shape: :obj:`(B, N)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N, d)`.
    """
    rows: Tensor = _SparseRows.apply(table, index)
    return rows


class _SparseRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.table_size = table.size()
        return table[index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (index, ) = ctx.saved_tensors
        ids = index.reshape(1, -1)
        return torch.sparse_coo_tensor(ids, grad.flatten(0, 1), ctx.table_size, check_invariants=False).coalesce(), None

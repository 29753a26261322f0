r"""The reference implementation of :func:`~pyg_emu.ops.emu_loss`: scores and cross-entropies in plain PyTorch.

It supports every device, dtype, interaction and plan, and the fused implementation is tested against it.
"""
from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.core.precision import at_least_single
from pyg_emu.ops.emu_score import torch as scores
from pyg_emu.ops.plan import Plan


def run(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    plan: Optional[Plan],
    counts: Optional[Tensor],
    interaction: Interaction,
    offset: float,
    labels: tuple[float, ...],
    sparse_grad: bool,
) -> tuple[Tensor, ...]:
    r"""See :func:`pyg_emu.ops.emu_loss.numba.run`."""
    found = scores.run(query, positive, table, index, plan, interaction, True, sparse_grad)
    vanilla, mutated = (None if value is None else value + offset for value in found)
    assert vanilla is not None
    positive_score = interaction(query, positive) + offset
    weight, label, negative_label, vanilla_weight, vanilla_label, vanilla_negative_label = labels
    hard = _cross_entropy(positive_score, vanilla if mutated is None else mutated, label, negative_label, counts)
    terms = [weight * hard, torch.zeros_like(hard)]
    if vanilla_weight > 0:
        easy = _cross_entropy(positive_score, vanilla, vanilla_label, vanilla_negative_label, counts)
        terms[1] = vanilla_weight * easy
    return (terms[0] + terms[1], torch.stack(terms).detach(), positive_score.detach(), vanilla.detach(),
            vanilla.new_empty(0, 0) if mutated is None else mutated.detach())


def _cross_entropy(positive: Tensor, negative: Tensor, positive_label: float, label: float,
                   counts: Optional[Tensor]) -> Tensor:
    r"""The mean of :math:`-y_0 \log p_0 - y \sum_k \log p_k` over the triples, with softmax probabilities."""
    if counts is not None:
        negative = negative.masked_fill(~counts, -float('inf'))
    logs = at_least_single(torch.cat([positive.unsqueeze(1), negative], dim=1)).log_softmax(1)
    others = logs[:, 1:] if counts is None else logs[:, 1:].masked_fill(~counts, 0.0)
    return -(positive_label * logs[:, 0] + label * others.sum(1)).mean()

r"""From the arguments of :func:`~pyg_emu.ops.emu_score` to the :class:`torch.autograd.Function` of a backend."""
from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan


class Options(NamedTuple):
    r"""The non-differentiable arguments of :func:`~pyg_emu.ops.emu_score`."""
    interaction: Interaction
    vanilla: bool
    sparse_grad: bool


def differentiated(
    function: type[torch.autograd.Function],
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    plan: Plan | None,
    interaction: Interaction,
    vanilla: bool,
    sparse_grad: bool,
) -> tuple[Tensor | None, Tensor | None]:
    r"""Vanilla and mutated scores of checked arguments; see :func:`~pyg_emu.ops.emu_score`.

    Args:
        function (type): Takes the queries, the positives, the table, the ids, the bank and the index of a
            :class:`~pyg_emu.ops.MaskPlan`, the weights and partners of a :class:`~pyg_emu.ops.MixPlan`, each
            :obj:`None` where the plan has none, and :class:`Options`.
    """
    bank = plan.bank if isinstance(plan, MaskPlan) else None
    mask_index = plan.index if isinstance(plan, MaskPlan) else None
    weight, partner = (plan.weight, plan.partner) if isinstance(plan, MixPlan) else (None, None)
    options = Options(interaction, vanilla, sparse_grad)
    scores: tuple[Tensor | None, Tensor | None] = function.apply(query, positive, table, index, bank, mask_index,
                                                                weight, partner, options)
    return scores

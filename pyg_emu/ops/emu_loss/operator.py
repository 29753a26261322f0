r"""Cross-entropy of positives among their negatives and mutated negatives, and its gradients, in one pass."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, is_number, kind_of, non_negative, on_device, shown, tensors
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.interaction import Dot, Interaction
from pyg_emu.core.mapped_table import read_ahead
from pyg_emu.ops.backend import choose_backend, load_backend
from pyg_emu.ops.emu_score.operator import check_operands, checked_plan
from pyg_emu.ops.interop import promoted, uncompiled
from pyg_emu.ops.plan import Plan

_DOT = Dot()


class SoftLabels(NamedTuple):
    r"""A term of a loss: a weight times the cross-entropy with a label for the positive and one for each negative.

    Args:
        weight (float, optional): The weight of the term. Without weight, the term is left out. (default: :obj:`1.0`)
        positive (float, optional): The label of the positive. (default: :obj:`1.0`)
        negative (float, optional): The label of every negative. (default: :obj:`0.0`)
    """
    weight: float = 1.0
    positive: float = 1.0
    negative: float = 0.0


_PLAIN, _LEFT_OUT = SoftLabels(), SoftLabels(0.0)


class EMULossResult(NamedTuple):
    r"""What :func:`emu_loss` returns. Only :obj:`loss` has a gradient.

    Args:
        loss (torch.Tensor): The sum of both terms, a scalar.
        terms (torch.Tensor): Both terms. shape: :obj:`(2,)`.
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        vanilla (torch.Tensor): Scores of the negatives as they are. shape: :obj:`(B, N)`.
        mutated (torch.Tensor, optional): Scores of the mutated negatives, if there is a plan. shape: :obj:`(B, N)`.
    """
    loss: Tensor
    terms: Tensor
    positive: Tensor
    vanilla: Tensor
    mutated: Optional[Tensor]


@uncompiled
def emu_loss(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    plan: Optional[Plan] = None,
    *,
    labels: SoftLabels = _PLAIN,
    vanilla_labels: SoftLabels = _LEFT_OUT,
    interaction: Interaction = _DOT,
    offset: float = 0.0,
    mask: Optional[Tensor] = None,
    sparse_grad: bool = False,
    backend: Optional[str] = None,
) -> EMULossResult:
    r"""Computes the loss of the `"Optimal Embedding Guided Negative Sample Generation"
    <https://arxiv.org/abs/2504.03327>`_ paper, equation 12, from vectors:

    .. math::
        \mathcal{L} = w\, \mathcal{H}(s^+, \tilde{s}^-; y_0, y) + w'\, \mathcal{H}(s^+, s^-; y_0', y'), \qquad
        \mathcal{H}(s^+, s^-; y_0, y) = -\frac{1}{B} \sum_b \sum_{k=0}^{N} y_k
        \log \mathrm{softmax}([s^+_b, s^-_{b1}, \ldots, s^-_{bN}])_k

    with the scores of :func:`~pyg_emu.ops.emu_score`. Without a plan, the vanilla scores take the place of the mutated
    ones.

    The gradients of a triple's scores follow from these scores. The fused backend (:obj:`"numba"`) therefore computes
    loss and gradients of one triple at once, while the rows of its negatives are in the cache. It supports
    :class:`~pyg_emu.core.interaction.Dot`, :class:`~pyg_emu.core.interaction.L1`,
    :class:`~pyg_emu.core.interaction.L2` and :class:`~pyg_emu.core.interaction.ComplexModulus` with at least 16
    components and without a plan or with binary masks, which have to be equal for both parts of a complex component of
    the latter; :func:`is_fused` tells. Everything else, and CUDA, is computed by :obj:`"torch"`, which holds the
    candidates of all slots in memory: compose :func:`~pyg_emu.ops.emu_score` and
    :func:`~pyg_emu.losses.functional.uls_cross_entropy` there.

    The loss is differentiable with respect to :obj:`query`, :obj:`positive` and :obj:`table`; in the fused backend
    once.

    Args:
        query (torch.Tensor): One query per triple. shape: :obj:`(B, interaction.query_width(d))`.
        positive (torch.Tensor): The positive candidate of each triple. shape: :obj:`(B, d)`.
        table (torch.Tensor): The candidates. shape: :obj:`(V, d)`.
        index (torch.Tensor): Row of each negative, in :obj:`[0, V)`; int64. shape: :obj:`(B, N)`.
        plan (MaskPlan or MixPlan, optional): How negatives are mutated, without labels. (default: :obj:`None`, not at
            all)
        labels (SoftLabels, optional): :math:`w`, :math:`y_0` and :math:`y`. (default: :obj:`SoftLabels()`)
        vanilla_labels (SoftLabels, optional): :math:`w'`, :math:`y_0'` and :math:`y'`. (default: weight :obj:`0.0`)
        interaction (Interaction, optional): :math:`\phi`. (default: :class:`~pyg_emu.core.interaction.Dot`)
        offset (float, optional): The constant part of every score. (default: :obj:`0.0`)
        mask (torch.Tensor, optional): True where a negative counts; the others leave both softmax and labels.
            shape: :obj:`(B, N)`. (default: :obj:`None`, all count)
        sparse_grad (bool, optional): Whether the gradient of :obj:`table` is row-sparse, see
            :func:`~pyg_emu.ops.emu_score`. (default: :obj:`False`)
        backend (str, optional): :obj:`"torch"` or :obj:`"numba"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range.
        BackendError: If the backend asked for cannot run here.
    """
    tensors(query=query, positive=positive, table=table, index=index, optional=('mask', ), mask=mask)
    sparse_grad = boolean('sparse_grad', sparse_grad)
    check_operands(query, positive, table, index, interaction)
    weights = (*_checked_labels('labels', labels), *_checked_labels('vanilla_labels', vanilla_labels))
    if not is_number(offset) or not abs(offset) < float('inf'):
        raise ArgumentError(f'offset: expected a finite number, got {shown(offset)}')
    if mask is not None:
        if mask.dtype != torch.bool or mask.shape != index.shape:
            raise ArgumentError(f'mask: expected torch.bool of shape {tuple(index.shape)}, one for each negative, got '
                                f'{kind_of(mask)}')
        on_device('mask', mask, table.device, 'table')
    read_ahead(index, table)
    query, positive, table = promoted(query, positive, table)
    if plan is not None:
        plan = checked_plan(plan, table, tuple(index.shape), table.size(0))
        if plan.label is not None:
            raise ArgumentError('plan.label: expected None, as labels and vanilla_labels hold the labels, got '
                                f'{kind_of(plan.label)}')
    module = load_backend('emu_loss', table, backend, interaction=interaction, plan=plan, width=table.size(1),
                          num_slots=index.numel())
    loss, terms, positive_score, vanilla, mutated = module.run(query, positive, table, index, plan, mask, interaction,
                                                               float(offset), weights, sparse_grad)
    return EMULossResult(loss, terms, positive_score, vanilla, None if plan is None else mutated)


def is_fused(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, plan: Optional[Plan],
             interaction: Interaction) -> bool:
    r"""Whether :func:`emu_loss` computes these operands, which :func:`~pyg_emu.ops.emu_score` accepts, without the
    vectors of all slots in memory, and by the backend that :func:`~pyg_emu.ops.emu_score` uses.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        table (torch.Tensor): The candidates. shape: :obj:`(V, d)`.
        index (torch.Tensor): The negatives. shape: :obj:`(B, N)`.
        plan (MaskPlan or MixPlan, optional): How they are mutated.
        interaction (Interaction): :math:`\phi`.
    """
    if not query.dtype == positive.dtype == table.dtype:
        return False
    try:
        name = choose_backend('emu_score', table, interaction=interaction)
        return name != 'torch' and name == choose_backend('emu_loss', table, name, interaction=interaction, plan=plan,
                                                          width=table.size(1), num_slots=index.numel())
    except BackendError:
        return False


def _checked_labels(name: str, labels: SoftLabels) -> tuple[float, float, float]:
    if not isinstance(labels, SoftLabels):
        raise ArgumentError(f'{name}: expected SoftLabels(weight, positive, negative), got {shown(labels)}')
    weight, positive, negative = (float(non_negative(f'{name}.{field}', value))
                                  for field, value in labels._asdict().items())
    return weight, positive, negative

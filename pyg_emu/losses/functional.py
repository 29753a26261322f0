r"""Losses of given scores: one positive against its negatives.

Scores in half precision are converted to single precision: sums over some thousand negatives would overflow float16,
and lose digits in bfloat16. The losses have this type, and gradients that of the scores.
"""
from __future__ import annotations

from typing import Any, Optional, Union

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.arguments import kind_of
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.precision import at_least_single

#: The label of negatives: one for all, or one for each slot, shape: :obj:`(B, N)`.
Labels = Union[float, Tensor]


def uls_cross_entropy(positive: Tensor, negative: Tensor, beta: Labels = 0.0, mask: Optional[Tensor] = None,
                      weight: Optional[Tensor] = None) -> Tensor:
    r"""Cross-entropy with unbounded label smoothing, equation 21 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper, averaged over
    the batch:

    .. math::
        -\sum_{k=0}^{N} y_k \log \mathrm{softmax}([s^+, s^-_1, \ldots, s^-_N])_k, \qquad
        y_0 = 1,\; y_k = \beta_k

    The labels do not sum to one; :math:`\beta = 0` is the plain cross-entropy.

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        beta (float or torch.Tensor, optional): The label of every negative, or a label for each, shape :obj:`(B, N)`.
            Labels are constants: they receive no gradient. (default: :obj:`0.0`)
        mask (torch.Tensor, optional): True where a negative counts; the others leave both softmax and labels.
            shape: :obj:`(B, N)`. (default: :obj:`None`, all count)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    beta = _checked_labels(beta, negative)
    return mean_of_rows(_SoftLabelCrossEntropy.apply(positive, negative, 1.0, beta, mask)[0], weight)


def smoothed_cross_entropy(
    positive: Tensor,
    negative: Tensor,
    label_smoothing: float = 0.0,
    mask: Optional[Tensor] = None,
    weight: Optional[Tensor] = None,
) -> Tensor:
    r"""Cross-entropy with ordinary label smoothing, equation 20: over :math:`K` classes, the positive and the
    negatives that count, :math:`y_0 = 1 - \beta_{LS} + \beta_{LS} / K` and :math:`y_k = \beta_{LS} / K`.

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        label_smoothing (float, optional): :math:`\beta_{LS}`. (default: :obj:`0.0`)
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    if label_smoothing == 0.0:
        return uls_cross_entropy(positive, negative, mask=mask, weight=weight)
    classes: Union[int, Tensor] = negative.size(1) + 1 if mask is None else _count(mask, negative) + 1
    share = label_smoothing / classes
    rows, *_ = _SoftLabelCrossEntropy.apply(positive, negative, 1.0 - label_smoothing + share, share, mask)
    return mean_of_rows(rows, weight)


def softmax_entropy(positive: Tensor, negative: Tensor, mask: Optional[Tensor] = None,
                    weight: Optional[Tensor] = None) -> Tensor:
    r"""The entropy of :math:`\mathbf{p} = \mathrm{softmax}([s^+, s^-_1, \ldots, s^-_N])`, averaged over the batch:
    :math:`-\sum_k p_k \log p_k`. Subtracted from a loss, it is the confidence penalty of the `"Regularizing Neural
    Networks by Penalizing Confident Output Distributions" <https://arxiv.org/abs/1701.06548>`_ paper (section 3).

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    if mask is not None:
        # Finite, as zero times infinity is not: what does not count has probability zero and adds nothing.
        negative = negative.masked_fill(~mask, torch.finfo(negative.dtype).min / 2)
    logs = torch.cat([positive.unsqueeze(1), negative], dim=1).log_softmax(1)
    return mean_of_rows(-(logs.exp() * logs).sum(1), weight)


def uls_binary_cross_entropy(
    positive: Tensor,
    negative: Tensor,
    beta: Labels = 0.0,
    mask: Optional[Tensor] = None,
    adversarial_temperature: Optional[float] = None,
    weight: Optional[Tensor] = None,
) -> Tensor:
    r"""Binary cross-entropy of the positive (label 1) and of the negatives (labels :math:`\beta_k`), averaged over the
    batch:

    .. math::
        \frac{\mathrm{bce}(s^+, 1) + \sum_k w_k\, \mathrm{bce}(s^-_k, \beta_k)}{1 + \sum_k w_k}, \qquad
        \mathrm{bce}(s, y) = \log(1 + \mathrm{e}^s) - y s

    The weights of the negatives sum to one: equal ones, or, with a temperature :math:`T`,
    :math:`\mathrm{softmax}(s^- / T)` without a gradient (the form that
    `"NBFNet" <https://arxiv.org/abs/2106.06935>`_ trains with).

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        beta (float or torch.Tensor, optional): The label of every negative, or a label for each, shape :obj:`(B, N)`.
            Labels are constants: they receive no gradient. (default: :obj:`0.0`)
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
        adversarial_temperature (float, optional): :math:`T`. (default: :obj:`None`, equal weights)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    beta = _checked_labels(beta, negative)
    if mask is not None:
        negative = negative.masked_fill(~mask, 0.0)
    share = _negative_weights(negative.detach(), mask, adversarial_temperature)
    rows = -F.logsigmoid(positive) + (share * _binary_terms(negative, beta)).sum(1)
    return mean_of_rows(rows / (1.0 + share.sum(1)), weight)


def demix_cross_entropy(
    positive: Tensor,
    negative: Tensor,
    labels: Labels = 0.0,
    mask: Optional[Tensor] = None,
    temperature: Optional[float] = None,
    divide_by_negatives: bool = False,
    weight: Optional[Tensor] = None,
) -> Tensor:
    r"""Equations 13 to 15 of the `"Negative Sampling with Adaptive Denoising Mixup for Knowledge Graph Embedding"
    <https://doi.org/10.1007/978-3-031-47240-4_14>`_ paper, averaged over the batch:

    .. math::
        \ell(s^+, 1) + \sum_k p_k\, \ell(s^-_k, y_k), \qquad
        \ell(s, y) = -y \log \sigma(s) - (1 - y) \log \sigma(-s)

    With a temperature, :math:`p = \mathrm{softmax}(\alpha_t s^-)` without a gradient (equations 14 and 15); without
    one, :math:`p_k = 1` (equation 13). With the temperature, this is twice
    :func:`uls_binary_cross_entropy` of :obj:`adversarial_temperature` :math:`1 / \alpha_t`, which takes the mean of the
    positive and the negative term.

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        labels (float or torch.Tensor, optional): The label of every negative, or a label for each, shape
            :obj:`(B, N)`. Labels are constants: they receive no gradient. (default: :obj:`0.0`)
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
        temperature (float, optional): :math:`\alpha_t`, which MULTIPLIES scores. (default: :obj:`None`, equation 13)
        divide_by_negatives (bool, optional): Without a temperature, whether the sum is divided by the number of
            negatives that count. (default: :obj:`False`)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    labels = _checked_labels(labels, negative, 'labels')
    if mask is not None:
        negative = negative.masked_fill(~mask, 0.0)
    terms = _binary_terms(negative, labels)
    if temperature is not None or divide_by_negatives:
        divisor = None if not temperature else 1.0 / temperature
        terms = terms * _negative_weights(negative.detach(), mask, divisor)
    elif mask is not None:
        terms = terms * mask
    return mean_of_rows(terms.sum(1) - F.logsigmoid(positive), weight)


def margin_ranking(positive: Tensor, negative: Tensor, margin: float, mask: Optional[Tensor] = None,
                   adversarial_temperature: Optional[float] = None, weight: Optional[Tensor] = None) -> Tensor:
    r"""The mean of :math:`\max(0, \gamma - s^+ + s^-_k)` over the negatives that count, averaged over the batch. With a
    temperature :math:`T`, it is a weighted mean, with the weights :math:`\mathrm{softmax}(s^- / T)` without a gradient.

    Args:
        positive (torch.Tensor): Scores of the positives. shape: :obj:`(B,)`.
        negative (torch.Tensor): Scores of the negatives. shape: :obj:`(B, N)`.
        margin (float): :math:`\gamma`.
        mask (torch.Tensor, optional): True where a negative counts. shape: :obj:`(B, N)`. (default: :obj:`None`, all
            count)
        adversarial_temperature (float, optional): :math:`T`. (default: :obj:`None`, equal weights)
        weight (torch.Tensor, optional): The weights of the rows, see :func:`mean_of_rows`. shape: :obj:`(B,)`.
            (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    positive, negative = _checked_scores(positive, negative, mask)
    terms = F.relu(margin - positive.unsqueeze(1) + negative)
    if adversarial_temperature is not None:
        share = _negative_weights(negative.detach(), mask, adversarial_temperature)
        terms = terms if mask is None else terms.masked_fill(~mask, 0.0)
        return mean_of_rows((share * terms).sum(1), weight)
    if mask is None:
        return terms.mean() if weight is None else mean_of_rows(terms.mean(1), weight)
    return mean_of_rows(terms.masked_fill(~mask, 0.0).sum(1) / _count(mask, negative).clamp(min=1), weight)


def mean_of_rows(rows: Tensor, weight: Optional[Tensor] = None) -> Tensor:
    r"""The mean of the losses of rows. With weights, it is :math:`\sum_b w_b \ell_b / \sum_b w_b` over the rows of the
    batch: a row of weight 2 counts as two equal rows, and only the ratios of weights matter.

    Args:
        rows (torch.Tensor): The losses. shape: :obj:`(B,)`.
        weight (torch.Tensor, optional): :math:`w`. It receives no gradient. shape: :obj:`(B,)`. (default: :obj:`None`)

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If a tensor has another shape.
    """
    if rows.dim() != 1:
        raise ArgumentError(f'rows: expected losses of shape (B,), got {tuple(rows.shape)}')
    rows = at_least_single(rows)
    if weight is None:
        return rows.mean()
    if weight.shape != rows.shape:
        raise ArgumentError(f'weight: expected one number for each row, shape {tuple(rows.shape)}, got '
                            f'{tuple(weight.shape)}')
    weight = weight.detach().to(rows.dtype)
    return (rows * weight).sum() / weight.sum()


def _binary_terms(scores: Tensor, labels: Labels) -> Tensor:
    r"""Binary cross-entropy of each score: log(1 + exp(s)) - y s."""
    terms = -F.logsigmoid(-scores)
    return terms - labels * scores if isinstance(labels, Tensor) or labels != 0.0 else terms


def _checked_scores(positive: Tensor, negative: Tensor, mask: Optional[Tensor]) -> tuple[Tensor, Tensor]:
    r"""The scores, in single precision at least."""
    if negative.dim() != 2:
        raise ArgumentError(f'negative: expected scores of shape (B, N), got {tuple(negative.shape)}')
    if positive.dim() != 1 or positive.size(0) != negative.size(0):
        raise ArgumentError(f'positive: expected scores of shape {(negative.size(0), )}, one for each row of negative, '
                            f'got {tuple(positive.shape)}')
    if mask is not None and (mask.shape != negative.shape or mask.dtype != torch.bool):
        raise ArgumentError(f'mask: expected torch.bool of shape {tuple(negative.shape)}, as of negative, got '
                            f'{kind_of(mask)}')
    return at_least_single(positive), at_least_single(negative)


def _checked_labels(labels: Labels, negative: Tensor, name: str = 'beta') -> Labels:
    if not isinstance(labels, Tensor):
        return labels
    if labels.shape != negative.shape:
        raise ArgumentError(f'{name}: expected a number or labels of shape {tuple(negative.shape)}, got '
                            f'{kind_of(labels)}')
    return labels.detach().to(negative.dtype)


def _count(mask: Tensor, scores: Tensor) -> Tensor:
    r"""The number of negatives of each row that count, in the precision of the scores: an integer would reduce what is
    computed with it to single precision.
    """
    return mask.sum(1, dtype=scores.dtype)


def _negative_weights(negative: Tensor, mask: Optional[Tensor], temperature: Optional[float]) -> Tensor:
    logits = torch.zeros_like(negative) if temperature is None else negative / temperature
    if mask is None:
        return logits.softmax(1)
    # The smallest finite number and not -inf: a row without negatives then weighs nothing instead of NaN.
    return logits.masked_fill(~mask, torch.finfo(logits.dtype).min).softmax(1) * mask


class _SoftLabelCrossEntropy(torch.autograd.Function):
    r"""Rows :obj:`(B,)` of :math:`-\sum_k y_k \log \mathrm{softmax}(s)_k` with label :math:`y_0` for the positive
    and one label :math:`y` for all negatives of a row (each a float, or a tensor of shape :obj:`(B,)`), or a label for
    each negative (a tensor of shape :obj:`(B, N)`).

    With :math:`S^\pm` the logarithmic sums of exponentials of all scores, and :math:`S^-` of the negatives alone,
    this is :math:`y_0 (S^\pm - s^+) + \sum_k y_k (S^\pm - s^-_k)`: non-negative terms in which nothing large cancels.
    Negatives are never copied next to their positive, and one tensor of their size, their softmax, is kept for the
    gradient. It is an output beside the rows, as are the shares of negatives and positive in all exponentials, so that
    derivatives of any order go through what the gradient is computed from.
    """
    @staticmethod
    def forward(
        ctx: Any,
        positive: Tensor,
        negative: Tensor,
        positive_label: Union[float, Tensor],
        negative_label: Union[float, Tensor],
        mask: Optional[Tensor],
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        smooth = isinstance(negative_label, Tensor) or negative_label != 0.0
        each = isinstance(negative_label, Tensor) and negative_label.dim() == 2
        if each and mask is not None:
            negative_label = negative_label.masked_fill(~mask, 0.0)  # type: ignore[union-attr]
        # Half the smallest number, so that differences stay finite: a row without negatives must not yield NaN.
        lowest = torch.finfo(negative.dtype).min / 2
        scores = negative if mask is None else negative.masked_fill(~mask, lowest)
        softmax = scores.softmax(1)
        top = scores.amax(1)
        # All of these are relative to the row's largest score: an offset common to all scores then costs no digits.
        largest = torch.maximum(top, positive)
        top_lead, positive_lead = top - largest, positive - largest
        negative_sum = top_lead - softmax.amax(1).log()
        total_sum = torch.logaddexp(positive_lead, negative_sum)
        rows = positive_label * (total_sum - positive_lead)
        count: Union[int, Tensor] = negative.size(1)
        if each:
            label_sum = negative_label.sum(1)  # type: ignore[union-attr]
            distance = (top.unsqueeze(1) - scores) * negative_label
            if mask is not None:
                distance = distance.masked_fill_(~mask, 0.0)
            rows = rows + label_sum * (total_sum - top_lead) + distance.sum(1)
        elif smooth:
            distance = top.unsqueeze(1) - scores
            if mask is not None:
                distance, count = distance.masked_fill_(~mask, 0.0), _count(mask, negative)
            rows = rows + negative_label * (count * (total_sum - top_lead) + distance.sum(1))
        shares = softmax, (negative_sum - total_sum).exp(), (positive_lead - total_sum).exp()
        ctx.save_for_backward(*shares, mask)
        negatives_label = label_sum if each else negative_label * count
        ctx.labels = positive_label, negative_label, positive_label + negatives_label, smooth
        return rows, *shares

    @staticmethod
    def backward(ctx: Any, grad: Optional[Tensor], *of_shares: Optional[Tensor]
                 ) -> tuple[Tensor, Tensor, None, None, None]:
        softmax, negative_share, positive_share, mask = ctx.saved_tensors
        positive_label, negative_label, total_label, smooth = ctx.labels
        if grad is None:
            grad = torch.zeros_like(positive_share)
        grad_positive = grad * (total_label * positive_share - positive_label)
        grad_negative = softmax * (grad * total_label * negative_share).unsqueeze(1)
        if smooth:
            each = isinstance(negative_label, Tensor) and negative_label.dim() == 2
            grad_negative.sub_(grad.unsqueeze(1) * negative_label if each else (grad * negative_label).unsqueeze(1))
            if mask is not None:
                grad_negative.masked_fill_(~mask, 0.0)
        if any(value is not None for value in of_shares):  # for a second derivative
            of_softmax, of_negatives, of_positive = (
                torch.zeros_like(share) if value is None else value
                for share, value in zip((softmax, negative_share, positive_share), of_shares))
            slope = (of_negatives - of_positive) * negative_share * positive_share
            mean = (of_softmax * softmax).sum(1)
            grad_positive = grad_positive - slope
            grad_negative = grad_negative + softmax * (of_softmax + (slope - mean).unsqueeze(1))
        return grad_positive, grad_negative, None, None, None

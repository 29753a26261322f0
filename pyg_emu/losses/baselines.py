r"""The losses that EMU is compared with and can be put on: cross-entropy, BCE, self-adversarial, margin."""
from __future__ import annotations

from typing import Any, Callable, ClassVar, Mapping, Optional

from torch import Tensor

from pyg_emu.core.arguments import is_number, non_negative, share
from pyg_emu.core.errors import ArgumentError
from pyg_emu.losses.base import LinkPredictionLoss, Regularizer, ScoredBatch, positive_temperature, weighs_vanilla
from pyg_emu.losses.functional import margin_ranking, smoothed_cross_entropy, softmax_entropy, uls_binary_cross_entropy
from pyg_emu.ops import SoftLabels


class CrossEntropyLoss(LinkPredictionLoss):
    r"""Cross-entropy of the positive among its negatives, the baseline of the EMU paper (there with an L3 penalty).
    It has no labels of negatives: a mutation whose plan holds labels raises an error. It needs no self-adversarial
    weights: its gradient weighs each negative by its softmax already.

    .. code-block:: python

        criterion = CrossEntropyLoss(regularizer=L3Regularizer(1e-5))

    Args:
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        label_smoothing (float, optional): Ordinary label smoothing, equation 20. (default: :obj:`0.0`)
        confidence_penalty (float, optional): Weight of :func:`~pyg_emu.losses.functional.softmax_entropy`, which is
            subtracted. Like label smoothing, it penalises confident scores, and is therefore a baseline for
            :class:`~pyg_emu.EMULoss`. (default: :obj:`0.0`)
        mutate (bool, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`label_smoothing` is not in :obj:`[0, 1]`, or :obj:`confidence_penalty` is negative,
            infinite or NaN.
    """
    search_space: ClassVar[Optional[str]] = 'uniform-l3'
    uses_weights = True

    def __init__(
        self,
        regularizer: Optional[Regularizer] = None,
        label_smoothing: float = 0.0,
        confidence_penalty: float = 0.0,
        *,
        mutate: bool = False,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.label_smoothing = share('label_smoothing', label_smoothing)
        self.confidence_penalty = non_negative('confidence_penalty', confidence_penalty)

    def cross_entropies(self, num_negatives: int, masked: bool) -> Optional[Mapping[str, SoftLabels]]:
        if self.confidence_penalty > 0 or (masked and self.label_smoothing > 0):
            return None  # with a mask, the labels of equation 20 differ between triples
        share = self.label_smoothing / (num_negatives + 1)
        return {'': SoftLabels(1.0, 1.0 - self.label_smoothing + share, share)}

    def loss(self, scored: ScoredBatch) -> Tensor:
        loss = smoothed_cross_entropy(scored.positive, scored.hardest, self.label_smoothing, scored.mask, scored.weight)
        if self.confidence_penalty > 0:
            loss = loss - self.confidence_penalty * softmax_entropy(scored.positive, scored.hardest, scored.mask,
                                                                    scored.weight)
        return loss


class BCELoss(LinkPredictionLoss):
    r"""Binary cross-entropy, :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy` with label 0 for negatives, or
    with the labels that the plan of a mutation holds.

    Args:
        adversarial_temperature (float, optional): See :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy`.
            (default: :obj:`None`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`False`)

    Raises:
        ArgumentError: If the temperature is not positive.
    """
    uses_labels = True
    uses_weights = True

    def __init__(
        self,
        adversarial_temperature: Optional[float] = None,
        regularizer: Optional[Regularizer] = None,
        *,
        mutate: bool = False,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.adversarial_temperature = positive_temperature(adversarial_temperature)

    def loss(self, scored: ScoredBatch) -> Tensor:
        return uls_binary_cross_entropy(scored.positive, scored.hardest, scored.labels(0.0), scored.mask,
                                        self.adversarial_temperature, scored.weight)


class SelfAdversarialLoss(LinkPredictionLoss):
    r"""The self-adversarial loss of the `"RotatE" <https://arxiv.org/abs/1902.10197>`_ paper (equations 4 and 5, the
    mean of the positive and the negative term as in its experiments):
    :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy` whose negatives weigh :math:`\mathrm{softmax}(\tau
    s^-)`. EMU on it, which section 7 of the EMU paper leaves open, takes :obj:`mutate=True` and an :obj:`alpha`. For
    mutated negatives with a label above zero, take :class:`~pyg_emu.EMUBCELoss` with :obj:`adversarial_temperature`
    :math:`1 / \tau`, or a mutation whose plan holds labels, which replace label 0 of the mutated negatives.

    Args:
        temperature (float, optional): :math:`\tau`, which MULTIPLIES scores; zero weighs all negatives alike.
            (default: :obj:`1.0`)
        margin (float, optional): Added to every score. Leave it at zero for models whose scores hold :math:`\gamma`
            already, such as those of :mod:`pyg_emu.models`. (default: :obj:`0.0`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`False`)
        alpha (float, optional): With :obj:`mutate`, the weight of the same loss of the VANILLA negatives, which is
            added as in equation 12 of the EMU paper. (default: :obj:`0.0`)

    Raises:
        ArgumentError: If :obj:`temperature` or :obj:`alpha` is negative, infinite or NaN, :obj:`margin` is infinite or
            NaN, or there is an :obj:`alpha` without :obj:`mutate`.
    """
    needs_vanilla = weighs_vanilla
    uses_labels = True
    uses_weights = True

    def __init__(
        self,
        temperature: float = 1.0,
        margin: float = 0.0,
        regularizer: Optional[Regularizer] = None,
        *,
        mutate: bool = False,
        alpha: float = 0.0,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.temperature = non_negative('temperature', temperature)
        if not is_number(margin) or not abs(margin) < float('inf'):
            raise ArgumentError(f'margin: expected a finite number, got {margin!r}')
        self.margin = margin
        self.alpha = _vanilla_weight(alpha, mutate)

    def loss(self, scored: ScoredBatch) -> Tensor:
        divisor = None if self.temperature == 0.0 else 1.0 / self.temperature

        def one(negative: Tensor) -> Tensor:
            labels = scored.labels(0.0) if negative is scored.hardest else 0.0
            return uls_binary_cross_entropy(scored.positive + self.margin, negative + self.margin, labels, scored.mask,
                                            divisor, scored.weight)

        return _with_vanilla(self, one, scored, self.alpha)


class MarginLoss(LinkPredictionLoss):
    r"""The margin ranking loss of the `"TransE"
    <https://proceedings.neurips.cc/paper/2013/file/1cecc7a77928ca8133fa24680a88d2f9-Paper.pdf>`_ paper (equation 1),
    :func:`~pyg_emu.losses.functional.margin_ranking`. EMU on it, which section 7 of the EMU paper leaves open, takes
    :obj:`mutate=True` and an :obj:`alpha`. It has no labels: a mutation whose plan holds labels raises an error.

    Args:
        margin (float, optional): :math:`\gamma`. (default: :obj:`1.0`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`False`)
        alpha (float, optional): With :obj:`mutate`, the weight of the same loss of the VANILLA negatives, which is
            added as in equation 12 of the EMU paper. (default: :obj:`0.0`)
        adversarial_temperature (float, optional): :math:`T` of the self-adversarial weights of the negatives, see
            :func:`~pyg_emu.losses.functional.margin_ranking`. (default: :obj:`None`, equal weights)

    Raises:
        ArgumentError: If :obj:`margin` or :obj:`alpha` is negative, infinite or NaN, there is an :obj:`alpha` without
            :obj:`mutate`, or the temperature is not positive.
    """
    needs_vanilla = weighs_vanilla
    uses_weights = True

    def __init__(
        self,
        margin: float = 1.0,
        regularizer: Optional[Regularizer] = None,
        *,
        mutate: bool = False,
        alpha: float = 0.0,
        adversarial_temperature: Optional[float] = None,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.margin = non_negative('margin', margin)
        self.alpha = _vanilla_weight(alpha, mutate)
        self.adversarial_temperature = positive_temperature(adversarial_temperature)

    def loss(self, scored: ScoredBatch) -> Tensor:
        def one(negative: Tensor) -> Tensor:
            return margin_ranking(scored.positive, negative, self.margin, scored.mask, self.adversarial_temperature,
                                  scored.weight)

        return _with_vanilla(self, one, scored, self.alpha)


def _vanilla_weight(alpha: Any, mutate: bool) -> float:
    if non_negative('alpha', alpha) > 0 and not mutate:
        raise ArgumentError(f'alpha: expected 0 without mutate=True, got {alpha}; it weighs vanilla negatives beside '
                            'mutated ones')
    return alpha


def _with_vanilla(criterion: LinkPredictionLoss, loss: Callable[[Tensor], Tensor], scored: ScoredBatch,
                  alpha: float) -> Tensor:
    r"""Equation 12 for any loss of negatives."""
    whole = loss(scored.hardest)
    if scored.vanilla is None or alpha == 0:
        return whole
    return criterion.term('loss_mutated', whole) + criterion.term('loss_vanilla', alpha * loss(scored.vanilla))

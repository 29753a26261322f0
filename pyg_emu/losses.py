r"""Losses of a model and a batch, :obj:`criterion(model, batch)`, on vanilla and mutated negatives.

The formulas are those of :mod:`pyg_emu.functional`, which works on given scores.
"""
from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import is_number, non_negative, penalty, share
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.functional import (
    margin_ranking,
    smoothed_cross_entropy,
    softmax_entropy,
    uls_binary_cross_entropy,
    uls_cross_entropy,
)
from pyg_emu.models.adapters import as_scorer
from pyg_emu.ops import emu_score

#: A penalty on a model, such as :class:`~pyg_emu.LpRegularizer`.
Regularizer = Callable[[Scorer, Any], Tensor]


class ScoredBatch(NamedTuple):
    r"""The scores that every loss is made of.

    Args:
        positive (torch.Tensor): shape: :obj:`(B,)`.
        vanilla (torch.Tensor, optional): Of the negatives as they are, if wanted. shape: :obj:`(B, N)`.
        mutated (torch.Tensor, optional): Of the mutated negatives, if there is a mutation. shape: :obj:`(B, N)`.
        mask (torch.Tensor, optional): True where a negative counts, or :obj:`None` where all do. shape: :obj:`(B, N)`.
    """
    positive: Tensor
    vanilla: Optional[Tensor]
    mutated: Optional[Tensor]
    mask: Optional[Tensor]

    @property
    def hardest(self) -> Tensor:
        r"""The mutated scores, or the vanilla ones where nothing is mutated."""
        scores = self.vanilla if self.mutated is None else self.mutated
        assert scores is not None
        return scores


class LinkPredictionLoss(torch.nn.Module):
    r"""Base class: scores a batch once, leaves the rest to :meth:`loss`, adds a penalty on the model.

    Called as :obj:`criterion(model, batch)` with a batch that went through :class:`~pyg_emu.EMUNegatives`
    and any model that :func:`~pyg_emu.as_scorer` takes.

    Args:
        mutate (bool, optional): Whether negatives are mutated as the batch says. (default: :obj:`False`)
        regularizer (callable, optional): A penalty :obj:`(scorer, batch) -> scalar`, such as
            :class:`~pyg_emu.LpRegularizer`. (default: :obj:`None`)
    """
    #: Whether the scores of the unmutated negatives are needed even where there are mutated ones.
    needs_vanilla: bool = False

    def __init__(self, *, mutate: bool = False, regularizer: Optional[Regularizer] = None) -> None:
        super().__init__()
        self.mutate = mutate
        self.regularizer = penalty('regularizer', regularizer)

    def loss(self, scored: ScoredBatch) -> Tensor:
        r"""The loss of given scores, a scalar."""
        raise NotImplementedError

    def forward(self, model: Any, batch: Any) -> Tensor:
        loss = self.loss(self.score(model, batch))
        return loss if self.regularizer is None else loss + self.regularizer(as_scorer(model), batch)

    def score(self, model: Any, batch: Any) -> ScoredBatch:
        r"""Scores the positives and the negatives of a batch.

        Raises:
            ArgumentError: If the batch has no negatives or is on another device than the model, or the model has fewer
                entities or relations than the data.
        """
        scorer = as_scorer(model)
        if getattr(batch, 'neg_index', None) is None:
            raise ArgumentError('batch: neg_index is missing; give the loader transform=EMUNegatives(...), which draws '
                                'negatives')
        if getattr(batch, 'known_index', None) is None:
            raise ArgumentError(f'batch: expected one of a TripletLoader, or what EMUNegatives returns, got {batch}')
        check_sizes(scorer, batch)
        check_device(model, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        positive = scorer.candidates(batch.target_index)
        table = scorer.entity_table()
        plan = None
        if self.mutate and batch.mutation is not None:
            plan = batch.mutation.plan(query, batch.neg_index.size(1), table.size(1), batch.generator, batch.step)
        scores = emu_score(query, positive, table, batch.neg_index, plan, interaction=scorer.interaction,
                           vanilla=self.needs_vanilla or plan is None, sparse_grad=scorer.sparse)
        vanilla, mutated = (value if value is None or scorer.offset == 0.0 else value + scorer.offset
                            for value in scores)
        return ScoredBatch(scorer.score(query, positive), vanilla, mutated, batch.neg_mask)

    def extra_repr(self) -> str:
        return f'mutate={self.mutate}'


class EMULoss(LinkPredictionLoss):
    r"""The loss of the `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_
    paper, equation 12 with the labels of equation 21:

    .. math::
        \frac{1}{N} \mathcal{L}(s^+, \tilde{s}^-; y_{\mathrm{ULS}}) + \alpha\, \mathcal{L}(s^+, s^-; \hat{y})

    Without a mutation (rate 0) the vanilla scores take the place of the mutated ones, which leaves unbounded label
    smoothing alone.

    The division by :math:`N` is not in the paper, and the experiments behind it need it: the labels sum to
    :math:`1 + \beta N`, so undivided the first term swamps the second for every customary :math:`\alpha`.

    .. code-block:: python

        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(num_negatives=256, mutation_rate=0.3))
        criterion = EMULoss(alpha=0.11, beta=0.53)
        for batch in loader:
            criterion(model, batch).backward()

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`0.11`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. (default: :obj:`0.53`)
        divide_by_negatives (bool, optional): Whether the first term is divided by :math:`N`, the number of slots per
            triple, masked ones included. (default: :obj:`True`)
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN.
    """
    def __init__(
        self,
        alpha: float = 0.11,
        beta: float = 0.53,
        divide_by_negatives: bool = True,
        regularizer: Optional[Regularizer] = None,
    ) -> None:
        super().__init__(mutate=True, regularizer=regularizer)
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.divide_by_negatives = divide_by_negatives
        self.needs_vanilla = alpha > 0

    def loss(self, scored: ScoredBatch) -> Tensor:
        loss = uls_cross_entropy(scored.positive, scored.hardest, self.beta, scored.mask)
        if self.divide_by_negatives:
            loss = loss / scored.hardest.size(1)
        if scored.vanilla is not None and self.alpha > 0:
            loss = loss + self.alpha * uls_cross_entropy(scored.positive, scored.vanilla, mask=scored.mask)
        return loss

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, divide_by_negatives={self.divide_by_negatives}'


class EMUBCELoss(LinkPredictionLoss):
    r"""The binary form of :class:`EMULoss`, for models trained by binary cross-entropy, such as NBFNet (section 4.6):
    :func:`uls_binary_cross_entropy` of the mutated negatives with label :math:`\beta`, plus :math:`\alpha` times
    that of the vanilla negatives with label 0. Both terms weigh their negatives alike, by their own scores.

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`1.0`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. (default: :obj:`0.25`)
        adversarial_temperature (float, optional): See :func:`uls_binary_cross_entropy`. (default: :obj:`None`)
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN, or the temperature is not positive.
    """
    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.25,
        adversarial_temperature: Optional[float] = None,
        regularizer: Optional[Regularizer] = None,
    ) -> None:
        super().__init__(mutate=True, regularizer=regularizer)
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.adversarial_temperature = _temperature(adversarial_temperature)
        self.needs_vanilla = alpha > 0

    def loss(self, scored: ScoredBatch) -> Tensor:
        temperature = self.adversarial_temperature
        loss = uls_binary_cross_entropy(scored.positive, scored.hardest, self.beta, scored.mask, temperature)
        if scored.vanilla is not None and self.alpha > 0:
            vanilla = uls_binary_cross_entropy(scored.positive, scored.vanilla, 0.0, scored.mask, temperature)
            loss = loss + self.alpha * vanilla
        return loss

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, adversarial_temperature={self.adversarial_temperature}'


class CrossEntropyLoss(LinkPredictionLoss):
    r"""Cross-entropy of the positive among its negatives, the baseline of the EMU paper (there with an L3 penalty).

    .. code-block:: python

        criterion = CrossEntropyLoss(regularizer=L3Regularizer(1e-5))

    Args:
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)
        label_smoothing (float, optional): Ordinary label smoothing, equation 20. (default: :obj:`0.0`)
        confidence_penalty (float, optional): Weight of :func:`softmax_entropy`, which is subtracted. Like label
            smoothing it holds confident scores back, and so is a fair rival of :class:`EMULoss`.
            (default: :obj:`0.0`)
        mutate (bool, optional): See :class:`LinkPredictionLoss`. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`label_smoothing` is not in :obj:`[0, 1]`, or :obj:`confidence_penalty` is negative,
            infinite or NaN.
    """
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

    def loss(self, scored: ScoredBatch) -> Tensor:
        loss = smoothed_cross_entropy(scored.positive, scored.hardest, self.label_smoothing, scored.mask)
        if self.confidence_penalty > 0:
            loss = loss - self.confidence_penalty * softmax_entropy(scored.positive, scored.hardest, scored.mask)
        return loss


class BCELoss(LinkPredictionLoss):
    r"""Binary cross-entropy, :func:`uls_binary_cross_entropy` with label 0 for negatives.

    Args:
        adversarial_temperature (float, optional): See :func:`uls_binary_cross_entropy`. (default: :obj:`None`)
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`LinkPredictionLoss`. (default: :obj:`False`)

    Raises:
        ArgumentError: If the temperature is not positive.
    """
    def __init__(
        self,
        adversarial_temperature: Optional[float] = None,
        regularizer: Optional[Regularizer] = None,
        *,
        mutate: bool = False,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.adversarial_temperature = _temperature(adversarial_temperature)

    def loss(self, scored: ScoredBatch) -> Tensor:
        return uls_binary_cross_entropy(scored.positive, scored.hardest, 0.0, scored.mask, self.adversarial_temperature)


class SelfAdversarialLoss(LinkPredictionLoss):
    r"""The self-adversarial loss of the `"RotatE" <https://arxiv.org/abs/1902.10197>`_ paper (equations 4 and 5, the
    mean of the positive and the negative term as in its experiments): :func:`uls_binary_cross_entropy` whose
    negatives weigh :math:`\mathrm{softmax}(\tau s^-)`. EMU on it, which section 7 of the EMU paper leaves open, takes
    :obj:`mutate=True` and an :obj:`alpha`; where mutated negatives are to have a label above zero, take
    :class:`EMUBCELoss` with :obj:`adversarial_temperature` :math:`1 / \tau`.

    Args:
        temperature (float, optional): :math:`\tau`, which MULTIPLIES scores; zero weighs all negatives alike.
            (default: :obj:`1.0`)
        margin (float, optional): Added to every score. Leave it at zero for models whose scores hold :math:`\gamma`
            already, such as those of :mod:`pyg_emu.models`. (default: :obj:`0.0`)
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`LinkPredictionLoss`. (default: :obj:`False`)
        alpha (float, optional): With :obj:`mutate`, the weight of the same loss of the VANILLA negatives, which is
            added as in equation 12 of the EMU paper. (default: :obj:`0.0`)

    Raises:
        ArgumentError: If :obj:`temperature` or :obj:`alpha` is negative, infinite or NaN, :obj:`margin` is infinite or
            NaN, or there is an :obj:`alpha` without :obj:`mutate`.
    """
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
        self.needs_vanilla = alpha > 0

    def loss(self, scored: ScoredBatch) -> Tensor:
        divisor = None if self.temperature == 0.0 else 1.0 / self.temperature

        def one(negative: Tensor) -> Tensor:
            return uls_binary_cross_entropy(scored.positive + self.margin, negative + self.margin, 0.0, scored.mask,
                                            divisor)

        return _with_vanilla(one, scored, self.alpha)


class MarginLoss(LinkPredictionLoss):
    r"""The margin ranking loss of the `"TransE"
    <https://proceedings.neurips.cc/paper/2013/file/1cecc7a77928ca8133fa24680a88d2f9-Paper.pdf>`_ paper (equation 1),
    :func:`margin_ranking`. EMU on it, which section 7 of the EMU paper leaves open, takes :obj:`mutate=True` and an
    :obj:`alpha`.

    Args:
        margin (float, optional): :math:`\gamma`. (default: :obj:`1.0`)
        regularizer (callable, optional): See :class:`LinkPredictionLoss`. (default: :obj:`None`)
        mutate (bool, optional): See :class:`LinkPredictionLoss`. (default: :obj:`False`)
        alpha (float, optional): With :obj:`mutate`, the weight of the same loss of the VANILLA negatives, which is
            added as in equation 12 of the EMU paper. (default: :obj:`0.0`)

    Raises:
        ArgumentError: If :obj:`margin` or :obj:`alpha` is negative, infinite or NaN, or there is an :obj:`alpha`
            without :obj:`mutate`.
    """
    def __init__(
        self,
        margin: float = 1.0,
        regularizer: Optional[Regularizer] = None,
        *,
        mutate: bool = False,
        alpha: float = 0.0,
    ) -> None:
        super().__init__(mutate=mutate, regularizer=regularizer)
        self.margin = non_negative('margin', margin)
        self.alpha = _vanilla_weight(alpha, mutate)
        self.needs_vanilla = alpha > 0

    def loss(self, scored: ScoredBatch) -> Tensor:
        def one(negative: Tensor) -> Tensor:
            return margin_ranking(scored.positive, negative, self.margin, scored.mask)

        return _with_vanilla(one, scored, self.alpha)


def _vanilla_weight(alpha: Any, mutate: bool) -> float:
    if non_negative('alpha', alpha) > 0 and not mutate:
        raise ArgumentError(f'alpha: {alpha} weighs vanilla negatives beside mutated ones; give mutate=True, or leave '
                            'alpha out')
    return alpha


def _with_vanilla(loss: Callable[[Tensor], Tensor], scored: ScoredBatch, alpha: float) -> Tensor:
    r"""Equation 12 for any loss of negatives."""
    whole = loss(scored.hardest)
    return whole if scored.vanilla is None or alpha == 0 else whole + alpha * loss(scored.vanilla)


def _temperature(value: Any) -> Optional[float]:
    if value is not None and (not is_number(value) or not 0.0 < value < float('inf')):
        raise ArgumentError('adversarial_temperature: expected a positive number, or None for equal weights, '
                            f'got {value!r}')
    return value


def check_sizes(scorer: Scorer, batch: Any, exact: bool = False) -> None:
    r"""Refuses a model that is too small for the data of a batch.

    Args:
        scorer (Scorer): The model.
        batch (KGData): The batch; its source knows the sizes.
        exact (bool, optional): Whether room for more entities is a misfit, too. (default: :obj:`False`)

    Raises:
        ArgumentError: If it is.
    """
    # Sizes and not ids: looking at ids on a GPU would make the host wait for it.
    source = getattr(batch, 'source', None)
    source = batch if source is None else source
    for name, what in (('num_nodes', 'entities'), ('num_relations', 'relations')):
        needed, held = getattr(source, name, None), getattr(scorer, name)
        if needed is not None and (held < needed or (exact and name == 'num_nodes' and held > needed)):
            raise ArgumentError(f'model: {name}={held}, but the data has {needed} {what}; make the model with '
                                f'{name}={needed}')
        if needed is None and name == 'num_relations' and not batch.rel_type.is_cuda and batch.rel_type.numel() > 0:
            # A batch made by hand, which nothing has checked; an embedding would not say which of its ids is wrong.
            largest = int(batch.rel_type.max())
            if largest >= held:
                raise ArgumentError(f'batch.rel_type: expected ids in [0, {held - 1}] (the model has '
                                    f'num_relations={held}), got {largest}')


def check_device(model: Any, batch: Any) -> None:
    r"""Refuses a batch on another device than the model.

    Args:
        model (torch.nn.Module): The model. What is no module is let through.
        batch (KGData): The batch.

    Raises:
        ArgumentError: If the two are apart.
    """
    weight = next(model.parameters(), None) if isinstance(model, torch.nn.Module) else None
    if weight is not None and weight.device != batch.rel_type.device:
        raise ArgumentError(f'batch: it is on {batch.rel_type.device}, the model on {weight.device}; move the data by '
                            f'data.to({str(weight.device)!r}) before the loader is made')

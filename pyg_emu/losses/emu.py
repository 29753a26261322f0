r"""The losses of the EMU paper, as cross-entropy (equations 12 and 21) and as binary cross-entropy."""
from __future__ import annotations

from typing import ClassVar, Mapping, Optional

from torch import Tensor

from pyg_emu.core.arguments import boolean, non_negative
from pyg_emu.losses.base import LinkPredictionLoss, Regularizer, ScoredBatch, positive_temperature, weighs_vanilla
from pyg_emu.losses.functional import uls_binary_cross_entropy, uls_cross_entropy
from pyg_emu.ops import SoftLabels


class EMULoss(LinkPredictionLoss):
    r"""The loss of the `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_
    paper, equation 12 with the labels of equation 21:

    .. math::
        \frac{1}{N} \mathcal{L}(s^+, \tilde{s}^-; y_{\mathrm{ULS}}) + \alpha\, \mathcal{L}(s^+, s^-; \hat{y})

    Without a mutation (rate 0) the vanilla scores replace the mutated ones, and unbounded label smoothing remains.

    The division by :math:`N` is not in the paper, and the experiments behind it need it: the labels sum to
    :math:`1 + \beta N`, so without it the first term dominates the second for every customary :math:`\alpha`.

    .. code-block:: python

        loader = TripletLoader(data, shuffle=True, transform=EMUNegatives(num_negatives=256, mutation_rate=0.3))
        criterion = EMULoss(alpha=0.11, beta=0.53)
        for batch in loader:
            criterion(model, batch).backward()

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`0.11`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. Labels in the plan of a mutation
            (:attr:`MixPlan.label <pyg_emu.ops.MixPlan>`) replace it. (default: :obj:`0.53`)
        divide_by_negatives (bool, optional): Whether the first term is divided by :math:`N`, the number of slots per
            triple, masked ones included. (default: :obj:`True`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        mutate_vectors (bool, optional): Whether negatives given as vectors, such as those of
            :class:`~pyg_emu.DANSSampler`, are mutated, too. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN.
    """
    needs_vanilla = weighs_vanilla
    uses_labels = True
    uses_weights = True

    def __init__(
        self,
        alpha: float = 0.11,
        beta: float = 0.53,
        divide_by_negatives: bool = True,
        regularizer: Optional[Regularizer] = None,
        mutate_vectors: bool = False,
    ) -> None:
        super().__init__(mutate=True, mutate_vectors=mutate_vectors, regularizer=regularizer)
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.divide_by_negatives = boolean('divide_by_negatives', divide_by_negatives)

    def cross_entropies(self, num_negatives: int, masked: bool) -> Mapping[str, SoftLabels]:
        hard = SoftLabels(1.0 / num_negatives if self.divide_by_negatives else 1.0, negative=self.beta)
        return {'loss_mutated': hard, **({'loss_vanilla': SoftLabels(self.alpha)} if self.alpha > 0 else {})}

    def loss(self, scored: ScoredBatch) -> Tensor:
        loss = uls_cross_entropy(scored.positive, scored.hardest, scored.labels(self.beta), scored.mask,
                                 scored.weight)
        if self.divide_by_negatives:
            loss = loss / scored.hardest.size(1)
        loss = self.term('loss_mutated', loss)
        if scored.vanilla is not None and self.alpha > 0:
            vanilla = uls_cross_entropy(scored.positive, scored.vanilla, mask=scored.mask, weight=scored.weight)
            loss = loss + self.term('loss_vanilla', self.alpha * vanilla)
        return loss

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, divide_by_negatives={self.divide_by_negatives}'


class EMUBCELoss(LinkPredictionLoss):
    r"""The binary form of :class:`EMULoss`, for models trained by binary cross-entropy, such as NBFNet (section 4.6):
    :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy` of the mutated negatives with label :math:`\beta`, plus
    :math:`\alpha` times that of the vanilla negatives with label 0. With :obj:`adversarial_temperature`, each term
    weighs its negatives by a softmax of its own scores.

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`1.0`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives, unless the plan of the mutation holds
            labels. (default: :obj:`0.25`)
        adversarial_temperature (float, optional): See :func:`~pyg_emu.losses.functional.uls_binary_cross_entropy`.
            (default: :obj:`None`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)
        mutate_vectors (bool, optional): Whether negatives given as vectors, such as those of
            :class:`~pyg_emu.DANSSampler`, are mutated, too. (default: :obj:`False`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN, or the temperature is not positive.
    """
    recipe_name: ClassVar[str] = 'emu_bce'
    needs_vanilla = weighs_vanilla
    uses_labels = True
    uses_weights = True

    def __init__(
        self,
        alpha: float = 1.0,
        beta: float = 0.25,
        adversarial_temperature: Optional[float] = None,
        regularizer: Optional[Regularizer] = None,
        mutate_vectors: bool = False,
    ) -> None:
        super().__init__(mutate=True, mutate_vectors=mutate_vectors, regularizer=regularizer)
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.adversarial_temperature = positive_temperature(adversarial_temperature)

    def loss(self, scored: ScoredBatch) -> Tensor:
        temperature = self.adversarial_temperature
        labels = scored.labels(self.beta)
        loss = uls_binary_cross_entropy(scored.positive, scored.hardest, labels, scored.mask, temperature,
                                        scored.weight)
        loss = self.term('loss_mutated', loss)
        if scored.vanilla is not None and self.alpha > 0:
            vanilla = uls_binary_cross_entropy(scored.positive, scored.vanilla, 0.0, scored.mask, temperature,
                                               scored.weight)
            loss = loss + self.term('loss_vanilla', self.alpha * vanilla)
        return loss

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, adversarial_temperature={self.adversarial_temperature}'

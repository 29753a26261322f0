r"""The losses of the DeMix paper, equations 13 to 15."""
from __future__ import annotations

from typing import ClassVar, Optional

from torch import Tensor

from pyg_emu.core.arguments import boolean
from pyg_emu.losses.base import LinkPredictionLoss, Regularizer, ScoredBatch, positive_temperature
from pyg_emu.losses.functional import demix_cross_entropy


class DeMixLoss(LinkPredictionLoss):
    r"""The loss of the `"Negative Sampling with Adaptive Denoising Mixup for Knowledge Graph Embedding"
    <https://doi.org/10.1007/978-3-031-47240-4_14>`_ paper: :func:`~pyg_emu.losses.functional.demix_cross_entropy`
    with the labels of the mutation, equation 14 (self-adversarial weights, DeMix-Adv) or 13 (equal weights, DeMix-Uni).
    During the warm-up of :class:`~pyg_emu.negatives.mutation.DeMixMutation`, and of negatives without a mutation, all
    labels are 0.

    .. code-block:: python

        transform, criterion = DeMixNegatives(num_negatives=16), DeMixLoss(temperature=1.0)

    What the paper leaves open is decided as follows: the weights of equation 15 are those of the mixed negatives and
    have no gradient, as in the `"RotatE" <https://arxiv.org/abs/1902.10197>`_ paper; the loss is a mean over the batch;
    the sum of equation 13 is not divided by the number of negatives, unless :obj:`divide_by_negatives` is set.

    :class:`~pyg_emu.losses.SelfAdversarialLoss` with :obj:`mutate=True` is half of equation 14, and
    :class:`~pyg_emu.losses.BCELoss` with :obj:`mutate=True` half of equation 13 with :obj:`divide_by_negatives`.

    Args:
        temperature (float, optional): :math:`\alpha_t`, which MULTIPLIES scores; :obj:`None` is equation 13.
            (default: :obj:`1.0`)
        divide_by_negatives (bool, optional): Whether the sum of equation 13 is divided by the number of negatives. The
            weights of equation 14 sum to one anyway. (default: :obj:`False`)
        regularizer (callable, optional): See :class:`~pyg_emu.losses.LinkPredictionLoss`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`temperature` is neither a positive number nor :obj:`None`.
    """
    recipe_name: ClassVar[Optional[str]] = 'demix'
    uses_labels = True
    uses_weights = True

    def __init__(
        self,
        temperature: Optional[float] = 1.0,
        divide_by_negatives: bool = False,
        regularizer: Optional[Regularizer] = None,
    ) -> None:
        super().__init__(mutate=True, regularizer=regularizer)
        self.temperature = positive_temperature(temperature, 'temperature')
        self.divide_by_negatives = boolean('divide_by_negatives', divide_by_negatives)

    def loss(self, scored: ScoredBatch) -> Tensor:
        return demix_cross_entropy(scored.positive, scored.hardest, scored.labels(0.0), scored.mask, self.temperature,
                                   self.divide_by_negatives, scored.weight)

    def extra_repr(self) -> str:
        return f'temperature={self.temperature}, divide_by_negatives={self.divide_by_negatives}'

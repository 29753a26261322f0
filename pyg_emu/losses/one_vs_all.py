r"""Losses against ALL other entities, :obj:`criterion(model, batch)`."""
from __future__ import annotations

from typing import Any, ClassVar, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, non_negative, penalty, positive_integer, share
from pyg_emu.core.contract import Scorer, for_batch
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.checks import check_sizes
from pyg_emu.losses.base import Regularizer, check_device, check_relations
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.mutation.base import Mutation, draw_plan
from pyg_emu.ops import MaskPlan, all_entities_cross_entropy


class _AllEntitiesLoss(torch.nn.Module):
    r"""Base class: a loss against all entities is the cross-entropy for labels that :meth:`_labels` states."""
    #: Every entity is scored.
    dense_gradient: ClassVar[bool] = True
    #: Negatives that a transform draws are not used.
    uses_negatives: ClassVar[bool] = False
    #: A mutation that gives labels to slots has none for all entities.
    uses_labels: ClassVar[bool] = False

    def __init__(self, regularizer: Optional[Regularizer], block_size: Optional[int]) -> None:
        super().__init__()
        self.regularizer = penalty('regularizer', regularizer)
        self.block_size = None if block_size is None else int(positive_integer('block_size', block_size))
        #: The terms of the last loss by name, detached scalars on the device, for loggers.
        self.terms: dict[str, Tensor] = {}

    def _labels(self, scorer: Scorer, query: Tensor, batch: Batch
                ) -> tuple[Optional[MaskPlan], list[tuple[float, float]]]:
        r"""The plan of the mutation, and the labels of :func:`~pyg_emu.ops.all_entities_cross_entropy`."""
        raise NotImplementedError

    def forward(self, model: Any, batch: Batch) -> Tensor:
        scorer, batch = as_scorer(model), Batch.of(batch)
        check_sizes(scorer, batch if batch.source is None else batch.source, equal=('num_nodes', ))
        check_relations(scorer, batch)
        check_device(model, batch)
        scorer = for_batch(scorer, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        plan, labels = self._labels(scorer, query, batch)
        positive = scorer.candidates(batch.target_index)
        # A dot product does not look at the positives: what its masks take from them is the same for all candidates.
        loss = all_entities_cross_entropy(
            query, scorer.entity_table(), batch.target_index, labels, plan=plan, interaction=scorer.interaction,
            positive=None if scorer.interaction.matrix_product else positive, block_size=self.block_size,
            weight=batch.weight)
        with torch.no_grad():
            self.terms = {'positive_score': scorer.score(query.detach(), positive.detach()).mean()}
        if self.regularizer is None:
            return loss
        penalised = self.regularizer(scorer, batch)
        self.terms['loss_penalty'] = penalised.detach()
        return loss + penalised


class OneVsAllLoss(_AllEntitiesLoss):
    r"""Cross-entropy of the positive among all entities ("1-vs-all"), the right edge of Figure 5 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper.

    Called as :obj:`criterion(model, batch)` with a batch of :class:`~pyg_emu.TripletLoader`, which needs no
    negatives, and any model that :func:`~pyg_emu.as_scorer` takes. Other known answers count as negatives.
    Every entity is scored, so the gradient of the entity table is dense, also if the model is :obj:`sparse`.

    Args:
        label_smoothing (float, optional): Ordinary label smoothing, equation 20. (default: :obj:`0.0`)
        regularizer (callable, optional): A penalty :obj:`(scorer, batch) -> scalar`, such as
            :class:`~pyg_emu.N3Regularizer`. (default: :obj:`None`)
        block_size (int, optional): Entities per block. The loss does not depend on it.
            (default: :obj:`None`, see :func:`~pyg_emu.ops.all_entities_cross_entropy`)

    Raises:
        ArgumentError: If :obj:`label_smoothing` is not in :obj:`[0, 1]` or :obj:`block_size` is not positive; when
            called, if the model has other entities than the data, or fewer relations, or is on another device.
    """
    #: The mutation of a transform is not used.
    mutates: ClassVar[bool] = False

    def __init__(
        self,
        label_smoothing: float = 0.0,
        regularizer: Optional[Regularizer] = None,
        block_size: Optional[int] = None,
    ) -> None:
        super().__init__(regularizer, block_size)
        self.label_smoothing = share('label_smoothing', label_smoothing)

    def _labels(self, scorer: Scorer, query: Tensor, batch: Batch
                ) -> tuple[Optional[MaskPlan], list[tuple[float, float]]]:
        label = self.label_smoothing / scorer.num_nodes
        return None, [(1.0 - self.label_smoothing + label, label)]

    def extra_repr(self) -> str:
        return f'label_smoothing={self.label_smoothing}'


class OneVsAllEMULoss(_AllEntitiesLoss):
    r"""The loss of :class:`~pyg_emu.EMULoss` (equation 12 of the `"Optimal Embedding Guided Negative Sample
    Generation" <https://arxiv.org/abs/2504.03327>`_ paper) with all :math:`N = V - 1` other entities as negatives and
    one mask per triple:

    .. math::
        \frac{1}{N} \mathcal{L}(s^+, \tilde{s}^-; y_{\mathrm{ULS}}) + \alpha\, \mathcal{L}(s^+, s^-; \hat{y})

    The paper states that embedding mutation cannot be used in 1-vs-all training (section 7). With one mask per
    negative, each score would need a vector of its own. With one mask per triple, the scores are a matrix product (see
    :mod:`pyg_emu.ops.all_entities`). Interactions other than dot products are scored in blocks by
    :func:`~pyg_emu.ops.emu_score`, which takes much longer.

    Called as :obj:`criterion(model, batch)` with a :class:`~pyg_emu.Batch`. All entities are negatives, so those that a
    transform has drawn are not used; other known answers count as negatives. The gradient of the entity table is dense,
    also if the model is :obj:`sparse`.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True)
        criterion = OneVsAllEMULoss(mutation=BernoulliMask(0.5))

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`0.11`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. (default: :obj:`0.53`)
        mutation (Mutation, optional): One of :mod:`pyg_emu.negatives.mutation` with one mask for all negatives of a
            triple and no labels; with rate 0, only unbounded label smoothing remains. (default: :obj:`None`, the one
            that :class:`~pyg_emu.EMUNegatives` has put on the batch)
        divide_by_negatives (bool, optional): See :class:`~pyg_emu.EMULoss`. (default: :obj:`True`)
        regularizer (callable, optional): See :class:`OneVsAllLoss`. (default: :obj:`None`)
        block_size (int, optional): See :class:`OneVsAllLoss`. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`alpha` or :obj:`beta` is negative, infinite or NaN, or :obj:`block_size` is not
            positive; when called, if there is no mutation, it draws a mask (or a scalar) for each negative, or the
            model has other entities than the data, or fewer relations.
    """
    def __init__(
        self,
        alpha: float = 0.11,
        beta: float = 0.53,
        mutation: Optional[Mutation] = None,
        divide_by_negatives: bool = True,
        regularizer: Optional[Regularizer] = None,
        block_size: Optional[int] = None,
    ) -> None:
        super().__init__(regularizer, block_size)
        if mutation is not None and (isinstance(mutation, type) or not callable(getattr(mutation, 'plan', None))):
            raise ArgumentError('mutation: expected an object with the method plan(context) of '
                                f'pyg_emu.negatives.mutation.Mutation, such as BernoulliMask(0.5), got {mutation!r}')
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.mutation = mutation
        self.divide_by_negatives = boolean('divide_by_negatives', divide_by_negatives)

    def _labels(self, scorer: Scorer, query: Tensor, batch: Batch
                ) -> tuple[Optional[MaskPlan], list[tuple[float, float]]]:
        weight = 1.0 / max(scorer.num_nodes - 1, 1) if self.divide_by_negatives else 1.0
        plan = self._plan(scorer, query, batch)
        if plan is None:  # Both terms are of the same scores, and the loss is linear in the labels.
            return None, [(weight + self.alpha, weight * self.beta)]
        return plan, [(weight, weight * self.beta)] + ([(self.alpha, 0.0)] if self.alpha > 0 else [])

    def _plan(self, scorer: Scorer, query: Tensor, batch: Batch) -> Optional[MaskPlan]:
        mutation = self.mutation
        if mutation is None:
            mutation = batch.mutation
            if mutation is None and batch.num_negatives == 0:
                raise ArgumentError('mutation: neither the loss nor the batch has one; give '
                                    'mutation=BernoulliMask(0.5), or rate 0 for none')
        # Shared masks do not depend on the number of negatives. One negative shows whether they are shared.
        plan = draw_plan(mutation, batch, scorer, query, 1, scorer.entity_table().size(1))
        if plan is None:
            return None
        if plan.label is not None or not (isinstance(plan, MaskPlan) and plan.index.dim() == 1):
            raise ArgumentError('mutation: against all entities, the negatives of a triple share one mask and have no '
                                f'labels of their own; expected such a plan, got another one from {mutation!r}; give '
                                'shared=True, or mutation=BernoulliMask(0.5)')
        return plan

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, mutation={self.mutation}'

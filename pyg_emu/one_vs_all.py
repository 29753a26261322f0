r"""Losses against ALL other entities, :obj:`criterion(model, batch)`, without a tensor of size :math:`B \times V`.

With one mask :math:`\mathbf{m}_b` per triple, the mutated score of a model with a dot product is

.. math::
    \tilde{s}_{bv} = (\mathbf{q}_b \odot (1 - \mathbf{m}_b)) \cdot \mathbf{x}_v
    + (\mathbf{q}_b \odot \mathbf{m}_b) \cdot \mathbf{x}_{t_b},

two matrix products, so that embedding mutation extends to 1-vs-all training. The second one is the same for all
:math:`v`, the positive itself included (:math:`\tilde{s}_{b t_b} = s^+_b`), and a softmax does not see it: mutating all
negatives alike is to drop the components :math:`\mathbf{m}_b` from the query. Only the first product is computed.

Entities are scored in blocks. Forward keeps a running logarithmic sum of exponentials, backward scores blocks again.
"""
from __future__ import annotations

import math
from typing import Any, Callable, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import non_negative, penalty, share
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Interaction
from pyg_emu.losses import Regularizer, check_device, check_sizes
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives.mutation.part import mutation_for
from pyg_emu.ops import MaskPlan, emu_score

# Scores in one block where the caller does not say: matrix products want large blocks, and those of the operator's
# reference hold a vector for each score.
_DOT_SCORES, _OTHER_SCORES = 2**23, 2**18

# Scores (R, n) of a block of n candidates from the candidates (n, d) and the operands.
_ScoreBlock = Callable[..., Tensor]


class OneVsAllLoss(torch.nn.Module):
    r"""Cross-entropy of the positive among all entities ("1-vs-all"), the right edge of Figure 5 of the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper.

    Called as :obj:`criterion(model, batch)` with a batch of :class:`~pyg_emu.TripletLoader`, which needs no
    negatives, and any model that :func:`~pyg_emu.as_scorer` takes. Other known answers count as negatives.
    Every entity is scored, so the gradient of the entity table is dense, also where the model is :obj:`sparse`.

    Args:
        label_smoothing (float, optional): Ordinary label smoothing, equation 20. (default: :obj:`0.0`)
        regularizer (callable, optional): A penalty :obj:`(scorer, batch) -> scalar`, such as
            :class:`~pyg_emu.N3Regularizer`. (default: :obj:`None`)
        block_size (int, optional): Entities per block. The loss does not depend on it.
            (default: :obj:`None`, as many as fit in some ten megabytes)

    Raises:
        ArgumentError: If :obj:`label_smoothing` is not in :obj:`[0, 1]` or :obj:`block_size` is not positive; when
            called, if the model has other entities than the data, or fewer relations, or is on another device.
    """
    def __init__(
        self,
        label_smoothing: float = 0.0,
        regularizer: Optional[Regularizer] = None,
        block_size: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = share('label_smoothing', label_smoothing)
        self.regularizer = penalty('regularizer', regularizer)
        self.block_size = _checked_block_size(block_size)

    def forward(self, model: Any, batch: Any) -> Tensor:
        scorer = as_scorer(model)
        check_sizes(scorer, batch, exact=True)
        check_device(model, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        label = self.label_smoothing / scorer.num_nodes
        labels = [(1.0 - self.label_smoothing + label, label)]
        loss = _cross_entropy(scorer, query, batch.target_index, None, labels, self.block_size)
        return loss if self.regularizer is None else loss + self.regularizer(scorer, batch)

    def extra_repr(self) -> str:
        return f'label_smoothing={self.label_smoothing}'


class OneVsAllEMULoss(torch.nn.Module):
    r"""The loss of :class:`~pyg_emu.EMULoss` (equation 12 of the `"Optimal Embedding Guided Negative Sample
    Generation" <https://arxiv.org/abs/2504.03327>`_ paper) with all :math:`N = V - 1` other entities as negatives and
    one mask per triple:

    .. math::
        \frac{1}{N} \mathcal{L}(s^+, \tilde{s}^-; y_{\mathrm{ULS}}) + \alpha\, \mathcal{L}(s^+, s^-; \hat{y})

    The paper holds that embedding mutation cannot be used in 1-vs-all training (section 7); with a mask for each
    negative it would take a vector per score, with one per triple it takes a matrix product (see
    :mod:`pyg_emu.one_vs_all`). Interactions other than dot products go block by block through
    :func:`~pyg_emu.ops.emu_score`, which takes much longer.

    Called as :obj:`criterion(model, batch)` with a batch of :class:`~pyg_emu.TripletLoader`. Negatives that
    a transform has drawn are ignored; other known answers count as negatives. The gradient of the entity table is
    dense, also where the model is :obj:`sparse`.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True)
        criterion = OneVsAllEMULoss(mutation=BernoulliMask(0.5))

    Args:
        alpha (float, optional): :math:`\alpha`, the weight of the VANILLA term. (default: :obj:`0.11`)
        beta (float, optional): :math:`\beta`, the label of mutated negatives. (default: :obj:`0.53`)
        mutation (Mutation, optional): One of :mod:`pyg_emu.negatives.mutation` that shares a mask among the negatives
        of a
            triple; with rate 0, unbounded label smoothing alone is left. (default: :obj:`None`, what
            :class:`~pyg_emu.EMUNegatives` has put on the batch)
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
        mutation: Optional[Any] = None,
        divide_by_negatives: bool = True,
        regularizer: Optional[Regularizer] = None,
        block_size: Optional[int] = None,
    ) -> None:
        super().__init__()
        if mutation is not None and (isinstance(mutation, type) or not callable(getattr(mutation, 'plan', None))):
            raise ArgumentError('mutation: expected an object with the method '
                                'plan of pyg_emu.negatives.mutation.Mutation, such '
                                f'as BernoulliMask(0.5), got {mutation!r}')
        self.alpha = non_negative('alpha', alpha)
        self.beta = non_negative('beta', beta)
        self.mutation = mutation
        self.divide_by_negatives = divide_by_negatives
        self.regularizer = penalty('regularizer', regularizer)
        self.block_size = _checked_block_size(block_size)

    def forward(self, model: Any, batch: Any) -> Tensor:
        scorer = as_scorer(model)
        check_sizes(scorer, batch, exact=True)
        check_device(model, batch)
        query = scorer.query(batch.known_index, batch.rel_type, batch.side)
        weight = 1.0 / max(scorer.num_nodes - 1, 1) if self.divide_by_negatives else 1.0
        plan = self._plan(scorer, query, batch)
        if plan is None:  # Both terms are of the same scores, and the loss is linear in the labels.
            labels = [(weight + self.alpha, weight * self.beta)]
        else:
            labels = [(weight, weight * self.beta)] + ([(self.alpha, 0.0)] if self.alpha > 0 else [])
        loss = _cross_entropy(scorer, query, batch.target_index, plan, labels, self.block_size)
        return loss if self.regularizer is None else loss + self.regularizer(scorer, batch)

    def _plan(self, scorer: Scorer, query: Tensor, batch: Any) -> Optional[MaskPlan]:
        mutation = self.mutation
        if mutation is None:
            mutation = getattr(batch, 'mutation', None)
            if mutation is None and getattr(batch, 'neg_index', None) is None:
                raise ArgumentError('mutation: there is none, neither of the loss nor on the batch; give '
                                    'mutation=BernoulliMask(0.5), of rate 0 for none')
        if mutation is None:
            return None
        mutation = mutation_for(mutation, batch)
        # Shared masks do not depend on the number of negatives; those that do are told apart without drawing them all.
        plan = mutation.plan(query, 1, scorer.entity_table().size(1), batch.generator, batch.step)
        if plan is not None and not (isinstance(plan, MaskPlan) and plan.index.dim() == 1):
            raise ArgumentError('mutation: against all entities, the negatives of a triple have to share one mask, but '
                                f'{mutation!r} mixes each of them in its own way; give shared=True, or '
                                'mutation=BernoulliMask(0.5)')
        return plan

    def extra_repr(self) -> str:
        return f'alpha={self.alpha}, beta={self.beta}, mutation={self.mutation}'


def _checked_block_size(value: Optional[int]) -> Optional[int]:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ArgumentError(f'block_size: expected an integer of at least 1, or None, got {value!r}')
    return value


def _cross_entropy(
    scorer: Scorer,
    query: Tensor,
    target: Tensor,
    plan: Optional[MaskPlan],
    labels: list[tuple[float, float]],
    block_size: Optional[int],
) -> Tensor:
    r"""The sum of cross-entropies, averaged over the batch, one for each pair of labels (of the target, of any other
    entity). The first is of mutated scores where there is a plan; the second, and without a plan the first, of vanilla
    ones.
    """
    terms, size = len(labels), query.size(0)
    score_block: _ScoreBlock
    if scorer.interaction.name == 'dot':
        # One product of stacked queries serves both terms. The model's constant offset cancels as the mask's does.
        queries = [query] * terms
        if plan is not None:
            mask = plan.bank[plan.index]
            queries[0] = query.masked_fill(mask, 0.0) if mask.dtype == torch.bool else query * (1 - mask)
        score_block, operands, most = _dot_scores, [torch.cat(queries)], _DOT_SCORES
    else:
        operands, most = [query, scorer.candidates(target)], _OTHER_SCORES
        if plan is not None:
            operands.append(plan.bank)
        score_block = _OperatorScores(scorer.interaction, None if plan is None else plan.index, terms)
    if block_size is None:
        block_size = max(most // max(terms * size, 1), 64)
    # Filled on the device: a copy from the host would make that wait, and could not be captured in a CUDA graph.
    columns = torch.stack([torch.cat([query.new_full((size, ), label) for label in kind]) for kind in zip(*labels)])
    rows: Tensor = _AllEntities.apply(score_block, block_size, target.repeat(terms), columns, scorer.entity_table(),
                                      *operands)
    return rows.view(terms, size).sum(0).mean()


def _dot_scores(block: Tensor, query: Tensor) -> Tensor:
    return query @ block.t()


class _OperatorScores:
    r"""Mutated scores, and vanilla ones below them where there are two terms, by the fused operator."""
    def __init__(self, interaction: Interaction, mask_index: Optional[Tensor], terms: int) -> None:
        self.interaction = interaction
        self.mask_index = mask_index
        self.terms = terms

    def __call__(self, block: Tensor, query: Tensor, positive: Tensor, bank: Optional[Tensor] = None) -> Tensor:
        index = torch.arange(block.size(0), device=block.device).expand(query.size(0), -1)
        plan = None if bank is None or self.mask_index is None else MaskPlan(bank, self.mask_index)
        scores = emu_score(query, positive, block, index, plan, interaction=self.interaction,
                           vanilla=plan is None or self.terms > 1)
        return torch.cat([part for part in (scores.mutated, scores.vanilla) if part is not None])


class _AllEntities(torch.autograd.Function):
    r"""Rows :obj:`(R,)` of :math:`-\sum_v y_v \log \mathrm{softmax}(s)_v` over all entities, with label
    :math:`y_0` for the target and :math:`y` for all others.

    With :math:`S` the logarithmic sum of exponentials this is :math:`(y_0 - y) (S - s_t) + y \sum_v (S - s_v)`, taken
    relative to the row's largest score, so that an offset common to all scores costs no digits.
    """
    @staticmethod
    def forward(
        ctx: Any,
        score_block: _ScoreBlock,
        block_size: int,
        target: Tensor,
        labels: Tensor,
        table: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        largest = labels.new_full(target.size(), -math.inf)
        total, shortfall, target_score = (torch.zeros_like(largest) for _ in range(3))
        for start in range(0, table.size(0), block_size):
            scores = score_block(table[start:start + block_size], *operands)
            place, inside = _place(target, start, scores)
            target_score = torch.where(inside, scores.gather(1, place).squeeze(1), target_score)
            raised = torch.maximum(largest, scores.amax(1))
            if start > 0:
                shortfall += start * (raised - largest)
            distance = raised.unsqueeze(1) - scores
            shortfall += distance.sum(1)
            total = total * (largest - raised).exp() + distance.neg_().exp_().sum(1)
            largest = raised
        log_sum = total.log()
        gap = log_sum - (target_score - largest)
        ctx.save_for_backward(target, labels, largest, log_sum, table, *operands)
        ctx.score_block, ctx.block_size = score_block, block_size
        positive_label, label = labels
        return (positive_label - label) * gap + label * (table.size(0) * log_sum + shortfall)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        target, labels, largest, log_sum, table, *operands = ctx.saved_tensors
        extra, label = (labels[0] - labels[1]) * grad, labels[1] * grad
        weight = (extra + label * table.size(0)).unsqueeze(1)
        wanted = ctx.needs_input_grad[4:]
        grad_table = torch.empty_like(table) if wanted[0] else None
        grads = [torch.zeros_like(value) if needed else None for value, needed in zip(operands, wanted[1:])]
        for start in range(0, table.size(0), ctx.block_size):
            own = slice(start, start + ctx.block_size)
            leaves = [value.detach().requires_grad_(needed)
                      for value, needed in zip((table[own], *operands), wanted)]
            with torch.enable_grad():
                scores = ctx.score_block(*leaves)
            slopes = (scores.detach() - largest.unsqueeze(1)).sub_(log_sum.unsqueeze(1)).exp_().mul_(weight)
            slopes.sub_(label.unsqueeze(1))
            place, inside = _place(target, start, slopes)
            slopes.scatter_add_(1, place, torch.where(inside, -extra, 0.0).unsqueeze(1))
            # Without a mutation, the operator does not look at the positives.
            found = iter(torch.autograd.grad(scores, [leaf for leaf in leaves if leaf.requires_grad], slopes,
                                             allow_unused=True, materialize_grads=True))
            if grad_table is not None:
                grad_table[own] = next(found)
            for value in grads:
                if value is not None:
                    value += next(found)
        return (None, None, None, None, grad_table, *grads)


def _place(target: Tensor, start: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    r"""The column of each row's target in a block that begins with entity :obj:`start`, and whether it is there."""
    column = target - start
    inside = (column >= 0) & (column < scores.size(1))
    return column.clamp(0, scores.size(1) - 1).unsqueeze(1), inside

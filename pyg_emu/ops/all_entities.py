r"""Cross-entropy against ALL entities, without a tensor of size :math:`B \times V`.

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
from typing import Any, Callable, Optional, Union, cast

import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below, instance, is_number, kind_of, on_device, positive_integer, tensors
from pyg_emu.core.derivatives import first_order
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import Dot, Interaction
from pyg_emu.core.mapped_table import is_mapped
from pyg_emu.core.precision import without_autocast
from pyg_emu.core.sharded_table import ShardedTable, rows_of
from pyg_emu.ops.emu_score import emu_score
from pyg_emu.ops.emu_score.operator import checked_plan
from pyg_emu.ops.interop import promoted, uncompiled
from pyg_emu.ops.plan import MaskPlan

_DOT = Dot()
# Scores in one block where the caller does not say: matrix products want large blocks, and those of the operator's
# reference hold a vector for each score.
_DOT_SCORES, _OTHER_SCORES = 2**23, 2**18

# Scores (R, n) of a block of n candidates from the candidates (n, d) and the operands.
_ScoreBlock = Callable[..., Tensor]


@uncompiled
def all_entities_cross_entropy(
    query: Tensor,
    table: Union[Tensor, ShardedTable],
    target: Tensor,
    labels: list[tuple[float, float]],
    *,
    positive: Optional[Tensor] = None,
    plan: Optional[MaskPlan] = None,
    interaction: Interaction = _DOT,
    block_size: Optional[int] = None,
    weight: Optional[Tensor] = None,
) -> Tensor:
    r"""The sum of cross-entropies against all entities, one for each pair of labels, averaged over the batch.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.
        table (torch.Tensor or ShardedTable): All candidates. shape: :obj:`(V, d)`. Processes among which the rows are
            divided score their own, and exchange the largest score and three sums for each row of the batch.
        target (torch.Tensor): The positives' ids, int64. shape: :obj:`(B,)`.
        labels (list of tuple): One or two pairs of labels: the target's and that of any other entity. The first pair
            applies to the mutated scores where there is a :obj:`plan`, the second one, and without a :obj:`plan` the
            first one, to the vanilla scores.
        positive (torch.Tensor, optional): The rows of the positives. Dot products do not need them.
            (default: :obj:`None`) shape: :obj:`(B, d)`.
        plan (MaskPlan, optional): One mask per triple. (default: :obj:`None`, nothing is mutated)
        interaction (Interaction, optional): :math:`\phi`. (default: :class:`~pyg_emu.core.interaction.Dot`)
        block_size (int, optional): Entities per block. The result does not depend on it.
            (default: :obj:`None`, as many as give :math:`2^{23}` scores, or :math:`2^{18}` for interactions other than
            dot products)
        weight (torch.Tensor, optional): Weights of the rows of the batch: the mean is :math:`\sum_b w_b \ell_b / \sum_b
            w_b`. They receive no gradient. shape: :obj:`(B,)`. (default: :obj:`None`)

    Operands of different floating-point types, as they occur under :class:`torch.autocast`, are promoted to a common
    one, in which scores are computed. Sums over entities, and the result, have at least single precision.

    :rtype: :class:`torch.Tensor`, a scalar.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype or device, or is out of range, the plan has a mask or
            a label for each slot, or the interaction has trainable parameters, which blocks that are scored anew in
            the backward pass cannot reach.
    """
    _check(query, table, target, labels, positive, interaction, weight)
    if block_size is not None:
        positive_integer('block_size', block_size)
    if plan is not None:
        instance('plan', plan, MaskPlan)
    if plan is not None and plan.label is not None:
        raise ArgumentError('plan.label: expected None, as labels against all entities are those of the loss, got '
                            f'labels of shape {tuple(plan.label.shape)}')
    if isinstance(table, Tensor) and table.requires_grad and torch.is_grad_enabled() and is_mapped(table):
        raise ArgumentError('table: it is in a memory-mapped file, and its gradient, which a loss against all entities '
                            'makes dense, would be in memory; train with sampled negatives, such as EMULoss')
    shards, table = (table, table.rows) if isinstance(table, ShardedTable) else (None, table)
    if positive is None:
        query, table = promoted(query, table)
    else:
        query, table, positive = promoted(query, table, positive)
    if plan is not None:
        plan = cast(MaskPlan, checked_plan(plan, table, (query.size(0), ), None))
    with without_autocast(table):
        rows = _cross_entropy(query, table, target, labels, positive, plan, interaction, block_size, shards)
        if weight is None:
            return rows.mean()
        weight = weight.detach().to(rows.dtype)
        return (rows * weight).sum() / weight.sum()


def _cross_entropy(query: Tensor, table: Tensor, target: Tensor, labels: list[tuple[float, float]],
                   positive: Optional[Tensor], plan: Optional[MaskPlan], interaction: Interaction,
                   block_size: Optional[int], shards: Optional[ShardedTable]) -> Tensor:
    terms, size = len(labels), query.size(0)
    score_block: _ScoreBlock
    if interaction.matrix_product:
        # One product of stacked queries serves both terms. The model's constant offset cancels as the mask's does.
        queries = [query] * terms
        if plan is not None:
            mask = plan.bank[plan.index]
            queries[0] = query.masked_fill(mask, 0.0) if mask.dtype == torch.bool else query * (1 - mask)
        score_block, operands, most = _dot_scores, [torch.cat(queries)], _DOT_SCORES
    else:
        assert positive is not None
        _check_parameters(interaction, query, table)
        operands, most = [query, positive], _OTHER_SCORES
        if plan is not None:
            operands.append(plan.bank)
        score_block = _OperatorScores(interaction, None if plan is None else plan.index, terms)
    if block_size is None:
        block_size = max(most // max(terms * size, 1), 64)
    # Filled on the device: a copy from the host would make that wait, and could not be captured in a CUDA graph. Their
    # type is that of all sums, in which float16 would overflow after some thousand entities.
    dtype = torch.promote_types(query.dtype, torch.float32)
    columns = torch.stack([torch.cat([query.new_full((size, ), label, dtype=dtype) for label in kind])
                           for kind in zip(*labels)])
    if shards is not None:
        operands = [*shards.shared(*operands)]
    rows: Tensor = _AllEntities.apply(score_block, block_size, shards, target.repeat(terms), columns, table, *operands)
    return rows.view(terms, size).sum(0)


def _check(query: Tensor, table: Any, target: Tensor, labels: Any, positive: Optional[Tensor],
           interaction: Interaction, weight: Optional[Tensor]) -> None:
    tensors(query=query, table=rows_of(table), target=target, optional=('positive', 'weight'),
            positive=positive, weight=weight)
    instance('interaction', interaction, Interaction)
    if table.dim() != 2 or not table.is_floating_point():
        raise ArgumentError(f'table: expected floating-point numbers of shape (V, d), got {kind_of(table)}')
    if target.dim() != 1 or target.dtype != torch.int64:
        raise ArgumentError(f'target: expected int64 entity ids of shape (B,), got {kind_of(target)}')
    if positive is None and not interaction.matrix_product:
        raise ArgumentError(f'positive: {interaction.name} needs the rows of the positives, got None')
    widths = {'query': (query, interaction.query_width(table.size(1))), 'positive': (positive, table.size(1))}
    for name, (value, width) in widths.items():
        if value is not None and (tuple(value.shape) != (target.numel(), width) or not value.is_floating_point()):
            raise ArgumentError(f'{name}: expected floating-point numbers of shape {(target.numel(), width)}, to go '
                                f'with target and table, got {kind_of(value)}')
    if weight is not None and (tuple(weight.shape) != (target.numel(), ) or not weight.is_floating_point()):
        raise ArgumentError(f'weight: expected floating-point numbers of shape {(target.numel(), )}, one for each '
                            f'query, got {kind_of(weight)}')
    for name, ids in (('query', query), ('target', target), ('positive', positive), ('weight', weight)):
        if ids is not None:
            on_device(name, ids, table.device, 'table')
    ids_below('target', target, table.size(0), 'rows of table')
    if not isinstance(labels, (list, tuple)) or not 1 <= len(labels) <= 2 or not all(
            isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_label, pair)) for pair in labels):
        raise ArgumentError(f'labels: expected one or two pairs of numbers, got {labels!r:.100}')


def _is_label(value: Any) -> bool:
    return is_number(value) or (isinstance(value, Tensor) and value.dim() == 0)


def _check_parameters(interaction: Interaction, query: Tensor, table: Tensor) -> None:
    if interaction(query[:0].detach(), table[:0].detach()).requires_grad:
        raise ArgumentError(f'interaction: {type(interaction).__name__} has trainable parameters, which get no '
                            'gradient here; expected one whose scores depend only on queries and candidates')


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

    With :obj:`shards`, the table holds the rows of this process, and :obj:`target` the ids of the whole table.
    """
    @staticmethod
    def forward(
        ctx: Any,
        score_block: _ScoreBlock,
        block_size: int,
        shards: Optional[ShardedTable],
        target: Tensor,
        labels: Tensor,
        table: Tensor,
        *operands: Tensor,
    ) -> Tensor:
        num_entities = table.size(0)
        if shards is not None:
            num_entities, target = shards.num_rows, target - shards.start
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
        if shards is not None:
            raised = shards.largest(largest)
            if table.size(0) > 0:
                shortfall += table.size(0) * (raised - largest)
            parts = torch.stack([total * (largest - raised).exp(), shortfall, target_score])
            total, shortfall, target_score = shards.sum(parts)
            largest = raised
        log_sum = total.log()
        gap = log_sum - (target_score - largest)
        ctx.save_for_backward(target, labels, largest, log_sum, table, *operands)
        ctx.score_block, ctx.block_size, ctx.num_entities = score_block, block_size, num_entities
        positive_label, label = labels
        return (positive_label - label) * gap + label * (num_entities * log_sum + shortfall)

    @staticmethod
    @first_order('all_entities_cross_entropy', 'give model.score_all(query) to torch.nn.functional.cross_entropy')
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        target, labels, largest, log_sum, table, *operands = ctx.saved_tensors
        extra, label = (labels[0] - labels[1]) * grad, labels[1] * grad
        weight = (extra + label * ctx.num_entities).unsqueeze(1)
        wanted = ctx.needs_input_grad[5:]
        grad_table = torch.empty_like(table) if wanted[0] else None
        grads = [torch.zeros_like(value) if needed else None for value, needed in zip(operands, wanted[1:])]
        for start in range(0, table.size(0), ctx.block_size):
            own = slice(start, start + ctx.block_size)
            leaves = [value.detach().requires_grad_(needed)
                      for value, needed in zip((table[own], *operands), wanted)]
            # A backward pass may be called inside of autocast.
            with torch.enable_grad(), without_autocast(table):
                scores = ctx.score_block(*leaves)
            slopes = (scores.detach() - largest.unsqueeze(1)).sub_(log_sum.unsqueeze(1)).exp_().mul_(weight)
            slopes.sub_(label.unsqueeze(1))
            place, inside = _place(target, start, slopes)
            slopes.scatter_add_(1, place, torch.where(inside, -extra, 0.0).unsqueeze(1))
            # Without a mutation, the operator does not look at the positives.
            found = iter(torch.autograd.grad(scores, [leaf for leaf in leaves if leaf.requires_grad],
                                             slopes.to(scores.dtype), allow_unused=True, materialize_grads=True))
            if grad_table is not None:
                grad_table[own] = next(found)
            for value in grads:
                if value is not None:
                    value += next(found)
        return (None, None, None, None, None, grad_table, *grads)


def _place(target: Tensor, start: int, scores: Tensor) -> tuple[Tensor, Tensor]:
    r"""The column of each row's target in a block that begins with entity :obj:`start`, and whether it is there."""
    column = target - start
    inside = (column >= 0) & (column < scores.size(1))
    return column.clamp(0, scores.size(1) - 1).unsqueeze(1), inside

r"""The CPU implementation of :func:`~pyg_emu.ops.emu_score` in Numba, parallel and without atomics.

The forward pass processes triples in parallel and reads each row of the table once for both scores. The gradients of
queries and positives are also computed in parallel over triples. For the gradient of the table, slots are grouped by
entity and divided into pieces of equal size, which are processed in parallel. Results are bitwise identical for any
number of threads. Dot products of pairs with known slots are those of :mod:`~pyg_emu.ops.emu_score.numba_dot_pairs`.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.derivatives import first_order
from pyg_emu.core.interaction import Dot, Interaction
from pyg_emu.ops.backend import TWICE
from pyg_emu.ops.emu_score import numba_dot_pairs
from pyg_emu.ops.emu_score import numba_kernels as kernels
from pyg_emu.ops.emu_score.autograd import Options, differentiated
from pyg_emu.ops.emu_score.numba_terms import TERMS, Hard, Listed, LonePair, Mask, Pair, Plain, Shared, Soft, terms_of
from pyg_emu.ops.numba_grouping import group
from pyg_emu.ops.numba_runtime import parallel_section
from pyg_emu.ops.plan import MixPlan, Plan

_DTYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class _EMUScore(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        positive: Tensor,
        table: Tensor,
        index: Tensor,
        bank: Tensor | None,
        mask_index: Tensor | None,
        weight: Tensor | None,
        partner: Tensor | None,
        options: Options,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.options = options
        mutate = bank is not None or weight is not None
        empty = table.new_empty(0, 0)
        scores = [table.new_empty(index.size()) if wanted else empty for wanted in (options.vanilla, mutate)]
        with_norm = options.interaction.has_norm
        norms = [torch.empty_like(score) if with_norm else empty for score in scores]
        ctx.save_for_backward(query, positive, table, index, bank, mask_index, weight, partner,
                              *norms)
        if index.numel() > 0:
            operands = _operands(query, positive, table, index, bank, mask_index, weight, partner, options)
            with parallel_section():
                kernels.forward(*operands, scores[0].numpy(), norms[0].numpy(), scores[1].numpy(), norms[1].numpy(),
                                options.vanilla)
        return scores[0] if options.vanilla else None, scores[1] if mutate else None

    @staticmethod
    @first_order("emu_score with backend 'numba'", TWICE)
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        query, positive, table, index, bank, mask_index, weight, partner, *norms = ctx.saved_tensors
        needs_query, needs_positive, needs_table, _, needs_bank, _, needs_weight, _, _ = ctx.needs_input_grad
        operands = _operands(query, positive, table, index, bank, mask_index, weight, partner, ctx.options)
        nothing = table.new_zeros(1, 1)
        upstream = kernels.Upstream(*((nothing if value is None or value.numel() == 0 else value.contiguous()).numpy()
                                      for value in (*grads, *norms)))

        grad_query = grad_positive = grad_weight = grad_table = grad_bank = None
        if needs_query or needs_positive or needs_weight:
            grad_query = torch.zeros(query.size(), dtype=query.dtype, device='cpu')
            grad_positive = torch.zeros(positive.size(), dtype=query.dtype, device='cpu')
            grad_weight = torch.empty(operands.data.weight.shape, dtype=query.dtype, device='cpu')
            if index.numel() > 0:
                with parallel_section():
                    kernels.backward_batch(*operands, upstream, grad_query.numpy(), grad_positive.numpy(),
                                           grad_weight.numpy())
        if isinstance(operands.kind, Shared):
            # Each slot reads its mask again here. Loading bytes is faster than loading floats without conversion.
            operands = operands._replace(data=operands.data._replace(bank=operands.data.bank.astype(np.uint8)))
        if needs_table:
            # Negatives and partners alternate, see numba_kernels._grouped_slot.
            ids = index if partner is None else torch.stack([index, partner], dim=-1)
            grad_table = _rows_gradient(operands, upstream, ids.flatten(), table.size(), ctx.options.sparse_grad)
        if needs_bank:
            masks = torch.from_numpy(operands.data.mask_index).expand(index.size()).flatten().long()
            operands = operands._replace(kind=Mask(*operands.kind))
            grad_bank = _rows_gradient(operands, upstream, masks, bank.size(), sparse=False)
        return (grad_query, grad_positive, grad_table, None, grad_bank, None, grad_weight if needs_weight else None,
                None, None)


class _DotPairs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        table: Tensor,
        index: Tensor,
        weight: Tensor,
        partner: Tensor,
        slot: Tensor,
        options: Options,
    ) -> tuple[Tensor | None, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.options = options
        own, other, mixed = numba_dot_pairs.forward(_pairs(query, table, index, weight, partner, options),
                                                    slot.contiguous().numpy())
        scores = (own, other) if ctx.needs_input_grad[3] else ()
        ctx.save_for_backward(query, table, index, weight, partner, slot, *scores)
        return own if options.vanilla else None, mixed

    @staticmethod
    @first_order("emu_score with backend 'numba'", TWICE)
    def backward(ctx: Any, vanilla: Tensor | None, mutated: Tensor | None) -> tuple[Any, ...]:
        query, table, index, weight, partner, slot, *scores = ctx.saved_tensors
        needs_query, needs_table, _, needs_weight, *_ = ctx.needs_input_grad
        for_vanilla, for_mutated = ((torch.zeros_like(weight) if value is None else value).contiguous().numpy()
                                    for value in (vanilla, mutated))
        grad_query = torch.zeros(query.size(), dtype=query.dtype, device='cpu') if needs_query else None
        grad_weight = grad_table = None
        operands, grads = numba_dot_pairs.backward(
            _pairs(query, table, index, weight, partner, ctx.options), slot.contiguous().numpy(), for_vanilla,
            for_mutated, None if grad_query is None else grad_query.numpy())
        if needs_weight:
            grad_weight = torch.zeros_like(weight) if mutated is None else mutated * (scores[0] - scores[1])
        if needs_table:
            kind: Any = Listed
            one = _DTYPES[table.dtype](1)
            listed = _Operands(kind(one), terms_of(ctx.options.interaction, type(one)), operands)
            empty = np.zeros((1, 1), grads.dtype)
            grad_table = _rows_gradient(listed, kernels.Upstream(grads, empty, empty, empty),
                                        torch.from_numpy(operands.index).flatten(), table.size(),
                                        ctx.options.sparse_grad)
        return grad_query, grad_table, None, grad_weight, None, None, None


def _pairs(query: Tensor, table: Tensor, index: Tensor, weight: Tensor, partner: Tensor,
           options: Options) -> kernels.Data:
    # The positives take no part in such scores.
    return _operands(query, query, table, index, None, None, weight, partner, options).data


def run(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, plan: Plan | None, interaction: Interaction,
        vanilla: bool, sparse_grad: bool) -> tuple[Tensor | None, Tensor | None]:
    r"""See :func:`~pyg_emu.ops.emu_score`."""
    if type(interaction) is Dot and isinstance(plan, MixPlan) and plan.partner is not None and plan.slot is not None:
        pairs: tuple[Tensor | None, Tensor] = _DotPairs.apply(query, table, index, plan.weight, plan.partner, plan.slot,
                                                              Options(interaction, vanilla, sparse_grad))
        return pairs
    return differentiated(_EMUScore, query, positive, table, index, plan, interaction, vanilla, sparse_grad)


def obstacle(interaction: Interaction) -> str | None:
    r"""See :mod:`pyg_emu.ops.backend`."""
    if type(interaction) in TERMS:
        return None
    return f'it has no kernels for the interaction {type(interaction).__name__}'


class _Operands(NamedTuple):
    r"""The first arguments of all kernels."""
    kind: Any
    terms: Any
    data: kernels.Data


def _operands(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    bank: Tensor | None,
    mask_index: Tensor | None,
    weight: Tensor | None,
    partner: Tensor | None,
    options: Options,
) -> _Operands:
    width, one = table.size(1), _DTYPES[table.dtype](1)
    terms = terms_of(options.interaction, type(one))
    _, parts, sums, _ = terms.layout(terms)
    kind: Any = Soft
    if bank is None:
        pair = Pair if options.vanilla else LonePair
        kind = Plain if weight is None else Soft if partner is None else pair
        bank = table.new_zeros(1, width, dtype=torch.uint8 if weight is None else table.dtype)
    elif bank.dtype == torch.bool:
        # A complex component is one term, so a mask that differs between its two parts needs the soft kernels.
        if parts == sums or torch.equal(bank[:, :width // 2], bank[:, width // 2:]):
            kind, bank = Hard, bank.contiguous().view(torch.uint8)
            if mask_index is not None and mask_index.dim() == 1:
                # The kept fraction of each triple's negatives, as a factor.
                kind, bank, mask_index = Shared, bank[mask_index].logical_not().to(table.dtype), None
        else:
            bank = bank.to(table.dtype)
    if mask_index is None:
        mask_index = index.new_zeros(0, 0)
    elif mask_index.dim() == 1:
        mask_index = mask_index.unsqueeze(1)
    if weight is None:
        weight = table.new_empty(0, 0)
    if partner is None:
        partner = index.new_empty(0, 0)
    tensors = (query, positive, table, index, bank, mask_index.to(torch.int32), weight, partner)
    data = kernels.Data(*(tensor.detach().contiguous().numpy() for tensor in tensors))
    return _Operands(kind(one), terms, data)


def _rows_gradient(operands: _Operands, upstream: kernels.Upstream, ids: Tensor, size: torch.Size,
                   sparse: bool) -> Tensor:
    r"""Returns the gradient of a matrix from which each slot reads the row in :obj:`ids`."""
    dtype = operands.data.table.dtype
    with parallel_section():
        groups = group(ids.numpy(), size[0])
        num_groups, num_pieces = int(groups.first[-1]), groups.first.size - 1
        target = np.zeros((num_groups if sparse else size[0], size[1]), dtype)
        touched = np.empty(num_groups if sparse else 0, np.int64)
        if num_pieces > 0:
            partial = np.zeros((num_pieces, 2, size[1]), dtype)
            partial_row = np.full((num_pieces, 2), -1, np.int64)
            kernels.backward_rows(*operands, upstream, *groups, sparse, target, touched, partial, partial_row)
    if not sparse:
        return torch.from_numpy(target)
    return torch.sparse_coo_tensor(torch.from_numpy(touched).unsqueeze(0), torch.from_numpy(target), size,
                                   is_coalesced=True, check_invariants=False)

r"""The CPU implementation of :func:`~pyg_emu.ops.emu_loss` in Numba, parallel and without atomics.

The forward pass computes the loss and also its gradients by queries, positives and scores, which the scores of a triple
determine. The backward pass scales them, groups slots by entity, and sums the gradients of the table. Results are
bitwise identical for any number of threads.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyg_emu.core.derivatives import first_order
from pyg_emu.core.interaction import Interaction
from pyg_emu.ops.backend import TWICE
from pyg_emu.ops.emu_loss import numba_kernels as kernels
from pyg_emu.ops.emu_loss.numba_terms import LANES, TERMS, PerNegative, PerTriple, Unmasked
from pyg_emu.ops.numba_grouping import group
from pyg_emu.ops.numba_runtime import parallel_section
from pyg_emu.ops.plan import MaskPlan, Plan

_DTYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


class Options(NamedTuple):
    r"""The non-differentiable arguments of :func:`~pyg_emu.ops.emu_loss`."""
    interaction: Interaction
    offset: float
    labels: tuple[float, ...]
    sparse_grad: bool


class _EMULoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        positive: Tensor,
        table: Tensor,
        index: Tensor,
        bank: Tensor | None,
        mask_index: Tensor | None,
        counts: Tensor | None,
        options: Options,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.options = options
        size, num = index.shape
        differentiable = any(ctx.needs_input_grad[:3])
        vanilla, mutated = table.new_empty(size, num), table.new_empty((0, 0) if bank is None else (size, num))
        positive_score, terms = table.new_empty(size), table.new_empty(size, 2)
        slopes = table.new_empty(size, 2 * num) if differentiable else table.new_empty(0, 0)
        grad_query, grad_positive = ((torch.empty_like(query, memory_format=torch.contiguous_format),
                                      torch.empty_like(positive, memory_format=torch.contiguous_format))
                                     if differentiable else (table.new_empty(0, 0), table.new_empty(0, 0)))
        operands = _operands(query, positive, table, index, bank, mask_index, options)
        dtype = _DTYPES[table.dtype]
        constants = (*options.labels, options.offset, torch.finfo(table.dtype).min / 2)
        labels = kernels.Labels(*(dtype(value) for value in constants))
        used = torch.empty(0, 0, dtype=torch.bool, device='cpu') if counts is None else counts.contiguous()
        results = kernels.Results(*(value.numpy() for value in (positive_score, vanilla, mutated, terms, slopes,
                                                                grad_query, grad_positive)))
        with parallel_section():
            kernels.triples(*operands, used.view(torch.uint8).numpy(), labels, dtype(1.0 / size), results,
                            differentiable)
        ctx.save_for_backward(query, positive, table, index, bank, mask_index, slopes, grad_query, grad_positive)
        terms = terms.mean(0)
        details = (terms, positive_score, vanilla, mutated)
        ctx.mark_non_differentiable(*details)
        return (terms.sum(), *details)

    @staticmethod
    @first_order("emu_loss with backend 'numba'", TWICE)
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Any, ...]:
        if grad is None:
            return (None, ) * 8
        query, positive, table, index, bank, mask_index, slopes, grad_query, grad_positive = ctx.saved_tensors
        needs_query, needs_positive, needs_table = ctx.needs_input_grad[:3]
        grad_table = None
        if needs_table:
            operands = _operands(query, positive, table, index, bank, mask_index, ctx.options)
            grad_table = _table_gradient(operands, slopes, _DTYPES[table.dtype](grad.item()), table.size(),
                                         ctx.options.sparse_grad)
        return (grad * grad_query if needs_query else None, grad * grad_positive if needs_positive else None,
                grad_table, None, None, None, None, None)


def run(
    query: Tensor,
    positive: Tensor,
    table: Tensor,
    index: Tensor,
    plan: Plan | None,
    counts: Tensor | None,
    interaction: Interaction,
    offset: float,
    labels: tuple[float, ...],
    sparse_grad: bool,
) -> tuple[Tensor, ...]:
    r"""The loss, its two terms, and the scores of positives, negatives and mutated negatives, of checked arguments;
    see :func:`~pyg_emu.ops.emu_loss`."""
    bank, mask_index = (plan.bank, plan.index) if isinstance(plan, MaskPlan) else (None, None)
    options = Options(interaction, offset, labels, sparse_grad)
    result: tuple[Tensor, ...] = _EMULoss.apply(query, positive, table, index, bank, mask_index, counts, options)
    return result


def obstacle(interaction: Interaction, plan: Plan | None, width: int, num_slots: int) -> str | None:
    r"""See :mod:`pyg_emu.ops.backend`."""
    if type(interaction) not in TERMS:
        return f'it has no kernels for the interaction {type(interaction).__name__}'
    if width // interaction.parts < LANES:
        return f'it requires at least {LANES} components, got {width // interaction.parts}'
    if num_slots == 0:
        return 'it requires negatives, got none'
    if plan is None:
        return None
    if not isinstance(plan, MaskPlan) or plan.bank.dtype != torch.bool or plan.label is not None:
        return 'it has no kernels for plans other than binary masks without labels'
    # A complex component is one term, so both of its parts need the same mask.
    half = width // 2
    if interaction.parts == 2 and not torch.equal(plan.bank[:, :half], plan.bank[:, half:]):
        return 'it has no kernels for masks that differ between the two parts of a complex component'
    return None


class _Operands(NamedTuple):
    r"""The first arguments of all kernels."""
    kind: Any
    tag: Any
    data: kernels.Data


def _operands(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, bank: Tensor | None,
              mask_index: Tensor | None, options: Options) -> _Operands:
    one = _DTYPES[table.dtype](1)
    kind: Any = PerNegative
    if bank is None or mask_index is None:
        kind, bank = Unmasked, torch.zeros(1, table.size(1), dtype=torch.bool, device='cpu')
        mask_index = torch.zeros(index.size(0), 1, dtype=torch.int32, device='cpu')
    elif mask_index.dim() == 1:
        kind, mask_index = PerTriple, mask_index.unsqueeze(1)
    size = table.size(1) // options.interaction.parts
    live = torch.ones(-(-size // LANES), LANES, dtype=table.dtype, device='cpu')
    live[-1, :live.numel() - size] = 0.0
    tensors = (query, positive, table, index.reshape(-1), bank.contiguous().view(torch.uint8),
               mask_index.to(torch.int32), live)
    data = kernels.Data(*(tensor.detach().contiguous().numpy() for tensor in tensors))
    return _Operands(kind(one), TERMS[type(options.interaction)](one), data)


def _table_gradient(operands: _Operands, slopes: Tensor, scale: Any, size: torch.Size, sparse: bool) -> Tensor:
    r"""Returns the gradient of the table, given that of the loss."""
    dtype = operands.data.table.dtype
    with parallel_section():
        groups = group(operands.data.index, size[0])
        num_groups, num_pieces = int(groups.first[-1]), groups.first.size - 1
        target = np.empty((num_groups if sparse else size[0], size[1]), dtype)
        touched = np.empty(num_groups if sparse else 0, np.int64)
        partial = np.empty((2 * num_pieces, size[1]), dtype)
        kernels.rows(*operands, slopes.view(1, -1).numpy(), scale, *groups, sparse, target, touched, partial,
                     np.full(2 * num_pieces, -1, np.int64))
    if not sparse:
        return torch.from_numpy(target)
    return torch.sparse_coo_tensor(torch.from_numpy(touched).unsqueeze(0), torch.from_numpy(target), size,
                                   is_coalesced=True, check_invariants=False)

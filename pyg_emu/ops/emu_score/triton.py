r"""The CUDA implementation of :func:`~pyg_emu.ops.emu_score` in Triton, without atomics.

In the forward pass, a program processes one triple and a block of its negatives, and reads each row of the table once
for both scores. For the gradients of queries and positives, a program processes one triple. For the gradient of the
table, slots are sorted by entity on the device and a program processes one entity. The slots of frequent entities are
divided into pieces. Results do not depend on the order of the programs. No operation synchronizes with the host, so a
CUDA graph can capture a whole training step (:class:`~pyg_emu.training.GraphedStep`). The only exception
is a row-sparse gradient, because the host needs its number of rows.

Tables in float16 and bfloat16 are converted to float32 when loaded. Sums are float32 and rounded once.
"""
from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from pyg_emu.core.derivatives import first_order
from pyg_emu.core.interaction import Interaction
from pyg_emu.ops.backend import TWICE
from pyg_emu.ops.emu_score import triton_kernels as kernels
from pyg_emu.ops.emu_score.autograd import Options, differentiated
from pyg_emu.ops.emu_score.triton_terms import INTERACTIONS, constants_of
from pyg_emu.ops.triton_runtime import mend_interpreter

# The number of slots in a tile by the number of query parts, such that tiles fit into registers. Backward tiles have
# half as many slots, because they also contain tiles of sums.
_SLOTS = {1: 32, 2: 16, 3: 8}
# The number of components in a tile. A row of 100 components is a single tile.
_COMPONENTS = 128
# The number of slots in a piece, which bounds the slots of one entity per program. It is a multiple of all tile sizes.
_PIECE = 64

if not isinstance(kernels.forward, triton.JITFunction):
    mend_interpreter()


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
        with_norm = options.interaction.has_norm
        scores = [table.new_empty(index.size()) if wanted else None for wanted in (options.vanilla, mutate)]
        norms = [None if score is None or not with_norm else torch.empty_like(score, dtype=torch.float32)
                 for score in scores]
        ctx.save_for_backward(query, positive, table, index, bank, mask_index, weight, partner,
                              *norms)
        if index.numel() > 0:
            operands = _Operands.of(query, positive, table, index, bank, mask_index, weight, partner,
                                    options.interaction)
            block = operands.slots()
            outputs = (scores[0], norms[0], scores[1], norms[1])
            with torch.cuda.device_of(table):
                kernels.forward[index.size(0), triton.cdiv(index.size(1), block)](
                    *operands.tensors, *operands.filled(outputs), *operands.scalars, HAS_VANILLA=options.vanilla,
                    HAS_NORM=with_norm, BLOCK_S=block, **operands.constants)
        return scores[0], scores[1]

    @staticmethod
    @first_order("emu_score with backend 'triton'", TWICE)
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        query, positive, table, index, bank, mask_index, weight, partner, *norms = ctx.saved_tensors
        needs_query, needs_positive, needs_table, _, needs_bank, _, needs_weight, _, _ = ctx.needs_input_grad
        operands = _Operands.of(query, positive, table, index, bank, mask_index, weight, partner,
                                ctx.options.interaction)
        upstream = _Upstream.of(grads, norms)

        grad_query = grad_positive = grad_table = grad_bank = grad_weight = None
        with torch.cuda.device_of(table):
            if needs_query or needs_positive:
                grad_query, grad_positive = _batch_gradients(operands, upstream, query, positive, index)
            if needs_table:
                # Negatives and partners alternate, see triton_kernels._pull_slots.
                ids = index if partner is None else torch.stack([index, partner], dim=-1)
                grad_table = _rows_gradient(operands, upstream, ids.flatten(), table, False, ctx.options.sparse_grad)
            if needs_bank:
                masks = mask_index.unsqueeze(1) if mask_index.dim() == 1 else mask_index
                masks = masks.expand(index.size()).flatten()
                grad_bank = _rows_gradient(operands, upstream, masks, bank, True, sparse=False)
            if needs_weight:
                grad_weight = _weight_gradient(operands, upstream, index, weight)
        return grad_query, grad_positive, grad_table, None, grad_bank, None, grad_weight, None, None


#: See :func:`~pyg_emu.ops.emu_score`.
run = partial(differentiated, _EMUScore)


def obstacle(interaction: Interaction) -> str | None:
    r"""See :mod:`pyg_emu.ops.backend`."""
    if type(interaction) in INTERACTIONS:
        return None
    return f'it has no kernels for the interaction {type(interaction).__name__}'


class _Operands(NamedTuple):
    r"""The common arguments of all kernels.

    Args:
        tensors (tuple): Queries, positives, table, index, bank, mask index, weights and partners. The table is a
            placeholder for tensors that a plan does not have, which are never read.
        scalars (tuple): The number of slots per triple and the constants of the interaction.
        constants (dict): The compile-time constants.
    """
    tensors: tuple[Tensor, ...]
    scalars: tuple[float, ...]
    constants: dict[str, Any]

    @classmethod
    def of(
        cls,
        query: Tensor,
        positive: Tensor,
        table: Tensor,
        index: Tensor,
        bank: Tensor | None,
        mask_index: Tensor | None,
        weight: Tensor | None,
        partner: Tensor | None,
        interaction: Interaction,
    ) -> _Operands:
        if weight is not None:
            plan = 'mix' if partner is None else 'pair'
        elif bank is not None:
            plan = 'hard' if bank.dtype == torch.bool else 'soft'
        else:
            plan = 'none'
        if plan == 'hard':
            assert bank is not None
            bank = bank.contiguous().view(torch.uint8)
        tensors = tuple((table if value is None else value).contiguous()
                        for value in (query, positive, table, index, bank, mask_index, weight, partner))
        size = table.size(1) // interaction.parts
        constants = {
            'PHI': interaction.name,
            'PLAN': plan,
            'SHARED': mask_index is not None and mask_index.dim() == 1,
            'SIZE': size,
            'PARTS': interaction.parts,
            'QUERY_PARTS': interaction.query_parts,
            'BLOCK_K': _block(_COMPONENTS, size),
        }
        return cls(tensors, (index.size(1), *constants_of(interaction)), constants)

    def filled(self, tensors: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
        r"""Replaces missing tensors, which are never accessed, by the table."""
        return tuple(self.tensors[2] if value is None else value for value in tensors)

    def slots(self, backward: bool = False) -> int:
        r"""Returns the number of slots in a tile."""
        return _SLOTS[self.constants['QUERY_PARTS']] // (2 if backward else 1)

    @property
    def blocks(self) -> int:
        r"""The number of tiles for all components."""
        return triton.cdiv(self.constants['SIZE'], self.constants['BLOCK_K'])


class _Upstream(NamedTuple):
    r"""The gradients of the scores and the norms in the scores."""
    tensors: tuple[Tensor | None, ...]
    constants: dict[str, Any]

    @classmethod
    def of(cls, grads: tuple[Tensor | None, ...], norms: list[Tensor | None]) -> _Upstream:
        vanilla, mutated = (None if grad is None else grad.contiguous() for grad in grads)
        constants = {'HAS_VANILLA': vanilla is not None, 'HAS_MUTATED': mutated is not None}
        return cls((vanilla, norms[0], mutated, norms[1]), constants)


def _batch_gradients(operands: _Operands, upstream: _Upstream, query: Tensor, positive: Tensor,
                     index: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns the gradients of queries and positives."""
    grad_query = torch.empty(query.size(), dtype=query.dtype, device=query.device)
    grad_positive = torch.empty(positive.size(), dtype=positive.dtype, device=positive.device)
    if index.size(0) > 0 and operands.blocks > 0:
        kernels.backward_batch[index.size(0), operands.blocks](
            *operands.tensors, *operands.filled(upstream.tensors), grad_query, grad_positive, *operands.scalars,
            BLOCK_S=operands.slots(backward=True), **operands.constants, **upstream.constants)
    return grad_query, grad_positive


def _weight_gradient(operands: _Operands, upstream: _Upstream, index: Tensor, weight: Tensor) -> Tensor:
    r"""Returns the gradient of the scalar weights."""
    grad = torch.zeros(weight.size(), dtype=weight.dtype, device=weight.device)
    if index.numel() > 0 and upstream.constants['HAS_MUTATED']:
        query, positive, table, index, _, _, weight, partner = operands.tensors
        block = operands.slots()
        names = ('PHI', 'PLAN', 'SIZE', 'PARTS', 'QUERY_PARTS', 'BLOCK_K')
        kernels.backward_weight[index.size(0), triton.cdiv(index.size(1), block)](
            query, positive, table, index, weight, partner, *operands.filled(upstream.tensors)[2:], grad,
            *operands.scalars, BLOCK_S=block, **{name: operands.constants[name] for name in names})
    return grad


def _rows_gradient(operands: _Operands, upstream: _Upstream, ids: Tensor, matrix: Tensor, masks: bool,
                   sparse: bool) -> Tensor:
    r"""Returns the gradient of a matrix (the table or the bank) from which each slot reads the row in :obj:`ids`."""
    keys, order = _sorted(ids, matrix.size(0))
    if sparse:
        _, counts = torch.unique_consecutive(keys, return_counts=True)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        touched = ids[order[starts[:-1]]]
        rows = touched.numel()
    else:
        every = torch.arange(matrix.size(0) + 1, device=ids.device)
        starts = torch.searchsorted(keys, _as_keys(every, matrix.size(0)))
        rows = matrix.size(0)
    target = torch.empty(rows, matrix.size(1), dtype=matrix.dtype, device=matrix.device)
    if target.numel() > 0:
        pieces = ids.numel() // _PIECE
        partial = torch.empty(pieces, matrix.size(1), dtype=torch.float32, device=matrix.device)
        tensors = (*operands.tensors, *operands.filled(upstream.tensors), order)
        constants = {**operands.constants, **upstream.constants, 'MASKS': masks, 'PIECE': _PIECE,
                     'BLOCK_S': operands.slots(backward=True)}
        if pieces > 0:
            kernels.backward_pieces[pieces, operands.blocks](*tensors, keys, partial, *operands.scalars, **constants)
        kernels.backward_rows[rows, operands.blocks](*tensors, starts, partial, target, *operands.scalars,
                                                     **constants)
    if not sparse:
        return target
    return torch.sparse_coo_tensor(touched.unsqueeze(0), target, matrix.size(), is_coalesced=True,
                                   check_invariants=False)


def _sorted(ids: Tensor, num_ids: int) -> tuple[Tensor, Tensor]:
    r"""Sorts slots by their ids. Returns the keys of the ids in ascending order, and the slots."""
    keys, order = torch.sort(_as_keys(ids, num_ids), stable=True)
    return keys, order


def _as_keys(ids: Tensor, num_ids: int) -> Tensor:
    r"""Converts ids to the smallest type that can hold them, because a radix sort has one pass per byte."""
    if num_ids < 2**16:
        return (ids - 2**15).to(torch.int16)
    return ids.to(torch.int32) if num_ids < 2**31 else ids


def _block(limit: int, size: int) -> int:
    r"""Returns the smallest power of two that is at least :obj:`size`, at most :obj:`limit`."""
    return min(limit, triton.next_power_of_2(max(size, 1)))

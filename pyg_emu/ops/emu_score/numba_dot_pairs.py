r"""Dot products with pairs whose partners are mostly negatives of the same triple, such as those of DeMix, on the CPU.

The dot product of a mixture is the mixture of the dot products. A negative that is the partner of others is therefore
read once, forward and back: its gradient is that of all slots that it occurs in. Only partners from elsewhere are read
apart.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import prange
from torch import Tensor

from pyg_emu.ops.emu_score import numba_kernels as kernels
from pyg_emu.ops.emu_score.numba_terms import DotTerms, Plain
from pyg_emu.ops.numba_runtime import FASTMATH, jit, parallel_section


def forward(data: kernels.Data, slot: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the scores of the negatives, of their partners and of the mixtures. shape: each :obj:`(B, N)`.

    Args:
        data (Data): The operands.
        slot (numpy.ndarray): See :class:`~pyg_emu.ops.MixPlan`. A column that does not hold the partner is not used.
            shape: :obj:`(B, N)`.
    """
    own, partner, mixed = (torch.from_numpy(np.empty(data.index.shape, data.table.dtype)) for _ in range(3))
    one, empty = data.table.dtype.type(1), np.empty((0, 0), data.table.dtype)
    if data.index.size > 0:
        with parallel_section():
            kernels.forward(Plain(one), DotTerms(one), data, own.numpy(), empty, empty, empty, True)
            _mix(data.query, data.table, data.index, data.weight, data.partner, slot, own.numpy(), partner.numpy(),
                 mixed.numpy())
    return own, partner, mixed


def backward(data: kernels.Data, slot: np.ndarray, vanilla: np.ndarray, mutated: np.ndarray,
             grad_query: Any) -> tuple[kernels.Data, np.ndarray]:
    r"""Adds the gradient of the queries to :obj:`grad_query`, and returns the gradients of the table as those of the
    vanilla scores of a list of slots: the operands of kind :class:`Listed`, and gradients of shape :obj:`(1, S)`.

    Args:
        data (Data): The operands.
        slot (numpy.ndarray): As in :func:`forward`.
        vanilla (numpy.ndarray): The gradient of the vanilla scores. shape: :obj:`(B, N)`.
        mutated (numpy.ndarray): The gradient of the mutated scores. shape: :obj:`(B, N)`.
        grad_query (numpy.ndarray, optional): Where the gradient of the queries is added. shape: :obj:`(B, d)`.
    """
    size, num = data.index.shape
    dtype = data.table.dtype
    own, apart, count = np.empty((size, num), dtype), np.empty((size, num), dtype), np.empty(size + 1, np.int64)
    with parallel_section():
        _fold(data.index, data.weight, data.partner, slot, vanilla, mutated, own, apart, count)
        count[0] = size * num
        place = np.cumsum(count)
        # The negatives, followed by the partners from elsewhere.
        ids, triples = np.empty((1, int(place[-1])), np.int64), np.empty((1, int(place[-1])), np.int64)
        grads = np.empty(ids.shape, dtype)
        _list(data.index, data.partner, slot, own, apart, place, ids, triples, grads)
        if grad_query is not None:
            _add_queries(data.table, num, ids, grads, place, grad_query)
    return data._replace(index=ids, partner=triples), grads



# Kernels take arrays instead of the tuple: what is read from a tuple in a loop is counted as a reference each time.


@jit(forceinline=True)
def _column(index, partner, slot, b, n):
    r"""Returns the column of the partner, or -1 if it is not known to be a negative of the triple."""
    column = slot[b, n]
    known = 0 <= column < index.shape[1] and index[b, column if 0 <= column < index.shape[1] else 0] == partner[b, n]
    return column if known else np.int64(-1)


@jit(fastmath=FASTMATH)
def _dot(query, table, b, row):
    total = query.dtype.type(0)
    for k in range(table.shape[1]):
        total += query[b, k] * table[row, k]
    return total


@jit(parallel=True)
def _mix(query, table, index, weight, partner, slot, own, other, mixed):
    one = weight.dtype.type(1)
    for b in prange(index.shape[0]):
        for n in range(index.shape[1]):
            column = _column(index, partner, slot, b, n)
            score = own[b, column] if column >= 0 else _dot(query, table, b, partner[b, n])
            other[b, n] = score
            mixed[b, n] = weight[b, n] * own[b, n] + (one - weight[b, n]) * score


@jit(parallel=True)
def _fold(index, weight, partner, slot, vanilla, mutated, own, apart, count):
    r"""Writes the gradient of the score of each negative, and of each partner that is no negative of the triple. Counts
    the latter.
    """
    one = weight.dtype.type(1)
    for b in prange(index.shape[0]):
        found = 0
        for n in range(index.shape[1]):
            own[b, n] = vanilla[b, n] + weight[b, n] * mutated[b, n]
        for n in range(index.shape[1]):
            column = _column(index, partner, slot, b, n)
            grad = (one - weight[b, n]) * mutated[b, n]
            apart[b, n] = grad
            if column >= 0:
                own[b, column] += grad
            else:
                found += 1
        count[b + 1] = found


@jit(parallel=True)
def _list(index, partner, slot, own, apart, place, ids, triples, grads):
    for b in prange(index.shape[0]):
        start, last = b * index.shape[1], place[b]
        for n in range(index.shape[1]):
            ids[0, start + n], triples[0, start + n], grads[0, start + n] = index[b, n], b, own[b, n]
            if _column(index, partner, slot, b, n) < 0:
                ids[0, last], triples[0, last], grads[0, last] = partner[b, n], b, apart[b, n]
                last += 1


@jit(fastmath=FASTMATH)
def _add_rows(table, ids, grads, low, high, target, b):
    r"""Adds rows of the table, four at a time, with their factors to row :obj:`b`."""
    last, zero = high - 1, grads.dtype.type(0)
    for i in range(low, high, 4):
        ib, ic, id_ = min(i + 1, last), min(i + 2, last), min(i + 3, last)
        xa, xb, xc, xd = ids[0, i], ids[0, ib], ids[0, ic], ids[0, id_]
        ga = grads[0, i]
        gb = grads[0, ib] if i + 1 < high else zero
        gc = grads[0, ic] if i + 2 < high else zero
        gd = grads[0, id_] if i + 3 < high else zero
        for k in range(table.shape[1]):
            target[b, k] += (ga * table[xa, k] + gb * table[xb, k]) + (gc * table[xc, k] + gd * table[xd, k])


@jit(parallel=True)
def _add_queries(table, num, ids, grads, place, grad_query):
    for b in prange(grad_query.shape[0]):
        triple = np.int64(b)
        _add_rows(table, ids, grads, triple * num, (triple + 1) * num, grad_query, triple)
        _add_rows(table, ids, grads, place[triple], place[triple + 1], grad_query, triple)

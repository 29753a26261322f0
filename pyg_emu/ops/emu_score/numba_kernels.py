r"""The CPU kernels of :func:`~pyg_emu.ops.emu_score`: the forward pass and the backward passes to the batch and table.

Each kernel processes four rows at a time, so that the latency of one row's sums is hidden by the others. If fewer rows
are left, the last row is repeated with zero weight. :mod:`pyg_emu.ops.emu_score.numba_terms` defines the terms.
"""
# mypy: disable-error-code="no-untyped-def,call-arg"
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from pyg_emu.ops.emu_score.numba_terms import (
    HARD,
    LISTED,
    MASK,
    PAIR,
    PLAIN,
    SHARED,
    SOFT,
    finish,
    layout,
    mix,
    pull,
    pull_batch,
    pull_rows,
    real,
    slope,
    term,
)
from pyg_emu.ops.numba_runtime import FASTMATH, jit
from pyg_emu.ops.numba_vectors import prefetch


class Data(NamedTuple):
    r"""The inputs of all kernels. Tensors that a plan does not have are empty. A soft mask per triple is an index with
    a single column. For a hard mask per triple, the bank has one row per triple with the factors of the negatives. For
    a list, the index has a single row, and the partners are the triples of its slots."""
    query: Any
    positive: Any
    table: Any
    index: Any
    bank: Any
    mask_index: Any
    weight: Any
    partner: Any


class Upstream(NamedTuple):
    r"""The gradients of the scores and the norms in the scores. Missing arrays are a single zero."""
    vanilla: Any
    mutated: Any
    vanilla_norm: Any
    mutated_norm: Any


@jit(forceinline=True)
def _query_parts(tag, row, size):
    parts = layout(tag)[0]
    q0 = row[:size]
    q1 = row[size:2 * size] if parts > 1 else q0
    q2 = row[2 * size:] if parts > 2 else q0
    return q0, q1, q2


# These functions are inlined and rows are read in place. A view of a row would increment the reference count of the
# whole array, an atomic operation on a counter shared by all threads, which was slower than the sums.


@jit(forceinline=True)
def _second(tag, size):
    r"""Returns where the second part of a row begins, or the first part if there is no second."""
    return size if layout(tag)[1] > 1 else 0


@jit(forceinline=True)
def _parts(tag, row, size):
    x0 = row[:size]
    x1 = row[size:] if layout(tag)[1] > 1 else x0
    return x0, x1


@jit(forceinline=True)
def _is_scalar(kind, data):
    r"""Returns whether a slot has one weight for all components that is spread over a row. Weights of pairs stay
    scalars.
    """
    return layout(kind) == SOFT and data.weight.size > 0


@jit()
def _masks(kind, data):
    r"""Returns the rows for :func:`_mask_row`: the bank, or one row per concurrent slot for scalar weights."""
    if _is_scalar(kind, data):
        return np.empty((4, data.table.shape[1]), data.bank.dtype)
    return data.bank


@jit(forceinline=True)
def _mask_row(kind, data, masks, lane, b, n):
    if layout(kind) == PLAIN or layout(kind) == PAIR or layout(kind) == LISTED:
        return 0
    if layout(kind) == SHARED:
        return b
    if _is_scalar(kind, data):
        masks[lane, :] = real(data.weight[b, n], 1) - data.weight[b, n]
        return lane
    return np.intp(data.mask_index[b, min(n, data.mask_index.shape[1] - 1)])


@jit(forceinline=True)
def _partner_share(kind, data, b, n):
    r"""Returns what a pair takes from the partner; zero for other kinds, whose masks have rows."""
    if layout(kind) == PAIR:
        return real(kind[0], 1) - data.weight[b, n]
    return real(kind[0], 0)


@jit(forceinline=True)
def _share(kind, masks, row, share, k):
    r"""Returns what component :obj:`k` takes from the vector that a negative is mixed with."""
    if layout(kind) == PAIR:
        return share
    return real(share, masks[row, k])


@jit(forceinline=True)
def _others(kind, data):
    r"""Returns the rows that negatives are mixed with: the positives or, for pairs, the table."""
    return data.table if layout(kind) == PAIR else data.positive


@jit(forceinline=True)
def _other_row(kind, data, b, n):
    return data.partner[b, n] if layout(kind) == PAIR else np.int64(b)


@jit(forceinline=True)
def _at(scores, b, n):
    # Clamped instead of skipped, because the compiler keeps reference counting behind a branch.
    return scores[min(b, scores.shape[0] - 1), min(n, scores.shape[1] - 1)]


@jit(fastmath=FASTMATH, forceinline=True)
def _slopes(kind, tag, upstream, valid, first, b, n):
    r"""Returns the gradients of a slot's vanilla and mutated accumulators. They are zero for a repeated slot. The
    vanilla gradients are also zero unless the slot is the :obj:`first` of a pair."""
    zero = real(tag[0], 0)
    m0 = m1 = norm = zero
    grad = _at(upstream.vanilla, b, n)
    if layout(tag)[3]:
        norm = _at(upstream.vanilla_norm, b, n)
    v0, v1 = slope(tag, grad if valid and first else zero, norm)
    if layout(kind) != PLAIN and layout(kind) != LISTED:
        grad = _at(upstream.mutated, b, n)
        if layout(tag)[3]:
            norm = _at(upstream.mutated_norm, b, n)
        m0, m1 = slope(tag, grad if valid else zero, norm)
    return v0, v1, m0, m1


@jit(fastmath=FASTMATH, forceinline=True)
def _emit(tag, wanted, score, norm, s0, s1, b, n):
    if wanted:
        value, root = finish(tag, s0, s1)
        score[b, n] = value
        if layout(tag)[3]:
            norm[b, n] = root


@jit(fastmath=FASTMATH)
def _forward_triple(kind, tag, data, b, vanilla, vanilla_norm, mutated, mutated_norm, want_vanilla):
    num, width, zero = data.index.shape[1], data.table.shape[1], real(tag[0], 0)
    size, want_mutated = width // layout(tag)[1], layout(kind) != PLAIN
    second = _second(tag, size)
    q0, q1, q2 = _query_parts(tag, data.query[b], size)
    p0, p1 = _parts(tag, data.positive[b], size)
    own = np.zeros((2, size), data.table.dtype)  # The terms of the positive, which are the same in all slots.
    t0, t1 = own[0], own[1]
    table, others, masks, start0, start1 = data.table, _others(kind, data), _masks(kind, data), zero, zero
    if layout(kind) == HARD or layout(kind) == SHARED:
        for k in range(size):
            t0[k], t1[k] = term(tag, q0[k], q1[k], q2[k], p0[k], p1[k])
    if layout(kind) == SHARED:
        for k in range(size):
            start0 += (real(zero, 1) - masks[b, k]) * t0[k]
            start1 += (real(zero, 1) - masks[b, k + second]) * t1[k]
    for n in range(0, num, 4):
        nb, nc, nd = min(n + 1, num - 1), min(n + 2, num - 1), min(n + 3, num - 1)
        xa, xb, xc, xd = data.index[b, n], data.index[b, nb], data.index[b, nc], data.index[b, nd]
        oa, ob = _other_row(kind, data, b, n), _other_row(kind, data, b, nb)
        oc, od = _other_row(kind, data, b, nc), _other_row(kind, data, b, nd)
        fa, fb = _mask_row(kind, data, masks, np.intp(0), b, n), _mask_row(kind, data, masks, np.intp(1), b, nb)
        fc, fd = _mask_row(kind, data, masks, np.intp(2), b, nc), _mask_row(kind, data, masks, np.intp(3), b, nd)
        ua, ub = _partner_share(kind, data, b, n), _partner_share(kind, data, b, nb)
        uc, ud = _partner_share(kind, data, b, nc), _partner_share(kind, data, b, nd)
        va0 = va1 = vb0 = vb1 = vc0 = vc1 = vd0 = vd1 = zero
        ma0 = mb0 = mc0 = md0 = start0
        ma1 = mb1 = mc1 = md1 = start1
        for k in range(size):
            i, j, h, t, u = q0[k], q1[k], q2[k], t0[k], t1[k]
            x, y = table[xa, k], table[xa, k + second]
            f, g = _share(kind, masks, fa, ua, k), _share(kind, masks, fa, ua, k + second)
            r, s = others[oa, k], others[oa, k + second]
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, x, y, r, s, t, u, f, g)
            va0, va1, ma0, ma1 = va0 + v0, va1 + v1, ma0 + m0, ma1 + m1
            x, y = table[xb, k], table[xb, k + second]
            f, g = _share(kind, masks, fb, ub, k), _share(kind, masks, fb, ub, k + second)
            r, s = others[ob, k], others[ob, k + second]
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, x, y, r, s, t, u, f, g)
            vb0, vb1, mb0, mb1 = vb0 + v0, vb1 + v1, mb0 + m0, mb1 + m1
            x, y = table[xc, k], table[xc, k + second]
            f, g = _share(kind, masks, fc, uc, k), _share(kind, masks, fc, uc, k + second)
            r, s = others[oc, k], others[oc, k + second]
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, x, y, r, s, t, u, f, g)
            vc0, vc1, mc0, mc1 = vc0 + v0, vc1 + v1, mc0 + m0, mc1 + m1
            x, y = table[xd, k], table[xd, k + second]
            f, g = _share(kind, masks, fd, ud, k), _share(kind, masks, fd, ud, k + second)
            r, s = others[od, k], others[od, k + second]
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, x, y, r, s, t, u, f, g)
            vd0, vd1, md0, md1 = vd0 + v0, vd1 + v1, md0 + m0, md1 + m1
        _emit(tag, want_vanilla, vanilla, vanilla_norm, va0, va1, b, n)
        _emit(tag, want_vanilla, vanilla, vanilla_norm, vb0, vb1, b, nb)
        _emit(tag, want_vanilla, vanilla, vanilla_norm, vc0, vc1, b, nc)
        _emit(tag, want_vanilla, vanilla, vanilla_norm, vd0, vd1, b, nd)
        _emit(tag, want_mutated, mutated, mutated_norm, ma0, ma1, b, n)
        _emit(tag, want_mutated, mutated, mutated_norm, mb0, mb1, b, nb)
        _emit(tag, want_mutated, mutated, mutated_norm, mc0, mc1, b, nc)
        _emit(tag, want_mutated, mutated, mutated_norm, md0, md1, b, nd)


@jit(parallel=True)
def forward(kind, tag, data, vanilla, vanilla_norm, mutated, mutated_norm, want_vanilla):
    r"""Computes the scores and the norms in them for all triples in parallel."""
    for b in prange(data.index.shape[0]):
        # Signed explicitly, as in the kernels below. With the unsigned loop index, the worker would be compiled twice.
        _forward_triple(kind, tag, data, np.int64(b), vanilla, vanilla_norm, mutated, mutated_norm, want_vanilla)


@jit(fastmath=FASTMATH)
def _batch_triple(kind, tag, data, upstream, b, grad_query, grad_positive, grad_weight):
    num, width, zero = data.index.shape[1], data.table.shape[1], real(tag[0], 0)
    query_parts, parts, sums, _ = layout(tag)
    size = width // parts
    q0, q1, q2 = _query_parts(tag, data.query[b], size)
    p0, p1 = _parts(tag, data.positive[b], size)
    g0, g1, g2 = _query_parts(tag, grad_query[b], size)
    y0, y1 = _parts(tag, grad_positive[b], size)
    own = np.zeros((2, size), data.table.dtype)  # The gradient of the positive's side.
    o0, o1 = own[0], own[1]
    both = sums > 1 if layout(kind) == HARD else parts > 1
    table, others, masks, second = data.table, _others(kind, data), _masks(kind, data), _second(tag, size)
    total0 = total1 = zero
    for n in range(0, num, 4):
        nb, nc, nd = min(n + 1, num - 1), min(n + 2, num - 1), min(n + 3, num - 1)
        xa, xb, xc, xd = data.index[b, n], data.index[b, nb], data.index[b, nc], data.index[b, nd]
        oa, ob = _other_row(kind, data, b, n), _other_row(kind, data, b, nb)
        oc, od = _other_row(kind, data, b, nc), _other_row(kind, data, b, nd)
        fa, fb = _mask_row(kind, data, masks, np.intp(0), b, n), _mask_row(kind, data, masks, np.intp(1), b, nb)
        fc, fd = _mask_row(kind, data, masks, np.intp(2), b, nc), _mask_row(kind, data, masks, np.intp(3), b, nd)
        ua, ub = _partner_share(kind, data, b, n), _partner_share(kind, data, b, nb)
        uc, ud = _partner_share(kind, data, b, nc), _partner_share(kind, data, b, nd)
        va0, va1, ma0, ma1 = _slopes(kind, tag, upstream, n < num, n < num, b, n)
        vb0, vb1, mb0, mb1 = _slopes(kind, tag, upstream, n + 1 < num, n + 1 < num, b, nb)
        vc0, vc1, mc0, mc1 = _slopes(kind, tag, upstream, n + 2 < num, n + 2 < num, b, nc)
        vd0, vd1, md0, md1 = _slopes(kind, tag, upstream, n + 3 < num, n + 3 < num, b, nd)
        wa = wb = wc = wd = zero
        for k in range(size):
            i, j, h = q0[k], q1[k], q2[k]
            x, y = table[xa, k], table[xa, k + second]
            f, g = _share(kind, masks, fa, ua, k), _share(kind, masks, fa, ua, k + second)
            r, s = others[oa, k], others[oa, k + second]
            a0, a1, a2, a3, a4, a5 = pull_batch(
                kind, tag, i, j, h, x, y, r, s, f, g, va0, va1, ma0, ma1)
            x, y = table[xb, k], table[xb, k + second]
            f, g = _share(kind, masks, fb, ub, k), _share(kind, masks, fb, ub, k + second)
            r, s = others[ob, k], others[ob, k + second]
            b0, b1, b2, b3, b4, b5 = pull_batch(
                kind, tag, i, j, h, x, y, r, s, f, g, vb0, vb1, mb0, mb1)
            x, y = table[xc, k], table[xc, k + second]
            f, g = _share(kind, masks, fc, uc, k), _share(kind, masks, fc, uc, k + second)
            r, s = others[oc, k], others[oc, k + second]
            c0, c1, c2, c3, c4, c5 = pull_batch(
                kind, tag, i, j, h, x, y, r, s, f, g, vc0, vc1, mc0, mc1)
            x, y = table[xd, k], table[xd, k + second]
            f, g = _share(kind, masks, fd, ud, k), _share(kind, masks, fd, ud, k + second)
            r, s = others[od, k], others[od, k + second]
            d0, d1, d2, d3, d4, d5 = pull_batch(
                kind, tag, i, j, h, x, y, r, s, f, g, vd0, vd1, md0, md1)
            g0[k] += (a0 + b0) + (c0 + d0)
            if query_parts > 1:
                g1[k] += (a1 + b1) + (c1 + d1)
            if query_parts > 2:
                g2[k] += (a2 + b2) + (c2 + d2)
            if layout(kind) == HARD or layout(kind) == SOFT:
                o0[k] += (a3 + b3) + (c3 + d3)
                if both:
                    o1[k] += (a4 + b4) + (c4 + d4)
            wa, wb, wc, wd = wa + a5, wb + b5, wc + c5, wd + d5
        total0, total1 = total0 + (ma0 + mb0) + (mc0 + md0), total1 + (ma1 + mb1) + (mc1 + md1)
        if layout(kind) == PAIR or _is_scalar(kind, data):
            # The mask is one minus the weight. Slots are written in reverse, so that a repeated slot keeps its value.
            grad_weight[b, nd], grad_weight[b, nc], grad_weight[b, nb] = -wd, -wc, -wb
            grad_weight[b, n] = -wa
    if layout(kind) == SHARED:
        for k in range(size):
            o0[k] = (real(zero, 1) - masks[b, k]) * total0
            o1[k] = (real(zero, 1) - masks[b, k + second]) * total1
    if layout(kind) == SOFT:
        for k in range(size):
            y0[k] = o0[k]
            if parts > 1:
                y1[k] = o1[k]
    if layout(kind) == HARD or layout(kind) == SHARED:
        for k in range(size):
            a0, a1, a2, a3, a4 = pull(tag, q0[k], q1[k], q2[k], p0[k], p1[k], o0[k], o1[k])
            g0[k] += a0
            y0[k] = a3
            if query_parts > 1:
                g1[k] += a1
            if query_parts > 2:
                g2[k] += a2
            if parts > 1:
                y1[k] = a4


@jit(parallel=True)
def backward_batch(kind, tag, data, upstream, grad_query, grad_positive, grad_weight):
    r"""Computes the gradients of queries, positives and scalar weights for all triples in parallel. The outputs for
    queries and positives must be zeros."""
    for b in prange(data.index.shape[0]):
        _batch_triple(kind, tag, data, upstream, np.int64(b), grad_query, grad_positive, grad_weight)


@jit(error_model='numpy', forceinline=True)
def _triple_and_slot(pair, num):
    # Unsigned 32-bit division is several times faster than Python's division.
    slot = np.uint32(pair & np.uint64(0xFFFFFFFF))
    b = np.uint32(slot // num)
    return np.intp(b), np.intp(np.uint32(slot - b * num))


@jit(forceinline=True)
def _grouped_slot(kind, data, masks, lane, pair, num):
    r"""Returns the position of a slot, its query, the rows of its negative, of the vector it is mixed with and of its
    mask, the share that a pair takes from its partner, and whether the vanilla score depends on the first row.

    Pairs have two slots for each position. In the second slot, the partner and the negative are exchanged.
    """
    if layout(kind) == PAIR:
        b, n = _triple_and_slot((pair & np.uint64(0xFFFFFFFF)) >> np.uint64(1), num)
        # Read before the branches on numbers: behind one, the compiler would go on counting references.
        own, partner, weight = data.index[b, n], data.partner[b, n], data.weight[b, n]
        first = (pair & np.uint64(1)) == np.uint64(0)
        row, other = own if first else partner, partner if first else own
        return b, n, b, row, other, 0, real(weight, 1) - weight if first else weight, first
    if layout(kind) == LISTED:
        n = np.intp(pair & np.uint64(0xFFFFFFFF))
        return (np.intp(0), n, np.intp(data.partner[0, n]), np.intp(pair >> np.uint64(32)), np.int64(0), 0,
                real(kind[0], 0), True)
    b, n = _triple_and_slot(pair, num)
    row = data.index[b, n] if layout(kind) == MASK else np.intp(pair >> np.uint64(32))
    return b, n, b, row, np.int64(b), _mask_row(kind, data, masks, lane, b, n), real(kind[0], 0), True


@jit(forceinline=True)
def _prefetch_slots(kind, tag, data, upstream, order, low):
    # The slots of an entity are scattered over the batch. Prefetching hides the latency of loading their gradients.
    for i in range(low, min(low + 4, order.size)):
        slot = np.intp(order[i] & np.uint64(0xFFFFFFFF))
        if layout(kind) == PAIR:
            slot >>= 1
            prefetch(data.index, 0, slot, 0)
            prefetch(data.weight, 0, slot, 0)
        if layout(kind) == PAIR or layout(kind) == LISTED:
            prefetch(data.partner, 0, slot, 0)
        prefetch(upstream.vanilla, 0, slot, 0)
        if layout(kind) != PLAIN and layout(kind) != LISTED:
            prefetch(upstream.mutated, 0, slot, 0)
        if layout(kind) != PLAIN and layout(kind) != LISTED and data.mask_index.shape[1] > 1:
            prefetch(data.mask_index, 0, slot, 0)
        if layout(tag)[3]:
            prefetch(upstream.vanilla_norm, 0, slot, 0)
            prefetch(upstream.mutated_norm, 0, slot, 0)


@jit(fastmath=FASTMATH)
def _add_slots(kind, tag, data, upstream, order, low, high, masks, target, into):
    r"""Adds the gradients of the slots :obj:`order[low:high]`, which share one row, to row :obj:`into`."""
    query_parts, parts, _, _ = layout(tag)
    num, last, size = np.uint32(data.index.shape[1]), high - 1, data.table.shape[1] // parts
    query, others, table, second = data.query, _others(kind, data), data.table, _second(tag, size)
    third = 2 * size if query_parts > 2 else 0
    for i in range(low, high, 4):
        _prefetch_slots(kind, tag, data, upstream, order, i + 12)
        ba, na, ja, xa, oa, fa, ua, ia = _grouped_slot(kind, data, masks, np.intp(0), order[i], num)
        bb, nb, jb, xb, ob, fb, ub, ib = _grouped_slot(kind, data, masks, np.intp(1), order[min(i + 1, last)], num)
        bc, nc, jc, xc, oc, fc, uc, ic = _grouped_slot(kind, data, masks, np.intp(2), order[min(i + 2, last)], num)
        bd, nd, jd, xd, od, fd, ud, id_ = _grouped_slot(kind, data, masks, np.intp(3), order[min(i + 3, last)], num)
        va0, va1, ma0, ma1 = _slopes(kind, tag, upstream, i < high, ia, ba, na)
        vb0, vb1, mb0, mb1 = _slopes(kind, tag, upstream, i + 1 < high, ib, bb, nb)
        vc0, vc1, mc0, mc1 = _slopes(kind, tag, upstream, i + 2 < high, ic, bc, nc)
        vd0, vd1, md0, md1 = _slopes(kind, tag, upstream, i + 3 < high, id_, bd, nd)
        for k in range(size):
            x, y = table[xa, k], table[xa, k + second]
            f, g = _share(kind, masks, fa, ua, k), _share(kind, masks, fa, ua, k + second)
            i, j, h = query[ja, k], query[ja, k + second], query[ja, k + third]
            r, s = others[oa, k], others[oa, k + second]
            a0, a1 = pull_rows(kind, tag, i, j, h, x, y, r, s, f, g, va0, va1, ma0, ma1)
            x, y = table[xb, k], table[xb, k + second]
            f, g = _share(kind, masks, fb, ub, k), _share(kind, masks, fb, ub, k + second)
            i, j, h = query[jb, k], query[jb, k + second], query[jb, k + third]
            r, s = others[ob, k], others[ob, k + second]
            b0, b1 = pull_rows(kind, tag, i, j, h, x, y, r, s, f, g, vb0, vb1, mb0, mb1)
            x, y = table[xc, k], table[xc, k + second]
            f, g = _share(kind, masks, fc, uc, k), _share(kind, masks, fc, uc, k + second)
            i, j, h = query[jc, k], query[jc, k + second], query[jc, k + third]
            r, s = others[oc, k], others[oc, k + second]
            c0, c1 = pull_rows(kind, tag, i, j, h, x, y, r, s, f, g, vc0, vc1, mc0, mc1)
            x, y = table[xd, k], table[xd, k + second]
            f, g = _share(kind, masks, fd, ud, k), _share(kind, masks, fd, ud, k + second)
            i, j, h = query[jd, k], query[jd, k + second], query[jd, k + third]
            r, s = others[od, k], others[od, k + second]
            d0, d1 = pull_rows(kind, tag, i, j, h, x, y, r, s, f, g, vd0, vd1, md0, md1)
            target[into, k] += (a0 + b0) + (c0 + d0)
            if parts > 1:
                target[into, k + second] += (a1 + b1) + (c1 + d1)


@jit()
def _add_piece(kind, tag, data, upstream, order, piece, c, first, compact, target, ids, partial, partial_row):
    r"""Sums the groups of one piece. Complete groups are added to their rows. Groups that continue from the previous
    piece or into the next one are added to :obj:`partial`."""
    low, high, shift = c * piece, min((c + 1) * piece, order.size), np.uint64(32)
    masks = _masks(kind, data)
    group, start = first[c] - 1, low
    while start < high:
        key = order[start] >> shift
        stop = start + 1
        while stop < high and (order[stop] >> shift) == key:
            stop += 1
        comes_in = start == low and low > 0 and (order[low - 1] >> shift) == key
        goes_on = stop == high and high < order.size and (order[high] >> shift) == key
        group += 0 if comes_in else 1
        row = group if compact else np.intp(key)
        if compact and not comes_in:
            ids[group] = np.intp(key)
        into = target
        if comes_in or goes_on:
            side = 0 if comes_in else 1
            partial_row[c, side] = row
            into, row = partial[c], side
        _add_slots(kind, tag, data, upstream, order, start, stop, masks, into, row)
        start = stop


@jit(parallel=True)
def backward_rows(kind, tag, data, upstream, order, piece, first, compact, target, ids, partial, partial_row):
    r"""Computes the gradients of the rows by which slots are grouped, for all pieces in parallel.

    :obj:`target` and :obj:`partial` must be zeros and :obj:`partial_row` must be -1. With :obj:`compact`, row :math:`i`
    of :obj:`target` belongs to the :math:`i`-th group, whose id is written to :obj:`ids`. Otherwise, rows belong to
    ids.
    """
    for c in prange(first.size - 1):
        _add_piece(kind, tag, data, upstream, order, piece, np.int64(c), first, compact, target, ids, partial,
                   partial_row)
    # A group that spans several pieces is summed in the order of the pieces. There is at most one group per border.
    for c in range(first.size - 1):
        for side in range(2):
            if partial_row[c, side] >= 0:
                for k in range(target.shape[1]):
                    target[partial_row[c, side], k] += partial[c, side, k]

r"""The CPU kernels of :func:`~pyg_emu.ops.emu_score`: one pass forward, one back to the batch, one back to the table.

Each walks four rows at a time, which hides the latency of one row's sums behind the others'; where fewer are left, the
last row is repeated, without weight. See :mod:`pyg_emu.ops.emu_score_numba_terms` for what they compute.
"""
# mypy: disable-error-code="no-untyped-def,call-arg,import-untyped"
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from pyg_emu.ops.emu_score_numba_terms import finish, layout, mix, pull, pull_batch, pull_rows, real, slope, term
from pyg_emu.ops.numba_runtime import FASTMATH, jit


class Data(NamedTuple):
    r"""What all kernels read. What a plan lacks is empty; one mask per triple is an index of a single column."""
    query: Any
    positive: Any
    table: Any
    index: Any
    bank: Any
    mask_index: Any
    weight: Any


class Upstream(NamedTuple):
    r"""Gradients of the scores, and the norms in these, where there are any."""
    vanilla: Any
    mutated: Any
    vanilla_norm: Any
    mutated_norm: Any
    has_vanilla: Any
    has_mutated: Any


@jit()
def _query_parts(tag, row, size):
    parts = layout(tag)[0]
    q0 = row[:size]
    q1 = row[size:2 * size] if parts > 1 else q0
    q2 = row[2 * size:] if parts > 2 else q0
    return q0, q1, q2


@jit()
def _parts(tag, row, size):
    x0 = row[:size]
    x1 = row[size:] if layout(tag)[1] > 1 else x0
    return x0, x1


@jit()
def _mask(kind, data, scratch, b, n):
    if layout(kind) == 0:
        return data.bank[0]
    if layout(kind) == 2 and data.weight.size > 0:
        scratch[:] = real(data.weight[b, n], 1) - data.weight[b, n]
        return scratch
    return data.bank[data.mask_index[b, min(n, data.mask_index.shape[1] - 1)]]


@jit()
def _slot(kind, tag, data, scratch, b, n, size):
    r"""The parts of a negative and of its mask."""
    x0, x1 = _parts(tag, data.table[data.index[b, n]], size)
    f0, f1 = _parts(tag, _mask(kind, data, scratch, b, n), size)
    return x0, x1, f0, f1


@jit(fastmath=FASTMATH)
def _slopes(tag, upstream, valid, b, n):
    r"""The gradients of a slot's accumulators, vanilla and mutated; zero for a slot that is repeated."""
    v0 = v1 = m0 = m1 = norm = real(tag[0], 0)
    if valid and upstream.has_vanilla:
        if layout(tag)[3]:
            norm = upstream.vanilla_norm[b, n]
        v0, v1 = slope(tag, upstream.vanilla[b, n], norm)
    if valid and upstream.has_mutated:
        if layout(tag)[3]:
            norm = upstream.mutated_norm[b, n]
        m0, m1 = slope(tag, upstream.mutated[b, n], norm)
    return v0, v1, m0, m1


@jit(fastmath=FASTMATH)
def _emit(tag, wanted, score, norm, s0, s1, b, n):
    if wanted:
        value, root = finish(tag, s0, s1)
        score[b, n] = value
        if layout(tag)[3]:
            norm[b, n] = root


@jit(fastmath=FASTMATH)
def _forward_triple(kind, tag, data, b, vanilla, vanilla_norm, mutated, mutated_norm, want_vanilla):
    num, width, zero = data.index.shape[1], data.table.shape[1], real(tag[0], 0)
    size, want_mutated = width // layout(tag)[1], layout(kind) != 0
    q0, q1, q2 = _query_parts(tag, data.query[b], size)
    p0, p1 = _parts(tag, data.positive[b], size)
    own = np.zeros((2, size), data.table.dtype)  # The positive's terms, the same in all slots.
    t0, t1 = own[0], own[1]
    if layout(kind) == 1:
        for k in range(size):
            t0[k], t1[k] = term(tag, q0[k], q1[k], q2[k], p0[k], p1[k])
    scratch = np.empty((4, width), data.bank.dtype)
    for n in range(0, num, 4):
        nb, nc, nd = min(n + 1, num - 1), min(n + 2, num - 1), min(n + 3, num - 1)
        xa0, xa1, fa0, fa1 = _slot(kind, tag, data, scratch[0], b, n, size)
        xb0, xb1, fb0, fb1 = _slot(kind, tag, data, scratch[1], b, nb, size)
        xc0, xc1, fc0, fc1 = _slot(kind, tag, data, scratch[2], b, nc, size)
        xd0, xd1, fd0, fd1 = _slot(kind, tag, data, scratch[3], b, nd, size)
        va0 = va1 = vb0 = vb1 = vc0 = vc1 = vd0 = vd1 = zero
        ma0 = ma1 = mb0 = mb1 = mc0 = mc1 = md0 = md1 = zero
        for k in range(size):
            i, j, h, r, s, t, u = q0[k], q1[k], q2[k], p0[k], p1[k], t0[k], t1[k]
            f, g = real(zero, fa0[k]), real(zero, fa1[k])
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, xa0[k], xa1[k], r, s, t, u, f, g)
            va0, va1, ma0, ma1 = va0 + v0, va1 + v1, ma0 + m0, ma1 + m1
            f, g = real(zero, fb0[k]), real(zero, fb1[k])
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, xb0[k], xb1[k], r, s, t, u, f, g)
            vb0, vb1, mb0, mb1 = vb0 + v0, vb1 + v1, mb0 + m0, mb1 + m1
            f, g = real(zero, fc0[k]), real(zero, fc1[k])
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, xc0[k], xc1[k], r, s, t, u, f, g)
            vc0, vc1, mc0, mc1 = vc0 + v0, vc1 + v1, mc0 + m0, mc1 + m1
            f, g = real(zero, fd0[k]), real(zero, fd1[k])
            v0, v1, m0, m1 = mix(kind, tag, i, j, h, xd0[k], xd1[k], r, s, t, u, f, g)
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
    r"""Scores, and the norms in them, for all triples in parallel."""
    for b in prange(data.index.shape[0]):
        # Explicitly signed, as in the kernels below: the loop's own, unsigned index would compile the worker twice.
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
    own = np.zeros((2, size), data.table.dtype)  # What the positive's side is owed.
    o0, o1 = own[0], own[1]
    second = sums > 1 if layout(kind) == 1 else parts > 1
    scratch = np.empty((4, width), data.bank.dtype)
    for n in range(0, num, 4):
        nb, nc, nd = min(n + 1, num - 1), min(n + 2, num - 1), min(n + 3, num - 1)
        xa0, xa1, fa0, fa1 = _slot(kind, tag, data, scratch[0], b, n, size)
        xb0, xb1, fb0, fb1 = _slot(kind, tag, data, scratch[1], b, nb, size)
        xc0, xc1, fc0, fc1 = _slot(kind, tag, data, scratch[2], b, nc, size)
        xd0, xd1, fd0, fd1 = _slot(kind, tag, data, scratch[3], b, nd, size)
        va0, va1, ma0, ma1 = _slopes(tag, upstream, True, b, n)
        vb0, vb1, mb0, mb1 = _slopes(tag, upstream, n + 1 < num, b, nb)
        vc0, vc1, mc0, mc1 = _slopes(tag, upstream, n + 2 < num, b, nc)
        vd0, vd1, md0, md1 = _slopes(tag, upstream, n + 3 < num, b, nd)
        wa = wb = wc = wd = zero
        for k in range(size):
            i, j, h, r, s = q0[k], q1[k], q2[k], p0[k], p1[k]
            f, g = real(zero, fa0[k]), real(zero, fa1[k])
            a0, a1, a2, a3, a4, a5 = pull_batch(kind, tag, i, j, h, xa0[k], xa1[k], r, s, f, g, va0, va1, ma0, ma1)
            f, g = real(zero, fb0[k]), real(zero, fb1[k])
            b0, b1, b2, b3, b4, b5 = pull_batch(kind, tag, i, j, h, xb0[k], xb1[k], r, s, f, g, vb0, vb1, mb0, mb1)
            f, g = real(zero, fc0[k]), real(zero, fc1[k])
            c0, c1, c2, c3, c4, c5 = pull_batch(kind, tag, i, j, h, xc0[k], xc1[k], r, s, f, g, vc0, vc1, mc0, mc1)
            f, g = real(zero, fd0[k]), real(zero, fd1[k])
            d0, d1, d2, d3, d4, d5 = pull_batch(kind, tag, i, j, h, xd0[k], xd1[k], r, s, f, g, vd0, vd1, md0, md1)
            g0[k] += (a0 + b0) + (c0 + d0)
            if query_parts > 1:
                g1[k] += (a1 + b1) + (c1 + d1)
            if query_parts > 2:
                g2[k] += (a2 + b2) + (c2 + d2)
            if layout(kind) != 0:
                o0[k] += (a3 + b3) + (c3 + d3)
                if second:
                    o1[k] += (a4 + b4) + (c4 + d4)
            wa, wb, wc, wd = wa + a5, wb + b5, wc + c5, wd + d5
        if layout(kind) == 2 and data.weight.size > 0:
            # The mask is one minus the weight. Last slot first, so that one that is repeated ends with its own value.
            grad_weight[b, nd], grad_weight[b, nc], grad_weight[b, nb] = -wd, -wc, -wb
            grad_weight[b, n] = -wa
    if layout(kind) == 2:
        for k in range(size):
            y0[k] = o0[k]
            if parts > 1:
                y1[k] = o1[k]
    if layout(kind) == 1:
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
    r"""Gradients of queries, positives and scalar weights, for all triples in parallel. The first two come as zeros."""
    for b in prange(data.index.shape[0]):
        _batch_triple(kind, tag, data, upstream, np.int64(b), grad_query, grad_positive, grad_weight)


@jit(error_model='numpy')
def _triple_and_slot(pair, num):
    # Unsigned 32-bit division is several times faster than Python's.
    slot = np.uint32(pair & np.uint64(0xFFFFFFFF))
    b = np.uint32(slot // num)
    return np.intp(b), np.intp(np.uint32(slot - b * num))


@jit()
def _grouped_slot(kind, tag, data, scratch, row, pair, num, size):
    r"""A slot's parts; :obj:`row` is the row of its negative, unless slots are grouped by mask."""
    b, n = _triple_and_slot(pair, num)
    q0, q1, q2 = _query_parts(tag, data.query[b], size)
    p0, p1 = _parts(tag, data.positive[b], size)
    if layout(kind) == 3:
        row = data.index[b, n]
    x0, x1 = _parts(tag, data.table[row], size)
    f0, f1 = _parts(tag, _mask(kind, data, scratch, b, n), size)
    return b, n, q0, q1, q2, p0, p1, x0, x1, f0, f1


@intrinsic
def _prefetch(context, array, position):
    r"""Begins to load :obj:`array.flat[position]`, wherever that is; a bad address does no harm."""
    def generate(context, builder, signature, args):
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        address = builder.bitcast(builder.gep(struct.data, [args[1]]), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [address.type, flag, flag, flag]), 'llvm.prefetch.p0')
        builder.call(function, [address, flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@jit()
def _prefetch_slots(kind, tag, data, upstream, order, low):
    # Slots of one entity are scattered over the batch: without this, their gradients come from a far cache one by one.
    for i in range(low, min(low + 4, order.size)):
        slot = np.intp(order[i] & np.uint64(0xFFFFFFFF))
        _prefetch(upstream.vanilla, slot)
        if layout(kind) != 0:
            _prefetch(upstream.mutated, slot)
            _prefetch(data.mask_index, slot)
        if layout(tag)[3]:
            _prefetch(upstream.vanilla_norm, slot)
            _prefetch(upstream.mutated_norm, slot)


@jit(fastmath=FASTMATH)
def _add_slots(kind, tag, data, upstream, order, low, high, scratch, target):
    r"""Adds the gradients of the slots at :obj:`order[low:high]`, all of one row, to that row's."""
    parts, zero, num = layout(tag)[1], real(tag[0], 0), np.uint32(data.index.shape[1])
    size, row, last = data.table.shape[1] // parts, np.intp(order[low] >> np.uint64(32)), high - 1
    g0, g1 = _parts(tag, target, size)
    for i in range(low, high, 4):
        _prefetch_slots(kind, tag, data, upstream, order, i + 12)
        ba, na, qa0, qa1, qa2, pa0, pa1, xa0, xa1, fa0, fa1 = _grouped_slot(
            kind, tag, data, scratch[0], row, order[i], num, size)
        bb, nb, qb0, qb1, qb2, pb0, pb1, xb0, xb1, fb0, fb1 = _grouped_slot(
            kind, tag, data, scratch[1], row, order[min(i + 1, last)], num, size)
        bc, nc, qc0, qc1, qc2, pc0, pc1, xc0, xc1, fc0, fc1 = _grouped_slot(
            kind, tag, data, scratch[2], row, order[min(i + 2, last)], num, size)
        bd, nd, qd0, qd1, qd2, pd0, pd1, xd0, xd1, fd0, fd1 = _grouped_slot(
            kind, tag, data, scratch[3], row, order[min(i + 3, last)], num, size)
        va0, va1, ma0, ma1 = _slopes(tag, upstream, True, ba, na)
        vb0, vb1, mb0, mb1 = _slopes(tag, upstream, i + 1 < high, bb, nb)
        vc0, vc1, mc0, mc1 = _slopes(tag, upstream, i + 2 < high, bc, nc)
        vd0, vd1, md0, md1 = _slopes(tag, upstream, i + 3 < high, bd, nd)
        for k in range(size):
            f, g = real(zero, fa0[k]), real(zero, fa1[k])
            i, j, h, r, s = qa0[k], qa1[k], qa2[k], pa0[k], pa1[k]
            a0, a1 = pull_rows(kind, tag, i, j, h, xa0[k], xa1[k], r, s, f, g, va0, va1, ma0, ma1)
            f, g = real(zero, fb0[k]), real(zero, fb1[k])
            i, j, h, r, s = qb0[k], qb1[k], qb2[k], pb0[k], pb1[k]
            b0, b1 = pull_rows(kind, tag, i, j, h, xb0[k], xb1[k], r, s, f, g, vb0, vb1, mb0, mb1)
            f, g = real(zero, fc0[k]), real(zero, fc1[k])
            i, j, h, r, s = qc0[k], qc1[k], qc2[k], pc0[k], pc1[k]
            c0, c1 = pull_rows(kind, tag, i, j, h, xc0[k], xc1[k], r, s, f, g, vc0, vc1, mc0, mc1)
            f, g = real(zero, fd0[k]), real(zero, fd1[k])
            i, j, h, r, s = qd0[k], qd1[k], qd2[k], pd0[k], pd1[k]
            d0, d1 = pull_rows(kind, tag, i, j, h, xd0[k], xd1[k], r, s, f, g, vd0, vd1, md0, md1)
            g0[k] += (a0 + b0) + (c0 + d0)
            if parts > 1:
                g1[k] += (a1 + b1) + (c1 + d1)


@jit()
def _add_piece(kind, tag, data, upstream, order, piece, c, first, compact, target, ids, partial, partial_row):
    r"""Sums the groups of one piece: whole groups into their rows, the one that comes in from the piece before and the
    one that goes on into the next piece into :obj:`partial`."""
    low, high, shift = c * piece, min((c + 1) * piece, order.size), np.uint64(32)
    scratch = np.empty((4, data.table.shape[1]), data.bank.dtype)
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
        into = target[row]
        if comes_in or goes_on:
            side = 0 if comes_in else 1
            partial_row[c, side] = row
            into = partial[c, side]
        _add_slots(kind, tag, data, upstream, order, start, stop, scratch, into)
        start = stop


@jit(parallel=True)
def backward_rows(kind, tag, data, upstream, order, piece, first, compact, target, ids, partial, partial_row):
    r"""Gradients of the rows that slots were grouped by, for all pieces in parallel, however large the groups are.

    :obj:`target` and :obj:`partial` come in as zeros, :obj:`partial_row` as -1. With :obj:`compact`, row :math:`i` of
    :obj:`target` is that of the :math:`i`-th group, whose id goes to :obj:`ids`; otherwise that of the id itself.
    """
    for c in prange(first.size - 1):
        _add_piece(kind, tag, data, upstream, order, piece, np.int64(c), first, compact, target, ids, partial,
                   partial_row)
    # A group that crosses borders is summed in the order of the pieces: at most one group per border.
    for c in range(first.size - 1):
        for side in range(2):
            if partial_row[c, side] >= 0:
                for k in range(target.shape[1]):
                    target[partial_row[c, side], k] += partial[c, side, k]

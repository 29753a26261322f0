r"""The CPU kernels of :func:`~pyg_emu.ops.emu_loss`: losses and gradients of triples, and the gradient of the table.

The first kernel takes one triple after the other: the scores of its negatives, the loss, the gradients of the scores,
and those of its query and its positive, while the rows that it has read are in the cache. The second one takes one
entity after the other and sums over the slots that contain it.

Components are processed in blocks of :data:`~pyg_emu.ops.emu_loss.numba_terms.LANES`. The last block of a part ends
with the part and overlaps the one before, so that no remainder is left to scalars: its first lanes do not count in
sums, and write the same gradients again.
"""
# mypy: disable-error-code="no-untyped-def,call-arg"
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from pyg_emu.ops.emu_loss.numba_simd import exponential, total
from pyg_emu.ops.emu_loss.numba_terms import (
    LANES,
    blend,
    finish,
    has_masks,
    has_own_masks,
    mix,
    parts,
    pull_query,
    pull_row,
    slope,
    term,
    weight,
)
from pyg_emu.ops.numba_runtime import FASTMATH, jit
from pyg_emu.ops.numba_vectors import choose, fill, load, multiply_add, prefetch, store

_OPTIONS: dict[str, Any] = {'fastmath': FASTMATH, 'error_model': 'numpy', 'nogil': True}

# Unsigned: Numba then leaves out the wraparound of negative indices.
_ONE, _TWO, _THREE = (np.uint64(number) for number in (1, 2, 3))

#: How many slots ahead rows are prefetched: those of the table while triples are scored, and the gradients of slots
#: while entities are summed.
_AHEAD, _SLOTS_AHEAD = np.uint64(12), 16


class Data(NamedTuple):
    r"""The inputs of both kernels.

    Args:
        query (numpy.ndarray): The queries. shape: :obj:`(B, d)`.
        positive (numpy.ndarray): The positives. shape: :obj:`(B, d)`.
        table (numpy.ndarray): The candidates. shape: :obj:`(V, d)`.
        index (numpy.ndarray): The ids of all slots, int64. shape: :obj:`(B * N,)`.
        bank (numpy.ndarray): The masks, uint8, one where a component is the positive's. shape: :obj:`(M, d)`.
        mask_index (numpy.ndarray): The mask of each triple or slot, int32. shape: :obj:`(B, 1)` or :obj:`(B, N)`.
        live (numpy.ndarray): One for each lane that counts, and zero where a block overlaps the one before.
            shape: :obj:`(blocks, LANES)`.
    """
    query: Any
    positive: Any
    table: Any
    index: Any
    bank: Any
    mask_index: Any
    live: Any


class Labels(NamedTuple):
    r"""The weights and labels of the two terms of a loss, the constant part of every score, and half the smallest
    number."""
    weight: Any
    positive: Any
    negative: Any
    vanilla_weight: Any
    vanilla_positive: Any
    vanilla_negative: Any
    offset: Any
    lowest: Any


class Results(NamedTuple):
    r"""The outputs of :func:`triples`.

    Args:
        positive (numpy.ndarray): Scores of the positives. shape: :obj:`(B,)`.
        vanilla (numpy.ndarray): Scores of the negatives. shape: :obj:`(B, N)`.
        mutated (numpy.ndarray): Scores of the mutated negatives, or empty. shape: :obj:`(B, N)`.
        loss (numpy.ndarray): The two terms of the loss of each triple. shape: :obj:`(B, 2)`.
        slopes (numpy.ndarray): The gradients of the sums of each slot where a component is the positive's, and where it
            is the negative's. shape: :obj:`(B, 2 * N)`.
        query (numpy.ndarray): The gradients of the queries. shape: :obj:`(B, d)`.
        candidate (numpy.ndarray): The gradients of the positives. shape: :obj:`(B, d)`.
    """
    positive: Any
    vanilla: Any
    mutated: Any
    loss: Any
    slopes: Any
    query: Any
    candidate: Any


@jit(**_OPTIONS)
def _cross_entropy(score, row, num, counts, b, positive, scale, positive_label, label, lowest, slopes, spare):
    r"""Adds the gradients of the scores :obj:`score[row, :num]` to :obj:`slopes[row]`. Returns the loss and the
    gradient of the positive score.

    All is relative to the largest negative score, so that an offset of all scores costs no digits.
    """
    zero, one = spare.dtype.type(0), spare.dtype.type(1)
    masked, top = counts.size > 0, lowest
    for n in range(num):
        value = lowest if masked and counts[b, n] == 0 else score[row, n]
        top = value if value > top else top
    whole = distance = count = zero
    for n in range(num):
        use = zero if masked and counts[b, n] == 0 else one
        lead = score[row, n] - top if use > zero else zero
        value = exponential(lead) * use
        spare[0, n] = value
        whole += value
        distance -= lead
        count += use
    largest = top if top > positive else positive
    top_lead, positive_lead = top - largest, positive - largest
    negative_sum = top_lead + math.log(whole)
    high, low = max(positive_lead, negative_sum), min(positive_lead, negative_sum)
    all_sum = high + math.log1p(math.exp(low - high))
    loss = positive_label * (all_sum - positive_lead) + label * (count * (all_sum - top_lead) + distance)
    labels = positive_label + label * count
    factor, constant = scale * labels * math.exp(top_lead - all_sum), scale * label
    for n in range(num):
        use = zero if masked and counts[b, n] == 0 else one
        slopes[row, n] += factor * spare[0, n] - constant * use
    return loss, scale * (labels * math.exp(positive_lead - all_sum) - positive_label)


@jit(**_OPTIONS)
def _triple(kind, tag, data, counts, labels, scale, b, results, differentiable):
    query, table, index, bank, mask_index = data.query, data.table, data.index, data.bank, data.mask_index
    zero = tag.one - tag.one
    num, size = index.size // query.shape[0], table.shape[1] // parts(tag)
    second = size if parts(tag) > 1 else 0
    blocks, padded = -(-size // LANES), -(-num // 4) * 4
    first, final, last = np.uint64(b * num), np.uint64(b * num + num - 1), np.uint64(index.size - 1)
    nothing, clear = fill(zero, LANES), fill(np.uint8(0), LANES)
    mask = np.int64(mask_index[b, 0])

    # The positive: its score, the weights of the negatives' terms, and its own weighted terms.
    work = np.empty((3, blocks * LANES), table.dtype)
    own_total = start = nothing
    for k in range(blocks):
        at, column = min(k * LANES, size - LANES), k * LANES
        q0, q1 = load(query, b, at, LANES), load(query, b, at + second, LANES)
        p0, p1 = load(data.positive, b, at, LANES), load(data.positive, b, at + second, LANES)
        w = weight(tag, load(data.live, k, 0, LANES), q0)
        own = w * term(tag, q0, q1, p0, p1)
        own_total = own_total + own
        kept = load(bank, mask, at, LANES) == clear
        if has_masks(kind) and not has_own_masks(kind):
            start = start + choose(kept, nothing, own)
        store(work, 0, column, w)
        store(work, 1, column, choose(kept, w, nothing))
        store(work, 2, column, own)
    positive = finish(tag, total(own_total))
    begin = total(start)

    # The scores, four rows at a time, so that the latency of one row's sum is hidden by the others.
    score = np.empty((2, padded), table.dtype)
    for n in range(0, num, 4):
        i = first + np.uint64(n)
        xa, xb = index[i], index[min(i + _ONE, final)]
        xc, xd = index[min(i + _TWO, final)], index[min(i + _THREE, final)]
        j = i + _AHEAD
        ya, yb = index[min(j, last)], index[min(j + _ONE, last)]
        yc, yd = index[min(j + _TWO, last)], index[min(j + _THREE, last)]
        fa = fb = fc = fd = mask
        if has_own_masks(kind):
            fa, fb = np.int64(mask_index[b, n]), np.int64(mask_index[b, min(n + 1, num - 1)])
            fc, fd = np.int64(mask_index[b, min(n + 2, num - 1)]), np.int64(mask_index[b, min(n + 3, num - 1)])
        va = vb = vc = vd = ma = mb = mc = md = nothing
        for k in range(blocks):
            at, column = min(k * LANES, size - LANES), k * LANES
            prefetch(table, ya, column, 0)
            prefetch(table, yb, column, 0)
            prefetch(table, yc, column, 0)
            prefetch(table, yd, column, 0)
            if parts(tag) > 1:
                prefetch(table, ya, column + second, 0)
                prefetch(table, yb, column + second, 0)
                prefetch(table, yc, column + second, 0)
                prefetch(table, yd, column + second, 0)
            q0, q1 = load(query, b, at, LANES), load(query, b, at + second, LANES)
            w, f, o = load(work, 0, column, LANES), load(work, 1, column, LANES), load(work, 2, column, LANES)
            t = term(tag, q0, q1, load(table, xa, at, LANES), load(table, xa, at + second, LANES))
            va = multiply_add(w, t, va)
            ma = mix(kind, ma, w, f, load(bank, fa, at, LANES) == clear, t, o)
            t = term(tag, q0, q1, load(table, xb, at, LANES), load(table, xb, at + second, LANES))
            vb = multiply_add(w, t, vb)
            mb = mix(kind, mb, w, f, load(bank, fb, at, LANES) == clear, t, o)
            t = term(tag, q0, q1, load(table, xc, at, LANES), load(table, xc, at + second, LANES))
            vc = multiply_add(w, t, vc)
            mc = mix(kind, mc, w, f, load(bank, fc, at, LANES) == clear, t, o)
            t = term(tag, q0, q1, load(table, xd, at, LANES), load(table, xd, at + second, LANES))
            vd = multiply_add(w, t, vd)
            md = mix(kind, md, w, f, load(bank, fd, at, LANES) == clear, t, o)
        score[0, n], score[0, n + 1] = finish(tag, total(va)), finish(tag, total(vb))
        score[0, n + 2], score[0, n + 3] = finish(tag, total(vc)), finish(tag, total(vd))
        if has_masks(kind):
            score[1, n], score[1, n + 1] = finish(tag, begin + total(ma)), finish(tag, begin + total(mb))
            score[1, n + 2], score[1, n + 3] = finish(tag, begin + total(mc)), finish(tag, begin + total(md))

    # The loss, and the gradients of the scores.
    coefficient, spare = np.zeros((2, padded), table.dtype), np.empty((1, padded), table.dtype)
    hard = 1 if has_masks(kind) else 0
    loss, own_slope = _cross_entropy(score, hard, num, counts, b, positive, scale * labels.weight, labels.positive,
                                     labels.negative, labels.lowest, coefficient, spare)
    results.loss[b, 0] = labels.weight * loss
    results.loss[b, 1] = zero
    if labels.vanilla_weight > zero:
        loss, more = _cross_entropy(score, 0, num, counts, b, positive, scale * labels.vanilla_weight,
                                    labels.vanilla_positive, labels.vanilla_negative, labels.lowest, coefficient,
                                    spare)
        results.loss[b, 1] = labels.vanilla_weight * loss
        own_slope += more
    results.positive[b] = positive + labels.offset
    for n in range(num):
        results.vanilla[b, n] = score[0, n] + labels.offset
    if has_masks(kind):
        for n in range(num):
            results.mutated[b, n] = score[1, n] + labels.offset
    if not differentiable:
        return

    # The gradients of the sums: row 0 where a component is the positive's, row 1 where it is the negative's.
    own_slope, mutated_total = slope(tag, own_slope, positive), zero
    for n in range(num):
        vanilla, mutated = slope(tag, coefficient[0, n], score[0, n]), zero
        if has_masks(kind):
            mutated = slope(tag, coefficient[1, n], score[1, n])
        mutated_total += mutated
        coefficient[0, n], coefficient[1, n] = vanilla, vanilla + mutated
        results.slopes[b, 2 * n], results.slopes[b, 2 * n + 1] = vanilla, vanilla + mutated

    # The gradients of the query, four rows at a time, and then those of the positive. What a component of the positive
    # gives to mutated scores is in the third row.
    gradient = np.zeros((3, blocks * LANES), table.dtype)
    for n in range(0, num, 4):
        m = np.uint64(n)
        i = first + m
        xa, xb = index[i], index[min(i + _ONE, final)]
        xc, xd = index[min(i + _TWO, final)], index[min(i + _THREE, final)]
        va, vb = fill(coefficient[0, m], LANES), fill(coefficient[0, m + _ONE], LANES)
        vc, vd = fill(coefficient[0, m + _TWO], LANES), fill(coefficient[0, m + _THREE], LANES)
        ma, mb = fill(coefficient[1, m], LANES), fill(coefficient[1, m + _ONE], LANES)
        mc, md = fill(coefficient[1, m + _TWO], LANES), fill(coefficient[1, m + _THREE], LANES)
        fa = fb = fc = fd = mask
        if has_own_masks(kind):
            fa, fb = np.int64(mask_index[b, n]), np.int64(mask_index[b, min(n + 1, num - 1)])
            fc, fd = np.int64(mask_index[b, min(n + 2, num - 1)]), np.int64(mask_index[b, min(n + 3, num - 1)])
        for k in range(blocks):
            at, column = min(k * LANES, size - LANES), k * LANES
            q0, q1 = load(query, b, at, LANES), load(query, b, at + second, LANES)
            ka, kb = load(bank, fa, at, LANES) == clear, load(bank, fb, at, LANES) == clear
            kc, kd = load(bank, fc, at, LANES) == clear, load(bank, fd, at, LANES) == clear
            a0, a1 = pull_query(tag, q0, q1, load(table, xa, at, LANES), load(table, xa, at + second, LANES))
            b0, b1 = pull_query(tag, q0, q1, load(table, xb, at, LANES), load(table, xb, at + second, LANES))
            c0, c1 = pull_query(tag, q0, q1, load(table, xc, at, LANES), load(table, xc, at + second, LANES))
            d0, d1 = pull_query(tag, q0, q1, load(table, xd, at, LANES), load(table, xd, at + second, LANES))
            wa, wb = blend(kind, ka, va, ma), blend(kind, kb, vb, mb)
            wc, wd = blend(kind, kc, vc, mc), blend(kind, kd, vd, md)
            g0 = multiply_add(wb, b0, multiply_add(wa, a0, load(gradient, 0, column, LANES)))
            store(gradient, 0, column, g0 + multiply_add(wc, c0, wd * d0))
            if parts(tag) > 1:
                g1 = multiply_add(wb, b1, multiply_add(wa, a1, load(gradient, 1, column, LANES)))
                store(gradient, 1, column, g1 + multiply_add(wc, c1, wd * d1))
            if has_own_masks(kind):
                taken = load(gradient, 2, column, LANES)
                taken = taken + choose(ka, nothing, ma - va) + choose(kb, nothing, mb - vb)
                store(gradient, 2, column, taken + choose(kc, nothing, mc - vc) + choose(kd, nothing, md - vd))
    for k in range(blocks):
        at, column = min(k * LANES, size - LANES), k * LANES
        q0, q1 = load(query, b, at, LANES), load(query, b, at + second, LANES)
        taken = load(gradient, 2, column, LANES)
        if has_masks(kind) and not has_own_masks(kind):
            taken = choose(load(bank, mask, at, LANES) == clear, nothing, fill(mutated_total, LANES))
        taken = taken + fill(own_slope, LANES)
        p0, p1 = load(data.positive, b, at, LANES), load(data.positive, b, at + second, LANES)
        a0, a1 = pull_query(tag, q0, q1, p0, p1)
        b0, b1 = pull_row(tag, q0, q1, p0, p1)
        store(results.query, b, at, multiply_add(taken, a0, load(gradient, 0, column, LANES)))
        store(results.candidate, b, at, taken * b0)
        if parts(tag) > 1:
            store(results.query, b, at + second, multiply_add(taken, a1, load(gradient, 1, column, LANES)))
            store(results.candidate, b, at + second, taken * b1)


@jit(parallel=True, nogil=True)
def triples(kind, tag, data, counts, labels, scale, results, differentiable):
    r"""Computes scores and losses of all triples in parallel and, if :obj:`differentiable`, the gradients of queries,
    positives and slots.

    :obj:`counts` is a matrix :obj:`(B, N)` that is zero where a negative does not count, or empty.
    """
    for b in prange(data.query.shape[0]):
        # Signed explicitly: with the unsigned loop index, the worker would be compiled twice.
        _triple(kind, tag, data, counts, labels, scale, np.int64(b), results, differentiable)


@jit(forceinline=True, **_OPTIONS)
def _slot(kind, data, order, i, num):
    r"""Returns the triple of a grouped slot, the place of its gradients, and its mask."""
    slot = np.uint32(order[i] & np.uint64(0xFFFFFFFF))
    # Unsigned 32-bit division is several times faster than Python's division.
    b = np.uint32(slot // num)
    place = np.int64(np.uint32(slot - b * num)) if has_own_masks(kind) else 0
    return np.int64(b), 2 * np.int64(slot), np.int64(data.mask_index[np.int64(b), place])


@jit(**_OPTIONS)
def _add_slots(kind, tag, data, slopes, scale, order, low, high, key, own):
    r"""Adds the gradient of row :obj:`key` of the table, summed over the slots :obj:`order[low:high]`, to blocks of
    components :obj:`own (2, blocks * LANES)`."""
    query, bank, table = data.query, data.bank, data.table
    num, size, last = np.uint32(data.index.size // query.shape[0]), table.shape[1] // parts(tag), high - 1
    second = size if parts(tag) > 1 else 0
    zero, clear, final = scale - scale, fill(np.uint8(0), LANES), order.size - 1
    for i in range(low, high, 4):
        for j in range(i + _SLOTS_AHEAD, i + _SLOTS_AHEAD + 4):
            prefetch(slopes, 0, 2 * np.int64(order[min(j, final)] & np.uint64(0xFFFFFFFF)), 0)
        qa, pa, fa = _slot(kind, data, order, i, num)
        qb, pb, fb = _slot(kind, data, order, min(i + 1, last), num)
        qc, pc, fc = _slot(kind, data, order, min(i + 2, last), num)
        qd, pd, fd = _slot(kind, data, order, min(i + 3, last), num)
        sb, sc, sd = scale if i + 1 < high else zero, scale if i + 2 < high else zero, scale if i + 3 < high else zero
        va, vb = fill(scale * slopes[0, pa], LANES), fill(sb * slopes[0, pb], LANES)
        vc, vd = fill(sc * slopes[0, pc], LANES), fill(sd * slopes[0, pd], LANES)
        ma, mb = fill(scale * slopes[0, pa + 1], LANES), fill(sb * slopes[0, pb + 1], LANES)
        mc, md = fill(sc * slopes[0, pc + 1], LANES), fill(sd * slopes[0, pd + 1], LANES)
        for k in range(-(-size // LANES)):
            at, column = min(k * LANES, size - LANES), k * LANES
            x0, x1 = load(table, key, at, LANES), load(table, key, at + second, LANES)
            wa = blend(kind, load(bank, fa, at, LANES) == clear, va, ma)
            wb = blend(kind, load(bank, fb, at, LANES) == clear, vb, mb)
            wc = blend(kind, load(bank, fc, at, LANES) == clear, vc, mc)
            wd = blend(kind, load(bank, fd, at, LANES) == clear, vd, md)
            a0, a1 = pull_row(tag, load(query, qa, at, LANES), load(query, qa, at + second, LANES), x0, x1)
            b0, b1 = pull_row(tag, load(query, qb, at, LANES), load(query, qb, at + second, LANES), x0, x1)
            c0, c1 = pull_row(tag, load(query, qc, at, LANES), load(query, qc, at + second, LANES), x0, x1)
            d0, d1 = pull_row(tag, load(query, qd, at, LANES), load(query, qd, at + second, LANES), x0, x1)
            g0 = multiply_add(wb, b0, multiply_add(wa, a0, load(own, 0, column, LANES)))
            store(own, 0, column, g0 + multiply_add(wc, c0, wd * d0))
            if parts(tag) > 1:
                g1 = multiply_add(wb, b1, multiply_add(wa, a1, load(own, 1, column, LANES)))
                store(own, 1, column, g1 + multiply_add(wc, c1, wd * d1))


@jit(**_OPTIONS)
def _put(tag, source, target, row):
    r"""Writes a gradient in blocks :obj:`(2, blocks * LANES)` to a row of :obj:`target`, and clears it."""
    size = target.shape[1] // parts(tag)
    nothing = fill(target.dtype.type(0), LANES)
    for k in range(-(-size // LANES)):
        at, column = min(k * LANES, size - LANES), k * LANES
        store(target, row, at, load(source, 0, column, LANES))
        store(source, 0, column, nothing)
        if parts(tag) > 1:
            store(target, row, at + size, load(source, 1, column, LANES))
            store(source, 1, column, nothing)


@jit(**_OPTIONS)
def _clear(target, low, high):
    for row in range(low, high):
        for k in range(target.shape[1]):
            target[row, k] = target.dtype.type(0)


@jit(**_OPTIONS)
def _piece(kind, tag, data, slopes, scale, order, piece, c, first, compact, target, ids, partial, partial_row):
    r"""Sums the groups of one piece. Complete groups are written to their rows. Groups that continue from the previous
    piece or into the next one are written to :obj:`partial`. Rows without a group, and those of groups that continue
    into the next piece, are cleared by the piece in which the next group, or the group itself, begins."""
    low, high, shift = c * piece, min((c + 1) * piece, order.size), np.uint64(32)
    # Blocks that overlap in a row must not, while several slots are added to them.
    own = np.zeros((2, -(-(target.shape[1] // parts(tag)) // LANES) * LANES), target.dtype)
    group, start = first[c] - 1, low
    before = np.int64(order[low - 1] >> shift) if low > 0 else np.int64(-1)
    while start < high:
        key = order[start] >> shift
        stop = start + 1
        while stop < high and (order[stop] >> shift) == key:
            stop += 1
        comes_in = start == low and low > 0 and (order[low - 1] >> shift) == key
        goes_on = stop == high and high < order.size and (order[high] >> shift) == key
        group += 0 if comes_in else 1
        row = group if compact else np.int64(key)
        if compact and not comes_in:
            ids[group] = np.int64(key)
        if not comes_in:
            _clear(target, row if compact else before + 1, row + 1 if goes_on else row)
        before = np.int64(key)
        _add_slots(kind, tag, data, slopes, scale, order, start, stop, np.int64(key), own)
        if comes_in or goes_on:
            side = 2 * c + (0 if comes_in else 1)
            partial_row[side] = row
            _put(tag, own, partial, side)
        else:
            _put(tag, own, target, row)
        start = stop
    if high == order.size and not compact:
        _clear(target, before + 1, target.shape[0])


@jit(parallel=True, nogil=True)
def rows(kind, tag, data, slopes, scale, order, piece, first, compact, target, ids, partial, partial_row):
    r"""Computes the gradients of the rows by which slots are grouped, for all pieces in parallel. Other rows are zero.

    :obj:`slopes` is one row. :obj:`partial_row` must be -1; each piece has two rows of both :obj:`partial` and
    :obj:`partial_row`. With :obj:`compact`, row :math:`i` of :obj:`target` belongs to the :math:`i`-th group, whose id
    is written to :obj:`ids`. Otherwise, rows belong to ids.
    """
    for c in prange(first.size - 1):
        _piece(kind, tag, data, slopes, scale, order, piece, np.int64(c), first, compact, target, ids, partial,
               partial_row)
    # A group that spans several pieces is summed in the order of the pieces. There is at most one group per border.
    for side in range(partial_row.size):
        if partial_row[side] >= 0:
            for k in range(target.shape[1]):
                target[partial_row[side], k] += partial[side, k]

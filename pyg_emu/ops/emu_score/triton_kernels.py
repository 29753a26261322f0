r"""The CUDA kernels of :func:`~pyg_emu.ops.emu_score`: one for the forward pass, two for the batch, two for the table.

A program of :func:`forward` and :func:`backward_batch` processes one triple, in tiles of :obj:`BLOCK_S` slots and
:obj:`BLOCK_K` components. A program of :func:`backward_rows` processes one entity, whose slots are adjacent in the
sorted order. If an entity has many slots, complete *pieces* of :obj:`PIECE` slots are summed first by separate
programs. No kernel uses atomics, so results are the same in every run. :mod:`pyg_emu.ops.emu_score.triton_terms`
defines the terms.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from pyg_emu.ops.emu_score.triton_terms import blend, finish, load_others, load_parts, pull, shares, slope, term


@triton.jit
def forward(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm, mutated,
            mutated_norm, num, modulus_weight, phase_weight, scale, PHI: tl.constexpr, PLAN: tl.constexpr,
            SHARED: tl.constexpr, HAS_VANILLA: tl.constexpr, HAS_NORM: tl.constexpr, SIZE: tl.constexpr,
            PARTS: tl.constexpr, QUERY_PARTS: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    r"""Computes the scores of one block of a triple's slots, and the norms in them."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    valid = n < num
    slot = b * num + n
    rows = tl.load(index + slot, mask=valid, other=0)[:, None]
    v0 = tl.zeros([BLOCK_S], tl.float32)
    v1 = tl.zeros([BLOCK_S], tl.float32)
    m0 = tl.zeros([BLOCK_S], tl.float32)
    m1 = tl.zeros([BLOCK_S], tl.float32)
    for start in range(0, SIZE, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = (k < SIZE)[None, :]
        q0, q1, q2 = load_parts(query, b * (QUERY_PARTS * SIZE) + k[None, :], inside, SIZE, QUERY_PARTS)
        x0, x1, _ = load_parts(table, rows * (PARTS * SIZE) + k[None, :], valid[:, None] & inside, SIZE, PARTS)
        if HAS_VANILLA:
            s0, s1 = term(q0, q1, q2, x0, x1, scale, PHI)
            v0 += tl.sum(s0, 1)
            if PHI == 'modulus_phase':
                v1 += tl.sum(s1, 1)
        if PLAN != 'none':
            p0, p1 = load_others(positive, table, partner, b, slot, valid, k, PLAN, SIZE, PARTS)
            f0, f1 = shares(bank, mask_index, weight, b, slot, valid, k, PLAN, SHARED, SIZE, PARTS)
            s0, s1 = term(q0, q1, q2, blend(f0, p0, x0, PLAN), blend(f1, p1, x1, PLAN), scale, PHI)
            m0 += tl.sum(s0, 1)
            if PHI == 'modulus_phase':
                m1 += tl.sum(s1, 1)
    if HAS_VANILLA:
        score, norm = finish(v0, v1, modulus_weight, phase_weight, PHI)
        tl.store(vanilla + slot, score, mask=valid)
        if HAS_NORM:
            tl.store(vanilla_norm + slot, norm, mask=valid)
    if PLAN != 'none':
        score, norm = finish(m0, m1, modulus_weight, phase_weight, PHI)
        tl.store(mutated + slot, score, mask=valid)
        if HAS_NORM:
            tl.store(mutated_norm + slot, norm, mask=valid)


@triton.jit
def backward_batch(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm, mutated,
                   mutated_norm, grad_query, grad_positive, num, modulus_weight, phase_weight, scale,
                   PHI: tl.constexpr, PLAN: tl.constexpr, SHARED: tl.constexpr, HAS_VANILLA: tl.constexpr,
                   HAS_MUTATED: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr, QUERY_PARTS: tl.constexpr,
                   BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    r"""Computes the gradients of a triple's query and positive for one block of components."""
    b = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = (k < SIZE)[None, :]
    q0, q1, q2 = load_parts(query, b * (QUERY_PARTS * SIZE) + k[None, :], inside, SIZE, QUERY_PARTS)
    if PLAN != 'pair':
        p0, p1, p2 = load_parts(positive, b * (PARTS * SIZE) + k[None, :], inside, SIZE, PARTS)
    # Sums across threads are expensive, so tiles are accumulated and reduced once at the end.
    g0 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    g1 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    g2 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    h0 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    h1 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    for first in range(0, num, BLOCK_S):
        n = first + tl.arange(0, BLOCK_S)
        valid = n < num
        slot = b * num + n
        rows = tl.load(index + slot, mask=valid, other=0)[:, None]
        x0, x1, _ = load_parts(table, rows * (PARTS * SIZE) + k[None, :], valid[:, None] & inside, SIZE, PARTS)
        if HAS_VANILLA:
            w0, w1 = slope(vanilla, vanilla_norm, slot, valid, modulus_weight, phase_weight, PHI)
            a0, a1, a2, _, _ = pull(q0, q1, q2, x0, x1, w0, w1, scale, PHI)
            g0 += a0
            if QUERY_PARTS > 1:
                g1 += a1
            if QUERY_PARTS > 2:
                g2 += a2
        if HAS_MUTATED:
            if PLAN == 'pair':
                p0, p1 = load_others(positive, table, partner, b, slot, valid, k, PLAN, SIZE, PARTS)
            f0, f1 = shares(bank, mask_index, weight, b, slot, valid, k, PLAN, SHARED, SIZE, PARTS)
            w0, w1 = slope(mutated, mutated_norm, slot, valid, modulus_weight, phase_weight, PHI)
            a0, a1, a2, y0, y1 = pull(q0, q1, q2, blend(f0, p0, x0, PLAN), blend(f1, p1, x1, PLAN), w0, w1, scale, PHI)
            g0 += a0
            if QUERY_PARTS > 1:
                g1 += a1
            if QUERY_PARTS > 2:
                g2 += a2
            if PLAN != 'pair':
                h0 += blend(f0, y0, 0.0, PLAN)
                if PARTS > 1:
                    h1 += blend(f1, y1, 0.0, PLAN)
    inside = k < SIZE
    at = grad_query + b * (QUERY_PARTS * SIZE) + k
    tl.store(at, tl.sum(g0, 0), mask=inside)
    if QUERY_PARTS > 1:
        tl.store(at + SIZE, tl.sum(g1, 0), mask=inside)
    if QUERY_PARTS > 2:
        tl.store(at + 2 * SIZE, tl.sum(g2, 0), mask=inside)
    at = grad_positive + b * (PARTS * SIZE) + k
    tl.store(at, tl.sum(h0, 0), mask=inside)
    if PARTS > 1:
        tl.store(at + SIZE, tl.sum(h1, 0), mask=inside)


@triton.jit
def backward_weight(query, positive, table, index, weight, partner, mutated, mutated_norm, grad_weight, num,
                    modulus_weight, phase_weight, scale, PHI: tl.constexpr, PLAN: tl.constexpr, SIZE: tl.constexpr,
                    PARTS: tl.constexpr, QUERY_PARTS: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    r"""Computes the gradients of the scalar weights of one block of a triple's slots."""
    b = tl.program_id(0).to(tl.int64)
    n = tl.program_id(1) * BLOCK_S + tl.arange(0, BLOCK_S)
    valid = n < num
    slot = b * num + n
    rows = tl.load(index + slot, mask=valid, other=0)[:, None]
    w0, w1 = slope(mutated, mutated_norm, slot, valid, modulus_weight, phase_weight, PHI)
    total = tl.zeros([BLOCK_S], tl.float32)
    for start in range(0, SIZE, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        inside = (k < SIZE)[None, :]
        q0, q1, q2 = load_parts(query, b * (QUERY_PARTS * SIZE) + k[None, :], inside, SIZE, QUERY_PARTS)
        p0, p1 = load_others(positive, table, partner, b, slot, valid, k, PLAN, SIZE, PARTS)
        x0, x1, _ = load_parts(table, rows * (PARTS * SIZE) + k[None, :], valid[:, None] & inside, SIZE, PARTS)
        f0, f1 = shares(table, index, weight, b, slot, valid, k, PLAN, False, SIZE, PARTS)
        _, _, _, y0, y1 = pull(q0, q1, q2, blend(f0, p0, x0, PLAN), blend(f1, p1, x1, PLAN), w0, w1, scale, PHI)
        total += tl.sum(y0 * (x0 - p0), 1)
        if PARTS > 1:
            total += tl.sum(y1 * (x1 - p1), 1)
    tl.store(grad_weight + slot, total, mask=valid)


@triton.jit
def _pull_slots(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm, mutated,
                mutated_norm, order, place, valid, k, num, modulus_weight, phase_weight, scale, PHI: tl.constexpr,
                PLAN: tl.constexpr, SHARED: tl.constexpr, HAS_VANILLA: tl.constexpr, HAS_MUTATED: tl.constexpr,
                MASKS: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr, QUERY_PARTS: tl.constexpr):
    r"""Returns the contribution of slots in the sorted order to the gradient of the row that they share, a row of the
    table or, with :obj:`MASKS`, of the bank. Pairs have two slots for each position: the negative's and the
    partner's."""
    slot = tl.load(order + place, mask=valid, other=0)
    own = valid
    if PLAN == 'pair':
        own = valid & (slot % 2 == 0)
        slot = slot // 2
    b = slot // num
    inside = valid[:, None] & (k < SIZE)[None, :]
    rows = tl.load(index + slot, mask=valid, other=0)[:, None]
    q0, q1, q2 = load_parts(query, b[:, None] * (QUERY_PARTS * SIZE) + k[None, :], inside, SIZE, QUERY_PARTS)
    x0, x1, _ = load_parts(table, rows * (PARTS * SIZE) + k[None, :], inside, SIZE, PARTS)
    g0 = tl.zeros_like(q0)
    g1 = tl.zeros_like(q0)
    if HAS_VANILLA and not MASKS:
        w0, w1 = slope(vanilla, vanilla_norm, slot, own, modulus_weight, phase_weight, PHI)
        _, _, _, g0, g1 = pull(q0, q1, q2, x0, x1, w0, w1, scale, PHI)
    if HAS_MUTATED:
        p0, p1 = load_others(positive, table, partner, b[:, None], slot, valid, k, PLAN, SIZE, PARTS)
        f0, f1 = shares(bank, mask_index, weight, b, slot, valid, k, PLAN, SHARED, SIZE, PARTS)
        w0, w1 = slope(mutated, mutated_norm, slot, valid, modulus_weight, phase_weight, PHI)
        _, _, _, y0, y1 = pull(q0, q1, q2, blend(f0, p0, x0, PLAN), blend(f1, p1, x1, PLAN), w0, w1, scale, PHI)
        if PLAN == 'pair':
            # The fraction of the partner in the second of the two slots.
            f0 = tl.where(own[:, None], f0, 1.0 - f0)
            f1 = f0
        if MASKS:
            g0 = y0 * (p0 - x0)
            g1 = y1 * (p1 - x1)
        else:
            g0 += blend(f0, 0.0, y0, PLAN)
            g1 += blend(f1, 0.0, y1, PLAN)
    return g0, g1


@triton.jit
def backward_pieces(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm, mutated,
                    mutated_norm, order, keys, partial, num, modulus_weight, phase_weight, scale, PHI: tl.constexpr,
                    PLAN: tl.constexpr, SHARED: tl.constexpr, HAS_VANILLA: tl.constexpr, HAS_MUTATED: tl.constexpr,
                    MASKS: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr, QUERY_PARTS: tl.constexpr,
                    PIECE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    r"""Sums a piece of the sorted order if all its slots belong to one row, and writes nothing otherwise."""
    piece = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    whole = tl.load(keys + piece * PIECE) == tl.load(keys + piece * PIECE + PIECE - 1)
    s0 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    s1 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    for i in range(0, tl.where(whole, PIECE, 0), BLOCK_S):
        place = piece * PIECE + i + tl.arange(0, BLOCK_S)
        valid = place >= 0
        g0, g1 = _pull_slots(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm,
                             mutated, mutated_norm, order, place, valid, k, num, modulus_weight, phase_weight, scale,
                             PHI, PLAN, SHARED, HAS_VANILLA, HAS_MUTATED, MASKS, SIZE, PARTS, QUERY_PARTS)
        s0 += g0
        if PARTS > 1:
            s1 += g1
    at = partial + piece * (PARTS * SIZE) + k
    # A numeric comparison, because some versions of the interpreter do not accept a scalar boolean as a mask.
    inside = k < tl.where(whole, SIZE, 0)
    tl.store(at, tl.sum(s0, 0), mask=inside)
    if PARTS > 1:
        tl.store(at + SIZE, tl.sum(s1, 0), mask=inside)


@triton.jit
def backward_rows(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm, mutated,
                  mutated_norm, order, starts, partial, target, num, modulus_weight, phase_weight, scale,
                  PHI: tl.constexpr, PLAN: tl.constexpr, SHARED: tl.constexpr, HAS_VANILLA: tl.constexpr,
                  HAS_MUTATED: tl.constexpr, MASKS: tl.constexpr, SIZE: tl.constexpr, PARTS: tl.constexpr,
                  QUERY_PARTS: tl.constexpr, PIECE: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    r"""Computes the gradient of one row for one block of components, which is zero for a row without slots."""
    group = tl.program_id(0).to(tl.int64)
    k = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    low = tl.load(starts + group)
    high = tl.load(starts + group + 1)
    # Complete pieces inside this row were summed before. The remaining slots are those before the first such piece and
    # those after the last.
    first = (low + PIECE - 1) // PIECE
    last = high // PIECE
    pieces = tl.maximum(last - first, 0)
    head = tl.where(pieces > 0, first * PIECE - low, high - low)
    s0 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    s1 = tl.zeros([BLOCK_S, BLOCK_K], tl.float32)
    for i in range(0, high - low - pieces * PIECE, BLOCK_S):
        rest = i + tl.arange(0, BLOCK_S)
        valid = rest < high - low - pieces * PIECE
        place = low + rest + tl.where(rest < head, 0, pieces * PIECE)
        g0, g1 = _pull_slots(query, positive, table, index, bank, mask_index, weight, partner, vanilla, vanilla_norm,
                             mutated, mutated_norm, order, place, valid, k, num, modulus_weight, phase_weight, scale,
                             PHI, PLAN, SHARED, HAS_VANILLA, HAS_MUTATED, MASKS, SIZE, PARTS, QUERY_PARTS)
        s0 += g0
        if PARTS > 1:
            s1 += g1
    for i in range(0, pieces, BLOCK_S):
        piece = i + tl.arange(0, BLOCK_S)
        inside = (piece < pieces)[:, None] & (k < SIZE)[None, :]
        g0, g1, _ = load_parts(partial, (first + piece)[:, None] * (PARTS * SIZE) + k[None, :], inside, SIZE, PARTS)
        s0 += g0
        if PARTS > 1:
            s1 += g1
    at = target + group * (PARTS * SIZE) + k
    tl.store(at, tl.sum(s0, 0), mask=k < SIZE)
    if PARTS > 1:
        tl.store(at + SIZE, tl.sum(s1, 0), mask=k < SIZE)

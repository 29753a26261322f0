r"""The CPU kernels of :func:`~pyg_emu.ops.rank_counts`: scores of all entities, and counts.

Entities are scored in panels of :data:`LANES`, transposed so that a vector holds the same component of all of them, and
queries four at a time: each vector of a panel is loaded once for four queries. With AVX-512, their sums stay in
registers. The last panel is filled up with zeros, and the last query is repeated, so every score results from the same
operations in the same order.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
from numba import prange

from pyg_emu.ops.numba_runtime import jit
from pyg_emu.ops.numba_vectors import absolute, fill, load, multiply_add, square_root, store

#: Entities in a panel: for each of four queries, two AVX-512 or four AVX2 registers of float32.
LANES = 32

#: The interactions that the kernels support.
DOT, L1, L2, MODULUS, MODULUS_PHASE = range(5)


@jit(parallel=True, nogil=True)
def score(kind, query, table, parts, modulus_weight, phase_weight, phase_scale, scores):
    r"""Computes the scores of all entities, panels in parallel. The queries of :data:`MODULUS_PHASE` hold the modulus,
    its weight, and the sine and cosine of half the phase."""
    num_nodes, num_queries = table.shape[0], query.shape[0]
    width = table.shape[1] // parts
    rows = 3 * width if kind == MODULUS_PHASE else parts * width
    for panel in prange((num_nodes + LANES - 1) // LANES):
        start = np.int64(panel) * LANES
        size = min(LANES, num_nodes - start)
        block = np.zeros((rows, LANES), table.dtype)
        spare = np.empty((4, LANES), table.dtype)
        for lane in range(size):
            for k in range(width):
                block[k, lane] = table[start + lane, k]
                if kind == MODULUS:
                    block[width + k, lane] = table[start + lane, width + k]
                elif kind == MODULUS_PHASE:
                    half = table[start + lane, width + k] * phase_scale / 2
                    block[width + k, lane] = math.sin(half)
                    block[2 * width + k, lane] = math.cos(half)
        # Scores of the last panel do not fit into the rows of the others.
        whole = size == LANES
        out, column = (scores, start) if whole else (spare, 0)
        for a in range(0, num_queries, 4):
            b, c, d = min(a + 1, num_queries - 1), min(a + 2, num_queries - 1), min(a + 3, num_queries - 1)
            into = (a, b, c, d) if whole else (0, 1, 2, 3)
            if kind == DOT:
                _dot(query, a, b, c, d, block, out, into, column)
            elif kind == L1:
                _l1(query, a, b, c, d, block, out, into, column)
            elif kind == L2:
                _l2(query, a, b, c, d, block, out, into, column)
            elif kind == MODULUS:
                _modulus(query, a, b, c, d, block, out, into, column)
            else:
                _modulus_phase(query, a, b, c, d, block, modulus_weight, phase_weight, out, into, column)
            if not whole:
                for lane in range(size):
                    # The last query may be repeated. Its scores are then written several times, with the same values.
                    scores[a, start + lane] = spare[0, lane]
                    scores[b, start + lane] = spare[1, lane]
                    scores[c, start + lane] = spare[2, lane]
                    scores[d, start + lane] = spare[3, lane]


@jit(nogil=True, forceinline=True)
def _store(out, into, column, s, t, u, v):
    store(out, into[0], column, s)
    store(out, into[1], column, t)
    store(out, into[2], column, u)
    store(out, into[3], column, v)


@jit(nogil=True)
def _dot(query, a, b, c, d, block, out, into, column):
    s = t = u = v = fill(block.dtype.type(0), LANES)
    for k in range(query.shape[1]):
        x = load(block, k, 0, LANES)
        s = multiply_add(fill(query[a, k], LANES), x, s)
        t = multiply_add(fill(query[b, k], LANES), x, t)
        u = multiply_add(fill(query[c, k], LANES), x, u)
        v = multiply_add(fill(query[d, k], LANES), x, v)
    _store(out, into, column, s, t, u, v)


@jit(nogil=True)
def _l1(query, a, b, c, d, block, out, into, column):
    s = t = u = v = fill(block.dtype.type(0), LANES)
    for k in range(query.shape[1]):
        x = load(block, k, 0, LANES)
        s = s - absolute(fill(query[a, k], LANES) - x)
        t = t - absolute(fill(query[b, k], LANES) - x)
        u = u - absolute(fill(query[c, k], LANES) - x)
        v = v - absolute(fill(query[d, k], LANES) - x)
    _store(out, into, column, s, t, u, v)


@jit(nogil=True, forceinline=True)
def _add_square(value, total):
    return multiply_add(value, value, total)


@jit(nogil=True)
def _l2(query, a, b, c, d, block, out, into, column):
    zero = fill(block.dtype.type(0), LANES)
    s = t = u = v = zero
    for k in range(query.shape[1]):
        x = load(block, k, 0, LANES)
        s = _add_square(fill(query[a, k], LANES) - x, s)
        t = _add_square(fill(query[b, k], LANES) - x, t)
        u = _add_square(fill(query[c, k], LANES) - x, u)
        v = _add_square(fill(query[d, k], LANES) - x, v)
    _store(out, into, column, zero - square_root(s), zero - square_root(t), zero - square_root(u),
           zero - square_root(v))


@jit(nogil=True, forceinline=True)
def _distance(query, row, k, width, x, y):
    re, im = fill(query[row, k], LANES) - x, fill(query[row, width + k], LANES) - y
    return square_root(multiply_add(re, re, im * im))


@jit(nogil=True)
def _modulus(query, a, b, c, d, block, out, into, column):
    width = query.shape[1] // 2
    s = t = u = v = fill(block.dtype.type(0), LANES)
    for k in range(width):
        x, y = load(block, k, 0, LANES), load(block, width + k, 0, LANES)
        s = s - _distance(query, a, k, width, x, y)
        t = t - _distance(query, b, k, width, x, y)
        u = u - _distance(query, c, k, width, x, y)
        v = v - _distance(query, d, k, width, x, y)
    _store(out, into, column, s, t, u, v)


@jit(nogil=True, forceinline=True)
def _modulus_term(query, row, k, width, x, total):
    return _add_square(fill(query[row, width + k], LANES) * x - fill(query[row, k], LANES), total)


@jit(nogil=True, forceinline=True)
def _phase_term(query, row, k, width, sine, cosine):
    r""":math:`|\sin((q - x) / 2)|` of sines and cosines of halves, which needs no sine for each pair."""
    first = fill(query[row, 2 * width + k], LANES) * cosine
    return absolute(first - fill(query[row, 3 * width + k], LANES) * sine)


@jit(nogil=True, forceinline=True)
def _weighed(zero, modulus_weight, square, phase_weight, phase):
    return zero - (modulus_weight * square_root(square) + phase_weight * phase)


@jit(nogil=True)
def _modulus_phase(query, a, b, c, d, block, modulus_weight, phase_weight, out, into, column):
    width = query.shape[1] // 4
    zero = fill(block.dtype.type(0), LANES)
    s = t = u = v = zero
    for k in range(width):
        x = load(block, k, 0, LANES)
        s = _modulus_term(query, a, k, width, x, s)
        t = _modulus_term(query, b, k, width, x, t)
        u = _modulus_term(query, c, k, width, x, u)
        v = _modulus_term(query, d, k, width, x, v)
    e = f = g = h = zero
    for k in range(width):
        sine, cosine = load(block, width + k, 0, LANES), load(block, 2 * width + k, 0, LANES)
        e = e + _phase_term(query, a, k, width, sine, cosine)
        f = f + _phase_term(query, b, k, width, sine, cosine)
        g = g + _phase_term(query, c, k, width, sine, cosine)
        h = h + _phase_term(query, d, k, width, sine, cosine)
    m = fill(block.dtype.type(modulus_weight), LANES)
    n = fill(block.dtype.type(phase_weight), LANES)
    _store(out, into, column, _weighed(zero, m, s, n, e), _weighed(zero, m, t, n, f), _weighed(zero, m, u, n, g),
           _weighed(zero, m, v, n, h))


@jit(parallel=True, nogil=True)
def count(scores, row, target, owns, ptr, index, counts, invalid):
    r"""Counts the competitors of each target, see :func:`pyg_emu.ops.rank_counts.torch.count`."""
    num_nodes = scores.shape[1]
    for b in prange(row.shape[0]):
        line = scores[row[b]]
        own = owns[b]
        greater, equal, smaller = 0, 0, 0
        for v in range(num_nodes):
            greater += line[v] > own
            equal += line[v] == own
            smaller += line[v] < own
        # Comparisons with NaN are false, so the three numbers do not add up if the target or a competitor is NaN.
        invalid[b] = greater + equal + smaller != num_nodes
        # The target ties with itself, unless another process has it.
        here = 1 if target[b] >= 0 else 0
        candidates = num_nodes - here
        equal -= here
        for slot in range(ptr[row[b]], ptr[row[b] + 1]):
            entity = index[slot]
            if entity != target[b]:
                candidates -= 1
                greater -= line[entity] > own
                equal -= line[entity] == own
        counts[0, b] = greater
        counts[1, b] = equal
        counts[2, b] = candidates

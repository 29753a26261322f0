r"""The backward loops of :mod:`pyg_emu.ops.relational.numba`, with the blocks, lanes and pieces of
:mod:`pyg_emu.ops.relational.numba_kernels`.

The gradient of the message :math:`m` of edge :math:`(u, r, v)` is :math:`a_v + c_v m`, plus the gradient of the extrema
that come from this edge. :math:`c` is zero except for the mean of squares. Without extrema, edges are sorted by source
and the gradient of a node is summed in registers. With extrema, edges are sorted by target, and :math:`a_v`,
:math:`c_v`, the edges of the extrema and their gradients are read once per node.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import functools
from typing import Callable

import numpy as np
from numba import njit, prange

from pyg_emu.ops.numba_runtime import jit
from pyg_emu.ops.numba_vectors import anywhere, choose, fill, first_half, join, load, prefetch, second_half, store
from pyg_emu.ops.relational.numba_kernels import AHEAD, CHUNK, LANES, MESSAGES, OPTIONS, compose, read, request

_ADD, _ROTATE = 1, 2

# Prefetch distance of the node state, in nodes.
_AHEAD = 2

# Rows of the node state: a, c, and the gradients of the extrema.
_CONSTANT, _LINEAR, _HIGH, _LOW = 0, 1, 2, 3
# Kinds of gradients, see :func:`trace_kernel`.
_EXTREMA = {'max': 1, 'min': 2, 'pna': 3}
_ONLY_MAX, _ONLY_MIN, _PNA = 1, 2, 3


@njit(inline='always', **OPTIONS)
def _derive(g, other, message):
    r"""Returns the gradient of one factor of a message, given the gradient of the message and the other factor."""
    if message == _ROTATE:
        re, im, other_re, other_im = first_half(g), second_half(g), first_half(other), second_half(other)
        out = join(re * other_re + im * other_im, im * other_re - re * other_im)
    elif message == _ADD:
        out = g
    else:
        out = g * other
    return out


@functools.cache
def spread_kernel(message: str) -> Callable[..., None]:
    r"""Compiles the loop over edges sorted by source for sums and means. All messages of a node have the gradient
    :obj:`constant (blocks, V, L)`.

    Args:
        message (str): One of :obj:`MESSAGES`.
    """
    kind = MESSAGES[message]

    @jit(parallel=True, **OPTIONS)
    def spread(ptr, owner, target, rel_type, weight, mask, x, r, constant, grad_x, grad_r):
        num_blocks, num_edges, pieces = x.shape[0], target.shape[0], owner.shape[0] - 1
        # The first node may begin in an earlier piece. All other nodes belong to one piece only.
        part = np.zeros((num_blocks, pieces, LANES), x.dtype)
        for task in prange(num_blocks * pieces):
            b, s = task // pieces, task % pieces
            low, high = num_edges * s // pieces, num_edges * (s + 1) // pieces
            first, last = owner[s], owner[s + 1]
            block, table, slope, block_grad, table_grad = x[b], r[b], constant[b], grad_x[b, 0], grad_r[b, s]
            table_grad[:] = 0
            for node in range(first - 1, last):
                if node < first:
                    start, end = low, min(ptr[first], high)
                else:
                    start, end = ptr[node], min(ptr[node + 1], high)
                own = load(block, max(node, 0), 0, LANES)
                total = fill(x.dtype.type(0), LANES)
                for index in range(start, end):
                    p = np.uint64(index)
                    if mask.shape[0] == 0 or mask[p]:
                        v, q = target[p], rel_type[p]
                        vector = load(table, q, 0, LANES)
                        g = load(slope, v, 0, LANES)
                        if weight.shape[0] > 0:
                            g = g * fill(weight[p], LANES)
                        total = total + _derive(g, vector, kind)
                        store(table_grad, q, 0, load(table_grad, q, 0, LANES) + _derive(g, own, kind))
                if node < first:
                    store(part[b], s, 0, total)
                else:
                    store(block_grad, node, 0, total)
        for b in range(num_blocks):
            for s in range(1, pieces):
                if num_edges * s // pieces < ptr[owner[s]]:
                    for k in range(LANES):
                        grad_x[b, 0, owner[s] - 1, k] += part[b, s, k]

    return spread


@jit(**OPTIONS)
def _differentiate(v, b, grad, out, count, column, width, floor, kind, state):
    r"""Writes :math:`a`, :math:`c` and the gradients of the maximum and the minimum of a node to :obj:`state (4, L)`.

    The statistics are :obj:`width` columns apart in :obj:`grad` and :obj:`out`. A deviation of :obj:`floor` was
    clamped.
    """
    if kind == _PNA:
        zero, one = state.dtype.type(0), state.dtype.type(1)
        read(grad, v, b, 0, column, state, _CONSTANT)
        read(grad, v, b, 3 * width, column, state, _LINEAR)
        # Uses rows of the state that are still free.
        read(out, v, b, 0, column, state, _HIGH)
        read(out, v, b, 3 * width, column, state, _LOW)
        mean, deviation = load(state, _HIGH, 0, LANES), load(state, _LOW, 0, LANES)
        share = fill(one / state.dtype.type(max(count[v], 1)), LANES)
        clamped = deviation <= fill(floor, LANES)
        linear = choose(clamped, fill(zero, LANES), load(state, _LINEAR, 0, LANES) / deviation * share)
        store(state, _CONSTANT, 0, load(state, _CONSTANT, 0, LANES) * share - linear * mean)
        store(state, _LINEAR, 0, linear)
        read(grad, v, b, width, column, state, _HIGH)
        read(grad, v, b, 2 * width, column, state, _LOW)
    elif kind == _ONLY_MAX:
        read(grad, v, b, 0, column, state, _HIGH)
    else:
        read(grad, v, b, 0, column, state, _LOW)


@jit(**OPTIONS)
def _request_state(v, b, grad, out, column, width, kind):
    r"""Prefetches the cache lines that :func:`_differentiate` reads."""
    for c in range(0, LANES, CHUNK):
        place = column[b * LANES + c]
        prefetch(grad, v, place, 0)
        if kind == _PNA:
            for i in range(1, 4):
                prefetch(grad, v, place + i * width, 0)
            prefetch(out, v, place, 0)
            prefetch(out, v, place + 3 * width, 0)


@functools.cache
def trace_kernel(message: str, aggregate: str) -> Callable[..., None]:
    r"""Compiles the loop over edges sorted by target for extrema, alone or as part of the statistics.

    An edge may contribute to the gradient of any node, so each piece has its own gradients:
    :obj:`grad_x (blocks, pieces, V, L)`.

    Args:
        message (str): One of :obj:`MESSAGES`.
        aggregate (str): :obj:`"max"`, :obj:`"min"` or :obj:`"pna"`.
    """
    msg_kind, kind = MESSAGES[message], _EXTREMA[aggregate]

    @jit(parallel=True, **OPTIONS)
    def trace(ptr, owner, source, rel_type, weight, mask, x, r, grad, out, arg, count, column, width, floor, grad_x,
              grad_r):
        num_blocks, num_edges, pieces = x.shape[0], source.shape[0], owner.shape[0] - 1
        for task in prange(num_blocks * pieces):
            b, s = task // pieces, task % pieces
            first, last = num_edges * s // pieces, num_edges * (s + 1) // pieces
            block, table, block_grad, table_grad = x[b], r[b], grad_x[b, s], grad_r[b, s]
            block_grad[:] = 0
            table_grad[:] = 0
            state, where = np.zeros((4, LANES), x.dtype), np.empty((2, LANES), np.int32)
            final = np.uint64(num_edges - 1)
            for v in range(max(owner[s] - 1, 0), owner[s + 1]):
                start, end = max(ptr[v], first), min(ptr[v + 1], last)
                _request_state(v + _AHEAD, b, grad, out, column, width, kind)
                if start < end:
                    _differentiate(v, b, grad, out, count, column, width, floor, kind, state)
                    constant, linear = load(state, _CONSTANT, 0, LANES), load(state, _LINEAR, 0, LANES)
                    high, low = load(state, _HIGH, 0, LANES), load(state, _LOW, 0, LANES)
                    for k in range(LANES):
                        where[0, k] = arg[b, v, 0, k]
                    for k in range(LANES):
                        where[1, k] = arg[b, v, 1, k]
                    arg_high, arg_low = load(where, 0, 0, LANES), load(where, 1, 0, LANES)
                    for index in range(start, end):
                        p = np.uint64(index)
                        position = fill(np.int32(index - ptr[v]), LANES)
                        if kind == _PNA:
                            u = source[min(p + np.uint64(AHEAD), final)]
                            request(block, u, 0)
                            request(block_grad, u, 1)
                            wanted = mask.shape[0] == 0 or mask[p]
                        elif kind == _ONLY_MAX:
                            wanted = anywhere(arg_high == position)
                        else:
                            wanted = anywhere(arg_low == position)
                        if wanted:
                            u, q = source[p], rel_type[p]
                            own, vector = load(block, u, 0, LANES), load(table, q, 0, LANES)
                            g = constant
                            if kind == _PNA:
                                m = compose(own, vector, msg_kind)
                                if weight.shape[0] > 0:
                                    m = m * fill(weight[p], LANES)
                                g = g + m * linear
                            if kind != _ONLY_MIN:
                                g = choose(arg_high == position, g + high, g)
                            if kind != _ONLY_MAX:
                                g = choose(arg_low == position, g + low, g)
                            if weight.shape[0] > 0:
                                g = g * fill(weight[p], LANES)
                            total = load(block_grad, u, 0, LANES) + _derive(g, vector, msg_kind)
                            store(block_grad, u, 0, total)
                            total = load(table_grad, q, 0, LANES) + _derive(g, own, msg_kind)
                            store(table_grad, q, 0, total)

    return trace


@jit(parallel=True, **OPTIONS)
def pna_slopes(grad, out, count, column, width, floor, slopes):
    r"""Writes :math:`a` and :math:`c` to :obj:`slopes (blocks, V, 2, L)`, see :func:`trace_kernel`."""
    num_blocks, num_nodes = slopes.shape[:2]
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        state = np.zeros((4, LANES), slopes.dtype)
        for v in range(num_nodes * piece // pieces, num_nodes * (piece + 1) // pieces):
            _differentiate(v, b, grad, out, count, column, width, floor, _PNA, state)
            store(slopes[b, v], 0, 0, load(state, 0, 0, LANES))
            store(slopes[b, v], 1, 0, load(state, 1, 0, LANES))


@jit(parallel=True, **OPTIONS)
def edge_weights(message, ptr, source, target, rel_type, weight, mask, x, r, slopes, arg, grad, column, high, low, out):
    r"""Computes the gradient of the edge weights. One thread processes an edge and sums its blocks in order.

    :obj:`high` and :obj:`low` are the offsets of the extrema in a row of :obj:`grad`, or negative without extrema.
    """
    num_blocks, _, lanes = x.shape
    half, num_edges, linear = lanes // 2, source.shape[0], slopes.shape[2] == 2
    size = 1024
    for piece in prange((num_edges + size - 1) // size):
        for b in range(num_blocks):
            for p in range(piece * size, min((piece + 1) * size, num_edges)):
                if mask.shape[0] == 0 or mask[p]:
                    u, v, q = source[p], target[p], rel_type[p]
                    total = x.dtype.type(0)
                    for k in range(lanes):
                        place = column[b * lanes + k]
                        if message == _ROTATE and k < half:
                            m = x[b, u, k] * r[b, q, k] - x[b, u, half + k] * r[b, q, half + k]
                        elif message == _ROTATE:
                            m = x[b, u, k - half] * r[b, q, k] + x[b, u, k] * r[b, q, k - half]
                        elif message == _ADD:
                            m = x[b, u, k] + r[b, q, k]
                        else:
                            m = x[b, u, k] * r[b, q, k]
                        if place >= 0:
                            g = slopes[b, v, 0, k]
                            if linear:
                                g += slopes[b, v, 1, k] * weight[p] * m
                            if high >= 0 and arg[b, v, 0, k] == p - ptr[v]:
                                g += grad[v, place + high]
                            if low >= 0 and arg[b, v, 1, k] == p - ptr[v]:
                                g += grad[v, place + low]
                            total += g * m
                    out[p] += total

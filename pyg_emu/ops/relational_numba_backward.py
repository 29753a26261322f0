r"""The loops behind the gradients of :mod:`pyg_emu.ops.relational_numba`. Blocks, lanes and pieces are those of
:mod:`pyg_emu.ops.relational_numba_kernels`.

The gradient of a message of edge :math:`(u, r, v)` is :math:`a_v + c_v m`, :math:`c` being zero for everything but the
mean of squares, plus what an extremum sends to the one edge that it came from.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import functools
from typing import Callable

import numpy as np
from numba import njit, prange

from pyg_emu.ops.numba_runtime import jit
from pyg_emu.ops.relational_numba_kernels import CHUNK, MESSAGES, OPTIONS, is_run

_ADD, _ROTATE = 1, 2


@jit(parallel=True, **OPTIONS)
def pna_slopes(grad, out, count, column, width, floor, slopes):
    r"""Fills :obj:`slopes (blocks, V, 2, L)` with :math:`a` and :math:`c` of the mean and the standard deviation.

    Columns of :obj:`grad` and :obj:`out` are statistics, :obj:`width` apart; a deviation of :obj:`floor` was clamped.
    """
    num_blocks, num_nodes, _, lanes = slopes.shape
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        for v in range(num_nodes * piece // pieces, num_nodes * (piece + 1) // pieces):
            share = slopes.dtype.type(1) / slopes.dtype.type(max(count[v], 1))
            for c in range(0, lanes, CHUNK):
                place = column[b * lanes + c]
                if is_run(column, b * lanes + c):
                    for k in range(CHUNK):
                        std = out[v, place + 3 * width + k]
                        linear = grad[v, place + 3 * width + k] / std * share
                        linear = slopes.dtype.type(0) if std <= floor else linear
                        slopes[b, v, 0, c + k] = grad[v, place + k] * share - linear * out[v, place + k]
                        slopes[b, v, 1, c + k] = linear
                else:
                    for k in range(c, c + CHUNK):
                        place = column[b * lanes + k]
                        constant = slopes.dtype.type(0)
                        linear = slopes.dtype.type(0)
                        if place >= 0:
                            std = out[v, place + 3 * width]
                            if not std <= floor:
                                linear = grad[v, place + 3 * width] / std * share
                            constant = grad[v, place] * share - linear * out[v, place]
                        slopes[b, v, 0, k] = constant
                        slopes[b, v, 1, k] = linear


@njit(inline='always', **OPTIONS)
def _pass_back(w, g, k, u, q, x, r, message, half, grad_x, grad_r):
    r"""Adds what a gradient :obj:`g` of lane :obj:`k` of a message is to its node's features and its relation."""
    g = w * g
    if message == _ROTATE:
        if k < half:
            grad_x[u, k] += g * r[q, k]
            grad_x[u, half + k] -= g * r[q, half + k]
            grad_r[q, k] += g * x[u, k]
            grad_r[q, half + k] -= g * x[u, half + k]
        else:
            grad_x[u, k - half] += g * r[q, k]
            grad_x[u, k] += g * r[q, k - half]
            grad_r[q, k] += g * x[u, k - half]
            grad_r[q, k - half] += g * x[u, k]
    elif message == _ADD:
        grad_x[u, k] += g
        grad_r[q, k] += g
    else:
        grad_x[u, k] += g * r[q, k]
        grad_r[q, k] += g * x[u, k]


@functools.cache
def spread_kernel(message: str, linear: bool, lanes: int) -> Callable[..., None]:
    r"""Compiles the walk over edges by source that yields the gradients of features and relation vectors.

    Args:
        message (str): One of :obj:`MESSAGES`.
        linear (bool): Whether there is a :math:`c`; :obj:`slopes` is :obj:`(blocks, V, 2, L)`, or else
            :obj:`(blocks, V, 1, L)`.
        lanes (int): Lanes in a block.
    """
    kind, half = MESSAGES[message], lanes // 2

    @jit(parallel=True, **OPTIONS)
    def spread(ptr, owner, target, rel_type, weight, mask, x, r, slopes, grad_x, grad_r):
        num_blocks, num_edges, pieces = x.shape[0], target.shape[0], owner.shape[0] - 1
        # Of a node begun in an earlier piece; a piece's own nodes are added up in place.
        part = np.zeros((num_blocks, pieces, 1, lanes), x.dtype)
        for task in prange(num_blocks * pieces):
            b, s = task // pieces, task % pieces
            low, high = num_edges * s // pieces, num_edges * (s + 1) // pieces
            first, last = owner[s], owner[s + 1]
            block, table, table_grad = x[b], r[b], grad_r[b, s]
            w = x.dtype.type(1)
            for node in range(first - 1, last):
                if node < first:
                    start, end = low, min(ptr[first], high)
                    total = part[b, s, 0]
                else:
                    start, end = ptr[node], min(ptr[node + 1], high)
                    total = grad_x[b, node]
                u = np.uint64(max(node, 0))
                own = block[u]
                for k in range(lanes):
                    total[k] = 0
                for p in range(start, end):
                    if mask.shape[0] == 0 or mask[p]:
                        v, q = np.uint64(target[p]), np.uint64(rel_type[p])
                        if weight.shape[0] > 0:
                            w = weight[p]
                        slope = slopes[b, v]
                        if kind == _ROTATE:
                            for k in range(half):
                                re, im = own[k], own[half + k]
                                rel_re, rel_im = table[q, k], table[q, half + k]
                                g_re, g_im = slope[0, k], slope[0, half + k]
                                if linear:
                                    g_re += slope[1, k] * w * (re * rel_re - im * rel_im)
                                    g_im += slope[1, half + k] * w * (re * rel_im + im * rel_re)
                                g_re *= w
                                g_im *= w
                                total[k] += g_re * rel_re + g_im * rel_im
                                total[half + k] += g_im * rel_re - g_re * rel_im
                                table_grad[q, k] += g_re * re + g_im * im
                                table_grad[q, half + k] += g_im * re - g_re * im
                        elif kind == _ADD:
                            for k in range(lanes):
                                g = slope[0, k]
                                if linear:
                                    g += slope[1, k] * w * (own[k] + table[q, k])
                                g *= w
                                total[k] += g
                                table_grad[q, k] += g
                        else:
                            for k in range(lanes):
                                g = slope[0, k]
                                if linear:
                                    g += slope[1, k] * w * own[k] * table[q, k]
                                g *= w
                                total[k] += g * table[q, k]
                                table_grad[q, k] += g * own[k]
        for b in range(num_blocks):
            for s in range(1, pieces):
                if num_edges * s // pieces < ptr[owner[s]]:
                    for k in range(lanes):
                        grad_x[b, owner[s] - 1, k] += part[b, s, 0, k]

    return spread


@functools.cache
def extremum_kernel(message: str, lanes: int) -> Callable[..., None]:
    r"""Compiles what sends the gradients of extrema to the features and the relations of the edges they came from.

    Any edge may be the one, so a block is one thread's alone. :obj:`high` and :obj:`low` are the offsets of the extrema
    in a row of :obj:`grad`, negative where there is none.
    """
    kind, half = MESSAGES[message], lanes // 2

    @jit(parallel=True, **OPTIONS)
    def extrema(arg, source, rel_type, weight, x, r, grad, column, high, low, grad_x, grad_r):
        num_blocks, num_nodes = x.shape[0], x.shape[1]
        for b in prange(num_blocks):
            w = x.dtype.type(1)
            block, table, block_grad, table_grad = x[b], r[b], grad_x[b], grad_r[b, 0]
            for v in range(num_nodes):
                for k in range(lanes):
                    place = column[b * lanes + k]
                    if place >= 0:
                        p = arg[b, v, 0, k]
                        if high >= 0 and p >= 0:
                            u, q = np.uint64(source[p]), np.uint64(rel_type[p])
                            if weight.shape[0] > 0:
                                w = weight[p]
                            g = grad[v, place + high]
                            _pass_back(w, g, k, u, q, block, table, kind, half, block_grad, table_grad)
                        p = arg[b, v, 1, k]
                        if low >= 0 and p >= 0:
                            u, q = np.uint64(source[p]), np.uint64(rel_type[p])
                            if weight.shape[0] > 0:
                                w = weight[p]
                            g = grad[v, place + low]
                            _pass_back(w, g, k, u, q, block, table, kind, half, block_grad, table_grad)

    return extrema


@jit(parallel=True, **OPTIONS)
def edge_weights(message, source, target, rel_type, weight, mask, x, r, slopes, arg, grad, column, high, low, out):
    r"""The gradient of edge weights. An edge is one thread's alone; its blocks are added up in order.

    :obj:`high` and :obj:`low` are the offsets of the extrema in a row of :obj:`grad`, negative where there is none.
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
                            if high >= 0 and arg[b, v, 0, k] == p:
                                g += grad[v, place + high]
                            if low >= 0 and arg[b, v, 1, k] == p:
                                g += grad[v, place + low]
                            total += g * m
                    out[p] += total

r"""The loops behind :mod:`pyg_emu.ops.relational_numba`, compiled once for each kind of message and statistic.

Features are held in blocks of :obj:`L` lanes, :obj:`(blocks, rows, L)`: the block of all nodes stays in the cache while
every edge is walked, and a lane is a lane of the vector registers. Within a block, edges are cut into pieces of equal
size, hub nodes or not. A node that a cut goes through is summed up from its parts in the order of the pieces, so the
number of threads decides nothing.

For rotation, the first half of a block's lanes holds real parts and the second the imaginary parts of the same
components.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np
from llvmlite import ir
from numba import njit, prange
from numba.extending import intrinsic

from pyg_emu.ops.numba_runtime import FASTMATH, jit


def _instruction(name: str) -> Any:
    r"""A function of two floating-point numbers that LLVM has and Numba does not."""
    def declare(typing_context, one, other):
        def generate(context, builder, signature, arguments):
            kind = arguments[0].type
            function = builder.module.declare_intrinsic(name, [kind], ir.FunctionType(kind, [kind, kind]))
            return builder.call(function, arguments, fastmath=('nsz', ))

        return one(one, one), generate

    return intrinsic(declare)


#: The larger and the smaller of two numbers, or NaN if either is.
maximum, minimum = _instruction('llvm.maximum'), _instruction('llvm.minimum')

#: Options of every kernel.
OPTIONS: dict[str, Any] = {'fastmath': FASTMATH, 'error_model': 'numpy', 'nogil': True}

# Kinds of messages, and which of the accumulators below a kernel fills: constants of a compiled kernel.
MESSAGES = {'product': 0, 'sum': 1, 'rotate': 2}
STATISTICS = {'sum': 0, 'extrema': 1, 'all': 2, 'positions': 3}
_ADD, _ROTATE = 1, 2
_ONLY_SUM, _EXTREMA, _ALL, _POSITIONS = 0, 1, 2, 3

# What is made of them.
AGGREGATES = {'sum': 0, 'mean': 1, 'max': 2, 'min': 3, 'pna': 4}
_MEAN, _MAX, _MIN, _PNA = 1, 2, 3, 4

#: Lanes that are moved together where their features lie side by side: a register of float32.
CHUNK = 16

# Rows of an accumulator.
_SUM, _SQUARE, _HIGH, _LOW = 0, 1, 2, 3

# Boundary conditions: a block like x, or one row per lane.
_DENSE = 1


@njit(inline='always', **OPTIONS)
def is_run(column, first):
    r"""Whether a chunk of lanes lies side by side. Within a chunk columns ascend, padding apart."""
    return column[first] >= 0 and column[first + CHUNK - 1] == column[first] + CHUNK - 1


@jit(parallel=True, **OPTIONS)
def pack(x, column, out):
    r"""Blocks of lanes :obj:`out (blocks, rows, L)` from rows :obj:`x (rows, F)`; zero where there is no column."""
    num_blocks, num_rows, lanes = out.shape
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        for i in range(num_rows * piece // pieces, num_rows * (piece + 1) // pieces):
            for c in range(0, lanes, CHUNK):
                place = column[b * lanes + c]
                if is_run(column, b * lanes + c):
                    for k in range(CHUNK):
                        out[b, i, c + k] = x[i, place + k]
                else:
                    for k in range(CHUNK):
                        place = column[b * lanes + c + k]
                        out[b, i, c + k] = x[i, place] if place >= 0 else 0


@jit(parallel=True, **OPTIONS)
def unpack(blocks, column, out):
    r"""The reverse of :func:`pack`, summing over the second dimension of :obj:`blocks (blocks, parts, rows, L)`."""
    num_blocks, num_parts, num_rows, lanes = blocks.shape
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        total = np.empty(lanes, blocks.dtype)
        for i in range(num_rows * piece // pieces, num_rows * (piece + 1) // pieces):
            for k in range(lanes):
                total[k] = blocks[b, 0, i, k]
            for part in range(1, num_parts):
                for k in range(lanes):
                    total[k] += blocks[b, part, i, k]
            _write(i, b, total, column, 0, lanes, out)


@jit(**OPTIONS)
def _write(v, b, value, column, offset, lanes, out):
    for c in range(0, lanes, CHUNK):
        place = column[b * lanes + c] + offset
        if is_run(column, b * lanes + c):
            for k in range(CHUNK):
                out[v, place + k] = value[c + k]
        else:
            for k in range(c, c + CHUNK):
                place = column[b * lanes + k]
                if place >= 0:
                    out[v, place + offset] = value[k]


@jit(**OPTIONS)
def _clear(acc, arg, lanes):
    for k in range(lanes):
        acc[_SUM, k] = 0
        acc[_SQUARE, k] = 0
        acc[_HIGH, k] = -np.inf
        acc[_LOW, k] = np.inf
        arg[0, k] = -1
        arg[1, k] = -1


# Inlined where they are used, so that kinds and lanes are constants of the loops; and without a buffer between a
# message and its aggregation, which would cost as much as either.


@njit(inline='always', **OPTIONS)
def _take(m, k, position, statistic, acc, arg):
    if statistic == _ONLY_SUM or statistic == _ALL:
        acc[_SUM, k] += m
    if statistic == _ALL:
        acc[_SQUARE, k] += m * m
    if statistic != _ONLY_SUM:
        # Not 'm if m > high else high': a conditional store to memory that the next edge reads stalls it for many
        # cycles.
        high, low = acc[_HIGH, k], acc[_LOW, k]
        acc[_HIGH, k] = maximum(m, high)
        acc[_LOW, k] = minimum(m, low)
        if statistic == _POSITIONS:
            # The first of equals stays, and positions ascend.
            arg[0, k] = max(arg[0, k], position if m > high else np.int32(-1))
            arg[1, k] = max(arg[1, k], position if m < low else np.int32(-1))


@njit(inline='always', **OPTIONS)
def _walk(start, end, source, rel_type, weight, mask, x, r, message, statistic, lanes, acc, arg):
    count = 0
    half = lanes // 2
    w = x.dtype.type(1)
    for p in range(start, end):
        if mask.shape[0] == 0 or mask[p]:
            count += 1
            position = np.int32(p)
            # Unsigned: Numba then leaves out the wraparound of negative indices.
            u, q = np.uint64(source[p]), np.uint64(rel_type[p])
            if weight.shape[0] > 0:
                w = weight[p]
            if message == _ROTATE:
                for k in range(half):
                    m = x[u, k] * r[q, k] - x[u, half + k] * r[q, half + k]
                    _take(w * m, k, position, statistic, acc, arg)
                for k in range(half):
                    m = x[u, k] * r[q, half + k] + x[u, half + k] * r[q, k]
                    _take(w * m, half + k, position, statistic, acc, arg)
            elif message == _ADD:
                for k in range(lanes):
                    _take(w * (x[u, k] + r[q, k]), k, position, statistic, acc, arg)
            else:
                for k in range(lanes):
                    _take(w * (x[u, k] * r[q, k]), k, position, statistic, acc, arg)
    return count


@jit(**OPTIONS)
def _merge(other, other_arg, lanes, acc, arg):
    for k in range(lanes):
        acc[_SUM, k] += other[_SUM, k]
        acc[_SQUARE, k] += other[_SQUARE, k]
        if other[_HIGH, k] > acc[_HIGH, k] or other[_HIGH, k] != other[_HIGH, k]:
            acc[_HIGH, k] = other[_HIGH, k]
            arg[0, k] = other_arg[0, k]
        if other[_LOW, k] < acc[_LOW, k] or other[_LOW, k] != other[_LOW, k]:
            acc[_LOW, k] = other[_LOW, k]
            arg[1, k] = other_arg[1, k]


@jit(**OPTIONS)
def _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, lanes, out, out_arg):
    r"""Writes what the messages of node :obj:`v` amount to, :obj:`width` apart where that is several numbers."""
    if out_arg.shape[0] > 0:
        for k in range(lanes):
            out_arg[b, v, 0, k] = arg[0, k]
            out_arg[b, v, 1, k] = arg[1, k]
    else:
        if count == 0:
            acc[_HIGH, :] = 0
            acc[_LOW, :] = 0
        if aggregate == _MEAN or aggregate == _PNA:
            scale = acc.dtype.type(1) / acc.dtype.type(max(count, 1))
            for k in range(lanes):
                acc[_SUM, k] *= scale
                variance = acc[_SQUARE, k] * scale - acc[_SUM, k] * acc[_SUM, k]
                acc[_SQUARE, k] = np.sqrt(epsilon if variance <= epsilon else variance)
        if aggregate == _MAX:
            _write(v, b, acc[_HIGH], column, 0, lanes, out)
        elif aggregate == _MIN:
            _write(v, b, acc[_LOW], column, 0, lanes, out)
        else:
            _write(v, b, acc[_SUM], column, 0, lanes, out)
        if aggregate == _PNA:
            _write(v, b, acc[_HIGH], column, width, lanes, out)
            _write(v, b, acc[_LOW], column, 2 * width, lanes, out)
            _write(v, b, acc[_SQUARE], column, 3 * width, lanes, out)


@functools.cache
def gather_kernel(message: str, statistic: str, lanes: int) -> Callable[..., None]:
    r"""Compiles the walk over edges by target that aggregates messages.

    Args:
        message (str): One of :obj:`MESSAGES`.
        statistic (str): One of :obj:`STATISTICS`.
        lanes (int): Lanes in a block.
    """
    # Only numbers may stand in the closure: Numba's cache on disk compares them by value.
    msg_kind, stat = MESSAGES[message], STATISTICS[statistic]

    @jit(parallel=True, **OPTIONS)
    def gather(ptr, owner, source, rel_type, weight, mask, x, r, kind, dense, node, row, fill, column, width, epsilon,
               aggregate, out, out_arg):
        # Piece s walks the edges [cut(s), cut(s + 1)) and owns the nodes [owner[s], owner[s + 1]), those that begin in
        # it.
        num_blocks, num_edges, pieces = x.shape[0], source.shape[0], owner.shape[0] - 1
        # What each piece holds of nodes that it does not hold alone: of one begun before (0) and of its own last (1).
        part = np.empty((num_blocks, pieces, 2, 4, lanes), x.dtype)
        part_arg = np.empty((num_blocks, pieces, 2, 2, lanes), np.int32)
        part_count = np.zeros((num_blocks, pieces, 2), np.int64)
        for task in prange(num_blocks * pieces):
            b, s = task // pieces, task % pieces
            low, high = num_edges * s // pieces, num_edges * (s + 1) // pieces
            first, last = owner[s], owner[s + 1]
            acc, arg = np.empty((4, lanes), x.dtype), np.empty((2, lanes), np.int32)
            block, table = x[b], r[b]
            # One round before the first node of its own for what is left of the node before.
            for v in range(first - 1, last):
                _clear(acc, arg, lanes)
                if v < first:
                    start, end = low, min(ptr[first], high)
                else:
                    start, end = ptr[v], min(ptr[v + 1], high)
                count = 0
                if kind > 0 and v >= first:
                    for k in range(lanes):
                        if kind == _DENSE:
                            m = dense[b, v, k]
                        else:
                            m = row[b, k] if node[b, k] == v else fill
                        _take(m, k, np.int32(-1), stat, acc, arg)
                    count = 1
                count += _walk(start, end, source, rel_type, weight, mask, block, table, msg_kind, stat, lanes, acc,
                               arg)
                if v >= first and ptr[v + 1] <= high:
                    _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, lanes, out, out_arg)
                else:
                    slot = 0 if v < first else 1
                    part[b, s, slot] = acc
                    part_arg[b, s, slot] = arg
                    part_count[b, s, slot] = count
        for b in range(num_blocks):
            for s in range(pieces):
                v = owner[s + 1] - 1
                if v >= owner[s] and ptr[v + 1] > num_edges * (s + 1) // pieces:
                    acc, arg, count = part[b, s, 1], part_arg[b, s, 1], part_count[b, s, 1]
                    later = s + 1
                    while later < pieces and num_edges * later // pieces < ptr[v + 1]:
                        _merge(part[b, later, 0], part_arg[b, later, 0], lanes, acc, arg)
                        count += part_count[b, later, 0]
                        later += 1
                    _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, lanes, out, out_arg)

    return gather

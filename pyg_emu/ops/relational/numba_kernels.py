r"""The forward loops of :mod:`pyg_emu.ops.relational.numba`, compiled once for each kind of message and statistic.

Features are stored in blocks of :obj:`L` lanes, :obj:`(blocks, rows, L)`. The block of all nodes stays in the cache
during the loop over the edges. One lane of a block is one lane of a vector register, and the accumulators of a node
stay in registers until its last edge. Rows of features are prefetched explicitly, because the hardware prefetcher
cannot predict which row is next. Within a block, the edges are divided into pieces of equal size, regardless of node
degrees. The parts of a node that spans several pieces are summed in the order of the pieces, so the result does not
depend on the number of threads.

For rotation, the first half of the lanes of a block holds real parts and the second half the imaginary parts of the
same components.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import functools
from typing import Any, Callable

import numpy as np
from numba import njit, prange

from pyg_emu.ops.numba_runtime import FASTMATH, jit
from pyg_emu.ops.numba_vectors import choose, convert, fill, first_half, join, load, prefetch, second_half, store

#: The options of all kernels.
OPTIONS: dict[str, Any] = {'fastmath': FASTMATH, 'error_model': 'numpy', 'nogil': True}

# Kinds of messages and the accumulators that a kernel fills, both compile-time constants.
MESSAGES = {'product': 0, 'sum': 1, 'rotate': 2}
STATISTICS = {'sum': 0, 'extrema': 1, 'all': 2}
_ADD, _ROTATE = 1, 2
_ONLY_SUM, _EXTREMA = 0, 1

# Kinds of outputs.
AGGREGATES = {'sum': 0, 'mean': 1, 'max': 2, 'min': 3, 'pna': 4}
_SUMMED, _MEAN, _MAX, _MIN, _PNA = 0, 1, 2, 3, 4

#: The number of lanes in a block. The accumulators of all statistics and the positions of the extrema just fit into the
#: registers of AVX-512. With fewer registers, some are spilled to the stack.
LANES = 64

#: The prefetch distance of feature rows, in edges. Measured: sums alone need no prefetching.
AHEAD = 8

#: The number of lanes that are copied at once if their features are contiguous: one register of float32.
CHUNK = 16

# Rows of an accumulator. The sum of squares is NaN if and only if a message is NaN, so it also serves the extrema.
_SUM, _SQUARE, _HIGH, _LOW = 0, 1, 2, 3

# Kinds of boundary conditions: a block like x, or one row per lane.
_DENSE = 1


@njit(inline='always', **OPTIONS)
def is_run(column, first):
    r"""Returns whether a chunk of lanes is contiguous. Columns ascend within a chunk, except for padding."""
    return column[first] >= 0 and column[first + CHUNK - 1] == column[first] + CHUNK - 1


@jit(parallel=True, **OPTIONS)
def pack(x, column, out):
    r"""Packs rows :obj:`x (rows, F)` into blocks of lanes :obj:`out (blocks, rows, L)`, with zeros for padding."""
    num_blocks, num_rows = out.shape[:2]
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        block = out[b]
        for i in range(num_rows * piece // pieces, num_rows * (piece + 1) // pieces):
            read(x, i, b, 0, column, block, i)


@jit(parallel=True, **OPTIONS)
def unpack(blocks, column, out):
    r"""Reverses :func:`pack` and sums over the second dimension of :obj:`blocks (blocks, parts, rows, L)`."""
    num_blocks, num_parts, num_rows = blocks.shape[:3]
    pieces = 8
    for task in prange(num_blocks * pieces):
        b, piece = task // pieces, task % pieces
        total = np.empty((1, LANES), blocks.dtype)
        for i in range(num_rows * piece // pieces, num_rows * (piece + 1) // pieces):
            vector = load(blocks[b, 0], i, 0, LANES)
            for part in range(1, num_parts):
                vector = vector + load(blocks[b, part], i, 0, LANES)
            store(total, 0, 0, vector)
            _write(total, 0, i, b, 0, column, out)


@jit(**OPTIONS)
def read(x, i, b, offset, column, out, row):
    r"""Copies the columns of block :obj:`b` in row :obj:`i` of :obj:`x` to row :obj:`row` of :obj:`out (rows, L)`."""
    for c in range(0, LANES, CHUNK):
        if is_run(column, b * LANES + c):
            store(out, row, c, load(x, i, column[b * LANES + c] + offset, CHUNK))
        else:
            for k in range(c, c + CHUNK):
                place = column[b * LANES + k]
                out[row, k] = x[i, place + offset] if place >= 0 else 0


@jit(**OPTIONS)
def _write(value, row, i, b, offset, column, out):
    r"""Reverses :func:`read`."""
    for c in range(0, LANES, CHUNK):
        if is_run(column, b * LANES + c):
            store(out, i, column[b * LANES + c] + offset, convert(load(value, row, c, CHUNK), out))
        else:
            for k in range(c, c + CHUNK):
                place = column[b * LANES + k]
                if place >= 0:
                    out[i, place + offset] = value[row, k]


@jit(**OPTIONS)
def _clear(acc, arg):
    acc[_SUM] = 0
    acc[_SQUARE] = 0
    acc[_HIGH] = -np.inf
    acc[_LOW] = np.inf
    arg[:] = -1


@jit(**OPTIONS)
def _begin(m, acc, arg):
    r"""Initializes the accumulators with a first message that does not belong to an edge."""
    for k in range(LANES):
        wide = np.float64(m[k])
        acc[_SUM, k] = wide
        acc[_SQUARE, k] = wide * wide
        acc[_HIGH, k] = m[k]
        acc[_LOW, k] = m[k]
    arg[:] = -1


# These functions are inlined, so that kinds are constants in the loops.


@njit(inline='always', **OPTIONS)
def compose(x, r, message):
    r"""Returns the message of a node's features and a relation vector."""
    if message == _ROTATE:
        re, im, rel_re, rel_im = first_half(x), second_half(x), first_half(r), second_half(r)
        m = join(re * rel_re - im * rel_im, re * rel_im + im * rel_re)
    elif message == _ADD:
        m = x + r
    else:
        m = x * r
    return m


@njit(inline='always', **OPTIONS)
def request(rows, i, writes):
    r"""Prefetches a row of lanes."""
    for c in range(0, LANES, CHUNK):
        prefetch(rows, i, c, writes)


@njit(inline='always', **OPTIONS)
def _walk(first, start, end, source, rel_type, weight, mask, x, r, message, statistic, positions, acc, arg):
    r"""Aggregates the messages of a range of edges in registers and returns the number of messages.

    The accumulators are loaded from and stored to :obj:`acc` and :obj:`arg`. Positions are relative to :obj:`first`.
    """
    count = 0
    last = np.uint64(source.shape[0] - 1)
    total, square = load(acc, _SUM, 0, LANES), load(acc, _SQUARE, 0, LANES)
    high, low = convert(load(acc, _HIGH, 0, LANES), x), convert(load(acc, _LOW, 0, LANES), x)
    arg_high, arg_low = load(arg, 0, 0, LANES), load(arg, 1, 0, LANES)
    for index in range(start, end):
        # With unsigned indices, Numba generates no code for negative indices.
        p = np.uint64(index)
        if statistic != _ONLY_SUM:
            request(x, source[min(p + np.uint64(AHEAD), last)], 0)
        if mask.shape[0] == 0 or mask[p]:
            count += 1
            m = compose(load(x, source[p], 0, LANES), load(r, rel_type[p], 0, LANES), message)
            if weight.shape[0] > 0:
                m = m * fill(weight[p], LANES)
            wide = convert(m, acc)
            if statistic != _EXTREMA:
                total = total + wide
            if statistic != _ONLY_SUM:
                square = square + wide * wide
                # Of equal values, the first is kept. Positions ascend.
                above, below = m > high, m < low
                high, low = choose(above, m, high), choose(below, m, low)
                if positions:
                    position = fill(np.int32(index - first), LANES)
                    arg_high, arg_low = choose(above, position, arg_high), choose(below, position, arg_low)
    if statistic != _EXTREMA:
        store(acc, _SUM, 0, total)
    if statistic != _ONLY_SUM:
        store(acc, _SQUARE, 0, square)
        store(acc, _HIGH, 0, convert(high, acc))
        store(acc, _LOW, 0, convert(low, acc))
        if positions:
            store(arg, 0, 0, arg_high)
            store(arg, 1, 0, arg_low)
    return count


@jit(**OPTIONS)
def _request_out(v, b, column, width, count, out):
    r"""Prefetches the cache lines that :func:`_finish` writes, while the edges of a node are processed."""
    for c in range(0, LANES, CHUNK):
        place = column[b * LANES + c]
        for i in range(count):
            prefetch(out, v, place + i * width, 1)


@jit(**OPTIONS)
def _merge(other, other_arg, acc, arg):
    for k in range(LANES):
        acc[_SUM, k] += other[_SUM, k]
        acc[_SQUARE, k] += other[_SQUARE, k]
        if other[_HIGH, k] > acc[_HIGH, k]:
            acc[_HIGH, k] = other[_HIGH, k]
            arg[0, k] = other_arg[0, k]
        if other[_LOW, k] < acc[_LOW, k]:
            acc[_LOW, k] = other[_LOW, k]
            arg[1, k] = other_arg[1, k]


@jit(**OPTIONS)
def _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, out, out_arg):
    r"""Writes the aggregated messages of node :obj:`v`. Several statistics are :obj:`width` columns apart."""
    if out_arg.shape[1] > 0:
        for k in range(LANES):
            out_arg[b, v, 0, k] = arg[0, k]
        for k in range(LANES):
            out_arg[b, v, 1, k] = arg[1, k]
    if count == 0:
        acc[_HIGH] = 0
        acc[_LOW] = 0
    scale = acc.dtype.type(1) / acc.dtype.type(max(count, 1))
    if aggregate == _MEAN or aggregate == _PNA:
        for k in range(LANES):
            acc[_SUM, k] *= scale
    if aggregate != _SUMMED and aggregate != _MEAN:
        nan = acc.dtype.type(np.nan)
        for k in range(LANES):
            valid = acc[_SQUARE, k] == acc[_SQUARE, k]
            acc[_HIGH, k] = acc[_HIGH, k] if valid else nan
            acc[_LOW, k] = acc[_LOW, k] if valid else nan
    if aggregate == _PNA:
        for k in range(LANES):
            variance = acc[_SQUARE, k] * scale - acc[_SUM, k] * acc[_SUM, k]
            acc[_SQUARE, k] = np.sqrt(epsilon if variance <= epsilon else variance)
        _write(acc, _SUM, v, b, 0, column, out)
        _write(acc, _HIGH, v, b, width, column, out)
        _write(acc, _LOW, v, b, 2 * width, column, out)
        _write(acc, _SQUARE, v, b, 3 * width, column, out)
    else:
        row = _HIGH if aggregate == _MAX else _LOW if aggregate == _MIN else _SUM
        _write(acc, row, v, b, 0, column, out)


@functools.cache
def gather_kernel(message: str, statistic: str, positions: bool) -> Callable[..., None]:
    r"""Compiles the loop over edges sorted by target that aggregates messages.

    Args:
        message (str): One of :obj:`MESSAGES`.
        statistic (str): One of :obj:`STATISTICS`.
        positions (bool): If set to :obj:`True`, also computes the edge of each extremum.
    """
    # The closure may hold numbers only, because Numba's disk cache compares closures by value.
    msg_kind, stat, where = MESSAGES[message], STATISTICS[statistic], int(positions)

    @jit(parallel=True, **OPTIONS)
    def gather(ptr, owner, source, rel_type, weight, mask, x, r, kind, dense, node, row, background, column, width,
               epsilon, aggregate, out, out_arg):
        # Piece s processes the edges [cut(s), cut(s + 1)) and owns the nodes [owner[s], owner[s + 1]), which begin in
        # it.
        num_blocks, num_edges, pieces = x.shape[0], source.shape[0], owner.shape[0] - 1
        # Partial results of each piece: of a node begun in an earlier piece (0) and of the piece's last node (1).
        # In double precision: the order of messages would otherwise tell equal nodes apart.
        part = np.empty((num_blocks, pieces, 2, 4, LANES), np.float64)
        part_arg = np.empty((num_blocks, pieces, 2, 2, LANES), np.int32)
        part_count = np.zeros((num_blocks, pieces, 2), np.int64)
        for task in prange(num_blocks * pieces):
            b, s = task // pieces, task % pieces
            low, high = num_edges * s // pieces, num_edges * (s + 1) // pieces
            first, last = owner[s], owner[s + 1]
            acc, arg = np.empty((4, LANES), np.float64), np.empty((2, LANES), np.int32)
            start_row = np.empty(LANES, x.dtype)
            block, table = x[b], r[b]
            # The first iteration processes the rest of a node begun in an earlier piece.
            for v in range(first - 1, last):
                if v < first:
                    start, end = low, min(ptr[first], high)
                else:
                    start, end = ptr[v], min(ptr[v + 1], high)
                _request_out(v, b, column, width, 4 if aggregate == _PNA else 1, out)
                count = 0
                if kind > 0 and v >= first:
                    if kind == _DENSE:
                        _begin(dense[b, v], acc, arg)
                    else:
                        for k in range(LANES):
                            start_row[k] = row[b, k] if node[b, k] == v else background
                        _begin(start_row, acc, arg)
                    count = 1
                else:
                    _clear(acc, arg)
                count += _walk(ptr[v], start, end, source, rel_type, weight, mask, block, table, msg_kind, stat, where,
                               acc, arg)
                if v >= first and ptr[v + 1] <= high:
                    _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, out, out_arg)
                else:
                    slot = 0 if v < first else 1
                    for k in range(LANES):
                        for i in range(4):
                            part[b, s, slot, i, k] = acc[i, k]
                        for i in range(2):
                            part_arg[b, s, slot, i, k] = arg[i, k]
                    part_count[b, s, slot] = count
        for b in range(num_blocks):
            for s in range(pieces):
                v = owner[s + 1] - 1
                if v >= owner[s] and ptr[v + 1] > num_edges * (s + 1) // pieces:
                    acc, arg, count = part[b, s, 1], part_arg[b, s, 1], part_count[b, s, 1]
                    later = s + 1
                    while later < pieces and num_edges * later // pieces < ptr[v + 1]:
                        _merge(part[b, later, 0], part_arg[b, later, 0], acc, arg)
                        count += part_count[b, later, 0]
                        later += 1
                    _finish(v, b, count, acc, arg, column, width, epsilon, aggregate, out, out_arg)

    return gather

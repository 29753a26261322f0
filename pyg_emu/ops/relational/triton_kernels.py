r"""The CUDA kernels of :func:`~pyg_emu.ops.relational_conv`: two for the forward pass, two for the gradient of features
or relation vectors, and one for the gradient of edge weights.

Edges are sorted by a *key*: their target, source or relation. A program processes one key and one block of lanes, in
tiles of :obj:`BLOCK_E` edges. Keys with many edges (hubs and frequent relations) are divided into *pieces* of
:obj:`PIECE` edges. If all edges of a piece have the same key, a separate program sums it first, and the program of the
key reads this partial sum. No kernel uses atomics, so results are the same in every run. The programs of one block of
lanes run concurrently, so that their inputs fit into the cache. :mod:`pyg_emu.ops.relational.triton_terms` computes the
terms.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl

from pyg_emu.ops.relational.triton_terms import (
    compose,
    higher,
    lanes_of,
    load_edges,
    load_features,
    load_relation,
    lower,
    pull,
    share,
    turn_of,
    upstream,
)


@triton.jit
def _gather(place, valid, start, total, square, high, low, high_at, low_at, source, rel_type, mask, weight, x, relation,
            lane, inside, row, k, num_lanes, batch_stride, MESSAGE: tl.constexpr, MASKED: tl.constexpr,
            WEIGHTED: tl.constexpr, SUM: tl.constexpr, SQUARE: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr,
            WIDTH: tl.constexpr):
    r"""Accumulates a tile of messages and returns which edges were used. :obj:`start` is the first edge of the node.
    """
    taken, factor = load_edges(place, valid, mask, weight, MASKED, WEIGHTED)
    take = taken[:, None] & inside[None, :]
    u = tl.load(source + place, mask=taken, other=0)
    q = tl.load(rel_type + place, mask=taken, other=0)
    own, other = load_features(x, u, lane, k, take, num_lanes, MESSAGE, WIDTH)
    first, second = load_relation(relation, q, row, k, take, batch_stride, MESSAGE, WIDTH)
    _, sign = turn_of(k, WIDTH)
    message = factor * compose(own, other, first, second, sign[None, :], MESSAGE)
    local = (place - start).to(tl.int32)[:, None]
    if SUM:
        total += message
    if SQUARE:
        square += message * message
    # Positions ascend within a row of the tile, so the first of equal values is kept.
    if HIGH:
        better = take & ((message > high) | (message != message))
        high = tl.where(better, message, high)
        high_at = tl.where(better, local, high_at)
    if LOW:
        better = take & ((message < low) | (message != message))
        low = tl.where(better, message, low)
        low_at = tl.where(better, local, low_at)
    return total, square, high, low, high_at, low_at, taken.to(tl.int32)


@triton.jit
def gather_pieces(ptr, target, source, rel_type, mask, weight, x, relation, partial, partial_at, partial_count,
                  num_lanes, batch_stride, MESSAGE: tl.constexpr, MASKED: tl.constexpr, WEIGHTED: tl.constexpr,
                  SUM: tl.constexpr, SQUARE: tl.constexpr, HIGH: tl.constexpr, LOW: tl.constexpr, WIDTH: tl.constexpr,
                  PIECE: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Computes the accumulators of a piece if all its edges have the same target, and writes nothing otherwise."""
    piece = tl.program_id(0).to(tl.int64)
    lane, inside, row, k, _ = lanes_of(tl.program_id(1), num_lanes, WIDTH, BLOCK_F)
    node = tl.load(target + piece * PIECE)
    whole = node == tl.load(target + piece * PIECE + PIECE - 1)
    start = tl.load(ptr + node)
    total = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    square = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    high = tl.full([BLOCK_E, BLOCK_F], float('-inf'), tl.float32)
    low = tl.full([BLOCK_E, BLOCK_F], float('inf'), tl.float32)
    high_at = tl.full([BLOCK_E, BLOCK_F], -1, tl.int32)
    low_at = tl.full([BLOCK_E, BLOCK_F], -1, tl.int32)
    count = tl.zeros([BLOCK_E], tl.int32)
    for i in range(0, tl.where(whole, PIECE, 0), BLOCK_E):
        place = piece * PIECE + i + tl.arange(0, BLOCK_E)
        total, square, high, low, high_at, low_at, number = _gather(
            place, place >= 0, start, total, square, high, low, high_at, low_at, source, rel_type, mask, weight, x,
            relation, lane, inside, row, k, num_lanes, batch_stride, MESSAGE, MASKED, WEIGHTED, SUM, SQUARE, HIGH, LOW,
            WIDTH)
        count += number
    # Only the required accumulators are stored, one after the other.
    at = partial + piece * (SUM + SQUARE + HIGH + LOW) * num_lanes + lane
    place = partial_at + piece * (HIGH + LOW) * num_lanes + lane
    # A numeric comparison, because some versions of the interpreter do not accept a scalar boolean as a mask.
    inside = lane < tl.where(whole, num_lanes, 0)
    if SUM:
        tl.store(at, tl.sum(total, 0), mask=inside)
    if SQUARE:
        tl.store(at + SUM * num_lanes, tl.sum(square, 0), mask=inside)
    if HIGH:
        value, position = tl.reduce((high, high_at), 0, higher)
        tl.store(at + (SUM + SQUARE) * num_lanes, value, mask=inside)
        tl.store(place, position, mask=inside)
    if LOW:
        value, position = tl.reduce((low, low_at), 0, lower)
        tl.store(at + (SUM + SQUARE + HIGH) * num_lanes, value, mask=inside)
        tl.store(place + HIGH * num_lanes, position, mask=inside)
    # The count is the same for all blocks of lanes.
    tl.store(partial_count + piece, tl.sum(count, 0))


@triton.jit
def gather_nodes(ptr, source, rel_type, mask, weight, x, relation, partial, partial_at, partial_count, boundary, node,
                 fill, epsilon, out, positions, counts, num_lanes, batch_stride, MESSAGE: tl.constexpr,
                 AGGREGATE: tl.constexpr, BOUNDARY: tl.constexpr, KEEP: tl.constexpr, MASKED: tl.constexpr,
                 WEIGHTED: tl.constexpr, SUM: tl.constexpr, SQUARE: tl.constexpr, HIGH: tl.constexpr,
                 LOW: tl.constexpr, WIDTH: tl.constexpr, PIECE: tl.constexpr, BLOCK_E: tl.constexpr,
                 BLOCK_F: tl.constexpr):
    r"""Aggregates the messages of one node. With :obj:`KEEP`, also writes the positions of the extrema and the number
    of messages.
    """
    v = tl.program_id(0).to(tl.int64)
    lane, inside, row, k, column = lanes_of(tl.program_id(1), num_lanes, WIDTH, BLOCK_F)
    start = tl.load(ptr + v)
    end = tl.load(ptr + v + 1)
    # Pieces that lie completely inside this node were summed before. The remaining edges are those before the first
    # such piece and those after the last.
    opening = (start + PIECE - 1) // PIECE
    pieces = tl.maximum(end // PIECE - opening, 0)
    head = tl.where(pieces > 0, opening * PIECE - start, end - start)
    total = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    square = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    high = tl.full([BLOCK_E, BLOCK_F], float('-inf'), tl.float32)
    low = tl.full([BLOCK_E, BLOCK_F], float('inf'), tl.float32)
    high_at = tl.full([BLOCK_E, BLOCK_F], -1, tl.int32)
    low_at = tl.full([BLOCK_E, BLOCK_F], -1, tl.int32)
    count = tl.zeros([BLOCK_E], tl.int32)
    for i in range(0, end - start - pieces * PIECE, BLOCK_E):
        rest = i + tl.arange(0, BLOCK_E)
        place = start + rest + tl.where(rest < head, 0, pieces * PIECE)
        total, square, high, low, high_at, low_at, number = _gather(
            place, rest < end - start - pieces * PIECE, start, total, square, high, low, high_at, low_at, source,
            rel_type, mask, weight, x, relation, lane, inside, row, k, num_lanes, batch_stride, MESSAGE, MASKED,
            WEIGHTED, SUM, SQUARE, HIGH, LOW, WIDTH)
        count += number
    for i in range(0, pieces, BLOCK_E):
        number = i + tl.arange(0, BLOCK_E)
        valid = number < pieces
        take = valid[:, None] & inside[None, :]
        at = partial + (opening + number)[:, None] * (SUM + SQUARE + HIGH + LOW) * num_lanes + lane[None, :]
        place = partial_at + (opening + number)[:, None] * (HIGH + LOW) * num_lanes + lane[None, :]
        if SUM:
            total += tl.load(at, mask=take, other=0.0)
        if SQUARE:
            square += tl.load(at + SUM * num_lanes, mask=take, other=0.0)
        if HIGH:
            value = tl.load(at + (SUM + SQUARE) * num_lanes, mask=take, other=float('-inf'))
            high, high_at = higher(high, high_at, value, tl.load(place, mask=take, other=-1))
        if LOW:
            value = tl.load(at + (SUM + SQUARE + HIGH) * num_lanes, mask=take, other=float('inf'))
            low, low_at = lower(low, low_at, value, tl.load(place + HIGH * num_lanes, mask=take, other=-1))
        count += tl.load(partial_count + opening + number, mask=valid, other=0)

    # Reduces the tile. The boundary condition is an additional message that precedes all others.
    first = tl.zeros([BLOCK_F], tl.float32)
    messages = tl.sum(count, 0)
    if BOUNDARY == 'dense':
        first = tl.load(boundary + v * num_lanes + lane, mask=inside, other=0.0).to(tl.float32)
        messages += 1
    elif BOUNDARY == 'rows':
        own = tl.load(node + row, mask=inside, other=-1) == v
        first = tl.load(boundary + lane, mask=inside & own, other=0.0).to(tl.float32)
        first = tl.where(own, first, fill)
        messages += 1
    share_of_one = 1.0 / tl.maximum(messages, 1).to(tl.float32)
    at = out + v * num_lanes + lane
    if AGGREGATE == 'pna':
        at = out + v * (4 * num_lanes) + column
    kept = positions + v * (HIGH + LOW) * num_lanes + lane
    if SUM:
        sums = tl.sum(total, 0) + first
        if AGGREGATE != 'sum':
            sums *= share_of_one
        tl.store(at, sums, mask=inside)
        if SQUARE:
            variance = (tl.sum(square, 0) + first * first) * share_of_one - sums * sums
            deviation = tl.sqrt(tl.where(variance <= epsilon, epsilon, variance))
            tl.store(at + 3 * WIDTH, deviation, mask=inside)
    if HIGH:
        value, position = tl.reduce((high, high_at), 0, higher)
        if BOUNDARY != 'none':
            value, position = higher(value, position, first, tl.full([BLOCK_F], -1, tl.int32))
        value = tl.where(messages == 0, 0.0, value)
        tl.store(at + SUM * WIDTH, value, mask=inside)
        if KEEP:
            tl.store(kept, position, mask=inside)
    if LOW:
        value, position = tl.reduce((low, low_at), 0, lower)
        if BOUNDARY != 'none':
            value, position = lower(value, position, first, tl.full([BLOCK_F], -1, tl.int32))
        value = tl.where(messages == 0, 0.0, value)
        tl.store(at + (SUM + HIGH) * WIDTH, value, mask=inside)
        if KEEP:
            tl.store(kept + HIGH * num_lanes, position, mask=inside)
    if KEEP:
        tl.store(counts + v, messages)


@triton.jit
def pna_slopes(grad, out, counts, slopes, floor, num_lanes, WIDTH: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Writes the coefficients :math:`a` and :math:`c` of the gradient :math:`a + c\, m` of a message :math:`m` that
    results from mean and deviation. A deviation of :obj:`floor` was clamped.
    """
    v = tl.program_id(0).to(tl.int64)
    lane, inside, _, _, column = lanes_of(tl.program_id(1), num_lanes, WIDTH, BLOCK_F)
    at = v * (4 * num_lanes) + column
    part = 1.0 / tl.maximum(tl.load(counts + v), 1).to(tl.float32)
    deviation = tl.load(out + at + 3 * WIDTH, mask=inside, other=1.0).to(tl.float32)
    linear = tl.load(grad + at + 3 * WIDTH, mask=inside, other=0.0).to(tl.float32) / deviation * part
    linear = tl.where(deviation <= floor, 0.0, linear)
    constant = tl.load(grad + at, mask=inside, other=0.0).to(tl.float32) * part
    constant -= linear * tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    pair = slopes + v * (2 * num_lanes) + lane
    tl.store(pair, constant, mask=inside)
    tl.store(pair + num_lanes, linear, mask=inside)


@triton.jit
def _spread(place, valid, kept, target, source, rel_type, local, mask, weight, x, relation, grad, slopes,
            positions, counts, lane, inside, row, k, column, num_lanes, batch_stride, MESSAGE: tl.constexpr,
            AGGREGATE: tl.constexpr, TO: tl.constexpr, MASKED: tl.constexpr, WEIGHTED: tl.constexpr,
            WIDTH: tl.constexpr):
    r"""Returns the gradient of the row shared by a tile of edges: the features of their source if :obj:`TO == 'x'`, or
    their relation vector otherwise. :obj:`kept` are the two parts of that row, loaded once for all tiles.
    """
    taken, factor = load_edges(place, valid, mask, weight, MASKED, WEIGHTED)
    take = taken[:, None] & inside[None, :]
    if TO == 'x':
        own, other = kept
        q = tl.load(rel_type + place, mask=taken, other=0)
        first, second = load_relation(relation, q, row, k, take, batch_stride, MESSAGE, WIDTH)
    else:
        first, second = kept
        u = tl.load(source + place, mask=taken, other=0)
        own, other = load_features(x, u, lane, k, take, num_lanes, MESSAGE, WIDTH)
    v = tl.load(target + place, mask=taken, other=0)
    rank = tl.load(local + place, mask=taken, other=0)
    g, h = pull(v, rank, own, other, first, second, factor, lane, k, column, take, grad, slopes, positions, counts,
                num_lanes, MESSAGE, AGGREGATE, WIDTH)
    _, sign = turn_of(k, WIDTH)
    return share(g, h, own, other, first, second, sign[None, :], MESSAGE, TO)


@triton.jit
def _kept_row(key, x, relation, lane, inside, row, k, num_lanes, batch_stride, MESSAGE: tl.constexpr, TO: tl.constexpr,
              WIDTH: tl.constexpr):
    r"""Loads the row of features or of relation vectors that all edges of a key share."""
    keys = key + tl.zeros([1], tl.int64)
    if TO == 'x':
        first, second = load_features(x, keys, lane, k, inside[None, :], num_lanes, MESSAGE, WIDTH)
    else:
        first, second = load_relation(relation, keys, row, k, inside[None, :], batch_stride, MESSAGE, WIDTH)
    return first, second


@triton.jit
def spread_pieces(key_of, target, source, rel_type, local, mask, weight, x, relation, grad, slopes, positions, counts,
                  partial, num_lanes, batch_stride, MESSAGE: tl.constexpr, AGGREGATE: tl.constexpr, TO: tl.constexpr,
                  MASKED: tl.constexpr, WEIGHTED: tl.constexpr, WIDTH: tl.constexpr, PIECE: tl.constexpr,
                  BLOCK_E: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Computes the gradient of a piece of edges if they all have the same key, and writes nothing otherwise."""
    piece = tl.program_id(0).to(tl.int64)
    lane, inside, row, k, column = lanes_of(tl.program_id(1), num_lanes, WIDTH, BLOCK_F)
    key = tl.load(key_of + piece * PIECE)
    whole = key == tl.load(key_of + piece * PIECE + PIECE - 1)
    kept = _kept_row(key, x, relation, lane, inside, row, k, num_lanes, batch_stride, MESSAGE, TO, WIDTH)
    total = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    for i in range(0, tl.where(whole, PIECE, 0), BLOCK_E):
        place = piece * PIECE + i + tl.arange(0, BLOCK_E)
        total += _spread(place, place >= 0, kept, target, source, rel_type, local, mask, weight, x, relation, grad,
                         slopes, positions, counts, lane, inside, row, k, column, num_lanes, batch_stride, MESSAGE,
                         AGGREGATE, TO, MASKED, WEIGHTED, WIDTH)
    tl.store(partial + piece * num_lanes + lane, tl.sum(total, 0), mask=lane < tl.where(whole, num_lanes, 0))


@triton.jit
def spread_keys(ptr, target, source, rel_type, local, mask, weight, x, relation, grad, slopes, positions, counts,
                partial, found, key_stride, row_stride, num_lanes, batch_stride, MESSAGE: tl.constexpr,
                AGGREGATE: tl.constexpr, TO: tl.constexpr, MASKED: tl.constexpr, WEIGHTED: tl.constexpr,
                WIDTH: tl.constexpr, PIECE: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Computes the gradient of the features of one node, or of the vectors of one relation."""
    key = tl.program_id(0).to(tl.int64)
    lane, inside, row, k, column = lanes_of(tl.program_id(1), num_lanes, WIDTH, BLOCK_F)
    start = tl.load(ptr + key)
    end = tl.load(ptr + key + 1)
    opening = (start + PIECE - 1) // PIECE
    pieces = tl.maximum(end // PIECE - opening, 0)
    head = tl.where(pieces > 0, opening * PIECE - start, end - start)
    kept = _kept_row(key, x, relation, lane, inside, row, k, num_lanes, batch_stride, MESSAGE, TO, WIDTH)
    total = tl.zeros([BLOCK_E, BLOCK_F], tl.float32)
    for i in range(0, end - start - pieces * PIECE, BLOCK_E):
        rest = i + tl.arange(0, BLOCK_E)
        place = start + rest + tl.where(rest < head, 0, pieces * PIECE)
        total += _spread(place, rest < end - start - pieces * PIECE, kept, target, source, rel_type, local, mask,
                         weight, x, relation, grad, slopes, positions, counts, lane, inside, row, k, column, num_lanes,
                         batch_stride, MESSAGE, AGGREGATE, TO, MASKED, WEIGHTED, WIDTH)
    for i in range(0, pieces, BLOCK_E):
        number = i + tl.arange(0, BLOCK_E)
        take = (number < pieces)[:, None] & inside[None, :]
        total += tl.load(partial + (opening + number)[:, None] * num_lanes + lane[None, :], mask=take, other=0.0)
    tl.store(found + key * key_stride + row * row_stride + k, tl.sum(total, 0), mask=inside)


@triton.jit
def spread_weights(edge_id, target, source, rel_type, local, mask, weight, x, relation, grad, slopes, positions, counts,
                   found, num_edges, num_lanes, batch_stride, MESSAGE: tl.constexpr, AGGREGATE: tl.constexpr,
                   MASKED: tl.constexpr, WIDTH: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Computes the gradients of the weights of a tile of edges, which are zero for masked edges."""
    place = tl.program_id(0).to(tl.int64) * BLOCK_E + tl.arange(0, BLOCK_E)
    valid = place < num_edges
    taken, factor = load_edges(place, valid, mask, weight, MASKED, True)
    u = tl.load(source + place, mask=taken, other=0)
    q = tl.load(rel_type + place, mask=taken, other=0)
    v = tl.load(target + place, mask=taken, other=0)
    rank = tl.load(local + place, mask=taken, other=0)
    total = tl.zeros([BLOCK_E], tl.float32)
    for block in range(0, tl.cdiv(num_lanes, BLOCK_F)):
        lane, inside, row, k, column = lanes_of(block, num_lanes, WIDTH, BLOCK_F)
        take = taken[:, None] & inside[None, :]
        own, other = load_features(x, u, lane, k, take, num_lanes, MESSAGE, WIDTH)
        first, second = load_relation(relation, q, row, k, take, batch_stride, MESSAGE, WIDTH)
        _, sign = turn_of(k, WIDTH)
        message = compose(own, other, first, second, sign[None, :], MESSAGE)
        g = upstream(v, rank, factor * message, lane, column, take, grad, slopes, positions, counts, num_lanes,
                     AGGREGATE, WIDTH)
        total += tl.sum(g * message, 1)
    tl.store(found + tl.load(edge_id + place, mask=valid, other=0), total, mask=valid)

r"""Messages and their aggregation in the CUDA kernels of :func:`~pyg_emu.ops.relational_conv`.

The :obj:`B * D` features of a node are its *lanes*. A tile holds some lanes of some edges. :obj:`column` is the column
of a lane in a row with four statistics per component. A rotation combines two lanes at distance :obj:`shift`. For other
messages, the second lane equals the first and is not used. All arithmetic is float32, regardless of the data type of
the features. Masked edges load zeros, so their messages are zero.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lanes_of(block, num_lanes, WIDTH: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""Returns a block of lanes: the lanes, their validity, batch rows, components and columns."""
    lane = block * BLOCK_F + tl.arange(0, BLOCK_F)
    row = lane // WIDTH
    k = lane % WIDTH
    return lane, lane < num_lanes, row, k, row * (4 * WIDTH) + k


@triton.jit
def turn_of(k, WIDTH: tl.constexpr):
    r"""Returns the distance to the other part of a complex lane and its sign: -1 for real, 1 for imaginary parts."""
    real = k < WIDTH // 2
    return tl.where(real, WIDTH // 2, -(WIDTH // 2)), tl.where(real, -1.0, 1.0)


@triton.jit
def load_features(x, u, lane, k, take, num_lanes, MESSAGE: tl.constexpr, WIDTH: tl.constexpr):
    r"""Loads a lane of several nodes and its other part."""
    at = x + u[:, None] * num_lanes + lane[None, :]
    own = tl.load(at, mask=take, other=0.0).to(tl.float32)
    other = own
    if MESSAGE == 'rotate':
        shift, _ = turn_of(k, WIDTH)
        other = tl.load(at + shift[None, :], mask=take, other=0.0).to(tl.float32)
    return own, other


@triton.jit
def load_relation(relation, q, row, k, take, batch_stride, MESSAGE: tl.constexpr, WIDTH: tl.constexpr):
    r"""Loads the components of the relation vectors for a lane: its own, or the real and imaginary parts."""
    if MESSAGE == 'rotate':
        at = relation + q[:, None] * WIDTH + (row * batch_stride + k % (WIDTH // 2))[None, :]
        first = tl.load(at, mask=take, other=0.0).to(tl.float32)
        second = tl.load(at + WIDTH // 2, mask=take, other=0.0).to(tl.float32)
    else:
        at = relation + q[:, None] * WIDTH + (row * batch_stride + k)[None, :]
        first = tl.load(at, mask=take, other=0.0).to(tl.float32)
        second = first
    return first, second


@triton.jit
def compose(own, other, first, second, sign, MESSAGE: tl.constexpr):
    r"""Returns the messages of a lane."""
    if MESSAGE == 'rotate':
        message = own * first + sign * other * second
    elif MESSAGE == 'sum':
        message = own + first
    else:
        message = own * first
    return message


@triton.jit
def load_edges(place, valid, mask, weight, MASKED: tl.constexpr, WEIGHTED: tl.constexpr):
    r"""Returns which of the edges are used, and their weights."""
    take = valid
    if MASKED:
        take = take & (tl.load(mask + place, mask=valid, other=0) != 0)
    factor = tl.where(take, 1.0, 0.0)
    if WEIGHTED:
        factor = tl.load(weight + place, mask=take, other=0.0).to(tl.float32)
    return take, factor[:, None]


# Extrema are pairs of a value and its position, relative to the first edge of a node. The position is -1 for the
# boundary condition and for no message.


@triton.jit
def higher(value, at, other, other_at):
    r"""Returns the larger of two values, the first one if they are equal, or NaN if either is NaN."""
    better = (other > value) | ((other == value) & (other_at < at)) | (other != other)
    return tl.where(better, other, value), tl.where(better, other_at, at)


@triton.jit
def lower(value, at, other, other_at):
    r"""Returns the smaller of two values, the first one if they are equal, or NaN if either is NaN."""
    better = (other < value) | ((other == value) & (other_at < at)) | (other != other)
    return tl.where(better, other, value), tl.where(better, other_at, at)


@triton.jit
def upstream(v, local, message, lane, column, take, grad, slopes, positions, count, num_lanes,
             AGGREGATE: tl.constexpr, WIDTH: tl.constexpr):
    r"""Returns the gradients of a tile of messages: constant, linear in the message, or of extrema only.

    Args:
        v: The target nodes.
        local: The positions of the edges among the edges of their target.
        message: The weighted messages.
        grad: The gradient of the output. For :obj:`"pna"`, the statistics of a component are :obj:`WIDTH` apart.
        slopes: For :obj:`"pna"`, the output of :func:`pna_slopes`.
        positions: The positions of the extrema.
        count: The number of messages of each node.
    """
    rows = v[:, None]
    here = rows * num_lanes + lane[None, :]
    if AGGREGATE == 'sum':
        found = tl.load(grad + here, mask=take, other=0.0).to(tl.float32)
    elif AGGREGATE == 'mean':
        number = tl.load(count + rows, mask=take, other=1).to(tl.float32)
        found = tl.load(grad + here, mask=take, other=0.0).to(tl.float32) / number
    elif AGGREGATE == 'pna':
        pair = rows * (2 * num_lanes) + lane[None, :]
        four = rows * (4 * num_lanes) + column[None, :]
        constant = tl.load(slopes + pair, mask=take, other=0.0).to(tl.float32)
        linear = tl.load(slopes + pair + num_lanes, mask=take, other=0.0).to(tl.float32)
        found = constant + linear * message
        highest = take & (tl.load(positions + pair, mask=take, other=-2) == local[:, None])
        found += tl.load(grad + four + WIDTH, mask=highest, other=0.0).to(tl.float32)
        lowest = take & (tl.load(positions + pair + num_lanes, mask=take, other=-2) == local[:, None])
        found += tl.load(grad + four + 2 * WIDTH, mask=lowest, other=0.0).to(tl.float32)
    else:
        extreme = take & (tl.load(positions + here, mask=take, other=-2) == local[:, None])
        found = tl.load(grad + here, mask=extreme, other=0.0).to(tl.float32)
    return found


@triton.jit
def pull(v, local, own, other, first, second, factor, lane, k, column, take, grad, slopes, positions, count, num_lanes,
         MESSAGE: tl.constexpr, AGGREGATE: tl.constexpr, WIDTH: tl.constexpr):
    r"""Returns the gradients of the unweighted messages, for a lane and for its other part."""
    shift, sign = turn_of(k, WIDTH)
    message = compose(own, other, first, second, sign[None, :], MESSAGE)
    g = factor * upstream(v, local, factor * message, lane, column, take, grad, slopes, positions, count, num_lanes,
                          AGGREGATE, WIDTH)
    h = g
    if MESSAGE == 'rotate':
        mirrored = compose(other, own, first, second, -sign[None, :], MESSAGE)
        h = factor * upstream(v, local, factor * mirrored, lane + shift, column + shift, take, grad, slopes, positions,
                              count, num_lanes, AGGREGATE, WIDTH)
    return g, h


@triton.jit
def share(g, h, own, other, first, second, sign, MESSAGE: tl.constexpr, TO: tl.constexpr):
    r"""Returns the gradients of the features (:obj:`TO == 'x'`) or of the relation vectors, given those of messages."""
    if MESSAGE == 'rotate':
        if TO == 'x':
            passed = g * first - sign * h * second
        else:
            passed = tl.where(sign < 0.0, g * own + h * other, g * other - h * own)
    elif MESSAGE == 'sum':
        passed = g
    elif TO == 'x':
        passed = g * first
    else:
        passed = g * own
    return passed

r"""Messages, and how they come together, as the CUDA kernels of :func:`~pyg_emu.ops.relational_conv` see them.

The :obj:`B * D` features of a node are its *lanes*. A tile holds some lanes of some edges; :obj:`column` is a lane's
place in a row of four statistics per component. A rotation mixes two lanes, whose distance is :obj:`shift`; elsewhere
the second one coincides with the first and goes unused. All arithmetic is float32, whatever the type of the features.
Edges that do not take part read zeros, and so are their messages.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def lanes_of(block, num_lanes, WIDTH: tl.constexpr, BLOCK_F: tl.constexpr):
    r"""A block of lanes: the lanes, which of them exist, their batch rows and components, and their columns."""
    lane = block * BLOCK_F + tl.arange(0, BLOCK_F)
    row = lane // WIDTH
    k = lane % WIDTH
    return lane, lane < num_lanes, row, k, row * (4 * WIDTH) + k


@triton.jit
def turn_of(k, WIDTH: tl.constexpr):
    r"""For rotation: the distance to a lane's other part, and its sign: -1 for real parts, 1 for imaginary ones."""
    real = k < WIDTH // 2
    return tl.where(real, WIDTH // 2, -(WIDTH // 2)), tl.where(real, -1.0, 1.0)


@triton.jit
def load_features(x, u, lane, k, take, num_lanes, MESSAGE: tl.constexpr, WIDTH: tl.constexpr):
    r"""A lane of some nodes, and its other part."""
    at = x + u[:, None] * num_lanes + lane[None, :]
    own = tl.load(at, mask=take, other=0.0).to(tl.float32)
    other = own
    if MESSAGE == 'rotate':
        shift, _ = turn_of(k, WIDTH)
        other = tl.load(at + shift[None, :], mask=take, other=0.0).to(tl.float32)
    return own, other


@triton.jit
def load_relation(relation, q, row, k, take, batch_stride, MESSAGE: tl.constexpr, WIDTH: tl.constexpr):
    r"""The relation vectors' components that go with a lane: its own, or else real and imaginary parts."""
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
    r"""The messages of a lane."""
    if MESSAGE == 'rotate':
        message = own * first + sign * other * second
    elif MESSAGE == 'sum':
        message = own + first
    else:
        message = own * first
    return message


@triton.jit
def load_edges(place, valid, mask, weight, MASKED: tl.constexpr, WEIGHTED: tl.constexpr):
    r"""Which of the edges at some places take part, and their factors."""
    take = valid
    if MASKED:
        take = take & (tl.load(mask + place, mask=valid, other=0) != 0)
    factor = tl.where(take, 1.0, 0.0)
    if WEIGHTED:
        factor = tl.load(weight + place, mask=take, other=0.0).to(tl.float32)
    return take, factor[:, None]


# Extrema: values and the positions they came from, counted from the first edge of a node; -1 for the boundary condition
# and for none.


@triton.jit
def higher(value, at, other, other_at):
    r"""The larger of two numbers, the first one of equals; NaN if either is."""
    better = (other > value) | ((other == value) & (other_at < at)) | (other != other)
    return tl.where(better, other, value), tl.where(better, other_at, at)


@triton.jit
def lower(value, at, other, other_at):
    r"""The smaller of two numbers, the first one of equals; NaN if either is."""
    better = (other < value) | ((other == value) & (other_at < at)) | (other != other)
    return tl.where(better, other, value), tl.where(better, other_at, at)


@triton.jit
def upstream(v, local, message, lane, column, take, grad, slopes, positions, count, num_lanes,
             AGGREGATE: tl.constexpr, WIDTH: tl.constexpr):
    r"""The gradients of some lanes of some messages: constant, linear in the message, or of extrema alone.

    Args:
        v: The nodes that they went to.
        local: Their edges' positions among those of the node.
        message: The messages, weighted.
        grad: Of the output. For :obj:`"pna"`, the statistics of a component stand :obj:`WIDTH` apart.
        slopes: For :obj:`"pna"`, what :func:`pna_slopes` wrote.
        positions: Of the extrema.
        count: Number of messages of each node.
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
    r"""The gradients of the messages before they were weighted, of a lane and of its other part."""
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
    r"""What messages with these gradients pass to the features (:obj:`TO == 'x'`) or to the relation vectors."""
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

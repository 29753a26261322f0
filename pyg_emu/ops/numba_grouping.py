r"""Groups gradient slots by entity id, such that one thread sums each gradient row in a fixed order.

The groups are computed by a stable radix sort of :obj:`(id, slot)` pairs. Its cost is linear in the number of slots
and logarithmic in the largest id, and does not depend on the size of the table. The result does not depend on the
number of threads.
"""
from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import prange

from pyg_emu.ops.numba_runtime import jit

#: Up to this many slots, one thread is done before the four or more parallel regions of the others have begun.
_SMALL = 1 << 16
_DIGIT_BITS = 11  # The counters of one pass fit into the L1 cache.


class Groups(NamedTuple):
    r"""Slots sorted by id, divided into pieces of equal size regardless of the group sizes.

    Args:
        order (numpy.ndarray): :obj:`id << 32 | slot` in ascending order, uint64. shape: :obj:`(S,)`.
        piece (int): The number of slots in a piece, which depends only on :obj:`S`.
        first (numpy.ndarray): The number of groups that begin before each piece. shape: :obj:`(pieces + 1,)`.
    """
    order: np.ndarray
    piece: int
    first: np.ndarray

    @property
    def num_groups(self) -> int:
        return int(self.first[-1])


def group(ids: np.ndarray, num_ids: int) -> Groups:
    r"""Groups slots by id.

    Call this function and use its result inside one parallel section. The next call reuses the memory of
    :attr:`Groups.order`, because allocating new pages takes longer than the sort.

    Args:
        ids (numpy.ndarray): Ids in :obj:`[0, num_ids)`, int64. shape: :obj:`(S,)`.
        num_ids (int): The exclusive upper bound of the ids. Both :obj:`num_ids` and :obj:`S` are at most
            :math:`2^{32}`.
    """
    num_bits = max(int(num_ids - 1).bit_length(), 1)
    num_passes = -(-num_bits // _DIGIT_BITS)
    digit_bits = -(-num_bits // num_passes)
    order, spare = _workspace(ids.size)
    piece = max(128, -(-ids.size // 512))
    first = np.zeros(-(-ids.size // piece) + 1, np.int64)
    if ids.size <= _SMALL:
        order = _group_serially(ids, order, spare, num_passes, digit_bits, piece, first)
    else:
        num_threads = numba.get_num_threads()
        _pack(ids, order)
        for i in range(num_passes):
            _radix_pass(order, spare, 32 + i * digit_bits, digit_bits, num_threads)
            order, spare = spare, order
        _count_groups(order, piece, first)
    np.cumsum(first, out=first)
    return Groups(order, piece, first)


_buffers = np.empty((2, 0), np.uint64)


def _workspace(size: int) -> tuple[np.ndarray, np.ndarray]:
    global _buffers
    if not size <= _buffers.shape[1] <= 4 * size + 4096:
        _buffers = np.empty((2, size), np.uint64)
    return _buffers[0, :size], _buffers[1, :size]


@jit(parallel=True)
def _pack(ids, order):  # type: ignore[no-untyped-def]
    for i in prange(ids.size):
        order[i] = (np.uint64(ids[i]) << np.uint64(32)) | np.uint64(i)


@jit(parallel=True)
def _radix_pass(source, target, shift, digit_bits, num_threads):  # type: ignore[no-untyped-def]
    size, num_digits = source.size, 1 << digit_bits
    position = np.zeros((num_threads, num_digits), np.int64)
    for thread in prange(num_threads):
        low, high = thread * size // num_threads, (thread + 1) * size // num_threads
        _count_digits(source[low:high], shift, position[thread])
    total = 0
    for digit in range(num_digits):
        for thread in range(num_threads):
            count = position[thread, digit]
            position[thread, digit] = total
            total += count
    for thread in prange(num_threads):
        low, high = thread * size // num_threads, (thread + 1) * size // num_threads
        _scatter(source[low:high], shift, position[thread], target)


@jit()
def _count_digits(source, shift, count):  # type: ignore[no-untyped-def]
    mask = np.uint64(count.size - 1)
    for i in range(source.size):
        count[np.intp((source[i] >> np.uint64(shift)) & mask)] += 1


@jit()
def _scatter(source, shift, position, target):  # type: ignore[no-untyped-def]
    mask = np.uint64(position.size - 1)
    for i in range(source.size):
        digit = np.intp((source[i] >> np.uint64(shift)) & mask)
        target[position[digit]] = source[i]
        position[digit] += 1


@jit(parallel=True)
def _count_groups(order, piece, first):  # type: ignore[no-untyped-def]
    for c in prange(first.size - 1):
        count = 0
        for i in range(c * piece, min((c + 1) * piece, order.size)):
            if i == 0 or (order[i] >> np.uint64(32)) != (order[i - 1] >> np.uint64(32)):
                count += 1
        first[c + 1] = count


@jit()
def _group_serially(ids, order, spare, num_passes, digit_bits, piece, first):  # type: ignore[no-untyped-def]
    for i in range(ids.size):
        order[i] = (np.uint64(ids[i]) << np.uint64(32)) | np.uint64(i)
    for k in range(num_passes):
        shift = 32 + k * digit_bits
        position = np.zeros(1 << digit_bits, np.int64)
        _count_digits(order, shift, position)
        total = 0
        for digit in range(position.size):
            count = position[digit]
            position[digit] = total
            total += count
        _scatter(order, shift, position, spare)
        order, spare = spare, order
    for i in range(order.size):
        if i == 0 or (order[i] >> np.uint64(32)) != (order[i - 1] >> np.uint64(32)):
            first[i // piece + 1] += 1
    return order

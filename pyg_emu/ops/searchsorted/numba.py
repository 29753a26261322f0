r"""The CPU implementation of :func:`~pyg_emu.ops.searchsorted.searchsorted` in Numba."""
from __future__ import annotations

from typing import Any

import torch
from numba import prange
from torch import Tensor

from pyg_emu.ops.numba_runtime import jit, parallel_section

#: Searches that advance together. Their values and places fit into the first cache.
_BLOCK = 512


def obstacle(dtypes: tuple[torch.dtype, ...] = (), **operands: Any) -> str | None:
    r"""Why types are not supported."""
    others = [str(dtype) for dtype in dtypes if dtype != torch.int64]
    return f'it requires int64, got {others[0]}' if others else None


def search(sorted_sequence: Tensor, values: Tensor, right: bool) -> Tensor:
    r"""See :func:`~pyg_emu.ops.searchsorted.searchsorted`."""
    place = torch.zeros(values.shape, dtype=torch.int64)
    if sorted_sequence.numel() > 0:
        operands = [tensor.numpy() for tensor in (sorted_sequence, values.reshape(-1), place.view(-1))]
        if torch.get_num_threads() == 1:  # as in workers of a DataLoader, where threads may not be started
            _search(*operands, right)
        else:
            with parallel_section():
                _search_in_parallel(*operands, right)
    return place


@jit(nogil=True)
def _search(keys, values, place, right):  # type: ignore[no-untyped-def]
    for first in range(0, values.size, _BLOCK):
        _search_block(keys, values[first:first + _BLOCK], place[first:first + _BLOCK], right)


@jit(parallel=True)
def _search_in_parallel(keys, values, place, right):  # type: ignore[no-untyped-def]
    for block in prange((values.size + _BLOCK - 1) // _BLOCK):
        first = block * _BLOCK
        _search_block(keys, values[first:first + _BLOCK], place[first:first + _BLOCK], right)


@jit(nogil=True)
def _search_block(keys, values, place, right):  # type: ignore[no-untyped-def]
    # All searches take the same number of steps, so that the inner loop has no branches.
    left = keys.size
    while left > 1:
        half = left >> 1
        for i in range(values.size):
            key = keys[place[i] + half - 1]
            place[i] += half * ((key < values[i]) | (right & (key == values[i])))
        left -= half
    for i in range(values.size):
        key = keys[place[i]]
        place[i] += (key < values[i]) | (right & (key == values[i]))

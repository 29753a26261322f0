r"""The CPU implementation of :mod:`~pyg_emu.ops.row_linear`.

Four rows at a time are multiplied with 32 columns of the transposed weights. The last rows are padded with repetitions
of the last one, and the last columns with zeros, so that there is one loop for all rows: each result is the bias plus
one product after the other.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from pyg_emu.ops.numba_runtime import jit, parallel_section
from pyg_emu.ops.numba_vectors import fill, load, store

#: Columns of the result that are computed together: vector registers of float32 for four rows.
LANES = 32
_ROWS = 4
_TASKS = 64  # Enough for all threads to share evenly.
_OPTIONS: dict[str, Any] = {'fastmath': {'contract'}, 'error_model': 'numpy', 'nogil': True}


def linear(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    r"""See :func:`~pyg_emu.ops.row_linear.row_linear`; :obj:`x` has shape :obj:`(N, D)`."""
    out = x.new_empty(x.size(0), weight.size(0))
    if out.numel() == 0:
        return out
    first = x.new_zeros(weight.size(0)) if bias is None else bias.detach()
    columns = _blocks(weight.detach().t().unsqueeze(0))[0]
    with parallel_section():
        _linear(x.detach().contiguous().numpy(), columns.numpy(), _blocks(first.view(1, 1, -1))[0, :, 0].numpy(),
                out.numpy())
    return out


def folded(x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
    r"""See :func:`~pyg_emu.ops.row_linear.pna_linear`."""
    out = x.new_empty(x.size(0), x.size(1), weight.size(2))
    if out.numel() == 0:
        return out
    with parallel_section():
        _folded(x.detach().contiguous().numpy(), scalers.contiguous().numpy(), _blocks(weight.detach()).numpy(),
                out.numpy())
    return out


def _blocks(weight: Tensor) -> Tensor:
    r"""Blocks of columns :obj:`(K, blocks, D, LANES)` of :obj:`(K, D, O)`, padded with zeros."""
    padded = torch.nn.functional.pad(weight, (0, -weight.size(2) % LANES))
    return padded.unflatten(2, (-1, LANES)).transpose(1, 2).contiguous()


@njit(inline='always', **_OPTIONS)
def _multiply(x, first, columns, start, part):
    r"""Writes the products of four rows of :obj:`x` from :obj:`first` on with a block of columns to :obj:`part`."""
    last = np.uint64(x.shape[0] - 1)
    # Unsigned: Numba then leaves out the wraparound of negative indices.
    i = np.uint64(first)
    x0 = x[i]
    x1 = x[min(i + np.uint64(1), last)]
    x2 = x[min(i + np.uint64(2), last)]
    x3 = x[min(i + np.uint64(3), last)]
    sum0 = start
    sum1 = start
    sum2 = start
    sum3 = start
    for index in range(columns.shape[0]):
        d = np.uint64(index)
        row = load(columns, d, 0, LANES)
        sum0 = sum0 + fill(x0[d], LANES) * row
        sum1 = sum1 + fill(x1[d], LANES) * row
        sum2 = sum2 + fill(x2[d], LANES) * row
        sum3 = sum3 + fill(x3[d], LANES) * row
    store(part, 0, 0, sum0)
    store(part, 1, 0, sum1)
    store(part, 2, 0, sum2)
    store(part, 3, 0, sum3)


@jit(parallel=True, **_OPTIONS)
def _linear(x, columns, bias, out):
    num_rows, num_columns, num_blocks = x.shape[0], out.shape[1], columns.shape[0]
    groups = (num_rows + _ROWS - 1) // _ROWS
    across = min(_TASKS, groups)
    along = min(num_blocks, max(1, _TASKS // across))
    for task in prange(across * along):
        part = np.empty((_ROWS, LANES), x.dtype)
        low, high = groups * (task // along) // across, groups * (task // along + 1) // across
        left, right = num_blocks * (task % along) // along, num_blocks * (task % along + 1) // along
        for group in range(low, high):
            for block in range(left, right):
                _multiply(x, group * _ROWS, columns[block], load(bias, block, 0, LANES), part)
                for i in range(min(_ROWS, num_rows - group * _ROWS)):
                    for o in range(min(LANES, num_columns - block * LANES)):
                        out[group * _ROWS + i, block * LANES + o] = part[i, o]


@jit(parallel=True, **_OPTIONS)
def _folded(x, scalers, columns, out):
    num_nodes, num_rows, num_columns = out.shape
    num_scalers, num_blocks, width = columns.shape[:3]
    tasks = min(_TASKS, num_nodes)
    for task in prange(tasks):
        part, weight = np.empty((_ROWS, LANES), x.dtype), np.empty((width, LANES), x.dtype)
        zero = x.dtype.type(0)
        for v in range(num_nodes * task // tasks, num_nodes * (task + 1) // tasks):
            for block in range(num_blocks):
                for d in range(width):
                    total = fill(zero, LANES)
                    for k in range(num_scalers):
                        total = total + fill(scalers[v, k], LANES) * load(columns[k, block], d, 0, LANES)
                    store(weight, d, 0, total)
                for first in range(0, num_rows, _ROWS):
                    _multiply(x[v], first, weight, fill(zero, LANES), part)
                    for i in range(min(_ROWS, num_rows - first)):
                        for o in range(min(LANES, num_columns - block * LANES)):
                            out[v, first + i, block * LANES + o] = part[i, o]

r"""The CPU implementation of :mod:`~pyg_emu.ops.row_update`, which reads and writes each selected row once.

PyTorch's sparse optimizers create about six temporary tensors of the size of the gradient. For a table larger than the
caches, they take longer than the scoring. As theirs do, a step tells autograd that the tensors have changed: a backward
pass of an older loss, which would mix old and new numbers, raises an error.
"""
from __future__ import annotations

import math

import torch
from numba import prange
from torch import Tensor
from torch.autograd.graph import increment_version

from pyg_emu.ops.numba_runtime import jit, parallel_section


def adagrad(parameter: Tensor, total: Tensor, rows: Tensor, values: Tensor, rate: float, eps: float) -> None:
    r"""See :func:`~pyg_emu.ops.row_update.row_adagrad_`."""
    with parallel_section():
        _adagrad(*_arrays(parameter, total, rows, values), *_scalars(parameter, rate, eps))
    increment_version((parameter, total))


def adam(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor,
    values: Tensor,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    r"""See :func:`~pyg_emu.ops.row_update.row_adam_`."""
    with parallel_section():
        _adam(*_arrays(parameter, mean, square, rows, values),
              *_scalars(parameter, rate, 1.0 - betas[0], 1.0 - betas[1], eps))
    increment_version((parameter, mean, square))


def _arrays(*tensors: Tensor):  # type: ignore[no-untyped-def]
    return (tensor.detach().numpy() for tensor in tensors)


def _scalars(parameter: Tensor, *numbers: float):  # type: ignore[no-untyped-def]
    # Converts to the table's type: a float64 scalar would promote float32 arithmetic to float64.
    return torch.tensor(numbers, dtype=parameter.dtype).numpy()


@jit(parallel=True, fastmath={'contract', 'nsz'})
def _adagrad(parameter, total, rows, values, rate, eps):  # type: ignore[no-untyped-def]
    for i in prange(rows.size):
        row = rows[i]
        for k in range(values.shape[1]):
            slope = values[i, k]
            own = total[row, k] + slope * slope
            total[row, k] = own
            parameter[row, k] -= rate * slope / (math.sqrt(own) + eps)


@jit(parallel=True, fastmath={'contract', 'nsz'})
def _adam(parameter, mean, square, rows, values, rate, fresh, fresh_square, eps):  # type: ignore[no-untyped-def]
    for i in prange(rows.size):
        row = rows[i]
        for k in range(values.shape[1]):
            slope = values[i, k]
            own_mean = mean[row, k] + fresh * (slope - mean[row, k])
            own_square = square[row, k] + fresh_square * (slope * slope - square[row, k])
            mean[row, k] = own_mean
            square[row, k] = own_square
            parameter[row, k] -= rate * own_mean / (math.sqrt(own_square) + eps)

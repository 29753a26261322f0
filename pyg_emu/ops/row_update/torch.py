r"""The PyTorch reference of :mod:`~pyg_emu.ops.row_update`, for all devices."""
from __future__ import annotations

from torch import Tensor


def adagrad(parameter: Tensor, total: Tensor, rows: Tensor, values: Tensor, rate: float, eps: float) -> None:
    r"""See :func:`~pyg_emu.ops.row_update.row_adagrad_`."""
    own = total.index_select(0, rows).addcmul_(values, values)
    total.index_copy_(0, rows, own)
    parameter.index_add_(0, rows, values / own.sqrt_().add_(eps), alpha=-rate)


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
    own_mean = mean.index_select(0, rows).lerp_(values, 1.0 - betas[0])
    own_square = square.index_select(0, rows).mul_(betas[1]).addcmul_(values, values, value=1.0 - betas[1])
    mean.index_copy_(0, rows, own_mean)
    square.index_copy_(0, rows, own_square)
    parameter.index_add_(0, rows, own_mean.div_(own_square.sqrt_().add_(eps)), alpha=-rate)

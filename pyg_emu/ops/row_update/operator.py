r"""In-place optimizer steps on the rows of a large table that a batch has used, in one pass."""
from __future__ import annotations

from torch import Tensor

from pyg_emu.core.mapped_table import read_ahead
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled

_OPERATOR = 'row_update'


@uncompiled
def row_adagrad_(
    parameter: Tensor,
    total: Tensor,
    rows: Tensor,
    values: Tensor,
    rate: float,
    eps: float,
    backend: str | None = None,
) -> None:
    r"""Performs an in-place Adagrad step: :math:`\mathbf{a} \mathrel{+}= \mathbf{g}^2`, then
    :math:`\theta \mathrel{-}= \eta\, \mathbf{g} / (\sqrt{\mathbf{a}} + \epsilon)`.

    Args:
        parameter (torch.Tensor): :math:`\theta`. shape: :obj:`(V, d)`.
        total (torch.Tensor): :math:`\mathbf{a}`. shape: :obj:`(V, d)`.
        rows (torch.Tensor): The indices of the rows with a gradient, without duplicates, int64. shape: :obj:`(K,)`.
        values (torch.Tensor): The gradients :math:`\mathbf{g}` of these rows. shape: :obj:`(K, d)`.
        rate (float): :math:`\eta`.
        eps (float): :math:`\epsilon`.
        backend (str, optional): See :mod:`pyg_emu.ops.backend`. (default: :obj:`None`, by device)
    """
    read_ahead(rows, parameter, total)
    load_backend(_OPERATOR, parameter, backend).adagrad(parameter, total, rows, values, rate, eps)


@uncompiled
def row_adam_(
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    rows: Tensor,
    values: Tensor,
    rate: float,
    betas: tuple[float, float],
    eps: float,
    backend: str | None = None,
) -> None:
    r"""Performs an in-place Adam step, in which the moments of rows without a gradient do not decay:
    :math:`\mathbf{m} \leftarrow \beta_1 \mathbf{m} + (1 - \beta_1) \mathbf{g}`,
    :math:`\mathbf{v} \leftarrow \beta_2 \mathbf{v} + (1 - \beta_2) \mathbf{g}^2`, then
    :math:`\theta \mathrel{-}= \eta\, \mathbf{m} / (\sqrt{\mathbf{v}} + \epsilon)`.

    Args:
        parameter (torch.Tensor): :math:`\theta`. shape: :obj:`(V, d)`.
        mean (torch.Tensor): :math:`\mathbf{m}`. shape: :obj:`(V, d)`.
        square (torch.Tensor): :math:`\mathbf{v}`. shape: :obj:`(V, d)`.
        rows (torch.Tensor): The indices of the rows with a gradient, without duplicates, int64. shape: :obj:`(K,)`.
        values (torch.Tensor): The gradients :math:`\mathbf{g}` of these rows. shape: :obj:`(K, d)`.
        rate (float): :math:`\eta`, including the bias corrections of both moments.
        betas (tuple of float): :math:`\beta_1` and :math:`\beta_2`.
        eps (float): :math:`\epsilon`.
        backend (str, optional): See :mod:`pyg_emu.ops.backend`. (default: :obj:`None`, by device)
    """
    read_ahead(rows, parameter, mean, square)
    load_backend(_OPERATOR, parameter, backend).adam(parameter, mean, square, rows, values, rate, betas, eps)

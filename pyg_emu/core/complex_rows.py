r"""Complex vectors stored as real rows :math:`[\mathrm{re}, \mathrm{im}]`: all real parts, then all imaginary parts.

Such rows are contiguous, so one table, one lookup and one gradient serve a complex model, and a fused operator need
not know about complex numbers at all.
"""
from __future__ import annotations

import torch
from torch import Tensor


def multiply(left: Tensor, right: Tensor) -> Tensor:
    r"""Component-wise product of complex rows, broadcasting.

    Args:
        left (torch.Tensor): shape: :obj:`(..., 2d)`.
        right (torch.Tensor): shape: :obj:`(..., 2d)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(..., 2d)`.
    """
    left_re, left_im = left.chunk(2, dim=-1)
    right_re, right_im = right.chunk(2, dim=-1)
    return torch.cat([left_re * right_re - left_im * right_im, left_re * right_im + left_im * right_re], dim=-1)


def conjugate(rows: Tensor) -> Tensor:
    r"""Complex conjugate of complex rows. shape: :obj:`(..., 2d)`."""
    re, im = rows.chunk(2, dim=-1)
    return torch.cat([re, -im], dim=-1)


def unit(phase: Tensor) -> Tensor:
    r"""Complex rows :obj:`(..., 2d)` of modulus one from phases :obj:`(..., d)` in radians."""
    return torch.cat([phase.cos(), phase.sin()], dim=-1)

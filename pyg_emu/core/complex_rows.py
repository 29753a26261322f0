r"""Complex vectors stored as real rows :math:`[\mathrm{re}, \mathrm{im}]`: all real parts, then all imaginary parts.

A row is contiguous. A complex model therefore needs one table, one lookup and one gradient, and fused operators need
no complex arithmetic.
"""
from __future__ import annotations

import torch
from torch import Tensor


def multiply(left: Tensor, right: Tensor) -> Tensor:
    r"""Returns the component-wise product of complex rows, with broadcasting.

    Args:
        left (torch.Tensor): shape: :obj:`(..., 2d)`.
        right (torch.Tensor): shape: :obj:`(..., 2d)`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(..., 2d)`.
    """
    left_re, left_im = left.chunk(2, dim=-1)
    right_re, right_im = right.chunk(2, dim=-1)
    return torch.cat([left_re * right_re - left_im * right_im, left_re * right_im + left_im * right_re], dim=-1)


def conjugate(rows: Tensor) -> Tensor:
    r"""Returns the complex conjugate of complex rows. shape: :obj:`(..., 2d)`."""
    re, im = rows.chunk(2, dim=-1)
    return torch.cat([re, -im], dim=-1)


def unit(phase: Tensor) -> Tensor:
    r"""Returns complex rows of modulus one, :obj:`(..., 2d)`, from phases in radians, :obj:`(..., d)`."""
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def modulus(rows: Tensor) -> Tensor:
    r"""Returns the moduli of complex rows, :obj:`(..., d)` from :obj:`(..., 2d)`. Their gradient at zero is zero.

    A norm over the two parts, :func:`torch.linalg.vector_norm`, takes many times as long on the CPU.
    """
    re, im = rows.chunk(2, dim=-1)
    # The slope of hypot at (0, 0) is NaN.
    zero = (re == 0) & (im == 0)
    return torch.hypot(re.masked_fill(zero, 1), im).masked_fill(zero, 0)

r"""How the components of a candidate are mixed with those of the positive, in a form that forward and backward share.

A plan never stores a bit per (triple, negative, component): masks live in a small bank, and each slot holds an index.
"""
from __future__ import annotations

from typing import NamedTuple, Union

from torch import Tensor


class MaskPlan(NamedTuple):
    r"""Component-wise mutation, equation 6 of the EMU paper:
    :math:`\lambda \odot \mathbf{z}^+ + (1 - \lambda) \odot \mathbf{z}^-`.

    Args:
        bank (torch.Tensor): Masks :math:`\lambda`: boolean (true where the component is taken FROM THE POSITIVE), or
            floating point for a soft, learnable mix with a gradient. shape: :obj:`(M, d)`, :obj:`d` the width of a
            candidate row.
        index (torch.Tensor): Which mask each slot uses, in :obj:`[0, M)`. shape: :obj:`(B, N)` for one mask per
            negative, :obj:`(B,)` for one mask per triple, shared by all of its negatives. dtype: int64 or int32.
    """
    bank: Tensor
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index


class MixPlan(NamedTuple):
    r"""Scalar mixing (Mixup, equation 22): :math:`w\, \mathbf{z}^- + (1 - w)\, \mathbf{z}^+`.

    Args:
        weight (torch.Tensor): :math:`w`, the weight of the NEGATIVE, in :obj:`[0, 1]`. shape: :obj:`(B, N)`.
    """
    weight: Tensor


#: What :func:`~pyg_emu.ops.emu_score` accepts as a plan.
Plan = Union[MaskPlan, MixPlan]

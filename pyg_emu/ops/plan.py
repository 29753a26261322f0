r"""How the components of a candidate are mixed with those of the positive, in a form that forward and backward share.

A plan never stores a bit per (triple, negative, component): masks live in a small bank, and each slot holds an index.
"""
from __future__ import annotations

from typing import NamedTuple, Optional, Union

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
        label (torch.Tensor, optional): The label of each mutated negative, for losses with labels; floating point.
            shape: :obj:`(B, N)`. (default: :obj:`None`, the loss's own)
    """
    bank: Tensor
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index
    label: Optional[Tensor] = None

    def rows(self, rows: slice) -> MaskPlan:
        r"""The plan for some triples of the batch."""
        return MaskPlan(self.bank, self.index[rows], _rows(self.label, rows))


class MixPlan(NamedTuple):
    r"""Scalar mixing of each negative with a partner: :math:`w\, \mathbf{z}^- + (1 - w)\, \mathbf{z}'`. Without
    :obj:`partner`, it is mixed with the positive (Mixup, equation 22).

    Args:
        weight (torch.Tensor): :math:`w`, the weight of the NEGATIVE, in :obj:`[0, 1]`. shape: :obj:`(B, N)`.
        partner (torch.Tensor, optional): Entity ids of the partners :math:`\mathbf{z}'`, rows of the same table as the
            negatives; int64. shape: :obj:`(B, N)`. (default: :obj:`None`, the positive of the triple)
        label (torch.Tensor, optional): The label of each mutated negative, for losses with labels; floating point.
            shape: :obj:`(B, N)`. (default: :obj:`None`, the loss's own)
        slot (torch.Tensor, optional): Where the partner is a negative of the same triple, a column that holds it, and a
            negative number elsewhere; int64. It changes results by rounding only. On the CPU, dot products with such
            partners are computed once. shape: :obj:`(B, N)`. (default: :obj:`None`, not known)
    """
    weight: Tensor
    partner: Optional[Tensor] = None
    label: Optional[Tensor] = None
    slot: Optional[Tensor] = None

    def rows(self, rows: slice) -> MixPlan:
        r"""The plan for some triples of the batch."""
        return MixPlan(self.weight[rows], *(_rows(value, rows) for value in (self.partner, self.label, self.slot)))


#: What :func:`~pyg_emu.ops.emu_score` accepts as a plan.
Plan = Union[MaskPlan, MixPlan]


def _rows(value: Optional[Tensor], rows: slice) -> Optional[Tensor]:
    return None if value is None else value[rows]

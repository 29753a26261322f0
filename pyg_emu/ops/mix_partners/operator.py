r"""The choice of a partner for each negative: from a pool of its triple, or from the other negatives of the triple."""
from __future__ import annotations

from typing import NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import uncompiled
from pyg_emu.ops.plan import MixPlan


class PartnerPools(NamedTuple):
    r"""The entities that pooled negatives are mixed with, those of all pools side by side.

    Args:
        index (torch.Tensor): The entities. shape: :obj:`(P,)`, int64.
        first (torch.Tensor): Where the pool of each triple begins. shape: :obj:`(B,)`, int64.
        size (torch.Tensor): The number of partners in it, without the one that is left out. shape: :obj:`(B,)`, int64.
        left_out (torch.Tensor, optional): The place of an entity in the pool of each triple that is no partner,
            negative where there is none. shape: :obj:`(B,)`, int64. (default: :obj:`None`, nothing is left out)
    """
    index: Tensor  # type: ignore[assignment]
    first: Tensor
    size: Tensor
    left_out: Optional[Tensor] = None


@uncompiled
def mix_partners(
    index: Tensor,
    pooled: Tensor,
    kept: Optional[Tensor],
    words: Tensor,
    weight: Tensor,
    pools: PartnerPools,
    backend: Optional[str] = None,
) -> MixPlan:
    r"""Chooses partners and labels of negatives.

    A *pooled* negative whose pool is not empty gets a partner drawn uniformly from the pool, and the label
    :math:`1 - \lambda'`. The partner of any other kept negative is drawn uniformly from the other negatives of its
    triple that are kept and have no partner from a pool, and its label is zero. A negative without a partner keeps its
    own vector: its weight becomes one.

    The upper half of each random word chooses the partner: with :math:`u` uniform on :math:`[0, 2^{32})`, it is number
    :math:`\lfloor u n / 2^{32} \rfloor` of :math:`n`. All backends return the same plan.

    Args:
        index (torch.Tensor): The negatives. shape: :obj:`(B, N)`, int64.
        pooled (torch.Tensor): Which negatives have a partner from the pool of their triple. shape: :obj:`(B, N)`, bool.
        kept (torch.Tensor, optional): Which negatives count. Pooled ones have to. shape: :obj:`(B, N)`, bool.
            (default: :obj:`None`, all)
        words (torch.Tensor): Random bits. shape: :obj:`(B, N)`, int64.
        weight (torch.Tensor): :math:`\lambda'`, the share of the negative itself. shape: :obj:`(B, N)`.
        pools (PartnerPools): The pools.
        backend (str, optional): See :mod:`pyg_emu.ops.backend`. (default: :obj:`None`, by device)
    """
    with torch.no_grad():
        module = load_backend('mix_partners', weight, backend)
        plan: MixPlan = module.choose(index, pooled, kept, words, weight, pools)
        return plan

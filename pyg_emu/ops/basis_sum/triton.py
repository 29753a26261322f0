r"""The GPU form of :func:`~pyg_emu.ops.basis_sum`: each basis is a row of a batch that shares its node features."""
from __future__ import annotations

from typing import Optional

from torch import Tensor

from pyg_emu.ops.relational import EdgeOrders, relational_conv


def run(x: Tensor, coefficient: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.basis_sum`."""
    (num_nodes, width), num_bases = x.shape, coefficient.size(1)
    features = x.unsqueeze(1).expand(num_nodes, num_bases, width)
    relation = coefficient.t().unsqueeze(2).expand(num_bases, coefficient.size(0), width)
    return relational_conv(features.contiguous(), relation.contiguous(), edges, edge_weight=edge_weight,
                           backend='triton')

r"""The PyTorch reference of :func:`~pyg_emu.ops.basis_sum`: gather, weigh, add. All messages exist at once."""
from __future__ import annotations

from typing import Optional

from torch import Tensor
from torch_geometric.utils import segment

from pyg_emu.ops.relational import EdgeOrders


def run(x: Tensor, coefficient: Tensor, edges: EdgeOrders, edge_weight: Optional[Tensor]) -> Tensor:
    r"""Runs the operator on checked arguments, see :func:`~pyg_emu.ops.basis_sum`."""
    order = edges.by_target
    share = coefficient[order.relation]
    if edge_weight is not None:
        share = share * edge_weight[order.edge_id].unsqueeze(1)
    return segment(share.unsqueeze(2) * x[order.source].unsqueeze(1), order.ptr, reduce='sum')

r"""Sums over the neighbours of a node for each basis of its relations, the message passing of R-GCN."""
from pyg_emu.ops.basis_sum.operator import basis_sum

__all__ = [
    'basis_sum',
]

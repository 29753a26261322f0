r"""Linear maps that treat equal rows equally."""
from pyg_emu.ops.row_linear.operator import pna_linear, row_linear

__all__ = [
    'pna_linear',
    'row_linear',
]

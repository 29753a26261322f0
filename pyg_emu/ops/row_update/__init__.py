r"""Optimizer steps on selected rows of a table."""
from pyg_emu.ops.row_update.operator import row_adagrad_, row_adam_

__all__ = [
    'row_adagrad_',
    'row_adam_',
]

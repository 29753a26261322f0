r"""Binary search for many values at once."""
from pyg_emu.ops.searchsorted.operator import searchsorted

__all__ = [
    'searchsorted',
]

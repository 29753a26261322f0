r"""On a GPU, PyTorch's own kernels make the plan of :mod:`~pyg_emu.ops.mix_partners`. A captured step launches them at
once.
"""
from __future__ import annotations

from pyg_emu.ops.mix_partners.torch import choose

__all__ = ['choose']

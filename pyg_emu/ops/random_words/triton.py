r"""Beside Triton kernels on a CPU, the reference draws the words. On a GPU, PyTorch does, whatever the backend."""
from __future__ import annotations

from pyg_emu.ops.random_words.torch import fill

__all__ = ['fill']

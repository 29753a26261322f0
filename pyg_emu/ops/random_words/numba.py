r"""The CPU implementation of :func:`~pyg_emu.ops.random_words.random_words` in Numba, in parallel."""
from __future__ import annotations

import numpy as np
from numba import prange
from torch import Tensor

from pyg_emu.ops.numba_runtime import jit, parallel_section

_GAMMA, _FIRST, _SECOND = (np.uint64(value) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31)


def fill(words: Tensor, seed: int) -> None:
    r"""See :func:`pyg_emu.ops.random_words.torch.fill`."""
    with parallel_section():
        _fill(words.view(-1).numpy().view(np.uint64), np.uint64(seed % 2**64))


@jit(parallel=True)
def _fill(words, seed):  # type: ignore[no-untyped-def]
    for i in prange(words.size):
        state = seed + np.uint64(i + 1) * _GAMMA
        state = (state ^ (state >> _SHIFTS[0])) * _FIRST
        state = (state ^ (state >> _SHIFTS[1])) * _SECOND
        words[i] = state ^ (state >> _SHIFTS[2])

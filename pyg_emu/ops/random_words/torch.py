r"""The reference of :func:`~pyg_emu.ops.random_words.random_words` in PyTorch."""
from __future__ import annotations

import torch
from torch import Tensor

#: The increment and the two factors of SplitMix64, as signed integers. Products of int64 keep their lowest 64 bits.
GAMMA, FIRST, SECOND = (value - 2**64 for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def fill(words: Tensor, seed: int) -> None:
    r"""Writes the outputs of SplitMix64 with a seed to a contiguous tensor."""
    state = torch.arange(1, words.numel() + 1, device=words.device).mul_(GAMMA).add_(seed)
    for shift, factor in ((30, FIRST), (27, SECOND)):
        state = (state ^ _shifted(state, shift)) * factor
    words.view(-1).copy_(state ^ _shifted(state, 31))


def _shifted(value: Tensor, shift: int) -> Tensor:
    r"""The logical shift to the right, without the copies of the sign that PyTorch shifts in."""
    return (value >> shift) & (2**(64 - shift) - 1)

r"""Vanilla and mutated scores of many negatives in one pass."""
from pyg_emu.ops.emu_score.operator import EMUScores, emu_score, mutate

__all__ = [
    'EMUScores',
    'emu_score',
    'mutate',
]

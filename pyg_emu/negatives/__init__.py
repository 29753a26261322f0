r"""Negatives: the transform that adds them to a batch, where their ids come from, and what is done to their vectors."""
from pyg_emu.negatives.transform import EMUNegatives, negatives_of

__all__ = [
    'EMUNegatives',
    'negatives_of',
]

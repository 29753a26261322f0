r"""Negatives: the transform that adds them to a batch, the samplers they come from, and mutations of their vectors."""
from pyg_emu.negatives.demix import DeMixNegatives
from pyg_emu.negatives.transform import EMUNegatives, parts_of

__all__ = [
    'DeMixNegatives',
    'EMUNegatives',
    'parts_of',
]

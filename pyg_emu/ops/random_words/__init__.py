r"""Random bits for each slot of a batch."""
from pyg_emu.ops.random_words.operator import random_words

__all__ = [
    'random_words',
]

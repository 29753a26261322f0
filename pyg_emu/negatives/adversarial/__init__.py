r"""Samplers with a generator of their own, which is trained beside the model."""
from pyg_emu.negatives.adversarial.dans import DANSSampler
from pyg_emu.negatives.adversarial.kbgan import KBGANSampler

__all__ = [
    'DANSSampler',
    'KBGANSampler',
]

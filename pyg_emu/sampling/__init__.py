r"""Where candidate ids come from."""
from pyg_emu.sampling.base import BaseSampler
from pyg_emu.sampling.uniform import UniformSampler

__all__ = [
    'BaseSampler',
    'UniformSampler',
]

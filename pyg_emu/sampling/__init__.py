r"""Where candidate ids come from."""
from pyg_emu.sampling.base import BaseSampler
from pyg_emu.sampling.nscaching import NSCachingSampler
from pyg_emu.sampling.sans import SANSSampler
from pyg_emu.sampling.uniform import UniformSampler

__all__ = [
    'BaseSampler',
    'NSCachingSampler',
    'SANSSampler',
    'UniformSampler',
]

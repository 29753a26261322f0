r"""Where candidate ids come from.

Which end of a fact is replaced is the loader's choice: Bernoulli sampling, as in TransH, is
:obj:`TripletLoader(corrupt='bernoulli')`, with any of these samplers.
"""
from pyg_emu.negatives.sampling.base import BaseSampler
from pyg_emu.negatives.sampling.nscaching import NSCachingSampler
from pyg_emu.negatives.sampling.sans import SANSSampler
from pyg_emu.negatives.sampling.shared import SharedNegativesSampler
from pyg_emu.negatives.sampling.uniform import UniformSampler

__all__ = [
    'BaseSampler',
    'NSCachingSampler',
    'SANSSampler',
    'SharedNegativesSampler',
    'UniformSampler',
]

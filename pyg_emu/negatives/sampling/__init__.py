r"""Where candidate ids come from.

Which end of a fact is replaced is decided where a batch is made, before a sampler sees it. Bernoulli sampling, as in
TransH, is a way to decide that. It is therefore no sampler, but an option of the loader,
:obj:`TripletLoader(corrupt='bernoulli')` (in recipes :obj:`corrupt: bernoulli`), or of a batch of your own,
:obj:`Batch(..., side='bernoulli', source=data)`, and goes with any of these samplers.
"""
from pyg_emu.negatives.sampling.base import BaseSampler
from pyg_emu.negatives.sampling.candidate import CandidateSampler
from pyg_emu.negatives.sampling.cans import CANSLikeSampler
from pyg_emu.negatives.sampling.esns import ESNSLikeSampler
from pyg_emu.negatives.sampling.mcns import MCNSSampler
from pyg_emu.negatives.sampling.nscaching import NSCachingSampler
from pyg_emu.negatives.sampling.popularity import PopularitySampler
from pyg_emu.negatives.sampling.sans import SANSSampler
from pyg_emu.negatives.sampling.shared import SharedNegativesSampler
from pyg_emu.negatives.sampling.stratified import StratifiedSampler
from pyg_emu.negatives.sampling.typed import TypedSampler
from pyg_emu.negatives.sampling.uniform import UniformSampler

__all__ = [
    'BaseSampler',
    'CANSLikeSampler',
    'CandidateSampler',
    'ESNSLikeSampler',
    'MCNSSampler',
    'NSCachingSampler',
    'PopularitySampler',
    'SANSSampler',
    'SharedNegativesSampler',
    'StratifiedSampler',
    'TypedSampler',
    'UniformSampler',
]

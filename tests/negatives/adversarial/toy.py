r"""The graph, the batches and the backend of the tests of adversarial samplers."""
from __future__ import annotations

from typing import Any

import torch

from pyg_emu import KGData, TripletLoader
from pyg_emu.data.batch import Batch

NUM_NODES, NUM_RELATIONS = 12, 2


def make_data() -> KGData:
    generator = torch.Generator().manual_seed(1)
    return KGData(torch.randint(NUM_NODES, (2, 40), generator=generator),
                  torch.randint(NUM_RELATIONS, (40, ), generator=generator), NUM_NODES, NUM_RELATIONS)


def make_batch(size: int = 10, seed: int = 0, corrupt: Any = 'both') -> Batch:
    return next(iter(TripletLoader(make_data(), size, shuffle=True, corrupt=corrupt, seed=seed)))

r"""What a mutation sees, around given queries."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor

from pyg_emu.data.batch import Batch
from pyg_emu.negatives.mutation import MutationContext


def context(query: Tensor, num_negatives: int, width: int, generator: Optional[torch.Generator] = None, step: int = 0,
            model: Any = None) -> MutationContext:
    ids = torch.zeros(query.size(0), dtype=torch.int64)
    batch = Batch(ids, ids, ids, 'tail', num_nodes=1, step=step, generator=generator,
                  neg_index=torch.zeros(query.size(0), num_negatives, dtype=torch.int64))
    return MutationContext(batch, model, query, num_negatives, width)

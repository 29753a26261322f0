r"""A process's part of a batch that all processes have drawn alike.

Drawing negatives costs little beside scoring them. So every process draws those of the whole batch, from the same
random stream, and scores its own rows: the result does not depend on the number of processes.
"""
from __future__ import annotations

import copy
from typing import Any, NamedTuple

from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.negatives.mutation.part import mutation_for


class Part(NamedTuple):
    r"""What :func:`shard` returns.

    Args:
        batch (KGData): Some rows of a batch; :obj:`batch.whole` is the batch, :obj:`batch.rows` says which.
        own (bool): Whether the rows are the process's own. One with more colleagues than the batch has rows gets a row
            of another, so that it takes the same steps; that row must not count.
    """
    batch: Any
    own: bool


def shard(batch: Any, rank: int, world: int) -> Part:
    r"""Cuts out the rows of one process, neighbours in equal numbers as far as possible.

    Every tensor with a row for each triple is cut. The mutation plans for the whole batch, and hands out the rows.

    Args:
        batch (KGData): The batch, the same in all processes.
        rank (int): The number of the process.
        world (int): The number of processes.

    Raises:
        ArgumentError: If the batch is empty.
    """
    size = batch.head_index.numel()
    if size == 0:
        raise ArgumentError('batch: there are no triples to be divided among the processes')
    start, stop = rank * size // world, (rank + 1) * size // world
    own = start < stop
    rows = slice(start, stop) if own else slice(0, 1)
    part = copy.copy(batch)
    for name, value in batch.to_dict().items():
        if isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == size:
            setattr(part, name, value[rows])
    # Beside the store, as KGData holds its source: whoever moves or saves a batch does not mean these.
    part.__dict__.update(whole=batch, rows=rows)
    part.mutation = mutation_for(getattr(batch, 'mutation', None), part)
    return Part(part, own)

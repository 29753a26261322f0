r"""The rows of one process, of a batch that all processes have drawn alike.

Drawing negatives costs little beside scoring them. So every process draws those of the whole batch, from the same
random stream, and scores its own rows: the result does not depend on the number of processes.
"""
from __future__ import annotations

from typing import NamedTuple

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch


class Part(NamedTuple):
    r"""The result of :func:`shard`.

    Args:
        batch (Batch): Some rows of a batch, see :meth:`Batch.part() <pyg_emu.Batch.part>`.
        own (bool): Whether the rows are the process's own. If there are more processes than rows, some processes get a
            row of another one, so that all take the same steps; such a row must not count.
    """
    batch: Batch
    own: bool


def shard(batch: Batch, rank: int, world: int) -> Part:
    r"""Returns the rows of one process: neighbours, in equal numbers as far as possible.

    Args:
        batch (Batch): The batch, the same in all processes.
        rank (int): The number of the process.
        world (int): The number of processes.

    Raises:
        ArgumentError: If the batch is empty.
    """
    batch = Batch.of(batch)
    size = batch.head_index.numel()
    if size == 0:
        raise ArgumentError('batch: expected at least one triple to divide among the processes, got none')
    start, stop = rank * size // world, (rank + 1) * size // world
    own = start < stop
    return Part(batch.part(slice(start, stop) if own else slice(0, 1)), own)

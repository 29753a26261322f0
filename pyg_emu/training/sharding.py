r"""The rows of a batch that one process scores. All processes draw the same batch.

Drawing negatives takes little time compared with scoring them. Therefore every process draws the negatives of the whole
batch from the same random generator and scores its own rows. The result does not depend on the number of processes.
"""
from __future__ import annotations

from typing import NamedTuple

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch


class Part(NamedTuple):
    r"""The result of :func:`shard`.

    Args:
        batch (Batch): A part of the rows of a batch, see :meth:`Batch.part() <pyg_emu.Batch.part>`.
        own (bool): Whether the rows belong to this process. If there are more processes than rows, some processes get a
            copy of another process's row, so that all perform the same steps. Such a row must not contribute to the
            loss.
    """
    batch: Batch
    own: bool


def shard(batch: Batch, rank: int, world: int) -> Part:
    r"""Returns the rows of one process: adjacent rows, in equal numbers if possible.

    Args:
        batch (Batch): The batch, which is the same in all processes.
        rank (int): The rank of the process.
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

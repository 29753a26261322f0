r"""A process's part of a batch that all processes have drawn alike.

Drawing negatives costs little beside scoring them. So every process draws those of the whole batch, from the same
random stream, and scores its own rows: the result does not depend on the number of processes.
"""
from __future__ import annotations

import copy
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan


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


def mutation_for(mutation: Any, batch: Any) -> Any:
    r"""A mutation as a batch needs it: as it is, or, for a part of a batch, planning for the whole.

    Args:
        mutation (Mutation, optional): The mutation.
        batch (KGData): A batch, or a part of one.
    """
    whole = getattr(batch, 'whole', None)
    if mutation is None or whole is None or isinstance(mutation, PartMutation):
        return mutation
    return PartMutation(mutation, batch.rows, whole.head_index.numel())


class PartMutation:
    r"""Plans for a whole batch, and hands out some rows of the plan: each process consumes the same random numbers, and
    each triple is mutated as it would be in a single one.

    Args:
        mutation (Mutation): What plans.
        rows (slice): The rows that are wanted.
        size (int): The number of rows of the whole batch.
    """
    def __init__(self, mutation: Any, rows: slice, size: int) -> None:
        self.mutation = mutation
        self.rows = rows
        self.size = size

    def plan(
        self,
        query: Tensor,
        num_negatives: int,
        width: int,
        generator: Optional[torch.Generator] = None,
        step: int = 0,
    ) -> Optional[Plan]:
        r"""See :meth:`Mutation.plan() <pyg_emu.mutation.Mutation.plan>`; :obj:`query` has the wanted rows alone."""
        # What is planned for other rows is thrown away, so their queries do not matter.
        whole = F.pad(query, (0, 0, self.rows.start, self.size - self.rows.stop))
        plan = self.mutation.plan(whole, num_negatives, width, generator, step)
        if isinstance(plan, MixPlan):
            return MixPlan(plan.weight[self.rows])
        return None if plan is None else MaskPlan(plan.bank, plan.index[self.rows])

    def __repr__(self) -> str:
        return repr(self.mutation)

r"""A mutation for some rows of a batch, which plans for the whole batch."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.ops.plan import Plan


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
        r"""See :meth:`Mutation.plan() <pyg_emu.negatives.mutation.Mutation.plan>`; :obj:`query` has the wanted rows
        alone."""
        # What is planned for other rows is thrown away, so their queries do not matter.
        whole = F.pad(query, (0, 0, self.rows.start, self.size - self.rows.stop))
        plan = self.mutation.plan(whole, num_negatives, width, generator, step)
        return None if plan is None else plan.rows(self.rows)

    def __repr__(self) -> str:
        return repr(self.mutation)

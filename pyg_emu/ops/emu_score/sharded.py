r"""Scores of negatives whose rows are divided among processes: each process scores its own and exchanges scores.

Negatives come from any sampler. Each process moves the slots of its own rows to the left, so that it scores
:obj:`(B, n)` negatives, where :math:`n` is the largest number of own slots in a row: :math:`N / W` where all rows draw
evenly, as those of :class:`~pyg_emu.StratifiedSampler` do, and more where they do not.
"""
from __future__ import annotations

from typing import Callable, NamedTuple, Optional, Union

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.sharded_table import ShardedTable
from pyg_emu.core.shared_index import SharedIndex, expanded
from pyg_emu.ops.plan import MaskPlan, MixPlan, Plan

#: Vanilla and mutated scores of (query, positive, rows, index, plan).
Score = Callable[[Tensor, Tensor, Tensor, Union[Tensor, SharedIndex], Optional[Plan]], tuple[Optional[Tensor], ...]]


class _Slots(NamedTuple):
    r"""The slots :obj:`(B, N)` whose negatives are rows of this process, :obj:`S` in number."""
    #: Rows of this process, the own ones of each row of a batch on the left. shape: (B, n). None without own slots.
    local: Optional[Union[Tensor, SharedIndex]]
    #: Row, column and column in :attr:`local` of each slot. shape: (S,).
    row: Tensor
    column: Tensor
    place: Tensor
    #: The number of slots of each process.
    counts: list[int]
    #: The slots of all processes, one process after the other. shape: (B * N,).
    order: Tensor


def run(query: Tensor, positive: Tensor, table: ShardedTable, index: Union[Tensor, SharedIndex], plan: Optional[Plan],
        vanilla: bool, score: Score) -> tuple[Optional[Tensor], Optional[Tensor]]:
    r"""Returns vanilla and mutated scores in all processes. All have to call it with the same arguments.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(B, d_q)`.
        positive (torch.Tensor): The positives. shape: :obj:`(B, d)`.
        table (ShardedTable): The candidates. shape: :obj:`(V, d)`.
        index (torch.Tensor or SharedIndex): The negatives. shape: :obj:`(B, N)`.
        plan (MaskPlan or MixPlan, optional): How they are mutated.
        vanilla (bool): Whether vanilla scores are wanted.
        score (callable): Scores rows of this process.
    """
    if isinstance(plan, MixPlan) and plan.partner is not None:
        raise ArgumentError('plan.partner: expected None, as the rows of the table are divided among processes and a '
                            'negative and its partner may belong to different ones; got partners; choose another '
                            'mutation, or train without sharding')
    slots = _slots(index, table)
    mixed = (plan.bank if isinstance(plan, MaskPlan) else plan.weight, ) if plan is not None else ()
    operands = table.shared(query, positive, *mixed)
    if slots.local is None:
        # Connected with its operands all the same: each process takes part in each exchange of the backward pass.
        nothing = sum((value.flatten()[:0] for value in operands), table.rows.new_empty(0))
        values = torch.stack([nothing] * (vanilla + (plan is not None)))
    else:
        own = None if plan is None else _own_plan(plan, operands[2], slots, slots.local.shape)
        found = score(operands[0], operands[1], table.rows, slots.local, own)
        values = torch.stack([value[slots.row, slots.place] for value in found if value is not None])
    joined = table.gather(values, slots.counts)
    scores = torch.zeros_like(joined).index_copy(1, slots.order, joined).unflatten(1, index.shape)
    return scores[0] if vanilla else None, None if plan is None else scores[-1]


def _slots(index: Union[Tensor, SharedIndex], table: ShardedTable) -> _Slots:
    # What rows share is laid out once for each set.
    ids = index.index if isinstance(index, SharedIndex) else index
    own = table.owns(ids)
    place = own.cumsum(1) - 1
    kept, column = own.nonzero().unbind(1)
    local: Optional[Union[Tensor, SharedIndex]] = None
    if kept.numel() > 0:
        rows = ids[kept, column] - table.start
        # Empty slots repeat a row that occurs: a row-sparse gradient names no row that one process's would not.
        left = rows[0].repeat(ids.size(0), int(place[:, -1].max()) + 1)
        left[kept, place[kept, column]] = rows
        local = index._replace(index=left) if isinstance(index, SharedIndex) else left
    owner = table.owner(expanded(index))
    if isinstance(index, SharedIndex):
        own, place = index.per_row(own), index.per_row(place)
        kept, column = own.nonzero().unbind(1)
    order = [(owner.flatten() == process).nonzero().squeeze(1) for process in range(table.world)]
    return _Slots(local, kept, column, place[kept, column], [part.numel() for part in order], torch.cat(order))


def _own_plan(plan: Plan, mixed: Tensor, slots: _Slots, shape: tuple[int, ...]) -> Plan:
    r"""The plan of this process's slots. Labels stay with the loss."""
    if isinstance(plan, MixPlan):
        weight = mixed.new_ones(shape).index_put((slots.row, slots.place), mixed[slots.row, slots.column])
        return MixPlan(weight)
    if plan.index.dim() == 1:
        return MaskPlan(mixed, plan.index)
    index = plan.index.new_zeros(shape)
    index[slots.row, slots.place] = plan.index[slots.row, slots.column]
    return MaskPlan(mixed, index)

r"""Counting the competitors of one block of queries, part by part of the table."""
from __future__ import annotations

from types import ModuleType
from typing import Iterable, Sequence, Union

import torch
from torch import Tensor

from pyg_emu.core.interaction import Interaction
from pyg_emu.core.sharded_table import ShardedTable

#: The maximum size in bytes of the scores of one block of queries, unless its number of queries is given. A backend may
#: have its own.
BLOCK_BYTES = 64 * 2**20
#: The maximum size in bytes of the scores of one part of a table whose scores would take more.
PART_BYTES = 16 * 2**20
_LEAST_ROWS = 1024


def parts_of(module: ModuleType, rows: Tensor, num_queries: int) -> Sequence[Tensor]:
    r"""The parts of a table that are scored one after another, the whole of it where the scores of all queries fit into
    a block.

    With few queries in a block, reading the table takes longer than scoring it. Where the scores of a block take more
    than its :obj:`BLOCK_BYTES`, a backend that is :obj:`EXACT` therefore scores its queries against parts of the table.

    Args:
        module (module): The backend.
        rows (torch.Tensor): The table. shape: :obj:`(V, d)`.
        num_queries (int): The number of queries.
    """
    column = num_queries * rows.element_size()
    if not module.EXACT or column * rows.size(0) <= module.BLOCK_BYTES:
        return [rows]
    return rows.split(max(_LEAST_ROWS, PART_BYTES // column))


def count(module: ModuleType, table: Union[Tensor, ShardedTable], rows: Tensor, query: Tensor, row: Tensor,
          target: Tensor, ptr: Tensor, index: Tensor, interaction: Interaction) -> tuple[Tensor, ...]:
    r"""Computes counts as :func:`pyg_emu.ops.rank_counts.torch.count` does, for the whole table.

    Processes that divide the rows count among their own, and exchange the scores of targets and the counts.

    Args:
        module (module): The backend.
        table (torch.Tensor or ShardedTable): The candidates. shape: :obj:`(V, d)`.
        rows (torch.Tensor): Those of this process. shape: :obj:`(V_w, d)`.
        query (torch.Tensor): The queries. shape: :obj:`(Q, interaction.query_width(d))`.
        row (torch.Tensor): The query of each target. shape: :obj:`(B,)`.
        target (torch.Tensor): The targets. shape: :obj:`(B,)`.
        ptr (torch.Tensor): The position of the first filtered id of each query. shape: :obj:`(Q + 1,)`.
        index (torch.Tensor): The filtered ids. shape: :obj:`(ptr[-1],)`.
        interaction (Interaction): The interaction :math:`\phi`.
    """
    shards = table if isinstance(table, ShardedTable) else None
    low = 0 if shards is None else shards.start
    # Without shards no mask, for whose size a GPU would have to wait.
    here: Union[slice, Tensor] = slice(None) if shards is None else shards.owns(target)
    own = rows.new_zeros(target.size(0))
    parts = parts_of(module, rows, query.size(0))
    scored: Iterable[Tensor]
    if len(parts) == 1:
        scores = module.score_block(query, rows, interaction)
        own[here] = scores[row[here], target[here] - low]
        scored = [scores]
    else:
        own[here] = _pairs(module, query, row[here], rows, target[here] - low, interaction, parts[0].size(0))
        scored = (module.score_block(query, part, interaction) for part in parts)
    own = own if shards is None else shards.sum(own)

    total = torch.zeros(4, target.size(0), dtype=torch.int64, device=target.device)
    for scores in scored:
        competitors = row, target, own, ptr, index
        if scores.size(1) < table.size(0):
            competitors = row, _within(target, low, scores.size(1)), own, *_filtered(ptr, index, low, scores.size(1))
        total += torch.stack([value.to(torch.int64) for value in module.count(scores, *competitors)])
        low += scores.size(1)
    total = total if shards is None else shards.sum(total)
    greater, equal, candidates, invalid = total
    return greater, equal, candidates, invalid > 0


def _pairs(module: ModuleType, query: Tensor, row: Tensor, rows: Tensor, index: Tensor, interaction: Interaction,
           size: int) -> Tensor:
    r"""The score of each query :obj:`row` and table row :obj:`index`, with the bits that all scores have."""
    found = [rows.new_empty(0)]
    for place in torch.arange(row.numel(), device=row.device).split(size):
        scores = module.score_block(query, rows[index[place]], interaction)
        found.append(scores[row[place], torch.arange(place.numel(), device=row.device)])
    return torch.cat(found)


def _within(target: Tensor, low: int, size: int) -> Tensor:
    r"""Targets by their place in a part, -1 for those in others."""
    return (target - low).masked_fill((target < low) | (target >= low + size), -1)


def _filtered(ptr: Tensor, index: Tensor, low: int, size: int) -> tuple[Tensor, Tensor]:
    r"""The filtered ids within a part, by their place in it."""
    kept = (index >= low) & (index < low + size)
    number = torch.cat([ptr.new_zeros(1), kept.cumsum(0)])
    return number[ptr], index[kept] - low

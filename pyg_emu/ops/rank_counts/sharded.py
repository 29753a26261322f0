r"""Counting competitors whose rows are divided among processes: scores of targets and counts are exchanged."""
from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from pyg_emu.core.sharded_table import ShardedTable


def count(module: ModuleType, table: ShardedTable, scores: Tensor, row: Tensor, target: Tensor, ptr: Tensor,
          index: Tensor) -> tuple[Tensor, ...]:
    r"""Computes counts as :func:`pyg_emu.ops.rank_counts.torch.count` does, in all processes.

    Args:
        module (module): The backend that counts.
        table (ShardedTable): The candidates. shape: :obj:`(V, d)`.
        scores (torch.Tensor): The scores of this process's candidates. shape: :obj:`(Q, V_w)`.
        row (torch.Tensor): The row of :obj:`scores` for each target. shape: :obj:`(B,)`.
        target (torch.Tensor): The targets among all candidates. shape: :obj:`(B,)`.
        ptr (torch.Tensor): The position of the first filtered id of each row. shape: :obj:`(Q + 1,)`.
        index (torch.Tensor): The filtered ids among all candidates. shape: :obj:`(ptr[-1],)`.
    """
    here, kept = table.owns(target), table.owns(index)
    local = (target - table.start).masked_fill(~here, -1)
    own = scores.new_zeros(target.size(0))
    own[here] = scores[row[here], local[here]]
    number = torch.cat([ptr.new_zeros(1), kept.cumsum(0)])
    counts = module.count(scores, row, local, table.sum(own), number[ptr], index[kept] - table.start)
    greater, equal, candidates, invalid = table.sum(torch.stack([value.to(torch.int64) for value in counts]))
    return greater, equal, candidates, invalid > 0

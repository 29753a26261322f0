r"""Scores of all relations between two entities, and the rank of the true one."""
from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

from pyg_emu.core.contract import Scorer
from pyg_emu.data.index import FactIndex
from pyg_emu.evaluation.candidates import rank_among
from pyg_emu.ops.rank_counts import BLOCK_BYTES, RankCounts, default_block_size

#: Scores (B, C) of relations between heads (B,) and tails (B,).
RelationScores = Callable[[Tensor, Tensor], Tensor]

# Queries per block for a score function, whose memory use is unknown.
_MAX_FUNCTION_BATCH = 128


def scores_by_table(scorer: Scorer, table: Tensor, relations: Tensor) -> RelationScores:
    r"""Scores relations with a scorer. A relation is scored by predicting the tail, as in :meth:`forward`.

    Args:
        scorer (Scorer): The model.
        table (torch.Tensor): Its entity table. shape: :obj:`(V, d)`.
        relations (torch.Tensor): The relations. shape: :obj:`(C,)`.
    """
    size = max(1, BLOCK_BYTES // max(1, 8 * table.size(1)))

    def scores(head: Tensor, tail: Tensor) -> Tensor:
        # Every pair with every relation is a query for the tail, of which one answer is read.
        rows = (head.repeat_interleave(relations.numel()), relations.repeat(head.numel()),
                tail.repeat_interleave(relations.numel()))
        parts = [scorer.score(scorer.query(known, rel_type, 'tail'), table[target])
                 for known, rel_type, target in zip(*(column.split(size) for column in rows))]
        return torch.cat(parts).view(head.numel(), relations.numel())

    return scores


def scores_by_function(score_all: Callable[[Tensor, Tensor], Tensor], num_nodes: int, relations: Tensor
                       ) -> RelationScores:
    r"""Scores relations with a function that scores all tails. Pairs with the same head share its calls.

    Args:
        score_all (callable): Returns the scores :obj:`(B, V)` of all tails of heads :obj:`(B,)` and relations
            :obj:`(B,)`.
        num_nodes (int): The number of entities :obj:`V`.
        relations (torch.Tensor): The relations. shape: :obj:`(C,)`.
    """
    size = min(_MAX_FUNCTION_BATCH, default_block_size(num_nodes, 8))

    def scores(head: Tensor, tail: Tensor) -> Tensor:
        known, which = torch.unique(head, return_inverse=True)
        which, order = which.sort(stable=True)
        found = None
        step = max(1, size // relations.numel())
        ends = torch.searchsorted(which, torch.arange(0, known.numel() + step, step, device=head.device)).tolist()
        for number, block in enumerate(known.split(step)):
            row = order[ends[number]:ends[number + 1]]
            place = which[ends[number]:ends[number + 1]] - number * step
            start = 0
            for part in relations.split(size):
                every = score_all(block.repeat_interleave(part.numel()), part.repeat(block.numel()))
                found = every.new_empty(head.numel(), relations.numel()) if found is None else found
                answers = every.view(block.numel(), part.numel(), num_nodes)[place, :, tail[row]]
                found[row, start:start + part.numel()] = answers
                start += part.numel()
        assert found is not None
        return found

    return scores


def rank_relations(scores: RelationScores, facts: Tensor, num_relations: int, known: Optional[FactIndex],
                   backend: Optional[str] = None) -> RankCounts:
    r"""Ranks the relation of each fact among all relations for the query :math:`(h, ?, t)`.

    Args:
        scores (callable): Scores all relations.
        facts (torch.Tensor): The facts. shape: :obj:`(B, 3)`.
        num_relations (int): The number of relations :obj:`R`.
        known (FactIndex, optional): Facts whose relations do not compete.
        backend (str, optional): See :func:`~pyg_emu.ops.rank_counts`. (default: :obj:`None`, by device)

    Raises:
        NaNScoreError: If a score is NaN.
    """
    head, relation, tail = facts.unbind(1)
    every = torch.arange(num_relations, device=facts.device)
    row = torch.arange(len(facts), device=facts.device)
    if known is None:
        allowed = torch.ones(len(facts), num_relations, dtype=torch.bool, device=facts.device)
    else:
        allowed = ~known.contains(head.unsqueeze(1), every, tail.unsqueeze(1))
        allowed[row, relation] = True
    found = scores(head, tail)
    # NaN of a relation that does not compete is an error all the same, as it is for entities.
    found = torch.where(found.isnan().any(1, keepdim=True), torch.nan, found)
    return rank_among(found, allowed, relation, None, None, row, backend)

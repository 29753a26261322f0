r"""The entities that compete in a ranking: the same for all queries, or those of the relation."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Mapping, Optional, Union

import torch
from torch import Tensor

from pyg_emu.data.candidates import Members, RelationCandidates, members
from pyg_emu.data.graph import KGData
from pyg_emu.ops.rank_counts import RankCounts, rank_from_scores

#: The argument :obj:`candidates` of rankings and predictions.
CandidateArgument = Union[Members, RelationCandidates, dict[str, Any]]


@dataclass(frozen=True)
class Candidates:
    r"""The entities that compete in a ranking.

    Args:
        index (torch.Tensor): The entities that are scored, ascending. shape: :obj:`(C,)`, int64.
        place (torch.Tensor): The position of each entity in :obj:`index`, or -1 if it does not compete.
            shape: :obj:`(V,)`, int64.
        sets (RelationCandidates, optional): Those of each relation, if the relation decides. (default: :obj:`None`)
    """
    index: Tensor
    place: Tensor
    sets: Optional[RelationCandidates] = None

    @classmethod
    def of(cls, value: Optional[CandidateArgument], data: KGData) -> Optional[Candidates]:
        r"""Reads the argument :obj:`candidates`; :obj:`None` stands for all entities.

        Args:
            value (str or int or sequence or RelationCandidates or dict, optional): Labels or ids, or a mask, see
                :func:`~pyg_emu.data.candidates.members`; or sets for each relation, or what describes them, see
                :meth:`RelationCandidates.from_dict() <pyg_emu.RelationCandidates.from_dict>`.
            data (KGData): The entities and their labels.
        """
        if value is None:
            return None
        if isinstance(value, Mapping):
            value = RelationCandidates.from_dict(value, data)
        if isinstance(value, RelationCandidates):
            value.check('candidates', data)
            everyone = torch.arange(data.num_nodes or 0, device=data.device)
            return cls(everyone, everyone, value)
        index = members('candidates', value, data, 'entity')
        place = torch.full((data.num_nodes or 0,), -1, device=index.device)
        place[index] = torch.arange(index.numel(), device=index.device)
        return cls(index, place)

    def contains(self, entity: Tensor, rel_type: Tensor, side: Literal['tail', 'head']) -> Tensor:
        r"""Whether each entity competes for a query of its relation. dtype: bool."""
        return self.place[entity] >= 0 if self.sets is None else self.sets.contains(entity, rel_type, side)

    def filter(self, ptr: Tensor, index: Tensor, rel_type: Tensor, side: Literal['tail', 'head']
               ) -> tuple[Tensor, Tensor]:
        r"""The rows of a :class:`~pyg_emu.data.index.Ragged` without entities that do not compete, as positions in
        :obj:`index`.

        Args:
            ptr (torch.Tensor): The first position of each row. shape: :obj:`(B + 1,)`.
            index (torch.Tensor): The entities.
            rel_type (torch.Tensor): The relation of each row. shape: :obj:`(B,)`.
            side (str): The predicted side.
        """
        kept = self.contains(index, torch.repeat_interleave(rel_type, ptr[1:] - ptr[:-1]), side)
        total = torch.cat([ptr.new_zeros(1), kept.cumsum(0)])
        return total[ptr], self.place[index[kept]]

    def __str__(self) -> str:
        return f'{self.index.numel()} of {self.place.numel()} entities' if self.sets is None else 'by relation'


def rank_among(scores: Tensor, allowed: Tensor, target: Tensor, ptr: Optional[Tensor], index: Optional[Tensor],
               row: Tensor, backend: Optional[str] = None) -> RankCounts:
    r"""Ranks targets among the columns of their row that are allowed. Scores of others may be anything, also NaN.

    Args:
        scores (torch.Tensor): The scores of all columns, which are not modified. shape: :obj:`(Q, C)`.
        allowed (torch.Tensor): True where a column competes. shape: :obj:`(Q, C)`, bool.
        target (torch.Tensor): The columns to rank, which are allowed. shape: :obj:`(B,)`.
        ptr (torch.Tensor, optional): The first filtered column of each row, see :func:`~pyg_emu.ops.rank_counts`.
        index (torch.Tensor, optional): The filtered columns, all of which are allowed.
        row (torch.Tensor): The row of each target, ascending. shape: :obj:`(B,)`.
        backend (str, optional): See :func:`~pyg_emu.ops.rank_counts`. (default: :obj:`None`, by device)
    """
    scores = scores.masked_fill(~allowed, -torch.inf)
    greater, equal, candidates = rank_from_scores(scores, target, ptr, index, row=row, backend=backend)
    excluded = (allowed.size(1) - allowed.sum(1))[row]
    # They score less than any target, or the same as a target of -inf, and were counted as competitors.
    return RankCounts(greater, torch.where(scores[row, target] == -torch.inf, equal - excluded, equal),
                      candidates - excluded)

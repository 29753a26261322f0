r"""Scores of the training facts, summed up by pattern: what the model gives to the positives that share a query."""
from __future__ import annotations

from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor
from torch_geometric.utils import segment

from pyg_emu.core.contract import Scorer, Side
from pyg_emu.core.errors import CheckpointError
from pyg_emu.data.index import FactIndex
from pyg_emu.ops import emu_score

#: Bytes that the queries of a chunk may take while facts are scored, and facts that are scored with one of them.
_BYTES, _COLUMNS = 2**22, 4


class Patterns(NamedTuple):
    r"""The patterns of a graph's facts, equation 7 of the DeMix paper: each :math:`(h, r)`, whose positives are tails,
    and each :math:`(r, t)`, whose positives are heads.

    Args:
        index (FactIndex): The facts.
        number (torch.Tensor): The distinct patterns as :meth:`FactIndex.pattern` numbers them, ascending.
            shape: :obj:`(P,)`, int64.
        ptr (torch.Tensor): The facts of pattern :obj:`i` are :obj:`index.keys[ptr[i]:ptr[i + 1]]`.
            shape: :obj:`(P + 1,)`, int64.
    """
    index: FactIndex  # type: ignore[assignment]  # shadows tuple.index
    number: Tensor
    ptr: Tensor

    @classmethod
    def of(cls, index: FactIndex) -> Patterns:
        r"""The patterns of the facts of an index."""
        number, count = torch.unique_consecutive(index.unpacked(index.keys)[0], return_counts=True)
        return cls(index, number, torch.cat([count.new_zeros(1), count.cumsum(0)]))

    def rows(self, known: Tensor, rel_type: Tensor, side: Side) -> Tensor:
        r"""The place of each pattern in :attr:`number`, or :obj:`P` where no fact has the pattern. shape: :obj:`(B,)`.

        Args:
            known (torch.Tensor): The known entities. shape: :obj:`(B,)`.
            rel_type (torch.Tensor): The relations. shape: :obj:`(B,)`.
            side (str or torch.Tensor): As in :meth:`FactIndex.pattern`.
        """
        number = self.index.pattern(known, rel_type, side)
        if self.number.numel() == 0:
            return torch.zeros_like(number)
        row = torch.searchsorted(self.number, number)
        found = self.number[row.clamp(max=self.number.numel() - 1)] == number
        return torch.where(found, row, self.number.numel())

    def entities(self) -> Tensor:
        r"""The positive of each fact, in the order of :attr:`FactIndex.keys`. shape: :obj:`(2F,)`."""
        return self.index.keys % max(self.index.num_nodes, 1)


class PatternScores(NamedTuple):
    r"""Scores of the positives by pattern. There is a row for each pattern and a last one for patterns without a fact.

    Args:
        count (torch.Tensor): The number of facts. shape: :obj:`(P + 1,)`, int64.
        low (torch.Tensor): The smallest score. shape: :obj:`(P + 1,)`.
        mean (torch.Tensor): The mean score. shape: :obj:`(P + 1,)`.
        near (torch.Tensor): Whether the score of a fact is at most the mean of its pattern, equation 10.
            shape: :obj:`(2F,)`, boolean.
        pool (torch.Tensor): The positives of these facts, pattern by pattern, each ascending. shape: :obj:`(K,)`.
        key (torch.Tensor): Their keys in :attr:`FactIndex.keys`. shape: :obj:`(K,)`.
        first (torch.Tensor): Where the pool of each pattern begins. shape: :obj:`(P + 1,)`, int64.
        size (torch.Tensor): The size of the pool of each pattern. shape: :obj:`(P + 1,)`, int64.
    """
    count: Tensor  # type: ignore[assignment]  # shadows tuple.count
    low: Tensor
    mean: Tensor
    near: Tensor
    pool: Tensor
    key: Tensor
    first: Tensor
    size: Tensor

    @classmethod
    def of(cls, patterns: Patterns, scorer: Scorer) -> PatternScores:
        r"""Scores all facts on both sides with the model as it is.

        Facts are scored in chunks, so that no tensor has a vector for each fact.

        Args:
            patterns (Patterns): The patterns.
            scorer (Scorer): The model.
        """
        with torch.no_grad():
            score = score_facts(patterns, scorer)
            low, mean = (segment(score, patterns.ptr, reduce) for reduce in ('min', 'mean'))
            # A mean of equal scores can be rounded to less than each of them, which would leave the pool empty.
            mean = torch.maximum(low, mean)
            near = score <= mean.repeat_interleave(patterns.ptr.diff(), output_size=score.numel())
        return cls.restored(patterns, low, mean, near)

    @classmethod
    def restored(cls, patterns: Patterns, low: Tensor, mean: Tensor, near: Tensor) -> PatternScores:
        r"""The scores of a checkpoint.

        Args:
            patterns (Patterns): The patterns.
            low (torch.Tensor): The smallest scores of the patterns. shape: :obj:`(P,)`.
            mean (torch.Tensor): The mean scores. shape: :obj:`(P,)`.
            near (torch.Tensor): See above. shape: :obj:`(2F,)`.

        Raises:
            CheckpointError: If they are those of other facts.
        """
        size = patterns.number.numel()
        expected = {'low': size, 'mean': size, 'near': patterns.index.keys.numel()}
        device = patterns.number.device
        for name, value in (('low', low), ('mean', mean), ('near', near)):
            if not isinstance(value, Tensor) or tuple(value.shape) != (expected[name], ):
                found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise CheckpointError(f"the mutation's state holds {name} of shape {found}, the facts of this graph "
                                      f'need ({expected[name]},)')
        low, mean, near = low.to(device), mean.to(device), near.to(device)
        place = near.nonzero().squeeze(1)
        before = torch.cat([place.new_zeros(1), near.cumsum(0)])[patterns.ptr]
        # The last row is that of patterns without a fact. It has no pool, and no score is in its range.
        none = patterns.ptr.new_zeros(1)
        return cls(torch.cat([patterns.ptr.diff(), none]), torch.cat([low, low.new_full((1, ), torch.inf)]),
                   torch.cat([mean, mean.new_full((1, ), -torch.inf)]), near, patterns.entities()[place],
                   patterns.index.keys[place], torch.cat([before[:-1], none]), torch.cat([before.diff(), none]))

    def saved(self) -> dict[str, Any]:
        r"""What :meth:`restored` needs."""
        return {'low': self.low[:-1], 'mean': self.mean[:-1], 'near': self.near}


def score_facts(patterns: Patterns, scorer: Scorer, chunk: Optional[int] = None) -> Tensor:
    r"""The score of each fact, in the order of :attr:`FactIndex.keys`: as a prediction of its tail, then as one of its
    head. At least in single precision. shape: :obj:`(2F,)`.

    Args:
        patterns (Patterns): The patterns.
        scorer (Scorer): The model.
        chunk (int, optional): Queries that are scored at once. (default: as many as fit into 4 MiB)
    """
    index, table = patterns.index, scorer.entity_table()
    # Facts of a pattern share a query. Each row holds some of them; the last row of a pattern is filled up with others.
    count = patterns.ptr.diff()
    rows = torch.div(count + _COLUMNS - 1, _COLUMNS, rounding_mode='floor')
    row = torch.repeat_interleave(rows)
    first = rows.cumsum(0) - rows
    column = torch.arange(_COLUMNS, device=row.device)
    # Patterns of tails stand before those of heads.
    num_relations = max(index.num_relations, 1)
    tails = torch.searchsorted(patterns.number, index.num_nodes * num_relations)
    num_tails = int(rows[:int(tails)].sum())
    chunk = max(_BYTES // max(table[:1].nbytes, 1), 1) if chunk is None else chunk
    found = []
    for side, begin, end, offset in (('tail', 0, num_tails, 0), ('head', num_tails, row.numel(), index.num_nodes)):
        for start in range(begin, end, chunk):
            # All else is computed for a chunk, in memory that the next one uses again.
            part = row[start:min(start + chunk, end)]
            turn = torch.arange(start, start + part.numel(), device=row.device) - first[part]
            place = (patterns.ptr[part] + turn * _COLUMNS).unsqueeze(1) + column
            own = place < patterns.ptr[part + 1].unsqueeze(1)
            number = patterns.number[part]
            known = torch.div(number, num_relations, rounding_mode='floor')
            query = scorer.query(known - offset, number - known * num_relations, side)  # type: ignore[arg-type]
            ids = index.keys[place.clamp_(max=index.keys.numel() - 1)] % max(index.num_nodes, 1)
            score = emu_score(query, table[:1].expand(query.size(0), -1), table, ids,
                              interaction=scorer.interaction).vanilla
            assert score is not None
            found.append(score[own].to(torch.promote_types(score.dtype, torch.float32)))
    return torch.cat(found) + scorer.offset if found else table.new_empty(0)

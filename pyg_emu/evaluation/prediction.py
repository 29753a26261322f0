r"""The best answers to queries in labels: tails of (head, relation), heads of (relation, tail), or relations between a
head and a tail.
"""
from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Literal, Optional, Union, cast

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from pyg_emu.core.arguments import boolean, one_of, positive_integer
from pyg_emu.core.contract import Scorer
from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError, DivergenceError, OutOfMemoryError
from pyg_emu.core.memory import is_out_of_memory, memory_reported, release_memory
from pyg_emu.core.modes import evaluating
from pyg_emu.core.sharded_table import ShardedTable
from pyg_emu.data.candidates import Names, RelationCandidates, ids_of, members
from pyg_emu.data.checks import SIZES, check_sizes
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.data.io.given import FactSource, known_facts_of
from pyg_emu.evaluation.candidates import CandidateArgument, Candidates
from pyg_emu.evaluation.ranking import (
    LARGEST_BLOCK,
    MEMORY_REMEDY,
    ScoreFunction,
    SideName,
    check_graph,
    queries_per_block,
    question_name,
    relation_scores,
    scorer_of,
    scores_of,
    table_of,
    whole_table,
)
from pyg_emu.ops.backend import BACKENDS
from pyg_emu.ops.rank_counts import default_block_size, score_parts

Column = Literal['head', 'relation', 'tail']

# The number of scores in a group. The search for a bound reads only the maximum of each group.
_GROUP = 64
# The maximum size in bytes of the best answers of a block of queries.
_BEST_BYTES = 64 * 2**20


class Predictions(pd.DataFrame):
    r"""The answers that :func:`predict` returns: a :class:`pandas.DataFrame` with the columns :obj:`head`,
    :obj:`relation`, :obj:`tail`, :obj:`rank`, :obj:`score` and :obj:`known`.

    Three of these names are methods of a DataFrame, too. Here, attribute access returns the column, as it does for all
    other columns, and the column can be called like the method:

    .. code-block:: python

        answers['tail'], answers.tail    # the column
        answers.tail(3)                  # the last three rows
    """
    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return Predictions

    @property  # type: ignore[misc]
    def head(self) -> Any:
        r"""The column, or the method :meth:`pandas.DataFrame.head` if it is called."""
        return self._column('head')

    @property  # type: ignore[misc]
    def tail(self) -> Any:
        r"""The column, or the method :meth:`pandas.DataFrame.tail` if it is called."""
        return self._column('tail')

    @property  # type: ignore[misc]
    def rank(self) -> Any:
        r"""The column, or the method :meth:`pandas.DataFrame.rank` if it is called."""
        return self._column('rank')

    def _column(self, name: str) -> Any:
        method = getattr(super(), name)
        if name not in self.columns:
            return method
        column = _MethodColumn(self[name])
        object.__setattr__(column, '_method', method)
        return column


class _MethodColumn(pd.Series):
    r"""A column that shares its name with a method of its table, which it runs when called."""
    @property
    def _constructor(self) -> Callable[..., pd.Series]:
        return pd.Series

    def __reduce__(self) -> Any:
        return pd.Series, (pd.Series(self),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(*args, **kwargs)


def predict(
    model: Union[Scorer, torch.nn.Module, ScoreFunction],
    data: KGData,
    heads: Optional[Names] = None,
    relations: Optional[Names] = None,
    tails: Optional[Names] = None,
    k: int = 10,
    exclude_known: bool = False,
    *,
    known_facts: Optional[FactSource] = None,
    candidates: Optional[CandidateArgument] = None,
    batch_size: Optional[int] = None,
    backend: Optional[str] = None,
    progress: bool = False,
) -> Predictions:
    r"""Ranks the answers to queries. Two of :obj:`heads`, :obj:`relations` and :obj:`tails` are given; the third is
    predicted.

    .. code-block:: python

        data = load_dataset('UMLS')
        predict(model, data, heads='virus', relations='causes', k=3)                                     # tails
        predict(model, data, relations='causes', tails=['disease_or_syndrome', 'injury_or_poisoning'])   # heads
        predict(model, data, heads='virus', tails='human')                                               # relations
        predict(model, data, heads='virus', relations='causes', candidates=['human', 'mammal'])

    A relation is scored by predicting the tail, as in :meth:`forward`. Blocks of scores that do not fit into memory are
    split into smaller ones. On the CPU, a large table is read once for many queries, part by part.

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The labels and the known facts, on the device of the model.
        heads (str or int or sequence, optional): The known heads, labels or ids. If the labels are integers, integers
            are labels, and ids are given as a tensor. (default: :obj:`None`)
        relations (str or int or sequence, optional): The known relations, labels or ids. (default: :obj:`None`)
        tails (str or int or sequence, optional): The known tails, labels or ids. (default: :obj:`None`)
        k (int, optional): Number of answers per query. (default: :obj:`10`)
        exclude_known (bool, optional): Whether to leave out answers that are facts of any split or of
            :obj:`known_facts`. (default: :obj:`False`)
        known_facts (torch.Tensor or pandas.DataFrame or str, optional): Further known facts, see
            :func:`~pyg_emu.evaluate`. (default: :obj:`None`)
        candidates (sequence or RelationCandidates or dict, optional): The answers that are considered: labels or ids,
            or a boolean mask over all entities (over all relations, if relations are predicted); or a
            :class:`~pyg_emu.RelationCandidates` with those of each relation, or a dictionary that describes one, such
            as :obj:`{"seen": "train"}`. No other answer is returned. (default: :obj:`None`, all)
        batch_size (int, optional): Number of queries per block of scores. (default: :obj:`None`, as many as fit into
            64 MiB; where the Numba backend scores all entities, as many as fit into 24 MiB, and at least 256)
        backend (str, optional): The backend of :func:`~pyg_emu.ops.score_entities`. (default: :obj:`None`, by device)
        progress (bool, optional): Whether to show a progress bar of the queries. (default: :obj:`False`)

    The two known arguments have the same length, or one of them has length 1 and goes with every value of the other.

    Returns:
        Predictions: A :class:`pandas.DataFrame` with one row per answer, the best first for each query: :obj:`head`,
        :obj:`relation` and :obj:`tail` (labels, or ids if there are none), :obj:`rank` from 1, :obj:`score`, and
        :obj:`known`: the first split that contains the fact, :obj:`"given"` if only :obj:`known_facts` contain it, or
        an empty string. All values of :obj:`known` are missing if neither :obj:`data` nor :obj:`known_facts` contains
        facts. Equal scores are ordered by id.

    Raises:
        ArgumentError: If an argument is outside its domain, or the sizes of the model do not match the data.
        DataError: If a label does not exist; names the most similar label.
        DivergenceError: If a score is NaN; names the query.
        OutOfMemoryError: If a single query does not fit into memory.
    """
    check_graph(data)
    given: dict[Column, Any] = {'head': heads, 'relation': relations, 'tail': tails}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) != 1:
        names = [f'{name}s' for name in given if name not in missing]
        raise ArgumentError('heads, relations, tails: expected two of the three, the third is predicted; got '
                            f'{", ".join(names) or "none"}')
    asked = missing[0]
    k = positive_integer('k', k)
    if batch_size is not None:
        batch_size = min(int(positive_integer('batch_size', batch_size)), LARGEST_BLOCK)
    if backend is not None:  # of which no operator is told where relations are predicted
        one_of('backend', backend, BACKENDS)
    exclude_known, progress = boolean('exclude_known', exclude_known), boolean('progress', progress)
    if exclude_known and known_facts is None and data.num_facts('all') == 0:
        raise ArgumentError('exclude_known: the data holds no facts, so that none is known; pass data with facts, or '
                            'known_facts')
    given_known = known_facts_of(known_facts, data)
    extra = None if given_known is None else FactIndex(given_known, data.num_nodes or 0, data.num_relations)
    with memory_reported('the prediction', MEMORY_REMEDY):
        known = {name: ids_of(f'{name}s', value, data, 'relation' if name == 'relation' else 'entity')
                 for name, value in given.items() if name != asked}
        (first, one), (second, other) = known.items()
        if one.numel() != other.numel() and 1 not in (one.numel(), other.numel()):
            raise ArgumentError(f'{first}s, {second}s: expected the same number of values, or one value, got '
                                f'{one.numel()} and {other.numel()}')
        one, other = (part.contiguous() for part in torch.broadcast_tensors(one, other))
        answers, sets = _answers(candidates, data, asked)
        bar = tqdm(total=one.numel(), desc='predicting', unit='query', disable=not progress or current()[0] > 0)
        with evaluating(model), torch.no_grad(), bar:
            scores, answers, shards, size = _make_scores(model, data, asked, answers, sets is not None, backend)
            job = _Job(scores, data, asked, answers, sets, k, exclude_known, extra, shards, bar.update)
            size = batch_size or min(size, max(1, _BEST_BYTES // (16 * k)))
            columns = [job.best(*part) for part in zip(one.split(size), other.split(size))]
        return _frame(data, extra, *(torch.cat(parts) for parts in zip(*columns)))


# Scores (Q, C_i) of the answers to queries, part by part. The two known columns (Q,) are in the order of a fact.
_Scores = Callable[[Tensor, Tensor], Iterable[Tensor]]


def _answers(candidates: Optional[CandidateArgument], data: KGData, asked: Column
             ) -> tuple[Optional[Tensor], Optional[RelationCandidates]]:
    r"""The ids that are considered, and the sets of each relation."""
    if candidates is None:
        return None, None
    if asked == 'relation':
        if isinstance(candidates, (RelationCandidates, dict)):
            raise ArgumentError('candidates: expected relations, since relations are predicted, got sets of entities '
                                'for each relation')
        return members('candidates', candidates, data, 'relation'), None
    competing = Candidates.of(candidates, data)
    assert competing is not None
    return (competing.index, None) if competing.sets is None else (None, competing.sets)


def _make_scores(model: Any, data: KGData, asked: Column, answers: Optional[Tensor], whole: bool,
                 backend: Optional[str]) -> tuple[_Scores, Optional[Tensor], Optional[ShardedTable], int]:
    r"""A function that scores answers, the answers that it scores in this process, the table whose processes score the
    others, and the number of queries in a block; with :obj:`whole`, all answers are scored here.
    """
    scorer = scorer_of(model, data)
    check_sizes(model if scorer is None else scorer, data, equal=SIZES)
    num_nodes = data.num_nodes or 0
    if asked == 'relation':
        scores = _relation_scores(model, scorer, data, answers)
        return lambda one, other: [scores(one, other)], answers, None, default_block_size(data.num_relations, 8)
    side: SideName = 'tail' if asked == 'tail' else 'head'
    if scorer is None:
        def scores_of_function(one: Tensor, other: Tensor) -> Iterable[Tensor]:
            known, rel_type = (one, other) if side == 'tail' else (other, one)
            found = scores_of(cast(ScoreFunction, model), known, rel_type, side, num_nodes)
            return [found if answers is None else found.index_select(1, answers)]

        return scores_of_function, answers, None, default_block_size(num_nodes, 8)

    table = (whole_table if whole else table_of)(scorer, data)
    table = table if answers is None else table.index_select(0, answers)
    shards, most = None, table.size(0)
    if isinstance(table, ShardedTable):
        shards, most = table, table.most_rows
        table = shards.rows
        everyone = torch.arange(shards.num_rows, device=data.device) if answers is None else answers
        answers = everyone[shards.start:shards.start + table.size(0)]

    def scores_of_table(one: Tensor, other: Tensor) -> Iterable[Tensor]:
        query = scorer.query(*((one, other) if side == 'tail' else (other, one)), side)
        if table.size(0) == 0:  # of this process
            return [query.new_empty(query.size(0), 0, dtype=torch.promote_types(query.dtype, table.dtype))]
        parts = score_parts(query, table, interaction=scorer.interaction, backend=backend)
        return (scorer.offset + part for part in parts)

    size = default_block_size(most, 8) if whole else queries_per_block(scorer, table, most, backend)
    return scores_of_table, answers, shards, size


def _relation_scores(model: Any, scorer: Optional[Scorer], data: KGData,
                     answers: Optional[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    relations = torch.arange(data.num_relations, device=data.device) if answers is None else answers
    return relation_scores(model, scorer, data, relations)


@dataclass
class _Job:
    r"""Everything that the blocks of a prediction share."""
    scores: _Scores
    data: KGData
    asked: Column
    answers: Optional[Tensor]
    sets: Optional[RelationCandidates]
    k: int
    exclude_known: bool
    extra: Optional[FactIndex]
    #: Set if each process has answers of its own. Then all of them answer the same queries.
    shards: Optional[ShardedTable]
    #: Called with the number of queries that have been answered.
    answered: Callable[[int], Any]

    def best(self, one: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        r"""Head, relation, tail, rank and score of each answer, query by query; in parts if memory does not suffice."""
        try:
            best = self._best(one, other)
            self.answered(one.numel())
            return best
        except Exception as error:
            if not is_out_of_memory(error) or self.shards is not None:
                raise
        # Outside of the handler, since the exception keeps the tensors of the failed attempt alive.
        release_memory()
        half = one.numel() // 2
        if half == 0:
            raise OutOfMemoryError(f'answering the single query {self._name(one, other, 0)} needs more memory than is '
                                   f'available; {MEMORY_REMEDY}')
        parts = [self.best(one[part], other[part]) for part in (slice(half), slice(half, None))]
        return tuple(torch.cat(columns) for columns in zip(*parts))

    def _best(self, one: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        allowed = None
        if self.sets is not None and self.asked != 'relation':
            allowed = self.sets.allowed(other if self.asked == 'tail' else one, self.asked)
        excluded = self._known(one, other) if self.exclude_known else None
        invalid = torch.zeros_like(one, dtype=torch.bool)
        best, start = None, 0
        for scores in self.scores(one, other):
            scores = scores if scores.is_floating_point() else scores.double()
            stop = start + scores.size(1)
            keep = None if allowed is None else allowed[:, start:stop]
            if keep is not None:
                # Whoever is no candidate may score NaN.
                scores = scores.masked_fill(~keep, -torch.inf)
            invalid |= scores.isnan().any(1)
            if excluded is not None:
                query, column = excluded
                low, high = torch.searchsorted(column, torch.tensor([start, stop], device=column.device)).tolist()
                keep = torch.ones_like(scores, dtype=torch.bool) if keep is None else keep.clone()
                keep[query[low:high], column[low:high] - start] = False
            part = _spread(*_best(scores, keep, self.k), scores, start)
            best = part if best is None else _merged(torch.cat([best[0], part[0]], 1), torch.cat([best[1], part[1]], 1),
                                                     self.k)
            start = stop
        if self.shards is not None:
            invalid = self.shards.largest(invalid.to(torch.uint8)) > 0
        if bool(invalid.any()):
            raise DivergenceError(f'the scores of {self._name(one, other, int(invalid.nonzero()[0, 0]))} contain NaN '
                                  'and cannot be ranked')
        assert best is not None
        score, column = best
        found = column if self.answers is None else torch.where(column < 0, -1, self.answers[column])
        if self.shards is not None:
            score, found = self._of_all(score, found)
        query, place = (found >= 0).nonzero().unbind(1)
        columns = [one[query], other[query]]
        columns.insert(('head', 'relation', 'tail').index(self.asked), found[query, place])
        return *columns, place + 1, score[query, place]

    def _of_all(self, score: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        r"""The best of the answers that are the best in each process."""
        assert self.shards is not None
        missing = min(self.k, self.shards.most_rows) - score.size(1)
        score, found = F.pad(score, (0, missing), value=-math.inf), F.pad(found, (0, missing), value=-1)
        return _merged(self.shards.join(score), self.shards.join(found), self.k)

    def _known(self, one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        r"""Query and column of the answers that are facts of any split, by column."""
        indices = [self.data.fact_index('all'), *([] if self.extra is None else [self.extra])]
        if self.asked == 'relation':
            answers = torch.arange(self.data.num_relations, device=one.device)
            answers = answers if self.answers is None else self.answers
            found = torch.stack([index.contains(one.unsqueeze(1), answers, other.unsqueeze(1)) for index in indices])
            column, query = found.any(0).T.nonzero().unbind(1)
            return query, column
        known, rel_type = (one, other) if self.asked == 'tail' else (other, one)
        facts = [index.known(known, rel_type, self.asked) for index in indices]
        query = torch.cat([torch.repeat_interleave(ptr.diff()) for ptr, _ in facts])
        entity = torch.cat([entity for _, entity in facts])
        entity, order = entity.sort()
        query = query[order]
        if self.answers is None:
            return query, entity
        listed = torch.isin(entity, self.answers)
        return query[listed], torch.searchsorted(self.answers, entity[listed])

    def _name(self, one: Tensor, other: Tensor, row: int) -> str:
        if self.asked != 'relation':
            known, rel_type = (one, other) if self.asked == 'tail' else (other, one)
            return question_name(self.data, known, rel_type, self.asked, row)
        return question_name(self.data, one, other, 'relation', row)


def _best(scores: Tensor, keep: Optional[Tensor], k: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Query, column and rank of the :obj:`k` highest scores of each query that are kept, in the order of queries and
    ranks. Equal scores are ordered by column, which :func:`torch.topk` does not do.
    """
    if 4 * k < scores.size(1):
        most = scores if keep is None else scores.masked_fill(~keep, -torch.inf)
        wanted = most >= _bound(most, k).unsqueeze(1)
        wanted = wanted if keep is None else wanted & keep
        # With many equal scores, sorting all of them is faster.
        if 4 * int(wanted.sum()) < wanted.numel():
            query, column = wanted.nonzero().unbind(1)
            order = scores[query, column].argsort(descending=True, stable=True)
            order = order[query[order].argsort(stable=True)]
            query, column = query[order], column[order]
            rank = torch.arange(1, query.numel() + 1, device=query.device) - torch.searchsorted(query, query)
            best = rank <= k
            return query[best], column[best], rank[best]
    order = scores.argsort(dim=1, descending=True, stable=True)
    kept = torch.ones_like(order, dtype=torch.bool) if keep is None else keep.gather(1, order)
    ranks = kept.cumsum(1)
    query, place = (kept & (ranks <= k)).nonzero().unbind(1)
    return query, order[query, place], ranks[query, place]


def _bound(scores: Tensor, k: int) -> Tensor:
    r"""A number for each query that at least :obj:`k` of its scores reach, and few others unless many are equal. Each
    of the :obj:`k` groups with the largest maxima has a score that reaches the smallest of these maxima.

    Args:
        scores (torch.Tensor): More than :obj:`k` scores of each query. shape: :obj:`(Q, C)`.
        k (int): The number.
    """
    size = scores.size(1)
    if size // _GROUP >= 4 * k:
        whole = size - size % _GROUP
        groups = scores[:, :whole].unflatten(1, (-1, _GROUP)).amax(2)
        scores = torch.cat([groups, scores[:, whole:]], dim=1)
    return scores.topk(k, dim=1, sorted=False).values.amin(1)


def _spread(query: Tensor, column: Tensor, rank: Tensor, scores: Tensor, start: int) -> tuple[Tensor, Tensor]:
    r"""Scores and columns by query and rank, counted from :obj:`start`; -1 where a query has fewer. shape: two tensors
    :obj:`(Q, k)`, or with fewer columns if there are not so many.
    """
    shape = scores.size(0), int(rank.max()) if rank.numel() > 0 else 0
    place = query, rank - 1
    score = scores.new_full(shape, -math.inf).index_put(place, scores[query, column])
    return score, column.new_full(shape, -1).index_put(place, column + start)


def _merged(score: Tensor, found: Tensor, k: int) -> tuple[Tensor, Tensor]:
    r"""The best of several lists side by side, as :func:`_spread` returns them."""
    score, place = _spread(*_best(score, found >= 0, k), score, 0)
    return score, torch.where(place < 0, -1, found.gather(1, place.clamp(min=0)))


def _frame(data: KGData, extra: Optional[FactIndex], head: Tensor, relation: Tensor, tail: Tensor, rank: Tensor,
           score: Tensor) -> Predictions:
    known = pd.Series('', index=range(len(head)), dtype=object)
    if extra is None and data.num_facts('all') == 0:
        known[:] = None
    if extra is not None:
        known[extra.contains(head, relation, tail).cpu().numpy()] = 'given'
    for split in ('test', 'valid', 'train'):
        known[data.fact_index(split).contains(head, relation, tail).cpu().numpy()] = split
    return Predictions({
        'head': _names(head, data.entity_labels),
        'relation': _names(relation, data.relation_labels),
        'tail': _names(tail, data.entity_labels),
        'rank': rank.cpu().numpy(),
        'score': score.float().cpu().numpy() if score.dtype != torch.float64 else score.cpu().numpy(),
        'known': known,
    })


def _names(ids: Tensor, labels: Optional[list[str]]) -> Any:
    return ids.cpu().numpy() if labels is None else pd.array(labels, dtype=object).take(ids.cpu().numpy())

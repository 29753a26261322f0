r"""Filtered ranking of heads and tails in blocks of bounded memory."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Literal, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pyg_emu.core.arguments import boolean, one_of, positive_integer, positive_integers, random_seed
from pyg_emu.core.contract import Scorer, for_graph
from pyg_emu.core.distributed import current, shared_errors, sum_
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning, DivergenceError, OutOfMemoryError
from pyg_emu.core.memory import is_out_of_memory, memory_reported, release_memory
from pyg_emu.core.modes import evaluating
from pyg_emu.core.sharded_table import ShardedTable, rows_of
from pyg_emu.core.warn import warn
from pyg_emu.data.checks import SIZES, check_label_counts, check_sizes
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.data.io.given import FactSource, known_facts_of
from pyg_emu.data.relations import relation_kinds
from pyg_emu.evaluation.candidates import CandidateArgument, Candidates, rank_among
from pyg_emu.evaluation.metrics import TIES, Metrics, Ranks, Tie
from pyg_emu.evaluation.relations import RelationScores, rank_relations, scores_by_function, scores_by_table
from pyg_emu.ops.rank_counts import (
    NaNScoreError,
    RankCounts,
    default_block_size,
    rank_counts,
    rank_from_scores,
    ranking_block_size,
    score_entities,
)

SideName = Literal['tail', 'head']
#: What is predicted.
Asked = Literal['tail', 'head', 'relation']
#: Returns the scores :obj:`(B, num_nodes)` of all entities, given the known entities :obj:`(B,)`, the relations
#: :obj:`(B,)` and the predicted side, :obj:`"tail"` or :obj:`"head"`.
ScoreFunction = Callable[[Tensor, Tensor, SideName], Tensor]

# Queries per block for a score function, whose memory use is unknown.
_MAX_FUNCTION_BATCH = 128
#: More queries than any split has, and few enough to be added to other numbers.
LARGEST_BLOCK = 2**40
#: What to do if a single query does not fit into memory.
MEMORY_REMEDY = 'free memory, raise the limit of the process, or restrict candidates'


def evaluate(
    model: Union[Scorer, torch.nn.Module, ScoreFunction],
    data: KGData,
    split: Literal['train', 'valid', 'test'] = 'test',
    *,
    batch_size: Optional[int] = None,
    tie: Tie = 'realistic',
    sides: Union[Asked, Sequence[Asked]] = ('tail', 'head'),
    ks: Sequence[int] = (1, 3, 10),
    filter_splits: Union[None, str, Sequence[str]] = 'all',
    known_facts: Optional[FactSource] = None,
    candidates: Optional[CandidateArgument] = None,
    by: Optional[Literal['relation']] = None,
    max_triples: Optional[int] = None,
    seed: int = 0,
    num_negatives: Optional[int] = None,
    progress: bool = False,
    backend: Optional[str] = None,
) -> Metrics:
    r"""Ranks the true tail of each fact among all entities for the query :math:`(h, r, ?)`, and the true head for the
    query :math:`(?, r, t)`.

    In the filtered setting (the default), other answers that are facts do not compete. Facts that share a query are
    ranked with one row of scores. The model runs in evaluation mode and without gradients; its mode is restored
    afterwards. Several threads may evaluate one model at the same time, but none may train it meanwhile.

    If a block of scores does not fit into memory, it is split into smaller blocks.

    Inside :func:`~pyg_emu.process_group`, all processes have to call this function with the same arguments.
    Each process ranks its share and returns the metrics of all. If the entities of the model are divided among them
    (:func:`~pyg_emu.models.shard_entities`), each counts among its own entities, and counts are exchanged.

    .. code-block:: python

        metrics = evaluate(model, data, split='test')
        print(metrics)
        metrics['mrr'], metrics['tail.hits@10'], metrics['1-N.mrr']
        metrics.by('relation')                                                 # a DataFrame, a row for each relation
        evaluate(model, data, candidates=['aspirin', 'ibuprofen', 'insulin'])  # rank among drugs only
        evaluate(model, data, candidates=RelationCandidates.seen(data))        # among entities that fit the relation

    Args:
        model (Scorer or torch.nn.Module or callable): A :class:`~pyg_emu.Scorer`, one of PyG's KGE layers, or
            a function :obj:`(known, rel_type, side) -> scores` that returns the scores :obj:`(B, num_nodes)` of all
            entities.
        data (KGData): The facts, on the device of the model.
        split (str, optional): The facts to rank: :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`. (default:
            :obj:`"test"`)
        batch_size (int, optional): Number of queries per block of scores. The result does not depend on it.
            (default: :obj:`None`, as many as fit into 64 MiB; with the Numba backend into 24 MiB, and at least 256)
        tie (str, optional): The rank of a target among entities of exactly its score: :obj:`"optimistic"`,
            :obj:`"pessimistic"`, or the mean of the two (:obj:`"realistic"`). (default: :obj:`"realistic"`)
        sides (str or tuple of str, optional): What is predicted: :obj:`"tail"`, :obj:`"head"`, and :obj:`"relation"`,
            which ranks the true relation among all relations for the query :math:`(h, ?, t)`. Metrics over both sides
            do not include relations, unless nothing else is ranked. (default: :obj:`("tail", "head")`)
        ks (tuple of int, optional): The :math:`k` of Hits@k. (default: :obj:`(1, 3, 10)`)
        filter_splits (str or tuple of str, optional): The facts that do not compete: :obj:`"all"` (train, valid and
            test), one split or several, or :obj:`None` for the unfiltered setting. (default: :obj:`"all"`)
        known_facts (torch.Tensor or pandas.DataFrame or str, optional): Further facts that do not compete, beside those
            of :obj:`filter_splits`: ids of shape :obj:`(F, 3)`, a table, or a file of labels. Facts about other
            entities or relations than those of :obj:`data` are left out with a warning; facts that a column
            :obj:`label` marks as false raise an error. (default: :obj:`None`)
        candidates (sequence or RelationCandidates or dict, optional): The entities that compete: labels or ids, or a
            boolean mask of shape :obj:`(num_nodes,)`; or a :class:`~pyg_emu.RelationCandidates` with those of each
            relation, or a dictionary that describes one, such as :obj:`{"seen": "train"}`.
            Other entities are not counted, neither in ranks nor in metrics that depend on the number of competitors.
            Facts whose true answer is not a candidate are not ranked on that side; a warning and :obj:`metrics.info`
            give their number. (default: :obj:`None`, all entities)
        by (str, optional): :obj:`"relation"` adds a table with the metrics of each relation and their mean, the group
            :obj:`"macro"`. See :meth:`~pyg_emu.evaluation.Metrics.by`. (default: :obj:`None`)
        max_triples (int, optional): Rank a random subset of at most this many facts;
            :meth:`~pyg_emu.evaluation.Metrics.ranked` shows which ones. (default: :obj:`None`, all)
        seed (int, optional): Seed of the subset. (default: :obj:`0`)
        num_negatives (int, optional): Adds the expected Hits@10 against this many random negatives, see
            :func:`~pyg_emu.evaluation.metrics.expected_hits`. (default: :obj:`None`)
        progress (bool, optional): Whether to show a progress bar. (default: :obj:`False`)
        backend (str, optional): The backend of :func:`~pyg_emu.ops.rank_counts`. (default: :obj:`None`, by device)

    Returns:
        Metrics: Prints as a table and reads as a dictionary.

    Raises:
        ArgumentError: If an argument is outside its domain, or the sizes of the model do not match the data.
        DataError: If the split has no facts, or no fact with an answer among the candidates, or known facts cannot be
            read or are false.
        DivergenceError: If a score is NaN; names the query.
        OutOfMemoryError: If a single query does not fit into memory.
    """
    check_graph(data)
    one_of('split', split, SPLITS)
    boolean('progress', progress)
    checked = checked_settings({
        'sides': sides, 'tie': tie, 'ks': ks, 'filter_splits': filter_splits, 'candidates': candidates, 'by': by,
        'batch_size': batch_size, 'max_triples': max_triples, 'num_negatives': num_negatives, 'seed': seed})
    asked: Sequence[Asked] = checked['sides']
    ks, seed = checked['ks'], checked['seed']
    batch_size, max_triples, num_negatives = (
        checked[name] for name in ('batch_size', 'max_triples', 'num_negatives'))
    batch_size = None if batch_size is None else min(batch_size, LARGEST_BLOCK)
    extra = known_facts_of(known_facts, data)
    with memory_reported(f'ranking the {split} split', MEMORY_REMEDY):
        facts = _subset(data.facts(split), split, max_triples, seed)
        competing = Candidates.of(candidates, data)
        ranked = {side: _with_answer_in(competing, facts, side) for side in asked}
        info: dict[str, Any] = {'split': split, 'triples': facts.size(0), 'filtered by': _filter_name(filter_splits)}
        if competing is not None:
            info.update(_candidate_info(competing, facts, ranked, split))
        known = filter_index(data, filter_splits, extra)
        if extra is not None:
            info['filtered by'] += f' + {extra.size(0)} given facts'

        turns = _Turns()
        total = sum(part.size(0) for part in ranked.values())
        bar = tqdm(total=total, desc='ranking', disable=not progress or current()[0] > 0)
        with evaluating(model), torch.no_grad(), bar, shared_errors():
            # An encoder encodes the graph here, once.
            scorer = scorer_of(model, data)
            rank, block_size, turns = _make_ranker(model, scorer, data, competing, batch_size, backend)
            job = _Job(rank, block_size, data, known, competing, bar.update, turns, block_size)
            every = torch.arange(data.num_relations, device=data.device)
            counts = {side: job.rank_side(part, side) if side != 'relation' else
                      job.rank_relations(part, relation_scores(model, scorer, data, every), backend)
                      for side, part in ranked.items()}
        ranks = {str(side): Ranks(*turns.sum(columns)) for side, columns in counts.items()}
        kinds = relation_kinds(data.fact_index('train'))
        return Metrics(ranks, tie, ks, {str(side): kinds[part[:, 1]] for side, part in ranked.items()}, num_negatives,
                       info=info, facts={str(side): part for side, part in ranked.items()},
                       labels=(data.entity_labels, data.relation_labels), by=by)


def _subset(facts: Tensor, split: str, max_triples: Optional[int], seed: int) -> Tensor:
    if facts.size(0) == 0:
        raise DataError(f'split {split!r} has no facts to rank')
    if max_triples is None or max_triples >= facts.size(0):
        return facts
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(facts.size(0), generator=generator)[:max_triples].sort().values
    return facts[chosen.to(facts.device)]


def _with_answer_in(competing: Optional[Candidates], facts: Tensor, side: Asked) -> Tensor:
    r"""The facts whose true answer competes."""
    if competing is None:
        return facts
    assert side != 'relation'  # checked_settings() refuses candidates beside it
    head, relation, tail = facts.unbind(1)
    return facts[competing.contains(tail if side == 'tail' else head, relation, side)]


def _candidate_info(competing: Candidates, facts: Tensor, ranked: Mapping[Asked, Tensor], split: str) -> dict[str, str]:
    r"""What the title of the table says about candidates; warns of facts that are not ranked."""
    info = {'candidates': str(competing)}
    missing = {side: facts.size(0) - part.size(0) for side, part in ranked.items()}
    if not any(missing.values()):
        return info
    if all(part.size(0) == 0 for part in ranked.values()):
        raise DataError(f'candidates: none of the {facts.size(0)} facts of split {split!r} has its true answer among '
                        f'the candidates ({competing}), so there is nothing to rank')
    info['not ranked'] = ' and '.join(f'{number} {side}s' for side, number in missing.items() if number)
    warn(f'candidates: {info["not ranked"]} of the {facts.size(0)} facts of split {split!r} are not among the '
         'candidates and are not ranked', DataWarning)
    return info


def _filter_name(splits: Union[None, str, Sequence[str]]) -> str:
    return splits if isinstance(splits, str) else ' + '.join(splits or ()) or 'nothing'


def filter_index(data: KGData, splits: Union[None, str, Sequence[str]], extra: Optional[Tensor] = None
                 ) -> Optional[FactIndex]:
    r"""Returns the index of the facts of one or more splits, and of further facts.

    Args:
        data (KGData): The facts.
        splits (str or tuple of str, optional): :obj:`"all"`, one split, several splits, or :obj:`None`.
        extra (torch.Tensor, optional): Further facts. shape: :obj:`(F, 3)`. (default: :obj:`None`)
    """
    if extra is not None:
        # Not cached, because it belongs to a single call.
        named = () if splits is None else (splits,) if isinstance(splits, str) else tuple(splits)
        facts = torch.cat([extra, *(data.facts(part) for part in dict.fromkeys(named))])  # type: ignore[arg-type]
        return FactIndex(facts, data.num_nodes or 0, data.num_relations)
    if splits is None or isinstance(splits, str):
        return None if splits is None else data.fact_index(splits)  # type: ignore[arg-type]
    chosen = set(splits)
    if chosen == {'train', 'valid', 'test'} or 'all' in chosen:
        return data.fact_index('all')
    if len(chosen) <= 1:
        return data.fact_index(chosen.pop()) if chosen else None  # type: ignore[arg-type]
    # Combinations of two splits are rare, so they are built here and not cached.
    parts = [data.facts(part) for part in sorted(chosen)]  # type: ignore[arg-type]
    return FactIndex(torch.cat(parts), data.num_nodes or 0, data.num_relations)


def check_graph(data: Any) -> None:
    r"""Checks that :obj:`data` is a knowledge graph; swapped arguments are the usual mistake.

    Raises:
        ArgumentError: If :obj:`data` is not a :class:`~pyg_emu.KGData`.
        DataError: If the graph has more or fewer labels than entities or relations.
    """
    if not isinstance(data, KGData):
        raise ArgumentError(f'data: expected a KGData as the second argument, got an object of type '
                            f'{type(data).__name__}; load_dataset(...) returns a KGData for a name, a folder, a '
                            'DataFrame or a PyG graph')
    check_label_counts(data)


def scorer_of(model: Any, data: KGData) -> Optional[Scorer]:
    r"""Returns the scorer that :obj:`model` is or can be viewed as for a graph, or :obj:`None` for a score function.

    Raises:
        ArgumentError: If it is neither.
    """
    from pyg_emu.models.adapters import as_scorer

    # Classes and data are callable too, but they are not score functions.
    if isinstance(model, (Scorer, torch.nn.Module, type, KGData)) or not callable(model):
        return for_graph(as_scorer(model), data)
    return None


def scores_of(model: ScoreFunction, known: Tensor, rel_type: Tensor, side: SideName, num_nodes: int) -> Tensor:
    r"""Calls a score function and checks the shape of its result.

    Raises:
        ArgumentError: If the shape is not :obj:`(B, num_nodes)`.
    """
    scores = model(known, rel_type, side)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (known.numel(), num_nodes):
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ArgumentError(f'model: expected scores of shape {(known.numel(), num_nodes)}, got {shape}')
    return scores


def relation_scores(model: Any, scorer: Optional[Scorer], data: KGData, relations: Tensor) -> RelationScores:
    r"""Returns a function of heads and tails to the scores of relations between them.

    Args:
        model (callable): A score function, if :obj:`scorer` is :obj:`None`.
        scorer (Scorer, optional): The scorer.
        data (KGData): The entities.
        relations (torch.Tensor): The relations to score. shape: :obj:`(C,)`.
    """
    if scorer is not None:
        return scores_by_table(scorer, table_of(scorer, data), relations)
    num_nodes = data.num_nodes or 0
    return scores_by_function(lambda known, rel_type: scores_of(model, known, rel_type, 'tail', num_nodes), num_nodes,
                              relations)


def queries_per_block(scorer: Scorer, rows: Tensor, num_rows: int, backend: Optional[str]) -> int:
    r"""Returns the number of queries that are scored at a time.

    Args:
        scorer (Scorer): The scorer.
        rows (torch.Tensor): The candidates of this process.
        num_rows (int): Their number in the process that has the most of them.
        backend (str, optional): See :func:`~pyg_emu.ops.rank_counts`.
    """
    first = torch.zeros(1, dtype=torch.int64, device=rows.device)
    # Scores have the type that queries and rows are promoted to, which decides the backend.
    dtype = torch.promote_types(scorer.query(first, first, 'tail').dtype, rows.dtype)
    return ranking_block_size(num_rows, rows.new_empty(0, rows.size(1), dtype=dtype), scorer.interaction, backend)


def table_of(scorer: Scorer, data: KGData) -> Any:
    r"""Returns the entity table of :obj:`scorer`, a tensor or a
    :class:`~pyg_emu.core.sharded_table.ShardedTable`.

    Raises:
        ArgumentError: If it is on another device than :obj:`data`.
    """
    table = scorer.entity_table()
    if table.device != data.device:
        raise ArgumentError(f'data: expected the device of the model, {table.device}, got {data.device}; call '
                            f'data.to({str(table.device)!r})')
    return table


def whole_table(scorer: Scorer, data: KGData) -> Tensor:
    r"""Returns the entity table of :obj:`scorer` as a tensor.

    Raises:
        ArgumentError: If it is on another device than :obj:`data`, or its rows are divided among processes.
    """
    table = table_of(scorer, data)
    if isinstance(table, ShardedTable):
        raise ArgumentError('model: its entity rows are divided among processes, and candidates for each relation, '
                            "vectors and neighbors need all of them in one; open the run without shard='entities'")
    return table


# A filter as `ptr` and `index` of a `Ragged`, or none.
_Filter = tuple[Optional[Tensor], Optional[Tensor]]
# Ranks one block: known entities and relations (U,), side, the query (B,) of each target (B,), and the filter. Targets
# and filter are positions among the candidates.
_Ranker = Callable[[Tensor, Tensor, SideName, Tensor, Tensor, _Filter], RankCounts]


def _make_ranker(model: Any, scorer: Optional[Scorer], data: KGData, competing: Optional[Candidates],
                 batch_size: Optional[int], backend: Optional[str]) -> tuple[_Ranker, int, _Turns]:
    r"""A function that ranks a block of queries, the number of queries in a block, and who ranks which."""
    num_nodes = data.num_nodes or 0
    check_sizes(model if scorer is None else scorer, data, equal=SIZES)
    index, sets = (None, None) if competing is None else (competing.index, competing.sets)
    index = index if sets is None else None

    if scorer is None:
        def rank_by_function(known: Tensor, rel_type: Tensor, side: SideName, row: Tensor, target: Tensor,
                             known_answers: _Filter) -> RankCounts:
            scores = scores_of(model, known, rel_type, side, num_nodes)
            scores = scores if index is None else scores.index_select(1, index)
            if sets is not None:
                return rank_among(scores, sets.allowed(rel_type, side), target, *known_answers, row, backend)
            return rank_from_scores(scores, target, *known_answers, row=row, backend=backend)

        return rank_by_function, batch_size or min(_MAX_FUNCTION_BATCH, default_block_size(num_nodes, 4)), _Turns()

    # Computed once for all queries, because an encoder's entity table is expensive.
    table: Any = (table_of if sets is None else whole_table)(scorer, data)
    interaction, query = scorer.interaction, scorer.query
    table = table if index is None else table.index_select(0, index)

    def rank_by_query(known: Tensor, rel_type: Tensor, side: SideName, row: Tensor, target: Tensor,
                      known_answers: _Filter) -> RankCounts:
        if sets is not None:
            scores = score_entities(query(known, rel_type, side), table, interaction=interaction, backend=backend)
            return rank_among(scores, sets.allowed(rel_type, side), target, *known_answers, row, backend)
        return rank_counts(query(known, rel_type, side), table, target, *known_answers, interaction=interaction,
                           row=row, block_size=known.numel(), backend=backend)

    divided = isinstance(table, ShardedTable)
    scored = table.most_rows if divided else table.size(0)
    rows = rows_of(table)
    if sets is not None:
        return rank_by_query, batch_size or default_block_size(scored, rows.element_size()), _Turns(divided)
    return rank_by_query, batch_size or queries_per_block(scorer, rows, scored, backend), _Turns(divided)


class _Turns:
    r"""Deals blocks out among the processes. Whole blocks, because the last digits of a score may depend on the other
    queries of its block. Processes that divide the entities instead rank all blocks together.
    """
    def __init__(self, together: bool = False) -> None:
        self.together = together
        self._rank, self._world = current()
        self._dealt = 0

    def mine(self) -> bool:
        r"""Whether this process ranks the next block."""
        self._dealt += 1
        return self.together or (self._dealt - 1) % self._world == self._rank

    def sum(self, counts: Tensor) -> Tensor:
        r"""Counts of all blocks, of which this process has counted its own."""
        return counts if self.together else sum_(counts)


@dataclass
class _Job:
    r"""Everything that the blocks of an evaluation share."""
    rank: _Ranker
    block_size: int
    data: KGData
    known_facts: Optional[FactIndex]
    competing: Optional[Candidates]
    advance: Callable[[int], Any]
    turns: _Turns
    #: Queries that fitted into memory so far. Blocks are dealt out by :attr:`block_size`, which all processes share.
    limit: int

    def rank_side(self, facts: Tensor, side: SideName) -> Tensor:
        r"""The columns of :class:`Ranks`, zero where another process counts. shape: :obj:`(3, F)`."""
        if facts.size(0) == 0:
            return facts.new_zeros(3, 0)
        head, relation, tail = facts.unbind(1)
        known, target = (head, tail) if side == 'tail' else (tail, head)
        target = target if self.competing is None else self.competing.place[target]
        # Facts with the same known entity and relation share a query, which is scored once.
        queries, which = torch.unique(known * self.data.num_relations + relation, return_inverse=True)
        row, order = which.sort(stable=True)
        target = target[order]
        starts = torch.arange(0, queries.numel() + self.block_size, self.block_size, device=row.device)
        bounds = torch.searchsorted(row, starts.clamp(max=queries.numel())).tolist()

        counts = torch.zeros(3, target.numel(), dtype=torch.int64, device=target.device)
        for number, block in enumerate(queries.split(self.block_size)):
            own = slice(bounds[number], bounds[number + 1])
            self.advance(own.stop - own.start)
            if self.turns.mine():
                counts[:, own] = self._rank_in_parts(block, side, row[own] - number * self.block_size, target[own])
        return torch.empty_like(counts).index_copy_(1, order, counts)

    def rank_relations(self, facts: Tensor, scores: RelationScores, backend: Optional[str]) -> Tensor:
        r"""The columns of :class:`Ranks` for the relations of facts, zero where another process counts.
        shape: :obj:`(3, F)`.
        """
        order = facts[:, 0].argsort(stable=True)  # pairs with the same head may share scores
        counts = torch.zeros(3, len(facts), dtype=torch.int64, device=facts.device)
        size = self.block_size
        for number, block in enumerate(facts[order].split(size)):
            self.advance(len(block))
            if self.turns.mine():
                counts[:, number * size:number * size + len(block)] = self._relations_in_parts(block, scores, backend)
        return torch.empty_like(counts).index_copy_(1, order, counts)

    def _relations_in_parts(self, facts: Tensor, scores: RelationScores, backend: Optional[str]) -> Tensor:
        try:
            return torch.stack(rank_relations(scores, facts, self.data.num_relations, self.known_facts, backend))
        except NaNScoreError as error:
            name = question_name(self.data, facts[:, 0], facts[:, 2], 'relation', error.query)
            raise DivergenceError(f'the scores of {name} contain NaN and cannot be ranked') from error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        if len(facts) == 1:
            name = question_name(self.data, facts[:, 0], facts[:, 2], 'relation', 0)
            raise OutOfMemoryError(f'ranking the single query {name} needs more memory than is available; '
                                   f'{MEMORY_REMEDY}')
        parts = facts.tensor_split(2)
        return torch.cat([self._relations_in_parts(part, scores, backend) for part in parts], dim=1)

    def _rank_in_parts(self, queries: Tensor, side: SideName, row: Tensor, target: Tensor) -> Tensor:
        r"""Ranks one block, in smaller parts if memory does not suffice. shape: :obj:`(3, B)`."""
        if queries.numel() == 0:
            return target.new_empty(3, 0)
        if queries.numel() <= self.limit:
            try:
                return self._rank_block(queries, side, row, target)
            except Exception as error:
                # Processes that rank together would no longer rank the same queries.
                if not is_out_of_memory(error) or self.turns.together:
                    raise
            # Outside of the handler, since the exception keeps the tensors of the failed attempt alive.
            release_memory()
            if queries.numel() == 1 and target.numel() == 1:
                name = question_name(self.data, *self._known(queries), side, 0)
                raise OutOfMemoryError(f'ranking the single query {name} needs more memory than is available; '
                                       f'{MEMORY_REMEDY}')
            # Later blocks start at this size.
            self.limit = max(1, queries.numel() // 2)
        half = queries.numel() // 2
        if half == 0:  # one query with several targets
            middle = target.numel() // 2
            parts = [self._rank_in_parts(queries, side, row[part], target[part])
                     for part in (slice(middle), slice(middle, None))]
            return torch.cat(parts, dim=1)
        cut = int((row < half).sum())
        return torch.cat([self._rank_in_parts(queries[:half], side, row[:cut], target[:cut]),
                          self._rank_in_parts(queries[half:], side, row[cut:] - half, target[cut:])], dim=1)

    def _rank_block(self, queries: Tensor, side: SideName, row: Tensor, target: Tensor) -> Tensor:
        known, rel_type = self._known(queries)
        answers: _Filter = (None, None)
        if self.known_facts is not None:
            answers = self.known_facts.known(known, rel_type, side)
            answers = answers if self.competing is None else self.competing.filter(*answers, rel_type, side)
        try:
            return torch.stack(self.rank(known, rel_type, side, row, target, answers))
        except NaNScoreError as error:
            question = question_name(self.data, known, rel_type, side, error.query)
            raise DivergenceError(f'the scores of {question} contain NaN and cannot be ranked') from error

    def _known(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        r"""Known entities and relations of some queries."""
        num_relations = self.data.num_relations
        return torch.div(queries, num_relations, rounding_mode='floor'), queries % num_relations


def question_name(data: KGData, one: Tensor, other: Tensor, asked: Asked, row: int) -> str:
    r"""Writes out the query in :obj:`row`, with labels if the data has them.

    Args:
        data (KGData): The labels.
        one (torch.Tensor): The known entities; the heads if relations are asked for.
        other (torch.Tensor): The relations; the tails if relations are asked for.
        asked (str): What is predicted.
        row (int): The query.
    """
    def name(number: int, labels: Optional[list[str]], what: str) -> str:
        return f'{what} {number}' if labels is None else repr(labels[number])

    entity = name(int(one[row]), data.entity_labels, 'entity')
    if asked == 'relation':
        return f'({entity}, ?, {name(int(other[row]), data.entity_labels, "entity")})'
    verb = name(int(other[row]), data.relation_labels, 'relation')
    return f'({entity}, {verb}, ?)' if asked == 'tail' else f'(?, {verb}, {entity})'


def checked_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    r"""Checks those arguments of :func:`evaluate` that can be checked without model and data, so that a recipe is
    refused before a model is trained.

    Args:
        settings (dict): Arguments of :func:`evaluate` by name. Others are not checked.

    Returns:
        dict: The same, with numbers as Python's own and the sides in a sequence.

    Raises:
        ArgumentError: If one is outside its domain, or two of them do not go together.
    """
    checked = {name: _CHECKS[name](name, value) if name in _CHECKS else value for name, value in settings.items()}
    if checked.get('candidates') is not None and 'relation' in checked.get('sides', ()):
        raise ArgumentError("candidates: the candidates are entities, which do not compete with relations; leave out "
                            "candidates, or 'relation' in sides")
    return checked


def _checked_sides(name: str, sides: Any) -> Sequence[Asked]:
    sides = (sides, ) if isinstance(sides, str) else sides
    if (not isinstance(sides, Sequence) or len(sides) == 0
            or any(side not in ('tail', 'head', 'relation') for side in sides) or len(set(sides)) != len(sides)):
        raise ArgumentError(f"{name}: expected 'tail', 'head', 'relation' or several of them in a tuple, got {sides!r}")
    return sides


def _checked_splits(name: str, splits: Any) -> Any:
    chosen = () if splits is None else (splits,) if isinstance(splits, str) else splits
    if not isinstance(chosen, (Sequence, set, frozenset)) or any(part not in (*SPLITS, 'all') for part in chosen):
        raise ArgumentError(f"{name}: expected 'all', 'train', 'valid', 'test', several of these in a tuple, or None, "
                            f'got {splits!r}')
    return splits


def _number_or_none(name: str, value: Any) -> Optional[int]:
    return None if value is None else positive_integer(name, value)


#: The check of each argument of :func:`evaluate` that needs neither model nor data.
_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    'sides': _checked_sides,
    'tie': lambda name, value: one_of(name, value, TIES),
    'ks': positive_integers,
    'filter_splits': _checked_splits,
    'by': lambda name, value: None if value is None else one_of(name, value, ('relation', )),
    'batch_size': _number_or_none,
    'max_triples': _number_or_none,
    'num_negatives': _number_or_none,
    'seed': random_seed,
}

r"""Filtered ranking of heads and tails, in blocks of bounded memory."""
from __future__ import annotations

from contextlib import contextmanager
from numbers import Integral
from typing import Any, Callable, Iterator, Literal, Optional, Sequence, Union

import torch
from torch import Tensor
from tqdm import tqdm

from pyg_emu.core.contract import Scorer
from pyg_emu.core.distributed import current, shared_errors, sum_
from pyg_emu.core.errors import ArgumentError, DataError, DivergenceError
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.data.relations import relation_kinds
from pyg_emu.evaluation.metrics import TIES, Metrics, Ranks, Tie, check_ks
from pyg_emu.ops.rank_counts import NaNScoreError, RankCounts, default_block_size, rank_counts, rank_from_scores

SideName = Literal['tail', 'head']
#: Scores :obj:`(B, num_nodes)` of all entities, given the known entities :obj:`(B,)`, the relations :obj:`(B,)` and the
#: side (:obj:`"tail"` or :obj:`"head"`) that is to be predicted.
ScoreFunction = Callable[[Tensor, Tensor, SideName], Tensor]

# Queries at a time for a score function, whose own memory is unknown.
_MAX_FUNCTION_BATCH = 128


def evaluate(
    model: Union[Scorer, torch.nn.Module, ScoreFunction],
    data: KGData,
    split: Literal['train', 'valid', 'test'] = 'test',
    *,
    batch_size: Optional[int] = None,
    tie: Tie = 'realistic',
    sides: Sequence[SideName] = ('tail', 'head'),
    ks: Sequence[int] = (1, 3, 10),
    filter_splits: Union[None, str, Sequence[str]] = 'all',
    max_triples: Optional[int] = None,
    seed: int = 0,
    num_negatives: Optional[int] = None,
    progress: bool = False,
    backend: Optional[str] = None,
) -> Metrics:
    r"""Ranks the true tail of each fact among all entities for :math:`(h, r, ?)`, and the true head for
    :math:`(?, r, t)`.

    In the filtered setting (the default) other answers that are facts do not compete. Facts that ask the same question
    are answered with one row of scores. The model runs in evaluation mode without gradients, and gets its mode back.

    Inside of :func:`~pyg_emu.process_group`, all processes have to call this, with the same arguments:
    each ranks its share, and gets the metrics of all.

    .. code-block:: python

        metrics = evaluate(model, data, split='test')
        print(metrics)
        metrics['mrr'], metrics['tail.hits@10'], metrics['1-N.mrr']

    Args:
        model (Scorer or torch.nn.Module or callable): A :class:`~pyg_emu.Scorer`, one of PyG's own KGE
        layers,
            or a function :obj:`(known, rel_type, side) -> scores` that returns the scores :obj:`(B, num_nodes)` of all
            entities.
        data (KGData): The facts, on the model's device.
        split (str): The facts to be ranked: :obj:`"train"`, :obj:`"valid"` or :obj:`"test"`. (default: :obj:`"test"`)
        batch_size (int, optional): Questions whose scores are held at a time; the result does not depend on it.
            (default: :obj:`None`, as many as fit into 64 MiB)
        tie (str): What rank a target has among entities of exactly its score: the :obj:`"optimistic"` or the
            :obj:`"pessimistic"` end, or their mean (:obj:`"realistic"`). (default: :obj:`"realistic"`)
        sides (tuple of str): The sides that are predicted. (default: :obj:`("tail", "head")`)
        ks (tuple of int): The :math:`k` of Hits@k. (default: :obj:`(1, 3, 10)`)
        filter_splits (str or tuple of str, optional): The facts that do not compete: :obj:`"all"` (train, valid and
            test), one split or several, or :obj:`None` for the unfiltered setting. (default: :obj:`"all"`)
        max_triples (int, optional): Rank a random subset of at most that many facts. (default: :obj:`None`, all)
        seed (int): Seed of the subset. (default: :obj:`0`)
        num_negatives (int, optional): Adds the expected Hits@10 against that many random negatives, see
            :func:`~pyg_emu.evaluation.metrics.expected_hits`. (default: :obj:`None`)
        progress (bool): Whether to show a progress bar. (default: :obj:`False`)
        backend (str, optional): The backend of :func:`~pyg_emu.ops.rank_counts`. (default: :obj:`None`, by device)

    Returns:
        Metrics: Prints as a table, reads as a dictionary.

    Raises:
        ArgumentError: If an argument is out of its domain, or the model's sizes do not fit the data.
        DataError: If the split has no facts.
        DivergenceError: If a score is NaN; names the question.
    """
    check_graph(data)
    _check_arguments(tie, sides, batch_size, max_triples)
    check_ks(ks)
    for name, value in (('seed', seed), ('num_negatives', num_negatives)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral)):
            raise ArgumentError(f'{name}: expected an integer, got {value!r}')
    if split not in ('train', 'valid', 'test'):
        raise ArgumentError(f"split: expected 'train', 'valid' or 'test', got {split!r}")
    facts = data.facts(split)
    if facts.size(0) == 0:
        raise DataError(f'split {split!r} has no facts to rank')
    if max_triples is not None and max_triples < facts.size(0):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.randperm(facts.size(0), generator=generator)[:max_triples].sort().values
        facts = facts[chosen.to(facts.device)]
    known_facts = filter_index(data, filter_splits)

    turns = _Turns()
    bar = tqdm(total=len(sides) * facts.size(0), desc='ranking', disable=not progress or turns.rank > 0)
    with evaluating(model), torch.no_grad(), bar, shared_errors():
        rank, block_size = _make_ranker(model, data, batch_size, backend)
        counts = {side: _rank_side(rank, block_size, facts, side, known_facts, data, bar.update, turns)
                  for side in sides}
    ranks: dict[str, Ranks] = {side: Ranks(*sum_(columns)) for side, columns in counts.items()}
    kinds = relation_kinds(data.fact_index('train'))[facts[:, 1]]
    filtered = filter_splits if isinstance(filter_splits, str) else ' + '.join(filter_splits or ()) or 'nothing'
    return Metrics(ranks, tie, ks, kinds, num_negatives,
                   info={'split': split, 'triples': facts.size(0), 'filtered by': filtered})


def filter_index(data: KGData, splits: Union[None, str, Sequence[str]]) -> Optional[FactIndex]:
    r"""The index of the facts of some splits.

    Args:
        data (KGData): The facts.
        splits (str or tuple of str, optional): :obj:`"all"`, one split, several, or :obj:`None` for none.
    """
    if splits is None or isinstance(splits, str):
        return None if splits is None else data.fact_index(splits)  # type: ignore[arg-type]
    chosen = set(splits)
    if chosen == {'train', 'valid', 'test'} or 'all' in chosen:
        return data.fact_index('all')
    if len(chosen) <= 1:
        return data.fact_index(chosen.pop()) if chosen else None  # type: ignore[arg-type]
    # A mixture is asked for rarely: it is built here rather than kept beside the indices that all share.
    parts = [data.facts(part) for part in sorted(chosen)]  # type: ignore[arg-type]
    return FactIndex(torch.cat(parts), data.num_nodes or 0, data.num_relations)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    r"""Puts the module behind :obj:`model` (a module, a view of one, or a bound method of one) into evaluation mode,
    and every one of its submodules back into the mode it had.
    """
    holders = (model, getattr(model, 'model', None), getattr(model, '__self__', None))
    module = next((holder for holder in holders if isinstance(holder, torch.nn.Module)), None)
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    try:
        if module is not None:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def check_graph(data: Any) -> None:
    r"""Refuses what is no knowledge graph: most often, arguments in another order.

    Raises:
        ArgumentError: If :obj:`data` is no :class:`~pyg_emu.KGData`.
    """
    if not isinstance(data, KGData):
        raise ArgumentError(f'data: expected a KGData, after the model, got an object of type {type(data).__name__}; '
                            'load_dataset(...) makes one of a name, a folder, a DataFrame or a graph of PyG')


def check_sizes(model: Any, data: KGData) -> None:
    r"""Refuses a model whose entities or relations are not those of :obj:`data`. Room for inverse relations is no
    misfit.

    Raises:
        ArgumentError: If they are not.
    """
    num_nodes, num_relations = getattr(model, 'num_nodes', None), getattr(model, 'num_relations', None)
    if isinstance(num_nodes, int) and num_nodes != data.num_nodes:
        raise ArgumentError(f'model: it has {num_nodes} entities, the data has {data.num_nodes}; make it with '
                            f'num_nodes={data.num_nodes}')
    if isinstance(num_relations, int) and num_relations not in (data.num_relations, 2 * data.num_relations):
        raise ArgumentError(f'model: it has {num_relations} relations, the data has {data.num_relations}; make it with '
                            f'num_relations={data.num_relations}')


def scorer_of(model: Any) -> Optional[Scorer]:
    r"""The scorer that :obj:`model` is or can be seen as; :obj:`None` for a score function.

    Raises:
        ArgumentError: If it is neither.
    """
    from pyg_emu.models.adapters import as_scorer

    # Classes and data can be called, too, but answer no question.
    if isinstance(model, (Scorer, torch.nn.Module, type, KGData)) or not callable(model):
        return as_scorer(model)
    return None


def scores_of(model: ScoreFunction, known: Tensor, rel_type: Tensor, side: SideName, num_nodes: int) -> Tensor:
    r"""What a score function returns, its shape checked.

    Raises:
        ArgumentError: If it is not :obj:`(B, num_nodes)`.
    """
    scores = model(known, rel_type, side)
    if not isinstance(scores, Tensor) or tuple(scores.shape) != (known.numel(), num_nodes):
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ArgumentError(f'model: expected scores of shape {(known.numel(), num_nodes)}, got {shape}')
    return scores


def table_of(scorer: Scorer, data: KGData) -> Tensor:
    r"""The entity table of :obj:`scorer`.

    Raises:
        ArgumentError: If it is not on the device of :obj:`data`.
    """
    table = scorer.entity_table()
    if table.device != data.device:
        raise ArgumentError(f'data: it is on {data.device}, the model on {table.device}; move it with '
                            f'data.to({str(table.device)!r})')
    return table


# A filter, as `ptr` and `index` of a `Ragged`, or none.
_Filter = tuple[Optional[Tensor], Optional[Tensor]]
# Ranks one block of questions: known entities and relations (U,), side, the question (B,) of each target (B,), and what
# does not compete.
_Ranker = Callable[[Tensor, Tensor, SideName, Tensor, Tensor, _Filter], RankCounts]


def _make_ranker(model: Any, data: KGData, batch_size: Optional[int], backend: Optional[str]) -> tuple[_Ranker, int]:
    r"""How to rank a block of questions, and how many make a block."""
    num_nodes = data.num_nodes or 0
    scorer = scorer_of(model)
    check_sizes(model if scorer is None else scorer, data)

    if scorer is None:
        def rank_by_function(known: Tensor, rel_type: Tensor, side: SideName, row: Tensor, target: Tensor,
                             known_answers: _Filter) -> RankCounts:
            scores = scores_of(model, known, rel_type, side, num_nodes)
            return rank_from_scores(scores, target, *known_answers, row=row, backend=backend)

        return rank_by_function, batch_size or min(_MAX_FUNCTION_BATCH, default_block_size(num_nodes, 4))

    # Once for all questions: an encoder's entity table is not free.
    table, interaction, query = table_of(scorer, data), scorer.interaction, scorer.query

    def rank_by_query(known: Tensor, rel_type: Tensor, side: SideName, row: Tensor, target: Tensor,
                      known_answers: _Filter) -> RankCounts:
        return rank_counts(query(known, rel_type, side), table, target, *known_answers, interaction=interaction,
                           row=row, block_size=known.numel(), backend=backend)

    return rank_by_query, batch_size or default_block_size(num_nodes, table.element_size())


class _Turns:
    r"""Deals the blocks out among the processes. Whole blocks, for the scores of a question may depend, in their last
    digits, on those asked beside it.
    """
    def __init__(self) -> None:
        self.rank, self.world = current()
        self._dealt = 0

    def mine(self) -> bool:
        r"""Whether the next block is this process's."""
        self._dealt += 1
        return (self._dealt - 1) % self.world == self.rank


def _rank_side(rank: _Ranker, block_size: int, facts: Tensor, side: SideName, index: Optional[FactIndex], data: KGData,
               advance: Callable[[int], Any], turns: _Turns) -> Tensor:
    r"""The columns of :class:`Ranks`, zero where another process counts. shape: :obj:`(3, F)`."""
    head, relation, tail = facts.unbind(1)
    known, target = (head, tail) if side == 'tail' else (tail, head)
    # Facts with the same known entity and relation ask the same question: they stand together, and it is asked once.
    questions, which = torch.unique(known * data.num_relations + relation, return_inverse=True)
    row, order = which.sort(stable=True)
    target = target[order]
    starts = torch.arange(0, questions.numel() + block_size, block_size, device=row.device).clamp(max=questions.numel())
    bounds = torch.searchsorted(row, starts).tolist()

    counts = torch.zeros(3, target.numel(), dtype=torch.int64, device=target.device)
    for number, block in enumerate(questions.split(block_size)):
        own = slice(bounds[number], bounds[number + 1])
        advance(own.stop - own.start)
        if not turns.mine():
            continue
        entity, rel_type = torch.div(block, data.num_relations, rounding_mode='floor'), block % data.num_relations
        answers = (None, None) if index is None else index.known(entity, rel_type, side)
        try:
            counts[:, own] = torch.stack(rank(entity, rel_type, side, row[own] - number * block_size, target[own],
                                              answers))
        except NaNScoreError as error:
            question = question_name(data, entity, rel_type, side, error.query)
            raise DivergenceError(f'the scores for {question} hold NaN, which cannot be ranked') from error
    return torch.empty_like(counts).index_copy_(1, order, counts)


def question_name(data: KGData, known: Tensor, rel_type: Tensor, side: SideName, row: int) -> str:
    r"""The question in :obj:`row` in words, by labels where there are some."""
    entity, relation = int(known[row]), int(rel_type[row])
    name = repr(data.entity_labels[entity]) if data.entity_labels is not None else f'entity {entity}'
    verb = repr(data.relation_labels[relation]) if data.relation_labels is not None else f'relation {relation}'
    return f'({name}, {verb}, ?)' if side == 'tail' else f'(?, {verb}, {name})'


def _check_arguments(tie: str, sides: Sequence[SideName], batch_size: Optional[int],
                     max_triples: Optional[int]) -> None:
    if tie not in TIES:
        raise ArgumentError(f'tie: expected one of {", ".join(map(repr, TIES))}, got {tie!r}')
    if isinstance(sides, str) or len(sides) == 0 or not set(sides) <= {'tail', 'head'} or len(set(sides)) != len(sides):
        raise ArgumentError(f"sides: expected 'tail', 'head' or both in a tuple, got {sides!r}")
    for name, value in (('batch_size', batch_size), ('max_triples', max_triples)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise ArgumentError(f'{name}: expected at least one, got {value!r}')

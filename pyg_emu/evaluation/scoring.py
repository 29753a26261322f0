r"""Scores of whole facts, as the model gives them and as probabilities."""
from __future__ import annotations

from typing import Any, Literal, Optional, Union

import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.arguments import instance, one_of, positive_integer
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import DivergenceError
from pyg_emu.core.memory import memory_reported
from pyg_emu.core.modes import evaluating
from pyg_emu.data.checks import SIZES, check_sizes
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.given import FactSource, given_facts
from pyg_emu.evaluation.calibration import Calibration
from pyg_emu.evaluation.ranking import (
    LARGEST_BLOCK,
    MEMORY_REMEDY,
    ScoreFunction,
    check_graph,
    scorer_of,
    scores_of,
    table_of,
)
from pyg_emu.ops.rank_counts import BLOCK_BYTES, default_block_size

#: Which end of a fact is predicted when it is scored, or the mean of both.
ScoredSide = Literal['tail', 'head', 'both']
SCORED_SIDES = ('tail', 'head', 'both')

# Queries per block for a score function, whose memory use is unknown.
_MAX_FUNCTION_BATCH = 128


def score(
    model: Union[Scorer, torch.nn.Module, ScoreFunction],
    data: KGData,
    facts: FactSource,
    *,
    side: Optional[ScoredSide] = None,
    calibration: Optional[Calibration] = None,
    batch_size: Optional[int] = None,
) -> pd.DataFrame:
    r"""Scores facts.

    .. code-block:: python

        score(model, data, frame)                                       # columns head, relation, tail
        score(model, data, 'facts.tsv', calibration=calibrate(model, data))  # also probabilities and decisions

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The labels of the entities and relations, on the device of the model.
        facts (torch.Tensor or pandas.DataFrame or str): Ids of shape :obj:`(F, 3)`; a table with the columns head,
            relation and tail of labels; or a file of labels. A column :obj:`label` that says which facts are true is
            kept.
        side (str, optional): Which end is predicted: :obj:`"tail"`, as in :meth:`forward`, :obj:`"head"`, or
            :obj:`"both"` for the mean of the two, which differ for models with reciprocal relations and for NBFNet.
            (default: that of :obj:`calibration`, or :obj:`"tail"`)
        calibration (Calibration, optional): Turns scores into probabilities and decisions, see
            :func:`~pyg_emu.evaluation.calibrate`. (default: :obj:`None`)
        batch_size (int, optional): Number of facts per block. (default: :obj:`None`, as many as fit into 64 MiB)

    Returns:
        pandas.DataFrame: A row for each fact, in the order given: :obj:`head`, :obj:`relation`, :obj:`tail` (labels, or
        ids if there are none), :obj:`score`; with a calibration, :obj:`probability` and :obj:`predicted`; and
        :obj:`label` where it is given.

    Raises:
        ArgumentError: If an argument is outside its domain, or the sizes of the model do not match the data.
        DataError: If facts cannot be read; names the row, or file and line.
        DivergenceError: If a score is NaN; names the fact.
    """
    check_graph(data)
    if calibration is not None:
        instance('calibration', calibration, Calibration, 'as calibrate(model, data) returns it')
        calibration.check(data, side)
        side = calibration.side
    side = 'tail' if side is None else one_of('side', side, SCORED_SIDES)
    given = given_facts('facts', facts, data)
    scores = fact_scores(model, data, given.facts, side, batch_size)
    frame = fact_frame(data, given.facts)
    frame['score'] = scores.cpu().numpy()
    if calibration is not None:
        frame['probability'] = calibration.probability(scores).cpu().numpy()
        frame['predicted'] = calibration.decide(scores, given.facts[:, 1]).cpu().numpy()
    return frame if given.truth is None else frame.assign(label=given.truth.cpu().numpy())


def fact_frame(data: KGData, facts: Tensor) -> pd.DataFrame:
    r"""Returns facts as a table with the columns head, relation and tail of labels, or of ids if there are none."""
    columns = {}
    labels = (data.entity_labels, data.relation_labels, data.entity_labels)
    for name, ids, names in zip(('head', 'relation', 'tail'), facts.cpu().numpy().T, labels):
        columns[name] = ids if names is None else pd.array(names, dtype=object).take(ids)
    return pd.DataFrame(columns)


def fact_scores(model: Any, data: KGData, facts: Tensor, side: ScoredSide = 'tail', batch_size: Optional[int] = None
                ) -> Tensor:
    r"""Scores facts given as ids.

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The entities, on the device of the model.
        facts (torch.Tensor): The facts. shape: :obj:`(F, 3)`.
        side (str, optional): See :func:`score`. (default: :obj:`"tail"`)
        batch_size (int, optional): See :func:`score`. (default: :obj:`None`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(F,)`, float64.

    Raises:
        DivergenceError: If a score is NaN; names the fact.
    """
    if batch_size is not None:
        batch_size = min(int(positive_integer('batch_size', batch_size)), LARGEST_BLOCK)
    with memory_reported('scoring facts', MEMORY_REMEDY), evaluating(model), torch.no_grad():
        scorer = scorer_of(model, data)
        check_sizes(model if scorer is None else scorer, data, equal=SIZES)
        if len(facts) == 0:
            return torch.empty(0, dtype=torch.float64, device=facts.device)
        parts = [_one_side(model, scorer, data, facts, end, batch_size)
                 for end in (('tail', 'head') if side == 'both' else (side, ))]
        scores = torch.stack(parts).mean(0)
    if bool(scores.isnan().any()):
        row = int(scores.isnan().nonzero()[0, 0])
        fact = ', '.join(repr(value) for value in fact_frame(data, facts[row:row + 1]).iloc[0].tolist())
        raise DivergenceError(f'the score of the fact ({fact}) is NaN')
    return scores


def _one_side(model: Any, scorer: Optional[Scorer], data: KGData, facts: Tensor, side: Any,
              batch_size: Optional[int]) -> Tensor:
    head, relation, tail = facts.unbind(1)
    known, target = (head, tail) if side == 'tail' else (tail, head)
    found = torch.empty(len(facts), dtype=torch.float64, device=facts.device)
    if scorer is not None:
        table = table_of(scorer, data)
        size = batch_size or max(1, BLOCK_BYTES // max(1, 8 * table.size(1)))
        for place in torch.arange(len(facts), device=facts.device).split(size):
            query = scorer.query(known[place].contiguous(), relation[place].contiguous(), side)
            found[place] = scorer.score(query, table[target[place]]).double()
        return found
    num_nodes = data.num_nodes or 0
    size = batch_size or min(_MAX_FUNCTION_BATCH, default_block_size(num_nodes, 8))
    # Facts with the same known entity and relation share a query.
    queries, which = torch.unique(known * data.num_relations + relation, return_inverse=True)
    which, order = which.sort(stable=True)
    ends = torch.searchsorted(which, torch.arange(0, queries.numel() + size, size, device=which.device)).tolist()
    for number, block in enumerate(queries.split(size)):
        row = order[ends[number]:ends[number + 1]]
        scores = scores_of(model, torch.div(block, data.num_relations, rounding_mode='floor'),
                           block % data.num_relations, side, num_nodes)
        found[row] = scores[which[ends[number]:ends[number + 1]] - number * size, target[row]].double()
    return found

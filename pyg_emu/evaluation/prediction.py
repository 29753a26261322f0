r"""Answers in labels: the top tails of (head, relation), or the top heads of (relation, tail)."""
from __future__ import annotations

from numbers import Integral
from typing import Any, Iterable, Optional, Sequence, Union, cast

import pandas as pd
import torch
from torch import Tensor

from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError, DivergenceError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.ranking import (
    ScoreFunction,
    SideName,
    check_graph,
    check_sizes,
    evaluating,
    question_name,
    scorer_of,
    scores_of,
    table_of,
)
from pyg_emu.ops.rank_counts import default_block_size, score_entities

#: An entity or a relation, or several: labels or ids.
Names = Union[str, int, Sequence[Union[str, int]], Tensor]


def predict(
    model: Union[Scorer, torch.nn.Module, ScoreFunction],
    data: KGData,
    heads: Optional[Names] = None,
    relations: Optional[Names] = None,
    tails: Optional[Names] = None,
    k: int = 10,
    exclude_known: bool = False,
    *,
    batch_size: Optional[int] = None,
    backend: Optional[str] = None,
) -> pd.DataFrame:
    r"""The best answers to questions :math:`(h, r, ?)`, for which :obj:`heads` are given, or :math:`(?, r, t)`, for
    which :obj:`tails` are.

    .. code-block:: python

        predict(model, data, heads='virus', relations='causes', k=3)
        predict(model, data, relations='causes', tails=['disease', 'injury'], exclude_known=True)

    Args:
        model (Scorer or torch.nn.Module or callable): As in :func:`~pyg_emu.evaluate`.
        data (KGData): The labels and the known facts, on the model's device.
        heads (str or int or sequence, optional): The known heads, labels or ids. Where labels are integers, integers
            are labels, and ids come as a tensor. (default: :obj:`None`)
        relations (str or int or sequence): The relations, labels or ids. One relation goes with all entities, and one
            entity with all relations; otherwise there are as many of both.
        tails (str or int or sequence, optional): The known tails, labels or ids. (default: :obj:`None`)
        k (int): Number of answers to each question. (default: :obj:`10`)
        exclude_known (bool): Whether answers that are facts of any split are left out. (default: :obj:`False`)
        batch_size (int, optional): Questions whose scores are held at a time.
            (default: :obj:`None`, as many as fit into 64 MiB)
        backend (str, optional): The backend of :func:`~pyg_emu.ops.score_entities`. (default: :obj:`None`, by device)

    Returns:
        pandas.DataFrame: A row for each answer, best first: :obj:`head`, :obj:`relation`, :obj:`tail` (labels, or ids
        where there are none), :obj:`rank` from one, :obj:`score`, and :obj:`known`, the first split that holds the
        fact, or an empty string. Entities that score alike are in the order of their ids.

    Raises:
        ArgumentError: If an argument is out of its domain, or the model's sizes do not fit the data.
        DataError: If there is no such label; names the nearest one.
        DivergenceError: If a score is NaN; names the question.
    """
    check_graph(data)
    if (heads is None) == (tails is None):
        raise ArgumentError('heads, tails: give the one that is known, not both and not neither')
    if relations is None:
        raise ArgumentError('relations: give one relation, or one for each question')
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError(f'k: expected a positive integer, got {k!r}')
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ArgumentError(f'batch_size: expected at least one, got {batch_size!r}')
    side: SideName = 'tail' if tails is None else 'head'
    known = _ids('heads' if side == 'tail' else 'tails', heads if side == 'tail' else tails, data, 'entity')
    rel_type = _ids('relations', relations, data, 'relation')
    if len(known) != len(rel_type) and 1 not in (len(known), len(rel_type)):
        raise ArgumentError(f'relations: expected one, or as many as entities ({len(known)}), got {len(rel_type)}')
    known, rel_type = (part.contiguous() for part in torch.broadcast_tensors(known, rel_type))

    columns = []
    with evaluating(model), torch.no_grad():
        size = batch_size or default_block_size(data.num_nodes or 0, 8)
        scorer = scorer_of(model)
        check_sizes(model if scorer is None else scorer, data)
        table = None if scorer is None else table_of(scorer, data)
        for entity, relation in zip(known.split(size), rel_type.split(size)):
            if scorer is None or table is None:
                scores = scores_of(cast(ScoreFunction, model), entity, relation, side, data.num_nodes or 0)
            else:
                query = scorer.query(entity, relation, side)
                scores = scorer.offset + score_entities(query, table, interaction=scorer.interaction, backend=backend)
            columns.append(_best(scores, entity, relation, side, data, k, exclude_known))
    return _frame(data, *(torch.cat(parts) for parts in zip(*columns)))


def _best(scores: Tensor, known: Tensor, rel_type: Tensor, side: SideName, data: KGData, k: int,
          exclude_known: bool) -> tuple[Tensor, ...]:
    r"""Head, relation, tail, rank and score of each answer, question by question."""
    invalid = scores.isnan().any(1)
    if bool(invalid.any()):
        name = question_name(data, known, rel_type, side, int(invalid.nonzero()[0, 0]))
        raise DivergenceError(f'the scores for {name} hold NaN, which cannot be ranked')
    allowed = torch.ones_like(scores, dtype=torch.bool)
    if exclude_known:
        ptr, index = data.fact_index('all').known(known, rel_type, side)
        allowed[torch.repeat_interleave(ptr[1:] - ptr[:-1]), index] = False
    # A stable sort, unlike topk, says which of several entities with the same score comes first.
    order = torch.where(allowed, scores, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :k]
    keep = allowed.gather(1, order)
    # Questions whose answers are nearly all known have fewer than k left.
    question, place = keep.nonzero().unbind(1)
    answer = order[question, place]
    entity = known[question]
    head, tail = (entity, answer) if side == 'tail' else (answer, entity)
    rank = keep.cumsum(1)[question, place]
    return head, rel_type[question], tail, rank, scores[question, answer]


def _frame(data: KGData, head: Tensor, relation: Tensor, tail: Tensor, rank: Tensor, score: Tensor) -> pd.DataFrame:
    known = pd.Series('', index=range(len(head)), dtype=object)
    for split in ('test', 'valid', 'train'):
        known[data.fact_index(split).contains(head, relation, tail).cpu().numpy()] = split
    return pd.DataFrame({
        'head': _names(head, data.entity_labels),
        'relation': _names(relation, data.relation_labels),
        'tail': _names(tail, data.entity_labels),
        'rank': rank.cpu().numpy(),
        'score': score.float().cpu().numpy() if score.dtype != torch.float64 else score.cpu().numpy(),
        'known': known,
    })


def _names(ids: Tensor, labels: Optional[list[str]]) -> Any:
    return ids.cpu().numpy() if labels is None else pd.array(labels, dtype=object).take(ids.cpu().numpy())


def _ids(argument: str, names: Any, data: KGData, kind: str) -> Tensor:
    r"""Labels or ids to ids, of one dimension."""
    values = names.tolist() if isinstance(names, Tensor) else names
    values = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    if len(values) == 0:
        raise ArgumentError(f'{argument}: there is nothing to ask about')
    find, limit = (data.entity_id, data.num_nodes) if kind == 'entity' else (data.relation_id, data.num_relations)
    # Where labels are integers, an integer is a label; ids come as a tensor.
    labelled = not isinstance(names, Tensor) and data.has_integer_labels('entity' if kind == 'entity' else 'relation')
    ids = []
    for position, value in enumerate(values):
        if isinstance(value, str) or (labelled and isinstance(value, Integral) and not isinstance(value, bool)):
            value = find(value if isinstance(value, str) else int(value))
        elif isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < (limit or 0):
            raise ArgumentError(f'{argument}: expected labels or ids in [0, {limit}), got {value!r} at position '
                                f'{position}')
        ids.append(int(value))
    return torch.tensor(ids, device=data.device)

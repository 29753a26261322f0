r"""The facts with the worst ranks, and what the model answered instead."""
from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from pyg_emu.core.errors import PygEmuError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.graphs import ranker_of, reads_graph
from pyg_emu.evaluation.prediction import predict
from pyg_emu.experiments.report.content import Cell, Column, Section, Table, Text, count, label, rank, short
from pyg_emu.experiments.report.opened import Choices, OpenedRun

#: The positions of a fact that are known if one side is asked for.
_KNOWN = {'tail': (0, 1), 'head': (1, 2), 'relation': (0, 2)}
_NAMES = ('head', 'relation', 'tail')
#: Queries at a time for models that read a graph, of which each takes a pass over the graph.
_QUERIES = 8


def hardest_section(run: OpenedRun, choices: Choices) -> Section:
    r"""The facts with the worst ranks of a run."""
    metrics = None if run.ranking is None else run.ranking.metrics
    data = run.facts
    if metrics is None or metrics.facts is None or data is None:
        return Section('hardest', 'Hardest facts', absent=run.absent.get('ranking') or run.absent.get('model')
                       or run.absent.get('data'))
    facts, ranks, competitors, sides = _worst(metrics, choices.num_hardest)
    if not sides:
        return Section('hardest', 'Hardest facts', [Text('Every fact ranks first.')])
    blocks: list[Any] = []
    answers: list[tuple[str, ...]] = [()] * len(sides)
    try:
        answers = _answers(run, data, facts, sides, choices.num_answers)
    except PygEmuError as error:
        blocks.append(Text(f'The answers of the model cannot be shown: {error}.', note=True))
    columns = [Column('rank', True, 'among the competitors, which are not known facts'),
               Column('competitors', True), Column('asked'), *(Column(name) for name in _NAMES),
               Column('answered instead', explained='the best answers that are not known facts, the best first')]
    rows = []
    for place, side in enumerate(sides):
        own = [_label(data, column, int(facts[place, column])) for column in range(3)]
        rows.append([rank(ranks[place]), count(competitors[place]), label(side),
                     *(label(name, 'strong' if _NAMES[column] == side else '') for column, name in enumerate(own)),
                     Cell('', ' '.join(answers[place]).lower(), items=answers[place])])
    text = Text(f'The {len(rows)} worst of all ranks. The true answer is set in bold; the answers beside it are in no '
                'split.')
    return Section('hardest', 'Hardest facts', [text, *blocks, Table(columns, rows, search=len(rows) > 15)])


def _worst(metrics: Any, number: int) -> tuple[Tensor, list[float], list[int], list[str]]:
    r"""Facts, ranks, competitors and sides of the largest ranks above one; the order of equal ones is that of the
    facts.
    """
    sides = [side for side, ranks in metrics.ranks.items() if len(ranks) > 0]
    ranks = torch.cat([metrics.ranks[side].of(metrics.tie) for side in sides]).cpu()
    competitors = torch.cat([metrics.ranks[side].candidates for side in sides]).cpu()
    facts = torch.cat([metrics.facts[side] for side in sides]).cpu()
    owner = torch.cat([torch.full((len(metrics.ranks[side]), ), place) for place, side in enumerate(sides)])
    order = ranks.argsort(descending=True, stable=True)[:number]
    order = order[ranks[order] > 1]
    return (facts[order], ranks[order].tolist(), competitors[order].tolist(),
            [sides[place] for place in owner[order].tolist()])


def _answers(run: OpenedRun, data: KGData, facts: Tensor, sides: Sequence[str], k: int) -> list[tuple[str, ...]]:
    r"""The best answers to the questions of facts that are not known facts."""
    assert run.recipe is not None
    model = ranker_of(run.model, data)
    settings = {name: run.recipe.evaluation[name] for name in ('candidates', 'known_facts')
                if run.recipe.evaluation.get(name) is not None}
    found: list[tuple[str, ...]] = [()] * len(sides)
    for side, known in _KNOWN.items():
        rows = [row for row, own in enumerate(sides) if own == side]
        if not rows:
            continue
        queries = facts[rows][:, list(known)].unique(dim=0).to(data.device)
        given = {f'{_NAMES[column]}s': queries[:, place].contiguous() for place, column in enumerate(known)}
        options = {name: value for name, value in settings.items() if side != 'relation' or name != 'candidates'}
        frame = predict(model, data, k=k, exclude_known=True, batch_size=_QUERIES if reads_graph(run.model) else None,
                        **given, **options)
        by_query: dict[tuple[str, ...], list[str]] = {}
        for answer in frame.to_dict('records'):
            key = tuple(str(answer[_NAMES[column]]) for column in known)
            by_query.setdefault(key, []).append(short(answer[side]))
        for row in rows:
            key = tuple(str(_label(data, column, int(facts[row, column]))) for column in known)
            found[row] = tuple(by_query.get(key, ()))
    return found


def _label(data: KGData, column: int, number: int) -> Any:
    labels = data.relation_labels if column == 1 else data.entity_labels
    return number if labels is None else labels[number]

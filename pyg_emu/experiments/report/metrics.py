r"""The metrics of a run: by predicted side, by kind of relation, and by relation."""
from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import pandas as pd
import torch

from pyg_emu.data.graph import KGData
from pyg_emu.data.relations import RELATION_KINDS, relation_kinds
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.experiments.report.content import (
    MISSING,
    Cell,
    Column,
    Figure,
    Grid,
    Section,
    Table,
    Text,
    count,
    label,
    metric,
    metric_title,
    number,
)
from pyg_emu.experiments.report.figures import COLORS, SIDE_COLORS, figure, shown_label
from pyg_emu.experiments.report.opened import OpenedRun, Ranking

#: The questions that the sides of facts answer.
SIDE_TITLES = {'tail': 'tails (h, r, ?)', 'head': 'heads (?, r, t)', 'relation': 'relations (h, ?, t)'}
_SIDES = ('tail', 'head', 'relation')
_EXPLAINED = {
    'mr': 'the mean of the ranks; lower is better', 'amri': 'adjusted mean rank index: 1 for perfect ranks, 0 for '
    'random scores', 'count': 'the number of ranks'}
#: Points of a curve of ranks.
_MOST_POINTS = 300


def metrics_section(run: OpenedRun) -> Section:
    r"""The metrics by side and by kind of relation."""
    ranking = run.ranking
    if ranking is None:
        return Section('metrics', 'Metrics', absent=run.absent['ranking'])
    blocks: list[Any] = [Text(_how(ranking)), group_table(ranking, side_groups(ranking))]
    kinds = kind_groups(ranking)
    figures = [] if ranking.metrics is None else [_curve_of_ranks(ranking.metrics)]
    if kinds:
        figures.append(_bars_of_kinds(ranking))
    blocks.append(Grid(figures))
    if kinds:
        blocks.append(group_table(ranking, kinds, 'by kind of relation and predicted side'))
    else:
        blocks.append(Text('Metrics by kind of relation were not recorded.'))
    return Section('metrics', 'Metrics', blocks)


def relations_section(run: OpenedRun) -> Section:
    r"""The metrics of each relation."""
    ranking = run.ranking
    if ranking is None or ranking.relations is None:
        absent = run.absent.get('ranking') or (f'Metrics by relation were not recorded in metrics.json. '
                                               f'{run.absent.get("model") or run.absent.get("data", "")}')
        return Section('relations', 'Relations', absent=absent)
    table, about = ranking.relations, relation_facts(run.facts)
    names = [name for name in table if name == 'mrr' or str(name).startswith('hits@')]
    sides = [f'{side}.mrr' for side in _SIDES if f'{side}.mrr' in table and len(side_groups(ranking)) > 2]
    columns = [Column('relation'),
               *([Column('kind', explained='many (N) or one (1) head and tail, on average'),
                  Column('training facts', True)] if about is not None else []),
               Column('ranks', True), *(Column(metric_title(str(name)), True) for name in names),
               *(Column(f'MRR, {side.partition(".")[0]}s', True) for side in sides)]
    rows = []
    for relation, values in zip(table.index, table.to_dict('records')):
        kind, facts = ('', None) if about is None else about.get(relation, ('', None))
        rows.append([label(relation), *([label(kind or MISSING), count(facts)] if about is not None else []),
                     count(values.get('count')),
                     *(metric(values.get(name), bar=name == 'mrr') for name in names),
                     *(metric(values.get(side)) for side in sides)])
    blocks: list[Any] = []
    if about is not None and len(table) > 3:
        blocks.append(_relations_by_size(table, about))
    return Section('relations', 'Relations', [*blocks, Table(columns, rows, search=len(rows) > 15)])


def relation_facts(data: Optional[KGData]) -> Optional[dict[Any, tuple[str, int]]]:
    r"""The kind of each relation and the number of its training facts, by label, or by id without labels."""
    if data is None:
        return None
    kinds = relation_kinds(data.fact_index('train')).tolist()
    numbers = torch.bincount(data.facts('train')[:, 1], minlength=data.num_relations).tolist()
    names: Sequence[Any] = data.relation_labels or range(data.num_relations)
    return {name: (RELATION_KINDS[kind] if kind >= 0 else '', facts)
            for name, kind, facts in zip(names, kinds, numbers)}


def side_groups(ranking: Ranking) -> dict[str, str]:
    r"""The groups of all facts, and their titles: both sides, each side, the mean over relations."""
    sides = [side for side in _SIDES if side in ranking.groups]
    both = 'heads and tails' if {'tail', 'head'} <= {*sides} else 'all'
    titles = {'both': both, **{side: SIDE_TITLES[side] for side in sides}, 'macro': 'mean over relations'}
    return {name: title for name, title in titles.items() if name in ranking.groups}


def kind_groups(ranking: Ranking) -> dict[str, str]:
    r"""The groups of the kinds of relations, and their titles."""
    found = {}
    for name in ranking.groups:
        kind, _, side = name.partition('.')
        if kind in RELATION_KINDS:
            found[name] = kind if not side else f'{kind}, {side}s'
    return found


def group_table(ranking: Ranking, groups: dict[str, str], caption: str = '') -> Table:
    r"""A row for each group, and a column for each metric."""
    names = list(ranking.groups['both'])
    columns = [Column(''), *(Column(metric_title(name), True, _EXPLAINED.get(name, '')) for name in names)]
    rows = [[Cell(title, place, mark='strong' if group == 'both' else ''),
             *(metric(ranking.groups[group].get(name), name, bar=name == 'mrr') for name in names)]
            for place, (group, title) in enumerate(groups.items())]
    return Table(columns, rows, caption)


def _how(ranking: Ranking) -> str:
    r"""How the facts were ranked, in a sentence."""
    info, parts = dict(ranking.info), []
    facts, ranks = (number(value) for value in (info.pop('triples', None), ranking.groups['both'].get('count')))
    parts.append(f'{"Facts" if facts is None else f"{facts:,.0f} facts"} of the {ranking.split} split'
                 + ('.' if ranks is None else f', {ranks:,.0f} ranks.'))
    filtered = info.pop('filtered by', None)
    if filtered is not None:
        parts.append('Known facts compete.' if filtered == 'nothing' else
                     f'Other answers that are known facts ({"all splits" if filtered == "all" else filtered}) do not '
                     'compete.')
    ties = info.pop('ties', None)
    info.pop('split', None)
    rest = {**info, **({} if ties is None else {'Ties': ties})}
    return ' '.join([*parts, *(f'{str(key)[:1].upper()}{str(key)[1:]}: {value}.' for key, value in rest.items())])


def _curve_of_ranks(metrics: Metrics) -> Figure:
    traces = []
    for side, ranks in metrics.ranks.items():
        values, counts = np.unique(ranks.of(metrics.tie).cpu().numpy(), return_counts=True)
        if len(values) == 0:
            continue
        share = counts.cumsum() / counts.sum()
        if len(values) > _MOST_POINTS:
            kept = np.unique(np.geomspace(1, len(values), _MOST_POINTS).round().astype(int)) - 1
            values, share = values[kept], share[kept]
        traces.append({'type': 'scatter', 'mode': 'lines', 'name': SIDE_TITLES.get(side, side), 'x': values.tolist(),
                       'y': share.tolist(), 'line': {'shape': 'hv', 'width': 2, 'color': SIDE_COLORS.get(side)},
                       'hovertemplate': '%{y:.1%} rank at most %{x}'})
    return figure(traces, x='rank k', y='share of ranks', caption='Hits@k for every k',
                  xaxis={'type': 'log', 'dtick': 1}, yaxis={'range': [0, 1.02], 'tickformat': '.0%'})


def _bars_of_kinds(ranking: Ranking) -> Figure:
    kinds = [kind for kind in RELATION_KINDS if kind in ranking.groups]
    sides = [side for side in _SIDES if any(f'{kind}.{side}' in ranking.groups for kind in kinds)]
    traces = []
    for side in sides or ['']:
        held = [kind if not side else f'{kind}.{side}' for kind in kinds]
        groups = [ranking.groups.get(name, {}) for name in held]
        traces.append({'type': 'bar', 'name': SIDE_TITLES.get(side, 'all'), 'x': kinds,
                       'y': [values.get('mrr') for values in groups],
                       'text': [f'{values.get("count", 0):,.0f}' for values in groups],
                       'marker': {'color': SIDE_COLORS.get(side, COLORS[0])}, 'textposition': 'none',
                       'hovertemplate': 'MRR %{y:.4f}, %{text} ranks'})
    return figure(traces, y='MRR', caption='MRR by kind of relation', xaxis={'type': 'category'},
                  yaxis={'range': [0, 1]}, bargap=0.35, bargroupgap=0.08)


def _relations_by_size(table: pd.DataFrame, about: dict[Any, tuple[str, int]]) -> Figure:
    r"""A point for each relation: how well it is predicted, and how many training facts it has."""
    traces = []
    kinds = [about.get(relation, ('', 0))[0] for relation in table.index]
    for place, kind in enumerate((*RELATION_KINDS, '')):
        rows = [row for row, own in enumerate(kinds) if own == kind]
        if not rows:
            continue
        part = table.iloc[rows]
        traces.append({
            'type': 'scatter', 'mode': 'markers', 'name': kind or 'without training facts',
            'x': [max(about.get(relation, ('', 0))[1], 0.5) for relation in part.index], 'y': part['mrr'].tolist(),
            'text': [f'{shown_label(relation)}<br>{about.get(relation, ("", 0))[1]:,} training facts, '
                     f'{ranks:,.0f} ranks' for relation, ranks in zip(part.index, part['count'])],
            'marker': {'size': 9, 'opacity': 0.75, 'color': COLORS[place % len(COLORS)]},
            'hovertemplate': '%{text}<br>MRR %{y:.4f}<extra></extra>'})
    return figure(traces, x='training facts', y='MRR', caption='Each relation: MRR against its training facts',
                  xaxis={'type': 'log', 'dtick': 1}, yaxis={'range': [-0.03, 1.03]}, height=340)

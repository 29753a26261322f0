r"""What sets several runs apart: settings, metrics, relations and facts."""
from __future__ import annotations

from typing import Any, Optional, Sequence

import numpy as np
import pandas as pd

from pyg_emu.experiments.report.content import (
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
    rank,
)
from pyg_emu.experiments.report.figures import COLORS, figure, shown_label
from pyg_emu.experiments.report.metrics import kind_groups, relation_facts, side_groups
from pyg_emu.experiments.report.opened import OpenedRun
from pyg_emu.experiments.report.settings import ENTRY_TITLES, value_cell
from pyg_emu.experiments.report.summary import best_value

#: Relations of the figure, and facts of the table.
_MOST_RELATIONS, _MOST_FACTS = 20, 50
_FACT = ['head', 'relation', 'tail', 'side']


def settings_section(runs: Sequence[OpenedRun]) -> Section:
    r"""The settings in which runs differ."""
    tables, equal = [], 0
    for section, title in ENTRY_TITLES.items():
        keys = list(dict.fromkeys(key for run in runs for key in run.entries.get(section, {})))
        rows = []
        for key in keys:
            values = [run.entry(section, key) for run in runs]
            if all(value == values[0] for value in values):
                equal += 1
                continue
            rows.append([Cell(key, key), *map(value_cell, values)])
        if rows:
            tables.append(Table([Column(title), *(Column(run.name) for run in runs)], rows))
    text = Text(f'{equal} other entries are equal.' if tables else f'All {equal} entries are equal.')
    return Section('settings', 'Settings that differ', [*tables, text])


def metrics_section(runs: Sequence[OpenedRun]) -> Section:
    r"""The metrics of runs side by side."""
    ranked = [run for run in runs if run.ranking is not None]
    texts = [Text(f'{run.name}: {run.absent.get("ranking", "")}', note=True) for run in runs if run.ranking is None]
    if not ranked:
        return Section('metrics', 'Metrics', absent=' '.join(text.text for text in texts))
    different = differently_ranked(ranked)
    if different is not None:
        texts.append(Text(different, note=True))
    groups: dict[str, str] = {}
    for run in ranked:
        assert run.ranking is not None
        groups |= {name: title for name, title in side_groups(run.ranking).items() if name not in groups}
    kinds: dict[str, str] = {}
    for run in ranked:
        assert run.ranking is not None
        kinds |= {name: title for name, title in kind_groups(run.ranking).items() if name not in kinds}
    blocks = [*texts, _table(runs, groups), *([Grid([_bars(runs, kinds)])] if kinds else []),
              *([_table(runs, kinds, 'by kind of relation and predicted side', ('mrr', 'hits@10'))] if kinds else [])]
    return Section('metrics', 'Metrics', blocks)


def relations_section(runs: Sequence[OpenedRun]) -> Section:
    r"""The relations whose metrics differ most between runs."""
    tables = [None if run.ranking is None else run.ranking.relations for run in runs]
    known = [place for place, table in enumerate(tables) if table is not None and 'mrr' in table]
    if len(known) < 2:
        return Section('relations', 'Relations', absent='Metrics by relation are known of fewer than two runs.')
    mrr = pd.DataFrame({place: tables[place]['mrr'] for place in known}).dropna()  # type: ignore[index]
    if mrr.empty:
        return Section('relations', 'Relations', absent='The runs have no relation in common.')
    ranked = [runs[place] for place in known]
    comparable = differently_ranked(ranked) is None
    counts = tables[known[0]]['count'].reindex(mrr.index)  # type: ignore[index]
    share = counts / tables[known[0]]['count'].sum()  # type: ignore[index]
    # For two runs, the shares of all relations sum to the difference of the metrics over all facts.
    spread = mrr[known[1]] - mrr[known[0]] if len(known) == 2 else mrr.max(axis=1) - mrr.min(axis=1)
    effect = spread * share if comparable else spread
    order = np.argsort(-effect.abs().to_numpy(), kind='stable')
    about = next((found for run in ranked if (found := relation_facts(run.facts)) is not None), None)
    columns = [Column('relation'), *([Column('kind'), Column('training facts', True)] if about is not None else []),
               Column('ranks', True), *(Column(f'MRR, {run.name}', True) for run in ranked), Column('difference', True)]
    if comparable:
        columns.append(Column('share', True, 'of the difference over all facts: the difference of the relation times '
                                             'its share of the ranks'))
    rows = []
    for place in order.tolist():
        relation, values = mrr.index[place], mrr.iloc[place].tolist()
        best = best_value(values, 'mrr')
        kind, facts = ('', None) if about is None else about.get(relation, ('', None))
        rows.append([label(relation), *([label(kind), count(facts)] if about is not None else []),
                     count(counts.iloc[place]), *(metric(value, mark='strong' if value == best else '')
                                                  for value in values),
                     signed(spread.iloc[place]), *([signed(effect.iloc[place], 5)] if comparable else [])])
    return Section('relations', 'Relations that differ most',
                   [_contributions(mrr, effect, order, ranked, comparable),
                    Table(columns, rows, search=len(rows) > 15)])


def facts_section(runs: Sequence[OpenedRun]) -> Section:
    r"""The facts whose ranks differ most between runs."""
    ranked = [run for run in runs if run.ranking is not None and run.ranking.metrics is not None]
    if len(ranked) < 2:
        return Section('facts', 'Facts', absent='The ranks of facts are known of fewer than two runs.')
    different = differently_ranked(ranked)
    if different is not None:
        return Section('facts', 'Facts', absent=different)
    frames = [_ranked(run) for run in ranked]
    ranks = np.stack([frame['rank'].to_numpy() for frame in frames], 1)
    ratio = np.log(ranks).max(1) - np.log(ranks).min(1)
    order = np.argsort(-ratio, kind='stable')[:_MOST_FACTS]
    order = order[ratio[order] > 0]
    if len(order) == 0:
        return Section('facts', 'Facts', [Text('All facts have the same rank in all runs.')])
    columns = [Column('asked'), *(Column(name) for name in _FACT[:3]),
               *(Column(f'rank, {run.name}', True) for run in ranked)]
    rows = []
    for place in order.tolist():
        fact = frames[0].iloc[place]
        own = ranks[place].tolist()
        rows.append([label(fact['side']), *(label(fact[name], 'strong' if name == fact['side'] else '')
                                            for name in _FACT[:3]),
                     *(rank(value, 'strong' if value == min(own) else '') for value in own)])
    text = Text(f'The {len(rows)} facts with the largest ratio of ranks. The true answer and the best rank are set in '
                'bold.')
    return Section('facts', 'Facts that differ most', [text, Table(columns, rows, search=len(rows) > 15)])


def differently_ranked(runs: Sequence[OpenedRun]) -> Optional[str]:
    r"""Returns a sentence if runs have ranked different facts, or in different ways, so that their metrics cannot be
    compared.
    """
    first = runs[0].ranking
    assert first is not None
    for run in runs[1:]:
        ranking = run.ranking
        assert ranking is not None
        settings = [{key: value for key, value in part.info.items() if key not in ('graph', 'ranked against')}
                    for part in (first, ranking)]
        same = settings[0] == settings[1] and all(
            first.groups.get(name, {}).get('count') == ranking.groups.get(name, {}).get('count')
            for name in ('both', 'tail', 'head'))
        if same and first.metrics is not None and ranking.metrics is not None:
            frames = _ranked(runs[0]), _ranked(run)
            same = frames[0][_FACT].equals(frames[1][_FACT]) and frames[0]['competitors'].equals(
                frames[1]['competitors'])
        elif same:
            prints = [part.entry('data', 'facts.all.fingerprint') for part in (runs[0], run)]
            same = prints[0] == prints[1]
        if not same:
            return (f'{runs[0].name} and {run.name} did not rank the same facts in the same way (split, facts, filter, '
                    'candidates or ties): their metrics cannot be compared.')
    return None


def signed(value: Any, digits: int = 4) -> Cell:
    r"""A cell of a difference."""
    found = number(value)
    return Cell('–') if found is None else Cell(f'{found:+.{digits}f}', found)


def _ranked(run: OpenedRun) -> pd.DataFrame:
    assert run.ranking is not None and run.ranking.metrics is not None
    return run.ranking.metrics.ranked()


def _table(runs: Sequence[OpenedRun], groups: dict[str, str], caption: str = '',
           only: Optional[Sequence[str]] = None) -> Table:
    r"""A row for each group and metric, and a column for each run."""
    columns = [Column(''), Column('metric'), *(Column(run.name, True) for run in runs),
               *([Column('difference', True)] if len(runs) == 2 else [])]
    rows = []
    for place, (group, title) in enumerate(groups.items()):
        held = [{} if run.ranking is None else run.ranking.groups.get(group, {}) for run in runs]
        for name in dict.fromkeys(name for values in held for name in values):
            if name not in ('mrr', 'mr') and not name.startswith('hits@') or (only is not None and name not in only):
                continue
            values = [number(part.get(name)) for part in held]
            best = best_value(values, name)
            one, other = (values[0], values[1]) if len(values) == 2 else (None, None)
            rows.append([Cell(title, place), Cell(metric_title(name), name),
                         *(metric(value, name, mark='strong' if best is not None and value == best else '')
                           for value in values),
                         *([signed(None if one is None or other is None else other - one, 1 if name == 'mr' else 4)]
                           if len(runs) == 2 else [])])
    return Table(columns, rows, caption)


def _bars(runs: Sequence[OpenedRun], kinds: dict[str, str]) -> Figure:
    traces = []
    for place, run in enumerate(runs):
        groups = {} if run.ranking is None else run.ranking.groups
        traces.append({'type': 'bar', 'name': shown_label(run.name), 'x': list(kinds.values()),
                       'y': [groups.get(name, {}).get('mrr') for name in kinds],
                       'marker': {'color': COLORS[place % len(COLORS)]}, 'hovertemplate': '%{x}: MRR %{y:.4f}'})
    return figure(traces, y='MRR', caption='MRR by kind of relation and predicted side', xaxis={'type': 'category'},
                  yaxis={'range': [0, 1]}, bargap=0.3, bargroupgap=0.06)


def _contributions(mrr: pd.DataFrame, effect: pd.Series, order: np.ndarray, runs: Sequence[OpenedRun],
                   comparable: bool) -> Figure:
    r"""A bar for each of the relations with the largest effect."""
    kept = order[:_MOST_RELATIONS][::-1]
    names = [str(mrr.index[place]) for place in kept]
    values = effect.to_numpy()[kept]
    two = len(runs) == 2
    colors = [COLORS[1] if two and value > 0 else COLORS[0] for value in values]
    trace = {'type': 'bar', 'orientation': 'h', 'x': values.tolist(), 'y': list(range(len(names))),
             'text': [f'{shown_label(name)}<br>MRR {", ".join(f"{value:.4f}" for value in mrr.iloc[place])}'
                      for name, place in zip(names, kept)],
             'marker': {'color': colors}, 'textposition': 'none', 'hovertemplate': '%{text}<extra></extra>'}
    ticks = [shown_label(name if len(name) <= 40 else f'…{name[-39:]}') for name in names]
    what = (f'{runs[1].name} minus {runs[0].name}' if two else 'largest minus smallest')
    title = 'share of the difference in MRR over all facts' if comparable else 'difference in MRR'
    return figure([trace], x=f'{title}, {shown_label(what)}', caption='Relations with the largest effect',
                  height=90 + 20 * len(names), bargap=0.3,
                  yaxis={'tickmode': 'array', 'tickvals': list(range(len(names))), 'ticktext': ticks, 'ticks': '',
                         'showgrid': False, 'tickfont': {'size': 11.5}},
                  xaxis={'zeroline': True, 'zerolinecolor': '#9aa3af'})

r"""The profile of the data: what :meth:`~pyg_emu.KGData.report` counts, and how facts spread."""
from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pyg_emu.core.errors import PygEmuError
from pyg_emu.data.graph import KGData
from pyg_emu.experiments.report.content import Column, Figure, Grid, Section, Table, Text, count, label, number
from pyg_emu.experiments.report.figures import COLORS, figure, shown_label
from pyg_emu.experiments.report.opened import OpenedRun

#: Relations of the figure.
_MOST_RELATIONS = 25
#: Points of a curve.
_MOST_POINTS = 300


def profile_section(run: OpenedRun) -> Section:
    r"""The profile of the data of a run."""
    data = run.facts
    if data is None:
        return Section('data', 'Data', absent=run.absent['data'])
    try:
        report = data.report()
    except PygEmuError as error:
        return Section('data', 'Data', absent=f'The data cannot be used: {error}.')
    splits, further = report.tables()
    by_split = Table([Column(''), *(Column(str(name), True) for name in splits)],
                     [[label(name), *(count(number(value)) for value in values)]
                      for name, values in zip(splits.index, splits.to_numpy())], 'by split')
    others = Table([Column(''), Column('number', True)],
                   [[label(name), count(value)] for name, value in further.items()], 'of the whole graph')
    name = '' if run.data_name is None else f'{run.data_name}: '
    blocks: list[Any] = [Text(f'{name}{report["num_nodes"]:,} entities, {report["num_relations"]:,} relations.')]
    blocks += [Text(f'{sentence[:1].upper()}{sentence[1:]}.', note=True) for sentence in report.warnings]
    return Section('data', 'Data', [*blocks, Grid([_facts_of_relations(data), _facts_of_entities(data)]),
                                    Grid([by_split, others])])


def _facts_of_relations(data: KGData) -> Figure:
    numbers = torch.bincount(data.facts('train')[:, 1], minlength=data.num_relations).cpu()
    order = numbers.argsort(descending=True, stable=True)[:_MOST_RELATIONS].flip(0)
    names = [str(place) if data.relation_labels is None else data.relation_labels[place] for place in order.tolist()]
    caption = 'Training facts of each relation' + (f', the {_MOST_RELATIONS} most frequent' if
                                                   data.num_relations > _MOST_RELATIONS else '')
    trace = {'type': 'bar', 'orientation': 'h', 'x': numbers[order].tolist(), 'y': list(range(len(names))),
             'text': [shown_label(name) for name in names], 'marker': {'color': COLORS[0]}, 'textposition': 'none',
             'hovertemplate': '%{text}: %{x:,}<extra></extra>'}
    ticks = [shown_label(name if len(name) <= 28 else f'…{name[-27:]}') for name in names]
    return figure([trace], x='training facts', caption=caption, height=max(240, 70 + 17 * len(names)), bargap=0.3,
                  yaxis={'tickmode': 'array', 'tickvals': list(range(len(names))), 'ticktext': ticks, 'ticks': '',
                         'tickfont': {'size': 11}, 'showgrid': False})


def _facts_of_entities(data: KGData) -> Figure:
    facts = data.facts('train')
    degree = torch.bincount(facts[:, [0, 2]].flatten(), minlength=data.num_nodes or 0).cpu().numpy()
    values, numbers = np.unique(degree, return_counts=True)
    share = numbers[::-1].cumsum()[::-1] / max(len(degree), 1)
    values, share = values[values > 0], share[values > 0]
    if len(values) > _MOST_POINTS:
        kept = np.unique(np.geomspace(1, len(values), _MOST_POINTS).round().astype(int)) - 1
        values, share = values[kept], share[kept]
    trace = {'type': 'scatter', 'mode': 'lines', 'x': values.tolist(), 'y': share.tolist(),
             'line': {'width': 2, 'color': COLORS[0], 'shape': 'vh'},
             'hovertemplate': '%{y:.2%} of the entities are in at least %{x:,} training facts<extra></extra>'}
    return figure([trace], x='training facts', y='share of entities',
                  caption='Entities in at least so many training facts', xaxis={'type': 'log', 'dtick': 1},
                  yaxis={'type': 'log', 'dtick': 1, 'tickformat': '.1~p'},
                  height=max(240, 70 + 17 * min(data.num_relations, _MOST_RELATIONS)))


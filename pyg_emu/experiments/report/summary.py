r"""The first section: the numbers that are read first, and what is unusual about a run."""
from __future__ import annotations

from typing import Any, Optional, Sequence

from pyg_emu.evaluation.metrics import metric_mode
from pyg_emu.experiments.report.content import (
    MISSING,
    Column,
    Section,
    Table,
    Text,
    Tiles,
    count,
    label,
    metric,
    metric_text,
    metric_title,
    number,
)
from pyg_emu.experiments.report.opened import OpenedRun, Ranking
from pyg_emu.experiments.report.training import course_notes, taken_steps

_SPLITS = {'train': 'training', 'valid': 'validation', 'test': 'test'}


def summary_section(run: OpenedRun) -> Section:
    r"""The numbers of a run, and what is unusual about it."""
    tiles = []
    if run.ranking is not None:
        both, split = run.ranking.groups['both'], _SPLITS.get(run.ranking.split, run.ranking.split)
        tiles += [(metric_title(name), metric_text(number(both[name]), name), f'{split} facts')
                  for name in headline_metrics(run.ranking)]
    best, metric_name = number(run.recorded.get('best_step')), run.entry('built', 'trainer.metric') or 'mrr'
    if best is not None:
        value = number((run.recorded.get('valid') or {}).get(metric_name))
        tiles.append(('best step', f'{best:,.0f}', f'validation {metric_title(str(metric_name))} {metric_text(value)}'))
    last, total = taken_steps(run)
    if last is not None:
        tiles.append(('steps', f'{last:,}', '' if total in (None, last) else f'of {total:,}'))
    seconds = training_seconds(run)
    if seconds is not None:
        tiles.append(('training', duration(seconds), 'in training steps'))
    parameters = number(run.entry('built', 'model.parameters'))
    if parameters is not None:
        tiles.append(('parameters', f'{parameters:,.0f}', str(run.entry('built', 'model.dtype') or '')))
    texts = [Text(note, note=True) for note in [*course_notes(run), *run.notes]]
    return Section('summary', 'Summary', [Tiles(tiles), *texts])


def runs_section(runs: Sequence[OpenedRun]) -> Section:
    r"""A row for each of several runs, and what is unusual about them."""
    names = list(dict.fromkeys(name for run in runs if run.ranking for name in headline_metrics(run.ranking)))
    columns = [Column('run'), Column('model'), Column('loss'), Column('data'),
               *(Column(metric_title(name), True) for name in names), Column('best step', True), Column('steps', True),
               Column('seconds', True), Column('parameters', True)]
    best = {name: best_value([_value(run.ranking, name) for run in runs], name) for name in names}
    rows = []
    for run in runs:
        values = [_value(run.ranking, name) for name in names]
        rows.append([label(run.name, 'strong'), label(model_name(run) or MISSING), label(loss_name(run) or MISSING),
                     label(run.data_name or MISSING),
                     *(metric(value, name, mark='strong' if value is not None and value == best[name] else '')
                       for value, name in zip(values, names)),
                     count(run.recorded.get('best_step')), count(taken_steps(run)[0]), count(training_seconds(run)),
                     count(run.entry('built', 'model.parameters'))])
    texts = [Text(f'{run.name}: {note}', note=True) for run in runs for note in [*course_notes(run), *run.notes]]
    return Section('summary', 'Summary', [Table(columns, rows), *texts])


def headline_metrics(ranking: Ranking) -> list[str]:
    r"""The metrics that are read first: MRR, and Hits@k for the smallest and the largest :math:`k`."""
    hits = [name for name in ranking.groups['both'] if name.startswith('hits@') and name[5:].isdigit()]
    hits.sort(key=lambda name: int(name[5:]))
    return [name for name in dict.fromkeys(('mrr', *hits[:1], *hits[-1:])) if name in ranking.groups['both']]


def best_value(values: Sequence[Optional[float]], name: str) -> Optional[float]:
    r"""The best of several values of a metric; :obj:`None` if all are equal or missing."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 2 or name.rpartition('.')[2] == 'count':
        return None
    return (max if metric_mode(name, None) == 'max' else min)(known)


def model_name(run: OpenedRun) -> Optional[str]:
    r"""The name of the model."""
    found = run.entry('settings', 'model.name') or run.entry('built', 'model.class')
    return None if found is None else str(found).rpartition('.')[2]


def loss_name(run: OpenedRun) -> Optional[str]:
    r"""The name of the loss."""
    found = run.entry('settings', 'loss.name') or run.entry('built', 'criterion')
    return None if found is None else str(found).partition('(')[0].rpartition('.')[2]


def training_seconds(run: OpenedRun) -> Optional[float]:
    r"""The time of all training steps."""
    return number(run.history['seconds'].max()) if 'seconds' in run.history else None


def duration(seconds: float) -> str:
    r"""A time as text: :obj:`"12.3 s"`, :obj:`"4.1 min"`, :obj:`"2.0 h"`."""
    if seconds < 60:
        return f'{seconds:.1f} s'
    return f'{seconds / 60:.1f} min' if seconds < 3600 else f'{seconds / 3600:.1f} h'


def _value(ranking: Optional[Ranking], name: str) -> Optional[float]:
    return None if ranking is None else number(ranking.groups['both'].get(name))


def subtitle(run: OpenedRun) -> str:
    r"""What was trained: model, loss and data."""
    parts: list[Any] = [model_name(run), loss_name(run), run.data_name]
    return ' · '.join(str(part) for part in parts if part)

r"""The course of training: curves of one run, or of several, and how the run has ended."""
from __future__ import annotations

import math
from typing import Any, Optional, Sequence

import pandas as pd

from pyg_emu.evaluation.metrics import DIRECTIONS
from pyg_emu.experiments.report.content import Choice, Figure, Grid, Section, Text, metric_title, number
from pyg_emu.experiments.report.figures import COLORS, figure, shown_label
from pyg_emu.experiments.report.opened import OpenedRun

#: Columns of the history that are axes, and those that tell how the run was made rather than what came of it.
_AXES, _LAST = ('step', 'seconds'), ('grad_norm', 'lr', 'steps_per_second')
_TITLES = {'loss': 'Loss', 'lr': 'Learning rate', 'grad_norm': 'Gradient norm', 'steps_per_second': 'Steps per second'}
#: From how many points on a curve is drawn without markers.
_MANY = 60


def training_section(run: OpenedRun) -> Section:
    r"""The curves of a run."""
    if 'history' in run.absent:
        return Section('training', 'Training', absent=run.absent['history'])
    history, panels = run.history, []
    if 'loss' in history:
        panels.append(_panel('Loss, mean since the last evaluation', [_curve(history, 'loss', 'loss', COLORS[0])]))
    shares, others = _validation_columns(history)
    if shares:
        curves = [_curve(history, name, metric_title(name.removeprefix('valid_')), COLORS[place % len(COLORS)])
                  for place, name in enumerate(shares)]
        panels.append(_panel('Validation', [*curves, *_best(run, shares)]))
    for name in others:
        title = metric_title(name.removeprefix('valid_'))
        panels.append(_panel(f'Validation, {title}', [_curve(history, name, title, COLORS[0])]))
    for name in _terms(history):
        panels.append(_panel(_TITLES.get(name, name), [_curve(history, name, name, COLORS[0])], height=230))
    return Section('training', 'Training', [Choice(), Grid(panels)])


def curves_section(runs: Sequence[OpenedRun]) -> Section:
    r"""The curves of several runs over each other."""
    there = [run for run in runs if 'history' not in run.absent]
    texts = [Text(f'{run.name}: {run.absent["history"]}', note=True) for run in runs if 'history' in run.absent]
    names = list(dict.fromkeys(name for run in there for name in ('loss', *_columns(run.history))
                               if not name.startswith(('valid_ndcg@', 'valid_amri'))))
    panels = []
    for name in names:
        held = [(place, run) for place, run in enumerate(runs) if run in there and name in run.history]
        if not held or (name != 'loss' and not name.startswith('valid_') and len(held) < 2):
            continue
        title = (f'Validation, {metric_title(name.removeprefix("valid_"))}' if name.startswith('valid_') else
                 _TITLES.get(name, name))
        panels.append(_panel(title, [_curve(run.history, name, run.name, COLORS[place % len(COLORS)])
                                     for place, run in held]))
    if not panels:
        return Section('training', 'Training', absent=' '.join(text.text for text in texts))
    if len({run.entry('built', 'criterion') for run in there}) > 1:
        texts.append(Text('The runs have different losses, whose values cannot be compared.'))
    return Section('training', 'Training', [*texts, Choice(), Grid(panels)])


def course_notes(run: OpenedRun) -> list[str]:
    r"""How the run has ended, if it has not taken all steps, and whether it was validated."""
    if 'history' in run.absent:
        return [run.absent['history']]
    notes, history = [], run.history
    total, last = _num_steps(run), int(history['step'].max())
    validated = any(str(name).startswith('valid_') for name in history)
    if not validated:
        notes.append('The run was trained without validation. Its last weights count as the best.')
    if total is not None and last < total:
        patience = number(run.entry('built', 'trainer.patience'))
        limit = number(run.entry('built', 'trainer.max_seconds'))
        best = number(run.recorded.get('best_step'))
        since = 0 if best is None else int((history['step'] > best).sum())
        seconds = number(history['seconds'].max()) if 'seconds' in history else None
        if patience is not None and since >= patience:
            notes.append(f'Training stopped early at step {last:,} of {total:,}: {since} validations brought no new '
                         'best.')
        elif limit is not None and seconds is not None and seconds >= limit:
            notes.append(f'Training stopped at step {last:,} of {total:,} after {seconds:,.0f} seconds, which '
                         'max_seconds allows.')
        else:
            notes.append(f'Training is not complete: the last evaluation was at step {last:,} of {total:,}. The run '
                         'was interrupted or is still going on; the same command continues it.')
    return notes


def taken_steps(run: OpenedRun) -> tuple[Optional[int], Optional[int]]:
    r"""The step of the last evaluation, and the number of steps that were asked for, as far as they are known."""
    last = None if 'history' in run.absent else int(run.history['step'].max())
    return last, _num_steps(run)


def _num_steps(run: OpenedRun) -> Optional[int]:
    for section, key in (('built', 'trainer.num_steps'), ('settings', 'num_steps')):
        found = number(run.entry(section, key))
        if found is not None:
            return int(found)
    return None


def _columns(history: pd.DataFrame) -> list[str]:
    shares, others = _validation_columns(history)
    return [*shares, *others, *_terms(history)]


def _validation_columns(history: pd.DataFrame) -> tuple[list[str], list[str]]:
    r"""The validation metrics that are shares of 1, and the others."""
    shares: list[str] = []
    others: list[str] = []
    for name in map(str, history.columns):
        kind = name.removeprefix('valid_')
        if not name.startswith('valid_') or kind == 'count' or history[name].isna().all():
            continue
        known = kind.partition('@')[0] in DIRECTIONS and kind not in ('mr', 'loss')
        (shares if known else others).append(name)
    return shares, others


def _terms(history: pd.DataFrame) -> list[str]:
    r"""The other columns that change: terms of the loss and of other parts, then what :obj:`_LAST` names."""
    names = [name for name in map(str, history.columns)
             if name not in (*_AXES, 'loss') and not name.startswith('valid_') and history[name].nunique() > 1]
    return [*(name for name in names if name not in _LAST), *(name for name in _LAST if name in names)]


def _curve(history: pd.DataFrame, column: str, name: str, color: str) -> dict[str, Any]:
    rows = history[history[column].notna()]
    steps = rows['step'].astype(int).tolist()
    seconds = rows['seconds'].tolist() if 'seconds' in rows else None
    return {'type': 'scatter', 'mode': 'lines+markers' if len(rows) < _MANY else 'lines', 'name': shown_label(name),
            'x': steps, 'y': [_plain(value) for value in rows[column]], 'line': {'color': color, 'width': 2},
            'marker': {'size': 5}, 'meta': {'step': steps, 'seconds': seconds}, 'hovertemplate': '%{y:.5g}'}


def _plain(value: float) -> Optional[float]:
    return float(value) if math.isfinite(value) else None


def _best(run: OpenedRun, names: Sequence[str]) -> list[dict[str, Any]]:
    r"""The best validation, as a point."""
    step, name = number(run.recorded.get('best_step')), f'valid_{run.entry("built", "trainer.metric") or "mrr"}'
    if step is None or name not in names:
        return []
    rows = run.history[run.history['step'] == step]
    if rows.empty:
        return []
    point = _curve(rows, name, 'best', '#1f2733')
    return [{**point, 'mode': 'markers', 'marker': {'size': 11, 'symbol': 'star', 'color': '#1f2733'}}]


def _panel(title: str, curves: Sequence[dict[str, Any]], height: int = 290) -> Figure:
    return figure(curves, x='step', height=height, caption=title, course=True, hovermode='x unified')

r"""Baselines that got the same search as EMU, from the results of :mod:`benchmarks.search`: how much of EMU's lead is
left against each.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence

from benchmarks import _markdown as md
from benchmarks._markdown import Part, Results
from benchmarks._record import lookup, read_results, spread
from benchmarks._significance import Sample, welch
from benchmarks._variations import tuned_emu

#: The settings by their name in files, in the order of tables that have no results.
SETTINGS = {
    'emu': 'EMU, L3', 'emu-n3': 'EMU, N3', 'uls': 'ULS alone, L3', 'uls-n3': 'ULS alone, N3',
    'uniform-l3': 'uniform negatives, L3', 'uniform-n3': 'uniform negatives, N3',
    'label-smoothing': 'uniform negatives, ordinary label smoothing, L3',
    'confidence-penalty': 'uniform negatives, confidence penalty, L3',
    'self-adversarial': 'self-adversarial negatives, L3'}
#: The settings with EMU, whose leads over the others are told.
_EMU = ('emu-n3', 'emu')
#: The models, whose searches begin with their names.
MODELS = {'distmult': 'DistMult', 'complex': 'ComplEx'}
#: A run of each model with the settings of `tuned`, whose curve shows what a trial with them would have reached.
_TUNED = {'distmult': 'curves_fb15k237/emu-triple-0.61-seed0'}


class _Row(NamedTuple):
    r"""A setting: its final runs and its search."""
    name: str
    title: str
    runs: Results
    search: Optional[dict[str, Any]]

    @property
    def mrr(self) -> list[float]:
        return md.mrr_of(self.runs)


def budgets(folder: Path) -> Part:
    r"""Returns the final runs of all searches of DistMult and ComplEx, the highest test MRR first."""
    lines = [['model', 'setting', 'MRR', 'Hits@10', 'in the search', 'steps', 'seeds'], ['---', '---', *['---:'] * 5]]
    said: list[str] = []
    used: Results = []
    for model, title in MODELS.items():
        for row in _rows(model, folder):
            used += row.runs
            steps = row.runs[0]['metrics']['recipe']['num_steps']
            lines.append([title, row.title, md.mean(row.mrr, 4), md.mean(md.mrr_of(row.runs, 'hits@10')),
                          _in_search(row), f'{steps:,}', str(len(row.runs))])
            if row.name == f'{model}-emu' and model in _TUNED:
                text, results = _missed(row, _TUNED[model], folder)
                said, used = said + text, used + results
    return (md.table(lines) + ''.join(f'\n\n{text}' for text in said) if used else ''), used


def leads(folder: Path) -> Part:
    r"""Returns the lead of EMU over each baseline that got the same search, with both penalties after its own search,
    and with the settings of ``tuned``.
    """
    lines = [['model', 'against', 'EMU, N3', 'EMU, L3', 'EMU, `tuned`'], ['---', '---', *['---:'] * 3]]
    used: Results = []
    for model, title in MODELS.items():
        rows = {row.name: row for row in _rows(model, folder)}
        found = [rows.pop(f'{model}-{name}', None) for name in _EMU]
        with_emu = [[] if row is None else row.runs for row in found] + [tuned_emu(title, folder) if rows else []]
        if not any(with_emu):
            continue
        for row in rows.values():
            lines.append([title, row.title, *(_lead(md.mrr_of(runs), row.mrr) for runs in with_emu)])
            used += row.runs
        used += [result for runs in with_emu for result in runs] if rows else []
    return (f'{md.table(lines)}\n\nDifferences of the mean test MRR, ± their standard error, and the p-values of '
            "Welch's t-test over the seeds." if used else ''), used


def unsearched(folder: Path) -> dict[str, list[str]]:
    r"""Returns the settings without final runs, for each model with some."""
    found = {title: {row.name for row in _rows(model, folder)} for model, title in MODELS.items()}
    return {title: [what for name, what in SETTINGS.items() if f'{model}-{name}' not in found[title]]
            for model, title in MODELS.items() if found[title]}


def chosen(folder: Path) -> Part:
    r"""Returns the settings that the searches chose."""
    lines = [['model', 'setting', 'trials', 'pruned', 'chosen'], ['---', '---', '---:', '---:', '---']]
    used = []
    for model, title in MODELS.items():
        for name, what in SETTINGS.items():
            for result in read_results(f'search/{model}-{name}', folder):
                lines.append([title, what, *_trials(result['metrics']), _settings(result['metrics'])])
                used.append(result)
    return (md.table(lines) if used else ''), used


def nbfnet(folder: Path) -> Part:
    r"""Returns NBFNet on fb237_v1 with EMU and with its own loss after searches of equal size."""
    lines = [['NBFNet on fb237_v1', 'Hits@10 (50 negatives)', 'MRR', 'trials', 'pruned', 'chosen', 'seeds'],
             ['---', '---:', '---:', '---:', '---:', '---', '---:']]
    found: dict[str, Results] = {}
    for key, title in (('emu', 'EMU'), ('bce', 'its own loss')):
        runs, searches = read_results(f'tuned/nbfnet-v1-{key}-seed*', folder), read_results(f'search/nbfnet-v1-{key}',
                                                                                            folder)
        if runs and searches:
            found[key] = runs
            metrics = searches[0]['metrics']
            lines.append([title, *(md.mean(md.mrr_of(runs, metric)) for metric in ('hits@10 (50 negatives)', 'mrr')),
                          *_trials(metrics), _settings(metrics), str(len(runs))])
    text = md.table(lines) if found else ''
    if len(found) == 2:
        lead, error = md.difference(*(md.mrr_of(found[key]) for key in ('emu', 'bce')))
        text += f'\n\nMRR with EMU minus that without: {md.signed(lead, error)}{_verdict(lead, error)}.'
    return text, [result for runs in found.values() for result in runs]


def _row(name: str, title: str, folder: Path) -> Optional[_Row]:
    runs = read_results(f'tuned/{name}-seed*', folder)
    searches = read_results(f'search/{name}', folder)
    return _Row(name, title, runs, searches[0]['metrics'] if searches else None) if runs else None


def _rows(model: str, folder: Path) -> list[_Row]:
    found = [row for name, what in SETTINGS.items() if (row := _row(f'{model}-{name}', what, folder)) is not None]
    return sorted(found, key=lambda row: -spread(row.mrr)[0])


def _lead(ours: Sequence[float], theirs: Sequence[float]) -> str:
    if not ours:
        return '-'
    lead, error = md.difference(ours, theirs)
    if error is None:
        return f'{md.signed(lead)} (one seed)'
    p = welch(*(Sample(*spread(values), len(values)) for values in (ours, theirs)))
    return f'{md.signed(lead, error)}, p {"< 0.001" if p < 0.001 else f"= {p:.3f}"}'


def _in_search(row: _Row) -> str:
    return '-' if row.search is None else f'{row.search["value"]:.3f}'


def _trials(metrics: dict[str, Any]) -> list[str]:
    outcomes = [trial['outcome'] for trial in metrics['trials']]
    return [str(len(outcomes)), str(outcomes.count('pruned'))]


def _settings(metrics: dict[str, Any]) -> str:
    r"""The values that a search chose for what it varied."""
    found = []
    for key in metrics['space']:
        value = lookup(metrics['recipe'], key)
        if isinstance(metrics['space'][key], dict) and value is not None:
            short = key.removeprefix('loss.').removeprefix('negatives.').removeprefix('optimizer.')
            found.append(f'{short} {value:.3g}' if isinstance(value, float) else f'{short} {value}')
    return ', '.join(found)


def _missed(emu: _Row, tuned: str, folder: Path) -> tuple[list[str], Results]:
    r"""That the search for EMU missed better settings, where those of `tuned` reach more in the steps of a trial."""
    if emu.search is None:
        return [], []
    steps, value = emu.search['recipe']['num_steps'], emu.search['value']
    for result in read_results(tuned, folder):
        for point in result['metrics']['curve']:
            if point['step'] == steps and point['mrr'] > value:
                return [f"EMU's search missed better settings: its best trial has a validation MRR of {value:.3f} "
                        f'after {steps:,} steps, and a run with the settings of `tuned` has {point["mrr"]:.3f} after '
                        'as many.'], [result]
    return [], []


def _verdict(lead: float, error: Optional[float]) -> str:
    if error is None:
        return ' (one seed)'
    return '' if md.is_clear(lead, error) else ' (within two standard errors)'


#: The blocks of this module, by the name in their marker.
TEXTS: dict[str, Callable[[Path], Part]] = {
    'reproduction-budgets': budgets, 'reproduction-leads': leads, 'reproduction-chosen': chosen,
    'nbfnet-search': nbfnet}

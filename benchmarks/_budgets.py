r"""Baselines that got the same search as EMU, from the results of :mod:`benchmarks.search`: how much of EMU's lead is
left against each.
"""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Sequence

from benchmarks import _markdown as md
from benchmarks._markdown import Part, Results
from benchmarks._record import lookup, read_results, spread
from benchmarks._variations import tuned_emu

#: The settings by their name in files, in the order of tables that have no results.
SETTINGS = {
    'emu': 'EMU', 'emu-n3': 'EMU, N3', 'uls': 'unbounded label smoothing alone',
    'uls-n3': 'unbounded label smoothing alone, N3', 'uniform-l3': 'uniform negatives, L3',
    'uniform-n3': 'uniform negatives, N3', 'label-smoothing': 'ordinary label smoothing',
    'confidence-penalty': 'confidence penalty', 'self-adversarial': 'self-adversarial negatives'}
#: The settings with EMU, whose leads a sentence names.
_EMU = ('emu', 'emu-n3')
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
    r"""Returns the final runs of all searches of DistMult and ComplEx, the highest test MRR first, and the lead of EMU
    over each setting, after its own search and with the settings of ``tuned``.
    """
    lines = [['model', 'setting', 'MRR', 'Hits@10', "EMU's lead", 'lead of `tuned`', 'in the search', 'steps', 'seeds'],
             ['---', '---', *['---:'] * 7]]
    said, used = [], []
    for model, title in MODELS.items():
        rows = [row for name, what in SETTINGS.items() if (row := _row(f'{model}-{name}', what, folder)) is not None]
        emu, with_n3 = (next((row for row in rows if row.name == f'{model}-{name}'), None) for name in _EMU)
        tuned = tuned_emu(title, folder) if rows else []
        used += tuned
        rows.sort(key=lambda row: -spread(row.mrr)[0])
        for row in rows:
            used += row.runs
            lead = None if emu is None or row is emu else md.difference(emu.mrr, row.mrr)
            steps = row.runs[0]['metrics']['recipe']['num_steps']
            other = md.difference(md.mrr_of(tuned), row.mrr) if tuned else None
            lines.append([title, row.title, md.mean(row.mrr), md.mean(md.mrr_of(row.runs, 'hits@10')),
                          *('-' if pair is None else md.signed(*pair) for pair in (lead, other)),
                          _in_search(row), f'{steps:,}', str(len(row.runs))])
        for name, row in (('EMU', emu), ('EMU and N3', with_n3)):
            leads = [(other.title, *md.difference(row.mrr, other.mrr)) for other in rows
                     if row is not None and other is not row]
            if leads:
                said.append(_sentence(f'{title} with {name}', leads))
        if emu is not None and model in _TUNED:
            text, results = _missed(emu, _TUNED[model], folder)
            said, used = said + text, used + results
    return (md.table(lines) + ''.join(f'\n\n{text}' for text in said) if used else ''), used


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


def _sentence(what: str, leads: Sequence[tuple[str, float, Optional[float]]]) -> str:
    parts = [f'{abs(lead):.4f} {"above" if lead >= 0 else "below"} {title}{_verdict(lead, error)}'
             for title, lead, error in leads]
    return f'{what} is {"; ".join(parts)}.'


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
    'reproduction-budgets': budgets, 'reproduction-chosen': chosen, 'nbfnet-search': nbfnet}

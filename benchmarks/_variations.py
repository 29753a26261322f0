r"""Runs that differ from a recorded one in named settings: what each change of ``tuned`` brings, and other graphs."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Mapping, Optional

from benchmarks import _markdown as md
from benchmarks._markdown import Part, Results
from benchmarks._record import read_results, spread
from benchmarks._reproduction import entries, recorded_by_length
from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.experiments.sections import replaced_settings

#: The validation MRR to which the seconds are told, by model.
TARGETS = {'DistMult': 0.345, 'ComplEx': 0.355}
# Settings without an effect on what is learned, and the length, which has a column of its own.
_ASIDE = ('seed', 'description', 'dataset', 'num_steps', 'evaluate_every', 'checkpoint_every', 'validation',
          'evaluation')


def beyond(folder: Path) -> Part:
    r"""Returns the runs of the group ``beyond``: what they change in EMU as ``tuned`` has it, and what that brings over
    the longest run of ``tuned``.
    """
    lines = [['model', 'change to `tuned`', 'MRR', 'difference', 'Hits@10', 'validation MRR', 'steps', 'training, s',
              's to the target', 'seeds'], ['---', '---', *['---:'] * 8]]
    used: Results = []
    said: list[str] = []
    every = read_results('beyond/*-seed*', folder)
    for model, target in TARGETS.items():
        base = tuned_emu(model, folder)
        if not base:
            continue
        groups = [runs for _, runs in md.by_setting(every) if runs[0]['metrics']['recipe']['model']['name'] == model]
        for runs in [base, *sorted(groups, key=lambda runs: -spread(md.mrr_of(runs))[0])]:
            change = 'none' if runs is base else _told(base, runs)
            gain = '-' if runs is base else md.signed(*md.difference(md.mrr_of(runs), md.mrr_of(base)))
            each = [run['metrics'] for run in runs]
            lines.append([model, change, md.mean(md.mrr_of(runs)), gain, md.mean(md.mrr_of(runs, 'hits@10')),
                          md.mean([metrics['valid_mrr'] for metrics in each]),
                          f'{each[0]["recipe"]["num_steps"]:,}',
                          f'{sum(metrics["seconds"] for metrics in each) / len(each):.0f}',
                          _seconds_to(target, each), str(len(runs))])
            used += runs
        if groups:
            said.append(_conclusion(model, target, base, groups))
    if len(lines) == 2:
        return '', []
    targets = md.listed([f'{target} for {model}' for model, target in TARGETS.items()])
    return '\n\n'.join([md.table(lines), f'"The target" is a validation MRR of {targets}. A dash: not reached, or not '
                        'recorded.', *said]), used


def changes(base: Results, runs: Results) -> list[str]:
    r"""Returns the settings in which the recipe of runs differs from that of others, as in a recipe. Of another class,
    these are its name and what is not its default.
    """
    recipe, other = (_whole(results[0]['metrics']['recipe']) for results in (runs, base))
    ours, theirs, usual = _flat(recipe), _flat(other), _flat(_bare(recipe))
    found = []
    for key, value in ours.items():
        section = key.partition('.')[0]
        is_new = ours.get(f'{section}.name') != theirs.get(f'{section}.name') and key != f'{section}.name'
        if section in _ASIDE or value == (usual.get(key) if is_new else theirs.get(key)):
            continue
        if isinstance(value, Mapping):
            without: Any = usual.get(key) if isinstance(usual.get(key), Mapping) else {}
            value = {name: entry for name, entry in value.items() if name == 'name' or entry != without.get(name)}
            value = value['name'] if len(value) == 1 else value
        found.append(f'{key}: {_shown(value)}')
    return found


def other_graphs(folder: Path) -> Part:
    r"""Returns uniform negatives and EMU on NELL-995, for all models."""
    lines = [['NELL-995', 'uniform negatives, L3', 'EMU', 'difference', 'Hits@10, uniform', 'Hits@10, EMU', 'steps',
              'seeds'],
             ['---', *['---:'] * 7]]
    used = []
    for model in ('DistMult', 'ComplEx', 'TransE', 'RotatE'):
        uniform, emu = (read_results(f'nell995/{model.lower()}-{name}-seed*', folder) for name in ('uni', 'uni-emu'))
        if uniform and emu:
            pair = uniform, emu
            lines.append([model, *(md.mean(md.mrr_of(runs)) for runs in pair),
                          md.signed(*md.difference(md.mrr_of(emu), md.mrr_of(uniform))),
                          *(md.mean(md.mrr_of(runs, 'hits@10')) for runs in pair),
                          f'{emu[0]["metrics"]["recipe"]["num_steps"]:,}', str(len(emu))])
            used += [*uniform, *emu]
    return (md.table(lines) if used else ''), used


def smoothing_on_wn18rr(folder: Path) -> Part:
    r"""Returns label smoothing alone on WN18RR, which the paper's Table 8 does not have."""
    lines = [['WN18RR', 'MRR', 'Hits@10', 'steps', 'seeds'], ['---', *['---:'] * 4]]
    used = []
    for model in ('DistMult', 'ComplEx', 'TransE', 'RotatE'):
        runs = read_results(f'wn18rr/{model.lower()}-uls-seed*', folder)
        if runs:
            lines.append([f'{model}, unbounded label smoothing alone', md.mean(md.mrr_of(runs)),
                          md.mean(md.mrr_of(runs, 'hits@10')),
                          f'{runs[0]["metrics"]["recipe"]["num_steps"]:,}', str(len(runs))])
            used += runs
    return (md.table(lines) if used else ''), used


def tuned_emu(model: str, folder: Path) -> Results:
    r"""Returns the longest runs on FB15k-237 of EMU on uniform negatives as ``tuned`` has it."""
    for entry in entries('Table 8', 'tuned'):
        if (entry.row.dataset, entry.row.model, entry.row.method) == ('FB15k-237', model, 'uni_EMU'):
            found = recorded_by_length(entry, folder)
            return found[max(found)] if found else []
    return []


def _told(base: Results, runs: Results) -> str:
    return ', '.join(f'`{text}`' for text in changes(base, runs))


def _conclusion(model: str, target: float, base: Results, groups: list[Results]) -> str:
    r"""Which change is the best on the validation facts, by which changes are chosen, and whether a run reaches the
    target.
    """
    best = max(groups, key=lambda runs: spread([run['metrics']['valid_mrr'] for run in runs])[0])
    gain = md.signed(*md.difference(md.mrr_of(best), md.mrr_of(base)))
    reached = any(_seconds_to(target, [run['metrics']]) != '-' for runs in (base, *groups) for run in runs)
    return (f'{model}: of {len(groups)} recorded changes, {_told(base, best)} has the best validation MRR (test MRR '
            f'{gain}). {"A" if reached else "No"} run reaches the target.')


def _seconds_to(target: float, each: list[dict[str, Any]]) -> str:
    r"""The mean seconds of training after which all runs had a validation MRR."""
    found: list[Optional[float]] = [
        next((point['seconds'] for point in metrics.get('curve', []) if point['mrr'] >= target), None)
        for metrics in each]
    times = [seconds for seconds in found if seconds is not None]
    return f'{sum(times) / len(times):.0f}' if len(times) == len(each) else '-'


def _whole(recipe: Mapping[str, Any]) -> dict[str, Any]:
    r"""A recorded recipe with the settings that recipes have got since, and without those that had no effect."""
    gone = replaced_settings('negatives', recipe['negatives'])
    kept = {key: value for key, value in recipe['negatives'].items() if key not in gone}
    return load_recipe({**recipe, 'negatives': kept}, trained=True).to_dict()


def _bare(recipe: Mapping[str, Any]) -> dict[str, Any]:
    r"""A recipe of the same classes with the defaults of their arguments."""
    def named(value: Any) -> Any:
        return {'name': value['name']} if isinstance(value, Mapping) and 'name' in value else value

    parts = {key: named(value) for key, value in recipe.items() if isinstance(value, Mapping) and 'name' in value}
    parts['negatives'] = {key: named(value) for key, value in recipe['negatives'].items()
                          if isinstance(value, Mapping)}
    try:
        return load_recipe({'dataset': recipe['dataset'], **parts}).to_dict()
    except RecipeError:  # An argument without a default: all are shown.
        return {}


def _flat(settings: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        # A part of another class is told whole.
        if isinstance(value, Mapping) and not (prefix and 'name' in value):
            found |= _flat(value, f'{prefix}{key}.')
        else:
            found[f'{prefix}{key}'] = value
    return found


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return '{' + ', '.join(f'{key}: {_shown(entry)}' for key, entry in value.items()) + '}'
    if value is None or isinstance(value, bool):
        return {None: 'null', True: 'true', False: 'false'}[value]
    return f'{value:g}' if isinstance(value, float) else str(value)


#: The blocks of this module, by the name in their marker.
TEXTS: dict[str, Callable[[Path], Part]] = {
    'reproduction-beyond': beyond, 'reproduction-nell995': other_graphs,
    'reproduction-wn18rr-smoothing': smoothing_on_wn18rr}

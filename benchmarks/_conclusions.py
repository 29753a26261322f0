r"""What the recorded runs say about each paper: which printed values they reproduce, and what each part of a method
adds. These are the first blocks of the pages ``docs/reproduction*.md``. The tables below them name the commands.
"""
from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NamedTuple, Optional, Sequence

from benchmarks import _budgets
from benchmarks import _markdown as md
from benchmarks._markdown import Part, Results
from benchmarks._record import read_results, spread
from benchmarks._reproduction import Entry, entries, method_name, recipe_of, recorded, recorded_by_length
from benchmarks.dans_paper import DECODERS
from benchmarks.paper import DATASETS, MODELS, TABLES
from benchmarks.paper_runs import READINGS
from benchmarks.papers import paper_of

#: The tolerance for agreement with the paper's values. The standard deviation over the paper's own seeds is 0.001.
AGREES = 0.005
#: The tables of the EMU paper whose MRR can be compared. Table 10 has lost its MRR.
_SOURCES = [f'Table {number}' for number in TABLES if number != 10]
_DATASET = DATASETS[0]
#: What the paper's names of methods mean.
_METHODS = {
    'uni': 'uniform negatives, L3', 'without_EMU': 'uniform negatives, L3',
    'uni_EMU': 'EMU', 'EMU': 'EMU', 'unbounded_LS': 'EMU',
    'without_mutation': 'label smoothing without mutation', 'without_ULS': 'mutation without label smoothing',
    'vanilla_LS': 'EMU with ordinary label smoothing', 'uni_MIXUP': 'Mixup in place of mutation',
    'SAN': 'SANS, L3', 'SAN_EMU': 'EMU on SANS'}


class _Value(NamedTuple):
    r"""A printed value, the tables that print it, and its runs."""
    entry: Entry
    printed: float
    sources: list[str]
    results: Results

    @property
    def difference(self) -> float:
        return _mean(self.results) - self.printed


class _Gain(NamedTuple):
    r"""What is added to what, and the runs with and without it."""
    dataset: str
    model: str
    added: str
    to: str
    printed: Optional[float]
    with_it: Results
    without: Results


def agrees_with_paper(difference: float) -> bool:
    r"""Returns whether a difference from a printed value, before it is rounded, is at most :data:`AGREES`."""
    return abs(difference) <= AGREES


def agreement(agrees: bool, folder: Path) -> Part:
    r"""Returns the values of the EMU paper on FB15k-237 that have runs and agree with them, or those that do not."""
    values = [value for value in _values(folder) if value.results and agrees_with_paper(value.difference) == agrees]
    if not values:
        return '', []
    if not agrees:
        values.sort(key=lambda value: -abs(value.difference))
    lines = [['model', 'setting', 'table', 'MRR paper', 'ours', 'difference', 'steps', 'seeds'],
             ['---', '---', '---', *['---:'] * 5]]
    for entry, printed, sources, results in values:
        tables = ', '.join(source.removeprefix('Table ') for source in sources)
        lines.append([entry.row.model, _setting(entry), tables, f'{printed:.3f}', md.mean(md.mrr_of(results)),
                      md.signed(_mean(results) - printed), f'{_steps(results):,}', str(len(results))])
    return md.table(lines), []


def summary(folder: Path) -> Part:
    r"""Returns how many values of the EMU paper have runs and agree, and EMU and its baseline for each model."""
    values = list(_values(folder))
    run = [value for value in values if value.results]
    if not run:
        return 'Too little has been run for conclusions.', []
    agreeing = [value for value in run if agrees_with_paper(value.difference)]
    settings = len({value.entry.path for value in run})
    said = [f'The tables of the paper print {len(values)} MRR values on {_DATASET}. {len(run)} of them have a recorded '
            f'run, of {settings} settings. {len(agreeing)} values agree with the paper.']
    for method, name in (('uni', 'Uniform negatives with L3'), ('uni_EMU', 'EMU on uniform negatives')):
        found = {value.entry.row.model: value for value in run
                 if value.entry.row.method == method and 'Table 8' in value.sources}
        if found:
            said.append(f'{name}: {_verdicts(found)}.')
    return '\n'.join(f'- {text}' for text in said), []


def missing(folder: Path) -> Part:
    r"""Returns the datasets, tables, readings and models of the EMU paper without a run, and how many have one seed."""
    found = [(number, entry.row.dataset, reading) for number in TABLES for reading in READINGS
             for entry in entries(f'Table {number}', reading) if recorded(entry, folder)]
    if not found:
        return '', []
    tables, datasets, readings = map(set, zip(*found))
    values = list(_values(folder))
    seeds = [len(value.results) for value in values if value.results]
    smoothing = {value.entry.row.model for value in values
                 if value.results and value.entry.row.method == 'without_mutation'}
    without = {
        'Datasets without a recorded run': [name for name in DATASETS if name not in datasets],
        'Tables without a recorded run': [str(number) for number in TABLES if number not in tables],
        'Readings without a recorded run': [f'`{name}`' for name in READINGS if name not in readings],
        'Models without a recorded run of label smoothing alone': [name for name in MODELS if name not in smoothing]}
    lines = [f'- {what}: {md.listed(names)}.' for what, names in without.items() if names]
    lines += [f'- {model}, without a run after a search of equal size: {"; ".join(names)}.'
              for model, names in _budgets.unsearched(folder).items() if names]
    return '\n'.join([*lines, f'- Values with a single seed: {seeds.count(1)} of {len(seeds)}.']), []


def parts(folder: Path) -> Part:
    r"""Returns what each part of EMU adds on FB15k-237, for every model with the runs that it takes."""
    def gain(model: str, added: str, to: str, with_it: tuple[str, str], without: tuple[str, str]) -> Optional[_Gain]:
        one, other = (next((entry for entry in entries(source, 'tuned') if entry.row.dataset == _DATASET
                            and (entry.row.model, entry.row.method) == (model, method)), None)
                      for source, method in (with_it, without))
        if one is None or other is None:
            return None
        return _Gain(_DATASET, model, added, to, _printed_gain(one, other), *_of_one_length(one, other, folder))

    uniform, smoothing, emu = ('Table 8', 'uni'), ('Table 13', 'without_mutation'), ('Table 8', 'uni_EMU')
    per_negative = read_results('beyond/distmult-mask-per-negative-seed*', folder)
    # DistMult, which has all of them, comes first.
    models = sorted(MODELS, key=lambda model: (model != 'DistMult', model))
    gains: list[Optional[_Gain]] = []
    for model in models:
        mutated = gain(model, 'mutation, one mask per triple', 'label smoothing', emu, smoothing)
        both = [mutated]
        if mutated is not None and model == 'DistMult':
            both.append(mutated._replace(added='mutation, one mask per negative as in the paper', with_it=per_negative))
        gains += [gain(model, 'label smoothing', 'uniform negatives', smoothing, uniform),
                  *(each and each._replace(added=f'{each.added}, rate {_rate(each.with_it)}') for each in both),
                  gain(model, 'mutation without label smoothing', 'uniform negatives', ('Table 13', 'without_ULS'),
                       uniform)]
    for to, with_it, without in (('uniform negatives', emu, uniform),
                                 ('SANS', ('Table 8', 'SAN_EMU'), ('Table 8', 'SAN')),
                                 ('NSCaching', ('Table 10', 'NSCaching_EMU'), ('Table 10', 'NSCaching'))):
        gains += [gain(model, 'both (EMU)', to, with_it, without) for model in models]
    return _gains([each for each in gains if each is not None and each.with_it and each.without], dataset=False), []


def demix_gains(folder: Path) -> Part:
    r"""Returns what DeMix adds to self-adversarial and to uniform negatives, wherever both have runs."""
    found = []
    rows = [entry for number in (2, 3, 4) for entry in entries(f'DeMix Table {number}', 'demix')]
    for entry in rows:
        for method, name in (('Self-Adv', 'self-adversarial negatives'), ('Uniform', 'uniform negatives')):
            other = next((each for each in rows if each.row.method == method
                          and (each.row.dataset, each.row.model) == (entry.row.dataset, entry.row.model)), None)
            if entry.row.method == 'DeMix-Adv' and other is not None:
                runs = _of_one_length(entry, other, folder)
                if all(runs):
                    found.append(_Gain(entry.row.dataset, entry.row.model, 'DeMix-Adv', name,
                                       _printed_gain(entry, other), *runs))
    return _gains(found, dataset=True), []


def dans_ranks(folder: Path, dataset: str = 'UMLS') -> Part:
    r"""Returns the place of DANS among the five samplers of its Table 2, in the paper and here, and the pre-training
    that all of them start from.
    """
    lines = [['decoder', 'best in the paper', 'place of DANS', 'pre-training alone', 'best here', 'DANS here',
              'place of DANS', 'steps', 'seeds'], ['---', '---', '---:', '---:', '---', *['---:'] * 4]]
    for decoder in DECODERS:
        found = [entry for entry in entries('DANS Table 2', 'dans')
                 if (entry.row.dataset, entry.row.model) == (dataset, decoder)]
        runs = {entry.row.method: recorded(entry, folder) for entry in found}
        seeds = set.intersection(*({result['seed'] for result in results} for results in runs.values()))
        if not seeds:
            continue
        printed = {entry.row.method: entry.row.metrics['mrr'].mean or 0.0 for entry in found}
        here = {method: _mean([result for result in results if result['seed'] in seeds])
                for method, results in runs.items()}
        cells = []
        for values in (printed, here):
            order = sorted(values, key=lambda method: -values[method])
            cells += [f'{order[0]}, {values[order[0]]:.3f}', str(1 + order.index('DANS'))]
        before = _pretraining(found[0], _steps(runs['DANS']), seeds, folder)
        lines.append([decoder, *cells[:2], md.mean(md.mrr_of(before)), cells[2], f'{here["DANS"]:.3f}', cells[3],
                      f'{_steps(runs["DANS"]):,}', str(len(seeds))])
    return (md.table(lines) if len(lines) > 2 else ''), []


def _pretraining(entry: Entry, steps: int, seeds: set[int], folder: Path) -> Results:
    r"""The pre-trainings of the length that belongs to runs of a number of steps."""
    assert entry.path is not None and entry.pretraining is not None
    whole, part = (recipe_of(path).num_steps for path in (entry.pretraining, entry.path))
    results = recorded(replace(entry, path=entry.pretraining), folder, whole * steps // part)
    return [result for result in results if result['seed'] in seeds]


def _values(folder: Path) -> Iterator[_Value]:
    r"""The MRR values that the EMU paper prints for settings on FB15k-237, each setting and value once."""
    found: dict[tuple[Any, float], _Value] = {}
    for source in _SOURCES:
        for entry in entries(source, paper_of(source).readings[-1]):
            printed = entry.row.metrics['mrr'].mean
            if entry.row.dataset != _DATASET or printed is None:
                continue
            key = entry.path or (entry.row.source, entry.row.model, method_name(entry.row)), printed
            if key in found:
                found[key].sources.append(source)
            else:
                found[key] = _Value(entry, printed, [source], recorded(entry, folder))
    yield from sorted(found.values(), key=lambda value: (value.entry.row.model, _setting(value.entry)))


def _of_one_length(one: Entry, other: Entry, folder: Path) -> tuple[Results, Results]:
    r"""The runs of both rows of the largest number of steps that both have, or else the longest of each."""
    first, second = recorded_by_length(one, folder), recorded_by_length(other, folder)
    steps = max(set(first) & set(second), default=None)
    if steps is None:
        return recorded(one, folder), recorded(other, folder)
    return first[steps], second[steps]


def _printed_gain(one: Entry, other: Entry) -> Optional[float]:
    values = [entry.row.metrics.get('mrr', (None, None))[0] for entry in (one, other)]
    return None if values[0] is None or values[1] is None else values[0] - values[1]


def _gains(gains: Sequence[_Gain], dataset: bool) -> str:
    if not gains:
        return ''
    first = ['dataset', 'model'] if dataset else ['model']
    lines = [[*first, 'added', 'to', 'paper', 'here', 'steps', 'seeds'],
             [*['---'] * (len(first) + 2), *['---:'] * 4]]
    for gain in gains:
        pair = gain.with_it, gain.without
        here = md.signed(*md.difference(*map(md.mrr_of, pair)))
        lines.append([*([gain.dataset] if dataset else []), gain.model, gain.added, gain.to,
                      '-' if gain.printed is None else f'{gain.printed:+.3f}', here,
                      _both(f'{_steps(results):,}' for results in pair), _both(str(len(results)) for results in pair)])
    return (f'{md.table(lines)}\n\nDifferences of the mean test MRR, ± the standard error of the difference where both '
            'have several seeds.')


def _verdicts(found: dict[str, _Value]) -> str:
    same = [f'{model} ({_mean(value.results):.3f})' for model, value in found.items()
            if agrees_with_paper(value.difference)]
    others = [f'{model} is {abs(value.difference):.4f} {"above" if value.difference > 0 else "below"} the paper '
              f'({_mean(value.results):.3f}, paper {value.printed:.3f})'
              for model, value in found.items() if not agrees_with_paper(value.difference)]
    first = f'{md.listed(same)} agree{"s" if len(same) == 1 else ""} with the paper'
    return '; '.join([*([first] if same else []), *others])


def _setting(entry: Entry) -> str:
    row = entry.row
    if row.source == 'Table 12':
        return 'EMU, alpha {}, n_P/d {}, beta {}'.format(*row.method.split(','))
    _, *sizes = method_name(row).split(', ')
    return ', '.join([_METHODS.get(row.method, method_name(row).partition(', ')[0]), *sizes])


def _both(values: Iterable[str]) -> str:
    return ' / '.join(dict.fromkeys(values))


def _mean(results: Results) -> float:
    return spread(md.mrr_of(results))[0]


def _steps(results: Results) -> int:
    steps: int = results[0]['metrics']['recipe']['num_steps']
    return steps


def _rate(results: Results) -> str:
    return str(results[0]['metrics']['recipe']['negatives']['mutation_rate']) if results else '-'


#: The blocks of this module, by the name in their marker.
TEXTS: dict[str, Callable[[Path], Part]] = {
    'reproduction-summary': summary, 'reproduction-agreeing': partial(agreement, True),
    'reproduction-differing': partial(agreement, False), 'reproduction-parts': parts, 'reproduction-missing': missing,
    'demix-gains': demix_gains, 'dans-ranks': dans_ranks,
}

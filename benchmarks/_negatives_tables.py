r"""The ranked table, the picture and the sentences about the results of :mod:`benchmarks.negatives`."""
from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import pandas as pd

from benchmarks import _markdown as md
from benchmarks._markdown import Part
from benchmarks._negatives import METHODS, SETTINGS, Variant, variants
from benchmarks._plots import save
from benchmarks._record import lookup, read_results, spread
from benchmarks._significance import holm, paired

_LENGTHS = ('seconds', 'search_seconds', 'search_trials')
#: The level of tests against uniform negatives, for all methods together.
LEVEL = 0.05
# Sentences name at most so many methods.
_LISTED = 8


@dataclass(frozen=True)
class Row:
    r"""The results of a method, one per seed.

    Args:
        variant (Variant): The method.
        results (list): The results.
    """
    variant: Variant
    results: list[dict[str, Any]]

    def values(self, metric: str) -> list[float]:
        r"""Returns a test metric of all seeds."""
        return [result['metrics']['test'][metric] for result in self.results]

    def each(self, key: str) -> list[float]:
        r"""Returns a number of all seeds, without those that lack it."""
        values = [result['metrics'][key] for result in self.results]
        return [value for value in values if value is not None]

    def after(self, key: str, limit: float) -> list[float]:
        r"""Returns the best validation MRR up to a number of steps or seconds for all seeds, or nothing if a run ended
        before.
        """
        found = []
        for result in self.results:
            curve = result['metrics']['curve']
            if not curve or curve[-1][key] < limit:
                return []
            found.append(max((point['mrr'] for point in curve if point[key] <= limit), default=math.nan))
        return found if all(value == value for value in found) else []

    @property
    def mrr(self) -> float:
        r"""The mean MRR on the test facts."""
        return spread(self.values('mrr'))[0]


def rows_of(dataset: str, folder: Path) -> list[Row]:
    r"""Returns the methods with results, the highest MRR first: those of the searches and lengths that most results
    have, and of the current recipes.
    """
    every = read_results(f'negatives/{dataset}/*-seed*', folder)
    if not every:
        return []
    lengths = _usual(every)
    rows = []
    for variant in variants():
        own = [result for result in every if _lengths(result) == lengths
               and (result['metrics']['method'], result['metrics']['emu']) == (variant.name, variant.with_emu)
               and _is_current(variant, dataset, result)]
        if own:
            rows.append(Row(variant, own))
    return sorted(rows, key=lambda row: -row.mrr)


def difference(one: Row, other: Row) -> tuple[float, Optional[float]]:
    r"""Returns the difference of the mean MRR of two methods and its standard error, :obj:`None` with fewer than two
    seeds of one of them. Over the seeds of both, which share initial weights and the order of the facts, differences
    are paired.
    """
    ours, theirs = _by_seed(one), _by_seed(other)
    seeds = sorted(ours.keys() & theirs.keys())
    if len(seeds) < 2:
        return one.mrr - other.mrr, None
    mean, deviation = spread(ours[seed] - theirs[seed] for seed in seeds)
    return mean, deviation / math.sqrt(len(seeds))


def is_clear(one: Row, other: Row) -> bool:
    r"""Returns whether two methods differ by more than two standard errors."""
    return md.is_clear(*difference(one, other))


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    r"""Writes the numbers of the table."""
    lines = []
    for row in rows:
        line: dict[str, Any] = {'method': row.variant.key, 'label': row.variant.title, 'seeds': len(row.results)}
        for metric in ('mrr', 'hits@1', 'hits@10'):
            line[metric], line[f'{metric} std'] = spread(row.values(metric))
        line['step_ms'], line['steps'] = spread(row.each('step_ms'))[0], spread(row.each('steps'))[0]
        line['peak_mib'] = next(iter(row.each('peak_mib')), None)
        lines.append(line)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f'.{path.name}')
    pd.DataFrame(lines).to_csv(partial, index=False, float_format='%.6g')
    partial.replace(path)
    return path


def draw(rows: Sequence[Row], dataset: str, path: Path) -> Path:
    r"""Draws the MRR of all methods with two standard errors of the mean, and the time of a step."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    ordered = list(reversed(rows))
    figure, (accuracy, time) = plt.subplots(1, 2, figsize=(10, 1.2 + 0.26 * len(rows)), layout='constrained',
                                            sharey=True, width_ratios=(2, 1))
    for place, row in enumerate(ordered):
        mean, deviation = spread(row.values('mrr'))
        colour = 'C1' if row.variant.with_emu or row.variant.name == 'emu' else 'C0'
        accuracy.errorbar(mean, place, xerr=md.CLEAR * deviation / math.sqrt(len(row.results)), fmt='o', color=colour,
                          capsize=3)
        time.barh(place, spread(row.each('step_ms'))[0], color=colour)
    accuracy.set(yticks=range(len(ordered)), yticklabels=[row.variant.title for row in ordered],
                 xlabel='filtered MRR, test facts; bars: two standard errors', title=dataset)
    time.set(xlabel='ms per training step', xscale='log', ylim=(-0.7, len(ordered) - 0.3))
    accuracy.grid(alpha=0.3)
    time.grid(alpha=0.3, axis='x')
    handles = [plt.Line2D([], [], marker='o', linestyle='', color=colour) for colour in ('C0', 'C1')]
    accuracy.legend(handles, ['alone', 'with EMU'], fontsize=8, loc='upper left')
    return save(figure, path)


def ranking(folder: Path, dataset: str) -> Part:
    r"""Returns the ranked table, what was searched, and what is missing."""
    rows = rows_of(dataset, folder)
    if not rows:
        return '', []
    best, setting, lengths = rows[0], SETTINGS[dataset], _usual(rows[0].results)
    first = next((value for row in rows if row.variant.key == 'uniform' for value in row.each('peak_mib')), None)
    quarter = lengths[0] / 4
    header = ['', 'negatives', 'MRR', 'Hits@1', 'Hits@10', 'from the first', f'after {quarter:g} s',
              f'after {setting.steps:,} steps', 'ms a step', 'steps', 'best at step', 'extra MiB', 'seeds']
    lines = [header, ['---:', '---', *['---:'] * (len(header) - 2)]]
    for number, row in enumerate(rows, start=1):
        memory = row.each('peak_mib')
        extra = '-' if first is None or not memory else str(round(memory[0] - first))
        lines.append([str(number), row.variant.title, *(md.mean(row.values(metric)) for metric in
                                                       ('mrr', 'hits@1', 'hits@10')),
                      _behind(best, row), md.mean(row.after('seconds', quarter)),
                      md.mean(row.after('step', setting.steps)),
                      f'{spread(row.each("step_ms"))[0]:.1f}', f'{spread(row.each("steps"))[0]:,.0f}',
                      f'{spread(row.each("best_step"))[0]:,.0f}', extra,
                      str(len(row.results))])
    text = md.table(lines)
    notes = [f'{dataset}, DistMult, {lengths[0]:g} s of training steps with each seed after '
             + (f'a search of {lengths[2]} times {lengths[1]:g} s' if lengths[2] else 'no search')
             + '. Columns "after": the best validation MRR so far. "From the first": the difference of the mean MRR '
             'over the seeds of both ± its standard error; "tie" where it is at most two standard errors.']
    ranked = {lookup(row.results[0]['metrics'], 'recipe.validation.max_triples') for row in rows} - {None}
    if ranked:
        notes.append(f'Validations rank {max(ranked):,} facts only, so that the columns "after" are not to be compared '
                     'with the test MRR.')
    if first is not None:
        notes.append(f'Peak memory of uniform negatives: {first:.0f} MiB.')
    missing = [variant.title for variant in variants() if variant.key not in [row.variant.key for row in rows]]
    if missing:
        notes.append(f'Not run: {", ".join(missing)}.')
    picture = f'../benchmarks/results/negatives/{dataset}.png'
    if (folder / 'negatives' / f'{dataset}.png').exists():
        notes.append(f'\n\n![MRR and step time of all methods on {dataset}]({picture})')
    return f'{text}\n\n{" ".join(notes)}', [result for row in rows for result in row.results]


def effect_of_emu(folder: Path, dataset: str) -> Part:
    r"""Returns what EMU adds to each method."""
    rows = {row.variant.key: row for row in rows_of(dataset, folder)}
    pairs = [(name, rows[name], rows[other]) for name in METHODS
             if name in rows and (other := {'uniform': 'emu'}.get(name, f'{name}-emu')) in rows]
    if not pairs:
        return '', []
    header = ['negatives', 'alone', 'with EMU', 'difference', '']
    lines = [header, ['---', *['---:'] * 3, '---']]
    counts: Counter[str] = Counter()
    for name, alone, with_emu in pairs:
        mean, error = difference(with_emu, alone)
        verdict = ('with a single seed' if error is None else 'tie' if not is_clear(with_emu, alone) else
                   'higher' if mean > 0 else 'lower')
        counts[verdict] += 1
        lines.append([METHODS[name].title, md.mean(alone.values('mrr')), md.mean(with_emu.values('mrr')),
                      md.signed(mean, error), verdict])
    text = md.table(lines)
    told = ', '.join(f'{counts[name]} {name}{"s" if name == "tie" and counts[name] > 1 else ""}'
                     for name in ('higher', 'tie', 'lower', 'with a single seed') if counts[name])
    said = f'MRR with EMU compared to without, on {dataset}, for {len(pairs)} kinds of negatives: {told}.'
    compared = [(with_emu.mrr > alone.mrr, p) for (_, alone, with_emu), p in
                zip(pairs, holm([_paired(with_emu, alone) for _, alone, with_emu in pairs])) if p < LEVEL]
    if counts['with a single seed'] < len(pairs):
        higher = sum(above for above, _ in compared)
        said += (f' By paired t-tests at a level of {LEVEL}, adjusted for their number (Holm): {higher or "none"} '
                 f'higher, {len(compared) - higher or "none"} lower.')
    return f'{text}\n\n{said}', []


def costs(folder: Path) -> Part:
    r"""Returns what other benchmarks have recorded about the cost of single methods."""
    said, used = [], []
    for name, key, text in (
            ('speed/steps', 'emu over vanilla, mask per triple',
             '**EMU**, one mask for all negatives of a fact: {} times a step without mutation'),
            ('speed/shared', 'own over shared', '**Shared** negatives: steps {} times as fast as with own ones'),
            ('speed/demix*', 'demix over self-adversarial, refresh included',
             '**DeMix**: {} times a self-adversarial step')):
        found = read_results(name, folder)
        values = [value for result in found for value in _ratios(result['metrics']['ratios'], key)]
        if values:
            said.append(f'- {text.format(f"{min(values):.1f} to {max(values):.1f}")}, over the models measured.')
            used += found
    for result in read_results('sans/*', folder):
        metrics = result['metrics']
        said.append(f'- **SANS** on FB15k-237, {metrics["label"]}: {metrics["prepare_s"]:.1f} s before the first '
                    f'batch, {metrics["kept_mib"]:.0f} MiB kept.')
        used.append(result)
    return '\n'.join(said), used


def _ratios(found: Any, key: str) -> list[float]:
    r"""Returns all values below a key that begins with :obj:`key`, at any depth."""
    values = []
    for name, inner in found.items():
        if isinstance(inner, dict):
            if name.startswith(key) and 'value' in inner:
                values.append(inner['value'])
            else:
                values += _ratios(inner, key)
    return values


def guide(folder: Path) -> Part:
    r"""Returns what the results say about the choice, as a list for each dataset."""
    parts = [text for dataset in ('UMLS', 'FB15k-237') if (text := _advice(rows_of(dataset, folder), dataset))]
    return '\n\n'.join(parts), []


def significant(rows: Sequence[Row], base: Row) -> list[Row]:
    r"""Returns the methods whose MRR differs from that of another one over the seeds of both: by paired t-tests at a
    level of 0.05, adjusted for the number of methods (Holm).
    """
    others = [row for row in rows if row is not base and len(_by_seed(row).keys() & _by_seed(base).keys()) > 1]
    return [row for row, p in zip(others, holm([_paired(row, base) for row in others])) if p < LEVEL]


def _paired(row: Row, base: Row) -> float:
    r"""The p-value of a paired t-test over the seeds of both; 1 if they have no two in common."""
    ours, theirs = _by_seed(row), _by_seed(base)
    seeds = sorted(ours.keys() & theirs.keys())
    return paired([ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]) if len(seeds) > 1 else 1.0


def _advice(rows: Sequence[Row], dataset: str) -> str:
    if len(rows) < 2:
        return ''
    best = rows[0]
    if any(difference(best, row)[1] is None for row in rows[1:]):
        order = ', '.join(f'{row.variant.title} {row.mrr:.3f}' for row in rows[:_LISTED])
        which = 'All' if all(len(row.results) == 1 for row in rows) else 'Some'
        return (f'{dataset}, DistMult:\n\n- MRR, highest first: {order}.\n- {which} methods have a single seed. Which '
                'differences are ties is therefore not known.')
    ties = [row for row in rows[1:] if not is_clear(best, row)]
    fastest = min([best, *ties], key=lambda row: spread(row.each('step_ms'))[0])
    said = [f'Highest MRR: {best.variant.title}, {md.mean(best.values("mrr"))}.',
            f'Tied with it: {_names(ties) or "none"}.',
            f'Fastest step of these: {fastest.variant.title}, {spread(fastest.each("step_ms"))[0]:.1f} ms.']
    uniform = next((row for row in rows if row.variant.key == 'uniform'), None)
    if uniform is not None:
        found = significant(rows, uniform)
        above = [row for row in found if row.mrr > uniform.mrr]
        below = [row for row in found if row.mrr < uniform.mrr]
        said += [f'Significantly above uniform negatives ({md.mean(uniform.values("mrr"))}): '
                 f'{_names(above) or "none"}.', f'Significantly below uniform negatives: {_names(below) or "none"}.']
    return '\n'.join([f'{dataset}, DistMult:\n', *(f'- {text}' for text in said)])


def _names(rows: Sequence[Row]) -> str:
    if len(rows) > _LISTED:
        return f'{len(rows)} methods, {rows[-1].variant.title} the lowest'
    return ', '.join(row.variant.title for row in rows)


def _behind(best: Row, row: Row) -> str:
    if row is best:
        return '-'
    mean, error = difference(best, row)
    return md.signed(-mean, error) + ('' if error is None or is_clear(best, row) else ', tie')


def _by_seed(row: Row) -> dict[int, float]:
    return {result['seed']: result['metrics']['test']['mrr'] for result in row.results}


def _lengths(result: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(result['metrics']['settings'][key] for key in _LENGTHS)


def _usual(results: Sequence[dict[str, Any]]) -> tuple[Any, ...]:
    return Counter(map(_lengths, results)).most_common(1)[0][0]


def _is_current(variant: Variant, dataset: str, result: dict[str, Any]) -> bool:
    if variant.missing() is not None:
        return True
    recipe: str = result['metrics']['settings']['recipe']
    return variant.recipe(dataset).hash() == recipe


#: All blocks, by the name in their marker.
TEXTS: dict[str, Callable[[Path], Part]] = {
    'negatives-umls': lambda folder: ranking(folder, 'UMLS'),
    'negatives-umls-emu': lambda folder: effect_of_emu(folder, 'UMLS'),
    'negatives-fb15k237': lambda folder: ranking(folder, 'FB15k-237'),
    'negatives-fb15k237-emu': lambda folder: effect_of_emu(folder, 'FB15k-237'),
    'negatives-guide': guide, 'negatives-costs': costs,
}

r"""Whether the methods of a table differ by more than their seeds, in the paper and here."""
from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

from benchmarks import _markdown as md
from benchmarks._markdown import Part
from benchmarks._record import spread
from benchmarks._reproduction import Entry, entries, recorded
from benchmarks.dans_paper import DECODERS, SEEDS


class Sample(NamedTuple):
    r"""The mean of a number of seeds."""
    mean: float
    std: float
    seeds: int


def anova(samples: Sequence[Sample]) -> float:
    r"""Returns the p-value of a one-way analysis of variance from means and standard deviations of equally many seeds:
    the probability that means of equal methods would differ so much.
    """
    from scipy.stats import f

    seeds, groups = samples[0].seeds, len(samples)
    if any(sample.seeds != seeds for sample in samples):
        raise ValueError(f'samples: expected equally many seeds, got {[sample.seeds for sample in samples]}')
    within = sum(sample.std**2 for sample in samples) / groups
    between = seeds * spread(sample.mean for sample in samples)[1]**2
    if within == 0:
        return 0.0 if between > 0 else 1.0
    return float(f.sf(between / within, groups - 1, groups * (seeds - 1)))


def blocked(columns: Sequence[Sequence[float]]) -> float:
    r"""Returns the p-value of an analysis of variance of methods that share their seeds, with the seed as a block: what
    a seed adds to all methods alike does not count as their spread.

    Args:
        columns (sequence of sequences): The values of each method, one per seed, in the same order of seeds.
    """
    import numpy as np
    from scipy.stats import f

    values = np.asarray(columns, dtype=float)
    methods, seeds = values.shape
    of_methods, of_seeds = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    left = ((values - of_methods - of_seeds + values.mean())**2).sum() / ((methods - 1) * (seeds - 1))
    between = seeds * ((of_methods - values.mean())**2).sum() / (methods - 1)
    if left == 0:
        return 0.0 if between > 0 else 1.0
    return float(f.sf(between / left, methods - 1, (methods - 1) * (seeds - 1)))


def welch(one: Sample, other: Sample) -> float:
    r"""Returns the p-value of Welch's t-test of two means."""
    from scipy.stats import ttest_ind_from_stats

    return float(ttest_ind_from_stats(*one, *other, equal_var=False).pvalue)


def paired(one: Sequence[float], other: Sequence[float]) -> float:
    r"""Returns the p-value of a paired t-test over seeds."""
    from scipy.stats import ttest_rel

    gains = [left - right for left, right in zip(one, other)]
    if max(gains) - min(gains) < 1e-12:  # No spread but that of rounding: the test is not defined.
        return 1.0 if one[0] == other[0] else 0.0
    return float(ttest_rel(one, other).pvalue)


def holm(values: Sequence[float]) -> list[float]:
    r"""Returns p-values adjusted for their number by the method of Holm."""
    order = sorted(range(len(values)), key=values.__getitem__)
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def dans_significance(folder: Path, dataset: str = 'UMLS', metric: str = 'mrr') -> Part:
    r"""Returns DANS against each other sampler of its Table 2: the differences, the p-values adjusted for the four
    comparisons of a decoder, and for each decoder that of all five methods.
    """
    header = ['decoder', 'DANS against', 'paper', 'p', 'here', 'p', 'seeds']
    lines = [header, ['---', '---', *['---:'] * (len(header) - 2)]]
    said, used = [], []
    for decoder in DECODERS:
        found = [entry for entry in entries('DANS Table 2', 'dans')
                 if (entry.row.dataset, entry.row.model) == (dataset, decoder)]
        printed = [Sample(*_printed(entry, metric), SEEDS) for entry in found]
        ours = [_by_seed(entry, folder, metric) for entry in found]
        used += [result for entry in found for result in recorded(entry, folder)]
        seeds = sorted(set.intersection(*(set(values) for values in ours)))
        theirs = holm([welch(printed[-1], sample) for sample in printed[:-1]])
        tests: list[Optional[float]] = [None] * (len(found) - 1)
        if len(seeds) > 1:
            columns = [[values[seed] for seed in seeds] for values in ours]
            tests = [*holm([paired(columns[-1], column) for column in columns[:-1]])]
        for entry, sample, p, values, test in zip(found, printed, theirs, ours, tests):
            here = spread(ours[-1][seed] - values[seed] for seed in seeds)[0] if seeds else None
            lines.append([decoder, entry.row.method, f'{printed[-1].mean - sample.mean:+.3f}', _p(p),
                          'not run' if here is None else f'{here:+.3f}', _p(test), str(len(seeds)) if seeds else '-'])
        parts = [f'paper {_told(anova(printed))}']
        if len(seeds) > 1:
            parts.append(f'here {_told(blocked(columns))}')
        said.append(f'{decoder}: {", ".join(parts)}')
    return (f"{md.table(lines)}\n\nTest MRR on {dataset}. Paper: Welch's t-test from the printed means and deviations "
            f'of {SEEDS} seeds; here: paired t-test over the seeds that all five methods have; both adjusted for four '
            'comparisons (Holm). Whether the five methods differ at all, by an analysis of variance, one-way for the '
            f'printed values and with the seeds as blocks here: {"; ".join(said)}.'), used


def _printed(entry: Entry, metric: str) -> tuple[float, float]:
    cell = entry.row.metrics[metric]
    assert cell.mean is not None and cell.std is not None, f'{entry.title}: expected printed values'
    return cell.mean, cell.std


def _by_seed(entry: Entry, folder: Path, metric: str) -> dict[int, float]:
    return {result['seed']: result['metrics']['test'][metric] for result in recorded(entry, folder)}


def _told(value: float) -> str:
    return f'p {_p(value)}' if value < 0.001 else f'p = {_p(value)}'


def _p(value: Optional[float]) -> str:
    if value is None or math.isnan(value):
        return '-'
    return '< 0.001' if value < 0.001 else f'{value:.3f}'

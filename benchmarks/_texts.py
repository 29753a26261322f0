r"""Generated text blocks of README.md and the pages in docs.

Each block is generated from the files under ``benchmarks/results`` and names missing results. A block is a pair of its
Markdown and the results that it uses.
"""
from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

from benchmarks import _budgets, _conclusions, _cost_model, _negatives_tables, _variations
from benchmarks import _markdown as md
from benchmarks._conclusions import agrees_with_paper
from benchmarks._markdown import Part, Results
from benchmarks._record import read_results, spread
from benchmarks._reproduction import entries, frame, markdown, recorded
from benchmarks._significance import dans_significance
from benchmarks.paper import MODELS, Row
from benchmarks.paper_runs import READINGS
from benchmarks.papers import paper_of

_CURVES = 'curves_fb15k237'
#: The captions of the contenders of :mod:`benchmarks.speed` in the memory table.
_CONTENDERS = {'vanilla': 'without mutation', 'emu_triple': 'EMU, one mask per triple',
               'emu_negative': 'EMU, one mask per negative', 'eager_vanilla': 'eager, without mutation',
               'eager_emu_triple': 'eager EMU, one mask per triple',
               'eager_emu_negative': 'eager EMU, one mask per negative', 'pykeen_vanilla': 'PyKEEN, without mutation'}
#: The columns of a trial that are no settings.
_OF_TRIALS = ('trial', 'outcome', 'best_step', 'steps', 'seconds')
#: The rows of the paper for a model with EMU, with label smoothing only, and with uniform negatives.
_EMU, _SMOOTHING, _UNIFORM = ('Table 8', 'uni_EMU'), ('Table 13', 'without_mutation'), ('Table 8', 'uni')


def headline(folder: Path) -> Part:
    r"""Returns the table and the plot of :mod:`benchmarks.headline`."""
    found = {result['name'].partition('/')[2]: result for result in read_results('headline/*', folder)}
    if 'emu' not in found:
        return '', []
    results = sorted(found.values(), key=lambda result: -result['metrics']['test']['mrr'])
    machine, target = found['emu']['machine'], found['emu']['metrics']['target']
    lines = [f'| DistMult (d = 100) on FB15k-237, {machine["threads"]} threads | validation MRR {target:.2f} after | '
             'best validation MRR | test MRR | steps | seconds |', f'| --- | {" | ".join(["---:"] * 5)} |']
    for result in results:
        metrics = result['metrics']
        label = metrics['label'].replace('PyKEEN', f'PyKEEN {result["versions"]["pykeen"]}')
        reached = metrics['seconds_to_target']
        lines.append(f'| {label} | {"not reached" if reached is None else f"{reached:.0f} s"} | '
                     f'{metrics["valid_mrr"]:.3f} | {metrics["test"]["mrr"]:.3f} | {metrics["steps"]:,} | '
                     f'{metrics["seconds"]:.0f} |')
    picture = '![Validation MRR against seconds of training](benchmarks/results/headline/headline.png)'
    return '\n'.join([*lines, '', picture]), results


def shares(folder: Path) -> Part:
    r"""Returns the fraction of DistMult's gain by EMU that label smoothing alone achieves, over the seeds that all runs
    of the first row have in common, or else over the single runs of :func:`curves`.
    """
    keys = {'uniform': _UNIFORM, 'smoothing': _SMOOTHING, 'EMU': _EMU}
    every = {name: _recorded(key, 'DistMult', 'tuned', folder) for name, key in keys.items()}
    seeds = set.intersection(*({result['seed'] for result in group} for group in every.values()))
    found = {name: [result for result in group if result['seed'] in seeds] for name, group in every.items()}
    if not seeds:
        found = {name: read_results(f'{_CURVES}/{run}-seed*', folder) for name, run in
                 (('uniform', 'uniform-l3'), ('smoothing', 'uls'), ('EMU', 'emu-triple-0.61'))}
    if not all(found.values()):
        return 'Too little has been run to tell how much of the gain is due to mutation.', []
    results = [result for group in found.values() for result in group]
    mrr = {name: spread(result['metrics']['test']['mrr'] for result in group)[0] for name, group in found.items()}
    whole, smoothing = mrr['EMU'] - mrr['uniform'], mrr['smoothing'] - mrr['uniform']
    searched = [read_results(f'tuned/distmult-{name}-n3-seed*', folder) for name in ('uniform', 'uls', 'emu')]
    text = (f'DistMult on FB15k-237, test MRR: {mrr["uniform"]:.3f} with uniform negatives and L3, '
            f'{mrr["smoothing"]:.3f} with unbounded label smoothing alone, {mrr["EMU"]:.3f} with EMU (one mask per '
            'triple).')
    if whole > 0:
        text += (f' Label smoothing alone brings {smoothing / whole:.0%} of what EMU gains over uniform negatives, and '
                 f'mutation {1 - smoothing / whole:.0%}.')
        if all(searched):
            low, middle, high = (spread(md.mrr_of(runs))[0] for runs in searched)
            text += (f' After searches of equal size, all three with N3, label smoothing brings '
                     f'{(middle - low) / (high - low):.0%}.')
            results += [result for runs in searched for result in runs]
    else:
        text += ' EMU gains nothing over uniform negatives here.'
    return f'{text} Number of seeds: {len(found["EMU"])}.', results


def readings(folder: Path) -> Part:
    r"""Returns the results of each model with EMU on FB15k-237 in each reading of the paper, on both splits."""
    lines = [['reading', *MODELS], ['---', *['---:'] * len(MODELS)]]
    printed = [_row(_EMU, model) for model in MODELS]
    lines.append(['the paper prints', *(md.mean([row.metrics['mrr'].mean]) for row in printed)])
    verdicts, results = [], []
    for reading in READINGS:
        cells, on_valid = [], []
        for model, row in zip(MODELS, printed):
            found = _recorded(_EMU, model, reading, folder)
            results += found
            values = [result['metrics']['test']['mrr'] for result in found]
            cells.append(f'{md.mean(values)} ({_length(found)})' if found else 'not run')
            on_valid.append(md.mean([_valid(result['metrics']) for result in found]))
            if found and row.metrics['mrr'].mean is not None:
                verdicts.append(f'{model} as `{reading}` {_verdict(spread(values)[0] - row.metrics["mrr"].mean)}')
        lines += [[f'`{reading}`', *cells], [f'`{reading}`, validation split', *on_valid]]
    said = f'{_sentence(verdicts)}.' if verdicts else 'None of them has been run yet.'
    return f'{md.table(lines)}\n\n{said}', results


def first_row(folder: Path) -> Part:
    r"""Returns the results of DistMult: uniform negatives, label smoothing alone, and EMU with both kinds of masks."""
    per_negative = read_results('beyond/distmult-mask-per-negative-seed*', folder)
    found = [('uniform negatives, L3', _recorded(_UNIFORM, 'DistMult', 'tuned', folder), _UNIFORM),
             ('unbounded label smoothing alone', _recorded(_SMOOTHING, 'DistMult', 'tuned', folder), _SMOOTHING),
             ('EMU, one mask per triple', _recorded(_EMU, 'DistMult', 'tuned', folder), _EMU),
             ('EMU, one mask per negative', per_negative, _EMU)]
    lines = [['DistMult', 'MRR', 'Hits@10', 'paper: MRR', 'Hits@10', 'steps', 'seeds'], ['---', *['---:'] * 6]]
    for label, results, key in found:
        printed = _row(key, 'DistMult').metrics
        cells = [md.mean([result['metrics']['test'][metric] for result in results]) if results else 'not run'
                 for metric in ('mrr', 'hits@10')]
        steps = f'{results[0]["metrics"]["recipe"]["num_steps"]:,}' if results else '-'
        lines.append([label, *cells, *(md.mean([printed[metric].mean]) for metric in ('mrr', 'hits@10')), steps,
                      str(len(results) or '-')])
    values = [[result['metrics']['test']['mrr'] for result in results] for _, results, _ in found]
    sentences = [_difference('One mask per triple', values[2], 'label smoothing alone', values[1]),
                 _difference('one mask per negative', values[3], 'label smoothing alone', values[1]),
                 _difference('label smoothing alone', values[1], 'uniform negatives', values[0])]
    said = _sentence([sentence for sentence in sentences if sentence])
    return md.table(lines) + (f'\n\n{said}.' if said else ''), [result for _, results, _ in found for result in results]


def curves(folder: Path) -> Part:
    r"""Returns the results of :mod:`benchmarks.curves_fb15k237`, one seed each."""
    results = read_results(f'{_CURVES}/*-seed*', folder)
    if not results:
        return '', []
    best = {result['name']: result['metrics'] for result in results}
    header = ['DistMult', 'test MRR', 'over smoothing alone', 'Hits@10', 'validation MRR', 'steps', 'seconds']
    lines = [header, ['---', *['---:'] * (len(header) - 1)]]
    alone = best.get(f'{_CURVES}/uls-seed0')
    for metrics in sorted(best.values(), key=lambda metrics: -metrics['test']['mrr']):
        gain = '-' if alone in (None, metrics) else f'{metrics["test"]["mrr"] - alone["test"]["mrr"]:+.4f}'
        lines.append([metrics['label'], md.mean([metrics['test']['mrr']]), gain, md.mean([metrics['test']['hits@10']]),
                      md.mean([metrics['valid']['mrr']]), f'{metrics["steps"]:,}', f'{metrics["seconds"]:.0f}'])
    said = '' if len({result['seed'] for result in results}) > 1 else '\n\nOne seed each, so no spread is known.'
    return md.table(lines) + said, results


def memory(folder: Path) -> Part:
    r"""Returns the peak memory of a step for each contender of :mod:`benchmarks.speed`, by number of negatives."""
    results = read_results('speed/memory', folder)
    if not results:
        return '', []
    rows = [row for row in results[0]['metrics']['rows'] if row['model'] == 'distmult']
    numbers = sorted({row['negatives'] for row in rows})
    mib = {(row['contender'], row['negatives']): f'{row["mib"]:,.0f}' for row in rows}
    lines = [['DistMult, MiB', *(f'{number:,} negatives' for number in numbers)], ['---', *['---:'] * len(numbers)]]
    for contender, label in _CONTENDERS.items():
        cells = [mib.get((contender, number), '-') for number in numbers]
        lines += [[label, *cells]] if any(cell != '-' for cell in cells) else []
    return md.table(lines), results


def split(folder: Path) -> Part:
    r"""Returns the difference between validation and test MRR over all runs on FB15k-237."""
    results = [*read_results(f'{_CURVES}/*-seed*', folder), *read_results('reproduction/*/FB15k-237/*', folder)]
    gaps = [_valid(result['metrics']) - result['metrics']['test']['mrr'] for result in results]
    if not gaps:
        return '', []
    middle, _ = spread(gaps)
    return (f'In the {len(gaps)} recorded runs of the tables and of the curves on FB15k-237, the validation MRR minus '
            f'the test MRR is {middle:+.4f} on average ({min(gaps):+.4f} to {max(gaps):+.4f}). Both are of the weights '
            'that are best on validation.'), []


def paper_rows(sources: Sequence[str], folder: Path, dataset: Optional[str] = None, reading: Optional[str] = None,
               missing: bool = True) -> Part:
    r"""Returns the rows of tables or figures of a paper in one reading. The pages state once what the tables have in
    common.

    Args:
        sources (sequence of str): The tables or figures, such as :obj:`"Table 8"`.
        folder (Path): The folder of the results.
        dataset (str, optional): The only dataset. (default: :obj:`None`, all)
        reading (str, optional): The reading. (default: :obj:`None`, the last one of the paper)
        missing (bool, optional): Whether rows without results are among them. (default: :obj:`True`)
    """
    reading = reading or paper_of(sources[0]).readings[-1]
    found = [entry for source in sources for entry in entries(source, reading)
             if dataset in (None, entry.row.dataset) and (missing or recorded(entry, folder))]
    results = [result for entry in found for result in recorded(entry, folder)]
    if not results:
        return '', []
    _, text, _ = markdown(frame(found, folder), sources[0], reading).split('\n\n')
    return text, results


def trials(name: str, beside: tuple[str, str], folder: Path) -> Part:
    r"""Returns the trials of a search of :mod:`benchmarks.search`, the best first.

    Args:
        name (str): The search.
        beside (tuple): What it is compared with, and the name of its result.
        folder (Path): The folder of the results.
    """
    results = read_results(f'search/{name}', folder)
    if not results:
        return '', []
    metrics = results[0]['metrics']
    metric, keys = metrics['metric'], [key for key in metrics['trials'][0]
                                       if key not in (*_OF_TRIALS, metrics['metric'])]
    header = [f'validation {metric.upper()}', 'at step', *(key.rpartition('.')[2] for key in keys)]
    rows = sorted(metrics['trials'], key=lambda trial: -(trial[metric] or 0.0))
    lines = [header, ['---:'] * len(header)]
    for trial in rows:
        at = trial['outcome'] if trial['best_step'] is None else f'{trial["best_step"]:,}'
        lines.append([md.mean([trial[metric]]) if trial[metric] else '-', at, *(_shown(trial[key]) for key in keys)])
    said = f'{len(rows)} trials of {metrics["base"]["num_steps"]:,} steps.'
    what, other = beside
    for result in read_results(other, folder):
        run = result['metrics']
        said += f' {what}: {run["valid_mrr"]:.3f} at step {run["best_step"]:,} of {run["steps"]:,}.'
        results.append(result)
    return f'{md.table(lines)}\n\n{said}', results


def _shown(value: Any) -> str:
    return f'{value:.3g}' if isinstance(value, (int, float)) else str(value)


_TABLES_2_TO_4 = [f'DeMix Table {number}' for number in (2, 3, 4)]
#: All blocks, by the name in their marker.
TEXTS: dict[str, Callable[[Path], Part]] = {
    'headline': headline, 'memory': memory, 'reproduction-shares': shares, 'reproduction-readings': readings,
    'reproduction-first-row': first_row, 'reproduction-curves': curves, 'reproduction-split': split,
    **{f'reproduction-table-{number}': partial(paper_rows, [f'Table {number}'], dataset='FB15k-237')
       for number in (1, 2, 8, 10, 12, 13, 14)},
    'reproduction-figure-5': partial(paper_rows, ['Figure 5'], dataset='FB15k-237', missing=False),
    'reproduction-wn18rr': partial(paper_rows, ['Table 8'], dataset='WN18RR', reading='reference-code'),
    **{f'demix-table-{number}': partial(paper_rows, [f'DeMix Table {number}'], dataset='FB15k-237')
       for number in (2, 3, 4, 5, 6)},
    **{f'demix-{name.lower()}': partial(paper_rows, _TABLES_2_TO_4, dataset=name) for name in ('UMLS', 'WN18RR')},
    'demix-search': partial(trials, 'transe-demix', ('Self-adversarial negatives with the settings of Table 2',
                                                     'demix/FB15k-237/transe-self-adv-seed0')),
    'demix-figure-1': partial(paper_rows, ['DeMix Figure 1']),
    **{f'dans-table-{number}': partial(paper_rows, [f'DANS Table {number}'], dataset='UMLS') for number in (2, 3)},
    **{f'dans-{name.lower()}': partial(paper_rows, ['DANS Table 2', 'DANS Table 3'], dataset=name)
       for name in ('WN18RR', 'NELL-995', 'FB15k-237')},
    'dans-figure-2': partial(paper_rows, ['DANS Figure 2'], dataset='UMLS'), 'dans-significance': dans_significance,
    **_budgets.TEXTS, **_conclusions.TEXTS, **_cost_model.TEXTS, **_negatives_tables.TEXTS, **_variations.TEXTS,
}


def _row(key: tuple[str, str], model: str) -> Row:
    source, method = key
    return next(entry.row for entry in entries(source, 'tuned')
                if (entry.row.dataset, entry.row.model, entry.row.method) == ('FB15k-237', model, method))


def _recorded(key: tuple[str, str], model: str, reading: str, folder: Path) -> Results:
    row = _row(key, model)
    return next((recorded(entry, folder) for entry in entries(key[0], reading) if entry.row == row), [])


def _valid(metrics: dict[str, Any]) -> float:
    value: float = metrics['valid_mrr'] if 'valid_mrr' in metrics else metrics['valid']['mrr']
    return value


def _length(results: Results) -> str:
    count = len(results)
    return f'{results[0]["metrics"]["recipe"]["num_steps"]:,} steps, {count} seed{"s" if count > 1 else ""}'


def _verdict(difference: float) -> str:
    if agrees_with_paper(difference):
        return f'agrees with the paper ({round(difference, 3) + 0.0:+.3f})'
    return f'ends {abs(difference):.3f} {"above" if difference > 0 else "below"} the paper'


def _difference(one: str, ours: Sequence[float], other: str, theirs: Sequence[float]) -> Optional[str]:
    r"""Compares two settings over their seeds. Returns :obj:`None` if one of them has no results."""
    if not ours or not theirs:
        return None
    change, error = md.difference(ours, theirs)
    verb, place = ('gains', 'over') if change >= 0 else ('is', 'below')
    text = f'{one} {verb} {abs(change):.4f} MRR {place} {other}'
    if error is None:
        return f'{text} (one seed: no spread is known)'
    clear = 'more' if md.is_clear(change, error) else 'no more'
    return f'{text}, {clear} than twice the standard error of the difference ({error:.4f})'


def _sentence(parts: Sequence[str]) -> str:
    text = '; '.join(parts)
    return text[:1].upper() + text[1:]

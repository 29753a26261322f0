r"""Time and memory of training steps, beside eager PyTorch, PyKEEN, PyG and sparse products, their growth, and ranking.

.. code-block:: bash

    python -m benchmarks.speed                                        # all parts
    python -m benchmarks.speed --part steps --models distmult
    PYG_EMU_DATA=<folder> python -m benchmarks.speed --part ranking   # <folder>/FB15k-237, or generated data
    python -m benchmarks.speed --smoke --out <folder>                 # everything, tiny

Each part writes ``{part}.json`` and ``{part}.csv`` to ``benchmarks/results/speed`` and updates the plot ``speed.png``.
Within a part, all contenders alternate in one process, so that other load affects all of them. Peak memory is measured
in separate processes. Times are medians of steps without the first ones, which compile kernels. Budgets are ratios of
these medians. Times of different files are not comparable.
"""
from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch

from benchmarks._contenders import CONTENDERS, MODELS, Setting, Step, contenders_of, generate, refined
from benchmarks._memory import measure
from benchmarks._record import RESULTS, read_result, write_result
from pyg_emu import KGData, evaluate, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.negatives.mutation import DeMixMutation

PARTS = ('steps', 'memory', 'scaling', 'ranking', 'shared', 'demix')
#: The sizes of FB15k-237.
ENTITIES, RELATIONS, FACTS, TEST_FACTS = 14541, 237, 272115, 20466
#: The maximum cost of EMU with one mask per triple relative to vanilla, both of this package.
EMU_BUDGET = {'distmult': 1.25, 'complex': 1.25, 'transe': 1.35, 'rotate': 1.35}
#: The minimum speedup of our EMU step over the eager EMU step, and over PyKEEN's vanilla step.
SPEEDUP = 12.0
#: The minimum speedup of our EMU step with one mask per triple over the same step composed of scores and losses.
FUSED_SPEEDUP = {'distmult': 1.6, 'complex': 1.6, 'transe': 1.4, 'rotate': 1.4}
#: The maximum cost of a self-adversarial step with DeMix relative to one without.
DEMIX_BUDGET = 1.6
#: The maximum peak memory of EMU relative to vanilla, and relative to eager EMU.
MEMORY_BUDGET = {'vanilla': 1.6, 'eager_emu': 0.1}
#: The maximum growth exponent in negatives and channels, and the maximum cost of 5e6 entities relative to 1e6.
EXPONENT_BUDGET, ENTITIES_BUDGET = 1.0, 1.5
#: The maximum time in seconds of a full filtered ranking of the test triples, both sides.
RANKING_BUDGET = {'distmult': 4.0, 'complex': 8.0, 'transe': 40.0, 'rotate': 40.0}

SCALES = {
    'negatives': [64, 128, 256, 512, 1024, 2048, 4096],
    'channels': [50, 100, 200, 400, 700, 1000],
    'entities': [10_000, 100_000, 1_000_000, 5_000_000],
}
SMOKE_SCALES = {'negatives': [2, 4], 'channels': [4, 8], 'entities': [50, 100]}


def take_turns(steps: Mapping[str, Step], rounds: int, turn_s: float) -> dict[str, list[float]]:
    r"""Returns the times of single steps of each contender in seconds.

    Args:
        steps (Mapping[str, Step]): The contenders.
        rounds (int): The number of turns of each contender. The first step of a turn is not timed, because it loads the
            tables into the caches, where they are during training without other contenders.
        turn_s (float): The minimum duration of a turn, in timed steps.
    """
    for name, step in steps.items():
        seconds = _timed(step) + _timed(step)
        print(f'  {name}: warm-up, compilation included, {seconds:.1f} s', flush=True)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            step()
            spent = 0.0
            while spent < turn_s:
                times[name].append(_timed(step))
                spent += times[name][-1]
    return times


def _timed(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def part_steps(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures complete training steps of all contenders."""
    data = facts(arguments)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.models:
        print(model, flush=True)
        setting = Setting(model, data, arguments.batch_size, arguments.negatives, arguments.channels,
                          seed=arguments.seed)
        steps = {name: CONTENDERS[name](setting) for name in contenders_of(model)}
        times = take_turns(steps, arguments.rounds, arguments.turn_seconds)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, values in times.items():
            low, high = np.quantile(values, [0.25, 0.75])
            rows.append({'model': model, 'contender': name, 'ms': 1e3 * medians[name], 'ms_25': 1e3 * low,
                         'ms_75': 1e3 * high, 'steps': len(values)})
            print(f'  {name}: {1e3 * medians[name]:.2f} ms ({1e3 * low:.2f} to {1e3 * high:.2f})', flush=True)
        ratios[model] = step_ratios(medians, model)
        report(ratios[model])
    return {'label': 'training steps', 'sizes': sizes(arguments), 'rows': rows, 'ratios': ratios}


def step_ratios(medians: Mapping[str, float], model: str) -> dict[str, Any]:
    r"""Returns the ratios with a budget, and whether they meet it."""
    emu = medians['emu_triple']
    found = {
        'emu over vanilla, mask per triple': at_most(emu / medians['vanilla'], EMU_BUDGET[model]),
        'emu over vanilla, mask per negative': at_most(medians['emu_negative'] / medians['vanilla'], EMU_BUDGET[model]),
        'eager emu over emu, mask per triple': at_least(medians['eager_emu_triple'] / emu, SPEEDUP),
        'eager emu over emu, mask per negative': at_least(medians['eager_emu_negative'] / medians['emu_negative'],
                                                          SPEEDUP),
    }
    for masks in ('triple', 'negative'):
        own, composed = medians[f'emu_{masks}'], medians[f'composed_emu_{masks}']
        found[f'composed emu over emu, mask per {masks}'] = (at_least(composed / own, FUSED_SPEEDUP[model])
                                                             if masks == 'triple' else {'value': composed / own})
    found['composed vanilla over vanilla'] = {'value': medians['composed_vanilla'] / medians['vanilla']}
    found['emu over six matrix products'] = {'value': emu / medians['six_matrix_products']}
    found['emu over one embedding_bag'] = {'value': emu / medians['one_embedding_bag']}
    if 'sparse_vanilla' in medians:
        found['sparse vanilla over vanilla'] = {'value': medians['sparse_vanilla'] / medians['vanilla']}
    if 'pykeen_vanilla' in medians:
        found['pykeen vanilla over emu, mask per triple'] = at_least(medians['pykeen_vanilla'] / emu, SPEEDUP)
    return found


def part_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures peak memory without tables, gradients and optimizer state, in separate processes."""
    wanted = ['vanilla', 'emu_triple'] if arguments.smoke else ['vanilla', 'emu_triple', 'emu_negative',
                                                                'eager_vanilla', 'eager_emu_triple',
                                                                'eager_emu_negative', 'pykeen_vanilla']
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.memory_models:
        for negatives in arguments.memory_negatives:
            peaks = {}
            for name in wanted:
                if name not in contenders_of(model):
                    continue
                options = {'--batch-size': arguments.batch_size, '--channels': arguments.channels,
                           '--entities': arguments.entities, '--relations': arguments.relations,
                           '--facts': arguments.facts}
                peaks[name] = measure(model, name, negatives, [str(part) for pair in options.items() for part in pair])
                rows.append({'model': model, 'negatives': negatives, 'contender': name, 'mib': peaks[name] / 2**20})
                print(f'{model}, {negatives} negatives, {name}: {peaks[name] / 2**20:.1f} MiB', flush=True)
            own = ratios[f'{model}, {negatives} negatives'] = {}
            for masks in ('triple', 'negative'):
                emu, eager = peaks.get(f'emu_{masks}'), peaks.get(f'eager_emu_{masks}')
                if emu is not None:
                    ratio = emu / max(peaks['vanilla'], 1)
                    own[f'emu over vanilla, mask per {masks}'] = at_most(ratio, MEMORY_BUDGET['vanilla'])
                if emu is not None and eager is not None:
                    own[f'emu over eager emu, mask per {masks}'] = at_most(emu / eager, MEMORY_BUDGET['eager_emu'])
            report(own)
    return {'label': 'peak memory above tables, gradients and state', 'sizes': sizes(arguments), 'rows': rows,
            'ratios': ratios}


def part_scaling(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures the growth of our own DistMult steps in each size, with row-sparse gradients for the entities."""
    rows: list[dict[str, Any]] = []
    exponents: dict[str, Any] = {}
    data = generate(arguments.entities, arguments.relations, arguments.facts, seed=arguments.seed)
    for axis, values in (SMOKE_SCALES if arguments.smoke else SCALES).items():
        print(axis, flush=True)
        steps: dict[str, Step] = {}
        for value in values:
            setting = Setting('distmult', data, arguments.batch_size, arguments.negatives, arguments.channels,
                              seed=arguments.seed)
            if axis == 'entities':
                own = generate(value, arguments.relations, arguments.facts, seed=arguments.seed)
                setting = dataclasses.replace(setting, data=own, sparse=True)
            else:
                changed: dict[str, Any] = {'num_negatives' if axis == 'negatives' else 'channels': value}
                setting = dataclasses.replace(setting, **changed)
            for name in ('vanilla', 'emu_triple'):
                if value < 5_000_000 or name == 'emu_triple':  # Two such tables with their state would need 8 GB.
                    steps[f'{name} {value}'] = CONTENDERS[name](setting)
        times = take_turns(steps, arguments.rounds, arguments.turn_seconds)
        for key, seconds in times.items():
            name, _, size = key.partition(' ')
            rows.append({'axis': axis, 'value': int(size), 'contender': name, 'ms': 1e3 * statistics.median(seconds)})
            print(f'  {key}: {rows[-1]["ms"]:.2f} ms', flush=True)
        exponents |= exponents_of(rows, axis)
    report(exponents)
    return {'label': 'growth of a training step', 'sizes': sizes(arguments), 'rows': rows, 'ratios': exponents}


def exponents_of(rows: Iterable[Mapping[str, Any]], axis: str) -> dict[str, Any]:
    r"""Returns the slopes of time against size on logarithmic scales, by least squares."""
    found: dict[str, Any] = {}
    frame = pd.DataFrame([row for row in rows if row['axis'] == axis])
    for name, own in frame.groupby('contender'):
        slope = float(np.polyfit(np.log(own['value']), np.log(own['ms']), 1)[0])
        if axis != 'entities':
            found[f'exponent in {axis}, {name}'] = at_most(slope, EXPONENT_BUDGET)
            continue
        found[f'exponent in {axis}, {name}'] = {'value': slope}
        by_size = dict(zip(own['value'], own['ms']))
        if {1_000_000, 5_000_000} <= by_size.keys():
            ratio = by_size[5_000_000] / by_size[1_000_000]
            found[f'5e6 over 1e6 entities, {name}'] = at_most(ratio, ENTITIES_BUDGET)
    return found


def part_ranking(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures the full filtered ranking of the test triples, heads and tails, with random embeddings."""
    data = facts(arguments, test=True)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.models:
        scorer = Setting(model, data, channels=arguments.channels, seed=arguments.seed).make_model()
        evaluate(scorer, data, max_triples=8)
        times = []
        for _ in range(arguments.ranking_repeats):
            data.drop_indices()  # The time includes building the filter indices.
            times.append(_timed(partial(evaluate, scorer, data)))
        rows.append({'model': model, 'seconds': statistics.median(times), 'triples': data.num_facts('test')})
        ratios[f'seconds, {model}'] = at_most(rows[-1]['seconds'], RANKING_BUDGET[model])
    report(ratios)
    return {'label': 'filtered ranking of the test facts', 'dataset': data_name(arguments), 'rows': rows,
            'ratios': ratios}


def part_shared(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures EMU steps with one mask per triple: with each triple's own negatives, and with those of its chunk."""
    data = facts(arguments)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.shared_models:
        print(model, flush=True)
        steps: dict[str, Step] = {}
        for negatives in arguments.shared_negatives:
            setting = Setting(model, data, arguments.batch_size, negatives, arguments.channels, seed=arguments.seed)
            steps[f'own {negatives}'] = CONTENDERS['emu_triple'](setting)
            setting = dataclasses.replace(setting, chunk_size=arguments.chunk_size)
            steps[f'shared {negatives}'] = CONTENDERS['emu_triple'](setting)
        times = take_turns(steps, arguments.rounds, arguments.turn_seconds)
        medians = {key: 1e3 * statistics.median(values) for key, values in times.items()}
        for key, value in medians.items():
            name, _, negatives = key.partition(' ')
            rows.append({'model': model, 'negatives': int(negatives), 'contender': name, 'ms': value})
            print(f'  {key}: {value:.2f} ms', flush=True)
        ratios[model] = {f'own over shared, {negatives} negatives':
                         {'value': medians[f'own {negatives}'] / medians[f'shared {negatives}']}
                         for negatives in arguments.shared_negatives}
        report(ratios[model])
    return {'label': f'shared by {arguments.chunk_size} triples', 'sizes': sizes(arguments), 'rows': rows,
            'ratios': ratios}


def part_demix(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Measures self-adversarial steps with and without DeMix, with the numbers of negatives of its paper. The share of
    an epoch's refresh in a step is measured apart and added, as turns are shorter than an epoch.
    """
    data = facts(arguments)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.models:
        print(model, flush=True)
        negatives = 50 if model in ('distmult', 'complex') else 16
        setting = Setting(model, data, arguments.batch_size, min(negatives, 4) if arguments.smoke else negatives,
                          arguments.channels, seed=arguments.seed)
        times = take_turns({'plain': refined(setting, demix=False), 'demix': refined(setting, demix=True)},
                           arguments.rounds, arguments.turn_seconds)
        plain, demix = (1e3 * statistics.median(times[name]) for name in ('plain', 'demix'))
        mutation, scorer = DeMixMutation(warmup=0), setting.make_model()
        mutation.refresh(data, scorer)
        refresh = 1e3 * _timed(partial(mutation.refresh, data, scorer))
        share = refresh * arguments.batch_size / data.num_facts('train')
        rows.append({'model': model, 'negatives': setting.num_negatives, 'self_adversarial_ms': plain,
                     'demix_ms': demix, 'refresh_ms': refresh, 'refresh_share_ms': share})
        ratios[f'demix over self-adversarial, refresh included, {model}'] = at_most((demix + share) / plain,
                                                                                    DEMIX_BUDGET)
        print(f'  {plain:.2f} ms, with DeMix {demix:.2f} ms, refresh {refresh:.0f} ms an epoch', flush=True)
    report(ratios)
    return {'label': 'DeMix', 'dataset': data_name(arguments), 'sizes': sizes(arguments), 'rows': rows,
            'ratios': ratios}


def at_most(value: float, budget: float) -> dict[str, Any]:
    r"""Returns a value, its maximum, and whether the value meets it."""
    return {'value': value, 'at_most': budget, 'kept': bool(value <= budget)}


def at_least(value: float, budget: float) -> dict[str, Any]:
    r"""Returns a value, its minimum, and whether the value meets it."""
    return {'value': value, 'at_least': budget, 'kept': bool(value >= budget)}


def report(ratios: Mapping[str, Mapping[str, Any]]) -> None:
    r"""Prints values with their budgets."""
    for name, entry in ratios.items():
        bound = ', '.join(f'{key.replace("_", " ")} {entry[key]:g}' for key in ('at_most', 'at_least') if key in entry)
        verdict = '' if 'kept' not in entry else f' ({bound}): {"kept" if entry["kept"] else "MISSED"}'
        print(f'  {name}: {entry["value"]:.3g}{verdict}', flush=True)


def facts(arguments: argparse.Namespace, test: bool = False) -> KGData:
    r"""Loads FB15k-237 if available, or generates data of its size."""
    folder = data_folder(arguments)
    if folder is not None:
        return load_dataset(str(folder))
    num_test = (20 if arguments.smoke else TEST_FACTS) if test else 0
    return generate(arguments.entities, arguments.relations, arguments.facts, num_test, arguments.seed)


def data_folder(arguments: argparse.Namespace) -> Path | None:
    r"""Returns ``$PYG_EMU_DATA/FB15k-237`` if it exists and is used."""
    root = os.environ.get('PYG_EMU_DATA')
    folder = Path(root) / 'FB15k-237' if root else None
    return folder if folder is not None and folder.is_dir() and not arguments.smoke else None


def data_name(arguments: argparse.Namespace) -> str:
    r"""Returns the name of the data in results."""
    return 'generated facts' if data_folder(arguments) is None else 'FB15k-237'


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Returns the default sizes of all contenders."""
    return {key: getattr(arguments, key) for key in ('batch_size', 'negatives', 'channels', 'entities', 'relations',
                                                     'facts')}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    r"""Writes rows atomically as CSV."""
    partial = path.with_name(f'.{path.name}')
    pd.DataFrame(rows).to_csv(partial, index=False, float_format='%.6g')
    partial.replace(path)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--part', nargs='+', choices=[*PARTS, 'curves'], default=list(PARTS))
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--memory-models', nargs='+', choices=MODELS, default=['distmult'])
    parser.add_argument('--memory-negatives', nargs='+', type=int, default=[256, 4096])
    parser.add_argument('--shared-models', nargs='+', choices=('distmult', 'complex'), default=['distmult', 'complex'])
    parser.add_argument('--shared-negatives', nargs='+', type=int, default=[256, 1024])
    parser.add_argument('--chunk-size', type=int, default=250, help='number of triples that share negatives')
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--rounds', type=int, default=7, help='number of turns of each contender')
    parser.add_argument('--turn-seconds', type=float, default=0.5, help='minimum duration of a turn')
    parser.add_argument('--ranking-repeats', type=int, default=3)
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny sizes, as a test')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--no-plot', action='store_true')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.entities, arguments.relations, arguments.facts = ENTITIES, RELATIONS, FACTS
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.entities, arguments.relations, arguments.facts = 40, 3, 200
        arguments.batch_size, arguments.negatives, arguments.channels = 8, 4, 4
        arguments.memory_negatives, arguments.rounds, arguments.turn_seconds = [4], 1, 1e-6
        arguments.shared_negatives, arguments.chunk_size = [4, 6], 3
        arguments.ranking_repeats = 1
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    r"""Measures the parts, prints and records the results."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    warnings.filterwarnings('ignore', 'Sparse CSR tensor support is in beta')
    torch.manual_seed(arguments.seed)
    parts = {'steps': part_steps, 'memory': part_memory, 'scaling': part_scaling, 'ranking': part_ranking,
             'shared': part_shared, 'demix': part_demix}
    for part in arguments.part:
        if part == 'curves':
            from benchmarks import curves_fb15k237

            curves_fb15k237.main(['--out', str(arguments.out), *(['--smoke'] if arguments.smoke else [])])
            continue
        print(f'== {part}', flush=True)
        result = parts[part](arguments)
        path = write_result(f'speed/{part}', result, seed=arguments.seed, folder=arguments.out)
        write_table(path.with_suffix('.csv'), result['rows'])
        print(path)
    if not arguments.no_plot:
        from benchmarks._plots import draw

        found = {part: read_result(f'speed/{part}', arguments.out)['metrics'] for part in ('steps', 'scaling')
                 if (arguments.out / 'speed' / f'{part}.json').exists()}
        if found:
            print(draw(found, arguments.out / 'speed' / 'speed.png'))


if __name__ == '__main__':
    main()

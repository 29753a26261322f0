r"""Training steps and their memory, beside eager PyTorch, PyKEEN and PyG, and how both grow; and the time of ranking.

.. code-block:: bash

    python -m benchmarks.speed                                        # every part but the curves
    python -m benchmarks.speed --part steps --models distmult
    PYG_EMU_DATA=<folder> python -m benchmarks.speed --part ranking   # <folder>/FB15k-237, else facts of its size
    python -m benchmarks.speed --smoke --out <folder>                 # everything, tiny

Each part writes ``{part}.json`` and ``{part}.csv`` to ``benchmarks/results/speed``, and the picture ``speed.png`` is
drawn anew from what is there. Within a part all contenders run in one process, in turns, so that whatever the machine
does besides hits all of them (peak memory takes a process each). Times are medians of steps, without the first
ones, in which kernels are compiled. The budgets are ratios of such medians; times of different files do not compare.
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

from benchmarks._contenders import CONTENDERS, MODELS, Setting, Step, contenders_of, generate
from benchmarks._memory import measure
from benchmarks._record import RESULTS, read_result, write_result
from pyg_emu import KGData, evaluate, load_dataset
from pyg_emu.core.errors import DataWarning

PARTS = ('steps', 'memory', 'scaling', 'ranking')
#: FB15k-237's sizes.
ENTITIES, RELATIONS, FACTS, TEST_FACTS = 14541, 237, 272115, 20466
#: EMU over vanilla, our own, with one mask per triple.
EMU_BUDGET = {'distmult': 1.25, 'complex': 1.25, 'transe': 1.35, 'rotate': 1.35}
#: Eager EMU over ours, and PyKEEN's vanilla step over our EMU step, at least.
SPEEDUP = 12.0
#: Peak memory of EMU over that of vanilla, and over that of eager EMU, at most.
MEMORY_BUDGET = {'vanilla': 1.6, 'eager_emu': 0.1}
#: Exponents of the cost in negatives and channels, at most; and what 5e6 entities may cost, in terms of 1e6.
EXPONENT_BUDGET, ENTITIES_BUDGET = 1.0, 1.5
#: Seconds of a full filtered ranking of the test facts, both sides.
RANKING_BUDGET = {'distmult': 4.0, 'complex': 8.0, 'transe': 40.0, 'rotate': 40.0}

SCALES = {
    'negatives': [64, 128, 256, 512, 1024, 2048, 4096],
    'channels': [50, 100, 200, 400, 700, 1000],
    'entities': [10_000, 100_000, 1_000_000, 5_000_000],
}
SMOKE_SCALES = {'negatives': [2, 4], 'channels': [4, 8], 'entities': [50, 100]}


def take_turns(steps: Mapping[str, Step], rounds: int, turn_s: float) -> dict[str, list[float]]:
    r"""Seconds of single steps of each contender.

    Args:
        steps (Mapping[str, Step]): The contenders.
        rounds (int): Turns of each. In a turn, the first step is not timed: it brings the tables back into the caches,
            where a training that has the machine to itself would find them.
        turn_s (float): How long a turn lasts at least, in timed steps.
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
    r"""Whole training steps of all contenders."""
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
    r"""The ratios asked for, each with its budget and whether it is kept."""
    emu = medians['emu_triple']
    found = {
        'emu over vanilla, mask per triple': at_most(emu / medians['vanilla'], EMU_BUDGET[model]),
        'emu over vanilla, mask per negative': at_most(medians['emu_negative'] / medians['vanilla'], EMU_BUDGET[model]),
        'eager emu over emu, mask per triple': at_least(medians['eager_emu_triple'] / emu, SPEEDUP),
        'eager emu over emu, mask per negative': at_least(medians['eager_emu_negative'] / medians['emu_negative'],
                                                          SPEEDUP),
    }
    if 'pykeen_vanilla' in medians:
        found['pykeen vanilla over emu, mask per triple'] = at_least(medians['pykeen_vanilla'] / emu, SPEEDUP)
    return found


def part_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Peak memory above tables, gradients and optimiser state, a process each."""
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
    r"""Our own steps (DistMult) as one size grows; entities with row-sparse gradients."""
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
                if value < 5_000_000 or name == 'emu_triple':  # two such tables, with their state, would be 8 GB
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
    r"""The slopes of time against size on logarithmic scales, fitted by least squares."""
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
    r"""The full filtered ranking of the test facts, heads and tails, by random embeddings."""
    data = facts(arguments, test=True)
    rows: list[dict[str, Any]] = []
    ratios: dict[str, Any] = {}
    for model in arguments.models:
        scorer = Setting(model, data, channels=arguments.channels, seed=arguments.seed).make_model()
        evaluate(scorer, data, max_triples=8)
        times = []
        for _ in range(arguments.ranking_repeats):
            data.drop_indices()  # the indices that filter are part of the time
            times.append(_timed(partial(evaluate, scorer, data)))
        rows.append({'model': model, 'seconds': statistics.median(times), 'triples': data.num_facts('test')})
        ratios[f'seconds, {model}'] = at_most(rows[-1]['seconds'], RANKING_BUDGET[model])
    report(ratios)
    return {'label': 'filtered ranking of the test facts', 'dataset': data_name(arguments), 'rows': rows,
            'ratios': ratios}


def at_most(value: float, budget: float) -> dict[str, Any]:
    r"""A figure, what it may be at most, and whether it is."""
    return {'value': value, 'at_most': budget, 'kept': bool(value <= budget)}


def at_least(value: float, budget: float) -> dict[str, Any]:
    r"""A figure, what it has to be at least, and whether it is."""
    return {'value': value, 'at_least': budget, 'kept': bool(value >= budget)}


def report(ratios: Mapping[str, Mapping[str, Any]]) -> None:
    r"""Prints figures beside their budgets."""
    for name, entry in ratios.items():
        bound = ', '.join(f'{key.replace("_", " ")} {entry[key]:g}' for key in ('at_most', 'at_least') if key in entry)
        verdict = '' if 'kept' not in entry else f' ({bound}): {"kept" if entry["kept"] else "MISSED"}'
        print(f'  {name}: {entry["value"]:.3g}{verdict}', flush=True)


def facts(arguments: argparse.Namespace, test: bool = False) -> KGData:
    r"""FB15k-237 if there is a folder, else facts of its size."""
    folder = data_folder(arguments)
    if folder is not None:
        return load_dataset(str(folder))
    num_test = (20 if arguments.smoke else TEST_FACTS) if test else 0
    return generate(arguments.entities, arguments.relations, arguments.facts, num_test, arguments.seed)


def data_folder(arguments: argparse.Namespace) -> Path | None:
    r"""``$PYG_EMU_DATA/FB15k-237``, if it is there and wanted."""
    root = os.environ.get('PYG_EMU_DATA')
    folder = Path(root) / 'FB15k-237' if root else None
    return folder if folder is not None and folder.is_dir() and not arguments.smoke else None


def data_name(arguments: argparse.Namespace) -> str:
    r"""What the facts are called in results."""
    return 'generated facts' if data_folder(arguments) is None else 'FB15k-237'


def sizes(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""The sizes that all contenders share unless a row says otherwise."""
    return {key: getattr(arguments, key) for key in ('batch_size', 'negatives', 'channels', 'entities', 'relations',
                                                     'facts')}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    r"""Writes rows as CSV, whole or not at all."""
    partial = path.with_name(f'.{path.name}')
    pd.DataFrame(rows).to_csv(partial, index=False, float_format='%.6g')
    partial.replace(path)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    r"""Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--part', nargs='+', choices=[*PARTS, 'curves'], default=list(PARTS))
    parser.add_argument('--models', nargs='+', choices=MODELS, default=list(MODELS))
    parser.add_argument('--memory-models', nargs='+', choices=MODELS, default=['distmult'])
    parser.add_argument('--memory-negatives', nargs='+', type=int, default=[256, 4096])
    parser.add_argument('--batch-size', type=int, default=1000)
    parser.add_argument('--negatives', type=int, default=256)
    parser.add_argument('--channels', type=int, default=100)
    parser.add_argument('--rounds', type=int, default=7, help='turns of each contender')
    parser.add_argument('--turn-seconds', type=float, default=0.5, help='how long a turn lasts at least')
    parser.add_argument('--ranking-repeats', type=int, default=3)
    parser.add_argument('--smoke', action='store_true', help='tiny sizes: shows that everything runs, and no more')
    parser.add_argument('--out', type=Path, default=RESULTS, help='where to write (default: benchmarks/results)')
    parser.add_argument('--no-plot', action='store_true')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(argv)
    arguments.entities, arguments.relations, arguments.facts = ENTITIES, RELATIONS, FACTS
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke measures nothing worth keeping: give --out')
        arguments.entities, arguments.relations, arguments.facts = 40, 3, 200
        arguments.batch_size, arguments.negatives, arguments.channels = 8, 4, 4
        arguments.memory_negatives, arguments.rounds, arguments.turn_seconds = [4], 1, 1e-6
        arguments.ranking_repeats = 1
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    r"""Measures, prints and records."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    torch.manual_seed(arguments.seed)
    parts = {'steps': part_steps, 'memory': part_memory, 'scaling': part_scaling, 'ranking': part_ranking}
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

r"""Accuracy against seconds of training on a CPU: this package and PyKEEN, DistMult on FB15k-237, one after another.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.headline                     # <folder>/FB15k-237, all four
    PYG_EMU_DATA=<folder> python -m benchmarks.headline --only pykeen --budget 10m
    python -m benchmarks.headline --summarise                               # the picture, from what is recorded
    python -m benchmarks.headline --smoke --out <folder>                    # tiny, on generated facts

All train DistMult with d = 100 and Adagrad at 0.1, on the same number of threads, until ``--budget`` seconds of
training or ``--steps`` steps are over, whichever comes first: ours by the packaged recipes, PyKEEN by its own training
loop (:mod:`benchmarks._headline`). Ours and PyKEEN's sLCWA take 1000 facts with 256 negatives each in a step; PyKEEN's
LCWA takes 256 pairs, its default, against all entities.

At the same seconds for each, the vectors are ranked by OUR filtered ranking on the same validation facts; neither that
nor the compilation of kernels is counted. The test facts are ranked with the vectors of the best validation. A run
that was interrupted goes on from ``runs/headline``; one that is recorded is left out. Writes
``benchmarks/results/headline/{contender}.json`` and, from all that are there, ``curves.csv`` and ``headline.png``.
"""
from __future__ import annotations

import argparse
import os
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any, Iterator, Optional, Sequence

import pandas as pd
import torch

from benchmarks._contenders import generate
from benchmarks._headline import CONTENDERS, DEFAULT, SEED, Sizes
from benchmarks._plots import draw_headline
from benchmarks._record import RESULTS, ROOT, read_results, write_result
from pyg_emu import KGData, evaluate, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.experiments.cli.options import duration
from pyg_emu.training.checkpoint import load_checkpoint, save_checkpoint

#: The validation MRR whose time is the headline.
TARGET_MRR = 0.30
# First look after that many seconds, and by what factor the next is later: close enough to tell times apart to 15 %.
_FIRST_S, _FACTOR = 2.0, 1.15


def looks(budget: float) -> Iterator[float]:
    r"""The seconds of training at which all contenders are ranked; the last is the budget."""
    at = min(_FIRST_S, budget / 2)
    while at < budget:
        yield at
        at *= _FACTOR
    yield budget


def time_to(curve: Sequence[dict[str, float]], mrr: float = TARGET_MRR) -> Optional[float]:
    r"""The seconds of the first look at which :obj:`mrr` was reached, or :obj:`None` if it never was."""
    return next((point['seconds'] for point in curve if point['mrr'] >= mrr), None)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""What a result was made with, beside the contender's own settings."""
    return {'budget': arguments.budget, 'steps': arguments.steps, 'threads': arguments.threads,
            'validation_triples': arguments.valid_triples, 'sizes': asdict(arguments.sizes)}


def run(name: str, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Trains a contender until its time is over, or goes on with it, and returns its figures."""
    label, make = CONTENDERS[name]
    warm = make(data, arguments.sizes)  # thrown away: compiles kernels, fills allocators, builds indices
    for _ in range(4):
        warm.step()
    del warm
    contender = make(data, arguments.sizes)
    path = arguments.runs / f'{name}.pt'
    fingerprint = {'model': name, 'shapes': {}, 'recipe': repr(settings(arguments))}
    step, spent, curve, best = 0, 0.0, [], None
    if path.exists():
        state = load_checkpoint(path, expected=fingerprint)
        contender.load_state_dict(state['contender'])
        step, spent, curve, best = state['step'], state['seconds'], state['curve'], state['best']
    for at in looks(arguments.budget):
        if at <= spent:
            continue
        start = time.perf_counter() - spent
        while spent < at and step < arguments.steps:
            contender.step()
            step += 1
            spent = time.perf_counter() - start
        if curve and curve[-1]['step'] == step:
            break  # all steps are taken
        metrics = evaluate(contender.scorer(), data, split='valid', max_triples=arguments.valid_triples, seed=SEED)
        curve.append({'step': step, 'seconds': spent, 'mrr': metrics['mrr']})
        if best is None or metrics['mrr'] > best['mrr']:
            best = {'mrr': metrics['mrr'], 'step': step, 'contender': contender.state_dict()}
            # State dictionaries share memory with what goes on training.
            best['contender'] = _cloned({'model': best['contender']['model']})
        arguments.runs.mkdir(parents=True, exist_ok=True)
        save_checkpoint(path, {'step': step, 'seconds': spent, 'curve': curve, 'best': best,
                               'contender': contender.state_dict()}, fingerprint=fingerprint)
        print(f'{label}: {spent:.1f} s, step {step}, validation MRR {metrics["mrr"]:.4f}', flush=True)
    assert best is not None
    contender.model.load_state_dict(best['contender']['model'])
    test = evaluate(contender.scorer(), data, split='test')
    return {'label': label, 'steps': step, 'seconds': spent, 'best_step': best['step'], 'valid_mrr': best['mrr'],
            'test': test.to_dict(), 'target': TARGET_MRR, 'seconds_to_target': time_to(curve),
            'settings': settings(arguments), 'contender': contender.settings, 'curve': curve}


def is_recorded(name: str, arguments: argparse.Namespace) -> bool:
    r"""Whether there is a result of this contender with these settings."""
    found = read_results(f'headline/{name}', arguments.out)
    return bool(found) and found[0]['metrics']['settings'] == settings(arguments)


def summarise(folder: Path) -> tuple[Path, Path]:
    r"""Writes the table and the picture of all contenders that have results in :obj:`folder`."""
    results = {result['name'].partition('/')[2]: result for result in read_results('headline/*', folder)}
    ordered = [results[name] for name in CONTENDERS if name in results]
    frame = pd.DataFrame([{'label': result['metrics']['label'], **point}
                          for result in ordered for point in result['metrics']['curve']])
    table = folder / 'headline' / 'curves.csv'
    partial = table.with_name(f'.{table.name}')
    frame.to_csv(partial, index=False, float_format='%.6g')
    partial.replace(table)
    machine = ordered[0]['machine']
    title = f'DistMult (d = 100) on FB15k-237; {machine["cpu"]}, {machine["threads"]} threads'
    return table, draw_headline(frame, title, TARGET_MRR, table.with_name('headline.png'))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    r"""Command line."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and str(Path(root) / 'FB15k-237'), help='folder of FB15k-237')
    parser.add_argument('--only', nargs='+', choices=CONTENDERS, default=list(DEFAULT),
                        help=f'these contenders (default: {" ".join(DEFAULT)})')
    parser.add_argument('--budget', type=duration, default=600.0, help='of training, each, such as 10m (default: 10m)')
    parser.add_argument('--steps', type=int, default=20_000, help='at most (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='for all contenders (default: %(default)s)')
    parser.add_argument('--valid-triples', type=int, default=2_000, help='always the same (default: %(default)s)')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'headline', help='where checkpoints are')
    parser.add_argument('--out', type=Path, default=RESULTS, help='where to write (default: benchmarks/results)')
    parser.add_argument('--summarise', action='store_true', help='draw what is recorded, run nothing')
    parser.add_argument('--smoke', action='store_true', help='tiny: shows that everything runs, and no more')
    arguments = parser.parse_args(argv)
    arguments.sizes = Sizes()
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke measures nothing worth keeping: give --out')
        arguments.sizes = Sizes(batch_size=16, num_negatives=4, channels=4, pairs=8)
        arguments.steps, arguments.threads, arguments.valid_triples = min(arguments.steps, 6), 1, 10
        arguments.runs = arguments.out / 'runs'
    elif not arguments.data and not arguments.summarise:
        parser.error('give --data, or set PYG_EMU_DATA to the folder that holds FB15k-237')
    if not arguments.budget > 0:
        parser.error('--budget: expected more than no time')
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    r"""Trains, prints and records."""
    arguments = parse(argv)
    if arguments.summarise:
        print(*summarise(arguments.out), sep='\n')
        return
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter('ignore', DataWarning)
    data = generate(40, 3, 200, 20) if arguments.smoke else load_dataset(arguments.data)
    for name in arguments.only:
        if is_recorded(name, arguments):
            print(f'{CONTENDERS[name][0]}: recorded already')
            continue
        metrics = run(name, data, arguments)
        reached = metrics['seconds_to_target']
        print(f'{metrics["label"]}: validation MRR {TARGET_MRR:.2f} '
              + (f'after {reached:.0f} s' if reached else 'not reached')
              + f', test MRR {metrics["test"]["mrr"]:.4f}', flush=True)
        print(write_result(f'headline/{name}', metrics, seed=SEED, folder=arguments.out))
        print(*summarise(arguments.out))


def _cloned(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    return {key: _cloned(entry) for key, entry in value.items()} if isinstance(value, dict) else value


if __name__ == '__main__':
    main()

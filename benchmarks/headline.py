r"""Accuracy against training time on a CPU: DistMult on FB15k-237 with this package and with PyKEEN, in sequence.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.headline                     # <folder>/FB15k-237, all four
    PYG_EMU_DATA=<folder> python -m benchmarks.headline --only pykeen --budget 10m
    python -m benchmarks.headline --summarise                               # the plot, from recorded results
    python -m benchmarks.headline --smoke --out <folder>                    # tiny, on generated data

All contenders train DistMult with d = 100 and Adagrad with learning rate 0.1, with the same number of threads, for
``--budget`` seconds of training or ``--steps`` steps, whichever comes first. This package uses its packaged recipes and
PyKEEN uses its own training loop (:mod:`benchmarks._headline`). A step of this package and of PyKEEN's sLCWA takes 1000
triples with 256 negatives each. A step of PyKEEN's LCWA takes 256 pairs, its default, against all entities.

At the same training times, the embeddings of all contenders are ranked by the filtered ranking of this package on the
same validation triples. Ranking and kernel compilation do not count as training time. The test triples are ranked with
the embeddings of the best validation. Interrupted runs continue from ``runs/headline``. Recorded runs are skipped.
Writes ``benchmarks/results/headline/{contender}.json`` and, from all recorded runs, ``curves.csv`` and
``headline.png``.
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

#: The target validation MRR.
TARGET_MRR = 0.30
# The first validation in seconds, and the factor between validations: it separates times that differ by 15 %.
_FIRST_S, _FACTOR = 2.0, 1.15


def looks(budget: float) -> Iterator[float]:
    r"""Yields the training times in seconds at which all contenders are ranked. The last one is the budget."""
    at = min(_FIRST_S, budget / 2)
    while at < budget:
        yield at
        at *= _FACTOR
    yield budget


def time_to(curve: Sequence[dict[str, float]], mrr: float = TARGET_MRR) -> Optional[float]:
    r"""Returns the time of the first validation that reached :obj:`mrr`, or :obj:`None`."""
    return next((point['seconds'] for point in curve if point['mrr'] >= mrr), None)


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Returns the settings of a result, without the contender's own settings."""
    return {'budget': arguments.budget, 'steps': arguments.steps, 'threads': arguments.threads,
            'validation_triples': arguments.valid_triples, 'sizes': asdict(arguments.sizes)}


def run(name: str, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Trains a contender within its budget, or continues its run, and returns its metrics."""
    label, make = CONTENDERS[name]
    warm = make(data, arguments.sizes)  # Discarded: compiles kernels, fills memory pools and builds indices.
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
            break  # All steps are complete.
        metrics = evaluate(contender.scorer(), data, split='valid', max_triples=arguments.valid_triples, seed=SEED)
        curve.append({'step': step, 'seconds': spent, 'mrr': metrics['mrr']})
        if best is None or metrics['mrr'] > best['mrr']:
            best = {'mrr': metrics['mrr'], 'step': step, 'contender': contender.state_dict()}
            # State dictionaries share memory with the model that continues training.
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
    r"""Returns :obj:`True` if a result of this contender with these settings exists."""
    found = read_results(f'headline/{name}', arguments.out)
    return bool(found) and found[0]['metrics']['settings'] == settings(arguments)


def summarise(folder: Path) -> tuple[Path, Path]:
    r"""Writes the table and the plot of all contenders with results in :obj:`folder`."""
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
    r"""Parses the command line."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and str(Path(root) / 'FB15k-237'), help='folder of FB15k-237')
    parser.add_argument('--only', nargs='+', choices=CONTENDERS, default=list(DEFAULT),
                        help=f'the contenders (default: {" ".join(DEFAULT)})')
    parser.add_argument('--budget', type=duration, default=600.0, help='training time each, such as 10m (default: 10m)')
    parser.add_argument('--steps', type=int, default=20_000, help='maximum number of steps (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=2, help='number of threads (default: %(default)s)')
    parser.add_argument('--valid-triples', type=int, default=2_000, help='a fixed sample (default: %(default)s)')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'headline', help='folder of the checkpoints')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--summarise', action='store_true', help='plot the recorded results and run nothing')
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny sizes, as a test')
    arguments = parser.parse_args(argv)
    arguments.sizes = Sizes()
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.sizes = Sizes(batch_size=16, num_negatives=4, channels=4, pairs=8)
        arguments.steps, arguments.threads, arguments.valid_triples = min(arguments.steps, 6), 1, 10
        arguments.runs = arguments.out / 'runs'
    elif not arguments.data and not arguments.summarise:
        parser.error('--data: expected the folder of FB15k-237; use --data or PYG_EMU_DATA')
    if not arguments.budget > 0:
        parser.error('--budget: expected a positive time')
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    r"""Trains the contenders, prints and records their results."""
    arguments = parse(argv)
    if arguments.summarise:
        print(*summarise(arguments.out), sep='\n')
        return
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter('ignore', DataWarning)
    data = generate(40, 3, 200, 20) if arguments.smoke else load_dataset(arguments.data)
    for name in arguments.only:
        if is_recorded(name, arguments):
            print(f'{CONTENDERS[name][0]}: already recorded')
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

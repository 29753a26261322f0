r"""Validation MRR against training time for DistMult on FB15k-237 on a CPU, with and without embedding mutation.

.. code-block:: bash

    PYG_EMU_DATA=<folder> python -m benchmarks.curves_fb15k237             # <folder>/FB15k-237, all runs in sequence
    PYG_EMU_DATA=<folder> python -m benchmarks.curves_fb15k237 --only emu-triple-0.61
    python -m benchmarks.curves_fb15k237 --smoke --out <folder>            # tiny, on generated data

All runs use d = 100, batches of 1000 triples with 256 uniform negatives, Adagrad with learning rate 0.1, alpha 0.11 and
beta 0.53. They differ in their masks. Interrupted runs continue from their folder under ``runs/curves_fb15k237``.
Recorded runs are skipped. Test metrics are those of the best validation step and of the last step.

Times are those of training steps, without validation and checkpoints. For an uninterrupted run, :obj:`wall_seconds` is
the total time including the test ranking. Writes ``benchmarks/results/curves_fb15k237/{run}.json`` and, from all
recorded runs, ``curves.csv`` and ``curves.png``.
"""
from __future__ import annotations

import argparse
import os
import time
import warnings
from pathlib import Path
from typing import Any, Sequence

import pandas as pd

from benchmarks._contenders import generate
from benchmarks._plots import draw_curves
from benchmarks._record import RESULTS, ROOT, read_results, write_result
from pyg_emu import KGData, evaluate, load_dataset
from pyg_emu.core.errors import DataWarning
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import open_run, run_recipe

#: The target test MRR of the best run, and the target time in seconds.
TARGET_MRR, TARGET_S = 0.328, 720.0

_EMU = {'name': 'emu', 'alpha': 0.11, 'beta': 0.53, 'regularizer': None}
#: All runs: the caption, and the changes to the packaged recipe ``distmult-fb15k237-uniform``.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    'emu-triple-0.30': ('EMU, mask per triple, rate 0.30',
                        {'negatives': {'mutation_rate': 0.30, 'shared': True}, 'loss': _EMU}),
    'emu-triple-0.61': ('EMU, mask per triple, rate 0.61',
                        {'negatives': {'mutation_rate': 0.61, 'shared': True}, 'loss': _EMU}),
    'emu-negative-0.09': ('EMU, mask per negative, rate 0.09',
                          {'negatives': {'mutation_rate': 0.09, 'shared': False}, 'loss': _EMU}),
    'emu-negative-0.61': ('EMU, mask per negative, rate 0.61',
                          {'negatives': {'mutation_rate': 0.61, 'shared': False}, 'loss': _EMU}),
    'uls': ('unbounded label smoothing alone', {'negatives': {'mutation_rate': 0.0}, 'loss': _EMU}),
    'uniform-l3': ('uniform negatives, L3 1e-5', {}),
}


def recipe_of(name: str, arguments: argparse.Namespace) -> Recipe:
    r"""Returns the recipe of a run."""
    settings = {'base': 'distmult-fb15k237-uniform', **RUNS[name][1], 'num_steps': arguments.steps,
                'evaluate_every': arguments.every, 'seed': arguments.seed,
                'validation': {'max_triples': arguments.valid_triples}}
    if arguments.smoke:
        settings |= {'model': {'hidden_channels': 4}, 'batch_size': 16,
                     'negatives': {**settings.get('negatives', {}), 'num_negatives': 4}}
    return load_recipe(settings)


def run(name: str, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Trains a run, or continues it, and returns its metrics."""
    folder = Path(arguments.runs) / f'{name}-seed{arguments.seed}'
    fresh = not (folder / 'last.pt').exists()
    recipe = recipe_of(name, arguments)
    start = time.perf_counter()
    best = run_recipe(recipe, folder, data=data, device='cpu', name=name)
    wall = time.perf_counter() - start
    last_model, _, _ = open_run(folder, which='last', data=data, device='cpu')
    last = evaluate(last_model, data, split='test')
    assert best.test is not None
    curve = best.train.history[['step', 'seconds', 'valid_mrr']].rename(columns={'valid_mrr': 'mrr'})
    return {'label': RUNS[name][0], 'steps': best.train.steps, 'best_step': best.train.best_step,
            'valid': best.train.metrics, 'test': best.test.to_dict(), 'test_last': last.to_dict(),
            'seconds': best.train.seconds, 'wall_seconds': wall if fresh else None,
            'validation_triples': arguments.valid_triples or data.num_facts('valid'),
            'settings': recipe.to_dict(), 'curve': curve.to_dict('records')}


def is_recorded(name: str, arguments: argparse.Namespace) -> bool:
    r"""Returns :obj:`True` if a result with the same settings exists."""
    found = read_results(f'curves_fb15k237/{name}-seed{arguments.seed}', arguments.out)
    # The recorded recipe is loaded again, so that settings added since then get their defaults.
    return bool(found) and load_recipe(found[0]['metrics']['settings']) == recipe_of(name, arguments)


def summarise(folder: Path) -> tuple[Path, Path]:
    r"""Writes the table and the plot of all runs with results in :obj:`folder`."""
    results = read_results('curves_fb15k237/*', folder)
    rows = [{'run': Path(result['name']).name, 'label': result['metrics']['label'], **point}
            for result in results for point in result['metrics']['curve']]
    frame = pd.DataFrame(rows)
    table = folder / 'curves_fb15k237' / 'curves.csv'
    partial = table.with_name(f'.{table.name}')
    frame.to_csv(partial, index=False, float_format='%.6g')
    partial.replace(table)
    return table, draw_curves(frame, table.with_suffix('.png'))


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    r"""Parses the command line."""
    root = os.environ.get('PYG_EMU_DATA')
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', default=root and str(Path(root) / 'FB15k-237'), help='folder of FB15k-237')
    parser.add_argument('--only', nargs='+', choices=RUNS, default=list(RUNS), help='the runs (default: all)')
    parser.add_argument('--steps', type=int, default=20_000)
    parser.add_argument('--every', type=int, default=1_000, help='steps between validations')
    parser.add_argument('--valid-triples', type=int, help='size of a fixed validation sample (default: all)')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'curves_fb15k237', help='parent of run folders')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny sizes, as a test')
    parser.add_argument('--seed', type=int, default=0)
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.steps, arguments.every = min(arguments.steps, 6), 3
        arguments.runs = arguments.out / 'runs'
    elif not arguments.data:
        parser.error('--data: expected the folder of FB15k-237; use --data or PYG_EMU_DATA')
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    r"""Trains the runs, prints and records their results."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    data = generate(40, 3, 200, 20) if arguments.smoke else load_dataset(arguments.data)
    for name in arguments.only:
        if is_recorded(name, arguments):
            print(f'{RUNS[name][0]}: already recorded')
            continue
        metrics = run(name, data, arguments)
        print(f'{metrics["label"]}: test MRR {metrics["test"]["mrr"]:.4f} at step {metrics["best_step"]}, '
              f'{metrics["test_last"]["mrr"]:.4f} at the last; {metrics["seconds"]:.0f} s of training '
              f'(target of the best run: {TARGET_MRR} within {TARGET_S:g} s)', flush=True)
        print(write_result(f'curves_fb15k237/{name}-seed{arguments.seed}', metrics, seed=arguments.seed,
                           folder=arguments.out))
        print(*summarise(arguments.out))


if __name__ == '__main__':
    main()

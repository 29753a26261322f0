r"""NBFNet with EMU and with BCE on small graphs on a CPU: UMLS, Nations, and version 1 of the inductive splits of
FB15k-237 and WN18RR.

.. code-block:: console

    export PYG_EMU_DATA=<folder>          # contains fb237_v1, fb237_v1_ind, WN18RR_v1 and WN18RR_v1_ind
    python -m benchmarks.nbfnet           # all runs that are not recorded yet, in sequence
    python -m benchmarks.nbfnet --only fb237-v1 --method emu --seeds 0

Each run is a packaged recipe, such as ``nbfnet-fb237-v1`` or ``nbfnet-fb237-v1-bce``, with the published settings (6
layers of 32 channels, batch size 64) and the number of steps of the recipe. The weights of the best validation are
tested. The inductive splits train on one graph and test on another graph with different entities. Test triples are
ranked against all entities (MRR, Hits@k) and, by expectation, against 50 random negatives ("Hits@10 (50 negatives)").
Both protocols appear in papers. Interrupted runs continue from their folder under ``runs/nbfnet``. Recorded runs are
skipped.
"""
from __future__ import annotations

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Optional, Sequence

import numpy as np

from benchmarks._record import RESULTS, ROOT
from benchmarks.accuracy import record
from pyg_emu.core.errors import DataWarning
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe

HITS = 'hits@10 (50 negatives)'
#: The caption of each method and the suffix of its recipes.
METHODS = {'emu': ('EMU', ''), 'bce': ('BCE', '-bce')}
#: The graphs, with Hits@10 against 50 negatives: the value of the NBFNet paper and the target of this benchmark.
CASES: dict[str, dict[str, float]] = {
    'umls': {},
    'nations': {},
    'fb237-v1': {'published': 0.834, 'target': 0.80},
    'wn18rr-v1': {'published': 0.948, 'target': 0.93},
}


def recipe_of(name: str, method: str, arguments: argparse.Namespace, seed: int) -> Recipe:
    r"""Returns the recipe of a run."""
    source = f'nbfnet-{name}{METHODS[method][1]}'
    settings = ['evaluation.num_negatives=50', 'checkpoint_every=25', f'seed={seed}']
    if arguments.steps is not None:
        settings.append(f'num_steps={arguments.steps}')
    if arguments.data is not None:
        recipe = load_recipe(source)
        settings += ['model.hidden_channels=4', 'model.num_layers=2', 'negatives.num_negatives=2']
        settings += [f'{key}={arguments.data / value}' for key, value in (('dataset', recipe.dataset),
                                                                         ('inference', recipe.inference)) if value]
    return load_recipe(source, [assignment_layer(settings)])


def run(name: str, method: str, seed: int, arguments: argparse.Namespace) -> str:
    r"""Trains a run, or continues it, records the result, and returns a one-line summary."""
    result = f'nbfnet/{name}-{method}-seed{seed}'
    if (arguments.out / f'{result}.json').exists() and not arguments.again:
        return f'{result}: already recorded; use --again to repeat it'
    return record(recipe_of(name, method, arguments, seed), result, f'{name}, {METHODS[method][0]}',
                  run_dir=arguments.runs / result.partition('/')[2], folder=arguments.out, again=arguments.again,
                  extra={HITS: CASES[name]}, shown=HITS)


def generate(folder: Path) -> None:
    r"""Writes tiny graphs for all cases."""
    random = np.random.default_rng(0)
    for name in ('UMLS', 'Nations', 'fb237_v1', 'fb237_v1_ind', 'WN18RR_v1', 'WN18RR_v1_ind'):
        (folder / name).mkdir()
        for split, count in (('train', 60), ('valid', 6), ('test', 6)):
            facts = random.integers([9, 3, 9], size=(count, 3))
            text = ''.join(f'{name}-{head}\tr{relation}\t{name}-{tail}\n' for head, relation, tail in facts)
            (folder / name / f'{split}.txt').write_text(text)


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=CASES, default=list(CASES), help='the graphs (default: all)')
    parser.add_argument('--method', nargs='+', choices=METHODS, default=list(METHODS), help='(default: both)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='(default: 0 1 2)')
    parser.add_argument('--steps', type=int, help='number of steps (default: that of the recipe)')
    parser.add_argument('--again', action='store_true', help='repeat recorded runs')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'nbfnet', help='folder of the run folders')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.set_defaults(data=None)
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny generated data, as a test')
    arguments = parser.parse_args(argv)
    if arguments.smoke and arguments.out == RESULTS:
        parser.error('--smoke: expected --out, because smoke results are not recorded')
    return arguments


def run_all(arguments: argparse.Namespace) -> None:
    r"""Runs everything that is not recorded, with the first seed of all runs before the second of any."""
    for seed in arguments.seeds:
        for name in arguments.only:
            for method in arguments.method:
                print(run(name, method, seed, arguments), flush=True)


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Trains the runs, prints and records their results."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    if not arguments.smoke:
        run_all(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        arguments.data, arguments.runs, arguments.steps = Path(folder), Path(folder) / 'runs', 1
        generate(arguments.data)
        run_all(arguments)


if __name__ == '__main__':
    main()

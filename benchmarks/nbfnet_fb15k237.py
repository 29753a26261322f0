r"""NBFNet on the full FB15k-237 graph on a CPU within a time budget, as a test of the setup that GPU users run in full.

.. code-block:: console

    export PYG_EMU_DATA=<folder>                                  # contains FB15k-237
    python -m benchmarks.nbfnet_fb15k237 --budget 60m             # EMU
    python -m benchmarks.nbfnet_fb15k237 --budget 60m --method bce
    NUMBA_NUM_THREADS=1 OMP_NUM_THREADS=1 python -m benchmarks.nbfnet_fb15k237 --budget 60m

The network has 3 layers of 16 channels instead of 6 layers of 32 channels as published, and trains for a fraction of an
epoch on the full graph. The budget is the time of training steps, without ranking. Interrupted runs continue from their
folder under ``runs/nbfnet_fb15k237``, also with a larger budget. MRR is measured on a fixed sample of 500 test triples.
Writes ``benchmarks/results/nbfnet_fb15k237/{method}-seed{seed}.json``.
"""
from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Optional, Sequence

import torch

from benchmarks._contenders import generate
from benchmarks._record import RESULTS, ROOT, read_results, write_result
from benchmarks.nbfnet import METHODS
from pyg_emu.core.errors import DataWarning
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.experiments.cli.options import duration
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import RunResult, run_recipe
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.run_folder import RunFolder

TEST_TRIPLES, VALID_TRIPLES = 500, 100
#: The number of parts of the budget. After each part, a sample of validation triples is ranked for the best weights.
PARTS = 6


def recipe_of(method: str, arguments: argparse.Namespace, num_steps: int) -> Recipe:
    r"""Returns the recipe of a run up to a step."""
    settings = ['model.hidden_channels=16', 'model.num_layers=3', f'seed={arguments.seed}', f'num_steps={num_steps}',
                # Parts end with their own validation.
                f'evaluate_every={10**9}', 'checkpoint_every=10', f'validation.max_triples={arguments.valid_triples}',
                f'evaluation.max_triples={arguments.test_triples}']
    if arguments.smoke:
        settings += ['model.hidden_channels=4', 'model.num_layers=2', 'batch_size=8']
    return load_recipe(f'nbfnet-fb15k237{METHODS[method][1]}', [assignment_layer(settings)])


def progress(folder: Path) -> tuple[int, float]:
    r"""Returns the number of steps of the run in a folder, and their total time in seconds."""
    path = RunFolder(folder).last
    if not path.exists():
        return 0, 0.0
    state = load_checkpoint(path)
    return state['step'], state['run']['seconds']


def train(method: str, data: KGData, arguments: argparse.Namespace, folder: Path) -> RunResult:
    r"""Trains part by part until the budget is used, and then ranks the test triples. The number of steps in a part is
    estimated from the steps before.
    """
    steps, spent = progress(folder)
    while True:
        left = arguments.budget - spent
        part = arguments.first_steps
        if steps > 0:  # At least one step, if there is time for it: the first ones are slow.
            part = min(max(1, math.floor(arguments.budget / PARTS * steps / spent)), math.floor(left * steps / spent))
        if left <= 0 or part < 1:
            return run_recipe(recipe_of(method, arguments, max(steps, 1)), folder, data=data, device='cpu')
        outcome = run_recipe(recipe_of(method, arguments, steps + part), folder, data=data, device='cpu', test=False,
                             name=f'{METHODS[method][0]} to step {steps + part}')
        steps, spent = outcome.train.steps, outcome.train.seconds
        valid_mrr = outcome.train.history['valid_mrr'].iloc[-1]
        print(f'{METHODS[method][0]}: step {steps}, {spent / steps:.3f} s a step, '
              f'{share_of_epoch(steps, data, arguments):.4f} of an epoch, {spent:.0f} of {arguments.budget:.0f} s, MRR '
              f'{valid_mrr:.4f} on {arguments.valid_triples} validation facts', flush=True)


def share_of_epoch(steps: int, data: KGData, arguments: argparse.Namespace) -> float:
    r"""Returns the number of epochs of a number of steps."""
    return steps * recipe_of('emu', arguments, 1).batch_size / data.num_facts('train')


def threads() -> dict[str, int]:
    r"""Returns the number of threads of the kernels and of PyTorch."""
    import numba

    return {'numba': numba.get_num_threads(), 'torch': torch.get_num_threads()}


def run(method: str, data: KGData, arguments: argparse.Namespace) -> None:
    r"""Trains, ranks and records the result."""
    name = f'nbfnet_fb15k237/{method}-seed{arguments.seed}'
    outcome = train(method, data, arguments, arguments.runs / name.partition('/')[2])
    assert outcome.test is not None
    steps, took = outcome.train.steps, outcome.train.seconds
    share = share_of_epoch(steps, data, arguments)
    recipe = recipe_of(method, arguments, steps)
    caption = (f'{METHODS[method][0]}: {recipe.model["num_layers"]} layers of {recipe.model["hidden_channels"]}, '
               f'{share:.3f} of an epoch, MRR of {arguments.test_triples} test facts')
    print(f'{caption}: {outcome.test["mrr"]:.4f} after {steps} steps, {took:.0f} s, {took / steps:.3f} s a step')
    print(write_result(name, {
        'label': caption, 'test': outcome.test.to_dict(), 'test_triples': arguments.test_triples,
        'budget_seconds': arguments.budget, 'seconds': took, 'steps': steps, 'seconds_per_step': took / steps,
        'epochs': share, 'threads': threads(), 'best_step': outcome.train.best_step, 'recipe': recipe.to_dict(),
        'history': outcome.train.history.to_dict('records')}, seed=arguments.seed, folder=arguments.out))


def is_recorded(method: str, arguments: argparse.Namespace) -> bool:
    r"""Returns :obj:`True` if a result of this or of a larger budget exists."""
    found = read_results(f'nbfnet_fb15k237/{method}-seed{arguments.seed}', arguments.out)
    return bool(found) and found[0]['metrics']['budget_seconds'] >= arguments.budget


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--budget', type=duration, default=duration('60m'), help='training time, such as 60m')
    parser.add_argument('--method', nargs='+', choices=METHODS, default=['emu'], help='(default: emu)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'nbfnet_fb15k237', help='parent of run folders')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--smoke', action='store_true', help='run everything with tiny generated data, as a test')
    parser.set_defaults(test_triples=TEST_TRIPLES, valid_triples=VALID_TRIPLES, first_steps=5)
    arguments = parser.parse_args(argv)
    if arguments.budget <= 0:
        parser.error('--budget: expected a positive time')
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.runs, arguments.first_steps = arguments.out / 'runs', 1
        arguments.test_triples = arguments.valid_triples = 5
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> None:
    r"""Trains the runs, prints and records their results."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    missing = [method for method in arguments.method if not is_recorded(method, arguments)]
    for method in arguments.method:
        if method not in missing:
            print(f'nbfnet_fb15k237/{method}-seed{arguments.seed}: already recorded; use a larger --budget to continue')
    if missing:
        data = generate(30, 3, 90, 8) if arguments.smoke else load_dataset('FB15k-237')
        for method in missing:
            run(method, data, arguments)


if __name__ == '__main__':
    main()

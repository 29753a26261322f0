r"""Every way to get negatives, alone and with EMU on top: the same model, data, seconds of training and seeds.

.. code-block:: console

    python -m benchmarks.negatives --dataset UMLS                   # all methods, five seeds, twenty seconds each
    python -m benchmarks.negatives --dataset FB15k-237 --methods uniform emu sans --budget 1h
    python -m benchmarks.negatives --dataset UMLS --list            # the methods and what is recorded of them
    python -m benchmarks.negatives --dataset UMLS --render          # the table and the picture, from recorded results
    python -m benchmarks.negatives --smoke --out <folder>           # tiny, on Nations

Each method is a change to one recipe (:mod:`benchmarks._negatives`). For each, ``--search-trials`` trials of
``--search-seconds`` seconds of training search its own settings, the learning rate and the weight of L3 on the
validation facts (:func:`~pyg_emu.experiments.tuning.tune`). The first trial has the values of the recipe. The best
settings are then trained for ``--seconds`` seconds with each seed. Time is that of training steps, drawing of negatives
included, without validations and the compilation of kernels; so methods with slower steps take fewer of them. The test
facts are ranked with the weights of the best validation.

Peak memory is measured in a process of its own: the rise of the peak resident memory during :data:`MEMORY_STEPS`
training steps without validation, after the same code has run on a tiny graph. It includes what a method prepares and
keeps, such as neighbourhoods and caches, and, alike for all methods, the model and its optimiser. Tables show what it
is above that of uniform negatives.

The same command continues what was interrupted, from ``runs/negatives``, and skips what is recorded. Writes
``benchmarks/results/negatives/{dataset}/{method}-seed{k}.json`` and ``{dataset}.csv`` and ``{dataset}.png`` beside it.
Run it on a machine that does nothing else, with a fixed number of threads: the steps that fit into the time depend on
both.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Sequence

import torch

from benchmarks._budget import Budget
from benchmarks._memory import peak_rise
from benchmarks._negatives import METHODS, SETTINGS, Variant, variants
from benchmarks._record import RESULTS, ROOT, lookup, read_result, read_results, write_result
from benchmarks.accuracy import improvements
from pyg_emu import KGData, Trainer, TripletLoader
from pyg_emu.core.errors import DataWarning, PygEmuError
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.experiments.build import build, fused_by_default
from pyg_emu.experiments.cli.options import duration
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import make_model, run_recipe
from pyg_emu.experiments.tuning import tune
from pyg_emu.negatives import parts_of
from pyg_emu.negatives.contract import shared_parameters

#: The steps during which peak memory is measured.
MEMORY_STEPS = 30
#: The trials of a search.
TRIALS = 8
#: What decides how long a method is searched and trained.
LENGTHS = ('seconds', 'search_seconds', 'search_trials')
_INTERRUPTED = 130


def settings(variant: Variant, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Returns what decides the results of a method, without the seed."""
    recipe = variant.recipe(arguments.dataset)
    return {'recipe': recipe.hash(), 'search': variant.space(recipe).to_dict(),
            **{key: getattr(arguments, key) for key in LENGTHS}}


def result_name(variant: Variant, arguments: argparse.Namespace, seed: int) -> str:
    r"""Returns the name of a result."""
    return f'negatives/{arguments.dataset}/{variant.key}-seed{seed}'


def is_recorded(variant: Variant, arguments: argparse.Namespace, seed: int) -> bool:
    r"""Returns :obj:`True` if a result with the same settings exists."""
    found = read_results(result_name(variant, arguments, seed), arguments.out)
    return bool(found) and found[0]['metrics']['settings'] == _plain(settings(variant, arguments))


def search(variant: Variant, data: KGData, arguments: argparse.Namespace) -> tuple[Recipe, dict[str, Any]]:
    r"""Searches the settings of a method, or continues its search. Returns the recipe of the best trial and a record of
    the search. All seeds share one search, also if only its outcome is left: that of a recorded seed.
    """
    for seed in range(arguments.seeds):
        if is_recorded(variant, arguments, seed):
            metrics = read_result(result_name(variant, arguments, seed), arguments.out)['metrics']
            return load_recipe(metrics['recipe']), metrics['search']
    base = replace(variant.recipe(arguments.dataset), max_seconds=arguments.search_seconds)
    if arguments.search_trials == 0:
        return base, {'trials': 0}
    space = variant.space(base)
    folder = arguments.runs / arguments.dataset / f'{variant.key}-search{_length(arguments, "search_seconds")}'
    found = tune(base, folder, space, trials=arguments.search_trials, pruning=False, data=data, device='cpu',
                 progress=False)
    best = found.recipe.to_dict()
    return found.recipe, {
        'trials': len(found.trials), 'outcomes': found.trials['outcome'].value_counts().to_dict(),
        'valid_mrr': found.value,
        'found': {parameter.key: lookup(best, parameter.key) for parameter in space.parameters}}


def run(variant: Variant, seed: int, data: KGData, arguments: argparse.Namespace) -> dict[str, Any]:
    r"""Searches the settings of a method and trains it with a seed, or continues to. Returns the metrics."""
    # Kernels are compiled and indices of the facts are built before the time counts.
    train_steps(variant.recipe(arguments.dataset), data, 3)
    found, searched = search(variant, data, arguments)
    recipe = replace(found, seed=seed, max_seconds=arguments.seconds)
    folder = arguments.runs / arguments.dataset / f'{variant.key}{_length(arguments, *LENGTHS)}-seed{seed}'
    outcome = run_recipe(recipe, folder, data=data, device='cpu', progress=False, name=variant.title)
    assert outcome.test is not None
    train = outcome.train
    memory = memory_of(variant, recipe, arguments) if seed == 0 and arguments.memory else None
    return {'label': variant.title, 'method': variant.name, 'emu': variant.with_emu, 'test': outcome.test.to_dict(),
            'valid_mrr': train.best_metric, 'best_step': train.best_step, 'steps': train.steps,
            'seconds': train.seconds, 'step_ms': 1000.0 * train.seconds / train.steps, 'peak_mib': memory,
            'search': searched,
            'settings': settings(variant, arguments), 'recipe': recipe.to_dict(), 'curve': improvements(train.history)}


def memory_of(variant: Variant, recipe: Recipe, arguments: argparse.Namespace) -> float:
    r"""Measures the peak memory of a method's steps in MiB, in a process of its own."""
    command = [sys.executable, '-m', 'benchmarks.negatives', '--dataset', arguments.dataset, '--methods', variant.key,
               '--measure-memory']
    done = subprocess.run(command, cwd=ROOT, check=True, input=recipe.to_yaml(), stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])['peak_mib'])


def peak_mib(recipe: Recipe, data: KGData) -> float:
    r"""Measures the peak memory of training steps in MiB in this process, which should be new. DeMix skips its warm-up,
    during which it keeps nothing.
    """
    mutation = recipe.negatives.get('mutation')
    if mutation is not None and 'warmup' in mutation:
        recipe = replace(recipe, negatives={**recipe.negatives, 'mutation': {**mutation, 'warmup': 0}})
    train_steps(recipe, load_dataset('Nations'), 3)
    return peak_rise(lambda: train_steps(recipe, data, MEMORY_STEPS)) / 2**20


def train_steps(recipe: Recipe, data: KGData, steps: int) -> None:
    r"""Takes training steps of a recipe without validation."""
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, data)
    loader = TripletLoader(data, recipe.batch_size, shuffle=True, transform=build('negatives', recipe.negatives),
                           corrupt=recipe.corrupt, seed=recipe.seed)
    criterion = build('loss', recipe.loss)
    parameters = [*model.parameters(), *shared_parameters(parts_of(loader, criterion).values())]
    fastest = fused_by_default(recipe.model, recipe.optimizer, False, 'cpu')
    optimizer = build('optimizer', {**fastest, **recipe.optimizer}, params=parameters)
    Trainer(model, criterion, loader, optimizer, num_steps=steps, evaluate_every=steps,
            progress=False).fit()


def compare(arguments: argparse.Namespace) -> int:
    r"""Runs everything that is selected and not recorded, the first seed of all methods before the second of any.
    Returns the exit code.
    """
    for variant in arguments.variants:
        if (missing := variant.missing()) is not None:
            print(f'{variant.title}: not available: {missing} in this version', flush=True)
    there = [variant for variant in arguments.variants if variant.missing() is None]
    todo = [(variant, seed) for seed in range(arguments.seeds) for variant in there
            if not is_recorded(variant, arguments, seed)]
    print(f'{arguments.dataset}: {len(todo)} of {len(there) * arguments.seeds} runs to do', flush=True)
    data = load_dataset(arguments.dataset) if todo else None
    code = 0
    with Budget(arguments.budget) as budget:
        for number, (variant, seed) in enumerate(todo):
            assert data is not None
            try:
                metrics = run(variant, seed, data, arguments)
            except KeyboardInterrupt as stop:
                why = f'budget of {arguments.budget:g} s used' if budget.is_spent else f'interrupted. {stop}'
                print(f'{variant.title}, seed {seed}: {why}; the same command continues with {len(todo) - number} of '
                      f'{len(todo)} runs', flush=True)
                code = 0 if budget.is_spent else _INTERRUPTED
                break
            except PygEmuError as error:  # The others run even if one fails.
                print(f'{variant.title}, seed {seed}: {error}', flush=True)
                code = 1
                continue
            write_result(result_name(variant, arguments, seed), metrics, seed=seed, folder=arguments.out)
            print(f'{variant.title}, seed {seed}: test MRR {metrics["test"]["mrr"]:.4f}, {metrics["steps"]:,} steps in '
                  f'{metrics["seconds"]:.0f} s', flush=True)
    render(arguments)
    return code


def render(arguments: argparse.Namespace) -> None:
    r"""Writes the table and the picture of all recorded results, if there are any."""
    from benchmarks._negatives_tables import draw, rows_of, write_csv

    rows = rows_of(arguments.dataset, arguments.out)
    if rows:
        folder = arguments.out / 'negatives'
        print(write_csv(rows, folder / f'{arguments.dataset}.csv'))
        print(draw(rows, arguments.dataset, folder / f'{arguments.dataset}.png'))


def list_methods(arguments: argparse.Namespace) -> None:
    r"""Prints each method with the recorded seeds."""
    for variant in arguments.variants:
        if (missing := variant.missing()) is not None:
            print(f'{variant.key}: not available: {missing} in this version')
            continue
        seeds = [str(seed) for seed in range(arguments.seeds) if is_recorded(variant, arguments, seed)]
        print(f'{variant.key}: {"seeds " + ", ".join(seeds) if seeds else "not run"}')


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--dataset', choices=SETTINGS, default='UMLS', help='(default: %(default)s)')
    parser.add_argument('--methods', nargs='+', metavar='NAME',
                        help='names of --list; one that can have EMU on top stands for both (default: all)')
    parser.add_argument('--seconds', type=float, help='training time of a run (default: that of the dataset)')
    parser.add_argument('--seeds', type=int, help='number of seeds, from 0 (default: that of the dataset)')
    parser.add_argument('--search-trials', type=int, default=TRIALS, help='0 for no search (default: %(default)s)')
    parser.add_argument('--search-seconds', type=float, help='training time of a trial (default: that of the dataset)')
    parser.add_argument('--budget', type=duration, help='time limit of the command, such as 30m; it can be continued')
    parser.add_argument('--no-memory', dest='memory', action='store_false', help='do not measure peak memory')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--list', action='store_true', help='list the methods and run nothing')
    mode.add_argument('--render', action='store_true', help='write the table and the picture and run nothing')
    mode.add_argument('--measure-memory', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'negatives', help='folder of the run folders')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    parser.add_argument('--smoke', action='store_true', help='run tiny sizes on Nations, as a test')
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        if arguments.out == RESULTS:
            parser.error('--smoke: expected --out, because smoke results are not recorded')
        arguments.dataset, arguments.runs, arguments.memory = 'Nations', arguments.out / 'runs', False
        arguments.search_trials = min(arguments.search_trials, 1)
    own = SETTINGS[arguments.dataset]
    for key in ('seconds', 'seeds', 'search_seconds'):
        if getattr(arguments, key) is None:
            setattr(arguments, key, getattr(own, key))
        if not getattr(arguments, key) > 0:
            parser.error(f'--{key.replace("_", "-")}: expected a positive number, got {getattr(arguments, key)}')
    if arguments.search_trials < 0:
        parser.error(f'--search-trials: expected at least 0, got {arguments.search_trials}')
    every = list(variants())
    arguments.variants = every
    if arguments.methods:
        keys = [variant.key for variant in every]
        for name in arguments.methods:
            if name not in METHODS and name not in keys:
                parser.error(f'--methods: expected some of {", ".join(keys)}, got {name}')
        arguments.variants = [variant for variant in every
                              if variant.key in arguments.methods or variant.name in arguments.methods]
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> int:
    r"""Runs the command line."""
    arguments = parse(argv)
    warnings.simplefilter('ignore', DataWarning)
    if arguments.measure_memory:
        import yaml

        recipe = load_recipe(yaml.safe_load(sys.stdin.read()))
        print(json.dumps({'peak_mib': peak_mib(recipe, load_dataset(arguments.dataset))}))
    elif arguments.list:
        list_methods(arguments)
    elif arguments.render:
        render(arguments)
    else:
        return compare(arguments)
    return 0


def _length(arguments: argparse.Namespace, *keys: str) -> str:
    r"""Tells folders of lengths other than the usual ones apart, which cannot be continued with one another."""
    usual = {'search_trials': TRIALS, **vars(SETTINGS[arguments.dataset])}
    return ''.join(f'-{key.replace("_", "-")}{getattr(arguments, key):g}' for key in keys
                   if getattr(arguments, key) != usual[key])


def _plain(values: Any) -> Any:
    return json.loads(json.dumps(values))


if __name__ == '__main__':
    sys.exit(main())

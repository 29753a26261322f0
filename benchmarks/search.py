r"""Searches for the settings of a recipe on the validation split, records every trial, and trains the best settings at
full length.

.. code-block:: console

    python -m benchmarks.search benchmarks/recipes/tuned/FB15k-237/distmult-uni.yaml --space emu --name distmult-emu \
        --steps 6000 --trials 20 --final-steps 40000 --seeds 0 1 2

``results/search/{name}.json`` holds the trials, the space, the seed of the search, and the recipe before and after it.
``results/tuned/{name}-seed{seed}.json`` holds the test metrics of each final run. A recorded search is not repeated:
its best recipe is read from the result, so final runs need no folder of the study. Interrupted searches and runs
continue from their folders under ``runs``.
"""
from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence

from benchmarks._record import RESULTS, ROOT, read_result, write_result
from benchmarks.accuracy import label, record
from pyg_emu.core.errors import PygEmuError, RecipeError
from pyg_emu.data.graph import KGData
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.tuning import load_space, tune


def search(recipe: Recipe, space: str, name: str, trials: int, *, seed: int = 0, runs: Path = ROOT / 'runs',
           folder: Path = RESULTS, again: bool = False, data: Optional[KGData] = None) -> Recipe:
    r"""Searches, or reads the recorded search, and returns the best recipe.

    Args:
        recipe (Recipe): The recipe that is tuned, with the steps of a trial.
        space (str): The search space, a name or a file.
        name (str): The name of the search.
        trials (int): The number of trials.
        seed (int, optional): The seed of the search. (default: :obj:`0`)
        runs (Path, optional): Holds the folder of the study, ``tune/{name}``. (default: ``runs``)
        folder (Path, optional): The folder of the results. (default: ``benchmarks/results``)
        again (bool, optional): If set to :obj:`True`, a recorded search is replaced by that of the folder of the study.
            (default: :obj:`False`)
        data (KGData, optional): The data, if already loaded. (default: :obj:`None`)

    Raises:
        RecipeError: If a search of this name was recorded with other settings.
    """
    result = f'search/{name}'
    bound = load_space(space).without(['num_steps']).bound(recipe)
    settings = _plain({'base': recipe.to_dict(), 'space': bound.to_dict(), 'num_trials': trials, 'search_seed': seed})
    if (folder / f'{result}.json').exists() and not again:
        metrics = read_result(result, folder)['metrics']
        if other := [key for key, value in settings.items() if metrics[key] != value]:
            raise RecipeError(f'{result} was recorded with another {", ".join(other)}; expected the same settings, '
                              'another --name, or --again')
        print(f'{result}: already recorded; use --again to repeat it')
        return _best(metrics)
    found = tune(recipe, runs / 'tune' / name, bound, trials=trials, seed=seed, data=data)
    print(found)
    rows = found.trials.astype(object)
    metrics = {'label': f'{label(found.recipe)} in a trial', 'metric': found.metric, 'value': found.value,
               'trials': rows.where(rows.notna(), None).to_dict('records'), 'recipe': found.recipe.to_dict(),
               **settings}
    write_result(result, metrics, seed=recipe.seed, folder=folder)
    return _best(metrics)


def _best(metrics: Mapping[str, Any]) -> Recipe:
    return load_recipe(metrics['recipe'])


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    r"""Settings as they are read from a file."""
    return json.loads(json.dumps(settings))


def finish(recipe: Recipe, name: str, steps: int, seeds: Sequence[int]) -> None:
    r"""Trains a recipe at full length and records it, for each seed that is not recorded."""
    for seed in seeds:
        result = f'tuned/{name}-seed{seed}'
        if (RESULTS / f'{result}.json').exists():
            print(f'{result}: already recorded')
            continue
        whole = load_recipe(recipe.to_dict(), [assignment_layer([f'num_steps={steps}', f'seed={seed}'])])
        print(record(whole, result, label(whole), run_dir=ROOT / 'runs' / 'accuracy' / result))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipe', help='a packaged recipe or a YAML file')
    parser.add_argument('--space', required=True, metavar='NAME|PATH',
                        help='the search space; pyg-emu tune --search list lists them')
    parser.add_argument('--name', required=True, help='name of the results')
    parser.add_argument('--steps', type=int, help='steps of a trial (default: those of the recipe)')
    parser.add_argument('--trials', type=int, default=20, help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the search (default: %(default)s)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[], help='seeds of final runs (default: no final runs)')
    parser.add_argument('--final-steps', type=int, help='steps of final runs (default: those of the recipe)')
    parser.add_argument('--again', action='store_true', help='replace a recorded search')
    arguments = parser.parse_args(argv)
    try:
        whole = load_recipe(arguments.recipe)
        short = whole if arguments.steps is None else load_recipe(
            arguments.recipe, [assignment_layer([f'num_steps={arguments.steps}'])])
        best = search(short, arguments.space, arguments.name, arguments.trials, seed=arguments.seed,
                      again=arguments.again)
        finish(best, arguments.name, arguments.final_steps or whole.num_steps, arguments.seeds)
    except PygEmuError as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stop:
        sys.exit(f'{arguments.name}: interrupted. {stop} The same command continues')


if __name__ == '__main__':
    main()

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
import sys
from pathlib import Path
from typing import Optional, Sequence

from benchmarks import accuracy
from benchmarks._record import RESULTS, ROOT, as_recorded, read_result, write_result
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
    settings = as_recorded({'base': recipe.to_dict(), 'space': bound.to_dict(), 'num_trials': trials,
                            'search_seed': seed})
    if (folder / f'{result}.json').exists() and not again:
        metrics = read_result(result, folder)['metrics']
        if other := [key for key, value in settings.items() if metrics[key] != value]:
            raise RecipeError(f'{result} was recorded with another {", ".join(other)}; expected the same settings, '
                              'another --name, or --again')
        print(f'{result}: already recorded; use --again to repeat it')
        return load_recipe(metrics['recipe'])
    found = tune(recipe, runs / 'tune' / name, bound, trials=trials, seed=seed, data=data)
    print(found)
    rows = found.trials.astype(object)
    metrics = {'label': f'{accuracy.label(found.recipe)} in a trial', 'metric': found.metric, 'value': found.value,
               'trials': rows.where(rows.notna(), None).to_dict('records'), 'recipe': found.recipe.to_dict(),
               **settings}
    write_result(result, metrics, seed=recipe.seed, folder=folder)
    return found.recipe


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
    parser.add_argument('--again', action='store_true', help='replace a recorded search and recorded runs')
    arguments = parser.parse_args(argv)
    if arguments.final_steps is not None and not arguments.seeds:
        parser.error('--final-steps: has no effect without final runs; expected --seeds as well')
    try:
        whole = load_recipe(arguments.recipe)
        short = whole if arguments.steps is None else load_recipe(
            arguments.recipe, [assignment_layer([f'num_steps={arguments.steps}'])])
        best = search(short, arguments.space, arguments.name, arguments.trials, seed=arguments.seed,
                      again=arguments.again)
        steps = whole.num_steps if arguments.final_steps is None else arguments.final_steps
        for seed in arguments.seeds:
            accuracy.run(best.to_dict(), assignment_layer([f'num_steps={steps}', f'seed={seed}']), 'tuned',
                         arguments.name, arguments.again)
    except PygEmuError as error:
        sys.exit(str(error))
    except KeyboardInterrupt as stop:
        sys.exit(f'{arguments.name}: interrupted. {stop} The same command continues')


if __name__ == '__main__':
    main()

r"""The command :obj:`pyg-emu tune`."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.cli.options import (
    Formatter,
    add_common,
    add_database,
    duration,
    put_database,
    put_source,
    split_names,
)
from pyg_emu.experiments.layers import Layer, assignment_layer, put
from pyg_emu.experiments.recipe import Recipe, load_recipe

_TUNE = """\
Search for the settings of a recipe with the best metric on the validation facts. Test facts are not ranked.

A search space, packaged or a file, names the settings that are searched. "--search list" lists the packaged ones. The
default depends on the loss of the recipe. A setting given with --set is not searched. The folder of the study contains
the best recipe, all trials and plots. The same command continues an interrupted study, and a larger --trials extends
it.

examples:
  pyg-emu tune --recipe distmult-umls-emu --study runs/tune/umls
  pyg-emu tune --recipe distmult-umls-emu --study runs/tune/umls --trials 80 --timeout 2h
  pyg-emu tune --recipe distmult-fb15k237-emu --data path/to/FB15k-237 --search emu-n3 --study runs/tune/n3
  pyg-emu tune --run-dir runs/umls --study runs/tune/beta --search mine.yaml --set loss.alpha=0.11
  pyg-emu train --recipe runs/tune/umls/best.yaml

a search space (keys are those of a recipe):
  loss.beta: {low: 0.05, high: 1.0}
  loss.regularizer.weight: {low: 1e-8, high: 1e-4, log: true}
  model.hidden_channels: {low: 50, high: 200, step: 50}
  optimizer.lr: {factor: 5}                      # a fifth of the recipe's own to five times it
  negatives.mask: {choices: [bernoulli, exact]}
  loss.regularizer.name: l3                      # set, not searched
"""


def add_tune(commands: Any) -> None:
    r"""Adds the command to the parser."""
    tune = commands.add_parser('tune', help='search for the best settings', description=_TUNE,
                               formatter_class=Formatter)
    tune.set_defaults(command=_tune)
    base = tune.add_argument_group('what is tuned')
    base.add_argument('--recipe', metavar='NAME|PATH', help='a packaged recipe or a YAML file')
    base.add_argument('--run-dir', metavar='DIR', help="or a run's folder, for its recipe")
    base.add_argument('--dataset', '--data', metavar='NAME|PATH|URL', help="other data than the recipe's, or its place")
    add_database(base)
    base.add_argument('--require-splits', metavar='SPLIT,...', type=split_names,
                      help='splits that the folder has to hold (default: train,valid,test)')
    base.add_argument('--steps', type=int, metavar='N', help='steps of a trial')
    base.add_argument('--set', metavar='KEY=VALUE', action='append', default=[],
                      help='any setting of a recipe, which is then not searched; may be repeated')
    search = tune.add_argument_group('search')
    search.add_argument('--search', metavar='NAME|PATH', help='the search space (default: by the loss of the recipe)')
    search.add_argument('--trials', type=int, default=40, metavar='N',
                        help='number of trials in the study (default: 40)')
    search.add_argument('--timeout', type=duration, metavar='TIME', help='start no trial after so long, such as 2h')
    search.add_argument('--metric', metavar='NAME', help='mrr, hits@10, ... (default: that of the recipe, mrr)')
    search.add_argument('--no-pruning', action='store_true', help='let every trial take all of its steps')
    search.add_argument('--seed', type=int, default=0, metavar='N',
                        help='seed of the search (default: 0); trials use the seed of the recipe')
    run = tune.add_argument_group('run')
    run.add_argument('--study', metavar='DIR', help='the folder of the study')
    add_common(run)


def _tune(options: argparse.Namespace) -> None:
    if options.search == 'list':
        _list()
        return
    if options.study is None:
        raise RecipeError('--study is missing: give a folder for the study')
    assignments = assignment_layer(options.set)
    if options.require_splits is not None:
        put(assignments, ('dataset', 'require_splits'), options.require_splits, '--require-splits')
    put_database(assignments, options)
    recipe = _recipe(options, assignments)

    from pyg_emu.experiments.tuning import default_space, load_space, tune
    space = default_space(recipe) if options.search is None else load_space(options.search)
    decided = ['.'.join(path) for path in assignments.places]
    # Sections on the way to a setting have places, too; what was written is what no other key leads through.
    decided = [key for key in decided if not any(other.startswith(f'{key}.') for other in decided)]
    space = space.without([*decided, *(['num_steps'] if options.steps is not None else [])]).bound(recipe)
    print(f'study: {options.study}')
    for line in (*(f'{key}: {value}' for key, value in space.fixed.items()), *map(str, space.parameters)):
        print(f'  {line}')
    result = tune(recipe, options.study, space, trials=options.trials, timeout=options.timeout, metric=options.metric,
                  pruning=not options.no_pruning, seed=options.seed, device=options.device,
                  progress=not options.quiet)
    print(result)
    if result.importances:
        print('importance: ' + ', '.join(f'{key} {share:.2f}' for key, share in result.importances.items()))
    print(f'best recipe: {Path(options.study) / "best.yaml"}')


def _recipe(options: argparse.Namespace, assignments: Layer) -> Recipe:
    if options.recipe is not None and options.run_dir is not None:
        raise RecipeError('--recipe, --run-dir: give one of the two')
    flags = Layer()
    if options.steps is not None:
        put(flags, ('num_steps', ), options.steps, f'--steps {options.steps}')
    source: Any = options.recipe
    if options.run_dir is not None:
        source = Path(options.run_dir) / 'recipe.yaml'
        if not source.exists():
            raise RecipeError(f'there is no run in {options.run_dir}: expected a folder with recipe.yaml, as pyg-emu '
                              'train writes it')
    if options.dataset is not None:
        put_source(flags, 'dataset', options.dataset, f'--dataset {options.dataset}', source, assignments)
    if source is None and 'dataset' not in flags.values and 'dataset' not in assignments.values:
        raise RecipeError('there is nothing to tune: give --recipe, --run-dir or --dataset')
    return load_recipe({} if source is None else source, [flags, assignments])


def _list() -> None:
    from pyg_emu.experiments.tuning import packaged_spaces
    found = packaged_spaces()
    width = max(map(len, found))
    for name, description in found.items():
        print(f'{name:<{width}}  {description}')

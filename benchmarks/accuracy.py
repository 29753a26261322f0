r"""Trains recipes and records the test metrics of their best weights, one result per seed.

.. code-block:: console

    python -m benchmarks.accuracy distmult-fb15k237-uniform distmult-fb15k237-emu --steps 3000 --group fb15k237

Interrupted runs continue from their folder under ``runs/accuracy``. Recorded runs are skipped.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any, Callable, Mapping, Sequence

import pandas as pd

from benchmarks._record import RESULTS, ROOT, read_result, write_result
from pyg_emu.core.errors import PygEmuError, RecipeError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import Metrics
from pyg_emu.experiments.layers import Layer, assignment_layer
from pyg_emu.experiments.recipe import Recipe, load_recipe
from pyg_emu.experiments.runs import run_recipe

# Cross-entropy settings that regularize confident scores, as EMU does.
_SMOOTHING = ('label_smoothing', 'confidence_penalty')
# Captions of losses. Those of EMU are named by their mutation, and a loss of another class by its own name.
_LOSSES = {'bce': 'BCE', 'margin': 'margin loss', 'demix': 'BCE', 'nbfnet_bce': 'BCE', 'cross_entropy': '',
           'one_vs_all': ''}
_WITH_EMU = ('emu', 'one_vs_all_emu', 'emu_bce', 'nbfnet_emu')
_MUTATIONS = {'mixup': 'Mixup', 'demix': 'DeMix', 'learned': 'learned masks'}
# The batch of the EMU paper, which captions leave out: facts, and negatives of each.
_USUAL = (1000, 256)


def label(recipe: Recipe) -> str:
    r"""Returns the caption of a recipe: model, treatment of negatives, loss, and what is not usual of the batch, the
    optimizer (Adagrad) and its schedule.
    """
    loss, negatives = recipe.loss, recipe.negatives
    source, mutation = _source(negatives.get('sampler') or {}), negatives.get('mutation')
    against_all = loss['name'].startswith('one_vs_all')
    if loss['name'] in _WITH_EMU:
        parts = [_mutated(negatives)]
    else:
        named = _LOSSES.get(loss['name'], loss['name'])
        if loss['name'] in ('self_adversarial', 'demix') and loss.get('temperature') is not None:
            named = f'self-adversarial at {loss["temperature"]:g}'
        held_back = [f'{key.replace("_", " ")} {loss[key]:g}' for key in _SMOOTHING if loss.get(key)]
        mixed = _MUTATIONS['demix'] if loss['name'] == 'demix' and mutation else None
        parts = [' + '.join([part for part in (mixed or source, named) if part] + held_back)]
    if source != 'uniform' and source not in parts[0] and not against_all:
        parts.append(f'on {source}')
    if loss['name'] == 'emu_bce':
        parts.append('BCE')
    if against_all:
        parts.append('against all entities')
    if regularizer := loss.get('regularizer'):
        parts[0] += f' + {regularizer["name"].upper()} {regularizer["weight"]:g}'
    number = negatives.get('num_negatives', _USUAL[1])
    if (recipe.batch_size, number) != _USUAL:
        parts.append(f'batches of {recipe.batch_size:,}' + ('' if against_all else f' with {number:,}'))
    if recipe.optimizer['name'] != 'adagrad':
        rate = f' at {recipe.optimizer["lr"]:.3g}' if 'lr' in recipe.optimizer else ''
        parts.append(f'{recipe.optimizer["name"].capitalize()}{rate}')
    if recipe.schedule['name'] != 'constant':
        parts.append(f'{recipe.schedule["name"].replace("_", " ")} schedule')
    model = recipe.model['name'] + (' with reciprocal relations' if recipe.model.get('reciprocal') else '')
    return ', '.join([model, *parts, f'{recipe.num_steps:,} steps'])


def _mutated(negatives: Mapping[str, Any]) -> str:
    r"""Returns the caption of mutated negatives."""
    mutation, rate = negatives.get('mutation'), negatives.get('mutation_rate', 0.0)
    if mutation and mutation['name'] in _MUTATIONS:
        name = _MUTATIONS[mutation['name']]
        return {'Mixup': name, 'DeMix': 'EMU with DeMix'}.get(name, f'EMU, {name}')
    if mutation and 'rate' not in mutation:
        return f'EMU, {mutation["name"]}'
    if mutation:
        rate = mutation['rate']
    if rate == 0:
        return 'unbounded label smoothing alone'
    span = f'{rate["start"]:g} to {rate["end"]:g}' if isinstance(rate, dict) else f'{rate:.3g}'
    settings = mutation or {'name': negatives.get('mask', 'bernoulli'), 'shared': negatives.get('shared', True)}
    kind = '' if settings['name'] == 'bernoulli' else f'{settings["name"]} '
    return f'EMU, rate {span}, one {kind}mask per {"triple" if settings.get("shared", True) else "negative"}'


def _source(sampler: Mapping[str, Any]) -> str:
    r"""Returns the caption of a sampler."""
    name = sampler.get('name', 'uniform')
    if name == 'sans':
        hops = sampler.get('num_hops', 3)
        return f'SANS of {hops} hops' if sampler.get('mode') == 'khop' else f'SANS by walks of {hops} steps'
    if name == 'shared_negatives':
        return 'shared negatives'
    names = {'nscaching': 'NSCaching', 'mcns': 'MCNS', 'dans': 'DANS', 'kbgan': 'KBGAN'}
    return names.get(name, name.replace('_', ' '))


def improvements(history: pd.DataFrame) -> list[dict[str, float]]:
    r"""Returns the validations that were better than all before, and the last one: what tells the best MRR up to any
    step or second.
    """
    rows = history[['step', 'seconds', 'valid_mrr']].rename(columns={'valid_mrr': 'mrr'})
    best = rows['mrr'].cummax().shift(fill_value=float('-inf'))
    kept = rows[(rows['mrr'] > best) | (rows.index == rows.index[-1])]
    return [{str(key): value for key, value in row.items()} for row in kept.to_dict('records')]


def record(recipe: Recipe, result: str, title: str, *, run_dir: Path, folder: Path = RESULTS, again: bool = False,
           data: KGData | None = None, extra: Mapping[str, Any] = MappingProxyType({}), shown: str = 'hits@10',
           on_validation: Callable[[int, Metrics], Any] | None = None, weights: Path | None = None) -> str:
    r"""Trains a recipe, or continues its run, and records the result.

    Args:
        recipe (Recipe): The recipe.
        result (str): The name of the result.
        title (str): The caption in tables.
        run_dir (Path): The run folder.
        folder (Path, optional): The folder of the results. (default: ``benchmarks/results``)
        again (bool, optional): If set to :obj:`True`, restarts an existing run. (default: :obj:`False`)
        data (KGData, optional): The data, if already loaded. (default: :obj:`None`)
        extra (dict, optional): Additional values to record. (default: none)
        shown (str, optional): The metric to print in addition to MRR. (default: :obj:`"hits@10"`)
        on_validation (callable, optional): See :func:`~pyg_emu.experiments.runs.run_recipe`. (default: :obj:`None`)
        weights (Path, optional): See there. (default: :obj:`None`)

    :rtype: A one-line summary of the result.
    """
    outcome = run_recipe(recipe, run_dir, resume=False if again else 'auto', data=data, name=title,
                         on_validation=on_validation, weights=weights)
    assert outcome.test is not None, f'{recipe.dataset}: expected test triples, got none'
    train = outcome.train
    write_result(result, {'label': title, 'test': outcome.test.to_dict(), 'valid_mrr': train.best_metric,
                          'best_step': train.best_step, 'steps': train.steps, 'seconds': train.seconds,
                          'curve': improvements(train.history), 'recipe': recipe.to_dict(),
                          'recipe_hash': recipe.hash(), **extra},
                 seed=recipe.seed, folder=folder)
    return (f'{result}: test MRR {outcome.test["mrr"]:.4f}, {shown.capitalize()} {outcome.test[shown]:.4f}, '
            f'{train.seconds:.0f} s of training')


def run(source: str | dict[str, Any], overrides: Layer, group: str, name: str, again: bool) -> None:
    r"""Trains a recipe and records it, unless that is done.

    Raises:
        RecipeError: If another recipe was recorded with this name.
    """
    recipe = load_recipe(source, [overrides])
    result = f'{group}/{name}-seed{recipe.seed}'
    if (RESULTS / f'{result}.json').exists() and not again:
        metrics = read_result(result)['metrics']
        # The hash of a recipe leaves out its steps, since a run may be continued.
        if (metrics['recipe_hash'], metrics['recipe']['num_steps']) != (recipe.hash(), recipe.num_steps):
            raise RecipeError(f'{result} was recorded with another recipe ({metrics["label"]}); expected the same '
                              'settings, another --name, or --again')
        print(f'{result}: already recorded; use --again to repeat it')
        return
    print(record(recipe, result, label(recipe), run_dir=ROOT / 'runs' / 'accuracy' / result, again=again))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('recipes', nargs='+', help='packaged recipes or YAML files')
    parser.add_argument('--group', default='accuracy', help='folder of the results (default: %(default)s)')
    parser.add_argument('--name', help='name of the result, for one recipe only (default: the name of the recipe)')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='(default: 0)')
    parser.add_argument('--steps', type=int, help='number of steps (default: that of the recipe)')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE', help='any setting of a recipe')
    parser.add_argument('--again', action='store_true', help='repeat recorded runs')
    arguments = parser.parse_args(argv)
    if arguments.name and len(arguments.recipes) > 1:
        parser.error('--name: expected one recipe, got several')
    for source in arguments.recipes:
        for seed in arguments.seeds:
            settings = [*arguments.set, f'seed={seed}']
            if arguments.steps is not None:
                settings.append(f'num_steps={arguments.steps}')
            try:
                run(source, assignment_layer(settings), arguments.group, arguments.name or Path(source).stem,
                    arguments.again)
            except PygEmuError as error:
                sys.exit(str(error))
            except KeyboardInterrupt as stop:
                sys.exit(f'{source}, seed {seed}: interrupted. {stop} The same command continues the run')


if __name__ == '__main__':
    main()

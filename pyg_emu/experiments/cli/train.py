r"""The command :obj:`pyg-emu train`."""
from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any, NamedTuple, Optional

from pyg_emu.core.errors import ArgumentError, RecipeError
from pyg_emu.experiments.cli.options import (
    Formatter,
    add_common,
    add_database,
    add_shard,
    put_database,
    put_source,
    split_names,
)
from pyg_emu.experiments.layers import KeyPath, Layer, assignment_layer, flag_place, parse_value, put
from pyg_emu.experiments.names import SECTIONS
from pyg_emu.experiments.recipe import Recipe, load_recipe

_TRAIN = """\
Train a model and rank the test facts with the weights that were best on the validation facts.

Settings come from a recipe (--recipe, see "pyg-emu recipes list"). The flags below override it, and --set, which takes
any setting of a recipe, overrides both. A class may be one of your own, package.module:Class. All results are written
to the run folder. The same command continues an interrupted run.

examples:
  pyg-emu train --recipe distmult-umls-emu
  pyg-emu train --recipe nbfnet-umls
  pyg-emu train --recipe distmult-fb15k237-emu --data path/to/FB15k-237 --seed 1 --run-dir runs/fb-1
  pyg-emu train --dataset Nations --model RotatE --dim 64 --steps 2000 --lr 0.05
  pyg-emu train --dataset UMLS --set negatives.mask=exact --set negatives.sampler.filtered=true
  pyg-emu train --data path/to/folder --set dataset.header=true --set dataset.delimiter=';'
  pyg-emu train --run-dir runs/fb-1               # continue the run in this folder
  pyg-emu train --extend runs/fb-1 --data path/to/larger --run-dir runs/fb-2    # new facts, relations and entities
  pyg-emu train --dataset UMLS --vectors entities.parquet                       # start from given vectors
  torchrun --nproc_per_node 2 -m pyg_emu train --recipe nbfnet-fb15k237     # two processes, the same steps
  torchrun --nproc_per_node 2 -m pyg_emu train --data path/to/large --shard entities  # each holds half of the entities
  pyg-emu train --data path/to/large --storage mmap --set model.sparse=true           # entities larger than memory
"""


class _Flag(NamedTuple):
    r"""A flag that sets one key of the recipe."""
    flags: tuple[str, ...]
    path: KeyPath
    metavar: str
    help: str


def _names(kind: str) -> str:
    # The names are those of classes, whose import takes seconds: only the error for an unknown name lists them.
    example = SECTIONS[kind].default
    return f'a name such as {example}, or package.module:Class; the name "list" shows all'


_FLAGS = (
    _Flag(('--dataset', '--data'), ('dataset', ), 'NAME|PATH|URL',
          'UMLS, FB15k-237, ...; a folder with train.txt, valid.txt and test.txt; a file of facts; a database'),
    _Flag(('--inference', ), ('inference', ), 'NAME|PATH',
          'another graph with the same relations, whose test facts are ranked in the end (NBFNet)'),
    _Flag(('--model', ), ('model', 'name'), 'NAME', _names('model')),
    _Flag(('--dim', ), ('model', 'hidden_channels'), 'D', 'components of an embedding'),
    _Flag(('--negatives', ), ('negatives', 'num_negatives'), 'N', 'negatives per fact'),
    _Flag(('--rate', ), ('negatives', 'mutation_rate'), 'SHARE',
          'share of components that a mutated negative takes from the positive; 0 turns mutation off'),
    _Flag(('--loss', ), ('loss', 'name'), 'NAME', _names('loss')),
    _Flag(('--alpha', ), ('loss', 'alpha'), 'A', 'weight of the unmutated negatives (emu)'),
    _Flag(('--beta', ), ('loss', 'beta'), 'B', 'label of the mutated negatives (emu)'),
    _Flag(('--l3', ), ('loss', 'regularizer', 'weight'), 'W', 'weight of the L3 norm of all embeddings'),
    _Flag(('--optimizer', ), ('optimizer', 'name'), 'NAME', _names('optimizer')),
    _Flag(('--lr', ), ('optimizer', 'lr'), 'RATE', 'learning rate'),
    _Flag(('--schedule', ), ('schedule', 'name'), 'NAME', _names('schedule')),
    _Flag(('--batch-size', ), ('batch_size', ), 'N', 'facts per step'),
    _Flag(('--storage', ), ('storage', ), 'memory|mmap',
          'where entity rows and their optimiser state are: in memory, or in memory-mapped files of the run folder'),
    _Flag(('--steps', ), ('num_steps', ), 'N', 'steps to take'),
    _Flag(('--evaluate-every', ), ('evaluate_every', ), 'N', 'steps between validations'),
    _Flag(('--patience', ), ('patience', ), 'N', 'stop after this many validations without a new best'),
    _Flag(('--seed', ), ('seed', ), 'N', 'seed of all random numbers'),
)


def add_train(commands: Any) -> None:
    r"""Adds the command to the parser."""
    train = commands.add_parser('train', help='train a model', description=_TRAIN, formatter_class=Formatter)
    train.set_defaults(command=_train)
    train.add_argument('--recipe', metavar='NAME|PATH', help='a packaged recipe or a YAML file')
    settings = train.add_argument_group('settings')
    for flag in _FLAGS:
        settings.add_argument(*flag.flags, dest=flag.flags[0], metavar=flag.metavar, help=flag.help)
    settings.add_argument('--set', metavar='KEY=VALUE', action='append', default=[],
                          help='any setting of a recipe, for example negatives.mutation_rate=0.61; may be repeated')
    settings.add_argument('--require-splits', metavar='SPLIT,...', type=split_names,
                          help='splits that the folder has to hold, such as train,test (default: train,valid,test)')
    add_database(settings)
    run = train.add_argument_group('run')
    run.add_argument('--run-dir', '--out', metavar='DIR', help='the run folder (default: runs/ and a name)')
    run.add_argument('--extend', metavar='RUN', help='continue the model of this run with the entities, relations and '
                                                     'facts of --data, in a new run folder; settings are those of RUN')
    run.add_argument('--optimizer-state', choices=('keep', 'new'),
                     help='with --extend: whether to keep the optimizer state of old rows (default: keep)')
    run.add_argument('--vectors', metavar='FILE', help='vectors that entities start from, by label: .parquet, '
                                                       '.safetensors, .txt or .vec; with --extend those of new ones')
    run.add_argument('--relation-vectors', metavar='FILE', help='the same for relations')
    run.add_argument('--fresh', action='store_true', help='start over, and remove the run in the folder')
    run.add_argument('--overwrite', action='store_true',
                     help='replace files in the folder that no run has written, or a run without its last.pt; --fresh '
                          'replaces a run with other settings or a damaged one')
    run.add_argument('--tensorboard', action='store_true', help='write the history for TensorBoard as well')
    run.add_argument('--wandb', metavar='PROJECT', help='write the history to this project of Weights & Biases as well')
    run.add_argument('--mlflow', metavar='EXPERIMENT', help='write the history to this experiment of MLflow as well')
    add_shard(run)
    add_common(run)


def _train(options: argparse.Namespace) -> None:
    recipe, run_dir = _training(options)
    from pyg_emu.core.distributed import process_group
    with process_group(options.device) as place:
        if place.rank == 0:
            print(f'run folder: {run_dir}', flush=True)
        settings: dict[str, Any] = {
            'resume': False if options.fresh else 'auto', 'device': str(place.device), 'progress': not options.quiet,
            'tensorboard': options.tensorboard, 'loggers': loggers_of(options), 'overwrite': options.overwrite}
        if options.extend is not None:
            from pyg_emu.experiments.growing import extend
            result = extend(options.extend, recipe.dataset, run_dir, recipe=recipe, vectors=options.vectors,
                            optimizer_state=options.optimizer_state or 'keep', **settings)
        else:
            from pyg_emu.experiments.runs import run_recipe
            result = run_recipe(recipe, run_dir, vectors=options.vectors, relation_vectors=options.relation_vectors,
                                shard=options.shard, **settings)
    if place.rank > 0:
        return
    if options.extend is not None:
        _tell_origin(run_dir)
    train = result.train
    early = f', stopped early after {train.steps}' if train.stopped_early else ''
    if recipe.max_seconds is not None and train.steps < recipe.num_steps and not train.stopped_early:
        early = f', stopped after {train.steps} by max_seconds={recipe.max_seconds:g}'
    if train.best_step is not None:
        print(f'best validation {_metric_text(recipe.metric)} {train.best_metric:.4f} at step {train.best_step} of '
              f'{recipe.num_steps}{early}; {train.seconds:.1f} s in training steps')
    else:
        print(f'there are no validation facts to choose a step by: these are the weights of step {train.steps} of '
              f'{recipe.num_steps}{early}')
    print('there are no test facts to rank' if result.test is None else result.test)


def loggers_of(options: argparse.Namespace) -> list[Any]:
    r"""The loggers that the flags of :obj:`train` name, beside TensorBoard's."""
    from pyg_emu.training.trackers import MLflowLogger, WandbLogger
    named = ((WandbLogger, options.wandb), (MLflowLogger, options.mlflow))
    return [make(name) for make, name in named if name is not None]


def _tell_origin(run_dir: Path) -> None:
    from pyg_emu.experiments.starts import read_origin
    from pyg_emu.training.run_folder import RunFolder
    found = read_origin(RunFolder(run_dir)) or {}
    for what in ('entities', 'relations'):
        counts = found[what]
        absent = f' ({counts["without facts"]} of them not in the data)' if counts['without facts'] else ''
        print(f'{what}: {counts["kept"]} of {found["extends"]}{absent}, {counts["new"]} new')


def _metric_text(metric: str) -> str:
    return metric.upper() if metric in ('mrr', 'mr', 'amri') else metric


def _training(options: argparse.Namespace) -> tuple[Recipe, Path]:
    r"""The recipe and the run folder that the flags of :obj:`train` describe."""
    from pyg_emu.training.run_folder import RunFolder
    extended = _extended(options)
    source: Any = options.recipe
    recorded = None if options.run_dir is None else RunFolder(options.run_dir).recipe
    assignments = assignment_layer(options.set)
    assigned = assignments.values.get('dataset')
    has_data = getattr(options, '--dataset') is not None or (
        'source' in assigned if isinstance(assigned, dict) else assigned is not None)
    # What starts over with data of its own is another run; with none, it is the same one again.
    going_on = not options.fresh or not (has_data or extended is not None)
    if source is None and recorded is not None and recorded.exists() and going_on:
        source = recorded
    elif extended is not None:
        source = extended
    if options.require_splits is not None:
        put(assignments, ('dataset', 'require_splits'), options.require_splits, '--require-splits')
    put_database(assignments, options)
    flags = Layer()
    for flag in _FLAGS:
        text = getattr(options, flag.flags[0])
        if text is None:
            continue
        place = flag_place(flag.flags[0], text)
        if flag.path in (('dataset', ), ('inference', )):
            put_source(flags, flag.path[0], text, place, source, assignments)
            continue
        if flag.path[-2:] == ('regularizer', 'weight'):
            put(flags, ('loss', 'regularizer', 'name'), 'l3', place)
        put(flags, flag.path, parse_value(text, place), place)
    if extended is not None and source != recorded and 'dataset' not in flags.values:
        raise RecipeError('--extend: give the new data as well, with --data')
    if source is None and not has_data:
        raise RecipeError('there is nothing to train on: give --dataset, --recipe, or --run-dir with a run to continue')
    recipe = load_recipe({} if source is None else source, [flags, assignments])
    return recipe, Path(options.run_dir) if options.run_dir is not None else _default_folder(options, recipe)


def _extended(options: argparse.Namespace) -> Optional[Path]:
    r"""The file of the recipe of the run that :obj:`--extend` names."""
    wrong = {'--optimizer-state': options.optimizer_state} if options.extend is None else {
        '--recipe': options.recipe, '--shard': options.shard, '--relation-vectors': options.relation_vectors}
    for flag, value in wrong.items():
        if value is not None:
            raise ArgumentError(f'{flag}: expected {"no" if options.extend else "it with"} --extend'
                                f'{" beside it; settings are those of the run" if flag == "--recipe" else ""}')
    if options.extend is None:
        return None
    from pyg_emu.training.run_folder import RunFolder
    path = RunFolder(options.extend).recipe
    if not path.exists():
        raise RecipeError(f'--extend {options.extend}: there is no run; expected a folder that pyg-emu train has '
                          'written')
    return path


def _default_folder(options: argparse.Namespace, recipe: Recipe) -> Path:
    if options.extend is not None:
        return Path('runs') / f'{Path(options.extend).resolve().name}-extended'
    if options.recipe is not None:
        name = Path(options.recipe).stem
    else:
        source = recipe.dataset if isinstance(recipe.dataset, str) else recipe.dataset['source']
        name = f'{recipe.model["name"]}-{Path(source).stem}-{recipe.loss["name"]}'
    return Path('runs') / f'{re.sub(r"[^A-Za-z0-9_.-]", "-", name).lower()}-seed{recipe.seed}'

r"""The command line :obj:`pyg-emu`, and the commands that have no module of their own.

Commands import their modules when they run, so that :obj:`--help` responds at once.
"""
from __future__ import annotations

import argparse
import io
import json
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Optional, Sequence, TextIO, Union

from pyg_emu import __version__
from pyg_emu.core.cores import limit_threads
from pyg_emu.core.errors import ArgumentError, PygEmuError, RecipeError
from pyg_emu.core.files import reason
from pyg_emu.experiments.cli.advice import in_flags
from pyg_emu.experiments.cli.bench import add_bench
from pyg_emu.experiments.cli.data import add_data
from pyg_emu.experiments.cli.diff import add_diff
from pyg_emu.experiments.cli.options import (
    Formatter,
    Parser,
    add_common,
    add_database,
    add_shard,
    make_working_directory_importable,
    one_line,
    put_database,
    put_source,
    split_names,
)
from pyg_emu.experiments.cli.report import add_report
from pyg_emu.experiments.cli.run import add_candidates, add_run, candidates_of, labels_of, open_options, run_dir_of
from pyg_emu.experiments.cli.scores import add_scores
from pyg_emu.experiments.cli.tune import add_tune
from pyg_emu.experiments.cli.vectors import add_vectors
from pyg_emu.experiments.cli.warmup import add_warmup
from pyg_emu.experiments.layers import KeyPath, Layer, assignment_layer, flag_place, parse_value, put
from pyg_emu.experiments.names import SECTIONS
from pyg_emu.experiments.recipe import Recipe, load_recipe, packaged_recipes, packaged_text

#: Where errors of the package itself are reported.
_REPORTS = 'the issue tracker of the project'

_OVERVIEW = """\
Train and use knowledge graph embeddings with embedding mutation (EMU).

examples:
  pyg-emu train --dataset UMLS --run-dir runs/umls
  pyg-emu evaluate --run runs/umls --split test
  pyg-emu predict --run runs/umls --head virus --relation causes -k 5
  pyg-emu score --run runs/umls --input facts.tsv
  pyg-emu calibrate --run runs/umls
  pyg-emu classify --run runs/umls
  pyg-emu export --run runs/umls --output entities.parquet
  pyg-emu neighbors --run runs/umls --entity virus
  pyg-emu tune --recipe distmult-umls-emu --study runs/tune/umls
  pyg-emu data path/to/folder
  pyg-emu diff runs/umls runs/umls-seed1
  pyg-emu report runs/umls
  pyg-emu recipes list
  pyg-emu warmup
  pyg-emu bench
"""

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

_EVALUATE = """\
Rank the facts of a split, heads and tails, among all entities; other known answers do not compete.

examples:
  pyg-emu evaluate --run runs/umls
  pyg-emu evaluate --run runs/umls --split valid --tie pessimistic --json
  pyg-emu evaluate --run runs/umls --by relation --ranks ranks.csv
  pyg-emu evaluate --run runs/umls --sides relation          # which relation holds between head and tail
  pyg-emu evaluate --run runs/umls --candidates drugs.txt    # among these entities, one a line
  pyg-emu evaluate --run runs/umls --seen-candidates         # among entities that fit the relation
  pyg-emu evaluate --run runs/nbfnet --data path/to/other    # NBFNet: other entities, the same relations
"""

_PREDICT = """\
Print the best tails for a head and a relation, the best heads for a relation and a tail, or the best relations for a
head and a tail.

examples:
  pyg-emu predict --run runs/umls --head virus --relation causes
  pyg-emu predict --run runs/umls --tail disease_or_syndrome --relation causes -k 5 --exclude-known
  pyg-emu predict --run runs/umls --head virus --tail disease_or_syndrome
  pyg-emu predict --run runs/umls --input questions.tsv --output answers.csv    # lines such as "virus  causes  ?"
  pyg-emu predict --run runs/umls --head virus --relation causes --types types.tsv   # lines of an entity and its type
"""

_EXPLAIN = """\
Print the paths of the graph that contribute most to the score of a fact. For models that read a graph (NBFNet).

examples:
  pyg-emu explain --run runs/nbfnet-umls --head virus --relation causes --tail disease_or_syndrome
  pyg-emu explain --run runs/nbfnet-umls --head virus --relation causes --tail disease_or_syndrome --out paths.png
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


def main(arguments: Optional[Sequence[str]] = None) -> int:
    r"""Runs a command.

    Args:
        arguments (list of str, optional): The command and its flags. (default: those of the process)

    Returns:
        0; 2 if the input could not be used, after one line on standard error; 130 if it was interrupted; 1 after an
        error that this package did not foresee, whose traceback is in a file.
    """
    make_working_directory_importable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # labels that an ASCII terminal cannot show do not end the command
            stream.reconfigure(errors='backslashreplace')
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as leaving:  # after --help, or a usage error
        code = _flush()
        raise leaving if code is None else SystemExit(code) from None
    except OSError as error:  # of --help
        return _unwritten(error)
    limit_threads()
    code = _run(options)
    unwritten = _flush()
    return code if code != 0 or unwritten is None else unwritten


def _run(options: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options.command(options)
        except PygEmuError as error:
            return _fail(in_flags(str(error)))
        except KeyboardInterrupt as error:
            print(one_line(f'{_speaker()}: {str(error) or "interrupted"}'), file=sys.stderr)
            return 130
        except OSError as error:  # a name that is too long, a folder that may not be read, a full disk
            unwritten = _flush()
            if unwritten is not None or isinstance(error, BrokenPipeError):
                return unwritten or 0
            name = '' if error.filename is None else f'{str(error.filename):.100}: '
            return _fail(f'{name}{error.strerror or error}')
        except Exception as error:
            if _is_out_of_memory(error):
                return _fail(f'there is not enough memory ({reason(error)}); choose a smaller batch size, fewer '
                             'negatives or fewer channels')
            return _unforeseen(error)
    return 0


def _flush() -> Optional[int]:
    r"""Writes what is left of the output. The exit code if it cannot be written, or :obj:`None`."""
    try:
        if sys.stdout is not None:  # as after `>&-`
            sys.stdout.flush()
        return None
    except OSError as error:
        # Python would try once more when it ends, and fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _unwritten(error)


def _unwritten(error: OSError) -> int:
    if isinstance(error, BrokenPipeError):  # the reader, such as head, has seen enough
        return 0
    return _fail(f'the output cannot be written completely ({error.strerror or error})')


def _fail(message: str) -> int:
    print(one_line(f'{_speaker()}: error: {message}'), file=sys.stderr)
    return 2


def _is_out_of_memory(error: Exception) -> bool:
    return (isinstance(error, MemoryError) or type(error).__name__ == 'OutOfMemoryError'
            or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)))


def _unforeseen(error: Exception) -> int:
    r"""The last resort: one line, and the traceback in a file."""
    import tempfile
    import traceback

    told = f'{type(error).__name__}: {error}'.splitlines()[0]
    try:
        with tempfile.NamedTemporaryFile('w', prefix='pyg-emu-', suffix='.log', delete=False, encoding='utf-8',
                                         errors='backslashreplace') as file:
            file.write(f'pyg-emu {__version__}, Python {sys.version}\n{" ".join(sys.argv)}\n\n')
            traceback.print_exception(error, file=file)
        where = f'the traceback is in {file.name}'
    except OSError:
        where = 'its traceback could not be written to a file'
    print(f'{_speaker()}: internal error: {told:.200}; {where}. Please report it, with this file, at {_REPORTS}',
          file=sys.stderr)
    return 1


def _train(options: argparse.Namespace) -> None:
    recipe, run_dir = _training(options)
    from pyg_emu.core.distributed import process_group
    with process_group(options.device) as place:
        if place.rank == 0:
            print(f'run folder: {run_dir}', flush=True)
        settings: dict[str, Any] = {
            'resume': False if options.fresh else 'auto', 'device': str(place.device), 'progress': not options.quiet,
            'tensorboard': options.tensorboard, 'loggers': _loggers(options), 'overwrite': options.overwrite}
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


def _loggers(options: argparse.Namespace) -> list[Any]:
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


def _evaluate(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    from pyg_emu.core.distributed import process_group
    from pyg_emu.data.io.frames import check_table_path, write_table
    from pyg_emu.evaluation.graphs import rank
    from pyg_emu.experiments.runs import is_inductive
    if options.ranks is not None:
        check_table_path('--ranks', options.ranks)
    with process_group(options.device) as place:
        options.device = str(place.device)
        model, data, recipe, name = open_options(options, run_dir, inference=options.split == 'test')
        settings = dict(recipe.evaluation)
        for key in ('tie', 'max_triples', 'by', 'known_facts', 'sides'):
            if getattr(options, key) is not None:
                settings[key] = getattr(options, key)
        candidates = candidates_of(options, data)
        if candidates is not None:
            settings['candidates'] = candidates
        metrics = rank(model, data, options.split, settings, name=name, inductive=is_inductive(run_dir, data),
                       progress=not options.quiet)
    if place.rank == 0:
        if options.ranks is not None:
            write_table(metrics.ranked(), '--ranks', options.ranks)
        print(json.dumps(metrics.to_dict(), indent=2) if options.json else metrics)


def _predict(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    known = [name for name in ('head', 'relation', 'tail') if getattr(options, name) is not None]
    if options.input is not None and known:
        raise RecipeError(f'--input, --{known[0]}: give the questions in a file or with flags, not both')
    if options.input is None and len(known) != 2:
        raise RecipeError('--head, --relation, --tail: expected two of the three, the third is predicted; got '
                          f'{", ".join(f"--{name}" for name in known) or "none"}')
    from pyg_emu.core.distributed import process_group
    from pyg_emu.data.io.frames import check_table_path, write_table
    from pyg_emu.evaluation.graphs import ranker_of
    from pyg_emu.evaluation.prediction import predict
    from pyg_emu.evaluation.questions import answer
    if options.output is not None:
        check_table_path('--output', options.output)
    with process_group(options.device) as place:
        options.device = str(place.device)
        model, data, _, name = open_options(options, run_dir, whole=True)
        kind: Any = 'relation' if options.head is not None and options.tail is not None else 'entity'
        with labels_of(name):
            settings: dict[str, Any] = {'k': options.k, 'exclude_known': options.exclude_known,
                                        'known_facts': options.known_facts,
                                        'candidates': candidates_of(options, data, kind)}
            if options.input is not None:
                frame = answer(ranker_of(model, data), data, options.input, progress=not options.quiet, **settings)
            else:
                frame = predict(ranker_of(model, data), data, heads=options.head, relations=options.relation,
                                tails=options.tail, **settings)
    if place.rank > 0:
        return
    if options.output is not None:
        write_table(frame, '--output', options.output)
        return
    print(frame.to_csv(index=False) if options.csv else frame.to_string(index=False), end='' if options.csv else '\n')


def _explain(options: argparse.Namespace) -> None:
    run_dir = run_dir_of(options)
    if options.k < 1:
        raise ArgumentError(f'-k {options.k}: expected at least 1')
    from pyg_emu.evaluation.graphs import reads_graph
    from pyg_emu.models.nbfnet.explanation import draw_paths, explain
    model, data, recipe, name = open_options(options, run_dir, whole=True)
    if not reads_graph(model):
        raise RecipeError(f'{recipe.model["name"]} reads no graph, so its scores have no paths; explain needs '
                          'a run of NBFNet')
    with labels_of(name):
        paths = explain(model, data, options.head, options.relation, options.tail, options.k, side=options.side)
    if options.out is not None:
        _save_drawing(draw_paths(paths), Path(options.out))
    if options.csv:
        print(paths[['weight', 'length', 'path']].to_csv(index=False), end='')
        return
    print(f'({options.head}, {options.relation}, {options.tail}) scores {paths.attrs["score"]:.4f}')
    if len(paths) == 0:
        number = len(model.layers)
        print(f'no path of at most {number} {"edge" if number == 1 else "edges"} leads from one end to the other')
        return
    # Left-aligned, since paths are read from their beginning.
    for weight, path in zip(paths['weight'], paths['path']):
        print(f'{weight:10.4f}  {path}')


def _save_drawing(figure: Any, path: Path) -> None:
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ArgumentError(f'--out {path}: cannot be written ({error}); expected a file such as paths.png or '
                            'paths.pdf') from error


def _recipes(options: argparse.Namespace) -> None:
    if options.what == 'show':
        print(load_recipe(options.name).to_yaml() if options.resolved else packaged_text(options.name), end='')
        return
    found = packaged_recipes()
    width = max(map(len, found))
    for name, description in found.items():
        print(f'{name:<{width}}  {description}')


def _show_warning(message: Union[Warning, str], category: type[Warning], filename: str, lineno: int,
                  file: Optional[TextIO] = None, line: Optional[str] = None) -> None:
    if not _speaker().endswith(']'):  # the first process warns of the same
        print(one_line(f'pyg-emu: warning: {in_flags(str(message))}'), file=sys.stderr)


def _speaker() -> str:
    r"""The prefix of messages. The processes of :obj:`torchrun` after the first one add their rank."""
    rank, world = (os.environ.get(name, '0') for name in ('RANK', 'WORLD_SIZE'))
    return 'pyg-emu' if rank == '0' or world in ('0', '1') else f'pyg-emu [process {rank}]'


def _parser() -> argparse.ArgumentParser:
    parser = Parser('pyg-emu', description=_OVERVIEW, formatter_class=Formatter)
    parser.add_argument('--version', action='version', version=f'pyg-emu {__version__}')
    commands = parser.add_subparsers(title='commands', required=True, metavar='COMMAND')

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

    evaluate = commands.add_parser('evaluate', help='rank the facts of a split', description=_EVALUATE,
                                   formatter_class=Formatter)
    evaluate.set_defaults(command=_evaluate)
    add_run(evaluate)
    evaluate.add_argument('--split', choices=('train', 'valid', 'test'), default='test', help='(default: test)')
    evaluate.add_argument('--tie', choices=('realistic', 'optimistic', 'pessimistic'),
                          help='rank among equal scores (default: realistic)')
    evaluate.add_argument('--max-triples', type=int, metavar='N', help='rank a random subset of this size')
    evaluate.add_argument('--sides', nargs='+', choices=('tail', 'head', 'relation'),
                          help='what is predicted; relations are ranked among all relations (default: tail head)')
    evaluate.add_argument('--by', choices=('relation', ), help='add the metrics of each relation, and their mean')
    evaluate.add_argument('--other-facts', action='store_true',
                          help='rank although the data has other facts than the run was trained with')
    evaluate.add_argument('--ranks', metavar='FILE', help='write the rank of each fact to a .csv, .tsv, .jsonl or '
                                                          '.parquet file')
    evaluate.add_argument('--known-facts', metavar='FILE', help='further facts that do not compete')
    add_candidates(evaluate)
    evaluate.add_argument('--json', action='store_true', help='print JSON')
    add_shard(evaluate)
    add_common(evaluate)

    predict = commands.add_parser('predict', help='answer with labels', description=_PREDICT,
                                  formatter_class=Formatter)
    predict.set_defaults(command=_predict)
    add_run(predict)
    predict.add_argument('--head', nargs='+', metavar='LABEL', help='the known head')
    predict.add_argument('--tail', nargs='+', metavar='LABEL', help='the known tail')
    predict.add_argument('--relation', nargs='+', metavar='LABEL', help='the known relation')
    predict.add_argument('--input', metavar='FILE', help='a file of questions: head, relation and tail on each line, '
                                                         'with ? for the answer')
    predict.add_argument('--output', metavar='FILE', help='write a .csv, .tsv, .jsonl or .parquet file (default: '
                                                          'print)')
    predict.add_argument('-k', type=int, default=10, metavar='K', help='answers for each question (default: 10)')
    predict.add_argument('--exclude-known', action='store_true', help='leave out answers that are known facts')
    predict.add_argument('--known-facts', metavar='FILE', help='a file of further known facts')
    add_candidates(predict)
    predict.add_argument('--csv', action='store_true', help='print CSV')
    add_shard(predict)
    add_common(predict)

    explain = commands.add_parser('explain', help='print the paths behind a score', description=_EXPLAIN,
                                  formatter_class=Formatter)
    explain.set_defaults(command=_explain)
    add_run(explain)
    for end in ('head', 'relation', 'tail'):
        explain.add_argument(f'--{end}', metavar='LABEL', required=True, help=f'the {end} of the fact')
    explain.add_argument('--side', choices=('tail', 'head'), default='tail',
                         help='the end that is predicted; paths lead to it from the other one (default: tail)')
    explain.add_argument('-k', type=int, default=10, metavar='K', help='number of paths (default: 10)')
    explain.add_argument('--out', metavar='FILE', help='draw them into a file such as paths.png')
    explain.add_argument('--csv', action='store_true', help='print CSV')
    add_common(explain)

    add_scores(commands)
    add_vectors(commands)
    add_tune(commands)
    add_data(commands)
    add_diff(commands)
    add_report(commands)
    add_warmup(commands)
    add_bench(commands)

    recipes = commands.add_parser('recipes', help='list and show the packaged recipes')
    recipes.set_defaults(command=_recipes)
    what = recipes.add_subparsers(dest='what', required=True, metavar='list|show')
    what.add_parser('list', help='names and descriptions')
    show = what.add_parser('show', help='print a recipe')
    show.add_argument('name', metavar='NAME')
    show.add_argument('--resolved', action='store_true', help='with its base and all defaults written out')
    return parser

r"""Runs the rows of the paper that are not recorded yet, and compares them with the paper's values.

.. code-block:: console

    python -m benchmarks.reproduce --table 8 --dataset FB15k-237 --model DistMult --seeds 3 --budget 2h
    python -m benchmarks.reproduce --table 8 --list            # list the rows and their recorded results
    python -m benchmarks.reproduce --table 8 --render          # write the table and run nothing
    python -m benchmarks.reproduce --figure 5 --model DistMult
    python -m benchmarks.reproduce --figure 4 --run <run folder of a model trained with EMU>
    python -m benchmarks.reproduce --paper DeMix --table 2 --dataset FB15k-237
    python -m benchmarks.reproduce --paper DANS --table 2 --dataset UMLS --seeds 5

Each row is a recipe under ``benchmarks/recipes``, in the reading of the paper that ``--reading`` selects
(:mod:`benchmarks.paper_runs`; :mod:`benchmarks.demix_runs` for the DeMix paper and :mod:`benchmarks.dans_runs` for the
DANS paper, which have one). Runs that were
interrupted or stopped by ``--budget`` continue from their folder under ``runs/reproduction``. Runs recorded under
``benchmarks/results`` are skipped, and rows with the same training share one run. After each run, all tables are
written there as CSV and Markdown. Rows of a dataset that cannot be loaded are skipped.

Rows of the DANS paper start from the weights of a pre-training, which all rows of a dataset, decoder and seed share. It
runs before the first of them and is recorded as a result of its own. With ``--steps``, it is shortened in proportion.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

from benchmarks._budget import Budget
from benchmarks._progress import RunsBar
from benchmarks._record import RESULTS, ROOT
from benchmarks._reproduction import Entry, entries, frame, is_of, markdown, recipe_of, recorded, write_table
from benchmarks.accuracy import record
from benchmarks.papers import PAPERS, paper_of
from pyg_emu.core.errors import DataError, PygEmuError
from pyg_emu.data.graph import KGData
from pyg_emu.data.io.datasets import load_dataset
from pyg_emu.experiments.cli.options import duration
from pyg_emu.experiments.layers import assignment_layer
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.training.checkpoint import load_checkpoint
from pyg_emu.training.run_folder import RunFolder

# The exit code of a process that SIGINT ends.
_INTERRUPTED = 130


class Run(NamedTuple):
    r"""A training run: a row with a seed."""
    entry: Entry
    seed: int
    result: str


def select(arguments: argparse.Namespace) -> list[Entry]:
    r"""Returns the rows that the command line selects.

    Raises:
        SystemExit: If there are none. The message lists the valid values.
    """
    found = entries(arguments.source, arguments.reading)
    for key, wanted in (('dataset', arguments.dataset), ('model', arguments.model), ('method', arguments.method)):
        if not wanted:
            continue
        known = list(dict.fromkeys(getattr(entry.row, key) for entry in found))
        names = {name.lower(): name for name in known}
        for name in wanted:
            if name.lower() not in names:
                sys.exit(f'--{key}: expected one of {", ".join(known)} for {arguments.source}, got {name}')
        found = [entry for entry in found if getattr(entry.row, key) in [names[name.lower()] for name in wanted]]
    if not found:
        sys.exit(f'{arguments.source}: no row matches all of these options; use --list to show the rows')
    return found


def runs(found: Sequence[Entry], arguments: argparse.Namespace) -> Iterator[Run]:
    r"""Yields the distinct training runs of the rows, with the first seed of all rows before the second of any."""
    for seed in range(arguments.seeds):
        own: dict[str, Run] = {}
        for entry in found:
            if entry.path is not None:
                result = entry.result(arguments.steps, seed)
                own.setdefault(result, Run(entry, seed, result))
        yield from own.values()


def length(run: Run, arguments: argparse.Namespace) -> int:
    r"""Returns the number of steps of a run."""
    assert run.entry.path is not None
    return arguments.steps or recipe_of(run.entry.path).num_steps


def is_recorded(run: Run, arguments: argparse.Namespace) -> bool:
    r"""Returns :obj:`True` if the result exists and the recipe has not changed since."""
    found = recorded(run.entry, arguments.out, length(run, arguments))
    return any(result['seed'] == run.seed for result in found)


def is_outdated(run: Run, arguments: argparse.Namespace) -> bool:
    r"""Returns :obj:`True` if an unrecorded run has a result with other settings. The recipe has changed since then, so
    the run in the run folder cannot be continued.
    """
    return bool((arguments.out / f'{run.result}.json').exists())


def steps_taken(run: Run, arguments: argparse.Namespace) -> int:
    r"""Returns the step of the last validation of an unfinished run."""
    path = RunFolder(run_folder(run, arguments)).metrics
    if is_outdated(run, arguments) or not path.exists():
        return 0
    return int(json.loads(path.read_text(encoding='utf-8')).get('steps', 0))


def run_folder(run: Run, arguments: argparse.Namespace) -> Path:
    r"""Returns the run folder."""
    folder: Path = arguments.runs / run.result.removeprefix(f'{PAPERS["EMU"].group}/')
    return folder


def reproduce(arguments: argparse.Namespace) -> int:
    r"""Runs all rows that are not recorded and returns the exit code.

    Raises:
        SystemExit: If none of the selected rows has a recipe. The message lists the readings that have one.
    """
    found = select(arguments)
    every = list(runs(found, arguments))
    if not every:
        sys.exit(_without_recipe(found, arguments))
    missing = [run for run in every if not is_recorded(run, arguments)]
    data: dict[str, Optional[KGData]] = {}
    code = 0
    lengths = {run.result: length(run, arguments) for run in missing}
    taken = {run.result: steps_taken(run, arguments) for run in missing}
    with Budget(arguments.budget) as budget, RunsBar(f'{arguments.source}, {arguments.reading}', lengths, taken) as bar:
        for run in missing:
            name, title = run.entry.row.dataset, f'{run.entry.title}, seed {run.seed}'
            try:
                if name not in data:
                    data[name] = _load(name, bar)
                if (loaded := data[name]) is None:
                    bar.drop(run.result)
                    code = 1
                    continue
                bar.write(train(run, loaded, arguments, partial(bar.reach, run.result)))
                bar.finish(run.result)
                write_table(arguments.source, arguments.reading, arguments.out, arguments.steps)
            except KeyboardInterrupt as stop:
                if budget.is_spent:
                    bar.write(f'budget of {arguments.budget:g} s used, in {title}; {bar.left} of {len(every)} runs '
                              'remain, and the same command continues them')
                else:
                    bar.write(f'{title}: interrupted. {stop} The same command continues the run')
                    code = _INTERRUPTED
                break
            except PygEmuError as error:
                # The other rows run even if one fails.
                bar.write(f'{title}: {error}')
                bar.drop(run.result)
                code = 1
    show(arguments, found)
    return code


def _load(name: str, bar: RunsBar) -> Optional[KGData]:
    r"""Loads the data, or returns :obj:`None` if it is not available, so that the rows of other datasets can run."""
    try:
        return load_dataset(name)
    except DataError as error:
        bar.write(f'{name}: rows skipped: {error}')
        return None


def _shown(run: Run) -> str:
    r"""Returns the metric to print beside MRR."""
    return next((metric for metric in ('hits@10', 'hits@1') if metric in run.entry.row.metrics), 'hits@10')


def _without_recipe(found: Sequence[Entry], arguments: argparse.Namespace) -> str:
    paper = paper_of(arguments.source)
    others = [reading for reading in paper.readings if any(paper.recipe_path(reading, entry.row) for entry in found)]
    hint = f'use --reading {" or ".join(others)}' if others else 'no other reading has one'
    return f'--reading: no row selected from {arguments.source} has a recipe for {arguments.reading!r}; {hint}'


def train(run: Run, data: KGData, arguments: argparse.Namespace, reach: Callable[[int], Any]) -> str:
    r"""Trains a run, or continues it, records the result, and returns a one-line summary. Calls :obj:`reach` with the
    step of each validation.
    """
    assert run.entry.path is not None
    settings = [f'seed={run.seed}']
    if arguments.steps is not None:
        settings.append(f'num_steps={arguments.steps}')
    recipe = load_recipe(run.entry.path, [assignment_layer(settings)])
    weights, extra, again = None, {}, is_outdated(run, arguments)
    if run.entry.pretraining is not None:
        weights, renewed = pretrained(run, data, arguments)
        extra, again = {'pretraining': describe_weights(weights)}, again or renewed
    return record(recipe, run.result, f'{run.entry.title}, seed {run.seed}', run_dir=run_folder(run, arguments),
                  folder=arguments.out, again=again, data=data, extra=extra, shown=_shown(run),
                  on_validation=lambda step, metrics: reach(step), weights=weights)


def pretrained(run: Run, data: KGData, arguments: argparse.Namespace) -> tuple[Path, bool]:
    r"""Returns the weights that a run starts from, and whether they are new. Trains them first, or continues to,
    unless another row has done so. They are those of the best validation.
    """
    entry = run.entry
    assert entry.path is not None and entry.pretraining is not None
    settings = [f'seed={run.seed}']
    if arguments.steps is not None:
        share = arguments.steps / recipe_of(entry.path).num_steps
        settings.append(f'num_steps={max(1, round(share * recipe_of(entry.pretraining).num_steps))}')
    recipe = load_recipe(entry.pretraining, [assignment_layer(settings)])
    shared = run._replace(entry=replace(entry, path=entry.pretraining), result=replace(
        entry, path=entry.pretraining).result(None if arguments.steps is None else recipe.num_steps, run.seed))
    folder, result = run_folder(shared, arguments), arguments.out / f'{shared.result}.json'
    found = json.loads(result.read_text(encoding='utf-8')) if result.exists() else None
    if found is None or not is_of(recipe, found) or not RunFolder(folder).best.exists():
        title = f'{entry.row.dataset}, {entry.row.model}, pre-training, seed {run.seed}'
        outdated = found is not None and not is_of(recipe, found)
        print(record(recipe, shared.result, title, run_dir=folder, folder=arguments.out, again=outdated, data=data,
                     shown=_shown(run)), flush=True)
        return RunFolder(folder).best, True
    return RunFolder(folder).best, False


def describe_weights(path: Path) -> dict[str, Any]:
    r"""Describes the weights that a run starts from: their run, their step and the digest of their file."""
    return {'run': path.parent.name, 'step': int(load_checkpoint(path)['step']),
            'sha256': hashlib.sha256(path.read_bytes()).hexdigest()}


def show(arguments: argparse.Namespace, found: Sequence[Entry]) -> None:
    r"""Writes the complete table or figure, and prints the selected rows."""
    paths = write_table(arguments.source, arguments.reading, arguments.out, arguments.steps)
    print(markdown(frame(found, arguments.out, arguments.steps), arguments.source, arguments.reading))
    if arguments.figure is not None and arguments.paper == 'EMU':
        from benchmarks._paper_figures import draw_figure_2, draw_figure_5
        draw = draw_figure_2 if arguments.figure == 2 else draw_figure_5
        table = frame(entries(arguments.source, arguments.reading), arguments.out, arguments.steps)
        paths.append(draw(table, paths[0].with_name(f'figure-{arguments.figure}-{arguments.reading}.png')))
    print(*paths, sep='\n')


def list_rows(arguments: argparse.Namespace) -> None:
    r"""Prints each row with its recipe and the recorded seeds."""
    for entry in select(arguments):
        seeds = [str(result['seed']) for result in recorded(entry, arguments.out, arguments.steps)]
        recipe = entry.path.relative_to(ROOT) if entry.path else 'no recipe'
        print(f'{entry.title}: {recipe}; {"seeds " + ", ".join(seeds) if seeds else "not run"}')


def parse(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    r"""Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--paper', choices=PAPERS, default='EMU', help='(default: %(default)s)')
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--table', type=int, help='a table of the paper')
    what.add_argument('--figure', type=int, help='a figure; 3, 4 and 6 of the EMU paper need --run')
    parser.add_argument('--dataset', nargs='+', help='(default: all of the paper)')
    parser.add_argument('--model', nargs='+', help='(default: all)')
    parser.add_argument('--method', nargs='+', help='as shown by --list, with underscores for spaces (default: all)')
    parser.add_argument('--reading', help='one of the EMU paper: paper, reference-code or tuned (default: tuned)')
    parser.add_argument('--seeds', type=int, default=1, help='number of seeds, from 0 (default: %(default)s)')
    parser.add_argument('--steps', type=int, help='number of steps (default: that of the recipe)')
    parser.add_argument('--budget', type=duration, help='time limit, such as 30m; the same command continues the runs')
    parser.add_argument('--run', type=Path, help='run folder of a trained model, for figures 3, 4 and 6')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--list', action='store_true', help='list the rows and run nothing')
    mode.add_argument('--render', action='store_true', help='write the table and run nothing')
    parser.add_argument('--runs', type=Path, default=ROOT / 'runs' / 'reproduction', help='folder of the run folders')
    parser.add_argument('--out', type=Path, default=RESULTS, help='folder of the results (default: benchmarks/results)')
    arguments = parser.parse_args(argv)
    paper = PAPERS[arguments.paper]
    arguments.reading = arguments.reading or paper.readings[-1]
    for key, values in (('table', paper.tables), ('figure', paper.figures), ('reading', paper.readings)):
        value = getattr(arguments, key)
        if value is not None and value not in values:
            parser.error(f'--{key}: expected one of {", ".join(map(str, values)) or "none"} for the {arguments.paper} '
                         f'paper, got {value}')
    for key in ('seeds', 'steps'):
        value = getattr(arguments, key)
        if value is not None and value < 1:
            parser.error(f'--{key}: expected at least 1, got {value}')
    shown = arguments.paper == 'EMU' and arguments.figure in (3, 4, 6)
    if shown != (arguments.run is not None):
        parser.error('--run: expected together with --figure 3, 4 or 6 of the EMU paper, and only with these')
    # Figure 2 of the EMU paper shows its Table 8.
    table = 8 if arguments.paper == 'EMU' and arguments.figure == 2 else arguments.table
    arguments.source = f'Figure {arguments.figure}' if table is None else f'Table {table}'
    if arguments.paper != 'EMU':
        arguments.source = f'{arguments.paper} {arguments.source}'
    return arguments


def main(argv: Optional[Sequence[str]] = None) -> int:
    r"""Runs the command line. Returns exit code 130 if it was interrupted, or 1 if a run failed or its data is not
    available.
    """
    arguments = parse(argv)
    if arguments.run is not None:
        from benchmarks._paper_figures import draw_model
        try:
            print(*draw_model(arguments.figure, arguments.run, arguments.out), sep='\n')
        except PygEmuError as error:
            sys.exit(str(error))
    elif arguments.list:
        list_rows(arguments)
    elif arguments.render:
        show(arguments, select(arguments))
    else:
        return reproduce(arguments)
    return 0


if __name__ == '__main__':
    sys.exit(main())

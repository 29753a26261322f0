r"""The command :obj:`pyg-emu explain`."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyg_emu.core.errors import ArgumentError, RecipeError
from pyg_emu.experiments.cli.options import Formatter, add_common
from pyg_emu.experiments.cli.run import add_run, labels_of, open_options, run_dir_of

_EXPLAIN = """\
Print the paths of the graph that contribute most to the score of a fact. For models that read a graph (NBFNet).

examples:
  pyg-emu explain --run runs/nbfnet-umls --head virus --relation causes --tail disease_or_syndrome
  pyg-emu explain --run runs/nbfnet-umls --head virus --relation causes --tail disease_or_syndrome --out paths.png
"""


def add_explain(commands: Any) -> None:
    r"""Adds the command to the parser."""
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

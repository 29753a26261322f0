r"""The command :obj:`pyg-emu evaluate`."""
from __future__ import annotations

import argparse
import json
from typing import Any

from pyg_emu.experiments.cli.options import Formatter, add_common, add_shard
from pyg_emu.experiments.cli.run import add_candidates, add_run, candidates_of, open_options, run_dir_of

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


def add_evaluate(commands: Any) -> None:
    r"""Adds the command to the parser."""
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

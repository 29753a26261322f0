r"""The command :obj:`pyg-emu report`."""
from __future__ import annotations

import argparse
import sys
from typing import Any

from pyg_emu.experiments.cli.options import Formatter, add_common, add_dataset, dataset_settings, one_line

_REPORT = """\
Write an HTML page about a run: curves, metrics by side, kind of relation and relation, the hardest facts and what was
answered instead, a map of the entities, the data and the settings. The page is one file that needs no network. Several
runs are compared: settings that differ, curves, metrics, and the relations and facts that differ most.

The facts are ranked again. Sections without content are left out, and the page says why.

examples:
  pyg-emu report runs/umls                                   # runs/umls/report.html
  pyg-emu report runs/umls --output umls.html --map pca
  pyg-emu report runs/umls runs/umls-uniform --output comparison.html
  pyg-emu report runs/nbfnet --max-triples 500               # where ranking all facts takes long
"""


def add_report(commands: Any) -> None:
    r"""Adds the command to the parser."""
    report = commands.add_parser('report', help='write an HTML page about runs', description=_REPORT,
                                 formatter_class=Formatter)
    report.set_defaults(command=_report)
    report.add_argument('runs', nargs='+', metavar='DIR', help='a run folder, or several to compare')
    report.add_argument('--output', metavar='FILE', help='the page (default: report.html in the run folder; of several '
                                                         'runs, in the working directory)')
    report.add_argument('--split', choices=('train', 'valid', 'test'),
                        help='the facts to rank (default: test, or valid without test facts)')
    report.add_argument('--checkpoint', choices=('best', 'last'), default='best', help='which weights (default: best)')
    add_dataset(report, 'other data than the run was trained on, or its new place')
    report.add_argument('--other-facts', action='store_true',
                        help='rank although the data has other facts than the run was trained with')
    report.add_argument('--max-triples', type=int, metavar='N', help='rank a random subset of this size')
    report.add_argument('--num-hardest', type=int, metavar='N', help='of one run: hardest facts to show (default: 50)')
    report.add_argument('--num-answers', type=int, metavar='N',
                        help='of one run: answers beside each of them (default: 5)')
    report.add_argument('--map', choices=('tsne', 'pca', 'none'),
                        help='of one run: how vectors of entities are drawn (default: tsne)')
    report.add_argument('--max-entities', type=int, metavar='N',
                        help='of one run: entities on the map, those with the most facts (default: 1000)')
    add_common(report)


def _report(options: argparse.Namespace) -> None:
    from pyg_emu.experiments.report import write_report
    written = write_report(
        options.runs, options.output, split=options.split, which=options.checkpoint, data=dataset_settings(options),
        max_triples=options.max_triples, num_hardest=options.num_hardest, num_answers=options.num_answers,
        projection=options.map, max_entities=options.max_entities,
        other_facts=options.other_facts, device=options.device, progress=not options.quiet)
    for title, reason in written.left_out.items():
        print(one_line(f'left out: {title}. {reason}'), file=sys.stderr)
    print(written.path)

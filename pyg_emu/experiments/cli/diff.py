r"""The command :obj:`pyg-emu diff`."""
from __future__ import annotations

import argparse
from typing import Any

from pyg_emu.experiments.cli.options import Formatter

_DIFF = """\
Show two runs side by side: settings, model and optimiser as they were built, backends, data, versions, device and
metrics. Rows that are equal are left out, unless --all is given.

examples:
  pyg-emu diff runs/a runs/b
  pyg-emu diff runs/a runs/b --all
"""


def add_diff(commands: Any) -> None:
    r"""Adds the command to the parser."""
    diff = commands.add_parser('diff', help='compare two runs', description=_DIFF, formatter_class=Formatter)
    diff.set_defaults(command=_diff)
    diff.add_argument('left', metavar='RUN', help='a run folder')
    diff.add_argument('right', metavar='RUN', help='another run folder')
    diff.add_argument('--all', action='store_true', help='show equal rows, too')


def _diff(options: argparse.Namespace) -> None:
    from pyg_emu.experiments.comparison import compare_runs, render
    entries = compare_runs(options.left, options.right)
    shown = entries if options.all else [entry for entry in entries if not entry.equal]
    if shown:
        print(render(shown, options.left, options.right))
    equal = sum(entry.equal for entry in entries)
    print(f'{equal} of {len(entries)} entries are equal')

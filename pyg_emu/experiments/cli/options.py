r"""What the commands have in common: flags, and how their values are read."""
from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any, NoReturn, Optional

_SECONDS = {'s': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}


class Formatter(argparse.RawDescriptionHelpFormatter):
    r"""Keeps the examples' lines, and gives the flags some room."""
    def __init__(self, prog: str, **options: Any):
        super().__init__(prog, **{'max_help_position': 32, **options})

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        # The names are those of classes, which are imported only where the help shows them.
        from pyg_emu.experiments.names import class_names

        found = super()._get_help_string(action)
        return found and re.sub(r'\{names of (\w+)\}', lambda match: ', '.join(class_names(match[1])), found)


class Parser(argparse.ArgumentParser):
    r"""Answers what it cannot use in one line, and a flag that does not exist with the nearest one that does; so do the
    parsers of its commands.
    """
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # A command's flags are known to its own parser alone, so that it has to speak, not the one above.
            first = unknown[0].split('=')[0]
            near = difflib.get_close_matches(first, [*self._option_string_actions], n=1)
            self.error(f'unknown argument {first}' + (f', did you mean {near[0]}?' if near else ''))
        return options, unknown

    def error(self, message: str) -> NoReturn:
        print(f'{self.prog}: error: {message} (see {self.prog} --help)', file=sys.stderr)
        sys.exit(2)


def add_common(parser: Any) -> None:
    r"""Adds the flags of all commands that work with a model."""
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda, cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--quiet', action='store_true', help='no progress bars')


def dataset_value(text: str) -> str:
    r"""A name or a path. A path is made absolute, so that the run can be evaluated from another folder."""
    from pyg_emu.data.io.datasets import dataset_names
    path = Path(text).expanduser()
    known = text.lower() in (name.lower() for name in dataset_names())
    return text if known or not path.exists() else str(path.resolve())


def duration(text: str) -> float:
    r"""Seconds, from a text such as :obj:`"90s"`, :obj:`"30m"`, :obj:`"1.5h"` or :obj:`"1h30m"`; without a unit,
    seconds.

    Raises:
        ArgumentTypeError: If it is nothing of the kind.
    """
    parts = re.findall(r'(\d+(?:\.\d+)?)([smhd]?)', text)
    seconds = sum(float(number) * _SECONDS[unit or 's'] for number, unit in parts)
    if ''.join(number + unit for number, unit in parts) != text or seconds <= 0.0:
        raise argparse.ArgumentTypeError(f'expected a duration such as 90s, 30m, 1.5h or 1h30m, got {text!r}')
    return seconds

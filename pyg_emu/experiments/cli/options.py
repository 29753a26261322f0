r"""Flags that several commands share, and how their values are read."""
from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from pyg_emu.core.errors import RecipeError

if TYPE_CHECKING:
    from pyg_emu.experiments.layers import Layer

_SECONDS = {'s': 1.0, 'm': 60.0, 'h': 3600.0, 'd': 86400.0}


class Formatter(argparse.RawDescriptionHelpFormatter):
    r"""Keeps the lines of the examples and aligns the help of the flags."""
    def __init__(self, prog: str, **options: Any):
        super().__init__(prog, **{'max_help_position': 32, **options})


class Parser(argparse.ArgumentParser):
    r"""Reports a usage error in one line and suggests the nearest flag for an unknown one. The parsers of the commands
    do the same.
    """
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            # A command's flags are known to its own parser alone, so that it has to speak, not the one above.
            first = unknown[0].split('=')[0]
            near = difflib.get_close_matches(first, [*self._option_string_actions], n=1)
            self.error(f'unknown argument {first}' + (f', did you mean {near[0]}?' if near else ''))
        return options, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        # Unlike the method of the base class, this one reports that the message cannot be written.
        stream = sys.stderr if file is None else file
        if message and stream is not None:
            stream.write(message)

    def error(self, message: str) -> NoReturn:
        print(one_line(f'{self.prog}: error: {message} (see {self.prog} --help)'), file=sys.stderr)
        sys.exit(2)


def one_line(message: str) -> str:
    r"""A message in one line: line breaks and tabs become spaces, other characters that do not print become escapes."""
    text = ''.join(c if c.isprintable() else ' ' if c in '\t\n\r' else c.encode('unicode_escape').decode()
                   for c in message)
    return ' '.join(text.split())


def add_common(parser: Any) -> None:
    r"""Adds the flags of all commands that work with a model."""
    parser.add_argument('--device', metavar='DEVICE', help='cpu, cuda, cuda:1 (default: a GPU if there is one)')
    parser.add_argument('--quiet', action='store_true', help='no progress bars, and no report of the data')


def add_output(parser: Any) -> None:
    r"""Adds the flags that say where a table goes: into a file, or to the output."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--output', metavar='FILE', help='write a .csv, .tsv, .jsonl or .parquet file (default: print)')
    group.add_argument('--csv', action='store_true', help='print CSV')


def add_shard(parser: Any) -> None:
    r"""Adds the flag of commands that several processes of :obj:`torchrun` can run together."""
    parser.add_argument('--shard', choices=('entities', ),
                        help='divide the rows of entities among the processes of torchrun, for tables that one process '
                             'cannot hold (default: each holds all of them, and its share of the work)')


def add_dataset(parser: Any, help: str) -> None:
    r"""Adds the flags that name a dataset to a command that works with a run."""
    parser.add_argument('--data', metavar='NAME|PATH|URL', help=help)
    add_database(parser)
    parser.add_argument('--require-splits', metavar='SPLIT,...', type=split_names,
                        help='splits that the folder has to hold, such as train,test (default: those of the run)')
    parser.add_argument('--set', metavar='dataset.KEY=VALUE', action='append', default=[],
                        help='an option for reading the data; may be repeated (default: those of the run)')


def add_database(parser: Any) -> None:
    r"""Adds the flags that say what is read of a database."""
    parser.add_argument('--table', metavar='NAME', help='the table or view of a database that contains the facts')
    parser.add_argument('--query', metavar='SQL', help='a query of a database that returns the facts')


def put_database(layer: Layer, options: argparse.Namespace) -> None:
    r"""Puts the flags of :func:`add_database` into a layer of settings, as options of the dataset."""
    from pyg_emu.experiments.layers import put

    for name in ('table', 'query'):
        value = getattr(options, name)
        if value is not None:
            put(layer, ('dataset', name), value, f'--{name} {value}')


def put_source(layer: Layer, key: str, text: str, place: str, recipe: Any, assignments: Layer) -> None:
    r"""Puts the name, path or URL that a flag gives for a dataset into a layer of settings, with the options of the
    recipe that apply to it.

    Args:
        layer (Layer): The layer.
        key (str): :obj:`"dataset"` or :obj:`"inference"`.
        text (str): What the flag gives.
        place (str): The flag, for messages.
        recipe (str, Path or dict, optional): The recipe that the flag changes, or :obj:`None`.
        assignments (Layer): What is laid over the layer; its options come before those of the recipe.

    Raises:
        RecipeError: If the recipe cannot be read.
        DataError: If the text is a path that cannot be read.
    """
    from pyg_emu.experiments.layers import put
    from pyg_emu.experiments.provenance import merged_source
    from pyg_emu.experiments.recipe import written_settings

    value: Any = dataset_value(text)
    recorded = None if recipe is None else written_settings(recipe).get(key)
    if isinstance(recorded, dict):
        given = assignments.values.get(key)
        value = merged_source({**(given if isinstance(given, dict) else {}), 'source': value}, recorded)
    put(layer, (key, ), value, place)


def dataset_settings(options: argparse.Namespace) -> Optional[dict[str, Any]]:
    r"""The source and the options that the flags of :func:`add_dataset` come to, or :obj:`None` if none is given.

    Raises:
        RecipeError: If :obj:`--set` does not set an option of the dataset, or an option has the wrong type.
    """
    from pyg_emu.experiments.checks import check_dataset
    from pyg_emu.experiments.layers import Layer, assignment_layer, put

    layer = Layer()
    if options.data is not None:
        put(layer, ('dataset', 'source'), dataset_value(options.data), f'--data {options.data}')
    if options.require_splits is not None:
        put(layer, ('dataset', 'require_splits'), options.require_splits, '--require-splits')
    put_database(layer, options)
    for assignment in options.set:
        for path, place in assignment_layer([assignment]).places.items():
            if path[0] != 'dataset' or len(path) > 2:
                raise RecipeError(f'{place}: expected dataset.KEY=VALUE, such as dataset.header=true; the other '
                                  'settings are those of the run')
        value = assignment_layer([assignment]).values['dataset']
        if not isinstance(value, dict):
            raise RecipeError(f'--set {assignment}: expected dataset.KEY=VALUE; give the dataset with --data')
        for key, option in value.items():
            put(layer, ('dataset', key), option, f'--set {assignment}')
    given: dict[str, Any] = layer.values.get('dataset', {})
    check_dataset('dataset', {'source': 'that of the run', **given}, layer)
    return given or None


def split_names(text: str) -> list[str]:
    r"""Splits, from a text such as :obj:`"train,test"`.

    Raises:
        ArgumentTypeError: If one of them is no split.
    """
    names = [name for name in re.split(r'[\s,]+', text.strip(' []()')) if name]
    names = [name.strip('\'"') for name in names]
    if not names or any(name not in ('train', 'valid', 'test') for name in names):
        raise argparse.ArgumentTypeError(f'expected some of train,valid,test, got {text!r}')
    return names


def make_working_directory_importable() -> None:
    r"""Lets recipes name classes in modules of the working directory, as :obj:`python -m pyg_emu` does; after all
    installed modules, so that none is replaced.
    """
    if not sys.flags.safe_path and not {'', os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())


def dataset_value(text: str) -> str:
    r"""A name, a path or a URL. A path is made absolute, so that the run can be evaluated from another folder."""
    from pyg_emu.data.io.datasets import absolute_source

    return absolute_source(text)


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

r"""The command :obj:`pyg-emu data`."""
from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

from pyg_emu.core.errors import DataWarning, RecipeError
from pyg_emu.experiments.cli.options import Formatter, add_database, dataset_value, put_database
from pyg_emu.experiments.layers import assignment_layer

_DATA = """\
Count the facts of a dataset and what is suspicious about them: duplicates, reversed pairs, facts of one split in
another, unseen entities, nearly equal labels, exchanged columns. Nothing is trained, and nothing is written.

A folder needs only train.txt. Other splits are counted if they exist.

examples:
  pyg-emu data path/to/folder
  pyg-emu data UMLS --json
  pyg-emu data facts.tsv --set dataset.header=true --set dataset.fractions="[0.9, 0.05, 0.05]"
  pyg-emu data graph.nt.gz --set dataset.literals=keep
  pyg-emu data sqlite:///kg.db --table facts
  pyg-emu data facts.csv --set dataset.head=0 --set dataset.relation=2 --set dataset.tail=1
"""


def add_data(commands: Any) -> None:
    r"""Adds the command to the parser."""
    data = commands.add_parser('data', help='count facts and what looks wrong', description=_DATA,
                               formatter_class=Formatter)
    data.set_defaults(command=_data)
    data.add_argument('source', metavar='NAME|PATH|URL', help='a dataset, a folder, a file of facts or a database')
    add_database(data)
    data.add_argument('--set', metavar='KEY=VALUE', action='append', default=[],
                      help='how the dataset is read, for example dataset.header=true; may be repeated')
    data.add_argument('--json', action='store_true', help='print JSON')


def _data(options: argparse.Namespace) -> None:
    assignments = assignment_layer(options.set)
    put_database(assignments, options)
    settings = assignments.values
    strange = [key for key in settings if key != 'dataset']
    given = settings.get('dataset', {})
    if strange or not isinstance(given, dict) or 'source' in given:
        wrong = strange[0] if strange else 'dataset'
        raise RecipeError(f'--set {wrong}: expected an option of the dataset, such as dataset.header=true')
    from pyg_emu.data.io.datasets import is_folder, load_dataset
    from pyg_emu.data.io.splits import SPLIT_NAMES
    source = dataset_value(options.source)
    choices = dict(given)
    # The report counts the splits that exist; only training facts are required.
    if is_folder(source):
        choices.setdefault('require_splits', list(SPLIT_NAMES)[:1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always', DataWarning)
        data = load_dataset(source, **choices)
    report = data.report()
    # What reading warned of beside the report: files and columns that were not read, shares that could not be met.
    said = [str(warning.message) for warning in caught if issubclass(warning.category, DataWarning)]
    report.warnings[:0] = [sentence for sentence in said if sentence not in report.warnings]
    print(json.dumps({**report, 'warnings': report.warnings}, indent=2) if options.json else report)

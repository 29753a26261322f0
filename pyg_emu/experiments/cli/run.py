r"""What commands that work with a run share: which run, which data, and which entities may answer."""
from __future__ import annotations

import argparse
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Literal

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning, PygEmuError
from pyg_emu.core.warn import warn
from pyg_emu.experiments.cli.options import add_dataset, dataset_settings
from pyg_emu.experiments.recipe import Recipe


def add_run(parser: argparse.ArgumentParser) -> None:
    r"""Adds the flags that name a run and its data."""
    parser.add_argument('folder', nargs='?', metavar='DIR', help='the run folder')
    parser.add_argument('--run', metavar='DIR', help='the same, as a flag')
    parser.add_argument('--checkpoint', choices=('best', 'last'), default='best', help='which weights (default: best)')
    add_dataset(parser, 'other data than the run was trained on, or its new place')


def run_dir_of(options: argparse.Namespace) -> str:
    r"""The run folder that the flags of :func:`add_run` name.

    Raises:
        ArgumentError: If there is none, or there are two.
    """
    given = [folder for folder in (options.folder, options.run) if folder is not None]
    if len(given) != 1:
        raise ArgumentError('give one run folder: --run DIR')
    return str(given[0])


def open_options(options: argparse.Namespace, run_dir: str, inference: bool = True, whole: bool = False
                 ) -> tuple[Any, Any, Recipe, str]:
    r"""The model, the data, the recipe and the data's name.

    Args:
        options (argparse.Namespace): The flags of :func:`add_run`.
        run_dir (str): The run folder.
        inference (bool, optional): Whether to read the graph for inference of the recipe, if it has one. (default:
            :obj:`True`)
        whole (bool, optional): Whether the command can do without facts. Then the labels in the run folder serve where
            the data is no longer there, with a warning. (default: :obj:`False`)
    """
    from pyg_emu.experiments.provenance import source_name
    from pyg_emu.experiments.runs import open_run
    given: Any = dataset_settings(options)
    settings: dict[str, Any] = {'which': options.checkpoint, 'device': options.device, 'inference': inference,
                                'shard': getattr(options, 'shard', None)}
    try:
        model, data, recipe = open_run(run_dir, data=given, whole=whole, **settings,
                                       other_facts=getattr(options, 'other_facts', False))
    except (DataError, OSError) as error:
        if given is not None or not whole:
            raise
        try:
            model, data, recipe = open_run(run_dir, facts=False, **settings)
        except PygEmuError:
            raise error from None
        warn(f'the data of the run cannot be read, and its facts are not known: {error}', DataWarning)
    source = options.data or (recipe.inference if inference else None) or recipe.dataset
    return model, data, recipe, source_name(source)


@contextmanager
def labels_of(name: str) -> Iterator[None]:
    r"""Adds the name of the graph to an error about a label. A run with a second graph looks labels up there."""
    try:
        yield
    except DataError as error:
        told = re.sub(r'^(head|relation|tail)s: ', r'--\1: ', str(error))
        raise DataError(f'{name}: {told}') from error


def add_candidates(parser: argparse.ArgumentParser) -> None:
    r"""Adds the flags that say which entities may answer."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument('--candidates', metavar='FILE',
                       help='a file of the entities that can be answers (or relations, if these are predicted), a '
                            'label on each line')
    group.add_argument('--seen-candidates', action='store_true',
                       help='consider only entities that training facts have at the same end of the relation')
    group.add_argument('--types', metavar='FILE',
                       help='consider only entities of a type that training facts have at the same end of the '
                            'relation: a file of entities and types, separated by tabs')


def candidates_of(options: argparse.Namespace, data: Any, kind: Literal['entity', 'relation'] = 'entity') -> Any:
    r"""The argument :obj:`candidates` that the flags of :func:`add_candidates` come to, or :obj:`None`.

    Args:
        options (argparse.Namespace): The flags.
        data (KGData): The labels.
        kind (str, optional): What :obj:`--candidates` names: :obj:`"entity"`, or :obj:`"relation"` where relations are
            predicted. (default: :obj:`"entity"`)

    Raises:
        DataError: If a file cannot be read, a line has another number of fields, a label does not exist, or an entity
            has two types; names file and line.
    """
    from pyg_emu.data.candidates import RelationCandidates

    if options.seen_candidates:
        return RelationCandidates.seen(data)
    if options.candidates is not None:
        return [record[0] for record in labels_in(Path(options.candidates), (kind,), data)]
    if options.types is None:
        return None
    types = {record[0]: record[1] for record in labels_in(Path(options.types), ('entity', 'type'), data)}
    return RelationCandidates.of_types(data, types)


def labels_in(path: Path, fields: tuple[str, ...], data: Any) -> list[tuple[str, ...]]:
    r"""Returns the records of a file whose first field is an entity or a relation.

    Args:
        path (Path): The file.
        fields (tuple): What each line holds, :obj:`"entity"` or :obj:`"relation"` first.
        data (KGData): The labels.

    Raises:
        DataError: If the file cannot be read, a line has another number of fields, a label does not exist, or two lines
            disagree about one entity.
    """
    from pyg_emu.data.io.formats import TextFormat
    from pyg_emu.data.io.textfiles import records

    path = path.expanduser()
    found: list[tuple[str, ...]] = []
    said: dict[int, tuple[str, ...]] = {}
    find = data.entity_id if fields[0] == 'entity' else data.relation_id
    for number, record in records(path, TextFormat().syntax_of(path)):
        if len(record) != len(fields):
            raise DataError(f'{path}:{number}: expected {" and ".join(fields)}, got {len(record)} fields')
        try:
            before = said.setdefault(find(record[0]), tuple(record))
        except DataError as error:
            raise DataError(f'{path}:{number}: {error}') from None
        if before[1:] != tuple(record[1:]):
            raise DataError(f'{path}:{number}: expected one {fields[1]} for each {fields[0]}, got {record[1]!r} for '
                            f'{record[0]!r}, which has {before[1]!r} in a line before')
        found.append(tuple(record))
    if not found:
        raise DataError(f'{path}: expected lines of {" and ".join(fields)}, got none')
    return found

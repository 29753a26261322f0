r"""Checks of a recipe that go beyond the types of its values: the options of datasets, and whether classes accept their
settings.
"""
from __future__ import annotations

import functools
import inspect
from typing import Any, Mapping

from pyg_emu.core.arguments import is_number
from pyg_emu.core.errors import ArgumentError, RecipeError
from pyg_emu.experiments.build import build
from pyg_emu.experiments.layers import Layer
from pyg_emu.experiments.names import nearest
from pyg_emu.experiments.sections import reads_graph, signature
from pyg_emu.experiments.values import conform

#: Longer names no file system has.
_LONGEST_PATH = 4096


def check_dataset(key: str, value: Any, layer: Layer) -> None:
    r"""Checks what a recipe says of a dataset: a name, a path, or a section of both and options for its reader.

    Args:
        key (str): :obj:`"dataset"` or :obj:`"inference"`.
        value (Any): The value, or :obj:`None` if there is none.
        layer (Layer): Knows where it was written.

    Raises:
        RecipeError: If the value is of another form, or an option is unknown or has the wrong type.
    """
    if value is None:
        return
    if isinstance(value, dict) and not isinstance(value.get('source'), str):
        raise RecipeError(f'{layer.place((key, ))}{key}: expected a name, a path, or a section with the key '
                          f"'source', got {value!r:.100}")
    source = value if isinstance(value, str) else value['source']
    if not source or '\0' in source or len(source.encode()) > _LONGEST_PATH:
        raise RecipeError(f'{layer.place((key, ))}{key}: expected the name or the path of a dataset, got '
                          f'{source!r:.60}')
    if isinstance(value, str):
        return
    known = dataset_options()
    for option, given in value.items():
        place = layer.place((key, option))
        if option == 'source':
            continue
        if option not in known:
            raise RecipeError(f'{place}unknown key {f"{key}.{option}"!r}{nearest(option, known, f"{key}.")}')
        try:
            conform(given, known[option])
            if option == 'seed' and given < 0:
                raise TypeError('an integer of at least 0')
        except TypeError as error:
            listed = [name for name in ('train', 'valid', 'test') if name in str(given)]
            example = f', for example {key}.{option}=[{", ".join(listed or ["train"])}]' if 'list' in str(error) else ''
            raise RecipeError(f'{place}{key}.{option}: expected {error}{example}, got {given!r:.100}') from None


@functools.cache
def dataset_options() -> dict[str, Any]:
    r"""The options of the readers that take a name or a path, and their annotations."""
    from pyg_emu.data.io import datasets

    readers = (datasets.from_folder, datasets.from_file, datasets.from_sql, datasets.from_pykeen, datasets.load_dataset)
    found: dict[str, Any] = {}
    for reader in readers:
        for option, (hint, default) in signature(reader).items():
            # YAML can write no graph.
            if default is not inspect.Parameter.empty and 'KGData' not in str(hint):
                found.setdefault(option, hint)
    return found


def check_ranges(checked: Mapping[str, Any], layer: Layer) -> None:
    r"""Makes the objects that settings alone decide, and checks the settings of rankings, so that a value which a class
    or a function refuses is named with its line, and so is a schedule that does not go with the optimizer.

    Args:
        checked (dict): All settings, checked but for this.
        layer (Layer): Knows where they were written.

    Raises:
        RecipeError: If a class or a function refuses its settings.
    """
    import torch

    from pyg_emu.evaluation.ranking import checked_settings
    from pyg_emu.models.adapters import as_scorer
    from pyg_emu.training.schedules import Schedule

    rate = checked['optimizer'].get('lr', 0.0)
    if not (is_number(rate) and 0.0 <= rate < float('inf')):
        raise RecipeError(f'{layer.place(("optimizer", "lr"))}optimizer.lr: expected a finite number >= 0, '
                          f'got {rate!r}')
    given: dict[str, dict[str, Any]] = {
        'model': {'num_nodes': 1, 'num_relations': 1}, 'negatives': {}, 'loss': {},
        'optimizer': {'params': [torch.nn.Parameter(torch.zeros(2, 2))]},
        'schedule': {'sparse': bool(checked['model'].get('sparse'))},
    }
    found: dict[str, Any] = {}
    for kind, arguments in given.items():
        # On the meta device, which takes neither memory nor random numbers, unless a user's constructor wants to see
        # what it makes.
        plain = kind == 'optimizer' or _has_own_class(checked[kind])
        try:
            with torch.random.fork_rng(devices=[], enabled=plain), torch.device('cpu' if plain else 'meta'):
                made = found[kind] = build(kind, checked[kind], **arguments)
            if kind == 'model' and not reads_graph('model', checked[kind]):
                as_scorer(made)
        except (RecipeError, ArgumentError) as error:
            raise _refused(kind, error, layer) from error
    try:
        if isinstance(found['schedule'], Schedule):
            found['schedule'].check(found['optimizer'])
    except ArgumentError as error:
        raise RecipeError(f'{layer.place(("schedule", ))}{error}') from error
    for kind in ('validation', 'evaluation'):
        try:
            checked_settings(checked[kind])
        except ArgumentError as error:
            raise _refused(kind, error, layer) from error


def _refused(kind: str, error: Exception, layer: Layer) -> RecipeError:
    r"""The error of a class or a function that a section describes, with the line of the setting that it names."""
    told = str(error) if isinstance(error, RecipeError) else f'{kind}: {error}'
    # Messages read 'section: argument: what is wrong'.
    names = told.split(': ')[:2]
    paths = [path for path in layer.places if path[0] == kind and path[-1] == names[-1]]
    return RecipeError(f'{layer.place(paths[0] if len(paths) == 1 else (kind, ))}{told}')


def _has_own_class(section: Any) -> bool:
    if not isinstance(section, Mapping):
        return False
    return ':' in str(section.get('name')) or any(map(_has_own_class, section.values()))

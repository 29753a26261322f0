r"""Two runs side by side: their settings, the parts as they were built, and their results."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, Mapping, Optional, Union

import yaml

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.recipe import load_recipe
from pyg_emu.training.run_folder import RunFolder, read_json

#: Of :obj:`run.json`: how the run keeps its files.
_BOOKKEEPING = ('format', 'files', 'clearing')


@dataclass(frozen=True)
class Difference:
    r"""One entry of two runs.

    Args:
        section (str): :obj:`"settings"`, :obj:`"built"` (model, optimiser and backends as they were), :obj:`"data"`,
            :obj:`"environment"` (versions, device) or :obj:`"metrics"`.
        key (str): The entry, with dots between the levels.
        left (object): The value in the first run; :obj:`None` if it has none.
        right (object): The value in the second run.
    """
    section: str
    key: str
    left: Any
    right: Any

    @property
    def equal(self) -> bool:
        r"""Whether both runs have the same value."""
        return bool(self.left == self.right)


def compare_runs(left: Union[str, Path], right: Union[str, Path]) -> list[Difference]:
    r"""Compares two run folders.

    .. code-block:: python

        for entry in compare_runs('runs/a', 'runs/b'):
            if not entry.equal:
                print(entry.section, entry.key, entry.left, entry.right)

    Args:
        left (str or Path): The first run folder.
        right (str or Path): The second run folder.

    Returns:
        All entries that one of the two runs has, equal ones included.

    Raises:
        RecipeError: If a folder holds no run, or a recipe that cannot be read.
    """
    one, other = run_entries(RunFolder(left)), run_entries(RunFolder(right))
    found = []
    for section, values in one.items():
        others = other[section]
        for key in [*values, *(key for key in others if key not in values)]:
            found.append(Difference(section, key, values.get(key), others.get(key)))
    return found


def render(entries: list[Difference], left: str, right: str) -> str:
    r"""A table of entries, with a heading for each section.

    Args:
        entries (list of Difference): The entries, see :func:`compare_runs`.
        left (str): The name of the first run.
        right (str): The name of the second run.
    """
    lines = [('', left, right)]
    section: Optional[str] = None
    for entry in entries:
        if entry.section != section:
            section = entry.section
            lines.append((f'[{section}]', '', ''))
        lines.append((entry.key, _shown(entry.left), _shown(entry.right)))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    return '\n'.join(f'{key:<{widths[0]}}  {one:<{widths[1]}}  {two}'.rstrip() for key, one, two in lines)


def run_entries(folder: RunFolder, settings: bool = True) -> dict[str, dict[str, Any]]:
    r"""Returns everything that a run folder says about its run, with dots between the levels, in the sections of
    :class:`Difference`.

    Args:
        folder (RunFolder): The folder.
        settings (bool, optional): Whether to read the recipe. (default: :obj:`True`)

    Raises:
        RecipeError: If the folder holds no run, or a recipe that cannot be read.
    """
    files = (folder.recipe, folder.record, folder.versions, folder.metrics, folder.last)
    if not any(path.exists() for path in files):
        raise RecipeError(f'there is no run in {folder.path}: expected a folder as pyg-emu train or a Trainer with '
                          'run_dir writes it')
    recipe = yaml.safe_load(load_recipe(folder.recipe).to_yaml()) if settings and folder.recipe.exists() else {}
    record = {name: value for name, value in _object(folder.record).items() if name not in _BOOKKEEPING}
    data = {**record.pop('data', {}), **_object(folder.path / 'trained_on.json')}
    sections = {'settings': recipe, 'built': record, 'data': data, 'environment': _object(folder.versions),
                'metrics': _object(folder.metrics)}
    return {name: dict(_flat(content)) for name, content in sections.items()}


def _object(path: Path) -> Mapping[str, Any]:
    found = read_json(path)
    return found if isinstance(found, dict) else {}


def _flat(content: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f'{prefix}{name}.')
        elif isinstance(value, list) and len(value) > 8:
            # Such as the labels of all relations: whether they are the same is what matters.
            digest = hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]
            yield f'{prefix}{name}', f'{len(value)} entries ({digest})'
        else:
            yield f'{prefix}{name}', value


def _shown(value: Any) -> str:
    if value is None:
        return '-'
    if isinstance(value, float):
        return f'{value:.6g}'
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f'{text[:57]}...'

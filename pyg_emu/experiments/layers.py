r"""Nested settings in layers (files, flags), each of which remembers where it was written, for the error messages."""
from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Collection, Iterable, Optional

import yaml

from pyg_emu.core.errors import RecipeError

#: The keys that lead to a value.
KeyPath = tuple[str, ...]


@dataclass
class Layer:
    r"""Nested settings.

    Args:
        values (dict): The settings.
        places (dict): Where each key path was written, such as :obj:`"emu.yaml:7"`.
    """
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        r"""Where a key path, or else what contains it, was written; ends in a colon and a space if it is known."""
        while path and path not in self.places:
            path = path[:-1]
        return f'{self.places[path]}: ' if path in self.places else ''

    def over(self, base: Layer, kept: Collection[KeyPath]) -> Layer:
        r"""Lays this layer over another one.

        Args:
            base (Layer): What is underneath. Its mappings are merged with this layer's, key by key.
            kept (collection): Settings that stay although this layer changes the :obj:`name` in the section around
                them; all others there fall away.
        """
        places = {**base.places, **self.places}

        def merge(below: dict[str, Any], above: dict[str, Any], path: KeyPath) -> dict[str, Any]:
            renamed = 'name' in above and above['name'] != below.get('name')
            merged = {key: value for key, value in below.items()
                      if key in above or not renamed or (*path, key) in kept}
            for key, value in above.items():
                if isinstance(value, dict) and isinstance(merged.get(key), dict):
                    value = merge(merged[key], value, (*path, key))
                merged[key] = value
            return merged

        return Layer(merge(base.values, self.values, ()), places)


def read_layer(path: Path) -> Layer:
    r"""Reads a YAML file.

    Raises:
        RecipeError: If it cannot be read or is not a mapping of names to settings; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(f'cannot read the recipe {path} ({error.strerror})') from error
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise RecipeError(f'{path}:{line}: byte {content[error.start]:#04x} is not valid UTF-8; save the recipe as '
                          f'UTF-8') from error
    return parse_layer(text, str(path))


def parse_layer(text: str, origin: str) -> Layer:
    r"""Reads YAML text that came from :obj:`origin`."""
    layer = Layer()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            value = _construct(loader, node, (), origin, layer)
            if not isinstance(value, dict):
                raise RecipeError(f'{origin}:1: expected settings of the form "name: value", got {value!r}')
            layer.values = value
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise RecipeError(f'{origin}:{line}: not valid YAML: {error.problem or error.context}') from error
    except yaml.YAMLError as error:
        raise RecipeError(f'{origin}: not valid YAML: {str(error).splitlines()[0]}') from error
    return layer


def assignment_layer(assignments: Iterable[str], flag: str = '--set') -> Layer:
    r"""Reads assignments such as :obj:`"negatives.mutation_rate=0.61"`; values are YAML.

    Raises:
        RecipeError: If one of them is not of this form.
    """
    layer = Layer()
    for assignment in assignments:
        key, separator, text = assignment.partition('=')
        path = tuple(part.strip() for part in key.split('.'))
        if not separator or not all(path):
            raise RecipeError(f'{flag} {assignment}: expected KEY=VALUE, for example '
                              f'{flag} negatives.mutation_rate=0.61')
        place = f'{flag} {assignment}'
        put(layer, path, parse_value(text, place), place)
    return layer


def parse_value(text: str, place: str) -> Any:
    r"""Reads one YAML value that was written at :obj:`place`."""
    if text.isspace():  # a delimiter, which YAML would take for nothing
        return text
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise RecipeError(f'{place}: {text!r} is not a YAML value') from error


def put(layer: Layer, path: KeyPath, value: Any, place: str) -> None:
    r"""Sets one value of a layer."""
    target = layer.values
    for depth, key in enumerate(path[:-1], start=1):
        layer.places.setdefault(path[:depth], place)
        inner = target.setdefault(key, {})
        if not isinstance(inner, dict):  # a name alone stands for a section
            inner = target[key] = {'name': inner}
        target = inner
    before = target.get(path[-1])
    if isinstance(before, dict) and isinstance(value, (str, dict)):  # of a section that has settings already
        value = {**before, **(value if isinstance(value, dict) else {'name': value})}
    target[path[-1]] = value
    layer.places[path] = place


def dump(values: dict[str, Any]) -> str:
    r"""The settings as YAML, in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


class _Loader(yaml.SafeLoader):
    r"""Reads :obj:`1e-5` as a number, as YAML 1.2 does, and not as a string."""


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', re.compile(r'^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$'), list('-+.0123456789'))


class _Dumper(yaml.SafeDumper):
    pass


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    # repr() gives 1e-05, which other readers of YAML take for a string.
    text = repr(value)
    if re.match(r'^-?\d+e', text):
        text = text.replace('e', '.0e', 1)
    return dumper.represent_scalar('tag:yaml.org,2002:float', text)


_Dumper.add_representer(float, _represent_float)


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, origin: str, layer: Layer) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, path, origin, layer) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return loader.construct_object(node, deep=True)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key: Optional[Any] = loader.construct_object(key_node, deep=True)
        place = f'{origin}:{key_node.start_mark.line + 1}'
        if not isinstance(key, str):
            raise RecipeError(f'{place}: expected a name before the colon, got {key!r}')
        if key in values:
            raise RecipeError(f'{place}: {".".join((*path, key))!r} is set a second time; keep one of the two')
        layer.places[(*path, key)] = place
        values[key] = _construct(loader, value_node, (*path, key), origin, layer)
    return values

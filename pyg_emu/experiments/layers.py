r"""Nested settings in layers (files, flags). Each layer knows where its settings were written, for error messages."""
from __future__ import annotations

import re
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Collection, Iterable, Optional

import yaml

from pyg_emu.core.errors import RecipeError

#: The keys that lead to a value.
KeyPath = tuple[str, ...]

_MAX_BYTES = 2**20
_MAX_DEPTH = 50
_MAX_VALUES = 10_000
#: Letters of a flag that messages show.
_SHOWN = 200
_TAG = 'tag:yaml.org,2002:'
#: Possible delimiters and signs of comments. The empty text is not among them.
_PUNCTUATION = frozenset(string.punctuation)
_COLLECTIONS = (f'{_TAG}map', f'{_TAG}seq')


@dataclass
class Layer:
    r"""Nested settings.

    Args:
        values (dict, optional): The settings.
        places (dict, optional): Where each key path was written, such as :obj:`"emu.yaml:7"`.
    """
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place(self, path: KeyPath) -> str:
        r"""The place where a key path or its nearest parent was written, followed by a colon and a space, or an empty
        text if it is not known."""
        while path and path not in self.places:
            path = path[:-1]
        return f'{self.places[path]}: ' if path in self.places else ''

    def over(self, base: Layer, kept: Callable[[KeyPath, Any], Collection[str]]) -> Layer:
        r"""Lays this layer over another one.

        Args:
            base (Layer): The layer below. Its mappings are merged with the mappings of this layer, key by key.
            kept (callable): Which settings of a section stay although this layer gives the section another
                :obj:`name`, from the path of the section and the new name. All other settings there are dropped.
        """
        places = {**base.places, **self.places}

        def merge(below: dict[str, Any], above: dict[str, Any], path: KeyPath) -> dict[str, Any]:
            merged = dict(below)
            if 'name' in above and above['name'] != below.get('name'):
                stay = {*above, *kept(path, above['name'])}
                merged = {key: value for key, value in below.items() if key in stay}
            for key, value in above.items():
                if isinstance(value, dict) and isinstance(merged.get(key), dict):
                    value = merge(merged[key], value, (*path, key))
                merged[key] = value
            return merged

        return Layer(merge(base.values, self.values, ()), places)


def read_layer(path: Path) -> Layer:
    r"""Reads a YAML file.

    Raises:
        RecipeError: If the file cannot be read or is not a mapping of names to settings; names the line.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f'cannot read the recipe {path} ({getattr(error, "strerror", error)})') from error
    if len(content) > _MAX_BYTES:
        raise RecipeError(f'{path} is larger than {_MAX_BYTES // 2**20} MiB; expected a recipe, a few lines of YAML')
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise RecipeError(f'{path}:{line}: byte {content[error.start]:#04x} is not valid UTF-8; save the recipe as '
                          f'UTF-8') from error
    return parse_layer(text, str(path))


def parse_layer(text: str, origin: str) -> Layer:
    r"""Reads YAML text.

    Args:
        text (str): The text.
        origin (str): The file it comes from, for messages.

    Raises:
        RecipeError: If the text is not a mapping of names to settings; names the line.
    """
    layer = Layer()
    value = _load(text, origin, layer)
    if value is not None and not isinstance(value, dict):
        raise RecipeError(f'{origin}:1: expected settings of the form "name: value", got {value!r:.100}')
    layer.values = value or {}
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
            raise RecipeError(f'{flag_place(flag, assignment)}: expected KEY=VALUE, for example '
                              f'{flag} negatives.mutation_rate=0.61')
        place = flag_place(flag, assignment)
        put(layer, path, parse_value(text, place), place)
    return layer


def flag_place(flag: str, text: str) -> str:
    r"""The place of what a flag sets, such as :obj:`"--set seed=x"`; a long text is cut."""
    return f'{flag} {text}' if len(text) <= _SHOWN else f'{flag} {text[:_SHOWN]}...'


def parse_value(text: str, place: str) -> Any:
    r"""Reads one YAML value.

    Args:
        text (str): The value. A punctuation mark alone, such as :obj:`,`, is text, and so is a line that begins with
            :obj:`#`, :obj:`|` or :obj:`>`.
        place (str): Where it was written, for messages.

    Raises:
        RecipeError: If it is not a YAML value.
    """
    if text.isspace():  # a delimiter, which YAML would take for nothing
        return text
    plain = text.strip()
    # YAML would take these for nothing, for a comment, or for the begin of a block of lines.
    if plain in _PUNCTUATION or (plain.startswith(('#', '|', '>')) and '\n' not in plain):
        return plain
    return _load(text, place, None)


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
    r"""Reads numbers as YAML 1.2 does, and dates as text: :obj:`1e-5` is a number, :obj:`0100` is 100, and :obj:`1:30`
    is text. The depth and the number of values are limited, aliases included.
    """
    depth = 0
    size = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f'values are nested more than {_MAX_DEPTH} levels deep',
                                       problem_mark=self.peek_event().start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


#: The numbers of YAML 1.2's core schema. YAML 1.1 has octal ones after a 0, and sexagesimal ones around colons.
_NUMBERS = {
    'int': r'[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+',
    'float': r'[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)',
}
_REPLACED = tuple(f'{_TAG}{kind}' for kind in (*_NUMBERS, 'timestamp'))
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}


class _Dumper(yaml.SafeDumper):
    r"""Quotes text that YAML 1.1 or YAML 1.2 would take for something else."""


for _kind, _pattern in _NUMBERS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f'{_TAG}{_kind}', re.compile(f'^(?:{_pattern})$'), list('-+.0123456789'))


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0 if text[:2] in ('0o', '0x') else 10)


_Loader.add_constructor(f'{_TAG}int', _construct_int)


def _represent_float(dumper: yaml.SafeDumper, value: float) -> yaml.ScalarNode:
    # repr() gives 1e-05, which other readers of YAML take for a string.
    text = repr(value)
    if re.match(r'^-?\d+e', text):
        text = text.replace('e', '.0e', 1)
    return dumper.represent_scalar('tag:yaml.org,2002:float', text)


_Dumper.add_representer(float, _represent_float)


def _load(text: str, place: str, layer: Optional[Layer]) -> Any:
    r"""The value of a YAML text. With a layer, the text is a file: places have line numbers, and the layer records the
    place of each key.
    """
    def where(mark: Any) -> str:
        return place if layer is None else f'{place}:{1 if mark is None else mark.line + 1}'

    node: Optional[yaml.Node] = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _construct(loader, node, (), where, layer)
    except yaml.MarkedYAMLError as error:
        shown = f'{text!r:.80} is ' if layer is None else ''
        raise RecipeError(f'{where(error.problem_mark)}: {shown}not valid YAML: '
                          f'{error.problem or error.context}') from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, RecipeError):
            raise
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecipeError(f'{place}: not valid YAML: {told}') from error


def _construct(loader: _Loader, node: yaml.Node, path: KeyPath, where: Callable[[Any], str],
               layer: Optional[Layer], depth: int = 0) -> Any:
    loader.size += 1
    # An alias stands for all that its anchor holds: a few lines can unfold to any number of values, or to endless ones.
    if depth > _MAX_DEPTH or loader.size > _MAX_VALUES:
        raise RecipeError(f'{where(node.start_mark)}: aliases (*name) unfold to more than {_MAX_DEPTH} levels or '
                          f'{_MAX_VALUES} values; write the settings out')
    if not node.tag.startswith(_TAG) or (isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTIONS):
        raise RecipeError(f'{where(node.start_mark)}: the tag {node.tag.replace(_TAG, "!!")} is not for recipes; leave '
                          'it out')
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, item, path, where, layer, depth + 1) for item in node.value]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(loader, node, where)
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise RecipeError(f'{where(key_node.start_mark)}: expected a name before the colon, got a list or a '
                              'mapping')
        key = _scalar(loader, key_node, where)
        place = where(key_node.start_mark)
        if not isinstance(key, str):
            raise RecipeError(f'{place}: expected a name before the colon, got {key!r:.100}')
        if key in values:
            raise RecipeError(f'{place}: {".".join((*path, key))!r} is set a second time; keep one of the two')
        if layer is not None:
            layer.places[(*path, key)] = place
        values[key] = _construct(loader, value_node, (*path, key), where, layer, depth + 1)
    return values


def _scalar(loader: _Loader, node: yaml.Node, where: Callable[[Any], str]) -> Any:
    try:
        value = loader.construct_object(node, deep=True)
    except yaml.YAMLError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # !!int x, a number of thousands of digits
        raise RecipeError(f"{where(node.start_mark)}: {str(node.value)!r:.60} is not of YAML's "
                          f'type {node.tag.rpartition(":")[2]} ({str(error).partition(";")[0]:.100})') from error
    if value is not None and type(value) not in (bool, int, float, str):
        raise RecipeError(f'{where(node.start_mark)}: expected text, a number, true, false or null, got '
                          f'{node.tag.rpartition(":")[2]}')
    if isinstance(value, str) and any('\ud800' <= character <= '\udfff' for character in value):
        raise RecipeError(f'{where(node.start_mark)}: {value!r:.60} is not valid Unicode: it holds half of a character')
    return value

r"""Sections of a recipe: a class and its arguments, checked against the signature of the class.

A class that takes a new argument needs no change here.
"""
from __future__ import annotations

import inspect
import typing
from typing import Any, Callable, Mapping, Optional

from pyg_emu.core.errors import RecipeError
from pyg_emu.experiments.layers import KeyPath, Layer
from pyg_emu.experiments.names import NESTED, SECTIONS, Section, canonical_name, class_names, fact, find_class, nearest
from pyg_emu.experiments.values import conform, is_plain

_MISSING = inspect.Parameter.empty


def check_section(kind: str, value: Any, path: KeyPath, layer: Layer) -> dict[str, Any]:
    r"""Returns a section with its name in the canonical spelling and the defaults of its class filled in.

    Args:
        kind (str): A key of :obj:`SECTIONS`.
        value (Any): A mapping, or a name alone.
        path (tuple): Where the section is in the recipe.
        layer (Layer): Knows where it was written.

    Raises:
        RecipeError: If a name or key is unknown, an argument is missing, or a value is of the wrong type.
    """
    section = SECTIONS[kind]
    if isinstance(value, str) and section.named:
        value = {'name': value}
    if not isinstance(value, dict):
        raise RecipeError(f'{layer.place(path)}{".".join(path)}: expected a section of settings, got {_shown(value)}')
    name = canonical_name(kind, value.get('name', section.default) if section.named else section.default)
    cls = find_class(kind, name, layer.place((*path, 'name')))
    has_name = section.named and not (section.nameless_default and name == section.default)
    checked: dict[str, Any] = {'name': name} if has_name else {}
    known = parameters(section, cls)
    for key in value:
        if key not in known and not (key == 'name' and section.named):
            what = f' of {name}' if section.named else ''
            raise RecipeError(f'{layer.place((*path, key))}unknown key {".".join((*path, key))!r}{what}'
                              f'{nearest(key, [*checked, *known], ".".join((*path, "")))}')
    for key, (hint, default) in known.items():
        if key in value:
            checked[key] = _check_value(key, value[key], hint, (*path, key), layer)
        elif default is _MISSING:
            raise RecipeError(f'{layer.place(path)}{".".join((*path, key))} is missing: {name} needs it')
        elif section.complete and is_plain(default):
            # Written down, so that the recipe of a run means the same when a default changes.
            checked[key] = list(default) if isinstance(default, tuple) else default
    return checked


def plain_section(kind: str, value: Any, path: KeyPath, places: dict[KeyPath, str]) -> Any:
    r"""Returns a section in the form in which layers are merged: a name alone becomes a mapping, and names get their
    canonical spelling, so that a layer that says the same is not taken for one that chooses another class. Sections
    within the section are treated alike, and a value that is not a section is returned unchanged.

    Args:
        kind (str): A key of :obj:`SECTIONS`.
        value (Any): The section, as one layer gives it.
        path (tuple): Where the section is in the recipe.
        places (dict): Where each key path was written, see :class:`~pyg_emu.experiments.layers.Layer`. The place of a
            name alone becomes that of the key :obj:`name`, too.
    """
    if isinstance(value, str) and SECTIONS[kind].named and _names_a_class(kind, value):
        value = {'name': value}
        if path in places:
            places[(*path, 'name')] = places[path]
    if not isinstance(value, dict):
        return value
    plain = {key: plain_section(NESTED[key], option, (*path, key), places) if key in NESTED else option
             for key, option in value.items()}
    return {**plain, 'name': canonical_name(kind, plain['name'])} if 'name' in plain else plain


def class_of(kind: str, value: Any) -> Callable[..., Any]:
    r"""The class of a checked section.

    Args:
        kind (str): A key of :obj:`SECTIONS`.
        value (dict): What :func:`check_section` returned.
    """
    return find_class(kind, name_in(kind, value))


def name_in(kind: str, value: Any) -> Any:
    r"""The name that a section gives, or its default."""
    section = SECTIONS[kind]
    if isinstance(value, str) and section.named:
        return value
    return value.get('name', section.default) if section.named and isinstance(value, Mapping) else section.default


def section_keys(kind: str, value: Any) -> list[str]:
    r"""The keys that a section may have, given its name; none where there is no class of that name."""
    name = canonical_name(kind, name_in(kind, value))
    return list(parameters(SECTIONS[kind], find_class(kind, name))) if name in class_names(kind) else []


def kept_settings(kind: str, name: Any, place: str) -> list[str]:
    r"""The settings that a section keeps when a recipe gives it another name: those that the new class takes as well.

    Args:
        kind (str): A key of a recipe.
        name (Any): The new name.
        place (str): Where it was written, for the message.

    Raises:
        RecipeError: If the name is the path of a class that cannot be found.
    """
    if kind not in SECTIONS:
        return []
    section = SECTIONS[kind]
    if not (isinstance(name, str) and (':' in name or canonical_name(kind, name) in class_names(kind))):
        return list(section.kept)  # an unknown name, which check_section() tells of
    known = parameters(section, find_class(kind, name, place))
    return [key for key in section.kept if key in known]


def replaced_settings(kind: str, value: Any) -> set[str]:
    r"""The settings of a section that others in it take the place of, as the attribute :attr:`replaces` of its class
    says; none for an unknown name.

    Args:
        kind (str): A key of a recipe.
        value (Any): The section, or anything else, which replaces nothing.
    """
    if kind not in SECTIONS or not isinstance(value, Mapping):
        return set()
    replaces = fact(_known_class(kind, value), 'replaces', {})
    return {name for key, names in replaces.items() if value.get(key) is not None for name in names}


def without_defaults(kind: str, value: Mapping[str, Any]) -> dict[str, Any]:
    r"""A checked section without the settings that are defaults anyway. The rest stays the same when its class takes a
    new argument.
    """
    known = parameters(SECTIONS[kind], class_of(kind, value))
    found = {}
    for key, option in value.items():
        default = known[key][1] if key in known else _MISSING
        if key in NESTED and isinstance(option, dict):
            found[key] = without_defaults(NESTED[key], option)
        elif option != (list(default) if isinstance(default, tuple) else default):
            found[key] = option
    return found


def parameters(section: Section, cls: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    r"""Annotation and default of each argument that a recipe may set.

    Args:
        section (Section): The section.
        cls (type): Its class, or function.
    """
    found = {key: option for key, option in signature(cls).items() if key not in section.given}
    if section.named:
        found.pop('name', None)  # the key that chooses the class
    if section.reciprocal and not fact(cls, 'reads_graph', False):
        found['reciprocal'] = (bool, False)
    return found


def signature(cls: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    r"""Annotation and default of each argument of a class or a function that can be given by name. A constructor that
    hands :obj:`**kwargs` to its base class takes the arguments of the base class as well.
    """
    if not inspect.isclass(cls):
        return _own_signature(cls, cls)[0]
    found: dict[str, tuple[Any, Any]] = {}
    for base in cls.__mro__:
        if '__init__' not in vars(base) and '__new__' not in vars(base):
            continue
        made = vars(base).get('__init__')
        options, passes_on = _own_signature(made, made) if made is not None else _own_signature(cls, base.__new__)
        found = {**options, **found}
        if not passes_on:
            break
    return found


def _own_signature(function: Any, hinted: Any) -> tuple[dict[str, tuple[Any, Any]], bool]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # made in C
        return {}, False
    if function is hinted and '.' in getattr(function, '__qualname__', '') and parameters and parameters[0].name in (
            'self', 'cls'):
        parameters = parameters[1:]
    hints = _hints(hinted)
    found = {p.name: (hints.get(p.name, Any), p.default) for p in parameters
             if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return found, any(p.kind is p.VAR_KEYWORD for p in parameters)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # a type that is imported for type checkers alone, or nothing that Python can evaluate
        pass
    found = {}
    for name, hint in getattr(function, '__annotations__', {}).items():
        try:
            found[name] = eval(hint, getattr(function, '__globals__', {})) if isinstance(hint, str) else hint
        except Exception:
            continue
    return found


def _check_value(key: str, value: Any, hint: Any, path: KeyPath, layer: Layer) -> Any:
    inner = NESTED.get(key)
    if inner is not None and (isinstance(value, dict) or (isinstance(value, str) and _names_a_class(inner, value))):
        return check_section(inner, value, path, layer)
    try:
        return conform(value, hint)
    except TypeError as error:
        section_too = ' or a section of settings' if inner is not None else ''
        raise RecipeError(f'{layer.place(path)}{".".join(path)}: expected {error}{section_too}, got '
                          f'{_shown(value)}') from None


def _names_a_class(kind: str, value: str) -> bool:
    return not SECTIONS[kind].nameless_default or ':' in value or canonical_name(kind, value) in class_names(kind)


def _shown(value: Any) -> str:
    r"""A value in a message, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        return f'a value of type {type(value).__name__}'
    return text if len(text) <= 100 else f'{text[:97]}...'


def reads_graph(kind: str, value: Any) -> bool:
    r"""Whether the class of a section works on a graph rather than on a table of entity vectors: its class attribute
    :attr:`reads_graph`. False for an unknown name.

    Args:
        kind (str): :obj:`"model"` or :obj:`"loss"`.
        value (Any): The section or its name.
    """
    return bool(fact(_known_class(kind, value), 'reads_graph', False))


def _known_class(kind: str, value: Any) -> Optional[Callable[..., Any]]:
    try:
        return find_class(kind, name_in(kind, value))
    except RecipeError:
        return None

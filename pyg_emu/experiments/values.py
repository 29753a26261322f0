r"""Values of recipes: whether what YAML says fits the annotation of an argument."""
from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from typing import Any

#: More would fit into no tensor; also the longest integers that Python prints without complaint are far longer.
_LARGEST = 2**63


def conform(value: Any, hint: Any) -> Any:
    r"""Returns :obj:`value` as the type that an annotation asks for. Annotations that YAML cannot meet ask for nothing.

    Args:
        value (Any): What YAML says.
        hint (Any): The annotation.

    Raises:
        TypeError: If the value does not fit. The message says what would fit.
    """
    if isinstance(value, int) and not isinstance(value, bool) and not -_LARGEST <= value < _LARGEST:
        raise TypeError('an integer in [-2^63, 2^63)')
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _conform_to_any(value, arguments)
    if origin is typing.Literal:
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise TypeError('one of ' + ', '.join(map(repr, arguments)))
    if origin is dict and not isinstance(value, dict):
        raise TypeError('a section of settings')
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise TypeError(f'a list of {len(arguments)}')
        return [conform(item, wanted) for item, wanted in zip(value, arguments)]
    if origin in (list, tuple) or (inspect.isclass(origin) and issubclass(origin, collections.abc.Collection)
                                   and not issubclass(origin, collections.abc.Mapping)):
        if not isinstance(value, (list, tuple)):
            raise TypeError('a list')
        return [conform(item, arguments[0]) for item in value] if arguments else list(value)
    if hint in _PLAIN:
        described, kinds = _PLAIN[hint]
        if not isinstance(value, kinds) or (isinstance(value, bool) and hint is not bool):
            raise TypeError(described)
        return hint(value) if hint is not type(None) else None
    return value


def is_plain(value: Any) -> bool:
    r"""Whether YAML and JSON can write a value and read it back."""
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, str) or (type(value) is float and not math.isnan(value))


_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ('true or false', (bool, )),
    int: ('an integer', (int, )),
    float: ('a number', (int, float)),
    str: ('a text', (str, )),
    type(None): ('null', (type(None), )),
}


def _conform_to_any(value: Any, hints: tuple[Any, ...]) -> Any:
    # None first, and integers before numbers, so that nothing is turned into a wider type than it has.
    described: list[str] = []
    for hint in hints:
        if hint not in _PLAIN and typing.get_origin(hint) in (None, collections.abc.Callable):
            continue  # a tensor, an object, a function: nothing that YAML can write
        try:
            return conform(value, hint)
        except TypeError as error:
            described.append(str(error))
    if described:
        raise TypeError(' or '.join(described))
    return value

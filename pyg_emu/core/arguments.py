r"""Argument checks shared by many classes. Each check returns the valid value. Checks of integers and flags
return Python's own type, because integers of NumPy overflow and are no JSON.
"""
from __future__ import annotations

import inspect
import math
import os
import reprlib
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Callable, Collection, Optional, Sequence

from pyg_emu.core.errors import ArgumentError

if TYPE_CHECKING:  # Reading a recipe and printing help do not need PyTorch.
    import torch
    from torch import Tensor


def is_number(value: Any) -> bool:
    r"""Returns :obj:`True` if :obj:`value` is a real Python or NumPy number. Booleans are not numbers here, and neither
    are integers that no operator takes, of 64 bits and more.
    """
    return (isinstance(value, Real) and not isinstance(value, bool)
            and not (isinstance(value, Integral) and abs(int(value)) >= 2**63))


def positive_integer(name: str, value: Any) -> int:
    r"""Checks that a value is a positive integer.

    Args:
        name (str): The name of the argument, for the message.
        value (int): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not an integer in :obj:`[1, 2^63)`.
    """
    _check_integer(name, value, least=1)
    return int(value)


def non_negative_integer(name: str, value: Any) -> int:
    r"""Checks that a value is an integer of at least 0.

    Args:
        name (str): The name of the argument, for the message.
        value (int): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not an integer in :obj:`[0, 2^63)`.
    """
    _check_integer(name, value, least=0)
    return int(value)


def positive_integers(name: str, values: Any) -> list[int]:
    r"""Checks that a value is one or more positive integers: a sequence, or an array or a tensor of one dimension.

    Args:
        name (str): The name of the argument, for the message.
        values (sequence of int): The value to check.

    Raises:
        ArgumentError: If there is none, or one is not an integer in :obj:`[1, 2^63)`.
    """
    given = values.tolist() if getattr(values, 'ndim', None) == 1 and hasattr(values, 'tolist') else values
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence) or len(given) == 0:
        raise ArgumentError(f'{name}: expected one or more positive integers, such as (1, 3, 10), got {shown(values)}')
    try:
        return [positive_integer(f'{name}[{place}]', value) for place, value in enumerate(given)]
    except ArgumentError as error:
        raise ArgumentError(f'{name}: expected positive integers, got {shown(values)}; {error}') from None


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ArgumentError(f'{name}: expected an integer of at least {least}, got {shown(value)}')
    if int(value) >= 2**63:
        raise ArgumentError(f'{name}: expected an integer below 2^63, got one of {int(value).bit_length()} bits')


def boolean(name: str, value: Any) -> bool:
    r"""Checks that a flag is a Python or NumPy boolean. Text such as :obj:`"no"` would count as true.

    Args:
        name (str): The name of the argument, for the message.
        value (bool): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not a boolean.
    """
    if isinstance(value, bool):
        return value
    if type(value).__module__ == 'numpy' and type(value).__name__ in ('bool', 'bool_'):
        return bool(value)
    raise ArgumentError(f'{name}: expected True or False, got {shown(value)}')


def one_of(name: str, value: Any, choices: Collection[str]) -> Any:
    r"""Checks that a value is one of some names.

    Args:
        name (str): The name of the argument, for the message.
        value (str): The value to check.
        choices (collection of str): The valid names.

    Raises:
        ArgumentError: If :obj:`value` is none of them.
    """
    # Not `in` alone: an array is compared component by component, and a list has no hash.
    if not isinstance(value, str) or value not in choices:
        raise ArgumentError(f'{name}: expected one of {", ".join(map(repr, choices))}, got {shown(value)}')
    return value


def shown(value: Any) -> str:
    r"""A value in a message: its type if it is long to print, such as a tensor."""
    if isinstance(value, (str, bytes, int, float, type(None))):
        text = repr(value) if not isinstance(value, int) or abs(value) < 2**100 else 'a huge integer'
        return text if len(text) <= 80 else f'{text[:77]}...'
    if getattr(value, 'ndim', None) == 0:  # a tensor or an array of one number
        return repr(value)
    if isinstance(value, (complex, list, tuple, dict, set)) or type(value).__module__ in ('decimal', 'fractions'):
        return reprlib.repr(value)
    return f'the class {value.__name__}' if isinstance(value, type) else f'an object of type {type(value).__name__}'


def random_seed(name: str, value: Any) -> int:
    r"""Checks that a value is a valid seed of a random generator.

    Args:
        name (str): The name of the argument, for the message.
        value (int): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not an integer in :obj:`[0, 2^63)`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise ArgumentError(f'{name}: expected an integer in [0, 2^63), got {shown(value)}')
    return int(value)


def non_negative(name: str, value: Any) -> float:
    r"""Checks that a value is a finite, non-negative number.

    Args:
        name (str): The name of the argument, for the message.
        value (float): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not a number, or is negative, infinite or NaN.
    """
    if not is_number(value) or not math.isfinite(value) or value < 0:
        raise ArgumentError(f'{name}: expected a finite number >= 0, got {shown(value)}')
    return value


def positive_number(name: str, value: Any, what: str = 'a finite number > 0') -> float:
    r"""Checks that a value is a finite, positive number.

    Args:
        name (str): The name of the argument, for the message.
        value (float): The value to check.
        what (str, optional): What the argument takes, for the message. (default: :obj:`"a finite number > 0"`)

    Raises:
        ArgumentError: If :obj:`value` is not a number, or is not positive, infinite or NaN.
    """
    if not is_number(value) or not 0.0 < value < math.inf:
        raise ArgumentError(f'{name}: expected {what}, got {shown(value)}')
    return value


def share(name: str, value: Any) -> float:
    r"""Checks that a value is a fraction between 0 and 1.

    Args:
        name (str): The name of the argument, for the message.
        value (float): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not a number in :obj:`[0, 1]`.
    """
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise ArgumentError(f'{name}: expected a number in [0, 1], got {shown(value)}')
    return value


def penalty(name: str, value: Any) -> Any:
    r"""Checks that a value is a regularizer: a callable that takes a scorer and a batch, or :obj:`None`.

    Args:
        name (str): The name of the argument, for the message.
        value (callable, optional): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not callable, or is a class instead of an instance.
    """
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise ArgumentError(f'{name}: expected a function of a scorer and a batch, such as L3Regularizer(1e-5), '
                            f'got {value!r}')
    return value


def without_effect(beside: str, of: Optional[Callable[..., Any]] = None, /, **given: Any) -> None:
    r"""Checks that arguments which have no effect beside another one are not given.

    Args:
        beside (str): The other argument, or what it stands for, for the message.
        of (callable, optional): The class or function whose arguments they are: a number or a name that equals its
            default counts as not given. (default: only :obj:`None` does)
        **given (Any): The arguments by name.

    Raises:
        ArgumentError: If one is given.
    """
    parameters = {} if of is None else inspect.signature(of).parameters
    for name, value in given.items():
        default = parameters[name].default if name in parameters else None
        # Only what is compared with ==, unlike arrays and tables.
        if value is not None and not (isinstance(value, (bool, int, float, str)) and value == default):
            raise ArgumentError(f'{name}: expected {shown(default)} with {beside}, beside which it has no effect, got '
                                f'{shown(value)}; leave one of the two out')


def kind_of(tensor: Tensor) -> str:
    r"""Returns the data type and shape of a tensor as text for a message."""
    return f'{tensor.dtype} of shape {tuple(tensor.shape)}'


def on_device(name: str, value: Tensor, device: torch.device, like: str = '') -> Tensor:
    r"""Checks that a tensor is on a given device.

    Args:
        name (str): The name of the argument, for the message.
        value (torch.Tensor): The tensor to check.
        device (torch.device): The expected device.
        like (str, optional): The name of another argument on that device, for the message. (default: no name)

    Raises:
        ArgumentError: If :obj:`value` is on another device.
    """
    if value.device != device:
        example = f' like {like}' if like else ''
        raise ArgumentError(f'{name}: expected a tensor on {device}{example}, got one on {value.device}')
    return value


def ids_below(name: str, ids: Tensor, limit: Optional[int], what: str = '', wait: bool = False) -> Tensor:
    r"""Checks that all ids are in :obj:`[0, limit)`. PyTorch would read a negative id as an index from the end.

    Args:
        name (str): The name of the argument, for the message.
        ids (torch.Tensor): The ids to check, of any shape.
        limit (int, optional): The number of valid ids. If :obj:`None`, only negative ids raise an error.
        what (str, optional): The name of the quantity behind :obj:`limit`, for the message. (default: no name)
        wait (bool, optional): If set to :obj:`True`, also checks tensors on other devices than the CPU, which
            synchronizes the host with the device. (default: :obj:`False`)

    Raises:
        ArgumentError: If an id is out of range. The message names the first such id and its position.
    """
    import torch

    # Looking at values breaks the graph of torch.compile.
    if ids.numel() == 0 or not (wait or ids.device.type == 'cpu') or torch.compiler.is_compiling():
        return ids
    low, high = (int(bound) for bound in ids.aminmax())
    if low >= 0 and (limit is None or high < limit):
        return ids
    wrong = ids < 0 if limit is None else (ids < 0) | (ids >= limit)
    place = tuple(wrong.nonzero()[0].tolist())
    shown = place[0] if len(place) == 1 else place
    allowed = 'an id: ids begin at 0' if limit is None else f'in [0, {limit})' + (f', the {what}' if what else '')
    raise ArgumentError(f'{name}: {int(ids[place])} at position {shown} is not {allowed}')


def ids_in(name: str, ids: Any, limit: Optional[int], what: str = '') -> Tensor:
    r"""Checks that a value is a tensor of ids in :obj:`[0, limit)`; see :func:`ids_below`.

    Args:
        name (str): The name of the argument, for the message.
        ids (torch.Tensor): The value to check, of any shape.
        limit (int, optional): The number of valid ids, or :obj:`None`.
        what (str, optional): The name of the quantity behind :obj:`limit`, for the message. (default: no name)

    Raises:
        ArgumentError: If the value is not a dense integer tensor, or an id is out of range.
    """
    import torch

    if not isinstance(ids, torch.Tensor):
        raise ArgumentError(f'{name}: expected a tensor of int64, got {shown(ids)}; use torch.tensor({name})')
    if ids.dtype not in (torch.int64, torch.int32) or ids.layout is not torch.strided:
        layout = '' if ids.layout is torch.strided else f'{ids.layout} of '
        raise ArgumentError(f'{name}: expected ids of int64, got {layout}{kind_of(ids)}')
    return ids_below(name, ids, limit, what)


def same_length_ids(**given: tuple[Any, int]) -> None:
    r"""Checks ids that are given together, such as the three columns of triples. Ids on other devices than the CPU are
    not compared with their number, which would make the host wait for the device.

    Args:
        **given (tuple): For each argument by name, the ids and the number of valid ids.

    Raises:
        ArgumentError: If one is not an integer tensor, they differ in shape or device, or an id is out of range.
    """
    first: Any = None
    for name, (ids, limit) in given.items():
        ids_in(name, ids, limit)
        if first is None:
            first = name, ids
        elif ids.shape != first[1].shape:
            raise ArgumentError(f'{name}: expected the shape of {first[0]}, {tuple(first[1].shape)}, got '
                                f'{tuple(ids.shape)} ({first[0]} and {name} differ)')
        else:
            on_device(name, ids, first[1].device, like=first[0])


def tensors(*, optional: Collection[str] = (), **given: Any) -> None:
    r"""Checks that operands are tensors, dense ones.

    Args:
        optional (collection of str, optional): The names of those that may be :obj:`None`. (default: none)
        **given (torch.Tensor): The operands by name.

    Raises:
        ArgumentError: If one is not a tensor, or is sparse.
    """
    import torch

    for name, value in given.items():
        if (value is None and name in optional) or isinstance(value, torch.Tensor) and value.layout is torch.strided:
            continue
        found = f'a tensor of layout {value.layout}' if isinstance(value, torch.Tensor) else shown(value)
        raise ArgumentError(f'{name}: expected a dense tensor, got {found}')


def instance(name: str, value: Any, kind: type, what: str = '') -> Any:
    r"""Checks that a value is an object of a class.

    Args:
        name (str): The name of the argument, for the message.
        value (Any): The value to check.
        kind (type): The class.
        what (str, optional): How such an object is made, for the message. (default: nothing)

    Raises:
        ArgumentError: If it is not.
    """
    if not isinstance(value, kind):
        raise ArgumentError(f'{name}: expected a {kind.__name__}{what and ", " + what}, got {shown(value)}')
    return value


def file_path(name: str, value: Any) -> Any:
    r"""Checks that a value is a path: text or an object such as :class:`pathlib.Path`.

    Args:
        name (str): The name of the argument, for the message.
        value (str or os.PathLike): The value to check.

    Raises:
        ArgumentError: If it is not, or is empty.
    """
    if not isinstance(value, (str, os.PathLike)) or isinstance(os.fspath(value), bytes) or not str(value):
        raise ArgumentError(f'{name}: expected a path, got {shown(value)}')
    return value

r"""Argument checks shared by many classes. Each check returns a valid value unchanged."""
from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Optional

from pyg_emu.core.errors import ArgumentError

if TYPE_CHECKING:  # Reading a recipe and printing help do not need PyTorch.
    import torch
    from torch import Tensor


def is_number(value: Any) -> bool:
    r"""Returns :obj:`True` if :obj:`value` is a real Python or NumPy number. Booleans are not numbers here."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positive_integer(name: str, value: Any) -> Any:
    r"""Checks that a value is a positive integer.

    Args:
        name (str): The name of the argument, for the message.
        value (int): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ArgumentError(f'{name}: expected an integer of at least 1, got {value!r}')
    return value


def random_seed(name: str, value: Any) -> int:
    r"""Checks that a value is a valid seed of a random generator.

    Args:
        name (str): The name of the argument, for the message.
        value (int): The value to check.

    Raises:
        ArgumentError: If :obj:`value` is not an integer in :obj:`[0, 2^63)`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise ArgumentError(f'{name}: expected an integer in [0, 2^63), got {value!r}')
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
        raise ArgumentError(f'{name}: expected a finite number >= 0, got {value!r}')
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
        raise ArgumentError(f'{name}: expected a number in [0, 1], got {value!r}')
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


def kind_of(tensor: Tensor) -> str:
    r"""Returns the data type and shape of a tensor as text for a message."""
    return f'{tensor.dtype} of shape {tuple(tensor.shape)}'


def on_device(name: str, value: Tensor, device: torch.device, like: str = '') -> Tensor:
    r"""Checks that a tensor is on a given device.

    Args:
        name (str): The name of the argument, for the message.
        value (torch.Tensor): The tensor to check.
        device (torch.device): The expected device.
        like (str): The name of another argument on that device, for the message. (default: no name)

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
        what (str): The name of the quantity behind :obj:`limit`, for the message. (default: no name)
        wait (bool): If set to :obj:`True`, also checks tensors on other devices than the CPU, which synchronizes the
            host with the device. (default: :obj:`False`)

    Raises:
        ArgumentError: If an id is out of range. The message names the first such id and its position.
    """
    if ids.numel() == 0 or not (wait or ids.device.type == 'cpu'):
        return ids
    low, high = (int(bound) for bound in ids.aminmax())
    if low >= 0 and (limit is None or high < limit):
        return ids
    wrong = ids < 0 if limit is None else (ids < 0) | (ids >= limit)
    place = tuple(wrong.nonzero()[0].tolist())
    shown = place[0] if len(place) == 1 else place
    allowed = 'an id: ids begin at 0' if limit is None else f'in [0, {limit})' + (f', the {what}' if what else '')
    raise ArgumentError(f'{name}: {int(ids[place])} at position {shown} is not {allowed}')

r"""Checks of arguments that many classes share. What passes is returned as it came."""
from __future__ import annotations

import math
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Optional

from pyg_emu.core.errors import ArgumentError

if TYPE_CHECKING:  # Recipes are read, and help is printed, before PyTorch is loaded.
    import torch
    from torch import Tensor


def is_number(value: Any) -> bool:
    r"""Whether :obj:`value` is a real number, of Python or NumPy. Truth values are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def positive_integer(name: str, value: Any) -> Any:
    r"""Refuses what is no count.

    Args:
        name (str): The argument, for the message.
        value (int): What was given.

    Raises:
        ArgumentError: If it is no integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ArgumentError(f'{name}: expected an integer of at least 1, got {value!r}')
    return value


def random_seed(name: str, value: Any) -> int:
    r"""Refuses what no generator can be seeded with.

    Args:
        name (str): The argument, for the message.
        value (int): What was given.

    Raises:
        ArgumentError: If it is no integer in :obj:`[0, 2^63)`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**63:
        raise ArgumentError(f'{name}: expected an integer in [0, 2^63), got {value!r}')
    return int(value)


def non_negative(name: str, value: Any) -> float:
    r"""Refuses what is no weight.

    Args:
        name (str): The argument, for the message.
        value (float): What was given.

    Raises:
        ArgumentError: If it is no number, negative, infinite or NaN.
    """
    if not is_number(value) or not math.isfinite(value) or value < 0:
        raise ArgumentError(f'{name}: expected a finite number >= 0, got {value!r}')
    return value


def share(name: str, value: Any) -> float:
    r"""Refuses what is no share of a whole.

    Args:
        name (str): The argument, for the message.
        value (float): What was given.

    Raises:
        ArgumentError: If it is no number in :obj:`[0, 1]`.
    """
    if not is_number(value) or not 0.0 <= value <= 1.0:
        raise ArgumentError(f'{name}: expected a number in [0, 1], got {value!r}')
    return value


def penalty(name: str, value: Any) -> Any:
    r"""Refuses what is no penalty on a model; :obj:`None` is none and passes.

    Args:
        name (str): The argument, for the message.
        value (callable, optional): What was given.

    Raises:
        ArgumentError: If it is no function, or a class, of which there is no object yet.
    """
    if value is not None and (isinstance(value, type) or not callable(value)):
        raise ArgumentError(f'{name}: expected a function of a scorer and a batch, such as L3Regularizer(1e-5), '
                            f'got {value!r}')
    return value


def kind_of(tensor: Tensor) -> str:
    r"""Type and shape of a tensor, for a message."""
    return f'{tensor.dtype} of shape {tuple(tensor.shape)}'


def on_device(name: str, value: Tensor, device: torch.device, like: str = '') -> Tensor:
    r"""Refuses what lies elsewhere.

    Args:
        name (str): The argument, for the message.
        value (torch.Tensor): What was given.
        device (torch.device): Where it has to be.
        like (str): The argument that is there already, for the message. (default: none is named)

    Raises:
        ArgumentError: If it is on another device.
    """
    if value.device != device:
        example = f' as {like} is' if like else ''
        raise ArgumentError(f'{name}: expected a tensor on {device}{example}, got one on {value.device}')
    return value


def ids_below(name: str, ids: Tensor, limit: Optional[int], what: str = '', wait: bool = False) -> Tensor:
    r"""Refuses ids that stand for nothing: a negative one would be read as another one, counted from the end.

    Args:
        name (str): The argument, for the message.
        ids (torch.Tensor): What was given, of any shape.
        limit (int, optional): How many there are; where it is not known, only negative ids are refused.
        what (str): Of what there are as many, for the message. (default: it is not named)
        wait (bool): Whether to look also where the host has to wait for the answer, away from the CPU.
            (default: :obj:`False`)

    Raises:
        ArgumentError: If an id is not in :obj:`[0, limit)`; it names the first one.
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

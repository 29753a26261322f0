r"""Checks of arguments that many classes share. What passes is returned as it came."""
from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from pyg_emu.errors import ArgumentError


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

r"""Selection of the operator backend.

Every operator has a plain PyTorch reference and may have a Numba (CPU) and a Triton (CUDA) implementation. Each
implementation is a module :obj:`pyg_emu/ops/{operator}/{backend}.py`, which is imported on first use. By default, the
device determines the backend. The :obj:`backend` argument of an operator, :func:`use_backend` and the environment
variable :obj:`PYG_EMU_BACKEND` override the default, in that order. An explicitly requested backend that is not
available raises :class:`~pyg_emu.core.errors.BackendError`. If the default backend of the device is not available, the
PyTorch reference runs. The last two of the overrides apply to all operators: one that has no implementation for the
backend keeps its default.

A backend module that does not support all operands defines :obj:`obstacle(**operands)`. It returns the reason as a
string, or :obj:`None` if it supports them. The operator passes the operands to :func:`load_backend`.
"""
from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.errors import ArgumentError, BackendError

#: The names of all backends.
BACKENDS = ('torch', 'numba', 'triton')
#: The environment variable that sets the backend for the whole process.
ENVIRONMENT_VARIABLE = 'PYG_EMU_BACKEND'

#: What to do for a second derivative of an operator whose reference has one.
TWICE = "take backend='torch', or pyg_emu.ops.use_backend('torch') around the loss"

_override: ContextVar[str | None] = ContextVar('pyg_emu_backend', default=None)
_last: dict[str, str] = {}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    r"""Context manager that runs all operators on the given backend. Operators that have no implementation for it keep
    their default.

    Args:
        name (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`. :obj:`None` restores the default, set
            by the environment variable or else by the device.

    Raises:
        ArgumentError: If :obj:`name` is not a backend.
    """
    token = _override.set(None if name is None else _known(name, 'name'))
    try:
        yield
    finally:
        _override.reset(token)


def last_backend(operator: str) -> str | None:
    r"""Returns the backend of the last call of :obj:`operator` (*e.g.*, :obj:`"emu_score"`) in this process."""
    if not isinstance(operator, str):
        raise ArgumentError(f"operator: expected the name of an operator, such as 'emu_score', got {shown(operator)}")
    return _last.get(operator)


def load_backend(operator: str, tensor: Tensor, requested: str | None = None, **operands: Any) -> ModuleType:
    r"""Returns the module that implements :obj:`operator` for tensors like :obj:`tensor`, for a call that follows:
    :func:`last_backend` names it from now on. Arguments and errors are those of :func:`choose_backend`.
    """
    name = choose_backend(operator, tensor, requested, **operands)
    _last[operator] = name
    return _module(operator, name)


def choose_backend(operator: str, tensor: Tensor, requested: str | None = None, **operands: Any) -> str:
    r"""Returns the name of the backend that :func:`load_backend` loads.

    Args:
        operator (str): The name of the operator, which is the folder of its modules.
        tensor (torch.Tensor): A tensor with the device and data type of the operands.
        requested (str, optional): The requested backend. (default: :obj:`None`, the choice of :func:`use_backend`, of
            the environment variable or of the device, in that order)
        **operands: Operands that a backend may not support, such as the :obj:`interaction`.

    Raises:
        ArgumentError: If :obj:`requested` is not a backend.
        BackendError: If the requested backend is not available for these tensors.
    """
    if requested is not None:
        requested = _known(requested, 'backend')
    else:
        requested = _override.get()
        if requested is None and os.environ.get(ENVIRONMENT_VARIABLE):
            requested = _known(os.environ[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE)
        # A choice for all operators would otherwise fail at the first that has no Triton kernels, such as rank_counts.
        if requested is not None and not _exists(f'pyg_emu.ops.{operator}.{requested}'):
            requested = None

    if requested is not None:
        reason = _obstacle(operator, requested, tensor.device, tensor.dtype, operands)
        if reason is not None:
            raise BackendError(f"{operator}: backend '{requested}' is not available: {reason}")
        name = requested
    else:
        name = _preferred(tensor.device)
        if _obstacle(operator, name, tensor.device, tensor.dtype, operands) is not None:
            name = 'torch'
    return name


def _preferred(device: torch.device) -> str:
    return 'triton' if device.type == 'cuda' else 'numba'


def _module(operator: str, name: str) -> ModuleType:
    return importlib.import_module(f'pyg_emu.ops.{operator}.{name}')


def _known(name: str, argument: str) -> str:
    if not isinstance(name, str) or name not in BACKENDS:
        names = ', '.join(map(repr, BACKENDS))
        raise ArgumentError(f'{argument}: expected one of {names}, got {shown(name)}')
    return name


def _obstacle(operator: str, name: str, device: torch.device, dtype: torch.dtype,
              operands: dict[str, Any]) -> str | None:
    r"""Returns the reason why backend :obj:`name` is not available, or :obj:`None` if it is."""
    if not _exists(f'pyg_emu.ops.{operator}.{name}'):
        return f'{operator} has no {name} implementation'
    if name == 'torch':
        return None
    if not _exists(name):
        return f"the package '{name}' is not installed (pip install {name})"
    if name == 'numba':
        if device.type != 'cpu':
            return f'it requires CPU tensors, got tensors on {device}'
        if dtype not in (torch.float32, torch.float64):
            return f'it requires float32 or float64, got {dtype}'
    else:
        # The Triton interpreter runs kernels on the CPU, for tests only.
        if device.type != 'cuda' and os.environ.get('TRITON_INTERPRET') != '1':
            return f'it requires CUDA tensors (or TRITON_INTERPRET=1), got tensors on {device}'
        if dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f'it requires float16, bfloat16 or float32, got {dtype}'
    ask = getattr(_module(operator, name), 'obstacle', None)
    return None if ask is None else ask(**operands)


@functools.cache
def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # The parent package is missing.
        return False

r"""Which implementation of an operator runs, and why another cannot.

Every operator has a plain PyTorch reference and may have a Numba (CPU) and a Triton (CUDA) implementation, each in a
module of its own, :obj:`pyg_emu/ops/{operator}/{backend}.py`, that is imported when it is first asked for. The device
decides; the :obj:`backend` argument of an operator, :func:`use_backend` and the environment variable
:obj:`PYG_EMU_BACKEND` overrule it, in that order. What was asked for by name and cannot run raises
:class:`~pyg_emu.core.errors.BackendError`; what the device chose and cannot run is left to PyTorch.

A module that cannot serve all operands defines :obj:`obstacle(**operands)`, which returns the reason as a string, or
:obj:`None` if it can. Operands are those that the operator hands to :func:`load_backend`.
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

from pyg_emu.core.errors import ArgumentError, BackendError

#: Names of all backends.
BACKENDS = ('torch', 'numba', 'triton')
#: Overrides the choice by device for a whole process.
ENVIRONMENT_VARIABLE = 'PYG_EMU_BACKEND'

_override: ContextVar[str | None] = ContextVar('pyg_emu_backend', default=None)
_last: dict[str, str] = {}


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    r"""Runs every operator in the :obj:`with` block on one backend.

    Args:
        name (str, optional): :obj:`"torch"`, :obj:`"numba"` or :obj:`"triton"`; :obj:`None` returns to the choice by
            device (or by environment variable).

    Raises:
        ArgumentError: If there is no such backend.
    """
    token = _override.set(None if name is None else _known(name, 'name'))
    try:
        yield
    finally:
        _override.reset(token)


def last_backend(operator: str) -> str | None:
    r"""The backend that :obj:`operator`, for instance :obj:`"emu_score"`, ran on last in this process."""
    return _last.get(operator)


def load_backend(operator: str, tensor: Tensor, requested: str | None = None, **operands: Any) -> ModuleType:
    r"""The module that is to run :obj:`operator` on tensors like :obj:`tensor`.

    Args:
        operator (str): Name of the operator, the folder of its modules.
        tensor (torch.Tensor): A tensor with the device and the dtype of the operands.
        requested (str, optional): The backend asked for. (default: :obj:`None`, the choice of :func:`use_backend`, of
            the environment variable or else of the device)
        **operands: What the backends are asked about, such as the :obj:`interaction`.

    Raises:
        ArgumentError: If there is no backend of that name.
        BackendError: If the backend asked for cannot run here.
    """
    if requested is not None:
        requested = _known(requested, 'backend')
    else:
        requested = _override.get()
        if requested is None and os.environ.get(ENVIRONMENT_VARIABLE):
            requested = _known(os.environ[ENVIRONMENT_VARIABLE], ENVIRONMENT_VARIABLE)

    if requested is not None:
        reason = _obstacle(operator, requested, tensor.device, tensor.dtype, operands)
        if reason is not None:
            raise BackendError(f"{operator}: backend '{requested}' was asked for but cannot run here: {reason}")
        name = requested
    else:
        name = _preferred(tensor.device)
        if _obstacle(operator, name, tensor.device, tensor.dtype, operands) is not None:
            name = 'torch'
    _last[operator] = name
    return _module(operator, name)


def _preferred(device: torch.device) -> str:
    return 'triton' if device.type == 'cuda' else 'numba'


def _module(operator: str, name: str) -> ModuleType:
    return importlib.import_module(f'pyg_emu.ops.{operator}.{name}')


def _known(name: str, argument: str) -> str:
    if name not in BACKENDS:
        names = ', '.join(map(repr, BACKENDS))
        raise ArgumentError(f'{argument}: no backend is called {name!r}; choose one of {names}')
    return name


def _obstacle(operator: str, name: str, device: torch.device, dtype: torch.dtype,
              operands: dict[str, Any]) -> str | None:
    r"""Why :obj:`name` cannot run, or :obj:`None` if it can."""
    if not _exists(f'pyg_emu.ops.{operator}.{name}'):
        return f'{operator} has no {name} implementation'
    if name == 'torch':
        return None
    if not _exists(name):
        return f"the package '{name}' is not installed (pip install {name})"
    if name == 'numba':
        if device.type != 'cpu':
            return f'it runs on the CPU, and the tensors are on {device}'
        if dtype not in (torch.float32, torch.float64):
            return f'it computes in float32 and float64, and the tensors are {dtype}'
    else:
        # Triton's interpreter runs kernels on the CPU, slowly: for tests.
        if device.type != 'cuda' and os.environ.get('TRITON_INTERPRET') != '1':
            return f'it runs on CUDA devices (or anywhere with TRITON_INTERPRET=1), and the tensors are on {device}'
        if dtype not in (torch.float16, torch.bfloat16, torch.float32):
            return f'it computes in float16, bfloat16 and float32, and the tensors are {dtype}'
    ask = getattr(_module(operator, name), 'obstacle', None)
    return None if ask is None else ask(**operands)


@functools.cache
def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is the package that it would be in
        return False

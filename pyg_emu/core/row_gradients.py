r"""Look-ups in a table that has a dense gradient already, from an operator in the same step.

A look-up in a table :math:`V \times d` of an embedding layer has a dense gradient, which takes three passes over
:math:`V \times d` numbers: to be cleared, and to be added to that of the operator. A row-sparse gradient is added to
the operator's row by row. The sum is dense.
"""
from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Iterator, Optional

import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError

_table: ContextVar[Optional[Tensor]] = ContextVar('pyg_emu_row_gradients', default=None)


@contextmanager
def row_gradients(table: Tensor) -> Iterator[Tensor]:
    r"""Context manager in which look-ups in a table have row-sparse gradients. It yields the table for the operator,
    which has to have a dense gradient of it in each backward pass through these look-ups.

    It has no effect on a GPU, where adding rows that occur more than once is not deterministic, and in float16, in
    which PyTorch adds no sparse gradients on the CPU.

    Args:
        table (torch.Tensor): The table. shape: :obj:`(V, d)`.
    """
    if table.device.type != 'cpu' or not table.requires_grad or table.dtype == torch.float16:
        yield table
        return
    # Autograd adds a sparse gradient to a dense one in place only if the dense one comes last. Of the nodes that are
    # ready, it runs the youngest first, so the operator's gradient passes through a node that is older than look-ups.
    older: Tensor = _Same.apply(table)
    token = _table.set(table)
    try:
        yield older
    finally:
        _table.reset(token)


class _Same(torch.autograd.Function):
    r"""The same tensor. Unlike a view's, its gradient is not shared, so it can be changed in place."""
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def check_row_sparse(table: Tensor) -> None:
    r"""Checks that several look-ups in a table may have row-sparse gradients.

    Args:
        table (torch.Tensor): The table. shape: :obj:`(V, d)`.

    Raises:
        ArgumentError: If PyTorch cannot add them.
    """
    if table.device.type == 'cpu' and table.dtype == torch.float16 and table.requires_grad and torch.is_grad_enabled():
        raise ArgumentError('model: PyTorch adds no row-sparse gradients in float16 on the CPU, and the model has '
                            'sparse=True; train it in bfloat16 or float32, or with sparse=False')


def has_row_gradients(table: Tensor) -> bool:
    r"""Whether look-ups in this table have row-sparse gradients here."""
    return _table.get() is table

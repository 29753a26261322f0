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
from torch.nn import functional as F

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


def look_up(table: Tensor, index: Tensor, sparse: bool = False) -> Tensor:
    r"""Looks up rows, with row-sparse gradients within :func:`row_gradients`.

    Args:
        table (torch.Tensor): The table. shape: :obj:`(V, d)`.
        index (torch.Tensor): The rows. shape: :obj:`(*)`.
        sparse (bool, optional): Whether gradients are row-sparse elsewhere, too. (default: :obj:`False`)

    :rtype: :class:`torch.Tensor` of shape :obj:`(*, d)`.
    """
    if _table.get() is table and not sparse:
        rows: Tensor = _Rows.apply(table, index)
        return rows
    return F.embedding(index, table, sparse=sparse)


class _Rows(torch.autograd.Function):
    r"""A look-up with row-sparse gradients, and dense ones in a backward pass that is to be differentiated: it adds
    gradients out of place, and PyTorch adds no dense gradient to a sparse one.
    """
    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        ctx.size = table.shape
        return F.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        index, = ctx.saved_tensors
        if torch.is_grad_enabled():
            return torch.ops.aten.embedding_dense_backward(grad, index, ctx.size[0], -1, False), None
        return torch.sparse_coo_tensor(index.reshape(1, -1), grad.reshape(-1, ctx.size[1]), ctx.size,
                                       check_invariants=False), None

r"""Look-ups in a table that has a dense gradient already, from an operator in the same step.

A look-up in a table :math:`V \times d` of an embedding layer has a dense gradient, which takes three passes over
:math:`V \times d` numbers: to be cleared, and to be added to that of the operator. A row-sparse gradient is added to
the operator's row by row. The sum is dense, whatever the order.
"""
from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import Iterator, Optional

from torch import Tensor

_table: ContextVar[Optional[Tensor]] = ContextVar('pyg_emu_row_gradients', default=None)


@contextmanager
def row_gradients(table: Tensor) -> Iterator[None]:
    r"""Context manager in which look-ups in a table have row-sparse gradients. It is right only where something else has
    a dense gradient of the table in each backward pass through these look-ups.

    It has no effect on a GPU, where adding rows that occur more than once is not deterministic.

    Args:
        table (torch.Tensor): The table. shape: :obj:`(V, d)`.
    """
    token = _table.set(table if table.device.type == 'cpu' else None)
    try:
        yield
    finally:
        _table.reset(token)


def has_row_gradients(table: Tensor) -> bool:
    r"""Whether look-ups in this table have row-sparse gradients here."""
    return _table.get() is table

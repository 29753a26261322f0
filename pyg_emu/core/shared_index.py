r"""Entity ids that neighbouring rows of a batch share."""
from __future__ import annotations

from numbers import Integral
from typing import Any, NamedTuple, Union

import torch
from torch import Tensor

from pyg_emu.core.arguments import kind_of, positive_integer, shown
from pyg_emu.core.errors import ArgumentError


class SharedIndex(NamedTuple):
    r"""Ids of negatives that chunks of neighbouring rows share: the first :obj:`chunk_size` rows use the first set of
    ids, the next ones the second. The last chunk may be smaller.

    It stands for the ids :obj:`(B, N)` that :meth:`expand` returns, and :attr:`shape` is their shape. Where scores are
    dot products, :func:`~pyg_emu.ops.emu_score` reads each set once and computes matrix products.

    Args:
        index (torch.Tensor): The sets of ids, int64. shape: :obj:`(C, N)`.
        chunk_size (int): Rows of a chunk.
        size (int): :math:`B`, the number of rows.
        skipped (int, optional): Rows that are missing at the beginning of the first chunk, as they are in a part of a
            batch; smaller than :obj:`chunk_size`. (default: :obj:`0`)
    """
    index: Tensor  # type: ignore[assignment]  # shadows tuple.index
    chunk_size: int
    size: int
    skipped: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        r""":obj:`(B, N)`."""
        return self.size, self.index.size(1)

    def expand(self) -> Tensor:
        r"""The ids of each row. shape: :obj:`(B, N)`."""
        return self.per_row(self.index)

    def per_row(self, values: Tensor) -> Tensor:
        r"""Repeats what belongs to each set for the rows that use it.

        Args:
            values (torch.Tensor): shape: :obj:`(C, ...)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(B, ...)`.
        """
        row = torch.arange(self.skipped, self.skipped + self.size, device=values.device)
        return values.index_select(0, torch.div(row, self.chunk_size, rounding_mode='floor'))

    def rows(self, rows: slice) -> SharedIndex:
        r"""The ids of some neighbouring rows.

        Args:
            rows (slice): The rows, with step 1.
        """
        start, stop, _ = rows.indices(self.size)
        if start >= stop:
            return SharedIndex(self.index[:0], self.chunk_size, 0)
        first, skipped = divmod(self.skipped + start, self.chunk_size)
        last = (self.skipped + stop - 1) // self.chunk_size
        return SharedIndex(self.index[first:last + 1], self.chunk_size, stop - start, skipped)

    def check(self, name: str) -> None:
        r"""Checks that the fields fit one another.

        Args:
            name (str): The name of the argument, for the message.

        Raises:
            ArgumentError: If they do not. The message names the field.
        """
        index: Any = self.index
        if not isinstance(index, Tensor) or index.dim() != 2 or index.dtype != torch.int64:
            found = kind_of(index) if isinstance(index, Tensor) else shown(index)
            raise ArgumentError(f'{name}.index: expected int64 entity ids of shape (C, N), got {found}')
        positive_integer(f'{name}.chunk_size', self.chunk_size)
        for field, value, limit in (('size', self.size, 2**63), ('skipped', self.skipped, self.chunk_size)):
            if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= value < limit:
                raise ArgumentError(f'{name}.{field}: expected an integer in [0, {limit}), got {shown(value)}')
        expected = -(-(self.skipped + self.size) // self.chunk_size) if self.size > 0 else 0
        if index.size(0) != expected:
            raise ArgumentError(f'{name}.index: expected {expected} sets of ids for size={self.size} rows, '
                                f'chunk_size={self.chunk_size} and skipped={self.skipped}, got {index.size(0)}')


def expanded(index: Union[Tensor, SharedIndex]) -> Tensor:
    r"""Ids as a tensor, each row with its own.

    Args:
        index (torch.Tensor or SharedIndex): The ids.

    :rtype: :class:`torch.Tensor` of shape :obj:`(B, N)`.
    """
    return index.expand() if isinstance(index, SharedIndex) else index


# So that `torch.load(..., weights_only=True)` reads what `torch.save` wrote of a batch.
torch.serialization.add_safe_globals([SharedIndex])

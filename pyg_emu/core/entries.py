r"""Entries of a vector by an index of any shape."""
from __future__ import annotations

from torch import Tensor


def entries(values: Tensor, index: Tensor) -> Tensor:
    r"""Returns :obj:`values[index]` by :meth:`torch.Tensor.index_select`, which is several times as fast on the CPU.

    Args:
        values (torch.Tensor): The vector. shape: :obj:`(M,)`.
        index (torch.Tensor): Places from 0 to :math:`M - 1`. shape: any, int64.

    :rtype: :class:`torch.Tensor` of the shape of :obj:`index`.
    """
    return values.index_select(0, index.reshape(-1)).view(index.shape)

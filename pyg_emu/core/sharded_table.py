r"""An entity table whose rows are divided among processes, and what its processes exchange.

Rows are divided as by :class:`torch.distributed.tensor.Shard` of dimension 0: process :math:`w` of :math:`W` holds the
rows from :math:`w \lceil V / W \rceil` on. Each process holds its own rows as an ordinary parameter, so that every
optimiser updates them in place, row-sparse gradients included, and its state is divided in the same way. State
dictionaries show the rows as a :class:`~torch.distributed.tensor.DTensor` of the whole table, which
:mod:`torch.distributed.checkpoint` writes and reads for any number of processes. (Optimisers of PyTorch take neither
row-sparse gradients of a DTensor nor a mixture of tensors and DTensors.)

All processes draw the same batch from the same random stream and compute the same loss:

* Rows of known entities and of positives travel, :math:`B \times d`: :meth:`ShardedTable.lookup` adds up the rows of
  their owners.
* Queries, positives and masks are the same everywhere. Each process scores the negatives among its own rows, and scores
  travel, :math:`B \times N / W` from each process: :meth:`ShardedTable.gather`. No row of a negative travels.
* Losses against all entities exchange the largest score and three sums for each triple: :meth:`ShardedTable.sum`.
* In the backward pass, each process already has the gradients of its own scores. Those of queries and positives,
  :math:`B \times d`, are added up: :meth:`ShardedTable.shared`. Gradients of rows do not travel.

Gradients of replicated parameters, such as relations, are therefore equal in all processes without a further exchange.
"""
from __future__ import annotations

from typing import Any, Iterator, Optional, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.derivatives import first_order
from pyg_emu.core.errors import ArgumentError

# Random numbers that are drawn at a time for rows of which a process keeps its own.
_BLOCK = 2**22


class ShardedTable:
    r"""A table :obj:`(V, d)` of which this process holds some rows. It has the shape, type and device of the whole
    table, and the operators of :mod:`pyg_emu.ops` take it as their :obj:`table`.

    Args:
        rows (torch.Tensor): The rows of this process. shape: :obj:`(V_w, d)`.
        bounds (sequence of int): The first row of each process, and :math:`V`.
        sparse (bool, optional): Whether gradients of looked-up rows are row-sparse. (default: :obj:`False`)
    """
    def __init__(self, rows: Tensor, bounds: Sequence[int], sparse: bool = False) -> None:
        self.rows = rows
        self.bounds = tuple(bounds)
        self.sparse = sparse
        self.rank, self.world = dist.get_rank(), len(bounds) - 1
        self.num_rows = self.bounds[-1]
        #: The first row of this process.
        self.start = self.bounds[self.rank]

    # The whole table, as far as it can be described #########################

    @property
    def shape(self) -> torch.Size:
        r"""The shape :obj:`(V, d)` of the whole table."""
        return torch.Size((self.num_rows, self.rows.size(1)))

    @property
    def dtype(self) -> torch.dtype:
        r"""The type of the rows."""
        return self.rows.dtype

    @property
    def device(self) -> torch.device:
        r"""The device of this process's rows."""
        return self.rows.device

    @property
    def requires_grad(self) -> bool:
        r"""Whether the rows are trained."""
        return self.rows.requires_grad

    def size(self, dim: Optional[int] = None) -> Any:
        r"""The size of the whole table, as :meth:`torch.Tensor.size`."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        r"""The number of dimensions, 2."""
        return 2

    def is_floating_point(self) -> bool:
        r"""Whether the rows are floating-point numbers."""
        return self.rows.is_floating_point()

    def element_size(self) -> int:
        r"""Bytes of a component."""
        return self.rows.element_size()

    def __getitem__(self, index: Tensor) -> Tensor:
        return self.lookup(index)

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        raise ArgumentError(f'entity table: its {self.__dict__.get("num_rows")} rows are divided among '
                            f'{self.__dict__.get("world")} processes, and {name!r} needs all of them in one; look rows '
                            'up with candidates(index), score with the operators of pyg_emu.ops, or train without '
                            'sharding')

    def __repr__(self) -> str:
        return f'ShardedTable({self.num_rows} rows, {self.rows.size(0)} from {self.start} on in process {self.rank})'

    @property
    def most_rows(self) -> int:
        r"""The largest number of rows of a process."""
        return max(stop - start for start, stop in zip(self.bounds, self.bounds[1:]))

    def index_select(self, dim: int, index: Tensor) -> ShardedTable:
        r"""A table of some rows, which remain in their processes.

        Args:
            dim (int): 0.
            index (torch.Tensor): The rows, ascending. shape: :obj:`(C,)`.
        """
        bounds = torch.searchsorted(index, index.new_tensor(self.bounds)).tolist()
        own = index[bounds[self.rank]:bounds[self.rank + 1]] - self.start
        return ShardedTable(self.rows.index_select(dim, own), bounds, self.sparse)

    # What processes exchange ################################################

    def owner(self, index: Tensor) -> Tensor:
        r"""The process of each row."""
        return torch.bucketize(index, index.new_tensor(self.bounds[1:]), right=True)

    def owns(self, index: Tensor) -> Tensor:
        r"""Whether each row belongs to this process. dtype: bool."""
        return (index >= self.start) & (index < self.start + self.rows.size(0))

    def lookup(self, index: Tensor) -> Tensor:
        r"""Returns rows of any process, in every process. All have to ask for the same ones.

        Args:
            index (torch.Tensor): The rows, int64. shape: :obj:`(...)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(..., d)`.
        """
        flat = index.reshape(-1)
        own = self.owns(flat).nonzero().squeeze(1)
        # Only rows of this process receive a gradient, even a zero: row optimisers count a row as touched otherwise.
        rows = F.embedding(flat[own] - self.start, self.rows, sparse=self.sparse)
        found = rows.new_zeros(flat.numel(), rows.size(1)).index_copy(0, own, rows)
        return self.sum(found).view(*index.shape, rows.size(1))

    def sum(self, value: Tensor) -> Tensor:
        r"""The sum of what each process has, in every process. The gradient of each summand is that of the sum."""
        total: Tensor = _Sum.apply(value)
        return total

    def largest(self, value: Tensor) -> Tensor:
        r"""The element-wise maximum over the processes, without a gradient."""
        value = value.detach().clone()
        dist.all_reduce(value, dist.ReduceOp.MAX)
        return value

    def shared(self, *values: Tensor) -> tuple[Tensor, ...]:
        r"""The same values, which each process uses for another part of a result: their gradients are added up over
        the processes, all in one exchange.
        """
        trained = [value for value in values if value.requires_grad]
        if not trained or not torch.is_grad_enabled():
            return values
        shared = iter(_Shared.apply(*trained))
        return tuple(next(shared) if value.requires_grad else value for value in values)

    def gather(self, values: Tensor, counts: Sequence[int]) -> Tensor:
        r"""Joins what each process has, in the order of the processes.

        Args:
            values (torch.Tensor): The columns of this process. shape: :obj:`(K, counts[rank])`.
            counts (sequence of int): The number of columns of each process.

        :rtype: :class:`torch.Tensor` of shape :obj:`(K, sum(counts))`.
        """
        joined: Tensor = _Gather.apply(values, tuple(counts), self.rank)
        return joined

    def join(self, value: Tensor) -> Tensor:
        r"""The columns of all processes, in their order, without a gradient.

        Args:
            value (torch.Tensor): As many columns in each process. shape: :obj:`(Q, k)`.

        :rtype: :class:`torch.Tensor` of shape :obj:`(Q, W k)`.
        """
        parts = [torch.empty_like(value) for _ in range(self.world)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts, dim=1)

    # Values #################################################################

    def uniform_(self, low: float = 0.0, high: float = 1.0, *,
                 generator: Optional[torch.Generator] = None) -> ShardedTable:
        r"""Fills the table as :meth:`torch.Tensor.uniform_` would fill the whole one: each process draws the numbers
        of all rows, some at a time, and keeps those of its own.
        """
        stop = self.start + self.rows.size(0)
        for start, block in self._blocks():
            block.uniform_(low, high, generator=generator)
            first, last = max(start, self.start), min(start + block.size(0), stop)
            if first < last:
                with torch.no_grad():
                    self.rows[first - self.start:last - self.start] = block[first - start:last - start]
        return self

    def _blocks(self) -> Iterator[tuple[int, Tensor]]:
        size = max(1, _BLOCK // self.rows.size(1))
        for start in range(0, self.num_rows, size):
            yield start, self.rows.new_empty(min(size, self.num_rows - start), self.rows.size(1))

    def whole_like(self, own: Tensor) -> Any:
        r"""Returns rows that are divided like those of the table, such as a moment of an optimiser, as a
        :class:`~torch.distributed.tensor.DTensor`. Memory is shared.

        Args:
            own (torch.Tensor): The rows of this process. shape: :obj:`(V_w, ...)`.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.tensor import DTensor, Shard

        own = own.detach()
        mesh = init_device_mesh(own.device.type, (self.world, ))
        shape = torch.Size((self.num_rows, *own.shape[1:]))
        strides = torch.empty(shape, device='meta').stride()
        return DTensor.from_local(own, mesh, [Shard(0)], run_check=False, shape=shape, stride=strides)

    def own_part(self, whole: Any) -> Tensor:
        r"""The rows of this process.

        Args:
            whole (torch.Tensor): All rows, a tensor or a :class:`~torch.distributed.tensor.DTensor` made by
                :meth:`whole_like`. shape: :obj:`(V, ...)`.
        """
        if hasattr(whole, 'to_local'):
            local: Tensor = whole.to_local()
            return local
        own: Tensor = whole[self.start:self.start + self.rows.size(0)]
        return own


def rows_of(table: Any) -> Any:
    r"""The rows of a table that this process holds: all rows of a tensor."""
    return table.rows if isinstance(table, ShardedTable) else table


def even_bounds(num_rows: int, world: int) -> list[int]:
    r"""The first row of each process, and the number of rows, where rows are divided as evenly as possible."""
    chunk = -(-num_rows // world)
    return [min(process * chunk, num_rows) for process in range(world + 1)]


#: What processes exchange in a backward pass, they would have to exchange again in its own.
_first_order = first_order('a table whose rows are divided among processes', 'differentiate twice in one process')


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class _Shared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(value.view_as(value) for value in values)

    @staticmethod
    @_first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        total = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(total)
        parts = total.split([grad.numel() for grad in grads])
        return tuple(part.view_as(grad).to(grad.dtype) for part, grad in zip(parts, grads))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, counts: tuple[int, ...], rank: int) -> Tensor:
        ctx.start, ctx.count = sum(counts[:rank]), counts[rank]
        size = max(counts)
        padded = values.new_zeros(values.size(0), size)
        padded[:, :values.size(1)] = values
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        return torch.cat([part[:, :count] for part, count in zip(parts, counts)], dim=1)

    @staticmethod
    @_first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad[:, ctx.start:ctx.start + ctx.count], None, None

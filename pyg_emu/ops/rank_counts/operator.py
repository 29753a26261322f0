r"""The operator for filtered ranking: the number of entities that score higher than the target of a query, and the
number that score exactly the same.
"""
from __future__ import annotations

from typing import Any, Iterator, NamedTuple, Optional, Union, cast

import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below, kind_of, on_device, positive_integer, tensors
from pyg_emu.core.errors import ArgumentError, DivergenceError
from pyg_emu.core.interaction import Interaction, check_interaction
from pyg_emu.core.mapped_table import read_in_order
from pyg_emu.core.sharded_table import ShardedTable, rows_of
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import promoted, uncompiled
from pyg_emu.ops.rank_counts import blocks
from pyg_emu.ops.rank_counts.blocks import BLOCK_BYTES

# Larger blocks are not faster, because their scores leave the cache before they are counted.
_MAX_BLOCK = 1024
# Fewer queries take less time to score against a large table than the table takes to read.
_MIN_BLOCK_IN_PARTS = 256


class RankCounts(NamedTuple):
    r"""The result of :func:`rank_counts`. All shapes: :obj:`(B,)`, int64.

    Args:
        greater (torch.Tensor): The number of competitors that score higher than the target.
        equal (torch.Tensor): The number of competitors that score exactly the same as the target.
        candidates (torch.Tensor): The number of competitors: all entities except the target and the filtered ones.
    """
    greater: Tensor
    equal: Tensor
    candidates: Tensor


class NaNScoreError(DivergenceError):
    r"""The scores of a query contain NaN, so its targets cannot be ranked.

    Args:
        query (int): The row of the query.
    """
    def __init__(self, query: int) -> None:
        super().__init__(f'query: expected scores without NaN, but the scores of row {query} contain NaN; check the '
                         'embeddings for NaN or infinite values')
        #: The row of the query.
        self.query = query


@uncompiled
def rank_counts(
    query: Tensor,
    table: Union[Tensor, ShardedTable],
    target: Tensor,
    filter_ptr: Optional[Tensor] = None,
    filter_index: Optional[Tensor] = None,
    *,
    interaction: Interaction,
    row: Optional[Tensor] = None,
    block_size: Optional[int] = None,
    backend: Optional[str] = None,
) -> RankCounts:
    r"""Counts the competitors that score higher than each target, and those that score the same:

    .. math::
        \#\{x \notin \mathcal{F}_b \cup \{t_b\} : \phi(\mathbf{q}_b, \mathbf{x}) > \phi(\mathbf{q}_b, \mathbf{t}_b)\}.

    Queries are scored in blocks. On the CPU (:obj:`"numba"`), all scores result from the same sequence of
    floating-point operations, for every entity and block. Entities with identical rows therefore tie exactly, even for
    dot products, which a matrix product of BLAS does not guarantee because adjacent columns may use different code
    paths. A large table is scored in parts there. In PyTorch, the scores of targets and filtered entities are read from
    the same block as all others. No :obj:`(B, V, d)` tensor is created. Interactions that the fused backend does not
    support are computed in PyTorch, in blocks of entities of bounded size. If :obj:`query` and :obj:`table` have
    different floating-point types, as under :class:`torch.autocast`, they are promoted to a common type.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(Q, interaction.query_width(d))`.
        table (torch.Tensor or ShardedTable): All candidates. shape: :obj:`(V, d)`. Processes among which the rows are
            divided count among their own, and exchange the scores of targets and the counts.
        target (torch.Tensor): The entities to rank, int64. shape: :obj:`(B,)`, where :obj:`B` equals :obj:`Q` unless
            :obj:`row` is given.
        filter_ptr (torch.Tensor, optional): The position of the first filtered id of each query, see
            :class:`~pyg_emu.data.index.Ragged`. shape: :obj:`(Q + 1,)`, int64. (default: :obj:`None`, no filter)
        filter_index (torch.Tensor, optional): The filtered entities, int64, in any order. They may include the target.
            shape: :obj:`(filter_ptr[-1],)`.
        interaction (Interaction): The interaction :math:`\phi`.
        row (torch.Tensor, optional): The query of each target in ascending order, so that a query with several answers
            is scored once. shape: :obj:`(B,)`, int64. (default: :obj:`None`, one target per query)
        block_size (int, optional): The number of queries scored at a time. It does not change the result.
            (default: :obj:`None`, see :func:`ranking_block_size`)
        backend (str, optional): :obj:`"torch"` or :obj:`"numba"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype or device, or is out of range.
        BackendError: If the requested backend is not available.
        NaNScoreError: If a score is NaN. It is a :class:`~pyg_emu.core.errors.DivergenceError` that names the query.
    """
    tensors(query=query, table=rows_of(table), target=target, optional=('row', 'filter_ptr', 'filter_index'),
            row=row, filter_ptr=filter_ptr, filter_index=filter_index)
    if block_size is not None:
        positive_integer('block_size', block_size)
    query, rows = _checked_operands(query, table, interaction)
    num_queries = query.size(0)
    row = _check_targets(target, row, num_queries, table.size(0), table.device)
    ptr, index = _check_filter(filter_ptr, filter_index, num_queries, table.size(0), table.device)
    if block_size is None:
        block_size = ranking_block_size(table.size(0), rows, interaction, backend)
    module = load_backend('rank_counts', rows, backend, interaction=interaction)

    found = []
    with torch.no_grad(), read_in_order(rows):
        starts = torch.arange(0, num_queries, block_size, device=row.device)
        first = torch.searchsorted(row, torch.cat([starts, starts.new_tensor([num_queries])])).tolist()
        for number, start in enumerate(range(0, num_queries, block_size)):
            end = min(start + block_size, num_queries)
            low, high = int(ptr[start]), int(ptr[end])
            own = slice(first[number], first[number + 1])
            counts = blocks.count(module, table, rows.detach(), query[start:end].detach(), row[own] - start,
                                  target[own], ptr[start:end + 1] - low, index[low:high], interaction)
            found.append(_checked(counts, row[own]))
    if not found:
        return RankCounts(*(target.new_empty(0) for _ in RankCounts._fields))
    return RankCounts(*(torch.cat(parts) for parts in zip(*found)))


@uncompiled
def rank_from_scores(
    scores: Tensor,
    target: Tensor,
    filter_ptr: Optional[Tensor] = None,
    filter_index: Optional[Tensor] = None,
    *,
    row: Optional[Tensor] = None,
    backend: Optional[str] = None,
) -> RankCounts:
    r"""As :func:`rank_counts`, for models that compute the scores of all entities themselves.

    Args:
        scores (torch.Tensor): The scores of all entities, which are not modified. shape: :obj:`(Q, V)`.
        target (torch.Tensor): As in :func:`rank_counts`. shape: :obj:`(B,)`.
        filter_ptr (torch.Tensor, optional): As in :func:`rank_counts`. shape: :obj:`(Q + 1,)`.
        filter_index (torch.Tensor, optional): As in :func:`rank_counts`.
        row (torch.Tensor, optional): As in :func:`rank_counts`. shape: :obj:`(B,)`.
        backend (str, optional): As in :func:`rank_counts`.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype or device, or is out of range.
        BackendError: If the requested backend is not available.
        NaNScoreError: If a score is NaN.
    """
    tensors(scores=scores, target=target, optional=('row', 'filter_ptr', 'filter_index'),
            row=row, filter_ptr=filter_ptr, filter_index=filter_index)
    if scores.dim() != 2 or not scores.is_floating_point():
        raise ArgumentError(f'scores: expected floating-point numbers of shape (Q, V), got {kind_of(scores)}')
    num_queries, num_nodes = scores.shape
    row = _check_targets(target, row, num_queries, num_nodes, scores.device)
    ptr, index = _check_filter(filter_ptr, filter_index, num_queries, num_nodes, scores.device)
    module = load_backend('rank_counts', scores, backend, interaction=None)
    with torch.no_grad():
        scores = scores.detach()
        return _checked(module.count(scores, row, target, scores[row, target], ptr, index), row)


@uncompiled
def score_entities(query: Tensor, table: Tensor, *, interaction: Interaction, backend: Optional[str] = None) -> Tensor:
    r"""Computes the scores :math:`\phi` of all entities in the same way as :func:`rank_counts`, without gradients and
    without a :obj:`(Q, V, d)` tensor.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(Q, interaction.query_width(d))`.
        table (torch.Tensor): All candidates. shape: :obj:`(V, d)`.
        interaction (Interaction): The interaction :math:`\phi`.
        backend (str, optional): As in :func:`rank_counts`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(Q, V)`.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype or device.
        BackendError: If the requested backend is not available.
    """
    tensors(query=query, table=table)
    query, table = _checked_operands(query, table, interaction)
    with torch.no_grad(), read_in_order(table):
        module = load_backend('rank_counts', table, backend, interaction=interaction)
        return cast(Tensor, module.score_block(query.detach(), table.detach(), interaction))


def score_parts(query: Tensor, table: Tensor, *, interaction: Interaction, backend: Optional[str] = None
                ) -> Iterator[Tensor]:
    r"""Yields the scores of :func:`score_entities` part by part: those of consecutive entities, as many at a time as
    :func:`rank_counts` scores.

    Args:
        query (torch.Tensor): As in :func:`score_entities`.
        table (torch.Tensor): As there.
        interaction (Interaction): As there.
        backend (str, optional): As there.

    :rtype: An iterator over :class:`torch.Tensor` of shape :obj:`(Q, V_i)`.
    """
    tensors(query=query, table=table)
    query, table = (operand.detach() for operand in _checked_operands(query, table, interaction))
    module = load_backend('rank_counts', table, backend, interaction=interaction)
    with read_in_order(table):
        for part in blocks.parts_of(module, table, query.size(0)):
            yield module.score_block(query, part, interaction)


def default_block_size(num_nodes: int, element_size: int, limit: int = BLOCK_BYTES) -> int:
    r"""Returns the number of queries whose scores of all entities fit into a number of bytes, between 1 and 1024.

    Args:
        num_nodes (int): The number of entities.
        element_size (int): The size of a score in bytes.
        limit (int, optional): The number of bytes. (default: 64 MiB)
    """
    return max(1, min(_MAX_BLOCK, limit // max(1, num_nodes * element_size)))


def ranking_block_size(num_nodes: int, table: Tensor, interaction: Interaction, backend: Optional[str] = None) -> int:
    r"""Returns the number of queries that :func:`rank_counts` scores at a time: those whose scores fit into the block
    size of the backend, and at least 256 where a large table is scored in parts.

    Args:
        num_nodes (int): The number of entities, of the process that has the most of them.
        table (torch.Tensor): Rows of entities.
        interaction (Interaction): The interaction :math:`\phi`.
        backend (str, optional): As in :func:`rank_counts`. (default: :obj:`None`, by device)
    """
    module = load_backend('rank_counts', table, backend, interaction=interaction)
    size = default_block_size(num_nodes, table.element_size(), module.BLOCK_BYTES)
    return max(size, _MIN_BLOCK_IN_PARTS) if module.EXACT else size


def _checked(counts: tuple[Tensor, ...], row: Tensor) -> RankCounts:
    r"""Raises an error if a score of the queries :obj:`row` is NaN."""
    greater, equal, candidates, invalid = counts
    if bool(invalid.any()):
        raise NaNScoreError(int(row[invalid.nonzero()[0, 0]]))
    return RankCounts(greater, equal, candidates)


def _checked_operands(query: Tensor, table: Any, interaction: Interaction) -> tuple[Tensor, ...]:
    r"""Returns queries and rows of this process in a common floating-point type."""
    if table.dim() != 2 or not table.is_floating_point() or table.size(0) == 0:
        raise ArgumentError(f'table: expected floating-point numbers of shape (V, d) with V > 0, got {kind_of(table)}')
    check_interaction(interaction, table)
    width = interaction.query_width(table.size(1))
    if query.dim() != 2 or query.size(1) != width or not query.is_floating_point():
        raise ArgumentError(f"query: expected floating-point numbers of shape (Q, {width}) for a table of shape "
                            f"{tuple(table.shape)} and interaction '{interaction.name}', got {kind_of(query)}")
    on_device('query', query, table.device, 'table')
    return promoted(query, rows_of(table))


def _check_targets(target: Tensor, row: Optional[Tensor], num_queries: int, num_nodes: int,
                   device: torch.device) -> Tensor:
    _check_ids('target', target, num_nodes, device)
    if row is None:
        if target.size(0) != num_queries:
            raise ArgumentError(f'target: expected one entity per query, {num_queries}, got {target.size(0)}')
        return torch.arange(num_queries, device=device)
    _check_ids('row', row, num_queries, device)
    if row.size(0) != target.size(0):
        raise ArgumentError(f'row: expected one query per target, {target.size(0)}, got {row.size(0)}')
    if bool((row[1:] < row[:-1]).any()):
        raise ArgumentError('row: expected queries in ascending order; sort targets and rows by query')
    return row


def _check_filter(ptr: Optional[Tensor], index: Optional[Tensor], num_queries: int, num_nodes: int,
                  device: torch.device) -> tuple[Tensor, Tensor]:
    r"""Returns the filter with the ids of each row in ascending order and without duplicates."""
    if ptr is None and index is None:
        ptr = torch.zeros(num_queries + 1, dtype=torch.int64, device=device)
        return ptr, ptr[:0]
    if ptr is None or index is None:
        raise ArgumentError('filter_ptr, filter_index: expected both or neither, got one of them')
    _check_ids('filter_index', index, num_nodes, device)
    if tuple(ptr.shape) != (num_queries + 1,) or ptr.dtype != torch.int64:
        raise ArgumentError(f'filter_ptr: expected torch.int64 of shape {(num_queries + 1,)}, got {kind_of(ptr)}')
    on_device('filter_ptr', ptr, device)
    count = ptr[1:] - ptr[:-1]
    if int(ptr[0]) != 0 or int(ptr[-1]) != index.numel() or bool((count < 0).any()):
        raise ArgumentError(f'filter_ptr: expected ascending positions from 0 to {index.numel()}, the number of '
                            'filtered ids')
    ascending = index[1:] > index[:-1]
    # The ids of different rows need not be in ascending order. An end of -1 belongs to leading empty rows.
    begins = ptr[1:-1] - 1
    ascending[begins[(begins >= 0) & (begins < ascending.numel())]] = True
    if bool(ascending.all()):
        return ptr, index
    # Duplicate ids would be subtracted twice.
    key = torch.unique(torch.repeat_interleave(count) * num_nodes + index)
    row = torch.div(key, num_nodes, rounding_mode='floor')
    return torch.searchsorted(row, torch.arange(num_queries + 1, device=device)), key - row * num_nodes


def _check_ids(name: str, ids: Tensor, limit: int, device: torch.device) -> None:
    if ids.dim() != 1 or ids.dtype != torch.int64:
        raise ArgumentError(f'{name}: expected torch.int64 of one dimension, got {kind_of(ids)}')
    on_device(name, ids, device)
    ids_below(name, ids, limit, wait=True)

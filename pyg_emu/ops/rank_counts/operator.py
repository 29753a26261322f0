r"""How many entities score above, and how many exactly as high as, the entity that a query asks for: the operator
behind filtered ranking.
"""
from __future__ import annotations

from types import ModuleType
from typing import NamedTuple, Optional, cast

import torch
from torch import Tensor

from pyg_emu.core.arguments import ids_below, kind_of, on_device, positive_integer, tensors
from pyg_emu.core.errors import ArgumentError, DivergenceError
from pyg_emu.core.interaction import Interaction, check_interaction
from pyg_emu.ops.backend import load_backend
from pyg_emu.ops.interop import promoted, uncompiled

#: Bytes that the scores of one block of queries may take where nobody says how large a block is to be.
BLOCK_BYTES = 64 * 2**20
# Larger blocks do not run faster, they only push the scores out of the cache before they are counted.
_MAX_BLOCK = 1024


class RankCounts(NamedTuple):
    r"""What :func:`rank_counts` returns. All shapes: :obj:`(B,)`, int64.

    Args:
        greater (torch.Tensor): Number of competitors that score higher than the target.
        equal (torch.Tensor): Number of competitors that score exactly as high.
        candidates (torch.Tensor): Number of competitors: all entities but the target itself and the filtered ones.
    """
    greater: Tensor
    equal: Tensor
    candidates: Tensor


class NaNScoreError(DivergenceError):
    r"""A query whose scores hold NaN, so that nothing can be ranked.

    Args:
        query (int): The row of the query.
    """
    def __init__(self, query: int) -> None:
        super().__init__(f'query: the scores of row {query} hold NaN, which cannot be ranked; look for NaN or infinite '
                         f'values in the embeddings')
        #: The row of the query.
        self.query = query


@uncompiled
def rank_counts(
    query: Tensor,
    table: Tensor,
    target: Tensor,
    filter_ptr: Optional[Tensor] = None,
    filter_index: Optional[Tensor] = None,
    *,
    interaction: Interaction,
    row: Optional[Tensor] = None,
    block_size: Optional[int] = None,
    backend: Optional[str] = None,
) -> RankCounts:
    r"""Counts the competitors that beat, and those that tie with, each target:

    .. math::
        \#\{x \notin \mathcal{F}_b \cup \{t_b\} : \phi(\mathbf{q}_b, \mathbf{x}) > \phi(\mathbf{q}_b, \mathbf{t}_b)\}.

    Queries are scored in blocks against the whole table, and the scores of the targets and of the filtered entities are
    read from the same block as all others. On the CPU (:obj:`"numba"`) a score is one sequence of floating-point
    operations whatever the entity and whatever the block, so entities with identical rows tie exactly, for dot products
    too, which no matrix product of BLAS promises (neighbouring columns may take different code paths). No
    :obj:`(B, V, d)` tensor exists. An interaction that the fused backend does not know is computed in PyTorch, in
    blocks of entities of bounded size. Where :obj:`query` and :obj:`table` differ in their floating-point type, as
    under :class:`torch.autocast`, they are promoted to a common one.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(Q, interaction.query_width(d))`.
        table (torch.Tensor): All candidates. shape: :obj:`(V, d)`.
        target (torch.Tensor): The entity to be ranked, int64. shape: :obj:`(B,)`, :obj:`B` being :obj:`Q` unless
            :obj:`row` is given.
        filter_ptr (torch.Tensor, optional): Where each query's filtered ids begin, see
        :class:`~pyg_emu.data.index.Ragged`.
            (default: :obj:`None`, nothing is filtered) shape: :obj:`(Q + 1,)`, int64.
        filter_index (torch.Tensor, optional): The entities that do not compete, int64, in any order; the target may be
            among them. shape: :obj:`(filter_ptr[-1],)`.
        interaction (Interaction): :math:`\phi`.
        row (torch.Tensor, optional): The query of each target, ascending, so that queries with several answers are
            scored once. (default: :obj:`None`, one target per query) shape: :obj:`(B,)`, int64.
        block_size (int, optional): Queries that are scored at a time. It does not change the result.
            (default: :obj:`None`, as many as fit into 64 MiB, at most 1024)
        backend (str, optional): :obj:`"torch"` or :obj:`"numba"`. (default: :obj:`None`, see
            :mod:`pyg_emu.ops.backend`)

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range.
        BackendError: If the backend asked for cannot run here.
        NaNScoreError: If a score is NaN; a :class:`~pyg_emu.core.errors.DivergenceError` that names the query.
    """
    tensors(query=query, table=table, target=target, optional=('row', 'filter_ptr', 'filter_index'),
            row=row, filter_ptr=filter_ptr, filter_index=filter_index)
    if block_size is not None:
        positive_integer('block_size', block_size)
    query, table = _checked_operands(query, table, interaction)
    num_queries = query.size(0)
    row = _check_targets(target, row, num_queries, table.size(0), table.device)
    ptr, index = _check_filter(filter_ptr, filter_index, num_queries, table.size(0), table.device)
    if block_size is None:
        block_size = default_block_size(table.size(0), table.element_size())
    elif block_size < 1:
        raise ArgumentError(f'block_size: expected at least one query, got {block_size}')
    module = load_backend('rank_counts', table, backend, interaction=interaction)

    blocks = []
    with torch.no_grad():
        starts = torch.arange(0, num_queries, block_size, device=row.device)
        first = torch.searchsorted(row, torch.cat([starts, starts.new_tensor([num_queries])])).tolist()
        for number, start in enumerate(range(0, num_queries, block_size)):
            end = min(start + block_size, num_queries)
            low, high = int(ptr[start]), int(ptr[end])
            scores = module.score_block(query[start:end].detach(), table.detach(), interaction)
            own = slice(first[number], first[number + 1])
            answers = ptr[start:end + 1] - low, index[low:high]
            blocks.append(_count(module, scores, row[own] - start, target[own], *answers, start))
    if not blocks:
        return RankCounts(*(target.new_empty(0) for _ in RankCounts._fields))
    return RankCounts(*(torch.cat(parts) for parts in zip(*blocks)))


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
    r"""As :func:`rank_counts`, for models that score every entity themselves.

    Args:
        scores (torch.Tensor): The scores of all entities; read only. shape: :obj:`(Q, V)`.
        target (torch.Tensor): As in :func:`rank_counts`. shape: :obj:`(B,)`.
        filter_ptr (torch.Tensor, optional): As in :func:`rank_counts`. shape: :obj:`(Q + 1,)`.
        filter_index (torch.Tensor, optional): As in :func:`rank_counts`.
        row (torch.Tensor, optional): As in :func:`rank_counts`. shape: :obj:`(B,)`.
        backend (str, optional): As in :func:`rank_counts`.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype, device or range.
        BackendError: If the backend asked for cannot run here.
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
        return _count(module, scores.detach(), row, target, ptr, index, 0)


@uncompiled
def score_entities(query: Tensor, table: Tensor, *, interaction: Interaction, backend: Optional[str] = None) -> Tensor:
    r"""Scores :math:`\phi` of all entities as :func:`rank_counts` sees them, without gradients and without a
    :obj:`(Q, V, d)` tensor.

    Args:
        query (torch.Tensor): The queries. shape: :obj:`(Q, interaction.query_width(d))`.
        table (torch.Tensor): All candidates. shape: :obj:`(V, d)`.
        interaction (Interaction): :math:`\phi`.
        backend (str, optional): As in :func:`rank_counts`.

    :rtype: :class:`torch.Tensor` of shape :obj:`(Q, V)`.

    Raises:
        ArgumentError: If an argument has the wrong shape, dtype or device.
        BackendError: If the backend asked for cannot run here.
    """
    tensors(query=query, table=table)
    query, table = _checked_operands(query, table, interaction)
    with torch.no_grad():
        module = load_backend('rank_counts', table, backend, interaction=interaction)
        return cast(Tensor, module.score_block(query.detach(), table.detach(), interaction))


def default_block_size(num_nodes: int, element_size: int) -> int:
    r"""The number of queries whose scores of all entities fit into :obj:`BLOCK_BYTES`, at least one and at most 1024.

    Args:
        num_nodes (int): Number of entities.
        element_size (int): Bytes of a score.
    """
    return max(1, min(_MAX_BLOCK, BLOCK_BYTES // max(1, num_nodes * element_size)))


def _count(module: ModuleType, scores: Tensor, row: Tensor, target: Tensor, ptr: Tensor, index: Tensor,
           start: int) -> RankCounts:
    greater, equal, candidates, invalid = module.count(scores, row, target, ptr, index)
    if bool(invalid.any()):
        raise NaNScoreError(start + int(row[invalid.nonzero()[0, 0]]))
    return RankCounts(greater, equal, candidates)


def _checked_operands(query: Tensor, table: Tensor, interaction: Interaction) -> tuple[Tensor, ...]:
    r"""Both in one floating-point type."""
    if table.dim() != 2 or not table.is_floating_point() or table.size(0) == 0:
        raise ArgumentError(f'table: expected floating-point numbers of shape (V, d) with V > 0, got {kind_of(table)}')
    check_interaction(interaction, table)
    width = interaction.query_width(table.size(1))
    if query.dim() != 2 or query.size(1) != width or not query.is_floating_point():
        raise ArgumentError(f'query: expected floating-point numbers of shape (Q, {width}), to go with a table of '
                            f"shape {tuple(table.shape)} and interaction '{interaction.name}', got {kind_of(query)}")
    on_device('query', query, table.device, 'table')
    return promoted(query, table)


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
        raise ArgumentError('row: expected queries in ascending order')
    return row


def _check_filter(ptr: Optional[Tensor], index: Optional[Tensor], num_queries: int, num_nodes: int,
                  device: torch.device) -> tuple[Tensor, Tensor]:
    r"""The filter with the ids of each row ascending and without repetition."""
    if ptr is None and index is None:
        ptr = torch.zeros(num_queries + 1, dtype=torch.int64, device=device)
        return ptr, ptr[:0]
    if ptr is None or index is None:
        raise ArgumentError('filter_ptr, filter_index: give both or neither')
    _check_ids('filter_index', index, num_nodes, device)
    if tuple(ptr.shape) != (num_queries + 1,) or ptr.dtype != torch.int64:
        raise ArgumentError(f'filter_ptr: expected torch.int64 of shape {(num_queries + 1,)}, got {kind_of(ptr)}')
    on_device('filter_ptr', ptr, device)
    count = ptr[1:] - ptr[:-1]
    if int(ptr[0]) != 0 or int(ptr[-1]) != index.numel() or bool((count < 0).any()):
        raise ArgumentError(f'filter_ptr: expected to ascend from 0 to the number of filtered ids, {index.numel()}')
    ascending = index[1:] > index[:-1]
    # The first id of a row need not be above the last one of the row before; an end of -1 stands for empty rows in
    # front.
    begins = ptr[1:-1] - 1
    ascending[begins[(begins >= 0) & (begins < ascending.numel())]] = True
    if bool(ascending.all()):
        return ptr, index
    # An id that stands twice would be taken off twice.
    key = torch.unique(torch.repeat_interleave(count) * num_nodes + index)
    row = torch.div(key, num_nodes, rounding_mode='floor')
    return torch.searchsorted(row, torch.arange(num_queries + 1, device=device)), key - row * num_nodes


def _check_ids(name: str, ids: Tensor, limit: int, device: torch.device) -> None:
    if ids.dim() != 1 or ids.dtype != torch.int64:
        raise ArgumentError(f'{name}: expected torch.int64 of one dimension, got {kind_of(ids)}')
    on_device(name, ids, device)
    ids_below(name, ids, limit, wait=True)

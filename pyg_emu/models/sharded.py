r"""Models whose entity rows are divided among processes, see :mod:`pyg_emu.core.sharded_table`."""
from __future__ import annotations

from typing import Any, Iterator, Mapping, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.mapped_table import is_mapped
from pyg_emu.core.memory import memory_reported
from pyg_emu.core.sharded_table import ShardedTable, even_bounds
from pyg_emu.models.base import KGEScorer, materialise
from pyg_emu.models.reciprocal import Reciprocal

ModelT = TypeVar('ModelT', bound=torch.nn.Module)


class ShardedEmbedding(torch.nn.Module):
    r"""A table of embeddings of which each process holds some rows.

    Args:
        rows (torch.Tensor): The rows of this process. shape: :obj:`(V_w, d)`.
        num_rows (int): The number of rows of the whole table, :math:`V`.
        sparse (bool, optional): Whether gradients are row-sparse. (default: :obj:`False`)
        requires_grad (bool, optional): Whether the rows are trained. (default: :obj:`True`)
    """
    def __init__(self, rows: Tensor, num_rows: int, sparse: bool = False, requires_grad: bool = True) -> None:
        super().__init__()
        #: The rows of this process, an ordinary parameter. The state dictionary holds the whole table as `weight`.
        self.rows = torch.nn.Parameter(rows, requires_grad)
        self.num_embeddings = num_rows
        self.bounds = even_bounds(num_rows, current()[1])
        self.sparse = sparse

    @property
    def weight(self) -> Any:
        r"""The whole table, a :class:`~pyg_emu.core.sharded_table.ShardedTable`."""
        return ShardedTable(self.rows, self.bounds, self.sparse)

    def forward(self, index: Tensor) -> Tensor:
        r"""Returns rows, see :meth:`~pyg_emu.core.sharded_table.ShardedTable.lookup`."""
        found: Tensor = self.weight.lookup(index)
        return found

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f'{prefix}weight'] = self.weight.whole_like(self.rows)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: bool,
                              missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str]) -> None:
        key = f'{prefix}weight'
        if key not in state_dict:
            missing_keys.append(key)
        elif tuple(state_dict[key].shape) != tuple(self.weight.shape):
            error_msgs.append(f'size mismatch for {key}: the checkpoint has {tuple(state_dict[key].shape)}, the model '
                              f'{tuple(self.weight.shape)}')
        else:
            with torch.no_grad():
                self.rows.copy_(self.weight.own_part(state_dict[key]))

    def extra_repr(self) -> str:
        return f'{self.num_embeddings}, {self.rows.size(1)}, own_rows={self.rows.size(0)}'


def shard_entities(model: ModelT) -> ModelT:
    r"""Divides the entity rows of a model among the processes of a group, so that each holds about :math:`V / W` of
    them, with their gradients and the state of their optimiser. Relations are replicated.

    Losses, :class:`~pyg_emu.Trainer`, :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict` take the model like any
    other: they are called in all processes with the same arguments, and return what one process would return. Training
    takes the same steps as in one process, up to rounding.

    A model made on the device :obj:`"meta"` never exists as a whole; its rows are initialised here, with the numbers
    that a single process would draw:

    .. code-block:: python

        with process_group() as place:
            torch.manual_seed(0)
            with torch.device('meta'):
                model = DistMult(data.num_nodes, data.num_relations, 200, sparse=True)
            model = shard_entities(model).to(place.device)
            Trainer(model, EMULoss(), loader, RowAdagrad(model.parameters(), lr=0.1), num_steps=10_000).fit()

    Args:
        model (torch.nn.Module): One of :mod:`pyg_emu.models` with an entity table, such as
            :class:`~pyg_emu.DistMult`, a class of your own derived from :class:`~pyg_emu.models.KGEScorer`, or either
            in :class:`~pyg_emu.models.Reciprocal`. It is changed in place. A model with values is cut as it is, after
            the first process has sent its values to the others.

    Returns:
        torch.nn.Module: The same model. With one process, it is not divided.

    Raises:
        ArgumentError: If the model has no entity table that can be divided, or has fewer entities than there are
            processes.
    """
    holder: Any = model.model if isinstance(model, Reciprocal) else model
    if not isinstance(holder, KGEScorer) or not isinstance(holder.node_emb, (torch.nn.Embedding, ShardedEmbedding)):
        raise ArgumentError('model: expected one of pyg_emu.models with an entity table, such as DistMult, or a class '
                            f'derived from KGEScorer, to divide its rows among processes, got {shown(model)}')
    rank, world = current()
    if world > 1 and isinstance(holder.node_emb, torch.nn.Embedding) and is_mapped(holder.node_emb.weight):
        raise ArgumentError(f'model: its entity rows are in a memory-mapped file, which belongs to one process; '
                            f'expected a model without map_entities, to divide its rows among {world} processes')
    drawn = any(value.is_meta for value in model.parameters())
    if world > 1 and isinstance(holder.node_emb, torch.nn.Embedding):
        holder.node_emb = _sharded(holder.node_emb, rank, world)  # type: ignore[assignment]
    with memory_reported('the rows of this process', 'start more processes, or lower hidden_channels'):
        materialise(model)
    if drawn:
        model.reset_parameters()  # type: ignore[operator]
    elif world > 1:
        own = {id(table.rows) for table in sharded_tables(model)}
        for value in model.parameters():
            if id(value) not in own:
                dist.broadcast(value.detach(), src=0)
    return model


def sharded_tables(model: torch.nn.Module) -> Iterator[ShardedTable]:
    r"""The tables of a model whose rows are divided among processes; none for any other model."""
    for part in model.modules():
        if isinstance(part, ShardedEmbedding):
            yield part.weight


def _sharded(table: torch.nn.Embedding, rank: int, world: int) -> ShardedEmbedding:
    size = table.num_embeddings
    if size < world:
        raise ArgumentError(f'model: expected at least one entity for each of the {world} processes, got '
                            f'num_nodes={size}')
    if not table.weight.is_meta:
        dist.broadcast(table.weight.detach(), src=0)
    bounds = even_bounds(size, world)
    own = table.weight.detach()[bounds[rank]:bounds[rank + 1]].clone()
    return ShardedEmbedding(own, size, table.sparse, table.weight.requires_grad)

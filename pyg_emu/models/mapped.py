r"""Models whose entity rows are in a memory-mapped file, see :mod:`pyg_emu.core.mapped_table`."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator, TypeVar, Union

import torch
from torch import Tensor

from pyg_emu.core.arguments import shown
from pyg_emu.core.distributed import current
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.core.files import reason
from pyg_emu.core.mapped_table import DTYPES, create, folder_of, read_ahead
from pyg_emu.models.base import KGEScorer, materialise
from pyg_emu.models.reciprocal import Reciprocal

ModelT = TypeVar('ModelT', bound=torch.nn.Module)


class MappedEmbedding(torch.nn.Embedding):
    r"""A table of embeddings in a memory-mapped file, with row-sparse gradients.

    Args:
        table (torch.Tensor): The rows, made by :func:`~pyg_emu.core.mapped_table.create`. shape: :obj:`(V, d)`.
        requires_grad (bool, optional): Whether the rows are trained. (default: :obj:`True`)
    """
    def __init__(self, table: Tensor, requires_grad: bool = True) -> None:
        super().__init__(table.size(0), table.size(1), sparse=True, _weight=table, _freeze=not requires_grad)

    def forward(self, index: Tensor) -> Tensor:
        read_ahead(index, self.weight)
        return super().forward(index)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MappedEmbedding:
        if folder_of(self.weight) is None:  # a copy of a model is in memory
            return super()._apply(fn, recurse)
        # What Module.to and its like would do with the table. A copy, since it may change the memory itself.
        moved = fn(self.weight.detach()[:1].clone())
        if (moved.device, moved.dtype) != (self.weight.device, self.weight.dtype):
            raise ArgumentError(f'model: its {self.num_embeddings} entity rows are in a memory-mapped file, as '
                                f'{self.weight.dtype} on the CPU, and cannot become {moved.dtype} on {moved.device}; '
                                'convert the model before map_entities, or train it without')
        return self


def map_entities(model: ModelT, folder: Union[str, Path]) -> ModelT:
    r"""Moves the entity rows of a model into a memory-mapped file, for tables that do not fit into memory. Row
    optimisers (:class:`~pyg_emu.RowAdagrad`, :class:`~pyg_emu.RowAdam`) that are created afterwards keep their state in
    such files, too. A step then reads and writes only the rows that it touches, and takes the same values as in memory,
    bit for bit.

    Losses, :class:`~pyg_emu.Trainer`, :func:`~pyg_emu.evaluate` and :func:`~pyg_emu.predict` take the model like any
    other. A model made on the device :obj:`"meta"` never exists in memory; its rows are initialised here, with the
    numbers that they would have in memory:

    .. code-block:: python

        torch.manual_seed(0)
        with torch.device('meta'):
            model = DistMult(data.num_nodes, data.num_relations, 200, sparse=True)
        model = map_entities(model, 'scratch')
        Trainer(model, EMULoss(), loader, RowAdagrad(model.parameters(), lr=0.1), num_steps=10_000,
                run_dir='runs/large').fit()

    The files have no names: they disappear when the process ends, also if it is killed. :class:`~pyg_emu.Trainer`
    writes copies of them into checkpoints. Without it, :func:`torch.save` of the model's state writes the rows without
    a copy in memory, and :func:`torch.load` with :obj:`mmap=True` reads them without one.

    Args:
        model (torch.nn.Module): One of :mod:`pyg_emu.models` with an entity table and :obj:`sparse=True`, such as
            :class:`~pyg_emu.DistMult`, a class of your own derived from :class:`~pyg_emu.models.KGEScorer`, or either
            in :class:`~pyg_emu.models.Reciprocal`; on the CPU or on the device :obj:`"meta"`. It is changed in place.
        folder (str or Path): A folder on the disk that is to hold the files, created if it does not exist.

    Returns:
        torch.nn.Module: The same model.

    Raises:
        ArgumentError: If the model has no entity table that can be mapped, its gradients are not row-sparse, it is on a
            GPU, or several processes train it.
        CheckpointError: If the folder cannot be written to, or the disk has too little space.
    """
    holder: Any = model.model if isinstance(model, Reciprocal) else model
    if not isinstance(holder, KGEScorer) or not isinstance(holder.node_emb, torch.nn.Embedding):
        raise ArgumentError('model: expected one of pyg_emu.models with an entity table, such as DistMult, or a class '
                            f'derived from KGEScorer, to move its rows into a file, got {shown(model)}')
    if not isinstance(folder, (str, Path)) or not str(folder).strip():
        raise ArgumentError(f'folder: expected the path of a folder, got {folder!r:.100}')
    weight = holder.node_emb.weight
    if not holder.node_emb.sparse:
        raise ArgumentError('model: expected sparse=True, since a gradient of all rows would not fit into memory '
                            f'either, got {type(holder).__name__} with sparse=False')
    if weight.device.type not in ('cpu', 'meta') or weight.dtype not in DTYPES:
        raise ArgumentError(f'model: expected {" or ".join(map(str, DTYPES))} on the CPU, to move entity rows into a '
                            f'file, got {weight.dtype} on {weight.device}')
    if current()[1] > 1:
        raise ArgumentError('model: entity rows in a memory-mapped file belong to one process; divide them among '
                            f'the {current()[1]} processes with shard_entities')
    if folder_of(weight) is not None:
        return model
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f'cannot create the folder {folder} ({reason(error)}); choose a writable '
                              'folder') from error
    table = create(weight.shape, weight.dtype, folder)
    if not weight.is_meta:
        table.copy_(weight.detach())
    holder.node_emb = MappedEmbedding(table, weight.requires_grad)
    drawn = weight.is_meta
    drawn |= materialise(model)
    if drawn:
        model.reset_parameters()  # type: ignore[operator]
    return model


def mapped_tables(model: torch.nn.Module) -> Iterator[Tensor]:
    r"""The parameters of a model that :func:`map_entities` has moved into files; none for any other model."""
    for value in model.parameters():
        if folder_of(value) is not None:
            yield value

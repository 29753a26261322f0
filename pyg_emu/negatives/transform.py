r"""The transform that turns a batch of positives into one with negatives to be mutated."""
from __future__ import annotations

from typing import Any, Optional

import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_emu.core.arguments import ids_below, positive_integer
from pyg_emu.core.contract import Sampler
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.mutation.base import Mutation, Rate, check_rate
from pyg_emu.negatives.mutation.masks import BernoulliMask, BlockMask, ExactMask, ImportanceMask
from pyg_emu.negatives.sampling import UniformSampler

_MASKS = ('bernoulli', 'exact', 'block', 'importance')


class EMUNegatives(BaseTransform):
    r"""Draws negatives for each triple and says how they are to be mutated, as in the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper (section 3.2).
    The mutation itself happens in the loss, within the operator that scores.

    Takes a batch of :class:`~pyg_emu.TripletLoader`, or any :class:`~torch_geometric.data.Data` with
    :obj:`head_index`, :obj:`rel_type`, :obj:`tail_index` and :obj:`num_nodes`, and, if wanted, :obj:`side` (by default
    :obj:`"tail"`) and :obj:`step` (by default 0), at which a rate that changes is read. Returns, as a
    :class:`~pyg_emu.KGData`, a shallow copy with :obj:`neg_index`, :obj:`neg_mask` and :obj:`mutation`; the
    input stays as it is.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True, transform=EMUNegatives(num_negatives=256))

    The paper draws a mask for every negative and mutates most components (footnote 2, Table 5). The defaults differ:
    one mask per triple, which makes a step cheaper, and a smaller rate.

    Args:
        num_negatives (int, optional): The number of negatives per triple, :math:`N`. (default: :obj:`256`)
        mutation_rate (float or callable, optional): The share of components taken FROM THE POSITIVE,
            :math:`n_P / d`, or a function from the step to it, such as
            :class:`~pyg_emu.negatives.mutation.LinearSchedule`; :obj:`0.0` trains without mutation. (default:
            :obj:`0.3`)
        mask (str, optional): :obj:`"bernoulli"` (each component independently), :obj:`"exact"` (exactly :math:`n_P`
            components), :obj:`"block"` (contiguous ones) or :obj:`"importance"` (those with the largest :math:`|q_k|`).
            (default: :obj:`"bernoulli"`)
        shared (bool, optional): If :obj:`True`, one mask per triple; if :obj:`False`, one per negative.
            (default: :obj:`True`)
        tied (bool, optional): If :obj:`True`, the real and the imaginary part of a complex component are taken
            together. (default: :obj:`False`)
        sampler (Sampler, optional): Where candidate ids come from.
            (default: :obj:`None`, :class:`~pyg_emu.UniformSampler`)
        mutation (Mutation, optional): Any other mutation, such as :class:`~pyg_emu.negatives.mutation.Mixup`, in place
        of the
            one that :obj:`mutation_rate`, :obj:`mask`, :obj:`shared` and :obj:`tied` describe.
            (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`num_negatives` is no positive integer, :obj:`mutation_rate` is not in :obj:`[0, 1]`,
            :obj:`mask` is unknown, or :obj:`sampler` or :obj:`mutation` lacks its methods; when called, if the batch
            lacks an attribute.
    """
    def __init__(
        self,
        num_negatives: int = 256,
        mutation_rate: Rate = 0.3,
        mask: str = 'bernoulli',
        shared: bool = True,
        tied: bool = False,
        sampler: Optional[Sampler] = None,
        mutation: Optional[Mutation] = None,
    ) -> None:
        positive_integer('num_negatives', num_negatives)
        if not callable(mutation_rate):
            check_rate(mutation_rate, 'mutation_rate')
        if sampler is not None and (isinstance(sampler, type) or not isinstance(sampler, Sampler)):
            raise ArgumentError('sampler: expected an object with the methods sample and update of '
                                f'pyg_emu.core.contract.Sampler, got {sampler!r}')
        if mutation is not None and (isinstance(mutation, type) or not isinstance(mutation, Mutation)):
            raise ArgumentError('mutation: expected an object with the method '
                                'plan of pyg_emu.negatives.mutation.Mutation, '
                                f'got {mutation!r}')
        self.num_negatives = num_negatives
        self.sampler = UniformSampler() if sampler is None else sampler
        self.mutation = _mutation(mutation_rate, mask, shared, tied) if mutation is None else mutation

    def forward(self, data: Data) -> KGData:
        batch = _as_batch(data)
        negatives = self.sampler.sample(batch, self.num_negatives, batch.generator)
        batch.neg_index = negatives.index
        batch.neg_mask = negatives.mask
        batch.mutation = self.mutation
        return batch

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_negatives={self.num_negatives}, sampler={self.sampler}, '
                f'mutation={self.mutation})')


def negatives_of(loader: Any) -> Any:
    r"""What of a loader's transform draws negatives, :class:`EMUNegatives` or the like: the transform
    itself, or one inside of a :class:`torch_geometric.transforms.Compose`. :obj:`None` if there is none.
    """
    pending = [getattr(loader, 'transform', None)]
    while pending:
        transform = pending.pop(0)
        if hasattr(transform, 'sampler') or hasattr(transform, 'mutation'):
            return transform
        pending += getattr(transform, 'transforms', None) or ()
    return None


def _mutation(rate: Rate, mask: str, shared: bool, tied: bool) -> Optional[Mutation]:
    if mask == 'bernoulli':
        mutation: Mutation = BernoulliMask(rate, shared=shared, tied=tied)
    elif mask == 'exact':
        mutation = ExactMask(rate, shared=shared, tied=tied)
    elif mask == 'block':
        mutation = BlockMask(rate, shared=shared, tied=tied)
    elif mask == 'importance':
        if not shared:
            raise ArgumentError("shared: mask='importance' follows the query, so negatives of a triple share it; "
                                'expected True, got False')
        mutation = ImportanceMask(rate, tied=tied)
    else:
        raise ArgumentError(f'mask: expected one of {", ".join(map(repr, _MASKS))}, got {mask!r}')
    return None if rate == 0 else mutation


def _as_batch(data: Data) -> KGData:
    r"""A plain :class:`~torch_geometric.data.Data` as what the loader makes."""
    for name in ('head_index', 'rel_type', 'tail_index'):
        if getattr(data, name, None) is None:
            raise ArgumentError('data: expected a batch of triples with head_index, rel_type and tail_index, as '
                                f'TripletLoader makes them, but {name} is missing')
    if isinstance(data, KGData):
        return data
    if 'num_nodes' not in data:
        raise ArgumentError('data: num_nodes is missing; set it to the number of entities to draw negatives from')
    _check_ids(data)
    _check_side(data.side if 'side' in data else 'tail', data.head_index)
    return KGData.from_dict({'step': 0, **data.to_dict()})


def _check_side(side: Any, head_index: Tensor) -> None:
    expected = f"data.side: expected 'tail', 'head' or a boolean tensor of shape {tuple(head_index.shape)}"
    if isinstance(side, Tensor):
        if side.dtype != torch.bool or side.shape != head_index.shape:
            raise ArgumentError(f'{expected}, got one of {side.dtype} and shape {tuple(side.shape)}')
    elif side not in ('tail', 'head'):
        raise ArgumentError(f'{expected}, got {side!r}')


def _check_ids(data: Data) -> None:
    r"""What the loader checks once for all its batches, for a batch made by hand."""
    limits = {'head_index': 'num_nodes', 'tail_index': 'num_nodes', 'rel_type': 'num_relations'}
    for name in limits:
        if not isinstance(data[name], Tensor):
            raise ArgumentError(f'data.{name}: expected a tensor of int64, got {type(data[name]).__name__}; use '
                                f'torch.tensor({name})')
    size = tuple(data.head_index.shape)
    for name, bound in limits.items():
        ids, limit = data[name], data[bound] if bound in data else None
        if ids.dtype != torch.int64:
            raise ArgumentError(f'data.{name}: expected int64, got {ids.dtype}; use {name}.long()')
        if ids.dim() != 1 or tuple(ids.shape) != size:
            raise ArgumentError(f'data.{name}: expected shape (B,), the same for head_index, rel_type and tail_index, '
                                f'got {tuple(ids.shape)}')
        ids_below(f'data.{name}', ids, limit, f'range that {bound} gives')

r"""A mini-batch of positive triples and, after a transform, their negatives."""
from __future__ import annotations

import copy
from numbers import Integral
from typing import TYPE_CHECKING, Any, Callable, Literal, Mapping, Optional, Union

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data, HeteroData
from typing_extensions import Self

from pyg_emu.core.arguments import ids_below, kind_of, on_device, positive_integer, shown
from pyg_emu.core.contract import ScoredBatch, Side
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.shared_index import SharedIndex
from pyg_emu.data.checks import check_weights
from pyg_emu.data.relations import bernoulli_sides

if TYPE_CHECKING:
    from pyg_emu.data.graph import KGData
    from pyg_emu.data.index import FactIndex

_OPTIONAL = ('neg_index', 'neg_mask', 'neg_vectors', 'step', 'weight')
# These are held beside the store: `Data` copies and moves whatever its store holds, and none of these may be.
_HELD: dict[str, Any] = {'_source': None, '_generator': None, '_mutation': None, '_scored': None, '_whole': None,
                         '_rows': None, '_checked': False, '_lacks_relation': False}
# What :meth:`Batch.check` looks at, and looks at again after it was replaced.
_CHECKED = frozenset(('head_index', 'rel_type', 'tail_index', 'side', 'num_nodes', 'num_relations', *_OPTIONAL,
                      'source', 'generator', 'mutation'))
# What people call the relations of triples elsewhere. Such an attribute would be kept and not read.
_LIKE_REL_TYPE = ('relation', 'relations', 'rel', 'rels', 'rel_types', 'rel_index', 'edge_label_type')


class Batch(Data):
    r"""A mini-batch of positive triples and, after :class:`~pyg_emu.EMUNegatives`, their negatives.

    :class:`~pyg_emu.TripletLoader` yields it, :meth:`of` makes it from any :class:`~torch_geometric.data.Data`, and
    samplers, mutations and losses take it. As a :class:`~torch_geometric.data.Data` it copies, moves, saves, and passes
    through transforms and worker processes.

    .. code-block:: python

        batch = Batch(head_index, rel_type, tail_index, num_nodes=135, source=data)
        criterion(model, EMUNegatives(num_negatives=64)(batch))

    Args:
        head_index (torch.Tensor, optional): Head entities. shape: :obj:`(B,)`, int64.
        rel_type (torch.Tensor, optional): Relations. shape: :obj:`(B,)`, int64. (default: relation 0, the only one of a
            graph without relation types; losses refuse it for a model of several relations)
        tail_index (torch.Tensor, optional): Tail entities. shape: :obj:`(B,)`, int64.
        side (str or torch.Tensor, optional): The end of each triple that is predicted: :obj:`"tail"`, :obj:`"head"`, a
            boolean tensor of shape :obj:`(B,)` that is true where the tail is predicted, or :obj:`"bernoulli"`, which
            draws it by the relation as :obj:`TripletLoader(corrupt="bernoulli")` does and needs :obj:`source`.
            (default: half of the rows each, drawn from :obj:`generator`; for an odd number of rows, the odd one is
            drawn too)
        num_nodes (int, optional): Number of entities, from which negatives are drawn.
        num_relations (int, optional): Number of relations.
        neg_index (torch.Tensor or SharedIndex, optional): Ids of negative entities. shape: :obj:`(B, N)`, int64. If
            chunks of rows share their ids, the attribute still reads as such a tensor, and :attr:`shared_index` holds
            each set of ids once.
        neg_mask (torch.Tensor, optional): True where a negative counts; columns of :obj:`neg_index` first, then those
            of :obj:`neg_vectors`. shape: :obj:`(B, N + M)`. (default: :obj:`None`, all count)
        neg_vectors (torch.Tensor, optional): Further negatives, given as candidate vectors. Losses score them beside
            :obj:`neg_index` and pass gradients on to them. shape: :obj:`(B, M, d)`.
        weight (torch.Tensor, optional): The weights of the triples in losses: finite, positive floating-point numbers.
            shape: :obj:`(B,)`. (default: :obj:`None`, all count equally)
        step (int, optional): Number of batches drawn before this one; schedules read it. (default: :obj:`None`, the
            transform counts)
        source (KGData, optional): The graph that the triples come from.
        generator (torch.Generator, optional): The random stream of the run. (default: PyTorch's global one)
        mutation (Mutation, optional): How losses mutate the negatives.
        **kwargs (optional): Further attributes, as for any :class:`~torch_geometric.data.Data`.

    Raises:
        ArgumentError: If :obj:`rel_type` is missing and another attribute seems to be meant; if :obj:`side="bernoulli"`
            lacks a :obj:`source`.
    """
    head_index: Tensor
    rel_type: Tensor
    tail_index: Tensor
    side: Side
    num_relations: Optional[int]
    neg_index: Optional[Tensor]
    neg_mask: Optional[Tensor]
    neg_vectors: Optional[Tensor]
    weight: Optional[Tensor]
    step: Optional[int]

    def __init__(
        self,
        head_index: Optional[Tensor] = None,
        rel_type: Optional[Tensor] = None,
        tail_index: Optional[Tensor] = None,
        side: Optional[Union[Side, Literal['bernoulli']]] = None,
        *,
        num_nodes: Optional[int] = None,
        num_relations: Optional[int] = None,
        neg_index: Optional[Union[Tensor, SharedIndex]] = None,
        neg_mask: Optional[Tensor] = None,
        neg_vectors: Optional[Tensor] = None,
        weight: Optional[Tensor] = None,
        step: Optional[int] = None,
        source: Optional[KGData] = None,
        generator: Optional[torch.Generator] = None,
        mutation: Any = None,
        **kwargs: Any,
    ) -> None:
        self.__dict__.update(_HELD)
        given = {'head_index': head_index, 'rel_type': rel_type, 'tail_index': tail_index, 'neg_index': neg_index,
                 'neg_mask': neg_mask, 'neg_vectors': neg_vectors, 'weight': weight, 'step': step,
                 'num_nodes': num_nodes, 'num_relations': num_relations, 'side': side}
        super().__init__(**{key: value for key, value in given.items() if value is not None}, **kwargs)
        self.__dict__.update(_source=source, _generator=generator, _mutation=mutation)
        # PyG's own functions make empty objects and fill them afterwards.
        if isinstance(head_index, Tensor) and head_index.dim() == 1:
            if rel_type is None:
                _refuse_misnamed(kwargs, head_index.numel())
                self.rel_type = torch.zeros_like(head_index)
                self.__dict__['_lacks_relation'] = True
            if side is None:
                self.side = _both_ends(head_index, generator)
            elif isinstance(side, str) and side == 'bernoulli':
                self.side = self._bernoulli_ends()

    @classmethod
    def of(cls, data: Data) -> Batch:
        r"""Returns :obj:`data` as a :class:`Batch`, without copying its tensors.

        A :class:`Batch` is returned as it is. Any other :class:`~torch_geometric.data.Data` needs :obj:`head_index` and
        :obj:`tail_index` (or :obj:`edge_label_index`, as PyG's link loaders and :obj:`RandomLinkSplit` call them) and
        :obj:`num_nodes` (or :obj:`x`). Data without relation types has one relation, 0. Without :obj:`side`, one half
        of the rows predicts the tail and the other half the head.

        Args:
            data (torch_geometric.data.Data): The triples.

        Raises:
            ArgumentError: If an attribute is missing or has the wrong type, shape or range. The message names it.
        """
        if not isinstance(data, Data):
            remedy = ('; load_dataset(hetero, fractions=...) makes one graph of a HeteroData, from which TripletLoader '
                      'draws batches' if isinstance(data, HeteroData) else '')
            raise ArgumentError(f'batch: expected a Batch, as TripletLoader yields it, or a torch_geometric Data, got '
                                f'an object of type {type(data).__name__}{remedy}')
        if not isinstance(data, Batch):
            data = cls(**_fields_of(data))
        if not data.__dict__['_checked']:
            data.check()
            data.__dict__['_checked'] = True
        return data

    def _bernoulli_ends(self) -> Tensor:
        self._check_held()
        if not hasattr(self.source, 'fact_index'):
            raise ArgumentError("batch.source: side='bernoulli' needs the KGData whose facts say how many heads and "
                                f'tails go together, got {shown(self.source)}; expected source=data')
        index: FactIndex = self.source.fact_index('train')  # type: ignore[union-attr]
        if not isinstance(self.rel_type, Tensor) or self.rel_type.dtype != torch.int64:
            return torch.ones_like(self.head_index, dtype=torch.bool)  # check() names what is wrong
        ids_below('batch.rel_type', self.rel_type, index.num_relations, 'range that source gives')
        on_device('batch.rel_type', self.rel_type, index.device, like='source')
        return bernoulli_sides(index, self.rel_type, self.generator)

    def check(self) -> None:
        r"""Checks that all attributes fit together. Ids on a GPU are not compared with the number of entities, since
        the host would have to wait for them.

        Raises:
            ArgumentError: If an attribute is missing or has the wrong type, shape or range. The message names it.
        """
        limits = {'head_index': 'num_nodes', 'tail_index': 'num_nodes', 'rel_type': 'num_relations'}
        for name in limits:
            if name not in self._store:
                raise ArgumentError(f'batch: {name} is missing; expected a batch of triples with head_index, rel_type '
                                    'and tail_index, such as TripletLoader yields')
            if not isinstance(self._store[name], Tensor):
                raise ArgumentError(f'batch.{name}: expected a tensor of int64, got {type(self[name]).__name__}; use '
                                    f'torch.tensor({name})')
        if 'num_nodes' not in self._store:
            raise ArgumentError('batch: num_nodes is missing; set it to the number of entities to draw negatives from')
        for name in ('num_nodes', 'num_relations'):
            if self._store.get(name) is not None:
                positive_integer(f'batch.{name}', self._store[name])
        self._check_held()
        size = tuple(self.head_index.shape)
        for name, bound in limits.items():
            ids = self._store[name]
            if ids.dtype != torch.int64:
                raise ArgumentError(f'batch.{name}: expected int64, got {ids.dtype}; use {name}.long()')
            if ids.dim() != 1 or tuple(ids.shape) != size:
                raise ArgumentError(f'batch.{name}: expected shape (B,), the same for head_index, rel_type and '
                                    f'tail_index, got {tuple(ids.shape)}')
            on_device(f'batch.{name}', ids, self.head_index.device, 'head_index')
            ids_below(f'batch.{name}', ids, self._store.get(bound), f'range that {bound} gives')
        _check_side(self._store.get('side'), self.head_index)
        if self.weight is not None:
            check_weights('batch.weight', self.weight, size[0], 'one for each triple', self.device, ArgumentError,
                          wait=False)
        self.check_negatives()

    def _check_held(self) -> None:
        if self.source is not None and not (isinstance(self.source, Data) and hasattr(type(self.source), 'fact_index')):
            raise ArgumentError(f'batch.source: expected a KGData or None, got {shown(self.source)}')
        if self.generator is not None and not isinstance(self.generator, torch.Generator):
            raise ArgumentError(f'batch.generator: expected a torch.Generator or None, got {shown(self.generator)}')
        mutation, step = self.mutation, self._store.get('step')
        if mutation is not None and (isinstance(mutation, type) or not callable(getattr(mutation, 'plan', None))):
            raise ArgumentError('batch.mutation: expected an object with the method plan(context) of '
                                f'pyg_emu.negatives.mutation.Mutation, got {shown(mutation)}')
        if step is not None and not isinstance(step, Tensor) and (
                isinstance(step, bool) or not isinstance(step, Integral) or step < 0):
            raise ArgumentError(f'batch.step: expected an integer of at least 0, got {shown(step)}')

    def check_negatives(self) -> None:
        r"""Checks the types and shapes of :obj:`neg_index`, :obj:`neg_mask` and :obj:`neg_vectors`.

        Raises:
            ArgumentError: If they do not fit the triples or one another.
        """
        rows, columns = self.head_index.numel(), 0
        for name, dims, what in (('neg_index', 2, 'int64 ids of shape'), ('neg_vectors', 3, 'vectors of shape')):
            value = self._store.get(name)
            if value is None:
                continue
            expected = '(B, N)' if dims == 2 else '(B, M, d)'
            if dims == 2 and isinstance(value, SharedIndex):
                value.check(f'batch.{name}')
                if value.size != rows:
                    raise ArgumentError(f'batch.{name}: expected a SharedIndex of {rows} rows, got size={value.size}')
                ids = value.index
            elif not isinstance(value, Tensor):
                raise ArgumentError(f'batch.{name}: expected {what} {expected}, got {type(value).__name__}')
            else:
                kind = value.dtype == torch.int64 if dims == 2 else value.is_floating_point()
                if value.dim() != dims or value.size(0) != rows or not kind:
                    raise ArgumentError(f'batch.{name}: expected {what} {expected} with B = {rows}, '
                                        f'got {kind_of(value)}')
                ids = value
            columns += ids.size(1)
            if dims == 2 and not self.__dict__['_checked']:
                ids_below(f'batch.{name}', ids, self._store.get('num_nodes'), 'range that num_nodes gives')
        mask = self._store.get('neg_mask')
        if mask is not None and not (isinstance(mask, Tensor) and mask.dtype == torch.bool
                                     and tuple(mask.shape) == (rows, columns)):
            found = kind_of(mask) if isinstance(mask, Tensor) else type(mask).__name__
            raise ArgumentError(f'batch.neg_mask: expected torch.bool of shape {(rows, columns)}, one column for each '
                                f'negative, got {found}')

    def __setattr__(self, key: str, value: Any) -> None:
        self._note_change(key)
        super().__setattr__(key, value)

    def __setitem__(self, key: str, value: Any) -> None:
        self._note_change(key)
        super().__setitem__(key, value)

    def _note_change(self, key: str) -> None:
        if key in _CHECKED:
            self.__dict__['_checked'] = False
        if key == 'rel_type':
            self.__dict__['_lacks_relation'] = False

    def __getattr__(self, key: str) -> Any:
        if key in _OPTIONAL and key not in self.__dict__['_store']:
            return None
        value = super().__getattr__(key)
        return value.expand() if key == 'neg_index' and isinstance(value, SharedIndex) else value

    def __repr__(self) -> str:
        if 'head_index' not in self._store:
            return f'{self.__class__.__name__}()'
        side = self._store.get('side')
        negatives = '' if self.num_negatives == 0 else f', num_negatives={self.num_negatives}'
        return (f'{self.__class__.__name__}(batch_size={self.head_index.numel()}, '
                f'side={side if isinstance(side, str) else "both"}{negatives})')

    # The two ends ############################################################

    @property
    def corrupts_tail(self) -> Tensor:
        r""":obj:`side` as a tensor: true where the tail is predicted. shape: :obj:`(B,)`."""
        if isinstance(self.side, Tensor):
            return self.side
        return torch.full_like(self.head_index, self.side == 'tail', dtype=torch.bool)

    @property
    def known_index(self) -> Tensor:
        r"""The entities that are given: heads where the tail is predicted, tails where the head is.
        shape: :obj:`(B,)`.
        """
        if isinstance(self.side, Tensor):
            return torch.where(self.side, self.head_index, self.tail_index)
        return self.head_index if self.side == 'tail' else self.tail_index

    @property
    def target_index(self) -> Tensor:
        r"""The entities that are predicted. shape: :obj:`(B,)`."""
        if isinstance(self.side, Tensor):
            return torch.where(self.side, self.tail_index, self.head_index)
        return self.tail_index if self.side == 'tail' else self.head_index

    @property
    def num_negatives(self) -> int:
        r"""Negatives per triple, :math:`N + M`."""
        given = (self._store.get(name) for name in ('neg_index', 'neg_vectors'))
        return sum(value.shape[1] for value in given if value is not None)

    @property
    def shared_index(self) -> Optional[SharedIndex]:
        r"""The ids of :obj:`neg_index` once for each chunk of rows that shares them, or :obj:`None` where each row has
        its own.
        """
        value = self._store.get('neg_index')
        return value if isinstance(value, SharedIndex) else None

    @property
    def device(self) -> torch.device:
        r"""The device of the triples."""
        return self.head_index.device

    # Held without being copied or moved ######################################

    @property
    def source(self) -> Optional[KGData]:
        r"""The graph that the triples come from. It is never copied, moved or saved with the batch."""
        return self.__dict__['_source']

    @source.setter
    def source(self, source: Optional[KGData]) -> None:
        self.__dict__['_source'] = source

    @property
    def generator(self) -> Optional[torch.Generator]:
        r"""The random stream of the run. It is never copied, moved or saved with the batch."""
        return self.__dict__['_generator']

    @generator.setter
    def generator(self, generator: Optional[torch.Generator]) -> None:
        self.__dict__['_generator'] = generator

    @property
    def mutation(self) -> Any:
        r"""How losses mutate the negatives, or :obj:`None`. Copies of the batch share it; it is saved with the batch
        but does not move with it.
        """
        return self.__dict__['_mutation']

    @mutation.setter
    def mutation(self, mutation: Any) -> None:
        self.__dict__['_mutation'] = mutation

    @property
    def scored(self) -> Optional[ScoredBatch]:
        r"""The scores that a loss of this package gave the batch last, detached, or :obj:`None`."""
        return self.__dict__['_scored']

    @scored.setter
    def scored(self, scored: Optional[ScoredBatch]) -> None:
        self.__dict__['_scored'] = scored

    @property
    def whole(self) -> Optional[Batch]:
        r"""The batch of all processes, where this batch is the part of one process, or :obj:`None`."""
        return self.__dict__['_whole']

    @property
    def rows(self) -> Optional[slice]:
        r"""The rows of :attr:`whole` that this batch holds, or :obj:`None`."""
        return self.__dict__['_rows']

    @property
    def lacks_relation(self) -> bool:
        r"""Whether :obj:`rel_type` was not given: it is 0 for all triples, as in a graph without relation types."""
        return self.__dict__.get('_lacks_relation', False)  # Files of earlier versions say nothing of it.

    def part(self, rows: slice) -> Batch:
        r"""Returns some rows as a batch that knows its :attr:`whole`.

        Args:
            rows (slice): The rows.
        """
        out = self._cut(rows)
        if self.shared_index is not None:
            out._store['neg_index'] = self.shared_index.rows(rows)
        out.__dict__.update(_whole=self, _rows=rows)
        return out

    def take(self, index: Tensor) -> Batch:
        r"""Returns the triples at :obj:`index`, in this order and without negatives.

        Args:
            index (torch.Tensor): Rows of the batch, which may repeat; int64. shape: :obj:`(K,)`.
        """
        out = self._cut(index)
        for name in ('neg_index', 'neg_mask', 'neg_vectors'):
            out._store.pop(name, None)
        out.__dict__.update(_whole=None, _rows=None, _scored=None)
        return out

    def _cut(self, rows: Union[slice, Tensor]) -> Batch:
        size = self.head_index.numel()
        out = copy.copy(self)
        for key, value in self._store.items():
            if isinstance(value, Tensor) and value.dim() > 0 and value.size(0) == size:
                out._store[key] = value[rows]
        return out

    def __deepcopy__(self, memo: Optional[dict[int, Any]]) -> Self:
        out = self.__class__.__new__(self.__class__)
        for key, value in self.__dict__.items():
            out.__dict__[key] = value if key in _HELD else copy.deepcopy(value, memo)
        out._store._parent = out
        return out

    def __getstate__(self) -> dict[str, Any]:
        # The mutation stays: a batch from a worker process would train without it otherwise.
        gone = {key: value for key, value in _HELD.items() if key not in ('_mutation', '_checked', '_lacks_relation')}
        return {**self.__dict__, **gone}

    def stores_as(self, data: Any) -> Self:
        # PyG calls it on the empty object that it collates batches into, or separates one into.
        self.__dict__['_lacks_relation'] = getattr(data, 'lacks_relation', False)
        return super().stores_as(data)

    def apply(self, func: Callable, *args: str) -> Self:
        self.__dict__['_scored'] = None  # of tensors that are replaced
        return super().apply(func, *args)


def _both_ends(head_index: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    r"""True for half of the rows, in random places. For an odd number of rows, chance decides about the odd one."""
    size = head_index.numel()
    return torch.randperm(size + size % 2, generator=generator, device=head_index.device)[:size] % 2 == 0


def _check_side(side: Any, head_index: Tensor) -> None:
    expected = f"batch.side: expected 'tail', 'head' or a boolean tensor of shape {tuple(head_index.shape)}"
    if isinstance(side, Tensor):
        if side.dtype != torch.bool or side.shape != head_index.shape:
            raise ArgumentError(f'{expected}, got {kind_of(side)}')
    elif not isinstance(side, str) or side not in ('tail', 'head'):
        raise ArgumentError(f'{expected}, got {shown(side)}')


def _fields_of(data: Data) -> dict[str, Any]:
    r"""The attributes of any :class:`~torch_geometric.data.Data` under the names of :class:`Batch`."""
    fields: dict[str, Any] = data.to_dict()
    if 'edge_label_index' in fields and 'head_index' not in fields:
        fields['head_index'], fields['tail_index'] = _ends_of_links(fields)
    if 'rel_type' not in fields and 'head_index' in fields:
        several: Union[int, Any] = fields.get('num_relations') or 1
        if fields.get('edge_type') is not None or several > 1:
            raise ArgumentError('batch: rel_type is missing, and the data has relation types '
                                f'({"edge_type" if "edge_type" in fields else f"num_relations={several}"}); set '
                                'rel_type to the relation of each triple, shape (B,)')
    if 'num_nodes' not in fields and isinstance(fields.get('x'), Tensor):
        fields['num_nodes'] = fields['x'].size(0)
    return fields


def _refuse_misnamed(given: Mapping[str, Any], size: int) -> None:
    for name in _LIKE_REL_TYPE:
        value = given.get(name)
        if isinstance(value, (Tensor, np.ndarray, list, tuple)) and len(value) == size:
            raise ArgumentError(f'batch: rel_type is missing, and the data has {name} of {size} values, which is not '
                                'read; call it rel_type, or set rel_type to the relation of each triple, shape (B,)')


def _ends_of_links(fields: dict[str, Any]) -> tuple[Tensor, Tensor]:
    links, labels = fields['edge_label_index'], fields.get('edge_label')
    if not isinstance(links, Tensor) or links.dim() != 2 or links.size(0) != 2:
        found = kind_of(links) if isinstance(links, Tensor) else type(links).__name__
        raise ArgumentError(f'batch.edge_label_index: expected ids of shape (2, B), got {found}')
    if 'n_id' in fields:
        raise ArgumentError('batch.edge_label_index: its ids are positions in a sampled subgraph (n_id is there); set '
                            'head_index, tail_index = n_id[edge_label_index] and num_nodes of the whole graph')
    if isinstance(labels, Tensor) and bool((labels <= 0).any()):
        place = int((labels <= 0).nonzero()[0, 0])
        raise ArgumentError(f'batch.edge_label: {labels[place].item()} at position {place} marks a negative edge; '
                            'expected only positive ones; use RandomLinkSplit(add_negative_train_samples=False) or '
                            'leave negative edges out')
    return links[0], links[1]


# So that `torch.load(..., weights_only=True)` reads what `torch.save` wrote of a Batch.
torch.serialization.add_safe_globals([Batch])

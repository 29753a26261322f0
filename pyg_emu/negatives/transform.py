r"""The transform that adds negatives, and how to mutate them, to a batch of positives."""
from __future__ import annotations

from typing import Any, ClassVar, Iterator, Optional

from torch.utils.data import get_worker_info
from torch_geometric.data import Data
from torch_geometric.transforms import BaseTransform

from pyg_emu.core.arguments import boolean, one_of, positive_integer, shown, without_effect
from pyg_emu.core.errors import ArgumentError, CheckpointError
from pyg_emu.data.batch import Batch
from pyg_emu.negatives.contract import Negatives, Sampler, check_sampler, does, parameters_of
from pyg_emu.negatives.mutation.base import Mutation, Rate, check_rate
from pyg_emu.negatives.mutation.masks import BernoulliMask, BlockMask, ExactMask, ImportanceMask
from pyg_emu.negatives.sampling import UniformSampler

_MASKS = ('bernoulli', 'exact', 'block', 'importance')


class EMUNegatives(BaseTransform):
    r"""Draws negatives for each triple and says how they are mutated, as in the
    `"Optimal Embedding Guided Negative Sample Generation" <https://arxiv.org/abs/2504.03327>`_ paper (section 3.2).
    The mutation itself happens in the loss, within the operator that scores.

    Takes a :class:`~pyg_emu.Batch`, as :class:`~pyg_emu.TripletLoader` yields it, or any
    :class:`~torch_geometric.data.Data` that :meth:`Batch.of() <pyg_emu.Batch.of>` takes: one with :obj:`head_index`,
    :obj:`rel_type`, :obj:`tail_index` and :obj:`num_nodes`. Without :obj:`side`, half of its rows predict the tail and
    half the head, in random places, as PyG's own layers corrupt both ends; :obj:`side='tail'` or :obj:`side='head'`
    predicts one of them, and :obj:`side='bernoulli'`, with the graph as :obj:`source`, draws it by the relation.
    Without :obj:`step`, the transform counts its own calls, so that a rate that follows the step changes (each worker
    process of a :class:`~torch.utils.data.DataLoader` counts for itself). Returns a shallow copy with :obj:`neg_index`,
    :obj:`neg_mask`, :obj:`neg_vectors` and :obj:`mutation`; the input is not modified.

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
        sampler (Sampler, optional): The source of candidates. (default: :obj:`None`,
            :class:`~pyg_emu.UniformSampler`)
        mutation (Mutation, optional): Another mutation, such as :class:`~pyg_emu.negatives.mutation.Mixup`, instead of
            the one that :obj:`mutation_rate`, :obj:`mask`, :obj:`shared` and :obj:`tied` describe. These have to keep
            their defaults then. (default: :obj:`None`)

    Raises:
        ArgumentError: If :obj:`num_negatives` is no positive integer, :obj:`mutation_rate` is not in :obj:`[0, 1]`,
            :obj:`mask` is unknown, :obj:`sampler` or :obj:`mutation` lacks its method, or a setting has no effect
            beside :obj:`mutation`; when called, if the batch is unusable or the sampler returns negatives that do not
            fit it, or a part that learns is in a worker process of a :class:`~torch.utils.data.DataLoader`.
    """
    #: Settings that others take the place of. In recipes, a layer that sets one of the latter drops them.
    replaces: ClassVar[dict[str, tuple[str, ...]]] = {'mutation': ('mutation_rate', 'mask', 'shared', 'tied')}

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
        self.num_negatives = positive_integer('num_negatives', num_negatives)
        if isinstance(mutation_rate, type) or not callable(mutation_rate):
            check_rate(mutation_rate, 'mutation_rate')
        if mutation is not None and (isinstance(mutation, type) or not isinstance(mutation, Mutation)):
            raise ArgumentError('mutation: expected an object with the method plan(context) of '
                                f'pyg_emu.negatives.mutation.Mutation, got {shown(mutation)}')
        check_sampler('sampler', sampler)
        self.sampler = UniformSampler() if sampler is None else sampler
        self.mutation = _mutation(mutation_rate, mask, shared, tied)
        if mutation is not None:
            # The masks that they describe, whose place the mutation takes.
            replaced = {'mutation_rate': mutation_rate, 'mask': mask, 'shared': shared, 'tied': tied}
            without_effect(f'mutation={type(mutation).__name__}(...)', EMUNegatives, **replaced)
            self.mutation = mutation
        #: Batches without a step of their own that the transform has seen.
        self.num_calls = 0

    def forward(self, data: Data) -> Batch:
        batch = Batch.of(data)
        if get_worker_info() is not None:
            self._check_worker()
        if batch.step is None:
            batch._store['step'] = self.num_calls
            self.num_calls += 1
        negatives = self.sampler.sample(batch, self.num_negatives, batch.generator)
        if not isinstance(negatives, Negatives):
            raise ArgumentError(f'sampler: {self.sampler} returned an object of type {type(negatives).__name__}; '
                                'expected pyg_emu.Negatives(index, mask, vectors)')
        for name, value in zip(('neg_index', 'neg_mask', 'neg_vectors'), negatives):
            if value is not None:
                batch._store[name] = value
            elif name in batch:
                del batch[name]
        batch.check_negatives()
        batch.__dict__['_mutation'] = self.mutation  # without a further check: it was checked above
        return batch

    def _check_worker(self) -> None:
        r"""Refuses parts that learn, in a worker process of a :class:`~torch.utils.data.DataLoader`."""
        for name, part in (('sampler', self.sampler), ('mutation', self.mutation)):
            if does(part, 'update') or does(part, 'observe') or any(value.requires_grad for value in
                                                                    parameters_of(part)):
                raise ArgumentError(f'{name}: {type(part).__name__} learns in the process that trains, and this worker '
                                    'process of a DataLoader draws from a copy that does not; expected num_workers=0, '
                                    'or a transform that is applied to the batches of the loader')

    def state_dict(self) -> dict[str, Any]:
        r"""The number of batches that were counted here."""
        return {'num_calls': self.num_calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues from what :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete.
        """
        if 'num_calls' not in state:
            raise CheckpointError("the transform's state lacks num_calls")
        self.num_calls = state['num_calls']

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_negatives={self.num_negatives}, sampler={self.sampler}, '
                f'mutation={self.mutation})')


def parts_of(loader: Any, criterion: Any = None) -> dict[str, Any]:
    r"""The parts of a loader's transform by name: the transform itself (:obj:`"transform"`), its sampler and its
    mutation, also those inside a :class:`torch_geometric.transforms.Compose` (:obj:`"transform.0.sampler"`) or of a
    sampler that wraps another one (:obj:`"transform.sampler.sampler"`). Each object occurs once.

    Args:
        loader (Any): The loader.
        criterion (Any, optional): A loss, which is a part then (:obj:`"criterion"`), as is its own mutation
            (:obj:`"criterion.mutation"`). (default: :obj:`None`)
    """
    found: dict[str, Any] = {} if criterion is None else {'criterion': criterion}
    for name, part in (*_walk('transform', getattr(loader, 'transform', None)), *_walk('criterion', criterion)):
        if all(part is not other for other in found.values()):
            found[name] = part
    return found


def _walk(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    if part is None:
        return
    yield name, part
    inner = getattr(part, 'transforms', None)
    if isinstance(inner, (list, tuple)):
        for place, transform in enumerate(inner):
            yield from _walk(f'{name}.{place}', transform)
    for attribute in ('sampler', 'mutation'):
        yield from _walk(f'{name}.{attribute}', getattr(part, attribute, None))


def _mutation(rate: Rate, mask: str, shared: bool, tied: bool) -> Optional[Mutation]:
    one_of('mask', mask, _MASKS)
    boolean('shared', shared)
    boolean('tied', tied)
    if mask == 'bernoulli':
        mutation: Mutation = BernoulliMask(rate, shared=shared, tied=tied)
    elif mask == 'exact':
        mutation = ExactMask(rate, shared=shared, tied=tied)
    elif mask == 'block':
        mutation = BlockMask(rate, shared=shared, tied=tied)
    else:
        if not shared:
            raise ArgumentError("shared: mask='importance' depends on the query, which negatives of a triple share; "
                                'expected True, got False')
        mutation = ImportanceMask(rate, tied=tied)
    return None if rate == 0 else mutation

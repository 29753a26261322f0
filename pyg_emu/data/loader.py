r"""Mini-batches of triples, created on the device of the facts."""
from __future__ import annotations

from typing import Any, Callable, Iterator, Literal, Mapping, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import boolean, one_of, positive_integer, random_seed, shown
from pyg_emu.core.contract import Side
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.data.batch import Batch
from pyg_emu.data.checks import check_data
from pyg_emu.data.graph import SPLITS, KGData
from pyg_emu.data.relations import bernoulli_sides

_CORRUPT = ('alternate', 'both', 'tail', 'head', 'bernoulli')


class TripletLoader:
    r"""Iterates over the facts of a :class:`~pyg_emu.KGData` and yields batches of type :class:`~pyg_emu.Batch`.

    Facts stay on their device, and no worker processes are used. Each :obj:`for` loop is one epoch, in a new random
    order if :obj:`shuffle` is set. :meth:`state_dict` can be called between any two batches. A loader that loads this
    state continues with the next batch and the same random numbers.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True, transform=EMUNegatives(num_negatives=256))
        for batch in loader:  # one epoch
            loss = criterion(model, batch)

    Args:
        data (KGData): The knowledge graph.
        batch_size (int, optional): The number of triples per batch. (default: :obj:`1000`)
        shuffle (bool, optional): Whether to reshuffle the facts in each epoch. (default: :obj:`False`)
        transform (callable, optional): A transform applied to each batch, such as :class:`~pyg_emu.EMUNegatives`.
            (default: :obj:`None`)
        corrupt (str, optional): The side of each triple to predict, for any sampler. (default: :obj:`"alternate"`)

            * :obj:`"alternate"`: tails and heads in alternating batches; the first side changes with each epoch.
            * :obj:`"both"`: tails and heads in alternating rows of a batch.
            * :obj:`"tail"` or :obj:`"head"`: the same side in all triples.
            * :obj:`"bernoulli"`: the head with probability :math:`\mathrm{tph} / (\mathrm{tph} + \mathrm{hpt})`, where
              tph and hpt are the mean numbers of tails per head and of heads per tail of the relation in the training
              facts, as in the `"TransH" <https://ojs.aaai.org/index.php/AAAI/article/view/8870>`_ paper. The
              probability is one half for a relation without training facts.

        split (str, optional): The split: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`. (default:
            :obj:`"train"`)
        drop_last (bool, optional): Whether to drop the last batch if it is smaller than the others. (default:
            :obj:`False`)
        seed (int, optional): The seed of the order and of :attr:`generator`. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument has an invalid type or value.
        DataError: If the split has no facts, or invalid ones.
    """
    def __init__(
        self,
        data: KGData,
        batch_size: int = 1000,
        shuffle: bool = False,
        transform: Optional[Callable[[Batch], Any]] = None,
        corrupt: Literal['alternate', 'both', 'tail', 'head', 'bernoulli'] = 'alternate',
        split: Literal['train', 'valid', 'test', 'all'] = 'train',
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(data, KGData):
            raise ArgumentError(f'data: expected a KGData, got {type(data).__name__}; create one with '
                                'load_dataset(...) from a name, a folder, a DataFrame or a PyG graph')
        batch_size = int(positive_integer('batch_size', batch_size))
        one_of('corrupt', corrupt, _CORRUPT)
        one_of('split', split, (*SPLITS, 'all'))
        shuffle, drop_last = boolean('shuffle', shuffle), boolean('drop_last', drop_last)
        seed = random_seed('seed', seed)
        if transform is not None and (isinstance(transform, type) or not callable(transform)):
            raise ArgumentError(f'transform: expected a function of a batch, got {type(transform).__name__}')
        check_data(data)
        if data.num_facts(split) == 0:
            raise DataError(f'split: expected a split with facts, got {split!r}, which has none; choose another split '
                            'or load data that has it')
        if drop_last and data.num_facts(split) < batch_size:
            raise ArgumentError(f'drop_last: expected at least batch_size={batch_size} facts in the {split} split, got '
                                f'{data.num_facts(split)}; lower batch_size or set drop_last=False')
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform = transform
        self.corrupt = corrupt
        self.split = split
        self.drop_last = drop_last
        self.seed = seed
        #: The random generator of a run, for all random numbers of a step. The order of the facts does not use it. It
        #: depends on the seed and the epoch only.
        self.generator = torch.Generator(data.device).manual_seed(seed)
        #: The number of batches so far, over all epochs.
        self.step = 0
        #: The number of completed epochs.
        self.epoch = 0
        self._position = 0
        self._resumed = False

    def __len__(self) -> int:
        num_facts = self.data.num_facts(self.split)
        return num_facts // self.batch_size if self.drop_last else -(-num_facts // self.batch_size)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_facts={self.data.num_facts(self.split)}, batch_size={self.batch_size}, '
                f'corrupt={self.corrupt!r})')

    def __iter__(self) -> Iterator[Batch]:
        r"""Yields the batches of one epoch, or, directly after :meth:`load_state_dict`, the remaining batches of the
        interrupted epoch.
        """
        if self._position > 0 and not self._resumed:
            self._position = 0
            self.epoch += 1
        self._resumed = False
        return self._rest_of_epoch()

    def batches(self) -> Iterator[Batch]:
        r"""Yields an infinite sequence of batches over all epochs, from the current position."""
        self._resumed = False
        while True:
            yield from self._rest_of_epoch()

    def _rest_of_epoch(self) -> Iterator[Batch]:
        epoch, num_batches = self.epoch, len(self)
        columns, weights = self.data.columns(self.split), self.data.weights(self.split)
        order = self._order(columns[0].numel(), epoch, columns[0].device)
        for position in range(self._position, num_batches):
            start = position * self.batch_size
            own: Any = slice(start, start + self.batch_size)
            if order is not None:
                own = order[own]
            head, relation, tail = (column[own].long() for column in columns)
            batch = self._batch(head, relation, tail, position + epoch, None if weights is None else weights[own])
            # The state already points to the next batch, so that it can be saved while this batch is in use.
            self.step += 1
            self.epoch, self._position = (epoch + 1, 0) if position + 1 == num_batches else (epoch, position + 1)
            yield batch if self.transform is None else self.transform(batch)

    def _order(self, num_facts: int, epoch: int, device: torch.device) -> Optional[Tensor]:
        if not self.shuffle:
            return None
        # Each epoch has its own generator, so two numbers restore the order and it need not be saved.
        generator = torch.Generator(device).manual_seed(_mix(self.seed, epoch))
        return torch.randperm(num_facts, generator=generator, device=device)

    def _batch(self, head: Tensor, relation: Tensor, tail: Tensor, parity: int, weight: Optional[Tensor]) -> Batch:
        batch = Batch(head, relation, tail, self._side(relation, parity), num_nodes=self.data.num_nodes,
                      num_relations=self.data.num_relations, weight=weight, step=self.step, source=self.data,
                      generator=self.generator)
        batch.__dict__['_checked'] = True  # All facts were checked when the loader was created.
        return batch

    def _side(self, relation: Tensor, parity: int) -> Side:
        # The parity changes with each epoch, so that both ends of unshuffled facts are corrupted even if an epoch has
        # an even number of batches.
        if self.corrupt == 'both':
            return (torch.arange(relation.numel(), device=relation.device) + parity) % 2 == 0
        if self.corrupt == 'bernoulli':
            return bernoulli_sides(self.data.fact_index('train'), relation, self.generator)
        if self.corrupt == 'alternate':
            return 'tail' if parity % 2 == 0 else 'head'
        return self.corrupt

    def state_dict(self) -> dict[str, Any]:
        r"""Returns the position in the epoch and the state of :attr:`generator`, as numbers and a tensor."""
        return {**self._identity(), 'step': self.step, 'epoch': self.epoch, 'position': self._position,
                'generator': self.generator.get_state()}

    def _identity(self) -> dict[str, Any]:
        return {'num_facts': self.data.num_facts(self.split), 'batch_size': self.batch_size, 'shuffle': self.shuffle,
                'corrupt': self.corrupt, 'split': self.split, 'drop_last': self.drop_last, 'seed': self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues from the position of another loader.

        Args:
            state (dict): The result of :meth:`state_dict`.

        Raises:
            ArgumentError: If the state is not a dictionary.
            CheckpointError: If the state is incomplete or damaged, or belongs to a loader with other arguments, another
                number of facts or another type of device.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f'state: expected the dictionary that state_dict() returned, got {shown(state)}')
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise CheckpointError("state: expected the result of state_dict() of a loader, got one without "
                                  f"{', '.join(missing)}")
        for key, value in self._identity().items():
            if not isinstance(state[key], (str, int)) or state[key] != value:
                raise CheckpointError(f'state: expected the state of a loader with {key}={value!r}, got '
                                      f'{key}={shown(state[key])}; continue with a loader with the same arguments')
        for key in ('step', 'epoch', 'position'):
            if isinstance(state[key], bool) or not isinstance(state[key], int) or state[key] < 0:
                raise CheckpointError(f'state: expected an integer of at least 0 as {key}, got {shown(state[key])}; '
                                      'the state is damaged')
        try:
            self.generator.set_state(state['generator'].cpu())
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f'state: expected the random state of a generator on {self.generator.device}, got '
                                  f'one that it cannot load ({error}); continue on the same type of device') from error
        self.step, self.epoch, self._position = state['step'], state['epoch'], state['position']
        self._resumed = True


def _mix(seed: int, epoch: int) -> int:
    r"""Returns a seed in [0, 2^63) for each (seed, epoch) by the finaliser of SplitMix64, which separates similar
    seeds."""
    value = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xBF58476D1CE4E5B9) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return (value ^ (value >> 31)) % 2**63

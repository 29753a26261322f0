r"""Mini-batches of triples, cut on the device that holds the facts."""
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

_CORRUPT = ('alternate', 'both', 'tail', 'head', 'bernoulli')


class TripletLoader:
    r"""Iterates over the facts of a :class:`~pyg_emu.KGData` and yields a :class:`~pyg_emu.Batch` at a time.

    Facts never leave their device, and no worker process is started. Each :obj:`for` loop is one epoch, in a new random
    order if :obj:`shuffle` is set. :meth:`state_dict` may be called between any two batches. A loader that loads it
    continues with the next batch and the same random stream.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True, transform=EMUNegatives(num_negatives=256))
        for batch in loader:  # one epoch
            loss = criterion(model, batch)

    Args:
        data (KGData): The knowledge graph.
        batch_size (int): Triples per batch. (default: :obj:`1000`)
        shuffle (bool): Whether each epoch visits the facts in a new random order. (default: :obj:`False`)
        transform (callable, optional): Called on every batch, such as :class:`~pyg_emu.EMUNegatives`.
            (default: :obj:`None`)
        corrupt (str): The end of each triple that is predicted: :obj:`"alternate"` (tails in one batch, heads in the
            next; the order changes with each epoch), :obj:`"both"` (every second row of a batch), :obj:`"tail"`,
            :obj:`"head"`, or :obj:`"bernoulli"`: the head of each triple with probability
            :math:`\mathrm{tph} / (\mathrm{tph} + \mathrm{hpt})`, the mean numbers of tails per head and of heads per
            tail of its relation in the training facts, as in the `"TransH"
            <https://ojs.aaai.org/index.php/AAAI/article/view/8870>`_ paper; one half for a relation without training
            facts. All options work with any sampler. (default: :obj:`"alternate"`)
        split (str): The split: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`. (default:
            :obj:`"train"`)
        drop_last (bool): Whether to leave out a last batch that is smaller than the others. (default: :obj:`False`)
        seed (int): Seed of the order and of :attr:`generator`. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If the split has no facts, or unusable ones.
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
            raise ArgumentError(f'data: expected a KGData, got {type(data).__name__}; load_dataset(...) makes one '
                                'from a name, a folder, a DataFrame or a graph of PyG')
        batch_size = int(positive_integer('batch_size', batch_size))
        one_of('corrupt', corrupt, _CORRUPT)
        one_of('split', split, (*SPLITS, 'all'))
        shuffle, drop_last = boolean('shuffle', shuffle), boolean('drop_last', drop_last)
        seed = random_seed('seed', seed)
        if transform is not None and (isinstance(transform, type) or not callable(transform)):
            raise ArgumentError(f'transform: expected a function of a batch, got {type(transform).__name__}')
        check_data(data)
        if data.num_facts(split) == 0:
            raise DataError(f'split: the {split} split has no facts; choose another one or load data that has them')
        if drop_last and data.num_facts(split) < batch_size:
            raise ArgumentError(f'drop_last: expected at least batch_size={batch_size} facts, the {split} split has '
                                f'{data.num_facts(split)}; lower batch_size or set drop_last=False')
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform = transform
        self.corrupt = corrupt
        self.split = split
        self.drop_last = drop_last
        self.seed = seed
        #: The random stream of the run, for everything that is drawn in a step. The order of the facts is not drawn
        #: from it; it depends on the seed and the number of the epoch.
        self.generator = torch.Generator(data.device).manual_seed(seed)
        #: Batches drawn so far, over all epochs.
        self.step = 0
        #: Epochs completed so far.
        self.epoch = 0
        self._position = 0
        self._resumed = False
        self._head_share: Optional[Tensor] = None

    def __len__(self) -> int:
        num_facts = self.data.num_facts(self.split)
        return num_facts // self.batch_size if self.drop_last else -(-num_facts // self.batch_size)

    def __repr__(self) -> str:
        return (f'{self.__class__.__name__}(num_facts={self.data.num_facts(self.split)}, batch_size={self.batch_size}, '
                f'corrupt={self.corrupt!r})')

    def __iter__(self) -> Iterator[Batch]:
        r"""Yields the batches of one epoch, or, directly after :meth:`load_state_dict`, the rest of the interrupted
        one.
        """
        if self._position > 0 and not self._resumed:
            self._position = 0
            self.epoch += 1
        self._resumed = False
        return self._rest_of_epoch()

    def batches(self) -> Iterator[Batch]:
        r"""Yields batches without end, epoch after epoch, from the current position."""
        self._resumed = False
        while True:
            yield from self._rest_of_epoch()

    def _rest_of_epoch(self) -> Iterator[Batch]:
        epoch, num_batches = self.epoch, len(self)
        columns = self.data.facts(self.split).t()
        order = self._order(columns.size(1), epoch, columns.device)
        if self.corrupt == 'bernoulli':
            self._head_share = _bernoulli_shares(self.data)
        for position in range(self._position, num_batches):
            start = position * self.batch_size
            if order is None:
                rows = columns[:, start:start + self.batch_size]
            else:
                rows = columns.index_select(1, order[start:start + self.batch_size])
            batch = self._batch(rows, position + epoch)
            # The state names the next batch before this one is yielded, so that it may be saved while this one is used.
            self.step += 1
            self.epoch, self._position = (epoch + 1, 0) if position + 1 == num_batches else (epoch, position + 1)
            yield batch if self.transform is None else self.transform(batch)

    def _order(self, num_facts: int, epoch: int, device: torch.device) -> Optional[Tensor]:
        if not self.shuffle:
            return None
        # Each epoch has its own stream, so that two numbers restore the order and it need not be saved.
        generator = torch.Generator(device).manual_seed(_mix(self.seed, epoch))
        return torch.randperm(num_facts, generator=generator, device=device)

    def _batch(self, rows: Tensor, parity: int) -> Batch:
        head, relation, tail = rows.unbind(0)
        batch = Batch(head, relation, tail, self._side(relation, parity), num_nodes=self.data.num_nodes,
                      num_relations=self.data.num_relations, step=self.step, source=self.data,
                      generator=self.generator)
        batch.__dict__['_checked'] = True  # All facts were checked when the loader was made.
        return batch

    def _side(self, relation: Tensor, parity: int) -> Side:
        # The parity changes with each epoch, so that both ends of unshuffled facts are corrupted, also if an epoch has
        # an even number of batches.
        if self.corrupt == 'both':
            return (torch.arange(relation.numel(), device=relation.device) + parity) % 2 == 0
        if self.corrupt == 'bernoulli':
            assert self._head_share is not None
            draw = torch.rand(relation.numel(), generator=self.generator, device=relation.device)
            return draw >= self._head_share[relation]
        if self.corrupt == 'alternate':
            return 'tail' if parity % 2 == 0 else 'head'
        return self.corrupt

    def state_dict(self) -> dict[str, Any]:
        r"""The position in the epoch and the state of :attr:`generator`, as numbers and a tensor."""
        return {**self._identity(), 'step': self.step, 'epoch': self.epoch, 'position': self._position,
                'generator': self.generator.get_state()}

    def _identity(self) -> dict[str, Any]:
        return {'num_facts': self.data.num_facts(self.split), 'batch_size': self.batch_size, 'shuffle': self.shuffle,
                'corrupt': self.corrupt, 'split': self.split, 'drop_last': self.drop_last, 'seed': self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Continues from the position of another loader.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            ArgumentError: If the state is not a dictionary.
            CheckpointError: If the state is incomplete or damaged, or belongs to a loader with other arguments, another
                number of facts or another kind of device.
        """
        if not isinstance(state, Mapping):
            raise ArgumentError(f'state: expected the dictionary that state_dict() returned, got {shown(state)}')
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise CheckpointError(f"the loader's state lacks {', '.join(missing)}; give the result of state_dict()")
        for key, value in self._identity().items():
            if not isinstance(state[key], (str, int)) or state[key] != value:
                raise CheckpointError(f"the loader's state was saved with {key}={shown(state[key])}, this loader has "
                                      f'{key}={value!r}; continue with a loader made with the same arguments')
        for key in ('step', 'epoch', 'position'):
            if isinstance(state[key], bool) or not isinstance(state[key], int) or state[key] < 0:
                raise CheckpointError(f"the loader's state is damaged: expected an integer of at least 0 as {key}, got "
                                      f'{shown(state[key])}')
        try:
            self.generator.set_state(state['generator'].cpu())
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError("the loader's random state was saved on another kind of device than "
                                  f'{self.generator.device} ({error}); continue on that kind') from error
        self.step, self.epoch, self._position = state['step'], state['epoch'], state['position']
        self._resumed = True


def _bernoulli_shares(data: KGData) -> Tensor:
    r"""The probability that the head is corrupted, tph / (tph + hpt), for each relation. shape: :obj:`(R,)`."""
    # With H distinct heads, T distinct tails and F facts, tph is F / H and hpt is F / T: the share is T / (H + T).
    heads, tails = data.fact_index('train').distinct_ends()
    return torch.where(heads > 0, tails / (heads + tails), 0.5)


def _mix(seed: int, epoch: int) -> int:
    r"""A seed in [0, 2^63) for each (seed, epoch): the finaliser of SplitMix64, which keeps neighbours apart."""
    value = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xBF58476D1CE4E5B9) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return (value ^ (value >> 31)) % 2**63

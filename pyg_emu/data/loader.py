r"""Mini-batches of triples, cut on the device that holds the facts."""
from __future__ import annotations

from typing import Any, Callable, Iterator, Literal, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import positive_integer, random_seed
from pyg_emu.core.contract import Side
from pyg_emu.core.errors import ArgumentError, CheckpointError, DataError
from pyg_emu.data.checks import check_data
from pyg_emu.data.graph import KGData

_CORRUPT = ('alternate', 'both', 'tail', 'head', 'bernoulli')


class TripletLoader:
    r"""Iterates over the facts of a :class:`~pyg_emu.KGData` in batches, themselves
    :class:`~pyg_emu.KGData`.

    Facts never leave their device, and no worker process is started. Each :obj:`for` loop is one epoch, in an order of
    its own where :obj:`shuffle` is set. :meth:`state_dict` may be taken between any two batches: a loader that loads it
    goes on with the very next batch and the same random stream.

    .. code-block:: python

        loader = TripletLoader(data, batch_size=1000, shuffle=True, transform=EMUNegatives(num_negatives=256))
        for batch in loader:  # one epoch
            loss = criterion(model, batch)

    Args:
        data (KGData): The knowledge graph.
        batch_size (int): Triples per batch. (default: :obj:`1000`)
        shuffle (bool): Whether each epoch visits the facts in a fresh random order. (default: :obj:`False`)
        transform (callable, optional): Called on every batch, such as :class:`~pyg_emu.EMUNegatives`.
            (default: :obj:`None`)
        corrupt (str): Which end is to be predicted: :obj:`"alternate"` (the tails of one batch, the heads of the next;
            in the next epoch the other way round), :obj:`"both"` (within a batch, every second row), :obj:`"tail"`,
            :obj:`"head"`, or :obj:`"bernoulli"`: the head of each triple with probability
            :math:`\mathrm{tph} / (\mathrm{tph} + \mathrm{hpt})`, its relation's mean numbers of tails per head and of
            heads per tail in the training facts, as in the `"TransH"
            <https://ojs.aaai.org/index.php/AAAI/article/view/8870>`_ paper; one half for a relation without training
            facts. It works with any sampler. (default: :obj:`"alternate"`)
        split (str): Whose facts: :obj:`"train"`, :obj:`"valid"`, :obj:`"test"` or :obj:`"all"`. (default:
            :obj:`"train"`)
        drop_last (bool): Whether to leave out the last batch where it is smaller. (default: :obj:`False`)
        seed (int): Seed of the order and of :attr:`generator`. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain.
        DataError: If the split has no facts, or facts that cannot be used.
    """
    def __init__(
        self,
        data: KGData,
        batch_size: int = 1000,
        shuffle: bool = False,
        transform: Optional[Callable[[KGData], Any]] = None,
        corrupt: Literal['alternate', 'both', 'tail', 'head', 'bernoulli'] = 'alternate',
        split: Literal['train', 'valid', 'test', 'all'] = 'train',
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(data, KGData):
            raise ArgumentError(f'data has to be a KGData, got {type(data).__name__}; load_dataset(...) makes one '
                                'of a name, a folder, a DataFrame or a graph of PyG')
        batch_size = int(positive_integer('batch_size', batch_size))
        if corrupt not in _CORRUPT:
            raise ArgumentError(f"corrupt must be 'alternate', 'both', 'tail', 'head' or 'bernoulli', got {corrupt!r}")
        seed = random_seed('seed', seed)
        if transform is not None and not callable(transform):
            raise ArgumentError(f'transform has to be callable, got {type(transform).__name__}')
        check_data(data)
        if data.num_facts(split) == 0:
            raise DataError(f'the {split} split has no facts to make batches of')
        if drop_last and data.num_facts(split) < batch_size:
            raise ArgumentError(f'drop_last leaves no batch: batch_size is {batch_size}, the {split} split has '
                                f'{data.num_facts(split)} facts')
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.transform = transform
        self.corrupt = corrupt
        self.split = split
        self.drop_last = drop_last
        self.seed = seed
        #: The run's one random stream, for everything that is drawn in a step. The order of the facts is not drawn from
        #: it, but follows from the seed and the number of the epoch.
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

    def __iter__(self) -> Iterator[KGData]:
        r"""One epoch; directly after :meth:`load_state_dict`, the rest of the one that was interrupted."""
        if self._position > 0 and not self._resumed:
            self._position = 0
            self.epoch += 1
        self._resumed = False
        return self._rest_of_epoch()

    def batches(self) -> Iterator[KGData]:
        r"""Batches without end, one epoch after the other, from where the loader stands."""
        self._resumed = False
        while True:
            yield from self._rest_of_epoch()

    def _rest_of_epoch(self) -> Iterator[KGData]:
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
            # The state names the NEXT batch before this one is handed out, so that it may be saved while this one is
            # used.
            self.step += 1
            self.epoch, self._position = (epoch + 1, 0) if position + 1 == num_batches else (epoch, position + 1)
            yield batch if self.transform is None else self.transform(batch)

    def _order(self, num_facts: int, epoch: int, device: torch.device) -> Optional[Tensor]:
        if not self.shuffle:
            return None
        # A stream of its own for each epoch: the order can be had again from two numbers, without being saved.
        generator = torch.Generator(device).manual_seed(_mix(self.seed, epoch))
        return torch.randperm(num_facts, generator=generator, device=device)

    def _batch(self, rows: Tensor, parity: int) -> KGData:
        head, relation, tail = rows.unbind(0)
        batch = KGData(num_nodes=self.data.num_nodes, num_relations=self.data.num_relations, head_index=head,
                       rel_type=relation, tail_index=tail, side=self._side(relation, parity), step=self.step)
        batch.source = self.data
        batch.generator = self.generator
        return batch

    def _side(self, relation: Tensor, parity: int) -> Side:
        # The parity turns from one epoch to the next, so that unshuffled facts see both of their ends corrupted, also
        # where an epoch has an even number of batches.
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
        r"""Where the loader stands: numbers, and the state of :attr:`generator` as a tensor."""
        return {**self._identity(), 'step': self.step, 'epoch': self.epoch, 'position': self._position,
                'generator': self.generator.get_state()}

    def _identity(self) -> dict[str, Any]:
        return {'num_facts': self.data.num_facts(self.split), 'batch_size': self.batch_size, 'shuffle': self.shuffle,
                'corrupt': self.corrupt, 'split': self.split, 'drop_last': self.drop_last, 'seed': self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        r"""Goes on from where another loader stood.

        Args:
            state (dict): What :meth:`state_dict` returned.

        Raises:
            CheckpointError: If the state is incomplete, or belongs to a loader with other arguments, facts or device.
        """
        missing = [key for key in self.state_dict() if key not in state]
        if missing:
            raise CheckpointError(f"the loader's state lacks {', '.join(missing)}")
        for key, value in self._identity().items():
            if state[key] != value:
                raise CheckpointError(f"the loader's state was saved with {key}={state[key]!r}, this loader has "
                                      f'{key}={value!r}')
        try:
            self.generator.set_state(state['generator'].cpu())
        except (RuntimeError, TypeError, AttributeError) as error:
            raise CheckpointError(f"the loader's random state does not fit a generator on {self.generator.device}: it "
                                  f'was saved on another kind of device ({error})') from error
        self.step, self.epoch, self._position = state['step'], state['epoch'], state['position']
        self._resumed = True


def _bernoulli_shares(data: KGData) -> Tensor:
    r"""How often the head of each relation is to be corrupted, tph / (tph + hpt). shape: :obj:`(R,)`."""
    # With H distinct heads, T distinct tails and F facts, tph is F / H and hpt is F / T: the share is T / (H + T).
    heads, tails = data.fact_index('train').distinct_ends()
    return torch.where(heads > 0, tails / (heads + tails), 0.5)


def _mix(seed: int, epoch: int) -> int:
    r"""A seed in [0, 2^63) for each (seed, epoch): the finaliser of SplitMix64, which keeps neighbours apart."""
    value = (seed * 0x9E3779B97F4A7C15 + (epoch + 1) * 0xBF58476D1CE4E5B9) % 2**64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB % 2**64
    return (value ^ (value >> 31)) % 2**63

r"""Negatives from the neighbourhood of the known entity."""
from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import one_of, positive_integer, random_seed, without_effect
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import FilteredSampler, draw_unknown, random_below, replace
from pyg_emu.negatives.sampling.neighborhoods import Neighborhoods, k_hop_neighborhoods, walk_neighborhoods

#: More hops than the diameter of any knowledge graph.
_MAX_HOPS = 1000
#: Walks that visit nearly all that can be visited, of any entity. More of them would take days.
_MAX_WALKS = 10**6


class SANSSampler(FilteredSampler):
    r"""Structure-aware negatives from the `"Structure Aware Negative Sampling in Knowledge Graphs"
    <https://arxiv.org/abs/2009.11355>`_ paper: the negatives of a tail are drawn from the neighbourhood of the head,
    those of a head from the neighbourhood of the tail, in the undirected graph of the training facts and without the
    entity itself.

    Neighbourhoods are exact or found by random walks. They are computed when the first batch of a graph is sampled, and
    kept until its facts change. Draws are uniform over the neighbourhood, with :obj:`filtered` over its unknown
    entities. If there are none, draws are uniform over all entities (with :obj:`filtered`, over all unknown ones). Both
    are exact, without rejection rounds.

    .. code-block:: python

        transform = EMUNegatives(num_negatives=64, mutation_rate=0.3, sampler=SANSSampler(num_hops=2))

    Memory: four bytes for each pair of neighbours. Walks find at most :math:`V \cdot` :obj:`walks` :math:`\cdot`
    :obj:`num_hops` pairs, usually far fewer; three hops of a dense graph such as FB15k-237 reach nearly all of
    :math:`V^2` (0.8 GB), and are then hardly different from uniform draws.

    Args:
        num_hops (int, optional): Hops, or steps of a walk. (default: :obj:`3`)
        mode (str, optional): :obj:`"walk"` (the paper's RW-SANS, with equal weights) or :obj:`"khop"`. (default:
            :obj:`"walk"`)
        walks (int, optional): Random walks from each entity. (default: :obj:`1000`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`True`)
        split (str, optional): The split whose facts are known. Neighbourhoods are always those of the training facts.
            (default: :obj:`"train"`)
        max_size (int, optional): For :obj:`"khop"`, the largest number of pairs. (default: :obj:`2**28`, 1 GiB)
        seed (int, optional): Seed of the walks. (default: :obj:`0`)

    Raises:
        ArgumentError: If an argument is outside of its domain, or has no effect with :obj:`mode`; when sampling, if
            there are more than :obj:`max_size` pairs, or the batch has no :obj:`source`.
    """
    def __init__(
        self,
        num_hops: int = 3,
        mode: Literal['walk', 'khop'] = 'walk',
        walks: int = 1000,
        filtered: bool = True,
        split: str = 'train',
        max_size: int = 2**28,
        seed: int = 0,
    ) -> None:
        super().__init__(filtered, split)
        one_of('mode', mode, ('walk', 'khop'))
        self.num_hops = positive_integer('num_hops', num_hops)
        self.mode = mode
        self.walks = positive_integer('walks', walks)
        self.max_size = positive_integer('max_size', max_size)
        for name, most in (('num_hops', _MAX_HOPS), ('walks', _MAX_WALKS)):
            if getattr(self, name) > most:
                raise ArgumentError(f'{name}: expected at most {most}, got {getattr(self, name)}')
        self.seed = random_seed('seed', seed)
        unread = {'max_size': max_size} if mode == 'walk' else {'walks': walks, 'seed': seed}
        without_effect(f'mode={mode!r}', SANSSampler, **unread)
        self._state: Optional[_State] = None

    def neighborhoods(self, batch: Batch) -> Neighborhoods:
        r"""The neighbourhoods in the graph that a batch came from."""
        return self._prepare(batch).near

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        state = self._prepare(batch)
        row = batch.known_index
        size = state.near.size(row).unsqueeze(1)
        entity = state.near.at(row, random_below(size.expand(-1, num_negatives), generator))
        if not self.filtered:
            anywhere = torch.randint(batch.num_nodes, entity.shape, generator=generator, device=entity.device)
            return Negatives(torch.where(size > 0, entity, anywhere))
        # A neighbour, and where it is known, one of the n - c that are not: 1/n + (c/n) / (n - c) = 1 / (n - c).
        wrong = (size == 0) | state.known.is_known(entity, row, batch.rel_type, batch.corrupts_tail)
        entity = replace(entity, wrong, batch, partial(state.draw, generator=generator))
        return self._negatives(state.known, batch, entity)

    def _prepare(self, batch: Batch) -> _State:
        train = self._facts(batch, 'train')
        # New indices are built whenever facts change or move, so this one tells whether the state is still valid.
        if self._state is None or self._state.train is not train:
            known = self._known_facts(batch) if self.filtered else train
            assert batch.source is not None
            near = self._search(batch.source.facts('train'), train.num_nodes)
            self._state = _State(train, known, near, _Places(known, near))
        return self._state

    def _search(self, facts: Tensor, num_nodes: int) -> Neighborhoods:
        if self.mode == 'khop':
            return k_hop_neighborhoods(facts, num_nodes, self.num_hops, self.max_size)
        # A separate stream: neighbourhoods must not depend on when in a run they are computed.
        generator = torch.Generator(facts.device).manual_seed(self.seed)
        return walk_neighborhoods(facts, num_nodes, self.num_hops, self.walks, generator)

    def __repr__(self) -> str:
        walks = f', walks={self.walks}' if self.mode == 'walk' else ''
        return (f'{self.__class__.__name__}(num_hops={self.num_hops}, mode={self.mode!r}{walks}, '
                f'filtered={self.filtered}, split={self.split!r})')


class _Places(FactIndex):
    r"""The known answers by their places in the neighbourhood of the known entity; those outside of it do not occur.

    :meth:`count` and :meth:`unknown` then speak of places where a :class:`FactIndex` speaks of entities.
    """
    def __init__(self, index: FactIndex, near: Neighborhoods) -> None:
        self.num_nodes = index.num_nodes
        self.num_relations = index.num_relations
        self._numbers = index._numbers
        pattern, answer = index.unpacked(index.keys)
        row = torch.div(pattern, index.num_relations, rounding_mode='floor') % index.num_nodes
        found, place = near.find(row, answer)
        # Ascending still, as places ascend with the entities.
        self.keys = (index.keys - answer + place)[found]
        self._forget()


class _State(NamedTuple):
    r"""What is prepared of a graph."""
    train: FactIndex
    known: FactIndex
    near: Neighborhoods
    places: _Places

    def draw(self, known: Tensor, rel_type: Tensor, tails: Tensor, num_negatives: int,
             generator: Optional[torch.Generator]) -> Tensor:
        r"""Unknown neighbours, or where there are none, unknown entities."""
        left = (self.near.size(known) - self.places.count(known, rel_type, tails)).unsqueeze(1)
        rank = random_below(left.expand(-1, num_negatives), generator)
        near = self.near.at(known, self.places.unknown(rank, known, rel_type, tails))
        far = draw_unknown(self.known, known, rel_type, tails, num_negatives, generator)
        return torch.where(left > 0, near, far)

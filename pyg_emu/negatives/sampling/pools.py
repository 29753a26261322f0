r"""Negatives from pools of entities: each triple has a pool, and its candidates are drawn from it by weight."""
from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Optional

import torch
from torch import Tensor

from pyg_emu.core.arguments import share
from pyg_emu.core.entries import entries
from pyg_emu.data.batch import Batch
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.contract import Negatives
from pyg_emu.negatives.sampling.filtered import (
    FilteredSampler,
    draw_unknown,
    mix_with_uniform,
    random_below,
    redraw,
)
from pyg_emu.ops.searchsorted import searchsorted

#: The largest sum of the integer weights of a pool, below the 53 bits of a random number.
_LARGEST_SUM = 2**50


class Pools:
    r"""Pools of entities. A triple's pool is that of its relation and side, or that of the entity it predicts.

    Weights are integers. Sums of them are exact, so that a draw never meets an entity that was left out.

    Args:
        pool (torch.Tensor): Pools of the members, ascending. shape: :obj:`(M,)`, int64.
        entity (torch.Tensor): Their entities, distinct and ascending within a pool. shape: :obj:`(M,)`, int64.
        num_pools (int): Number of pools. One more, which is empty, follows them: the pool of triples without one.
        num_nodes (int): Number of entities.
        num_relations (int): Number of relations.
        weight (torch.Tensor, optional): Positive weights, see :func:`integer_weights`. shape: :obj:`(M,)`, int64.
            (default: :obj:`None`, equal ones)
        of_entity (torch.Tensor, optional): The pool of each entity, as the one that is predicted. shape: :obj:`(V,)`,
            int64. (default: :obj:`None`, pool :math:`r` for tails of relation :math:`r` and :math:`R + r` for heads)
    """
    def __init__(self, pool: Tensor, entity: Tensor, num_pools: int, num_nodes: int, num_relations: int,
                 weight: Optional[Tensor] = None, of_entity: Optional[Tensor] = None) -> None:
        self.num_nodes = num_nodes
        self.num_relations = num_relations
        self.empty = num_pools
        self.ptr = torch.searchsorted(pool, torch.arange(num_pools + 2, device=pool.device))
        #: Members as :math:`p V + x`, ascending.
        self.key = pool * num_nodes + entity
        # Never empty, so that it can be read from.
        self.entity = entity if entity.numel() > 0 else entity.new_zeros(1)
        self.bound = None if weight is None else torch.cat([weight.new_zeros(1), weight.cumsum(0)])
        self.of_entity = of_entity

    def find(self, target: Tensor, rel_type: Tensor, tails: Tensor) -> Tensor:
        r"""The pools of triples. shape: :obj:`(B,)`."""
        if self.of_entity is None:
            pool = torch.where(tails, rel_type, rel_type + self.num_relations)
            return torch.where(rel_type < self.num_relations, pool, self.empty)
        pool = self.of_entity[target.clamp(max=self.num_nodes - 1)]
        return torch.where(target < self.num_nodes, pool, self.empty)

    def size(self, pool: Tensor) -> Tensor:
        r"""The numbers of members of pools. shape: :obj:`(B,)`."""
        return self.ptr[pool + 1] - self.ptr[pool]

    def mass(self, place: Tensor) -> Tensor:
        r"""The sums of the weights of all members before :obj:`place`, which has any shape."""
        return place if self.bound is None else entries(self.bound, place)

    def draw(self, pool: Tensor, num_negatives: int, generator: Optional[torch.Generator]) -> Tensor:
        r"""Draws members by weight; some entity where a pool is empty. shape: :obj:`(B, N)`."""
        start, end = self.mass(self.ptr[pool]).unsqueeze(1), self.mass(self.ptr[pool + 1]).unsqueeze(1)
        return self.at(start + random_below((end - start).expand(-1, num_negatives), generator))

    def at(self, mass: Tensor) -> Tensor:
        r"""The members in whose part of the sum of all weights :obj:`mass` falls. shape: that of :obj:`mass`."""
        place = mass if self.bound is None else searchsorted(self.bound, mass, right=True) - 1
        return entries(self.entity, place.clamp(0, self.entity.numel() - 1))

    def segment(self, pattern: Tensor, pool: Tensor) -> Tensor:
        r"""Numbers of pairs of a pattern and a pool. shape: :obj:`(B,)`."""
        # The relation and the side of a pattern are its pool.
        return pattern if self.of_entity is None else pattern * (self.empty + 1) + pool


class _KnownMembers:
    r"""The known answers among the members of the pools, by pattern. It draws the members that are not known.

    With weights :math:`w`, members in ascending order and :math:`b_i` the sum of the weights before the known member
    :math:`i` of a pattern, :math:`b_i - \sum_{j < i} w_j` is the mass of unknown members before it. It never descends,
    so that bisection turns a mass of unknown members into one of all members, as :meth:`FactIndex.unknown` does with
    ranks.
    """
    def __init__(self, pools: Pools, index: FactIndex) -> None:
        pattern, answer = index.unpacked(index.keys)
        tails = pattern < index.num_nodes * index.num_relations
        pool = pools.find(answer, pattern % max(index.num_relations, 1), tails)
        wanted = pool * index.num_nodes + answer
        place = searchsorted(pools.key, wanted)
        found = place < pools.key.numel()
        found &= pools.key[place.clamp(max=max(pools.key.numel() - 1, 0))] == wanted if pools.key.numel() > 0 else found
        segment, order = pools.segment(pattern, pool)[found].sort(stable=True)
        place, pool = place[found][order], pool[found][order]
        weight = pools.mass(place + 1) - pools.mass(place)
        #: The pair of pattern and pool of each known member, ascending.
        self.segment = segment
        #: The sum of the weights of the known members before each place, and of all.
        self.taken = torch.cat([weight.new_zeros(1), weight.cumsum(0)])
        self.pools = pools
        sums = pools.mass(pools.ptr[1:]) - pools.mass(pools.ptr[:-1])
        # More than the mass of any pool, to tell the segments apart.
        self.span = int(sums.max()) + 1
        first = torch.searchsorted(segment, segment)
        before = pools.mass(place) - pools.mass(pools.ptr[pool]) - (self.taken[:-1] - self.taken[first])
        self.before = first * self.span + before

    def draw(self, pool: Tensor, pattern: Tensor, num_negatives: int,
             generator: Optional[torch.Generator]) -> tuple[Tensor, Tensor]:
        r"""Draws unknown members by weight :obj:`(B, N)`, and tells which pools have any :obj:`(B,)`."""
        segment = self.pools.segment(pattern, pool)
        first = torch.searchsorted(self.segment, segment)
        last = torch.searchsorted(self.segment, segment, right=True)
        start, end = self.pools.mass(self.pools.ptr[pool]), self.pools.mass(self.pools.ptr[pool + 1])
        left = end - start - (self.taken[last] - self.taken[first])
        mass = random_below(left.unsqueeze(1).expand(-1, num_negatives), generator)
        below = searchsorted(self.before, mass + (first * self.span).unsqueeze(1), right=True)
        # A pattern without known members would count those of the next one.
        below = torch.minimum(below, last.unsqueeze(1))
        mass = mass + entries(self.taken, below) - self.taken[first].unsqueeze(1)
        return self.pools.at(mass + start.unsqueeze(1)), left > 0

    def any_left(self, pool: Tensor, pattern: Tensor) -> Tensor:
        r"""Whether pools have unknown members. shape: :obj:`(B,)`, bool."""
        segment = self.pools.segment(pattern, pool)
        first, last = (torch.searchsorted(self.segment, segment, right=right) for right in (False, True))
        return self.pools.size(pool) > last - first


class _State(NamedTuple):
    r"""What is prepared of a graph."""
    train: FactIndex
    known: FactIndex
    pools: Pools
    members: Optional[_KnownMembers]

    def draw(self, batch: Batch, pool: Tensor, generator: Optional[torch.Generator], row: Any,
             num_negatives: int) -> Tensor:
        r"""Unknown members, or where there are none, unknown entities, for some rows of a batch."""
        assert self.members is not None
        known, relation, tails = batch.known_index[row], batch.rel_type[row], batch.corrupts_tail[row]
        pattern = self.known.pattern(known, relation, tails)
        near, some = self.members.draw(pool[row], pattern, num_negatives, generator)
        far = draw_unknown(self.known, known, relation, tails, num_negatives, generator)
        return torch.where(some.unsqueeze(1), near, far)


class PoolSampler(FilteredSampler):
    r"""Base class of samplers that draw from pools of entities; a subclass implements :meth:`_build`.

    A triple whose pool is empty, contains only the predicted entity or, with :obj:`filtered`, contains only known
    answers, receives uniform draws of all entities (with :obj:`filtered`, of all unknown ones). All draws are exact,
    without rejection rounds. Pools are made from the training facts when the first batch of a graph is sampled, and
    kept until its facts change.

    Args:
        uniform (float, optional): The probability that a candidate is a uniform draw instead. (default: :obj:`0.0`)
        filtered (bool, optional): See :class:`FilteredSampler`. (default: :obj:`False`)
        split (str, optional): The split whose facts are known. (default: :obj:`"train"`)
    """
    def __init__(self, uniform: float = 0.0, filtered: bool = False, split: str = 'train') -> None:
        super().__init__(filtered, split)
        self.uniform = float(share('uniform', uniform))
        self._state: Optional[_State] = None

    def _build(self, train: FactIndex, largest_sum: int) -> Pools:
        r"""Makes the pools. Integer weights of a pool sum to about :obj:`largest_sum`."""
        raise NotImplementedError

    def _pools(self, batch: Batch, train: FactIndex, largest_sum: int) -> Pools:
        return self._build(train, largest_sum)

    def _sample(self, batch: Batch, num_negatives: int, generator: Optional[torch.Generator]) -> Negatives:
        state = self._prepare(batch)
        pools, target = state.pools, batch.target_index
        pool = pools.find(target, batch.rel_type, batch.corrupts_tail)
        size = pools.size(pool)
        first = pools.entity[pools.ptr[pool].clamp(max=pools.entity.numel() - 1)]
        # All of its draws would be the positive itself.
        pool = torch.where((size == 1) & (first == target), pools.empty, pool)
        none = (pools.size(pool) == 0).unsqueeze(1)
        entity = pools.draw(pool, num_negatives, generator)
        if not self.filtered:
            anywhere = torch.randint(batch.num_nodes, entity.shape, generator=generator, device=entity.device)
            entity = torch.where(none, anywhere, entity)
            return Negatives(mix_with_uniform(entity, self.uniform, batch, None, generator))
        # With W of the pool and K of its known members, 1/W + (K/W) / (W - K) = 1 / (W - K) for each unit of weight.
        wrong = none | state.known.is_known(entity, batch.known_index, batch.rel_type, batch.corrupts_tail)
        entity = redraw(entity, wrong, partial(state.draw, batch, pool, generator))
        entity = mix_with_uniform(entity, self.uniform, batch, state.known, generator)
        return self._negatives(state.known, batch, entity)

    def _prepare(self, batch: Batch) -> _State:
        train = self._facts(batch, 'train')
        # New indices are built whenever facts change or move, so this one tells whether the state is still valid.
        if self._state is None or self._state.train is not train:
            known = self._known_facts(batch) if self.filtered else train
            # Sums over all pools, and places of all known facts times sums, stay within 64 bits.
            most = max(2 * train.num_relations + 1, train.num_nodes + 1, known.keys.numel())
            pools = self._pools(batch, train, min(_LARGEST_SUM, 2**61 // most))
            self._state = _State(train, known, pools, _KnownMembers(pools, known) if self.filtered else None)
        return self._state


def integer_weights(log_weight: Tensor, pool: Tensor, num_pools: int, largest_sum: int) -> Tensor:
    r"""Turns weights into positive integers whose sum over a pool is about :obj:`largest_sum`.

    Args:
        log_weight (torch.Tensor): Logarithms of the weights. shape: :obj:`(M,)`.
        pool (torch.Tensor): The pools of the members. shape: :obj:`(M,)`.
        num_pools (int): Number of pools.
        largest_sum (int): The sum.

    :rtype: :class:`torch.Tensor` of shape :obj:`(M,)`, int64.
    """
    # On the CPU, where sums of floating-point numbers do not depend on the order in which threads finish.
    at, logs = pool.cpu(), log_weight.double().cpu()
    top = torch.full((num_pools, ), -torch.inf, dtype=torch.double).scatter_reduce(0, at, logs, 'amax')
    weight = (logs - top[at]).exp()
    total = torch.bincount(at, weight, minlength=num_pools)
    return (weight / total[at] * largest_sum).round().long().clamp_(min=1).to(pool.device)

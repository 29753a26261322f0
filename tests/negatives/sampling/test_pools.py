from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling import PopularitySampler, TypedSampler, pools
from pyg_emu.negatives.sampling.pools import Pools, PoolSampler, _KnownMembers, integer_weights
from tests.negatives.sampling.shares import assert_shares

NUM_NODES, NUM_RELATIONS = 7, 2
facts_strategy = st.lists(st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, NUM_RELATIONS - 1),
                                    st.integers(0, NUM_NODES - 1)), min_size=1, max_size=40)
types_strategy = st.lists(st.integers(-1, 2), min_size=NUM_NODES, max_size=NUM_NODES)


def make_batch(facts: Any, side: Any) -> Batch:
    head, relation, tail = torch.tensor(facts).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, NUM_RELATIONS)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=NUM_RELATIONS, source=source)


def every_rank(high: Tensor, generator: Optional[torch.Generator]) -> Tensor:
    r"""In place of random numbers: 0, 1, 2, ... in each row, again from 0 where there are no more."""
    return torch.arange(high.size(1)).expand_as(high) % high.clamp(min=1)


def expected_support(facts: list[tuple[int, int, int]], row: tuple[int, int, int], tails: bool, filtered: bool,
                     types: Optional[list[int]]) -> set[int]:
    r"""Who can be drawn for a triple, by the words of the documentation."""
    head, relation, tail = row
    target = tail if tails else head
    if types is None:
        pool = {t if tails else h for h, r, t in facts if r == relation}
    else:
        pool = {x for x in range(NUM_NODES) if types[x] == types[target] >= 0}
    everyone, known = set(range(NUM_NODES)), set()
    if filtered:
        known = {x for x in everyone if ((head, relation, x) if tails else (x, relation, tail)) in facts}
    if pool == {target}:
        pool = set()
    return (pool - known) or (everyone - known)


@pytest.mark.parametrize('filtered', [False, True])
@given(facts_strategy, st.integers(0, 99), st.one_of(st.none(), types_strategy))
def test_who_is_drawn(filtered: bool, facts: list[tuple[int, int, int]], seed: int, types: Optional[list[int]]) -> None:
    generator = torch.Generator().manual_seed(seed)
    side = torch.rand(len(facts), generator=generator) < 0.5
    sampler = TypedSampler(None if types is None else torch.tensor(types), filtered=filtered)
    batch = make_batch(facts, side)
    negatives = sampler.sample(batch, 150, generator)
    for number, (row, tails) in enumerate(zip(facts, side.tolist())):
        expected = expected_support(facts, row, tails, filtered, types)
        if expected:
            # The chance to miss one of 7 entities in 150 draws is below 1e-9.
            assert set(negatives.index[number].tolist()) == expected
        else:
            assert negatives.mask is not None and not negatives.mask[number].any()


@given(facts_strategy, st.booleans(), st.one_of(st.none(), types_strategy))
def test_what_a_gpu_draws_for_every_slot(facts: list[tuple[int, int, int]], tails: bool,
                                         types: Optional[list[int]]) -> None:
    sampler = TypedSampler(None if types is None else torch.tensor(types), filtered=True)
    batch = make_batch(facts, 'tail' if tails else 'head')
    sampler.sample(batch, 1, torch.Generator().manual_seed(0))
    state = sampler._state
    assert state is not None and state.members is not None
    pool = state.pools.find(batch.target_index, batch.rel_type, batch.corrupts_tail)
    pattern = state.known.pattern(batch.known_index, batch.rel_type, batch.side)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, 'random_below', every_rank)
        drawn, some = state.members.draw(pool, pattern, NUM_NODES, None)
    for row, entities, left in zip(facts, drawn.tolist(), some.tolist()):
        members = {x for x, p in zip(state.pools.entity.tolist(), (state.pools.key // NUM_NODES).tolist())
                   if p == int(pool[facts.index(row)])}
        known = {x for x in members if ((row[0], row[1], x) if tails else (x, row[1], row[2])) in facts}
        assert left == (len(members) > len(known))
        assert not left or set(entities) == members - known


def test_weights_are_drawn_to_the_unit() -> None:
    # Members 0, 2, 3, 5 weigh 3, 1, 2, 4; of pattern (0, 0) 2 and 5 are known, of (1, 0) nobody, of (2, 0) everyone.
    facts = torch.tensor([[0, 0, 2], [0, 0, 5], [0, 0, 6], [2, 0, 0], [2, 0, 2], [2, 0, 3], [2, 0, 5]])
    index = FactIndex(facts, NUM_NODES, NUM_RELATIONS)
    entity = torch.tensor([0, 2, 3, 5])
    given_pools = Pools(torch.zeros_like(entity), entity, 1, NUM_NODES, NUM_RELATIONS, torch.tensor([3, 1, 2, 4]),
                        torch.zeros(NUM_NODES, dtype=torch.int64))
    members = _KnownMembers(given_pools, index)
    head = torch.arange(3)
    pattern = index.pattern(head, torch.zeros_like(head), 'tail')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pools, 'random_below', every_rank)
        drawn, some = members.draw(torch.zeros_like(head), pattern, 10, None)
        plain = given_pools.draw(torch.zeros(1, dtype=torch.int64), 10, None)
    assert some.tolist() == [True, True, False]
    assert drawn[0, :5].tolist() == [0, 0, 0, 3, 3]
    assert drawn[1].tolist() == plain[0].tolist() == [0, 0, 0, 2, 3, 3, 5, 5, 5, 5]


def test_known_facts_of_a_split_that_no_pool_holds() -> None:
    batch = make_batch([(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 0, 2)], 'tail')
    assert batch.source is not None
    batch.source.test_edge_index, batch.source.test_edge_type = torch.tensor([[1, 1], [3, 5]]), torch.tensor([0, 0])
    sampler = TypedSampler(filtered=True, split='all')
    drawn = [set(row) for row in sampler.sample(batch, 200, torch.Generator().manual_seed(0)).index.tolist()]
    assert drawn == [{0, 4, 5, 6}] * 3 + [{1}]


def test_integer_weights() -> None:
    pool = torch.tensor([0, 0, 0, 1, 2, 2])
    weights = integer_weights(torch.tensor([1.0, 2.0, 5.0, 7.0, 1e-300, 1.0]).double().log(), pool, 4, 2**40)
    assert weights.tolist() == [round(2**40 / 8), round(2**40 / 4), round(2**40 * 5 / 8), 2**40, 1, 2**40]
    extreme = integer_weights(torch.tensor([0.0, -1e30, 1e30]), torch.zeros(3, dtype=torch.int64), 1, 8)
    assert extreme.tolist() == [1, 1, 8]


def test_ends_of_relations() -> None:
    train = FactIndex(torch.tensor([[0, 0, 1], [2, 0, 1], [0, 0, 3], [4, 1, 4], [4, 1, 4]]), NUM_NODES, NUM_RELATIONS)
    end, entity, count = ends_of_relations(train)
    assert list(zip(end.tolist(), entity.tolist(), count.tolist())) == [
        (0, 1, 2), (0, 3, 1), (1, 4, 1), (2, 0, 2), (2, 2, 1), (3, 4, 1)]


def test_pools_are_made_once_and_again_when_facts_change(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, made = make_batch([(0, 0, 1), (1, 0, 2), (3, 0, 4)], 'tail'), []
    sampler = TypedSampler()
    build = sampler._build
    monkeypatch.setattr(sampler, '_build', lambda *args: made.append(1) or build(*args))
    first = sampler.sample(batch, 60, torch.Generator().manual_seed(0)).index
    assert sampler.sample(batch, 60, torch.Generator().manual_seed(0)).index.equal(first) and len(made) == 1
    assert set(first.flatten().tolist()) == {1, 2, 4}
    assert batch.source is not None
    batch.source.edge_index = torch.tensor([[0, 1, 3], [6, 5, 0]])
    again = sampler.sample(batch, 60, torch.Generator().manual_seed(0)).index
    assert set(again.flatten().tolist()) == {0, 5, 6} and len(made) == 2


@pytest.mark.parametrize('sampler', [TypedSampler(), PopularitySampler(), PopularitySampler(per_relation=True)])
def test_ids_that_the_graph_does_not_have(sampler: PoolSampler) -> None:
    batch = make_batch([(0, 0, 1), (1, 0, 2)], 'tail')
    strange = Batch(torch.tensor([0, 8]), torch.tensor([5, 0]), torch.tensor([9, 1]), 'tail', num_nodes=10,
                    num_relations=6, source=batch.source)
    assert sampler.sample(strange, 50, torch.Generator().manual_seed(0)).index.shape == (2, 50)


@pytest.mark.gpu
@pytest.mark.parametrize('per_relation', [False, True])
def test_on_the_gpu(per_relation: bool) -> None:
    batch = make_batch([(0, 0, 1), (0, 0, 2), (3, 0, 4), (5, 0, 1), (6, 0, 6)], torch.tensor([True] * 4 + [False]))
    results = []
    for device in ('cpu', 'cuda'):
        moved = batch.to(device)
        assert batch.source is not None
        moved.source = batch.source.to(device)
        sampler = PopularitySampler(1.0, per_relation, filtered=True)
        negatives = sampler.sample(moved, 20_000, torch.Generator(device).manual_seed(0))
        assert negatives.index.device.type == device
        results.append(negatives.index.cpu())
    for left, right in zip(*results):
        assert_shares(right, {entity: int((left == entity).sum()) for entity in set(left.tolist())})

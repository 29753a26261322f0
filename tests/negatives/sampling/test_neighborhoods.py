from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_emu.core.errors import ArgumentError
from pyg_emu.negatives.sampling import neighborhoods
from pyg_emu.negatives.sampling.neighborhoods import Neighborhoods, k_hop_neighborhoods, walk_neighborhoods

NUM_NODES = 9
facts_strategy = st.lists(st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, 1), st.integers(0, NUM_NODES - 1)),
                          min_size=1, max_size=14)
#: 0 - 1 - 2 - 3, by edges in both directions, and 4 on its own but for an edge to itself.
PATH = torch.tensor([[0, 0, 1], [2, 1, 1], [2, 0, 3], [4, 0, 4], [0, 1, 1]])


def reachable(facts: list[tuple[int, int, int]], start: int, num_hops: int) -> set[int]:
    reached = {start}
    for _ in range(num_hops):
        reached |= {t for h, _, t in facts if h in reached} | {h for h, _, t in facts if t in reached}
    return reached - {start}


def as_sets(near: Neighborhoods) -> list[set[int]]:
    ends = near.ptr.tolist()
    rows = [near.entity[start:end].tolist() for start, end in zip(ends, ends[1:])]
    assert all(row == sorted(set(row)) for row in rows)
    return [set(row) for row in rows]


@given(facts_strategy, st.integers(1, 4), st.integers(1, 100))
def test_k_hops_against_breadth_first_search(facts: list[tuple[int, int, int]], num_hops: int, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighborhoods, '_BLOCK', block)
        near = k_hop_neighborhoods(torch.tensor(facts), NUM_NODES, num_hops)
    assert as_sets(near) == [reachable(facts, start, num_hops) for start in range(NUM_NODES)]


def test_more_entities_than_bits_in_a_word() -> None:
    ring = torch.arange(150)
    facts = torch.stack([ring, torch.zeros_like(ring), (ring + 1) % 150], dim=1)
    expected = [{(start + step) % 150 for step in (-2, -1, 1, 2)} for start in range(150)]
    assert as_sets(k_hop_neighborhoods(facts, 150, 2)) == expected


@given(facts_strategy, st.integers(1, 3), st.integers(0, 99), st.integers(1, 100))
def test_walks_find_what_is_in_reach(facts: list[tuple[int, int, int]], length: int, seed: int, block: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighborhoods, '_BLOCK', block)
        near = as_sets(walk_neighborhoods(torch.tensor(facts), NUM_NODES, length, 3, generator))
    for start, found in enumerate(near):
        exact = reachable(facts, start, length)
        assert found <= exact and len(found) <= 3 * length
        assert bool(found) == bool(exact)


def test_many_walks_find_all() -> None:
    near = walk_neighborhoods(PATH, 6, 3, 200, torch.Generator().manual_seed(0))
    assert as_sets(near) == [{1, 2, 3}, {0, 2, 3}, {0, 1, 3}, {0, 1, 2}, set(), set()]
    assert as_sets(k_hop_neighborhoods(PATH, 6, 1)) == [{1}, {0, 2}, {1, 3}, {2}, set(), set()]


def test_steps_go_to_distinct_neighbors_alike() -> None:
    # 3,000 stars with three leaves each, the first of which is joined by two edges.
    center = 4 * torch.arange(3000)
    facts = torch.stack([torch.stack([center, torch.full_like(center, relation), center + leaf], dim=1)
                         for relation, leaf in enumerate((1, 1, 2, 3))]).flatten(0, 1)
    near = walk_neighborhoods(facts, 12_000, 1, 1, torch.Generator().manual_seed(0))
    leaf = near.entity[near.ptr[center]] - center
    counts = leaf.bincount(minlength=4)[1:].double()
    # 2 degrees of freedom, once in a thousand; with two chances for the first leaf it would be 340.
    assert counts.sum() == 3000 and float(((counts - 1000) ** 2 / 1000).sum()) < 13.8


def test_same_seed_same_walks() -> None:
    generator = torch.Generator()
    facts = torch.randint(50, (200, 3), generator=generator.manual_seed(1))
    first, again, other = (walk_neighborhoods(facts, 50, 2, 4, generator.manual_seed(seed)) for seed in (7, 7, 8))
    assert first.entity.equal(again.entity) and first.ptr.equal(again.ptr)
    assert not (first.ptr.equal(other.ptr) and first.entity.equal(other.entity))


def test_reading() -> None:
    near = k_hop_neighborhoods(PATH, 6, 2)  # {1, 2}, {0, 2, 3}, {0, 1, 3}, {1, 2}, {}, {}
    row = torch.tensor([1, 0, 5])
    assert near.size(row).tolist() == [3, 2, 0]
    assert near.at(row[:2], torch.tensor([[0, 2], [1, 0]])).tolist() == [[0, 3], [2, 1]]
    assert near.at(row, torch.zeros(3, 2, dtype=torch.int64)).dtype == torch.int64
    found, place = near.find(torch.tensor([1, 1, 1, 1, 4, 3]), torch.tensor([0, 1, 3, 5, 0, 2]))
    assert found.tolist() == [True, False, True, False, False, True]
    assert place[found].tolist() == [0, 2, 1]


def test_graph_without_neighbors() -> None:
    near = k_hop_neighborhoods(torch.tensor([[1, 0, 1]]), 3, 2)
    assert as_sets(near) == [set(), set(), set()]
    assert near.find(torch.tensor([1]), torch.tensor([0]))[0].tolist() == [False]
    assert near.at(torch.tensor([2]), torch.tensor([[0]])).shape == (1, 1)


def test_size_is_limited() -> None:
    assert k_hop_neighborhoods(PATH, 6, 3, max_size=12).ptr[-1] == 12
    with pytest.raises(ArgumentError, match='hold 12 entities, and max_size allows 11: take fewer hops or random walk'):
        k_hop_neighborhoods(PATH, 6, 3, max_size=11)


def test_very_many_walks_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = torch.tensor([[0, 0, 1], [1, 0, 2], [3, 0, 4]])
    whole = walk_neighborhoods(facts, 5, 2, 40, torch.Generator().manual_seed(0))
    drawn: list[int] = []
    rand = torch.rand
    monkeypatch.setattr(torch, 'rand', lambda size, **options: drawn.append(size) or rand(size, **options))
    monkeypatch.setattr(neighborhoods, '_BLOCK', 50)
    parts = walk_neighborhoods(facts, 5, 2, 40, torch.Generator().manual_seed(0))
    assert max(drawn) <= 50 and sum(drawn) == 5 * 40 * 2
    assert all(torch.equal(one, other) for one, other in zip(parts, whole))

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import SANSSampler

# 0 -> 1, 0 -> 2, 2 -> 3, 3 -> 4 and 5 -> 6; 7 has no fact. Within two hops of 0 are 1, 2 and 3.
FACTS = [(0, 0, 1), (0, 0, 2), (2, 0, 3), (3, 1, 4), (5, 0, 6)]
NUM_NODES = 8


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(FACTS).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 2)
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=2, source=source)


def drawn(sampler: SANSSampler, batch: Batch, count: int = 300, seed: int = 0) -> list[set[int]]:
    return [set(row) for row in sampler.sample(batch, count, torch.Generator().manual_seed(seed)).index.tolist()]


@pytest.mark.parametrize('mode', ['khop', 'walk'])
def test_negatives_are_unknown_neighbors_of_the_known_entity(mode: Any) -> None:
    side = torch.tensor([True, False, True, False])
    batch = make_batch([(0, 0, 1), (0, 0, 1), (2, 0, 3), (3, 1, 4)], side)
    # Near 0 are 1, 2, 3, known tails 1 and 2; near 1 are 0 and 2, the known head 0; near 2 are 0, 1, 3 and 4, known 3;
    # near 4 are 2 and 3, known 3.
    assert drawn(SANSSampler(2, mode), batch) == [{3}, {2}, {0, 1, 4}, {2}]
    assert drawn(SANSSampler(2, mode, filtered=False), batch) == [{1, 2, 3}, {0, 2}, {0, 1, 3, 4}, {2, 3}]


def test_nothing_left_nearby_means_anywhere() -> None:
    batch = make_batch([(0, 0, 1), (5, 0, 6), (7, 0, 0)])
    everything = set(range(NUM_NODES))
    assert drawn(SANSSampler(1, 'khop'), batch) == [everything - {1, 2}, everything - {6}, everything]
    assert drawn(SANSSampler(1, 'khop', filtered=False), batch) == [{1, 2}, {6}, everything]


@pytest.mark.parametrize('filtered, expected', [(True, {0: 1 / 3, 1: 1 / 3, 4: 1 / 3}),
                                                (False, {0: 1 / 4, 1: 1 / 4, 3: 1 / 4, 4: 1 / 4})])
def test_draws_are_uniform(filtered: bool, expected: dict[int, float]) -> None:
    index = SANSSampler(2, 'khop', filtered=filtered).sample(make_batch([(2, 0, 3)]), 12_000,
                                                             torch.Generator().manual_seed(0)).index
    counts = index.flatten().bincount(minlength=NUM_NODES).double()
    share = torch.zeros(NUM_NODES).double()
    for entity, value in expected.items():
        share[entity] = 12_000 * value
    assert counts[share == 0].sum() == 0
    left = share > 0
    # At most 3 degrees of freedom, once in a thousand.
    assert float(((counts - share)[left] ** 2 / share[left]).sum()) < 16.3


def test_drawing_for_all_or_for_the_wrong_alone_is_the_same_in_distribution() -> None:
    # What a GPU does for every slot, the CPU does for some.
    sampler, batch = SANSSampler(2, 'khop'), make_batch([(2, 0, 3), (0, 0, 1), (7, 1, 0)])
    sampler.sample(batch, 1)
    assert sampler._state is not None
    index = sampler._state.draw(batch.known_index, batch.rel_type, batch.corrupts_tail, 12_000,
                                torch.Generator().manual_seed(0))
    assert [set(row) for row in index.tolist()] == [{0, 1, 4}, {3}, set(range(NUM_NODES))]
    counts = index[0].bincount()[[0, 1, 4]].double()
    assert float(((counts - 4000) ** 2 / 4000).sum()) < 13.8


def test_neighborhoods_are_those_of_the_training_facts() -> None:
    batch = make_batch([(0, 0, 1)])
    assert batch.source is not None
    batch.source.valid_edge_index, batch.source.valid_edge_type = torch.tensor([[0], [3]]), torch.tensor([0])
    # 3 becomes known and stays near, 4 does not come nearer: nothing is left.
    assert drawn(SANSSampler(2, 'khop', split='all'), batch) == [set(range(NUM_NODES)) - {1, 2, 3}]
    assert drawn(SANSSampler(2, 'khop'), batch) == [{3}]


def test_known_facts_far_away_take_nothing_from_the_neighborhood() -> None:
    batch = make_batch([(0, 0, 1)])
    assert batch.source is not None
    batch.source.test_edge_index, batch.source.test_edge_type = torch.tensor([[0, 0], [5, 0]]), torch.tensor([0, 0])
    assert drawn(SANSSampler(2, 'khop', split='all'), batch) == [{3}]
    # A walk need not meet all of the neighbours that are known.
    for seed in range(5):
        assert drawn(SANSSampler(2, 'walk', walks=2, seed=seed), batch)[0].isdisjoint({1, 2})


def test_search_happens_once_and_again_when_facts_change(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, searches = SANSSampler(2, 'khop'), []
    search = sampler._search
    monkeypatch.setattr(sampler, '_search', lambda *args: searches.append(1) or search(*args))
    batch = make_batch([(0, 0, 1)])
    assert drawn(sampler, batch) == drawn(sampler, batch) == [{3}]
    assert len(searches) == 1
    assert batch.source is not None
    batch.source.edge_index = torch.tensor([[0, 0, 4], [1, 2, 0]])
    batch.source.edge_type = torch.tensor([0, 0, 1])
    assert drawn(sampler, batch) == [{4}] and len(searches) == 2


def test_walks_depend_on_the_seed_alone() -> None:
    batch = make_batch([(0, 0, 1)] * 3)
    sampler = SANSSampler(3, 'walk', walks=1)
    near = sampler.neighborhoods(batch)
    sampler.sample(batch, 5, torch.Generator().manual_seed(3))
    late = SANSSampler(3, 'walk', walks=1)
    torch.rand(7)
    late.sample(make_batch([(2, 0, 3)]), 9, torch.Generator().manual_seed(4))
    assert late.neighborhoods(batch).entity.equal(near.entity)
    others = [SANSSampler(3, 'walk', walks=1, seed=seed).neighborhoods(batch).entity.tolist() for seed in range(1, 9)]
    assert any(other != near.entity.tolist() for other in others)


@pytest.mark.parametrize('arguments, message', [
    ({'num_hops': 0}, 'num_hops: expected an integer of at least 1, got 0'),
    ({'walks': 1.5}, 'walks: expected an integer of at least 1, got 1.5'),
    ({'max_size': True}, 'max_size: expected an integer of at least 1, got True'),
    ({'mode': 'hops'}, "mode: .*'walk', 'khop', got 'hops'"),
    ({'split': 'dev'}, "split: .* got 'dev'"),
    ({'seed': -1}, r'seed: expected an integer in \[0, 2\^63\), got -1'),
    ({'mode': 'khop', 'walks': 5}, "walks: .*mode='khop'.*got 5"),
    ({'mode': 'khop', 'seed': 1}, "seed: .*mode='khop'.*got 1"),
    ({'mode': 'walk', 'max_size': 5}, "max_size: .*mode='walk'.*got 5"),
])
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        SANSSampler(**arguments)


@pytest.mark.parametrize('filtered', [False, True])
def test_batch_without_a_graph(filtered: bool) -> None:
    batch = make_batch([(0, 0, 1)])
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source: SANSSampler'):
        SANSSampler(filtered=filtered).sample(batch, 1)


def test_too_many_pairs() -> None:
    with pytest.raises(ArgumentError, match='max_size allows 3'):
        SANSSampler(2, 'khop', max_size=3).sample(make_batch([(0, 0, 1)]), 1)


@pytest.mark.gpu
@pytest.mark.parametrize('mode', ['khop', 'walk'])
def test_on_the_gpu(mode: Any) -> None:
    batch = make_batch([(0, 0, 1), (2, 0, 3), (7, 0, 0)]).to('cuda')
    assert batch.source is not None
    batch.source.to('cuda')
    index = SANSSampler(2, mode).sample(batch, 500, torch.Generator('cuda').manual_seed(0)).index
    assert isinstance(index, Tensor) and index.is_cuda
    assert [set(row) for row in index.tolist()] == [{3}, {0, 1, 4}, set(range(NUM_NODES))]


def test_more_walks_than_can_be_taken() -> None:
    for walks in (10**6 + 1, 10**12):
        with pytest.raises(ArgumentError, match=rf'^walks: .*1000000, got {walks}'):
            SANSSampler(walks=walks)

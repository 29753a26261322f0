from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import ESNSLikeSampler
from tests.negatives.sampling.shares import assert_shares

# 1, 2 and 3 are tails of (0, 0); 2 and 4 are heads of (1, 5); 3 is a tail of (6, 1), which nobody shares.
FACTS = [(0, 0, 1), (0, 0, 2), (0, 0, 3), (2, 1, 5), (4, 1, 5), (6, 1, 3)]
NUM_NODES = 8
EVERYONE = dict.fromkeys(range(NUM_NODES), 1.0)


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(FACTS).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 2)
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=2, source=source)


def drawn(sampler: ESNSLikeSampler, batch: Batch) -> torch.Tensor:
    return sampler.sample(batch, 20_000, torch.Generator().manual_seed(0)).index


def test_shared_facts() -> None:
    batch = make_batch([(0, 0, 2), (0, 0, 3), (4, 1, 5), (6, 1, 3), (7, 0, 0)],
                       torch.tensor([True, True, False, False, False]))
    index = drawn(ESNSLikeSampler(uniform=0.0, filtered=False), batch)
    # 2 shares one context with 1 and 3, and one with 4 alone.
    assert_shares(index[0], {1: 0.25, 3: 0.25, 4: 0.5})
    assert_shares(index[1], {1: 0.5, 2: 0.5})
    assert_shares(index[2], {2: 1})
    assert_shares(index[3], EVERYONE)  # 6 shares none
    assert_shares(index[4], EVERYONE)  # 7 has none


def test_shared_relations() -> None:
    batch = make_batch([(2, 1, 5), (6, 1, 3), (0, 0, 1)], torch.tensor([True, False, False]))
    index = drawn(ESNSLikeSampler('relation', uniform=0.0, filtered=False), batch)
    # Relation 0 has tails 1, 2, 3; relation 1 has heads 2, 4, 6 and tails 3, 5; the head of relation 0 is 0 alone.
    assert_shares(index[0], {3: 1})
    assert_shares(index[1], {2: 0.5, 4: 0.5})
    assert_shares(index[2], EVERYONE)
    batch = make_batch([(0, 0, 2)])
    index = drawn(ESNSLikeSampler('relation', uniform=0.0, filtered=False), batch)
    assert_shares(index, {1: 0.25, 3: 0.25, 4: 0.25, 6: 0.25})


def test_known_facts_are_drawn_again_and_then_anything() -> None:
    batch = make_batch([(0, 0, 2), (0, 0, 3), (4, 1, 5)], torch.tensor([True, True, False]))
    index = drawn(ESNSLikeSampler(uniform=0.0), batch)
    # A draw for tail 2 of (0, 0) is known with probability 1/2. After four of those, anyone of 0, 4, 5, 6, 7.
    rest = 0.5**4 / 5
    assert_shares(index[0], {0: rest, 4: 1 - 0.5**4 + rest, 5: rest, 6: rest, 7: rest})
    # All that resemble tail 3 are tails of (0, 0), too.
    assert_shares(index[1], dict.fromkeys((0, 4, 5, 6, 7), 1.0))
    assert_shares(index[2], dict.fromkeys((0, 1, 3, 5, 6, 7), 1.0))


@pytest.mark.parametrize('filtered', [False, True])
def test_a_share_is_uniform(filtered: bool) -> None:
    batch = make_batch([(4, 1, 5)], 'head')  # 4 resembles 2 alone; known heads of (1, 5) are 2 and 4
    index = drawn(ESNSLikeSampler(uniform=0.25, filtered=filtered), batch)
    if filtered:
        assert_shares(index, dict.fromkeys((0, 1, 3, 5, 6, 7), 1.0))
    else:
        assert_shares(index, {**dict.fromkeys(range(NUM_NODES), 0.25 / 8), 2: 0.75 + 0.25 / 8})
    assert ESNSLikeSampler().uniform == 0.5


def test_graph_in_which_nothing_is_shared() -> None:
    source = KGData(torch.tensor([[0, 2], [1, 3]]), torch.tensor([0, 1]), 4, 2)
    batch = Batch(torch.tensor([0]), torch.tensor([0]), torch.tensor([1]), 'tail', num_nodes=4, num_relations=2,
                  source=source)
    for context in ('fact', 'relation'):
        sampler = ESNSLikeSampler(context, uniform=0.0, filtered=False)  # type: ignore[arg-type]
        assert_shares(drawn(sampler, batch), dict.fromkeys(range(4), 1.0))


def test_contexts_are_those_of_current_facts() -> None:
    batch, sampler = make_batch([(0, 0, 3)]), ESNSLikeSampler(uniform=0.0, filtered=False)
    assert set(drawn(sampler, batch).flatten().tolist()) == {1, 2}
    assert batch.source is not None
    batch.source.edge_index, batch.source.edge_type = torch.tensor([[0, 0], [3, 7]]), torch.tensor([1, 1])
    assert set(drawn(sampler, batch).flatten().tolist()) == {7}


@pytest.mark.parametrize('arguments, facts', [
    ({'context': 'pair'}, ['context', "'pair'", "'fact'", "'relation'"]),
    ({'uniform': 1.5}, ['uniform', '1.5']),
    ({'split': 'dev'}, ['split', "'dev'"]),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        ESNSLikeSampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)


@pytest.mark.gpu
def test_on_the_gpu() -> None:
    batch = make_batch([(0, 0, 2), (4, 1, 5)], torch.tensor([True, False])).to('cuda')
    assert batch.source is not None
    batch.source.to('cuda')
    index = ESNSLikeSampler(uniform=0.0).sample(batch, 20_000, torch.Generator('cuda').manual_seed(0)).index
    assert index.is_cuda
    rest = 0.5**4 / 5
    assert_shares(index[0].cpu(), {0: rest, 4: 1 - 0.5**4 + rest, 5: rest, 6: rest, 7: rest})
    assert_shares(index[1].cpu(), dict.fromkeys((0, 1, 3, 5, 6, 7), 1.0))

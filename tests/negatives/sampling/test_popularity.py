from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import PopularitySampler
from tests.negatives.sampling.shares import assert_shares

# Degrees 3, 2, 1, 3, 1 and none for 5. The tails of relation 0 are 1, 2 and, twice, 3; the only one of relation 1 is 3.
FACTS = [(0, 0, 1), (0, 0, 2), (0, 0, 3), (1, 0, 3), (4, 1, 3)]
NUM_NODES = 6
EVERYONE = dict.fromkeys(range(NUM_NODES), 1.0)


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(FACTS).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 3)
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=3, source=source)


@pytest.mark.parametrize('power', [0.0, 0.75, 1.0, 2.0])
def test_degree_to_a_power(power: float) -> None:
    batch = make_batch([(0, 0, 1), (4, 1, 3)], torch.tensor([True, False]))
    index = PopularitySampler(power).sample(batch, 20_000, torch.Generator().manual_seed(0)).index
    for row in index:  # the pattern does not matter
        assert_shares(row, {0: 3**power, 1: 2**power, 2: 1, 3: 3**power, 4: 1})


def test_known_facts_are_left_out_exactly() -> None:
    batch = make_batch([(0, 0, 1), (1, 0, 3), (4, 1, 3)], torch.tensor([True, False, True]))
    index = PopularitySampler(filtered=True).sample(batch, 20_000, torch.Generator().manual_seed(0)).index
    three, two = 3**0.75, 2**0.75
    assert_shares(index[0], {0: three, 4: 1})
    assert_shares(index[1], {2: 1, 3: three, 4: 1})
    assert_shares(index[2], {0: three, 1: two, 2: 1, 4: 1})


def test_frequency_at_the_end_of_the_relation() -> None:
    batch = make_batch([(0, 0, 1), (1, 0, 3), (4, 1, 3), (0, 2, 1)], torch.tensor([True, False, True, True]))
    index = PopularitySampler(1.0, per_relation=True).sample(batch, 20_000, torch.Generator().manual_seed(0)).index
    assert_shares(index[0], {1: 1, 2: 1, 3: 2})
    assert_shares(index[1], {0: 3, 1: 1})
    assert_shares(index[2], EVERYONE)  # nobody but the positive
    assert_shares(index[3], EVERYONE)  # no fact of the relation


def test_frequency_without_known_facts() -> None:
    batch = make_batch([(0, 0, 1), (1, 0, 3), (1, 0, 3), (4, 1, 3), (2, 0, 1)],
                       torch.tensor([True, True, False, True, True]))
    sampler = PopularitySampler(1.0, per_relation=True, filtered=True)
    index = sampler.sample(batch, 20_000, torch.Generator().manual_seed(0)).index
    assert_shares(index[0], {0: 1, 4: 1, 5: 1})  # all tails of the relation are known
    assert_shares(index[1], {1: 1, 2: 1})
    assert_shares(index[2], {2: 1, 3: 1, 4: 1, 5: 1})  # both heads of the relation are known
    assert_shares(index[3], {0: 1, 1: 1, 2: 1, 4: 1, 5: 1})
    assert_shares(index[4], {1: 1, 2: 1, 3: 2})  # nothing is known of head 2


def test_extreme_powers() -> None:
    batch = make_batch([(0, 0, 1)])
    for power in (1e3, 1e30):
        index = PopularitySampler(power).sample(batch, 1000, torch.Generator().manual_seed(0)).index
        assert set(index.flatten().tolist()) == {0, 3}


@pytest.mark.parametrize('arguments, facts', [
    ({'power': -0.5}, ['power', '-0.5']),
    ({'power': float('nan')}, ['power', 'nan']),
    ({'power': '0.75'}, ['power', "'0.75'"]),
    ({'per_relation': 1}, ['per_relation', '1']),
    ({'split': 'dev'}, ['split', "'dev'"]),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        PopularitySampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)


def test_batch_without_a_graph() -> None:
    batch = make_batch([(0, 0, 1)])
    batch.source = None
    with pytest.raises(ArgumentError, match='batch.source: PopularitySampler'):
        PopularitySampler().sample(batch, 1)

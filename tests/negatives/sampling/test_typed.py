from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import TypedSampler
from tests.negatives.sampling.shares import assert_shares

FACTS = [(0, 0, 1), (0, 0, 2), (1, 0, 3), (4, 1, 3), (0, 0, 1)]
NUM_NODES = 6
EVERYONE = dict.fromkeys(range(NUM_NODES), 1.0)


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(FACTS).unbind(1)
    source = KGData(torch.stack([head, tail]), relation, NUM_NODES, 3)
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=3, source=source)


def drawn(sampler: TypedSampler, batch: Batch) -> torch.Tensor:
    return sampler.sample(batch, 12_000, torch.Generator().manual_seed(0)).index


def test_ends_of_the_relation() -> None:
    batch = make_batch([(0, 0, 1), (0, 0, 1), (4, 1, 3), (0, 2, 1)], torch.tensor([True, False, True, False]))
    index = drawn(TypedSampler(), batch)
    assert_shares(index[0], {1: 1, 2: 1, 3: 1})
    assert_shares(index[1], {0: 1, 1: 1})
    assert_shares(index[2], EVERYONE)  # nobody but the positive
    assert_shares(index[3], EVERYONE)  # no fact of the relation
    assert_shares(drawn(TypedSampler(), make_batch([(0, 1, 2)]))[0], {3: 1})  # nobody but another one
    index = drawn(TypedSampler(filtered=True), batch)
    assert_shares(index[0], {3: 1})
    assert_shares(index[1], {1: 1})
    assert_shares(index[2], {0: 1, 1: 1, 2: 1, 4: 1, 5: 1})
    assert_shares(index[3], EVERYONE)


def test_types_of_the_user() -> None:
    # 0, 1 and 3 are of type 7, 2 and 4 of type 2, and 5 has none.
    types = torch.tensor([7, 7, 2, 7, 2, -1], dtype=torch.int32)
    batch = make_batch([(0, 0, 1), (0, 0, 2), (4, 1, 3), (0, 0, 1), (0, 2, 5)],
                       torch.tensor([True, True, False, False, True]))
    index = drawn(TypedSampler(types), batch)
    for row, expected in zip(index, ([0, 1, 3], [2, 4], [2, 4], [0, 1, 3], range(NUM_NODES))):
        assert_shares(row, dict.fromkeys(expected, 1.0))
    index = drawn(TypedSampler(types, filtered=True), batch)
    # Known are tails 1 and 2 of (0, 0), head 4 of (1, 3) and head 0 of (0, 1).
    for row, expected in zip(index, ([0, 3], [4], [2], [1, 3], range(NUM_NODES))):
        assert_shares(row, dict.fromkeys(expected, 1.0))


def test_a_share_is_uniform() -> None:
    batch = make_batch([(0, 0, 1), (0, 0, 1)], torch.tensor([True, False]))
    index = drawn(TypedSampler(uniform=0.5), batch)
    assert_shares(index[0], {**EVERYONE, 1: 3, 2: 3, 3: 3})
    index = drawn(TypedSampler(uniform=0.5, filtered=True), batch)
    # Tail 3 is the only one that fits and is unknown, beside 0, 4 and 5; of the heads, 1 fits, and 0 is known.
    assert_shares(index[0], {0: 1, 3: 5, 4: 1, 5: 1})
    assert_shares(index[1], {1: 6, 2: 1, 3: 1, 4: 1, 5: 1})


def test_all_of_one_type_is_uniform() -> None:
    batch = make_batch([(0, 0, 1)])
    assert_shares(drawn(TypedSampler(torch.zeros(NUM_NODES, dtype=torch.int64)), batch), EVERYONE)
    assert_shares(drawn(TypedSampler(torch.full((NUM_NODES, ), -1)), batch), EVERYONE)
    assert_shares(drawn(TypedSampler(torch.arange(NUM_NODES)), batch), EVERYONE)  # nobody but the positive


def test_no_type_is_no_type_of_its_own() -> None:
    batch = make_batch([(0, 0, 1), (1, 0, 3)])
    index = drawn(TypedSampler(torch.tensor([-1, -1, 0, 0, 0, -1])), batch)
    assert_shares(index[0], EVERYONE)
    assert_shares(index[1], {2: 1, 3: 1, 4: 1})


def test_number_of_types() -> None:
    with pytest.raises(ArgumentError) as error:
        TypedSampler(torch.zeros(5, dtype=torch.int64)).sample(make_batch([(0, 0, 1)]), 1)
    assert all(fact in str(error.value) for fact in ('types', ' 6 ', '5'))


@pytest.mark.parametrize('types, facts', [
    ([0, 1], ['types', '[0, 1]', 'torch.tensor']),
    (torch.zeros(6), ['types', 'float32']),
    (torch.zeros(6, dtype=torch.bool), ['types', 'bool']),
    (torch.zeros(6, 1, dtype=torch.int64), ['types', '(6, 1)']),
    (torch.tensor([0, 1, -2]), ['types', '-2']),
    (torch.zeros(6, dtype=torch.int64, device='meta'), ['types', 'meta']),
])
def test_bad_types(types: Any, facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        TypedSampler(types)
    assert all(fact in str(error.value) for fact in facts)

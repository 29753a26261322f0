from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.batch import Batch
from pyg_emu.data.candidates import RelationCandidates
from pyg_emu.data.graph import KGData
from pyg_emu.negatives.sampling import CandidateSampler
from tests.negatives.sampling.shares import assert_shares

FACTS = torch.tensor([(0, 0, 1), (0, 0, 2), (1, 0, 3), (4, 1, 3)])
DATA = KGData(FACTS[:, [0, 2]].t().contiguous(), FACTS[:, 1].contiguous(), 6, 3, entity_labels=list('abcdef'),
              relation_labels=['r', 's', 't'])


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=6, num_relations=3, source=DATA)


def drawn(candidates: Any, batch: Batch, **options: Any) -> tuple[torch.Tensor, list[bool]]:
    sampler = CandidateSampler(candidates, **options)
    negatives = sampler.sample(batch, 6000, torch.Generator().manual_seed(0))
    left = negatives.mask.all(1)
    assert negatives.mask.equal(left.unsqueeze(1).expand_as(negatives.mask))
    assert sampler.num_exhausted == int((~left).sum())
    return negatives.index, left.tolist()


@pytest.mark.parametrize('candidates', [['b', 'c', 'e'], [1, 2, 4], [False, True, True, False, True, False]])
def test_one_set(candidates: Any) -> None:
    batch = make_batch([(0, 0, 1), (4, 1, 3)], torch.tensor([True, False]))
    index, left = drawn(candidates, batch)
    for row in index:
        assert_shares(row, {1: 1, 2: 1, 4: 1})
    index, left = drawn(candidates, batch, filtered=True)
    assert_shares(index[0], {4: 1})  # 1 and 2 are tails of (0, r)
    assert_shares(index[1], {1: 1, 2: 1})  # 4 is a head of (s, 3)
    assert left == [True, True]


def test_triples_without_a_negative_are_masked_out() -> None:
    batch = make_batch([(0, 0, 1), (0, 0, 1), (4, 1, 3)], torch.tensor([True, False, True]))
    assert drawn(['b'], batch)[1] == [False, True, True]
    assert drawn(['b', 'c'], batch, filtered=True)[1] == [False, True, True]
    for index, _ in (drawn(['b'], batch), drawn(['b', 'c'], batch, filtered=True)):
        assert set(index.flatten().tolist()) <= {1, 2}


def test_sets_of_relations() -> None:
    sets = RelationCandidates(DATA, tails={'r': ['b', 'f', 'a']}, heads={'s': ['e', 'd']})
    batch = make_batch([(0, 0, 1), (4, 1, 3), (4, 1, 3), (0, 0, 1)], torch.tensor([True, False, True, False]))
    index, left = drawn(sets, batch)
    everyone = dict.fromkeys(range(6), 1.0)
    for row, expected in zip(index, ({0: 1, 1: 1, 5: 1}, {3: 1, 4: 1}, everyone, everyone)):
        assert_shares(row, expected)
    index, left = drawn(sets, batch, filtered=True)
    for row, expected in zip(index, ({0: 1, 5: 1}, {3: 1}, dict.fromkeys([0, 1, 2, 4, 5], 1.0),
                                     dict.fromkeys([1, 2, 3, 4, 5], 1.0))):
        assert_shares(row, expected)
    assert left == [True] * 4
    for filtered in (False, True):
        described = drawn({'tails': {'r': ['b', 'f', 'a']}, 'heads': {'s': ['e', 'd']}}, batch, filtered=filtered)[0]
        assert described.equal(drawn(sets, batch, filtered=filtered)[0])


def test_relation_without_a_set_and_without_a_negative() -> None:
    full = KGData(torch.tensor([[0, 0, 0], [0, 1, 1]]), torch.tensor([1, 1, 0]), 2, 2)
    batch = Batch(*torch.tensor([[0], [1], [1]]), 'tail', num_nodes=2, num_relations=2, source=full)
    assert drawn(RelationCandidates(full, tails={0: [1]}), batch, filtered=True)[1] == [False]


def test_bad_candidates() -> None:
    batch = make_batch([(0, 0, 1)])
    with pytest.raises(DataError, match="'g'"):
        drawn(['g'], batch)
    with pytest.raises(ArgumentError, match='candidates'):
        drawn([], batch)
    with pytest.raises(ArgumentError, match="candidates.*'range'"):
        drawn({'range': 'train'}, batch)
    other = KGData(FACTS[:, [0, 2]].t().contiguous(), FACTS[:, 1].contiguous(), 7, 3)
    with pytest.raises(ArgumentError, match='candidates.* 6 .* 7'):
        drawn(RelationCandidates.seen(other), batch)

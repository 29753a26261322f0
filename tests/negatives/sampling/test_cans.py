from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import FactIndex
from pyg_emu.negatives.sampling import CANSLikeSampler, cans
from pyg_emu.negatives.sampling.cans import infer_types
from tests.negatives.sampling.shares import assert_shares

NUM_NODES = 25


def towns_people_films() -> KGData:
    r"""Ten people born in five towns (relation 0) and acting (relation 1) in nine films of a genre (relation 2, which
    has entity 24 alone as its tail). Some people act in nothing.
    """
    facts = [(person, 0, 10 + person % 5) for person in range(10)]
    facts += [(person, 1, 15 + film) for film in range(9) for person in (film % 7, (film + 3) % 7)]
    facts += [(15 + film, 2, 24) for film in range(9)]
    head, relation, tail = torch.tensor(facts).unbind(1)
    return KGData(torch.stack([head, tail]), relation, NUM_NODES, 3)


def make_batch(rows: list[tuple[int, int, int]], side: Any = 'tail') -> Batch:
    head, relation, tail = torch.tensor(rows).unbind(1)
    return Batch(head, relation, tail, side, num_nodes=NUM_NODES, num_relations=3, source=towns_people_films())


def groups(types: Tensor) -> list[list[int]]:
    return sorted((types == name).nonzero().flatten().tolist() for name in types.unique() if name >= 0)


def test_types_are_what_entities_do() -> None:
    found = groups(CANSLikeSampler(5).types(make_batch([(0, 0, 10)])))
    assert found == [list(range(7)), [7, 8, 9], [10, 11, 12, 13, 14], list(range(15, 24)), [24]]
    # People who act are nearer to those who do not than to anything else.
    coarse = [groups(CANSLikeSampler(4, seed=seed).types(make_batch([(0, 0, 10)]))) for seed in range(10)]
    assert [list(range(10)), [10, 11, 12, 13, 14], list(range(15, 24)), [24]] in coarse


def test_number_of_types() -> None:
    # sqrt(25) by default, and never more than there are profiles.
    assert len(groups(CANSLikeSampler().types(make_batch([(0, 0, 10)])))) == 5
    assert len(groups(CANSLikeSampler(99).types(make_batch([(0, 0, 10)])))) == 5
    assert groups(CANSLikeSampler(1).types(make_batch([(0, 0, 10)]))) == [list(range(NUM_NODES))]


def test_entity_without_facts_has_no_type() -> None:
    train = FactIndex(torch.tensor([[0, 0, 1], [2, 0, 1]]), 5, 1)
    types = infer_types(train, 2, 20, 0)
    assert types[3:].tolist() == [-1, -1] and types[0] == types[2] != types[1]
    assert infer_types(FactIndex(torch.empty(0, 3, dtype=torch.int64), 3, 1), 2, 20, 0).tolist() == [-1] * 3


def test_negatives_are_of_the_type_of_the_positive() -> None:
    batch = make_batch([(0, 0, 10), (7, 0, 12), (15, 2, 24), (16, 2, 24)], torch.tensor([True, False, True, False]))
    sampler = CANSLikeSampler(5, uniform=0.0, filtered=False)
    index = sampler.sample(batch, 12_000, torch.Generator().manual_seed(0)).index
    assert_shares(index[0], dict.fromkeys(range(10, 15), 1.0))
    assert_shares(index[1], dict.fromkeys((7, 8, 9), 1.0))
    assert_shares(index[2], dict.fromkeys(range(NUM_NODES), 1.0))  # the only genre
    assert_shares(index[3], dict.fromkeys(range(15, 24), 1.0))
    index = CANSLikeSampler(5, uniform=0.0).sample(batch, 12_000, torch.Generator().manual_seed(0)).index
    assert_shares(index[0], dict.fromkeys(range(11, 15), 1.0))
    assert_shares(index[1], dict.fromkeys((8, 9), 1.0))  # heads 2 and 7 were born in town 12
    assert_shares(index[2], dict.fromkeys(range(NUM_NODES - 1), 1.0))
    assert_shares(index[3], dict.fromkeys((*range(15), 24), 1.0))  # all films are known heads


def test_clustering_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(high, (400, ), generator=generator) for high in (90, 6, 90)], 1)
    train = FactIndex(facts, 100, 6)
    whole = infer_types(train, 8, 20, 0)
    assert whole[90:].tolist() == [-1] * 10 and len(groups(whole)) > 5
    monkeypatch.setattr(cans, '_BLOCK', 40)
    assert infer_types(train, 8, 20, 0).equal(whole)
    assert not infer_types(train, 8, 20, 1).equal(whole)


def test_rounds_bring_entities_nearer_to_their_type() -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(high, (600, ), generator=generator) for high in (90, 8, 90)], 1)
    train = FactIndex(facts, 90, 8)
    profile = torch.zeros(90, 16)
    profile[facts[:, 2], facts[:, 1]] = profile[facts[:, 0], 8 + facts[:, 1]] = 1
    profile = torch.nn.functional.normalize(profile)

    def fit(rounds: int) -> float:
        types = infer_types(train, 6, rounds, 3)
        centers = torch.nn.functional.normalize(torch.stack([profile[types == name].sum(0) for name in range(6)]))
        return float((profile * centers[types]).sum())

    assert fit(1) < fit(3) < fit(20) + 1e-4


def test_nobody_is_nearer_to_the_center_of_another_type() -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(high, (200, ), generator=generator) for high in (90, 8, 90)], 1)
    profile = torch.zeros(90, 16)
    profile[facts[:, 2], facts[:, 1]] = profile[facts[:, 0], 8 + facts[:, 1]] = 1
    profile = torch.nn.functional.normalize(profile)  # entities with many relations count like others
    types = infer_types(FactIndex(facts, 90, 8), 6, 100, 3)
    centers = torch.nn.functional.normalize(torch.stack([profile[types == name].sum(0) for name in range(6)]))
    cosine = profile @ centers.t()
    assert (cosine.gather(1, types.unsqueeze(1)).squeeze(1) > cosine.amax(1) - 1e-5).all()


@pytest.mark.parametrize('arguments, facts', [
    ({'num_types': 0}, ['num_types', '0']),
    ({'num_types': 2.5}, ['num_types', '2.5']),
    ({'num_rounds': 0}, ['num_rounds', '0']),
    ({'uniform': -0.1}, ['uniform', '-0.1']),
    ({'seed': -1}, ['seed', '-1']),
])
def test_bad_arguments(arguments: dict[str, Any], facts: list[str]) -> None:
    with pytest.raises(ArgumentError) as error:
        CANSLikeSampler(**arguments)
    assert all(fact in str(error.value) for fact in facts)

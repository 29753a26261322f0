r"""Random splits keep each entity and relation in training, copies together, and the shares where that is possible."""
from __future__ import annotations

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyg_emu.core.errors import ArgumentError, DataError, DataWarning
from pyg_emu.data.io.splitting import split_facts

IDS = st.integers(0, 6)
FACTS = st.lists(st.tuples(IDS, st.integers(0, 2), IDS), min_size=1, max_size=60)


def random_facts(count: int, entities: int, relations: int) -> np.ndarray:
    generator = np.random.default_rng(7)
    return np.stack([generator.integers(size, size=count) for size in (entities, relations, entities)], axis=1)


def symbols(facts: np.ndarray) -> tuple[set[int], set[int]]:
    return set(facts[:, [0, 2]].ravel().tolist()), set(facts[:, 1].tolist())


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
@given(FACTS, st.integers(0, 5), st.sampled_from([(0.8, 0.1, 0.1), (0.1, 0.5, 0.4), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0)]))
def test_every_fact_once_and_nothing_new_in_valid_and_test(rows: list[tuple[int, int, int]], seed: int,
                                                           fractions: tuple[float, float, float]) -> None:
    facts = np.array(rows)
    parts = split_facts(facts, fractions, seed)
    assert sorted(map(tuple, np.concatenate(list(parts.values())).tolist())) == sorted(rows)
    assert symbols(parts['train']) == symbols(facts)
    distinct = {split: set(map(tuple, part.tolist())) for split, part in parts.items()}
    assert sum(len(part) for part in distinct.values()) == len(set(rows))  # copies stay together
    for split, share in zip(('valid', 'test'), fractions[1:]):
        assert len(distinct[split]) <= math.ceil(share * len(set(rows)))
    # No fact is in one split and its reverse in another.
    for split, part in distinct.items():
        others = set().union(*(other for name, other in distinct.items() if name != split))
        assert not {(tail, relation, head) for head, relation, tail in part} & others
    # Order within a split is that of the input.
    for part in parts.values():
        wanted = set(map(tuple, part.tolist()))
        assert list(map(tuple, part.tolist())) == [row for row in rows if row in wanted]


def test_shares_are_met_and_the_seed_decides() -> None:
    facts = np.unique(random_facts(4_000, 50, 5), axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        first, again, other = (split_facts(facts, (0.7, 0.2, 0.1), seed) for seed in (0, 0, 1))
    total = len(facts)
    assert [len(first['valid']), len(first['test'])] == [round(0.2 * total), round(0.1 * total)]
    assert all(np.array_equal(first[split], again[split]) for split in first)
    assert not np.array_equal(first['test'], other['test'])
    # Drawn from all over, not from one end.
    position = {fact: row for row, fact in enumerate(map(tuple, facts.tolist()))}
    mean = np.mean([position[fact] for fact in map(tuple, first['test'].tolist())])
    assert abs(mean / total - 0.5) < 0.1


def test_a_fact_and_its_reverse_stay_together() -> None:
    # An undirected graph, as PyG stores it: both directions of each edge.
    generator = np.random.default_rng(0)
    ends = np.unique(np.sort(generator.integers(60, size=(300, 2)), axis=1), axis=0)
    ends = ends[ends[:, 0] != ends[:, 1]]
    facts = np.concatenate([np.insert(ends, 1, 0, axis=1), np.insert(ends[:, ::-1], 1, 0, axis=1)])
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        parts = split_facts(facts, (0.8, 0.1, 0.1))
    keys = {split: set(map(tuple, part.tolist())) for split, part in parts.items()}
    assert all((tail, relation, head) in known for known in keys.values() for head, relation, tail in known)
    for split in ('valid', 'test'):
        assert abs(len(parts[split]) - 0.1 * len(facts)) <= 1 + 0.5
    # The same facts without their reverses are split as if those did not exist.
    once = split_facts(facts[:len(ends)], (0.8, 0.1, 0.1))
    assert len(once['test']) == round(0.1 * len(ends))


def test_odd_shares_of_pairs_are_filled_with_single_facts() -> None:
    pairs = [(a, 0, b) for a in range(8) for b in range(8) if a != b]
    facts = np.array([*pairs, *((a, 1, a) for a in range(8))])
    parts = split_facts(facts, (0.5, 0.25, 0.25), seed=3)
    assert [len(part) for part in parts.values()] == [32, 16, 16]
    parts = split_facts(facts, (1 - 14 / 64, 7 / 64, 7 / 64), seed=3)
    assert [len(parts[split]) for split in ('valid', 'test')] == [7, 7]


@pytest.mark.parametrize('seed', [-1, 1.5, 'x', None, True, 2**63])
def test_impossible_seeds(seed: Any) -> None:
    with pytest.raises(ArgumentError, match='seed'):
        split_facts(np.array([(0, 0, 1)]), seed=seed)


@pytest.mark.parametrize('seed', range(30))
def test_as_much_is_spared_as_can_be(seed: int) -> None:
    # A star: each leaf needs its one fact, which leaves the loop at the centre to spare, even where it is drawn first.
    facts = np.array([(0, 0, 0), *((0, 0, leaf) for leaf in range(1, 9))])
    with pytest.warns(DataWarning, match='3 .* 3 .* 9, .* 8 .* 0 .* 1'):
        parts = split_facts(facts, (0.4, 0.3, 0.3), seed)
    assert parts['train'].tolist() == facts[1:].tolist() and parts['test'].tolist() == [[0, 0, 0]]


def test_a_chain_of_pairs_cannot_be_split() -> None:
    facts = np.array([(2 * pair, 0, 2 * pair + 1) for pair in range(10)])
    with pytest.warns(DataWarning, match='validation .* 0 .*test 0'):
        parts = split_facts(facts)
    assert len(parts['train']) == 10 and len(parts['valid']) == 0 and len(parts['test']) == 0


def test_too_few_facts_are_said_to_be_too_few() -> None:
    with pytest.warns(DataWarning, match='3 distinct facts'):
        split_facts(np.array([(0, 0, 1), (1, 0, 0), (0, 0, 0)]), (0.9, 0.1, 0.0))


@pytest.mark.parametrize('fractions', [(0.8, 0.2), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (math.nan, 0.5, 0.5), (8, 1, 1),
                                       (0.0, 0.5, 0.5), 0.8, 'abc', ('0.8', '0.1', '0.1'), None])
def test_impossible_fractions(fractions: Any) -> None:
    with pytest.raises(ArgumentError, match=f'fractions: .*{re.escape(repr(fractions))}'):
        split_facts(np.array([(0, 0, 1)]), fractions)
    with pytest.raises(DataError, match='no facts'):
        split_facts(np.empty((0, 3), dtype=np.int64))

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.candidates import RelationCandidates
from pyg_emu.data.graph import KGData

PEOPLE, RELATIONS = ['ann', 'bob', 'cat', 'dan', 'eve'], ['knows', 'likes', 'sees']


def make_data() -> KGData:
    # ann knows bob and cat, dan likes ann; nobody sees anyone in training.
    return KGData(torch.tensor([[0, 0, 3], [1, 2, 0]]), torch.tensor([0, 0, 1]), entity_labels=PEOPLE,
                  relation_labels=RELATIONS, test_edge_index=torch.tensor([[0], [4]]),
                  test_edge_type=torch.tensor([2]))


def sets_of(candidates: RelationCandidates, side: Any) -> list[set[str]]:
    allowed = candidates.allowed(torch.arange(3), side)
    for entity in range(5):
        found = candidates.contains(torch.full((3,), entity), torch.arange(3), side)
        assert found.equal(allowed[:, entity])
    return [{PEOPLE[place] for place in row.nonzero().squeeze(1).tolist()} for row in allowed]


def test_sets_of_relations() -> None:
    candidates = RelationCandidates(make_data(), tails={'likes': ['eve', 'ann'], 0: [True, False, False, False, True]},
                                    heads={'sees': 'dan'})
    assert sets_of(candidates, 'tail') == [{'ann', 'eve'}, {'ann', 'eve'}, set(PEOPLE)]
    assert sets_of(candidates, 'head') == [set(PEOPLE), set(PEOPLE), {'dan'}]
    assert '3 of 6' in repr(candidates)
    # Rows repeat and come in any order.
    assert candidates.allowed(torch.tensor([2, 0, 2]), 'head').sum(1).tolist() == [1, 5, 1]


def test_entities_seen_at_an_end() -> None:
    assert sets_of(RelationCandidates.seen(make_data()), 'tail') == [{'bob', 'cat'}, {'ann'}, set(PEOPLE)]
    assert sets_of(RelationCandidates.seen(make_data()), 'head') == [{'ann'}, {'dan'}, set(PEOPLE)]
    assert sets_of(RelationCandidates.seen(make_data(), 'all'), 'tail')[2] == {'eve'}


@pytest.mark.parametrize('types', [
    torch.tensor([7, 7, 3, -1, 3]), ['x', 'x', 'y', None, 'y'], {'ann': 'x', 'bob': 'x', 'cat': 'y', 'eve': 'y'},
])
def test_entities_of_a_type_seen_at_an_end(types: Any) -> None:
    candidates = RelationCandidates.of_types(make_data(), types)
    assert sets_of(candidates, 'tail') == [{'ann', 'bob', 'cat', 'eve'}, {'ann', 'bob'}, set(PEOPLE)]
    # The only head of likes has no type.
    assert sets_of(candidates, 'head') == [{'ann', 'bob'}, set(PEOPLE), set(PEOPLE)]


@pytest.mark.parametrize('described, make', [
    ({'seen': 'all'}, lambda data: RelationCandidates.seen(data, 'all')),
    ({'types': {'ann': 'x', 'cat': 'y'}}, lambda data: RelationCandidates.of_types(data, {'ann': 'x', 'cat': 'y'})),
    ({'types': ['x', 'x', 'y', 'y', 'y'], 'split': 'all'},
     lambda data: RelationCandidates.of_types(data, ['x', 'x', 'y', 'y', 'y'], 'all')),
    ({'tails': {'likes': ['eve']}, 'heads': {'sees': 'dan'}},
     lambda data: RelationCandidates(data, {'likes': ['eve']}, {'sees': 'dan'})),
])
def test_sets_that_a_dictionary_describes(described: Any, make: Any) -> None:
    found, expected = RelationCandidates.from_dict(described, make_data()), make(make_data())
    for side in ('tail', 'head'):
        assert sets_of(found, side) == sets_of(expected, side)


@pytest.mark.parametrize('make, error, facts', [
    (lambda data: RelationCandidates.from_dict({}, data), ArgumentError, ['candidates', '{}']),
    (lambda data: RelationCandidates.from_dict({'seen': 'all', 'types': {}}, data), ArgumentError, ["'seen'", 'types']),
    (lambda data: RelationCandidates.from_dict({'seen': 'dev'}, data), ArgumentError, ['candidates: split', "'dev'"]),
    (lambda data: RelationCandidates.from_dict({'tails': {'knows': ['anne']}}, data), DataError,
     ["candidates: tails['knows']", "'anne'"]),
    (lambda data: RelationCandidates(data), ArgumentError, ['tails', 'heads']),
    (lambda data: RelationCandidates(data, tails=['ann']), ArgumentError, ['tails', "['ann']"]),
    (lambda data: RelationCandidates(data, tails={'know': ['ann']}), DataError, ["'know'", "'knows'"]),
    (lambda data: RelationCandidates(data, tails={'knows': []}), ArgumentError, ["tails['knows']"]),
    (lambda data: RelationCandidates(data, heads={'knows': ['anne']}), DataError, ["heads['knows']", "'anne'"]),
    (lambda data: RelationCandidates(data, heads={'knows': 'ann', 0: 'bob'}), ArgumentError, ['heads', 'two', '0']),
    (lambda data: RelationCandidates.seen(data, 'valid'), ArgumentError, ['split']),
    (lambda data: RelationCandidates.seen(data, 'dev'), ArgumentError, ['split', "'dev'"]),
    (lambda data: RelationCandidates.seen('UMLS'), ArgumentError, ['data', "'UMLS'"]),
    (lambda data: RelationCandidates.of_types(data, ['x']), ArgumentError, ['types', '(5,)', '(1,)']),
    (lambda data: RelationCandidates.of_types(data, [None] * 5), ArgumentError, ['types']),
    (lambda data: RelationCandidates.of_types(data, 7), ArgumentError, ['types', '7']),
    (lambda data: RelationCandidates.of_types(data, {'ann': 'x', 0: 'y'}), ArgumentError, ['types', "'x'", "'y'"]),
    (lambda data: RelationCandidates.of_types(data, torch.zeros(5)), ArgumentError, ['types', 'float']),
    (lambda data: RelationCandidates.of_types(data, torch.zeros(5, dtype=torch.cfloat)), ArgumentError,
     ['types', 'complex']),
    (lambda data: RelationCandidates.of_types(data), ArgumentError, ['types', 'no node_type', 'HeteroData', 'types=']),
])
def test_bad_arguments(make: Any, error: type[Exception], facts: list[str]) -> None:
    with pytest.raises(error) as caught:
        make(make_data())
    assert all(fact in str(caught.value) for fact in facts), caught.value

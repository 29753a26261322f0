from __future__ import annotations

from typing import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data import index as index_module
from pyg_emu.data.candidates import ends_of_relations
from pyg_emu.data.graph import KGData
from pyg_emu.data.index import EdgeOrder, FactIndex
from pyg_emu.negatives.mutation.patterns import Patterns

NUM_NODES, NUM_RELATIONS = 5, 3


@pytest.fixture(params=['packed', 'numbered'], autouse=True, scope='module')
def keys(request: pytest.FixtureRequest) -> Iterator[None]:
    r"""Keys hold patterns as they are, or their ranks as in graphs whose keys would not fit."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == 'numbered':
            patch.setattr(index_module, '_LARGEST_KEY', 0)
        yield


facts_strategy = st.lists(
    st.tuples(st.integers(0, NUM_NODES - 1), st.integers(0, NUM_RELATIONS - 1), st.integers(0, NUM_NODES - 1)),
    max_size=40)


def as_facts(rows: list[tuple[int, int, int]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int64).view(-1, 3)


def all_patterns() -> tuple[Tensor, Tensor]:
    known = torch.arange(NUM_NODES).repeat_interleave(NUM_RELATIONS)
    return known, torch.arange(NUM_RELATIONS).repeat(NUM_NODES)


def brute_known(rows: list[tuple[int, int, int]], known: int, relation: int, tail: bool) -> list[int]:
    if tail:
        return sorted({t for h, r, t in rows if (h, r) == (known, relation)})
    return sorted({h for h, r, t in rows if (t, r) == (known, relation)})


def rows_of(ragged: index_module.Ragged) -> list[list[int]]:
    ptr = ragged.ptr.tolist()
    return [ragged.index[start:end].tolist() for start, end in zip(ptr, ptr[1:])]


def test_known_by_hand() -> None:
    # 0 -0-> 1, 0 -0-> 2 (twice), 3 -1-> 2
    index = FactIndex(as_facts([(0, 0, 2), (0, 0, 1), (3, 1, 2), (0, 0, 2)]), NUM_NODES, NUM_RELATIONS)
    assert index.num_facts == 3
    tails = index.known(torch.tensor([0, 3, 0, 4]), torch.tensor([0, 1, 1, 2]), 'tail')
    assert tails.ptr.tolist() == [0, 2, 3, 3, 3]
    assert tails.index.tolist() == [1, 2, 2]
    heads = index.known(torch.tensor([2, 2, 1]), torch.tensor([0, 1, 0]), 'head')
    assert rows_of(heads) == [[0], [3], [0]]
    side = torch.tensor([True, False])
    assert rows_of(index.known(torch.tensor([0, 2]), torch.tensor([0, 1]), side)) == [[1, 2], [3]]
    assert str(index) == 'FactIndex(num_facts=3, num_nodes=5, num_relations=3)'


@settings(deadline=None, max_examples=60)
@given(facts_strategy, st.integers(0, 2**31))
def test_known_and_count_equal_brute_force(rows: list[tuple[int, int, int]], seed: int) -> None:
    index = FactIndex(as_facts(rows), NUM_NODES, NUM_RELATIONS)
    assert index.num_facts == len(set(rows))
    known, relation = all_patterns()
    mixed = torch.rand(known.numel(), generator=torch.Generator().manual_seed(seed)) < 0.5
    for side in ('tail', 'head', mixed):
        is_tail = mixed.tolist() if isinstance(side, Tensor) else [side == 'tail'] * known.numel()
        expected = [brute_known(rows, *pattern) for pattern in zip(known.tolist(), relation.tolist(), is_tail)]
        assert rows_of(index.known(known, relation, side)) == expected
        assert index.count(known, relation, side).tolist() == [len(row) for row in expected]
    largest = max(int(index.count(known, relation, side).max()) for side in ('tail', 'head'))
    assert index.max_known == largest


@settings(deadline=None, max_examples=60)
@given(facts_strategy, st.booleans())
def test_membership_equals_brute_force(rows: list[tuple[int, int, int]], with_filter: bool) -> None:
    index = FactIndex(as_facts(rows), NUM_NODES, NUM_RELATIONS)
    every = torch.cartesian_prod(torch.arange(NUM_NODES), torch.arange(NUM_RELATIONS), torch.arange(NUM_NODES))
    expected = [tuple(row) in set(rows) for row in every.tolist()]
    known, relation = all_patterns()
    candidates = torch.arange(NUM_NODES).expand(known.numel(), -1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, '_FILTER_FROM', 0 if with_filter else 10**9)
        assert index.contains(*every.unbind(1)).tolist() == expected
        for side in ('tail', 'head'):
            answers = [brute_known(rows, k, r, side == 'tail') for k, r in zip(known.tolist(), relation.tolist())]
            assert index.is_known(candidates, known, relation, side).tolist() == [
                [entity in row for entity in range(NUM_NODES)] for row in answers]
    assert (index._filter is not None) == (with_filter and len(rows) > 0)


@settings(deadline=None, max_examples=60)
@given(facts_strategy)
def test_unknown_lists_the_complement(rows: list[tuple[int, int, int]]) -> None:
    index = FactIndex(as_facts(rows), NUM_NODES, NUM_RELATIONS)
    known, relation = all_patterns()
    rank = torch.arange(NUM_NODES).expand(known.numel(), -1)
    for side in ('tail', 'head'):
        entity = index.unknown(rank, known, relation, side)
        assert entity.min() >= 0 and entity.max() < NUM_NODES
        for k, r, row in zip(known.tolist(), relation.tolist(), entity.tolist()):
            answers = brute_known(rows, k, r, side == 'tail')
            complement = [x for x in range(NUM_NODES) if x not in answers]
            assert row[:len(complement)] == complement


def test_filter_changes_nothing_on_a_large_graph() -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(size, (5000,), generator=generator) for size in (300, 7, 300)], dim=1)
    index = FactIndex(facts, 300, 7)
    query = torch.stack([torch.randint(size, (20000,), generator=generator) for size in (300, 7, 300)], dim=1)
    found = index.contains(*query.unbind(1))
    assert index._filter is not None
    members = set(map(tuple, facts.tolist()))
    assert found.tolist() == [tuple(row) in members for row in query.tolist()]
    assert bool(index.contains(*facts.unbind(1)).all())


@given(facts_strategy)
def test_distinct_ends(rows: list[tuple[int, int, int]]) -> None:
    heads, tails = FactIndex(as_facts(rows), NUM_NODES, NUM_RELATIONS).distinct_ends()
    for relation in range(NUM_RELATIONS):
        assert int(heads[relation]) == len({h for h, r, _ in rows if r == relation})
        assert int(tails[relation]) == len({t for _, r, t in rows if r == relation})


def test_contains_broadcasts() -> None:
    index = FactIndex(as_facts([(0, 0, 1), (2, 0, 1)]), NUM_NODES, NUM_RELATIONS)
    found = index.contains(torch.tensor([[0], [1], [2]]), torch.tensor(0), torch.tensor([[0, 1]]))
    assert found.tolist() == [[False, True], [False, False], [False, True]]


def test_ids_out_of_range_are_no_facts() -> None:
    # Were ids not checked, (0, 3, 1) would alias (1, 0, 1), and (0, 0, 6) would alias (0, 1, 1).
    index = FactIndex(as_facts([(1, 0, 1), (0, 1, 1)]), NUM_NODES, NUM_RELATIONS)
    head, relation, tail = torch.tensor([[0, 3, 1], [0, 0, 6], [-1, 0, 1], [1, 0, 1], [0, 2, -4]]).unbind(1)
    assert index.contains(head, relation, tail).tolist() == [False, False, False, True, False]
    assert rows_of(index.known(torch.tensor([0, -1, 7]), torch.tensor([3, 0, 0]), 'tail')) == [[], [], []]
    assert rows_of(index.known(torch.tensor([-4]), torch.tensor([0]), 'head')) == [[]]
    # (0, 0, 6) once more, and (1, 0, -4), which would alias (0, 2, 1).
    index = FactIndex(as_facts([(0, 1, 1), (0, 2, 1), (1, 0, 1)]), NUM_NODES, NUM_RELATIONS)
    candidates, known, zero = torch.tensor([[6, 1], [-4, 1]]), torch.tensor([0, 1]), torch.tensor([0, 0])
    assert index.is_known(candidates, known, zero, 'tail').tolist() == [[False, False], [False, True]]


def test_empty_index_and_empty_query() -> None:
    index = FactIndex(as_facts([]), NUM_NODES, NUM_RELATIONS)
    nothing = torch.empty(0, dtype=torch.int64)
    assert index.max_known == 0
    assert rows_of(index.known(torch.tensor([1]), torch.tensor([1]), 'tail')) == [[]]
    assert index.contains(torch.tensor([1]), torch.tensor([1]), torch.tensor([1])).tolist() == [False]
    full = FactIndex(as_facts([(0, 0, 1)]), NUM_NODES, NUM_RELATIONS)
    assert full.known(nothing, nothing, 'tail').ptr.tolist() == [0]
    assert full.unknown(nothing.view(0, 4), nothing, nothing, 'head').shape == (0, 4)


def test_keys_near_the_limit_of_int64() -> None:
    num_nodes = 2**30
    for num_relations in (3, 4, 2**31):  # 2 V^2 R is less than 2^63, 2^63 itself, and far more
        last = num_nodes - 1
        index = FactIndex(as_facts([(last, 2, last), (last, 2, 0), (0, 0, 0)]), num_nodes, num_relations)
        assert rows_of(index.known(torch.tensor([last, 0]), torch.tensor([2, 0]), 'tail')) == [[0, last], [0]]
        assert rows_of(index.known(torch.tensor([last, 0]), torch.tensor([2, 2]), 'head')) == [[last], [last]]
        assert index.unknown(torch.tensor([[0, num_nodes - 3]]), torch.tensor([last]), torch.tensor([2]),
                             'tail').tolist() == [[1, last - 1]]
        # Nothing is known of a pattern that does not occur, whose entities are all unknown.
        assert index.count(torch.tensor([1]), torch.tensor([1]), 'tail').tolist() == [0]
        assert index.unknown(torch.tensor([[0, last]]), torch.tensor([1]), torch.tensor([1]), 'head').tolist() == [
            [0, last]]
    for num_relations, facts in ((2**33, 0), (1, 2**34)):
        with pytest.raises(DataError, match='64 bits') as caught:
            index_module._check_sizes(num_nodes, num_relations, facts)
        assert str(num_relations) in str(caught.value) and str(facts) in str(caught.value)


@settings(deadline=None, max_examples=30)
@given(facts_strategy)
def test_keys_are_unpacked(rows: list[tuple[int, int, int]]) -> None:
    index = FactIndex(as_facts(rows), NUM_NODES, NUM_RELATIONS)
    pattern, answer = index.unpacked(index.keys)
    head, relation, tail = as_facts(sorted(set(rows))).unbind(1)
    tails, heads = pattern.tensor_split(2)
    assert torch.equal(tails, index.pattern(head, relation, 'tail')) and torch.equal(answer[:len(tails)], tail)
    assert sorted(zip(heads.tolist(), answer[len(tails):].tolist())) == sorted(
        zip(index.pattern(tail, relation, 'head').tolist(), head.tolist()))
    assert torch.equal(index.base(head, relation, 'tail') + tail, index.keys[:len(tails)])


@pytest.mark.parametrize('facts, message', [
    (torch.zeros(3, 2, dtype=torch.int64), r'facts: .*\(F, 3\).*\(3, 2\)'),
    (torch.zeros(2, 3, dtype=torch.int32), 'facts: .*int64.*torch.int32'),
    (torch.tensor([[0, 0, 0], [0, 0, 5]]), r'tail .*\[0, 4\].* 5 .*fact 1$'),
    (torch.tensor([[0, 3, 0]]), r'relation .*\[0, 2\].* 3 .*fact 0$'),
    (torch.tensor([[0, 0, 0], [0, 0, 0], [-1, 0, 0]]), r'head .*\[0, 4\].* -1 .*fact 2$'),
])
def test_bad_facts(facts: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        FactIndex(facts, NUM_NODES, NUM_RELATIONS)


@pytest.mark.parametrize('side', ['tails', torch.tensor([1, 0])])
def test_bad_side(side: object) -> None:
    index = FactIndex(as_facts([(0, 0, 1)]), NUM_NODES, NUM_RELATIONS)
    with pytest.raises(ArgumentError, match='^side: '):
        index.known(torch.tensor([0, 1]), torch.tensor([0, 0]), side)  # type: ignore[arg-type]


def test_to_leaves_the_original_alone() -> None:
    index = FactIndex(as_facts([(0, 0, 1)]), NUM_NODES, NUM_RELATIONS)
    index.unknown(torch.tensor([[0]]), torch.tensor([0]), torch.tensor([0]), 'tail')
    moved = index.to('meta')
    assert moved.device.type == 'meta' and moved._complement is not None and moved._complement.is_meta
    assert index.device.type == 'cpu' and index._complement is not None and not index._complement.is_meta
    assert index.to('cpu').keys.data_ptr() == index.keys.data_ptr()


@settings(deadline=None, max_examples=40)
@given(facts_strategy, st.sampled_from(['target', 'source', 'relation']))
def test_edge_order_equals_brute_force(rows: list[tuple[int, int, int]], key: str) -> None:
    head, relation, tail = as_facts(rows).unbind(1)
    order = EdgeOrder.build(torch.stack([head, tail]), relation, key, NUM_NODES, NUM_RELATIONS)  # type: ignore[arg-type]
    column = {'source': 0, 'relation': 1, 'target': 2}[key]
    expected = sorted(range(len(rows)), key=lambda edge: rows[edge][column])  # stable
    assert order.edge_id.tolist() == expected
    triples = zip(order.source.tolist(), order.relation.tolist(), order.target.tolist())
    assert list(triples) == [rows[edge] for edge in expected]
    num_keys = NUM_RELATIONS if key == 'relation' else NUM_NODES
    counts = [sum(row[column] == value for row in rows) for value in range(num_keys)]
    assert order.ptr.diff().tolist() == counts and order.ptr[0] == 0
    assert all(type(value) is Tensor for value in order)


def test_edge_order_refuses_other_keys() -> None:
    with pytest.raises(ArgumentError, match="key: .*'head'"):
        EdgeOrder.build(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64), 'head',  # type: ignore
                        NUM_NODES, NUM_RELATIONS)


def test_shares_of_heads() -> None:
    # One head with three tails, tph = 3 and hpt = 1; no fact; two heads with one tail, tph = 1 and hpt = 2.
    index = FactIndex(torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 3], [1, 2, 0], [2, 2, 0], [2, 2, 0]]), 4, 3)
    torch.testing.assert_close(index.head_share, torch.tensor([3 / 4, 1 / 2, 1 / 3]))
    assert index.head_share is index.head_share and index.to('meta').head_share.device.type == 'meta'


@settings(deadline=None, max_examples=40)
@given(facts_strategy, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_facts_in_parts_and_pieces(rows: list[tuple[int, int, int]], chunk: int, cut: int, narrow: bool) -> None:
    # Whatever is processed at a time, the index is the one of all facts at once.
    facts = as_facts(rows)
    whole = FactIndex(facts, NUM_NODES, NUM_RELATIONS)
    assert whole.keys.tolist() == sorted(set(whole.keys.tolist())) and whole.num_facts == len(set(rows))
    # Computed before the pieces become small.
    expected = whole.max_known, whole._build_complement(), whole.relation_counts
    columns = facts.t().to(torch.int32 if narrow else torch.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, '_CHUNK', chunk)
        index = FactIndex.of_columns([[*columns[:, :cut]], [*columns[:, cut:]]], NUM_NODES, NUM_RELATIONS)
        assert torch.equal(index.keys, whole.keys) and index.max_known == expected[0]
        assert torch.equal(index._build_complement(), expected[1])
        assert torch.equal(index.relation_counts, expected[2])
        assert index.relation_counts[2].tolist() == [
            sum(relation == number for _, relation, _ in set(rows)) for number in range(NUM_RELATIONS)]
        ordered = torch.cat([*index_module.sorted_facts([[*columns]], NUM_NODES, NUM_RELATIONS), as_facts([])])
        assert [tuple(row) for row in ordered.tolist()] == sorted(rows)
    order = EdgeOrder.build(columns[::2], columns[1], 'target', NUM_NODES, NUM_RELATIONS)
    assert all(torch.equal(left, right) and left.dtype == torch.int64 for left, right in zip(
        order, EdgeOrder.build(facts.t()[::2], facts[:, 1], 'target', NUM_NODES, NUM_RELATIONS)))


def test_ids_out_of_range_in_parts_are_counted_on() -> None:
    parts = [[*torch.zeros(3, 4, dtype=torch.int32)], [*torch.tensor([[0, 5], [0, 0], [0, 0]], dtype=torch.int32)]]
    with pytest.raises(DataError, match=r'head .*\[0, 4\].* 5 .*fact 5$'):
        FactIndex.of_columns(parts, NUM_NODES, NUM_RELATIONS)
    with pytest.raises(DataError, match='int64.*float'):
        FactIndex.of_columns([[*torch.zeros(3, 1)]], NUM_NODES, NUM_RELATIONS)


def test_narrow_ids_are_looked_up_without_overflow() -> None:
    size = 2**20
    index = FactIndex(as_facts([(size - 1, 9, size - 1), (0, 0, 0)]), size, 10)
    ids = torch.tensor([size - 1, 9, size - 1], dtype=torch.int32)
    assert bool(index.contains(*ids)) and int(index.count(ids[0], ids[1], 'head')) == 1


def test_the_filter_waits_for_many_look_ups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, '_FILTER_FROM', 0)
    facts = torch.stack([torch.arange(100), torch.zeros(100, dtype=torch.int64), torch.arange(100)], dim=1)
    index = FactIndex(facts, 100, 1)  # 200 keys
    for expected in (False, False, True):
        assert index.contains(*facts[:5].t()).all()
        assert (index._filter is not None) is expected


def test_whoever_reads_keys_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    facts = torch.stack([torch.randint(size, (60,), generator=generator) for size in (12, 3, 12)], dim=1)
    found = []
    for largest in (2**63 - 1, 0):
        monkeypatch.setattr(index_module, '_LARGEST_KEY', largest)
        data = KGData(facts[:, [0, 2]].t(), facts[:, 1], 12, 3)
        index = data.fact_index('train')
        found.append([str(data.report()), *ends_of_relations(index), *Patterns.of(index)[1:], index.head_share,
                      index.relation_counts, torch.tensor(index.max_known),
                      torch.cat(list(index_module.sorted_facts([facts.unbind(1)], 12, 3)))])
    assert found[0][0] == found[1][0] and 'reverse' in str(found[0][0]).lower()
    for value, other in zip(found[0][1:], found[1][1:]):
        assert torch.equal(value, other)
    assert found[0][-1].tolist() == sorted(facts.tolist())


def test_sizes_of_numpy_do_not_overflow() -> None:
    size = np.int32(60_000)  # its square needs more than 31 bits
    facts = torch.tensor([[59_999, 59_999, 59_998]])
    index: FactIndex = FactIndex(facts, size, size)  # type: ignore[arg-type]
    assert index.contains(*facts[0]) and index.num_nodes * index.num_relations == 3_600_000_000

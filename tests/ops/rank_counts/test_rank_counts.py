from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, BackendError, DivergenceError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import last_backend, rank_counts, rank_from_scores, score_entities
from pyg_emu.ops.rank_counts import NaNScoreError, blocks, default_block_size, numba, ranking_block_size

INTERACTIONS = [Dot(), L1(), L2(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0)]
DISTANCES = INTERACTIONS[1:]
BACKENDS = ['torch', 'numba']


def name_of(interaction: Interaction) -> str:
    return interaction.name


def operands(interaction: Interaction, num_queries: int, num_nodes: int, width: int, seed: int = 0,
             dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(num_queries, interaction.query_width(width), generator=generator, dtype=dtype)
    return query, torch.randn(num_nodes, width, generator=generator, dtype=dtype)


def ragged(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    return lengths.cumsum(0), torch.tensor([entity for row in rows for entity in row], dtype=torch.int64)


def brute_force(scores: Tensor, target: list[int], filtered: list[list[int]],
                row: list[int]) -> list[tuple[int, int, int]]:
    found = []
    for question, answer in zip(row, target):
        others = [v for v in range(scores.size(1)) if v != answer and v not in filtered[question]]
        values = [float(scores[question, v]) for v in others]
        own = float(scores[question, answer])
        found.append((sum(v > own for v in values), sum(v == own for v in values), len(others)))
    return found


def as_rows(counts: Any) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in counts)))


@pytest.mark.parametrize('backend', BACKENDS)
def test_by_hand(backend: str) -> None:
    # Distances from 1.25: 1.25, 0.25, 0.75, 1.75, 0.25.
    table = torch.tensor([[0.0], [1.0], [2.0], [3.0], [1.0]])
    query = torch.full((4, 1), 1.25)
    target = torch.tensor([2, 1, 3, 2])
    counts = rank_counts(query, table, target, interaction=L1(), backend=backend)
    assert as_rows(counts) == [(2, 0, 4), (0, 1, 4), (4, 0, 4), (2, 0, 4)]
    # Entity 1 does not compete with 2; 4 not with 1, which may be in its own filter; the last target has no competitor.
    ptr, index = ragged([[1], [1, 4], [], [0, 1, 3, 4]])
    counts = rank_counts(query, table, target, ptr, index, interaction=L1(), backend=backend)
    assert as_rows(counts) == [(1, 0, 3), (0, 0, 3), (4, 0, 4), (0, 0, 0)]
    assert last_backend('rank_counts') == backend


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
@settings(max_examples=25)
@given(data=st.data())
def test_equals_brute_force(interaction: Interaction, backend: str, data: st.DataObject) -> None:
    num_queries, num_distinct = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
    width = 2 * data.draw(st.integers(1, 9))
    query, table = operands(interaction, num_queries, num_distinct, width, data.draw(st.integers(0, 2**16)))
    # Repeated rows, so that there are ties.
    table = table[data.draw(st.lists(st.integers(0, num_distinct - 1), min_size=1, max_size=70))]
    if interaction == Dot() and backend == 'torch':
        query, table = query.round(), table.round()  # sums of integers are exact in any order
    entities = st.integers(0, table.size(0) - 1)
    filtered = data.draw(st.lists(st.lists(entities, max_size=6), min_size=num_queries, max_size=num_queries))
    row = sorted(data.draw(st.lists(st.integers(0, num_queries - 1), max_size=6)))
    target = data.draw(st.lists(entities, min_size=len(row), max_size=len(row)))
    ids = {'row': torch.tensor(row, dtype=torch.int64), 'backend': backend}
    answers = torch.tensor(target, dtype=torch.int64)
    counts = rank_counts(query, table, answers, *ragged(filtered), interaction=interaction,
                         block_size=data.draw(st.sampled_from([None, 1, 2])), **ids)
    scores = score_entities(query, table, interaction=interaction, backend=backend)
    assert as_rows(counts) == brute_force(scores, target, filtered, row)
    again = rank_from_scores(scores, answers, *ragged(filtered), **ids)
    assert as_rows(again) == as_rows(counts)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_scores_equal_the_interaction(interaction: Interaction, backend: str, dtype: torch.dtype) -> None:
    for num_nodes, width in ((1, 2), (63, 6), (64, 16), (65, 18), (200, 100)):
        query, table = operands(interaction, 3, num_nodes, width, dtype=dtype)
        expected = interaction(query.unsqueeze(1), table)
        found = score_entities(query, table, interaction=interaction, backend=backend)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_identical_rows_tie_exactly(interaction: Interaction, dtype: torch.dtype) -> None:
    # Among these shapes are many at which a BLAS product of identical columns is not constant.
    for num_queries, num_nodes, width in ((1, 37, 6), (1, 1001, 18), (2, 513, 1000), (5, 130, 34), (33, 65, 100)):
        query, table = operands(interaction, num_queries, 1, width, dtype=dtype)
        target = torch.arange(num_queries) % num_nodes
        counts = rank_counts(query, table.expand(num_nodes, -1), target, interaction=interaction, backend='numba')
        assert counts.greater.eq(0).all() and counts.equal.eq(num_nodes - 1).all()


@pytest.mark.parametrize('interaction', DISTANCES, ids=name_of)
def test_identical_rows_tie_exactly_in_pytorch(interaction: Interaction) -> None:
    query, table = operands(interaction, 5, 1, 34, dtype=torch.float32)
    counts = rank_counts(query, table.repeat(130, 1), torch.arange(5), interaction=interaction, backend='torch')
    assert counts.greater.eq(0).all() and counts.equal.eq(129).all()


@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_neither_blocks_nor_threads_change_a_bit(interaction: Interaction) -> None:
    query, table = operands(interaction, 20, 300, 22, dtype=torch.float32)
    whole = score_entities(query, table, interaction=interaction, backend='numba')
    parts = [score_entities(part, table, interaction=interaction, backend='numba') for part in query.split(3)]
    assert torch.equal(torch.cat(parts), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(score_entities(query, table, interaction=interaction, backend='numba'), whole)
    finally:
        torch.set_num_threads(threads)
    target = torch.randint(300, (20,), generator=torch.Generator().manual_seed(1))
    results = [rank_counts(query, table, target, interaction=interaction, block_size=size) for size in (None, 1, 7, 99)]
    assert all(as_rows(result) == as_rows(results[0]) for result in results)


@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_parts_of_the_table_change_no_count(interaction: Interaction, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    query, table = operands(interaction, 7, 30, 22, dtype=torch.float32)
    # Rows that tie lie in different parts.
    table = table[torch.randint(30, (200, ), generator=generator)]
    row = torch.randint(7, (40, ), generator=generator).sort().values
    target = torch.randint(200, (40, ), generator=generator)
    answers = ragged([torch.randint(200, (size, ), generator=generator).tolist() for size in (0, 90, 1, 5, 0, 30, 3)])
    expected = rank_counts(query, table, target, *answers, interaction=interaction, row=row)
    sizes = []

    def score_block(query: Tensor, table: Tensor, interaction: Interaction) -> Tensor:
        sizes.append(table.size(0))
        return whole(query, table, interaction)

    whole = numba.score_block
    monkeypatch.setattr(numba, 'score_block', score_block)
    # Scores that fit into a block are computed at once, and no score twice.
    rank_counts(query, table, target, *answers, interaction=interaction, row=row)
    assert sizes == [200]
    sizes.clear()
    monkeypatch.setattr(numba, 'BLOCK_BYTES', 7 * 199 * 4)
    monkeypatch.setattr(blocks, 'PART_BYTES', 7 * 33 * 4)
    monkeypatch.setattr(blocks, '_LEAST_ROWS', 1)
    found = rank_counts(query, table, target, *answers, interaction=interaction, row=row)
    # First the scores of the targets, as many at a time.
    assert sizes == [33, 7, *[33] * 6, 2]
    assert as_rows(found) == as_rows(expected)
    for place in (0, 50, 199):
        table[place, 3] = float('nan')
        with pytest.raises(NaNScoreError, match='row 0'):
            rank_counts(query, table, target, *answers, interaction=interaction, row=row)
        table[place] = 0.0


@pytest.mark.parametrize('backend', BACKENDS)
def test_filter_in_any_order_and_with_repetitions(backend: str) -> None:
    query, table = operands(L1(), 3, 12, 4)
    target = torch.tensor([0, 5, 11])
    plain = ragged([[], [1, 4, 5, 9], [2, 3]])
    shuffled = ragged([[], [9, 4, 1, 9, 5, 4], [3, 2, 2]])
    expected = rank_counts(query, table, target, *plain, interaction=L1(), backend=backend)
    before = [part.clone() for part in shuffled]
    found = rank_counts(query, table, target, *shuffled, interaction=L1(), backend=backend)
    assert as_rows(found) == as_rows(expected)
    assert all(torch.equal(a, b) for a, b in zip(shuffled, before))
    assert found.candidates.tolist() == [11, 8, 9]


@pytest.mark.parametrize('backend', BACKENDS)
def test_scores_may_be_a_view(backend: str) -> None:
    scores = torch.tensor([[3.0, 1.0], [2.0, 1.0], [5.0, 7.0]]).t()
    before = scores.clone()
    counts = rank_from_scores(scores, torch.tensor([1, 0]), backend=backend)
    assert as_rows(counts) == [(2, 0, 2), (1, 1, 2)]
    assert torch.equal(scores, before)


@pytest.mark.parametrize('backend', BACKENDS)
def test_infinite_scores_are_ranked(backend: str) -> None:
    scores = torch.tensor([[float('-inf'), 0.0, float('inf'), float('-inf')]])
    assert as_rows(rank_from_scores(scores, torch.tensor([0]), backend=backend)) == [(2, 1, 3)]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_nan_names_the_query(interaction: Interaction, backend: str) -> None:
    query, table = operands(interaction, 6, 9, 4)
    query[4, 1] = float('nan')
    for block_size in (None, 1, 4):
        with pytest.raises(DivergenceError, match='row 4'):
            rank_counts(query, table, torch.arange(6), interaction=interaction, backend=backend, block_size=block_size)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('place', [0, 3, 5])
def test_nan_is_refused_wherever_it_stands(place: int, backend: str) -> None:
    # For the target (0), a filtered entity (3) and any other (5).
    scores = torch.zeros(2, 6)
    scores[1, place] = float('nan')
    with pytest.raises(DivergenceError, match='row 1'):
        rank_from_scores(scores, torch.tensor([0, 0]), *ragged([[3], [3]]), backend=backend)


def test_no_queries() -> None:
    query, table = operands(L1(), 0, 3, 2)
    counts = rank_counts(query, table, torch.empty(0, dtype=torch.int64), interaction=L1())
    assert as_rows(counts) == []


def test_low_precision_takes_pytorch() -> None:
    query, table = operands(L1(), 2, 5, 4, dtype=torch.bfloat16)
    rank_counts(query, table, torch.tensor([0, 1]), interaction=L1())
    assert last_backend('rank_counts') == 'torch'
    with pytest.raises(BackendError, match='bfloat16'):
        rank_counts(query, table, torch.tensor([0, 1]), interaction=L1(), backend='numba')


def test_gradients_are_not_recorded() -> None:
    query, table = operands(Dot(), 2, 5, 4)
    query.requires_grad_()
    assert not score_entities(query, table.requires_grad_(), interaction=Dot()).requires_grad
    assert rank_counts(query, table, torch.tensor([0, 1]), interaction=Dot()).candidates.tolist() == [4, 4]


def test_default_block_size_bounds_memory() -> None:
    assert default_block_size(14_541, 4) == 1024
    assert default_block_size(5_000_000, 4) == 3
    assert default_block_size(10**9, 8) == 1


@pytest.mark.parametrize('backend, large', [('numba', 256), ('torch', 3)])
def test_large_tables_are_read_for_many_queries_at_a_time(backend: str, large: int) -> None:
    assert ranking_block_size(14_541, TABLE.float(), L1(), backend) == (432 if backend == 'numba' else 1024)
    assert ranking_block_size(5_000_000, TABLE.float(), L1(), backend) == large


QUERY, TABLE = operands(L1(), 2, 5, 4)
IDS = torch.tensor([0, 1])


@pytest.mark.parametrize('kwargs, message', [
    ({'query': QUERY[:, :3]}, r'query: .*\(Q, 4\).*\(2, 3\)'),
    ({'query': QUERY.long()}, 'query: .*torch.int64'),
    ({'table': TABLE[0]}, r'table: .*\(V, d\).*\(4,\)'),
    ({'table': TABLE[:0]}, r'table: .*V > 0.*\(0, 4\)'),
    ({'interaction': 'l1'}, "interaction: .*Interaction.*'l1'"),
    ({'interaction': ComplexModulus(), 'query': QUERY[:, :3], 'table': TABLE[:, :3]}, 'table: .*2 columns.*modulus.*3'),
    ({'target': torch.tensor([0, 5])}, r'target: 5 at position 1 is not in \[0, 5\)'),
    ({'target': torch.tensor([-1, 0])}, 'target: -1 at position 0'),
    ({'target': torch.tensor([0])}, 'target: .* 2, .* 1$'),
    ({'target': IDS.int()}, 'target: .*torch.int64.*torch.int32'),
    ({'row': torch.tensor([1, 0])}, '^row: .*ascending'),
    ({'row': torch.tensor([0])}, 'row: .* 2, .* 1$'),
    ({'row': torch.tensor([0, 2])}, r'row: 2 at position 1 is not in \[0, 2\)'),
    ({'filter_ptr': torch.tensor([0, 1, 1])}, 'filter_ptr, filter_index: '),
    ({'filter_ptr': torch.tensor([0, 1]), 'filter_index': IDS}, r'filter_ptr: .*torch.int64.*\(3,\).*\(2,\)'),
    ({'filter_ptr': torch.tensor([0, 2, 1]), 'filter_index': IDS}, 'filter_ptr: .*ascending'),
    ({'filter_ptr': torch.tensor([0, 0, 1]), 'filter_index': IDS}, 'filter_ptr: .* 0 to 2'),
    ({'filter_ptr': torch.tensor([0, 1, 2]), 'filter_index': IDS + 4}, r'filter_index: 5 at position 1'),
    ({'block_size': 0}, 'block_size: .* 0$'),
    ({'backend': 'cuda'}, "backend: .*'cuda'"),
])
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {'query': QUERY, 'table': TABLE, 'target': IDS, 'interaction': L1(), **kwargs}
    with pytest.raises(ArgumentError, match=message):
        rank_counts(**arguments)


@pytest.mark.parametrize('scores, target, message', [
    (torch.zeros(4), IDS, r'scores: .*\(Q, V\).*\(4,\)'),
    (torch.zeros(2, 5, dtype=torch.int64), IDS, 'scores: .*torch.int64'),
    (torch.zeros(2, 5), IDS + 4, 'target: 5 at position 1'),
])
def test_bad_scores(scores: Tensor, target: Optional[Tensor], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        rank_from_scores(scores, target)  # type: ignore[arg-type]

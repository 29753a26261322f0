from __future__ import annotations

import copy
import pickle
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.nn import DistMult, RotatE, TransE

import pyg_emu.models as models
from pyg_emu.core.errors import ArgumentError, DataError, DivergenceError, OutOfMemoryError
from pyg_emu.data.candidates import RelationCandidates
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.prediction import predict
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.ops.rank_counts import blocks, numba

PEOPLE = ['ann', 'bob', 'cat', 'dan']
# Scores by entity asked for: cat, then ann and bob alike, then dan.
SCORES = torch.tensor([0.5, 0.5, 0.9, 0.1])


def make_data(labels: bool = True) -> KGData:
    names: dict[str, Any] = {'entity_labels': PEOPLE, 'relation_labels': ['knows', 'likes']} if labels else {}
    # (ann, likes, cat) is a test fact too.
    return KGData(torch.tensor([[0, 0], [1, 2]]), torch.tensor([0, 1]), 4, 2, valid_edge_index=torch.tensor([[0], [2]]),
                  valid_edge_type=torch.tensor([0]), test_edge_index=torch.tensor([[3, 0], [2, 2]]),
                  test_edge_type=torch.tensor([0, 1]), **names)


def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
    return SCORES + known.unsqueeze(1) + 10 * (side == 'head')


def rows(frame: pd.DataFrame, *columns: str) -> list[tuple]:
    return list(frame[list(columns)].itertuples(index=False, name=None))


def test_tails_by_hand() -> None:
    frame = predict(model, make_data(), heads='ann', relations='knows', k=3)
    assert list(frame.columns) == ['head', 'relation', 'tail', 'rank', 'score', 'known']
    assert rows(frame, 'head', 'relation', 'tail', 'rank', 'known') == [
        ('ann', 'knows', 'cat', 1, 'valid'), ('ann', 'knows', 'ann', 2, ''), ('ann', 'knows', 'bob', 3, 'train')]
    assert frame['score'].tolist() == pytest.approx([0.9, 0.5, 0.5])


def test_heads_by_hand() -> None:
    frame = predict(model, make_data(), relations='knows', tails='cat', k=10)
    assert rows(frame, 'head', 'tail', 'rank', 'known') == [
        ('cat', 'cat', 1, ''), ('ann', 'cat', 2, 'valid'), ('bob', 'cat', 3, ''), ('dan', 'cat', 4, 'test')]
    assert frame['score'].iloc[0] == pytest.approx(12.9)


def test_known_facts_are_left_out() -> None:
    frame = predict(model, make_data(), heads='ann', relations=['knows', 'likes'], k=3, exclude_known=True)
    assert rows(frame, 'relation', 'tail', 'rank') == [
        ('knows', 'ann', 1), ('knows', 'dan', 2), ('likes', 'ann', 1), ('likes', 'bob', 2), ('likes', 'dan', 3)]
    assert set(frame['known']) == {''}


def test_further_known_facts() -> None:
    data, extra = make_data(), pd.DataFrame([('ann', 'knows', 'ann'), ('ann', 'knows', 'cat')],
                                            columns=['head', 'relation', 'tail'])
    frame = predict(model, data, heads='ann', relations='knows', known_facts=extra)
    assert rows(frame, 'tail', 'known') == [('cat', 'valid'), ('ann', 'given'), ('bob', 'train'), ('dan', '')]
    frame = predict(model, data, heads='ann', relations='knows', known_facts=extra, exclude_known=True)
    assert rows(frame, 'tail', 'rank') == [('dan', 1)]
    with pytest.raises(DataError, match='row 1: .*known_facts'):
        predict(model, data, heads='ann', relations='knows', known_facts=extra.assign(label=[1, 0]))
    # Of relations, too: (ann, likes, cat) is a training fact.
    frame = predict(model, data, heads='ann', tails=['ann', 'cat'], known_facts=extra, exclude_known=True)
    assert rows(frame, 'relation', 'tail') == [('likes', 'ann')]


def test_nothing_is_known_without_facts() -> None:
    data = KGData(num_nodes=4, num_relations=2)
    assert predict(model, data, heads=0, relations=1)['known'].isna().all()


def test_first_split_that_holds_a_fact() -> None:
    assert rows(predict(model, make_data(), heads='ann', relations='likes', k=1), 'tail', 'known') == [('cat', 'train')]


def test_many_questions() -> None:
    data = make_data()
    paired = predict(model, data, heads=['ann', 'dan'], relations=['knows', 'likes'], k=1)
    assert rows(paired, 'head', 'relation', 'tail') == [('ann', 'knows', 'cat'), ('dan', 'likes', 'cat')]
    whole = predict(model, data, heads=PEOPLE, relations='likes', k=2)
    assert len(whole) == 8
    pd.testing.assert_frame_equal(whole, predict(model, data, heads=PEOPLE, relations='likes', k=2, batch_size=1))
    pd.testing.assert_frame_equal(whole, predict(model, data, heads=range(4), relations=1, k=2))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(whole, predict(model, data, heads=torch.arange(4), relations=torch.tensor(1), k=2))


def test_without_labels() -> None:
    frame = predict(model, make_data(labels=False), heads=0, relations=0, k=1)
    assert rows(frame, 'head', 'relation', 'tail', 'known') == [(0, 0, 2, 'valid')]
    with pytest.raises(DataError, match="entity_labels: .*'ann'"):
        predict(model, make_data(labels=False), heads='ann', relations=0)


@pytest.mark.parametrize(('labels', 'fact'), [({'entity_labels': ['a', 'b']}, r'entity_labels: .*\b3\b.*\b2\b'),
                                              ({'relation_labels': ['r']}, r'relation_labels: .*\b2\b.*\b1\b')])
def test_labels_that_are_too_few(labels: dict[str, Any], fact: str) -> None:
    data = KGData(edge_index=torch.tensor([[0, 1], [1, 2]]), edge_type=torch.tensor([0, 1]), num_nodes=3,
                  num_relations=2, **labels)
    scorer = models.DistMult(3, 2, 4)
    with pytest.raises(DataError, match=fact):
        predict(scorer, data, heads=torch.tensor([0]), relations=torch.tensor([0]))
    with pytest.raises(DataError, match=fact):
        evaluate(scorer, data, split='train')


@pytest.mark.parametrize('layer', [DistMult, RotatE])
@pytest.mark.parametrize('side', ['tail', 'head'])
def test_scores_are_those_of_forward(layer: Any, side: str) -> None:
    torch.manual_seed(0)
    data, scorer = make_data(labels=False), layer(4, 2, 6).train()
    known = {'heads' if side == 'tail' else 'tails': 3}
    frame = predict(scorer, data, relations=1, k=4, **known)  # type: ignore[arg-type]
    triples = torch.tensor(rows(frame, 'head', 'relation', 'tail')).t()
    torch.testing.assert_close(torch.tensor(frame['score'].to_numpy()), scorer(*triples).detach())
    assert frame['score'].is_monotonic_decreasing and sorted(frame[side]) == [0, 1, 2, 3]
    assert scorer.training


@pytest.mark.parametrize('kwargs, error, facts', [
    ({'heads': 'anne'}, DataError, ["'anne'", "'ann'"]),
    ({'relations': 'know'}, DataError, ["'know'", "'knows'"]),
    ({'heads': 4}, ArgumentError, ['heads', '[0, 4)', 'got 4', 'position 0']),
    ({'relations': [0, -1], 'heads': [0, 1]}, ArgumentError, ['relations', '-1', 'position 1']),
    ({'heads': 1.5}, ArgumentError, ['heads', '1.5']),
    ({'heads': True}, ArgumentError, ['heads', 'True']),
    ({'heads': []}, ArgumentError, ['heads']),
    ({'heads': torch.zeros(1, 1, dtype=torch.int64)}, ArgumentError, ['heads', '(1, 1)']),
    ({'tails': 'bob'}, ArgumentError, ['heads, relations, tails']),
    ({'heads': None}, ArgumentError, ['heads', 'tails', 'relations']),
    ({'relations': None}, ArgumentError, ['relations', 'heads']),
    ({'heads': [0, 1, 2], 'relations': [0, 1]}, ArgumentError, ['heads', 'relations', '3', '2']),
    ({'k': 0}, ArgumentError, ['k:', '0']),
    ({'exclude_known': 'yes'}, ArgumentError, ['exclude_known', "'yes'"]),
    ({'data': model}, ArgumentError, ['data', 'KGData', 'function']),
    ({'batch_size': 0}, ArgumentError, ['batch_size', '0']),
    ({'backend': 'foo'}, ArgumentError, ['backend', "'foo'"]),
    ({'relations': None, 'tails': 1, 'backend': 'foo'}, ArgumentError, ['backend', "'foo'"]),
    ({'candidates': []}, ArgumentError, ['candidates']),
    ({'candidates': ['eve']}, DataError, ["'eve'"]),
    ({'candidates': [True, False]}, ArgumentError, ['candidates', '(4,)', '(2,)']),
    ({'model': lambda *_: SCORES}, ArgumentError, ['(1, 4)', '(4,)']),
    ({'model': DistMult(5, 2, 4)}, ArgumentError, ['5', '4']),
    ({'model': lambda *_: torch.full((1, 4), torch.nan)}, DivergenceError, ["('ann', 'knows', ?)"]),
])
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], facts: list[str]) -> None:
    arguments = {'model': model, 'data': make_data(), 'heads': 'ann', 'relations': 'knows', **kwargs}
    with pytest.raises(error) as caught:
        predict(**arguments)
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_columns_named_like_methods() -> None:
    r"""Attribute access reads the column, and a call does what the method of a DataFrame does."""
    frame = predict(model, make_data(), heads='ann', relations='knows', k=3)
    assert frame.tail.tolist() == ['cat', 'ann', 'bob'] and frame.head.tolist() == ['ann'] * 3
    assert frame.rank.tolist() == [1, 2, 3] and (frame.tail == 'cat').tolist() == [True, False, False]
    plain = pd.DataFrame(frame)
    for name in ('head', 'tail', 'rank'):
        pd.testing.assert_series_equal(frame[name], plain[name])
        arguments = () if name == 'rank' else (2,)
        pd.testing.assert_frame_equal(pd.DataFrame(getattr(frame, name)(*arguments)), getattr(plain, name)(*arguments))
    part = frame[frame.tail != 'cat']
    assert part.tail.tolist() == ['ann', 'bob'] and frame.drop(columns='tail').tail(1).shape == (1, 5)
    for copied in (pickle.loads(pickle.dumps(frame)), copy.deepcopy(frame)):
        pd.testing.assert_frame_equal(copied, frame)
        assert copied.tail.tolist() == frame.tail.tolist()
    assert str(pickle.loads(pickle.dumps(frame.tail))) == str(copy.deepcopy(frame.tail)) == str(frame['tail'])
    assert 'cat' in str(frame) and '<table' in frame._repr_html_()


@pytest.mark.parametrize('batch_size', [None, 1])
def test_known_answers_are_left_out_whatever_they_score(batch_size: Any) -> None:
    r"""-inf is a score like others: it does not make an answer a known one, nor the reverse."""
    data = KGData(torch.tensor([[0, 0], [0, 1]]), torch.zeros(2, dtype=torch.int64), 4, 1)
    scores = torch.tensor([5.0, -torch.inf, 3.0, -torch.inf])

    def infinite(known: Tensor, *_: Any) -> Tensor:
        return scores.expand(len(known), -1)

    arguments = {'heads': [0, 1], 'relations': 0, 'batch_size': batch_size}
    frame = predict(infinite, data, k=2, exclude_known=True, **arguments)  # type: ignore[arg-type]
    assert rows(frame, 'head', 'tail', 'rank', 'score') == [(0, 2, 1, 3.0), (0, 3, 2, -torch.inf), (1, 0, 1, 5.0),
                                                            (1, 2, 2, 3.0)]
    frame = predict(infinite, data, k=9, exclude_known=True, **arguments)  # type: ignore[arg-type]
    assert frame['tail'].tolist() == [2, 3, 0, 2, 1, 3]


def test_candidates() -> None:
    data = make_data()

    def strict(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return torch.where(torch.arange(4) == 3, torch.nan, model(known, rel_type, side))

    for chosen in (['bob', 'cat'], [2, 1], torch.tensor([False, True, True, False]), {'cat', 'bob'}):
        frame = predict(strict, data, heads=['ann', 'dan'], relations='knows', candidates=chosen)
        assert rows(frame, 'head', 'tail', 'rank', 'known') == [
            ('ann', 'cat', 1, 'valid'), ('ann', 'bob', 2, 'train'), ('dan', 'cat', 1, 'test'), ('dan', 'bob', 2, '')]
    frame = predict(strict, data, heads='ann', relations='knows', candidates=['bob', 'cat'], exclude_known=True)
    assert len(frame) == 0 and list(frame.columns)[:3] == ['head', 'relation', 'tail']
    scorer = DistMult(4, 2, 6)
    whole = predict(scorer, data, tails='cat', relations='knows')
    part = predict(scorer, data, tails='cat', relations='knows', candidates=['ann', 'dan'])
    expected = whole[whole['head'].isin(['ann', 'dan'])]
    assert rows(part, 'head', 'score', 'known') == rows(expected, 'head', 'score', 'known')


@pytest.mark.parametrize('batch_size', [None, 1])
def test_candidates_of_relations(batch_size: Any) -> None:
    data = make_data()

    def strict(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return torch.where(torch.arange(4) == 3, torch.nan, model(known, rel_type, side))

    sets = RelationCandidates(data, tails={'knows': ['bob', 'cat'], 'likes': ['ann']}, heads={'knows': ['ann', 'bob']})
    frame = predict(strict, data, heads='ann', relations=['knows', 'likes'], candidates=sets, batch_size=batch_size)
    assert rows(frame, 'relation', 'tail', 'rank') == [('knows', 'cat', 1), ('knows', 'bob', 2), ('likes', 'ann', 1)]
    frame = predict(strict, data, relations='knows', tails='cat', candidates=sets, exclude_known=True)
    assert rows(frame, 'head', 'rank') == [('bob', 1)]
    scorer = DistMult(4, 2, 6)
    whole, part = (predict(scorer, data, heads='dan', relations='knows', candidates=chosen)
                   for chosen in (['bob', 'cat'], sets))
    pd.testing.assert_frame_equal(whole, part)
    described = {'tails': {'knows': ['bob', 'cat']}}
    pd.testing.assert_frame_equal(predict(scorer, data, heads='dan', relations='knows', candidates=described), whole)
    for wanted in (sets, described):
        with pytest.raises(ArgumentError, match='candidates: expected relations'):
            predict(strict, data, heads='ann', tails='bob', candidates=wanted)


# Large tables ################################################################


@settings(max_examples=25)
@given(data=st.data())
def test_equals_a_full_sort(data: st.DataObject) -> None:
    size, k = data.draw(st.sampled_from([5, 64, 300, 700])), data.draw(st.sampled_from([1, 2, 7, 400]))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    facts = torch.randint(size, (3, 60), generator=generator)
    graph = KGData(facts[:2], facts[2] % 2, size, 2)
    scorer = DistMult(size, 2, 3)
    with torch.no_grad():
        # Whole numbers, so that many scores are equal.
        scorer.node_emb.weight.copy_(torch.randint(-2, 3, (size, 3), generator=generator))
        scorer.rel_emb.weight.copy_(torch.randint(-2, 3, (2, 3), generator=generator))
    known = torch.randint(size, (9, ), generator=generator)
    relation = torch.randint(2, (9, ), generator=generator)
    side: Any = data.draw(st.sampled_from(['tail', 'head']))
    leave_out = data.draw(st.booleans())
    chosen = torch.rand(size, generator=generator) < 0.7 if data.draw(st.booleans()) else torch.ones(size).bool()
    chosen[0] = True
    with pytest.MonkeyPatch.context() as patch:
        if data.draw(st.booleans()):
            patch.setattr(numba, 'BLOCK_BYTES', 0)
            patch.setattr(blocks, 'PART_BYTES', 9 * 4 * data.draw(st.integers(1, 300)))
            patch.setattr(blocks, '_LEAST_ROWS', 1)
        queries: Any = {'heads' if side == 'tail' else 'tails': known, 'relations': relation}
        frame = predict(scorer, graph, k=k, exclude_known=leave_out, candidates=chosen, **queries)
    with torch.no_grad():
        score = (scorer.node_emb.weight[known] * scorer.rel_emb.weight[relation]) @ scorer.node_emb.weight.T
    known_answers = graph.fact_index().is_known(torch.arange(size).expand(9, -1), known, relation, side)
    expected = []
    for row in range(9):
        order = score[row].argsort(descending=True, stable=True)
        allowed = chosen & ~known_answers[row] if leave_out else chosen
        best = order[allowed[order]][:k].tolist()
        expected += [(int(known[row]), answer, rank, float(score[row, answer])) for rank, answer in enumerate(best, 1)]
    assert rows(frame, *(('head', 'tail') if side == 'tail' else ('tail', 'head')), 'rank', 'score') == expected


@pytest.mark.parametrize('equal', [False, True])
def test_whole_numbers_are_scores(equal: bool) -> None:
    def whole(known: Tensor, *_: Any) -> Tensor:
        return torch.arange(600).expand(len(known), -1) % (1 if equal else 599)

    data = KGData(torch.tensor([[0], [598]]), torch.tensor([0]), 600, 1)
    frame = predict(whole, data, heads=[1, 0], relations=0, k=2, exclude_known=True)
    assert rows(frame, 'head', 'tail', 'rank', 'score') == (
        [(1, 0, 1, 0), (1, 1, 2, 0), (0, 0, 1, 0), (0, 1, 2, 0)] if equal else
        [(1, 598, 1, 598), (1, 597, 2, 597), (0, 597, 1, 597), (0, 596, 2, 596)])


def test_rows_of_low_precision_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, data = DistMult(4, 2, 6), make_data()
    scorer.node_emb.to(torch.bfloat16)
    arguments: Any = {'heads': ['ann', 'dan'], 'relations': 'knows', 'k': 3}
    whole = predict(scorer, data, **arguments)
    monkeypatch.setattr(numba, 'BLOCK_BYTES', 0)
    monkeypatch.setattr(blocks, 'PART_BYTES', 16)
    monkeypatch.setattr(blocks, '_LEAST_ROWS', 1)
    pd.testing.assert_frame_equal(predict(scorer, data, backend='numba', **arguments), whole)
    assert evaluate(scorer, data, backend='numba')['mrr'] == evaluate(scorer, data)['mrr']


@pytest.mark.parametrize('place', [0, 3])
def test_nan_in_any_part_is_an_error(place: int, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = DistMult(4, 2, 6)
    with torch.no_grad():
        scorer.node_emb.weight[place] = torch.nan
    monkeypatch.setattr(numba, 'BLOCK_BYTES', 0)
    monkeypatch.setattr(blocks, 'PART_BYTES', 4)
    monkeypatch.setattr(blocks, '_LEAST_ROWS', 1)
    with pytest.raises(DivergenceError, match=r"\('bob', 'knows', \?\)"):
        predict(scorer, make_data(), heads='bob', relations='knows')


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {'heads': [0, 1, 2], 'relations': 0, 'batch_size': 2}
    predict(DistMult(4, 2, 6), make_data(labels=False), **arguments)
    assert capsys.readouterr().err == ''
    predict(DistMult(4, 2, 6), make_data(labels=False), progress=True, **arguments)
    assert '3/3' in capsys.readouterr().err


# Relations ###################################################################


def triple_scores(scorer: Any, heads: list[int], tails: list[int], num_relations: int) -> list[list[float]]:
    return [[scorer(*torch.tensor([[h], [r], [t]])).item() for r in range(num_relations)] for h, t in zip(heads, tails)]


@pytest.mark.parametrize('layer', [DistMult, RotatE, TransE, models.HAKE])
def test_relations_are_ranked(layer: Any) -> None:
    torch.manual_seed(0)
    data, scorer = make_data(), layer(4, 2, 6)
    expected = triple_scores(scorer, [0, 3, 1], [2, 2, 1], 2)
    frame = predict(scorer, data, heads=['ann', 'dan', 'bob'], tails=['cat', 'cat', 'bob'])
    assert frame['rank'].tolist() == [1, 2] * 3 and list(frame['head']) == ['ann'] * 2 + ['dan'] * 2 + ['bob'] * 2
    names = {'knows': 0, 'likes': 1}
    for row, scores in enumerate(expected):
        found = frame.iloc[2 * row:2 * row + 2]
        assert found['score'].tolist() == pytest.approx([scores[names[name]] for name in found['relation']], abs=1e-6)
        assert found['score'].is_monotonic_decreasing
    known = {(row.head, row.relation): row.known for row in frame.itertuples()}
    assert known[('ann', 'likes')] == 'train' and known[('ann', 'knows')] == 'valid' and known[('bob', 'likes')] == ''
    for size in (1, 2):
        again = predict(scorer, data, heads=['ann', 'dan', 'bob'], tails=['cat', 'cat', 'bob'], batch_size=size)
        pd.testing.assert_frame_equal(again, frame)
    left = predict(scorer, data, heads=['ann', 'dan'], tails='cat', exclude_known=True)
    assert rows(left, 'head', 'relation', 'rank') == [('dan', 'likes', 1)]
    only = predict(scorer, data, heads='ann', tails='cat', candidates='knows')
    assert rows(only, 'relation', 'rank') == [('knows', 1)]


def test_relations_are_ranked_by_functions_and_nbfnet() -> None:
    data = make_data()
    table = torch.rand(4, 2, 4, generator=torch.Generator().manual_seed(0))
    frame = predict(lambda known, rel_type, side: table[known, rel_type], data, heads=['ann', 'bob'], tails='dan', k=1)
    assert frame['relation'].tolist() == [data.relation_labels[int(table[h, :, 3].argmax())] for h in (0, 1)]
    graph = data.with_inverse_relations()
    torch.manual_seed(0)
    nbfnet = models.NBFNet(2, 8, 2)
    frame = predict(nbfnet.as_ranker(graph), graph, heads='ann', tails=['cat', 'dan'])
    scores = nbfnet.score(graph, torch.tensor([0, 0]), torch.tensor([0, 1])).detach()
    for row in frame.itertuples():
        assert row.score == pytest.approx(float(scores[graph.relation_id(row.relation), graph.entity_id(row.tail)]))
    with pytest.raises(DivergenceError) as caught:
        predict(lambda known, *_: torch.full((len(known), 4), torch.nan), data, heads='ann', tails='cat')
    assert "('ann', ?, 'cat')" in str(caught.value)


@pytest.mark.parametrize('limit', [1, 3])
def test_smaller_blocks_where_memory_does_not_suffice(limit: int) -> None:
    def small(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        if known.numel() > limit:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return model(known, rel_type, side)

    data = make_data()
    pd.testing.assert_frame_equal(predict(small, data, heads=PEOPLE, relations='likes'),
                                  predict(model, data, heads=PEOPLE, relations='likes'))
    with pytest.raises(OutOfMemoryError) as caught:
        predict(lambda *_: torch.empty(2**60), data, heads='ann', relations='likes')
    assert "('ann', 'likes', ?)" in str(caught.value)

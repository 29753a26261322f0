from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch_geometric.nn import DistMult, RotatE

from pyg_emu.core.errors import ArgumentError, DataError, DivergenceError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.prediction import predict

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
    with pytest.raises(DataError, match='no entity labels'):
        predict(model, make_data(labels=False), heads='ann', relations=0)


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


@pytest.mark.parametrize('kwargs, error, message', [
    ({'heads': 'anne'}, DataError, "no entity 'anne'.*did you mean 'ann'"),
    ({'relations': 'know'}, DataError, "no relation 'know'.*did you mean 'knows'"),
    ({'heads': 4}, ArgumentError, r'heads: expected labels or ids in \[0, 4\), got 4 at position 0'),
    ({'relations': [0, -1], 'heads': [0, 1]}, ArgumentError, r'relations: .* got -1 at position 1'),
    ({'heads': 1.5}, ArgumentError, 'heads: expected labels or ids'),
    ({'heads': []}, ArgumentError, 'heads: there is nothing to ask about'),
    ({'tails': 'bob'}, ArgumentError, 'heads, tails: give the one that is known'),
    ({'heads': None}, ArgumentError, 'heads, tails: give the one that is known'),
    ({'relations': None}, ArgumentError, 'relations: give one relation'),
    ({'heads': [0, 1, 2], 'relations': [0, 1]}, ArgumentError, r'expected one, or as many as entities \(3\), got 2'),
    ({'k': 0}, ArgumentError, 'k: expected a positive integer, got 0'),
    ({'data': model}, ArgumentError, 'data: expected a KGData, after the model, got an object of type function'),
    ({'batch_size': 0}, ArgumentError, 'batch_size: expected at least one, got 0'),
    ({'model': lambda *_: SCORES}, ArgumentError, r'expected scores of shape \(1, 4\), got \(4,\)'),
    ({'model': DistMult(5, 2, 4)}, ArgumentError, 'it has 5 entities, the data has 4'),
    ({'model': lambda *_: torch.full((1, 4), torch.nan)}, DivergenceError, r"\('ann', 'knows', \?\)"),
])
def test_bad_arguments(kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {'model': model, 'data': make_data(), 'heads': 'ann', 'relations': 'knows', **kwargs}
    with pytest.raises(error, match=message):
        predict(**arguments)

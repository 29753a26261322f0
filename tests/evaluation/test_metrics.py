from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, DataError
from pyg_emu.data.index import FactIndex
from pyg_emu.data.relations import RELATION_KINDS, relation_kinds
from pyg_emu.evaluation.metrics import TIES, Metrics, Ranks, expected_hits, metric_mode, plain_numbers


def make_ranks(greater: list[int], equal: list[int], candidates: list[int]) -> Ranks:
    return Ranks(torch.tensor(greater), torch.tensor(equal), torch.tensor(candidates))


TAIL = make_ranks([0, 3], [1, 0], [4, 9])
HEAD = make_ranks([9, 0], [0, 0], [9, 3])


def test_ranks_by_hand() -> None:
    assert TAIL.optimistic.tolist() == [1, 4]
    assert TAIL.pessimistic.tolist() == [2, 4]
    assert TAIL.realistic.tolist() == [1.5, 4.0]
    assert [TAIL.of(tie).tolist() for tie in TIES] == [[1.5, 4], [1, 4], [2, 4]]  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="tie: .*'realistic'.*'random'$"):
        TAIL.of('random')  # type: ignore[arg-type]


def test_metrics_by_hand() -> None:
    metrics = Metrics({'tail': TAIL, 'head': HEAD}, ks=(1, 3))
    # Ranks 1.5 and 4 of 5 and 10, 10 and 1 of 10 and 4.
    assert metrics['mr'] == (1.5 + 4 + 10 + 1) / 4
    assert metrics['mrr'] == pytest.approx((1 / 1.5 + 1 / 4 + 1 / 10 + 1) / 4)
    assert metrics['hits@1'] == 0.25 and metrics['hits@3'] == 0.5
    assert metrics['ndcg@3'] == pytest.approx((1 / math.log2(2.5) + 1) / 4)
    assert metrics['amri'] == pytest.approx(1 - (0.5 + 3 + 9 + 0) / ((4 + 9 + 9 + 3) / 2))
    assert metrics['count'] == 4
    assert metrics['tail.mr'] == 2.75 and metrics['head.mr'] == 5.5
    assert metrics['tail.count'] == 2
    assert Metrics({'tail': TAIL}, tie='optimistic')['mr'] == 2.5
    assert Metrics({'tail': TAIL}, tie='pessimistic')['mr'] == 3


def test_groups_by_kind() -> None:
    kinds = torch.tensor([1, -1])
    metrics = Metrics({'tail': TAIL, 'head': HEAD}, kinds=kinds)
    assert set(metrics.groups) == {'both', 'tail', 'head', '1-N', '1-N.tail', '1-N.head'}
    assert metrics['1-N.mr'] == (1.5 + 10) / 2
    assert metrics['1-N.head.mr'] == 10 and metrics['1-N.tail.hits@10'] == 1
    with pytest.raises(KeyError, match='N-N.mrr.*both, tail, head, 1-N'):
        metrics['N-N.mrr']
    with pytest.raises(KeyError, match='hits@5'):
        metrics['hits@5']


def test_reads_as_a_mapping_and_as_json() -> None:
    metrics = Metrics({'tail': TAIL, 'head': HEAD}, kinds=torch.tensor([0, 3]), info={'split': 'test'})
    assert dict(metrics) == metrics.groups['both']
    assert list(metrics) == ['mrr', 'mr', 'hits@1', 'hits@3', 'hits@10', 'ndcg@10', 'amri', 'count']
    found = json.loads(json.dumps(metrics.to_dict(), allow_nan=False))
    assert found['mrr'] == metrics['mrr'] and found['tail']['mr'] == 2.75 and found['1-1.head']['count'] == 1
    assert found['info'] == {'split': 'test', 'tie': 'realistic'}
    frame = metrics.to_frame()
    assert frame.at['head', 'mr'] == 5.5 and frame['count'].dtype == np.int64
    assert list(frame.index)[:3] == ['both', 'tail', 'head']


def test_prints_an_aligned_table() -> None:
    lines = str(Metrics({'tail': TAIL, 'head': HEAD}, kinds=torch.tensor([0, 3]), info={'split': 'test'})).splitlines()
    assert lines[0] == 'split: test, ties: realistic'
    assert lines[1].split() == ['both', 'tail', 'head']
    assert lines[3].split() == ['mr', '4.1', '2.8', '5.5']
    assert len({len(line) for line in lines[1:10]}) == 1
    assert any(line.split()[0] == 'N-N.tail' for line in lines[10:])


def test_table_of_a_notebook() -> None:
    metrics = Metrics({'tail': TAIL, 'head': HEAD}, kinds=torch.tensor([0, 3]), info={'split': '<test>'})
    shown = metrics._repr_html_()
    assert shown.startswith('<p>split: &lt;test&gt;, ties: realistic</p>')
    assert shown.count('<table') == 2
    rows = [re.findall('<t[hd]>([^<]*)</t', row) for row in shown.split('<tr')]
    assert ['', 'both', 'tail', 'head'] in rows and ['mr', '4.1', '2.8', '5.5'] in rows
    assert any(row[0] == 'N-N.tail' for row in rows if row)


def test_a_plot_of_sides_and_kinds() -> None:
    pytest.importorskip('matplotlib')
    metrics = Metrics({'tail': TAIL, 'head': HEAD}, kinds=torch.tensor([0, 3]))
    sides, kinds = metrics.plot('mr').axes
    assert [bar.get_height() for bar in sides.patches] == [metrics[f'{name}mr'] for name in ('', 'tail.', 'head.')]
    assert [bar.get_height() for bar in kinds.patches] == [metrics[f'{kind}.{side}.mr'] for side in ('tail', 'head')
                                                           for kind in ('1-1', 'N-N')]
    assert [label.get_text() for label in kinds.get_xticklabels()] == ['1-1', 'N-N']
    assert len(Metrics({'tail': TAIL}).plot().axes) == 1
    with pytest.raises(ArgumentError, match="metric: .*'mrr'.*'loss'"):
        metrics.plot('loss')


def test_undefined_is_none_in_json() -> None:
    metrics = Metrics({'tail': make_ranks([0], [0], [0])})
    assert metrics['mrr'] == 1 and math.isnan(metrics['amri'])
    assert metrics.to_dict()['amri'] is None


@pytest.mark.parametrize('ks', [(), (0,), (1.5,), (True,)])
def test_bad_ks(ks: tuple) -> None:
    with pytest.raises(ArgumentError, match=f'^ks: .*{re.escape(repr(ks))}'):
        Metrics({'tail': TAIL}, ks=ks)


def test_no_ranks() -> None:
    with pytest.raises(DataError, match='ranks: '):
        Metrics({'tail': make_ranks([], [], [])})


def kind_names(facts: list[tuple[int, int, int]], num_relations: int) -> list[str]:
    index = FactIndex(torch.tensor(facts, dtype=torch.int64).view(-1, 3), 6, num_relations)
    kinds = relation_kinds(index).tolist()
    return [RELATION_KINDS[kind] if kind >= 0 else 'none' for kind in kinds]


def test_relation_kinds_by_hand() -> None:
    facts = [(0, 0, 1), (2, 0, 3)]  # one to one
    facts += [(0, 1, 1), (0, 1, 2)]  # two tails of one head
    facts += [(1, 2, 0), (2, 2, 0)]  # two heads of one tail
    facts += [(h, 3, t) for h in (0, 1) for t in (2, 3)]
    facts += [(0, 5, 1), (0, 5, 2), (3, 5, 4)]  # three facts, two heads: 1.5 tails per head are many
    facts += [(0, 6, 1), (0, 6, 2), (3, 6, 4), (2, 6, 5)]  # 4 / 3 are one
    facts += [(0, 6, 1)] * 9  # a repeated fact is one fact
    assert kind_names(facts, 7) == ['1-1', '1-N', 'N-1', 'N-N', 'none', '1-N', '1-1']
    assert kind_names([], 2) == ['none', 'none']


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 4)), max_size=30))
def test_relation_kinds_equal_brute_force(facts: list[tuple[int, int, int]]) -> None:
    expected = []
    for relation in range(3):
        pairs = {(h, t) for h, r, t in facts if r == relation}
        tph, hpt = (len(pairs) / max(1, len({pair[side] for pair in pairs})) for side in (0, 1))
        expected.append(f'{"N" if hpt >= 1.5 else "1"}-{"N" if tph >= 1.5 else "1"}' if pairs else 'none')
    assert kind_names(facts, 3) == expected


def simulate(rank: int, candidates: int, k: int, num_negatives: int) -> float:
    draws = np.random.default_rng(0).random((200_000, num_negatives - 1)) < (rank - 1) / candidates
    return float((draws.sum(1) < k).mean())


@pytest.mark.parametrize('rank, candidates, k, num_negatives', [
    (1, 9, 1, 50), (20, 100, 10, 50), (35, 101, 10, 50), (3, 8, 2, 7),
])
def test_expected_hits_is_what_sampling_tends_to(rank: int, candidates: int, k: int, num_negatives: int) -> None:
    found = expected_hits(torch.tensor([rank]), candidates, k, num_negatives).item()
    assert found == pytest.approx(simulate(rank, candidates, k, num_negatives), abs=0.005)


def test_expected_hits_by_hand() -> None:
    # One other entity is drawn, which beats the target with probability 1/4; with two, either does.
    found = expected_hits(torch.tensor([2.0, 2.0, 5.0]), torch.tensor([4, 4, 4]), k=1, num_negatives=2)
    assert found.tolist() == [0.75, 0.75, 0.0]
    assert expected_hits(torch.tensor([2]), 4, k=1, num_negatives=3).item() == 0.75**2
    assert expected_hits(torch.tensor([5]), 4, k=10, num_negatives=10).item() == 1
    assert expected_hits(torch.tensor([1]), 0).item() == 1
    both = torch.tensor([2, 5])
    assert torch.equal(expected_hits(both, torch.tensor(4), k=1), expected_hits(both, 4, k=1))


@pytest.mark.parametrize('rank, kwargs, message', [
    (torch.tensor([6]), {}, '^rank: '),
    (torch.tensor([0]), {}, '^rank: '),
    (torch.tensor([1]), {'k': 0}, '^k: .*got 0'),
    (torch.tensor([1]), {'num_negatives': 0}, '^num_negatives: .*got 0'),
    (torch.tensor([math.nan]), {}, '^rank: '),
    (torch.tensor([True]), {}, '^rank: .*bool'),
    (torch.tensor([1]), {'num_candidates': -5}, '^num_candidates: .*-5'),
    (torch.tensor([1]), {'num_candidates': True}, '^num_candidates: .*True'),
    (torch.tensor([1]), {'num_candidates': torch.tensor(-5)}, '^num_candidates: .*-5'),
    (torch.tensor([1]), {'num_candidates': [4]}, r'^num_candidates: .*tensor.*\(1,\).*\[4\]'),
    (torch.tensor([1]), {'num_candidates': torch.tensor([-5])}, '^num_candidates: -5'),
    (torch.tensor([1, 2, 3]), {'num_candidates': torch.tensor([[4], [5]])}, r'^num_candidates: .*\(3,\).*\(2, 1\)'),
])
def test_expected_hits_refuses(rank: Tensor, kwargs: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        expected_hits(rank, **{'num_candidates': 4, **kwargs})


def test_expected_hits_in_the_table() -> None:
    metrics = Metrics({'tail': TAIL}, num_negatives=50)
    expected = expected_hits(torch.tensor([1.5, 4.0]), torch.tensor([4, 9])).mean().item()
    assert metrics['hits@10 (50 negatives)'] == expected
    assert 'hits@10 (50 negatives)' in str(metrics)


@pytest.mark.parametrize('name, mode', [
    ('mrr', 'max'), ('mr', 'min'), ('tail.mr', 'min'), ('1-N.head.hits@10', 'max'), ('hits@10 (50 negatives)', 'max'),
    ('ndcg@10', 'max'), ('amri', 'max'), ('loss', 'min'),
])
def test_direction(name: str, mode: str) -> None:
    assert metric_mode(name) == metric_mode(name, mode) == mode
    with pytest.raises(ArgumentError, match=f'(?=.*{mode!r}).*{re.escape(name)}'):
        metric_mode(name, 'max' if mode == 'min' else 'min')


def test_every_metric_has_a_direction() -> None:
    ranks = Ranks(*(torch.tensor([value, value + 1]) for value in (1, 0, 5)))
    for name in set(Metrics({'tail': ranks}, num_negatives=50)) - {'count'}:
        assert metric_mode(name) == ('min' if name == 'mr' else 'max')


def test_unknown_direction() -> None:
    assert metric_mode('auc', 'max') == 'max' and metric_mode('error', 'min') == 'min'
    for arguments in (('auc', ), ('auc', 'up'), (3, 'max')):
        with pytest.raises(ArgumentError):
            metric_mode(*arguments)
    with pytest.raises(ArgumentError, match="^metric: there is no metric 'auc'; .*mode='max' .*mode='min'"):
        metric_mode('auc')


@pytest.mark.parametrize(('name', 'meant'), [
    ('hits10', 'hits@10'), ('Hits5', 'hits@5'), ('hit', 'hits@10'), ('MRR', 'mrr'), ('tail.hits_at_3', 'tail.hits@3'),
])
def test_metrics_of_other_spellings(name: str, meant: str) -> None:
    with pytest.raises(ArgumentError, match=f"metric: .*{re.escape(repr(name))}; did you mean '{meant}'"):
        metric_mode(name)


@pytest.mark.parametrize('kinds, facts', [
    (torch.zeros(2, dtype=torch.int64), ['(3,)', '(2,)']), (torch.zeros(3), ['float32']),
    (torch.zeros(3, dtype=torch.bool), ['bool']), ({'tail': torch.zeros(3, dtype=torch.int64)}, ["'head'", 'None']),
    ({'tail': torch.zeros(3, dtype=torch.int64), 'head': [0, 0, 0]}, ["'head'", '[0, 0, 0]']),
    ([0, 0, 0], ['[0, 0, 0]']),
    (torch.zeros(3, dtype=torch.int64, device='meta'), ['meta', 'cpu']),
])
def test_bad_kinds(kinds: Any, facts: list[str]) -> None:
    part = Ranks(*(torch.tensor([0, 1, 2]) for _ in range(3)))
    with pytest.raises(ArgumentError) as caught:
        Metrics({'tail': part, 'head': part}, kinds=kinds)
    assert str(caught.value).startswith('kinds: ') and all(fact in str(caught.value) for fact in facts)


def test_only_numbers_of_a_validation_are_kept() -> None:
    assert plain_numbers({'mrr': 0.5, 'count': 2, 'done': True, 'note': 'x', 'tail': {'mrr': 0.1}}) == {
        'mrr': 0.5, 'count': 2.0}


def test_expected_hits_against_very_many_negatives() -> None:
    rank = torch.tensor([1, 2, 1000])
    assert expected_hits(rank, 10**6, 10, 10**12).tolist() == [1.0, 0.0, 0.0]
    part = Ranks(rank - 1, torch.zeros_like(rank), torch.full_like(rank, 10**6))
    assert Metrics({'tail': part}, num_negatives=2**62)[f'hits@10 ({2**62} negatives)'] == pytest.approx(1 / 3)
    with pytest.raises(ArgumentError, match='k, num_negatives: '):
        expected_hits(rank, 10**6, 200, 10**12)
    for name in ('k', 'num_negatives'):
        with pytest.raises(ArgumentError, match=f'^{name}: .*None'):
            expected_hits(rank, 10**6, **{name: None})  # type: ignore[arg-type]


def test_numbers_of_other_libraries_are_plain_numbers() -> None:
    given = {'mrr': np.float32(0.5), 'auc': torch.tensor(0.25), 'count': np.int64(3), 'array': np.array(2.0),
             'flag': True, 'flags': torch.tensor(True), 'curve': torch.ones(2), 'name': 'x'}
    found = plain_numbers(given)
    assert found == {'mrr': 0.5, 'auc': 0.25, 'count': 3.0, 'array': 2.0}
    assert all(type(value) is float for value in found.values())


@pytest.mark.parametrize('ks', [np.array([1, 3]), [np.int64(1), np.int32(3)], torch.tensor([1, 3])])
def test_ks_of_numpy(ks: Any) -> None:
    metrics = Metrics({'tail': TAIL}, ks=ks)
    assert metrics.to_dict() == Metrics({'tail': TAIL}, ks=(1, 3)).to_dict() and 'ndcg@3' in metrics

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import ComplEx, DistMult, RotatE, TransE

import pyg_emu.models as models
from pyg_emu.core.errors import ArgumentError, DataError, DataWarning, DivergenceError, OutOfMemoryError
from pyg_emu.data.candidates import RelationCandidates
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import TIES
from pyg_emu.evaluation.ranking import evaluate

NUM_NODES, NUM_RELATIONS = 12, 3
LAYERS = [DistMult, TransE, ComplEx, RotatE]


def make_data(seed: int = 0, num_facts: int = 60, **kwargs: Any) -> KGData:
    generator = torch.Generator().manual_seed(seed)

    def facts(size: int) -> tuple[Tensor, Tensor]:
        return (torch.randint(NUM_NODES, (2, size), generator=generator),
                torch.randint(NUM_RELATIONS, (size,), generator=generator))

    train, valid, test = facts(num_facts), facts(10), facts(15)
    return KGData(*train, NUM_NODES, NUM_RELATIONS, valid_edge_index=valid[0], valid_edge_type=valid[1],
                  test_edge_index=test[0], test_edge_type=test[1], **kwargs)


def make_layer(layer: Any, seed: int = 0, channels: int = 8) -> Any:
    torch.manual_seed(seed)
    return layer(NUM_NODES, NUM_RELATIONS, channels).double()


def integer_scores(seed: int = 0) -> dict[str, Tensor]:
    r"""Scores with many ties. shape of each: :obj:`(NUM_NODES, NUM_RELATIONS, NUM_NODES)`."""
    generator = torch.Generator().manual_seed(seed)
    return {side: torch.randint(4, (NUM_NODES, NUM_RELATIONS, NUM_NODES), generator=generator).float()
            for side in ('tail', 'head')}


def lookup(tables: dict[str, Tensor]) -> Any:
    return lambda known, rel_type, side: tables[side][known, rel_type]


def brute_ranks(scores: Any, data: KGData, side: str, filtered: list[str]) -> list[tuple[int, int, int]]:
    facts = {tuple(fact) for split in filtered for fact in data.facts(split).tolist()}  # type: ignore[arg-type]
    found = []
    for head, relation, tail in data.facts('test').tolist():
        def triple(entity: int, h: int = head, r: int = relation, t: int = tail) -> tuple[int, int, int]:
            return (h, r, entity) if side == 'tail' else (entity, r, t)

        answer = tail if side == 'tail' else head
        others = [v for v in range(NUM_NODES) if v != answer and triple(v) not in facts]
        values = [scores(*triple(v)) for v in others]
        own = scores(*triple(answer))
        found.append((sum(v > own for v in values), sum(v == own for v in values), len(others)))
    return found


def counts_of(metrics: Any, side: str) -> list[tuple[int, int, int]]:
    ranks = metrics.ranks[side]
    return list(zip(ranks.greater.tolist(), ranks.equal.tolist(), ranks.candidates.tolist()))


def test_by_hand() -> None:
    # Facts 0 -> 1 (train), 0 -> 2 (valid), 0 -> 3 (test) of one relation; scores by the id of the entity asked for.
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 5, 1, valid_edge_index=torch.tensor([[0], [2]]),
                  valid_edge_type=torch.tensor([0]), test_edge_index=torch.tensor([[0], [3]]),
                  test_edge_type=torch.tensor([0]))
    scores = torch.tensor([[0.3, 0.9, 0.8, 0.4, 0.4]])

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        return scores.expand(len(known), -1)

    metrics = evaluate(model, data)
    # Tail 3 competes with 0 (worse) and 4 (equal); head 0 with 1, 2, 3, 4, all better.
    assert counts_of(metrics, 'tail') == [(0, 1, 2)] and counts_of(metrics, 'head') == [(4, 0, 4)]
    assert metrics['mr'] == (1.5 + 5) / 2
    assert evaluate(model, data, tie='pessimistic')['tail.mr'] == 2
    assert evaluate(model, data, filter_splits=None)['tail.mr'] == 3.5
    assert evaluate(model, data, filter_splits='train')['tail.mr'] == 2.5
    assert evaluate(model, data, filter_splits=('train', 'test'))['tail.mr'] == 2.5
    assert evaluate(model, data, filter_splits=('train', 'valid'))['tail.mr'] == 1.5
    assert 'filtered by: nothing' in str(evaluate(model, data, filter_splits=()))
    assert set(evaluate(model, data, sides=('tail',)).ranks) == {'tail'}


@pytest.mark.parametrize('layer', LAYERS)
def test_unmodified_layers_of_pyg(layer: Any) -> None:
    data, model = make_data(), make_layer(layer)

    def score(head: int, relation: int, tail: int) -> float:
        return model(*torch.tensor([[head], [relation], [tail]])).item()

    metrics = evaluate(model, data)
    for side in ('tail', 'head'):
        assert counts_of(metrics, side) == brute_ranks(score, data, side, ['train', 'valid', 'test'])


@pytest.mark.parametrize('model', ['TransE', 'DistMult', 'ComplEx', 'RotatE'])
def test_own_models(model: str) -> None:
    data, scorer = make_data(), make_layer(getattr(models, model))
    metrics = evaluate(scorer, data)

    def by_score_all(known: Tensor, rel_type: Tensor, side: Any) -> Tensor:
        return scorer.score_all(scorer.query(known, rel_type, side))

    other = evaluate(by_score_all, data)
    for side in ('tail', 'head'):
        assert counts_of(metrics, side) == counts_of(other, side)


@settings(max_examples=15)
@given(st.integers(0, 2**16), st.integers(1, 120), st.sampled_from([None, 1, 2, 7]), st.sampled_from([(), ('train',),
                                                                                                   ('train', 'test')]))
def test_equals_brute_force(seed: int, num_facts: int, batch_size: Any, splits: Any) -> None:
    data, tables = make_data(seed, num_facts), integer_scores(seed)
    metrics = evaluate(lookup(tables), data, batch_size=batch_size, filter_splits=splits)
    for side, known in (('tail', 0), ('head', 2)):
        def score(*triple: int, side: str = side, known: int = known) -> float:
            return float(tables[side][triple[known], triple[1], triple[2 - known]])

        assert counts_of(metrics, side) == brute_ranks(score, data, side, list(splits))


def test_batch_size_does_not_matter() -> None:
    data, model = make_data(), make_layer(RotatE).float()
    results = [evaluate(model, data, batch_size=size) for size in (None, 1, 2, 5, 1000)]
    assert all(result.to_dict() == results[0].to_dict() for result in results)


PYKEEN_NAMES = {
    'mrr': 'inverse_harmonic_mean_rank', 'mr': 'arithmetic_mean_rank', 'hits@1': 'hits_at_1', 'hits@3': 'hits_at_3',
    'hits@10': 'hits_at_10', 'amri': 'adjusted_arithmetic_mean_rank_index', 'count': 'count',
}


def assert_equals_pykeen(data: KGData, model: Any, result: Any, filter_splits: Any = 'all',
                         candidates: Any = None) -> None:
    for tie in TIES:
        metrics = evaluate(model, data, tie=tie, filter_splits=filter_splits,  # type: ignore[arg-type]
                           candidates=candidates)
        for side in ('both', 'tail', 'head'):
            for ours, theirs in PYKEEN_NAMES.items():
                if ours == 'amri' and tie != 'realistic':
                    continue  # which PyKEEN defines for realistic ranks alone
                expected = result.get_metric(f'{side}.{tie}.{theirs}')
                assert metrics[f'{side}.{ours}'] == pytest.approx(expected, abs=1e-6), (tie, side, ours)


@pytest.mark.parametrize('filtered', [True, False])
@pytest.mark.parametrize('sets', [False, True])
def test_equals_pykeen_on_the_same_scores(filtered: bool, sets: bool) -> None:
    evaluation = pytest.importorskip('pykeen.evaluation')
    data, tables = make_data(), integer_scores()
    candidates = RelationCandidates.seen(data, 'all') if sets else None
    facts = data.facts('test')
    evaluator = evaluation.RankBasedEvaluator(filtered=filtered)
    for side, known, target in (('tail', 0, 2), ('head', 2, 0)):
        for fact in facts:
            scores = tables[side][fact[known], fact[1]].unsqueeze(0).clone()
            own = scores[:, fact[target]].clone().unsqueeze(1)
            if filtered:
                others = data.facts('all')
                others = others[(others[:, known] == fact[known]) & (others[:, 1] == fact[1])]
                scores[0, others[:, target]] = float('nan')
                scores[0, fact[target]] = own.item()
            if candidates is not None:  # NaN is PyKEEN's mark of what does not compete
                scores[~candidates.allowed(fact[1:2], side)] = float('nan')  # type: ignore[arg-type]
            evaluator.process_scores_(fact.unsqueeze(0), side, scores, own)
    assert_equals_pykeen(data, lookup(tables), evaluator.finalize(), 'all' if filtered else None, candidates)


def test_equals_pykeen_with_its_own_filter_and_model() -> None:
    evaluation = pytest.importorskip('pykeen.evaluation')
    from pykeen.models import DistMult as PyKEENDistMult
    from pykeen.triples import CoreTriplesFactory

    data, model = make_data(), make_layer(models.DistMult).float()
    with torch.no_grad():  # small integers: exact scores, and ties
        for weight in model.embedding_weights():
            weight.copy_(torch.randint(-1, 2, weight.shape))
    factory = CoreTriplesFactory(data.facts('train'), NUM_NODES, NUM_RELATIONS)
    theirs = PyKEENDistMult(triples_factory=factory, embedding_dim=8)
    with torch.no_grad():
        theirs.entity_representations[0]._embeddings.weight.copy_(model.node_emb.weight)
        theirs.relation_representations[0]._embeddings.weight.copy_(model.rel_emb.weight)
    result = evaluation.RankBasedEvaluator(filtered=True).evaluate(
        theirs, data.facts('test').contiguous(), additional_filter_triples=[data.facts('train'), data.facts('valid')],
        batch_size=4, use_tqdm=False)
    assert_equals_pykeen(data, model, result)


def test_same_question_is_asked_once() -> None:
    facts = torch.tensor([[0, 0, 0, 1], [1, 2, 3, 3]])
    data = KGData(facts, torch.zeros(4, dtype=torch.int64), 4, 1, test_edge_index=facts,
                  test_edge_type=torch.zeros(4, dtype=torch.int64))
    asked = []

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        asked.extend((side, entity) for entity in known.tolist())
        return torch.rand(len(known), 4)

    evaluate(model, data)
    assert sorted(asked) == [('head', 1), ('head', 2), ('head', 3), ('tail', 0), ('tail', 1)]


def test_modes_gradients_and_inputs_are_left_alone() -> None:
    data = make_data()

    class Model(torch.nn.Module):
        num_nodes, num_relations = NUM_NODES, NUM_RELATIONS

        def __init__(self) -> None:
            super().__init__()
            self.frozen = torch.nn.Dropout().eval()
            self.table = torch.nn.Parameter(torch.randn(NUM_NODES, NUM_NODES))
            self.seen: list[tuple[bool, bool]] = []

        def rank_all(self, known: Tensor, rel_type: Tensor, side: str) -> Tensor:
            self.seen.append((self.training, torch.is_grad_enabled()))
            return self.table[known]

    model = Model().train()
    model.frozen.eval()
    before = {key: value.clone() for key, value in data.to_dict().items() if isinstance(value, Tensor)}
    keys = data.fact_index('all').keys.clone()
    evaluate(model.rank_all, data)
    assert model.seen and set(model.seen) == {(False, False)}
    assert model.training and not model.frozen.training
    assert all(torch.equal(data[key], value) for key, value in before.items())
    assert torch.equal(data.fact_index('all').keys, keys)

    layer = make_layer(DistMult).train()
    evaluate(layer, data)
    assert layer.training and layer.node_emb.weight.grad is None


def test_mode_is_restored_after_an_error() -> None:
    layer = make_layer(DistMult).train()
    layer.node_emb.weight.data.fill_(float('nan'))
    with pytest.raises(DivergenceError):
        evaluate(layer, make_data())
    assert layer.training


@pytest.mark.parametrize('labelled', [False, True])
def test_nan_names_the_question(labelled: bool) -> None:
    labels: dict[str, Any] = {}
    if labelled:
        labels = {'entity_labels': [f'e{i}' for i in range(NUM_NODES)], 'relation_labels': ['likes', 'knows', 'sees']}
    data, tables = make_data(**labels), integer_scores()
    head, relation, _ = data.facts('test')[3].tolist()
    tables['tail'][head, relation, 0] = float('nan')
    names = (f"'e{head}'", repr(labels['relation_labels'][relation])) if labelled else (f'entity {head}',
                                                                                       f'relation {relation}')
    for batch_size in (None, 1):
        with pytest.raises(DivergenceError) as caught:
            evaluate(lookup(tables), data, batch_size=batch_size)
        assert f'({names[0]}, {names[1]}, ?)' in str(caught.value)


def test_subset() -> None:
    data, tables = make_data(), integer_scores()
    model = lookup(tables)
    first, again, other = (evaluate(model, data, max_triples=5, seed=seed) for seed in (1, 1, 2))
    assert first['count'] == 10
    assert counts_of(first, 'tail') == counts_of(again, 'tail') != counts_of(other, 'tail')
    assert evaluate(model, data, max_triples=999).to_dict() == evaluate(model, data).to_dict()
    everything = counts_of(evaluate(model, data), 'tail')
    assert all(count in everything for count in counts_of(first, 'tail'))


def test_other_splits_kinds_and_options() -> None:
    data, model = make_data(), lookup(integer_scores())
    assert evaluate(model, data, 'valid')['count'] == 20
    assert evaluate(model, data, 'train')['tail.count'] == 60
    metrics = evaluate(model, data, ks=(1, 2), num_negatives=5)
    assert 'hits@2' in metrics and 'hits@10 (5 negatives)' in metrics
    assert metrics['N-N.count'] == metrics['count']  # 60 facts among 12 entities
    inverse = data.with_inverse_relations()
    assert evaluate(model, inverse).to_dict() == evaluate(model, data).to_dict()


def test_kinds_are_those_of_the_training_facts() -> None:
    # A head with one tail in training, and with a second one in the test.
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 3, 1, test_edge_index=torch.tensor([[0], [2]]),
                  test_edge_type=torch.tensor([0]))
    groups = evaluate(lambda known, *_: torch.rand(len(known), 3), data).groups
    assert '1-1.tail' in groups and '1-N.tail' not in groups


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    data, model = make_data(), lookup(integer_scores())
    evaluate(model, data)
    assert capsys.readouterr().err == ''
    evaluate(model, data, progress=True)
    assert '30/30' in capsys.readouterr().err


@pytest.mark.parametrize('kwargs, facts', [
    ({'split': 'dev'}, ['split', "'dev'", "'valid'"]),
    ({'split': ['test']}, ['split', "['test']"]),
    ({'tie': 'random'}, ['tie', "'random'", "'realistic'"]),
    ({'sides': 'type'}, ['sides', 'type', "'tail'"]),
    ({'sides': ('tail', 'type')}, ['sides', 'type', 'relation']),
    ({'sides': ('relation',), 'candidates': [0, 1]}, ['candidates', 'relation']),
    ({'sides': ()}, ['sides', '()']),
    ({'sides': 5}, ['sides', '5']),
    ({'ks': (0,)}, ['ks', '(0,)']),
    ({'ks': 10}, ['ks', '10']),
    ({'seed': 'a'}, ['seed', "'a'"]),
    ({'seed': -1}, ['seed', '-1']),
    ({'num_negatives': 50.0}, ['num_negatives', '50.0']),
    ({'num_negatives': 0}, ['num_negatives', '0']),
    ({'batch_size': 0}, ['batch_size', '0']),
    ({'max_triples': 0}, ['max_triples', '0']),
    ({'max_triples': 0.5}, ['max_triples', '0.5']),
    ({'progress': 'yes'}, ['progress', "'yes'"]),
    ({'data': 'UMLS'}, ['data', 'KGData', 'str', 'load_dataset']),
    ({'data': Data(edge_index=torch.zeros(2, 1))}, ['data', 'KGData', 'Data']),
    ({'model': DistMult}, ['model', 'DistMult(...)']),
    ({'model': make_data()}, ['model', 'KGData']),
    ({'model': models.NBFNet(NUM_RELATIONS, 4, 1)}, ['NBFNet', 'model.as_ranker(data)']),
    ({'filter_splits': 'dev'}, ['filter_splits', "'dev'"]),
    ({'filter_splits': 5}, ['filter_splits', '5']),
    ({'filter_splits': [['train']]}, ['filter_splits', "['train']"]),
    ({'backend': 'cuda'}, ["'cuda'"]),
    ({'model': DistMult(NUM_NODES + 1, NUM_RELATIONS, 4)}, ['model', '13', '12']),
    ({'model': DistMult(NUM_NODES, NUM_RELATIONS - 1, 4)}, ['model', 'num_relations=2', '3']),
    ({'model': torch.nn.Linear(2, 2)}, ['Linear']),
    ({'model': 'DistMult'}, ['str']),
    ({'model': lambda known, *_: torch.zeros(len(known), 5)}, ['12)', '5)']),
    ({'by': 'entity'}, ['by', "'entity'", "'relation'"]),
    ({'known_facts': 'missing.tsv'}, ['missing.tsv']),
    ({'known_facts': torch.tensor([[0, 3, 0]])}, ['known_facts', '3']),
    ({'known_facts': pd.DataFrame({'head': [0], 'relation': [0], 'tail': [1], 'label': [0]})},
     ['known_facts', 'row 0', 'false']),
    ({'candidates': []}, ['candidates']),
    ({'candidates': torch.zeros(NUM_NODES, dtype=torch.bool)}, ['candidates']),
    ({'candidates': torch.ones(NUM_NODES + 1, dtype=torch.bool)}, ['candidates', '(12,)', '(13,)']),
    ({'candidates': torch.ones(1, NUM_NODES, dtype=torch.bool)}, ['candidates', '(1, 12)']),
    ({'candidates': [0, NUM_NODES]}, ['candidates', '12', 'position 1']),
    ({'candidates': [0, -1]}, ['candidates', '-1', 'position 1']),
    ({'candidates': [0.5]}, ['candidates', '0.5']),
    ({'candidates': {0: True}}, ['candidates', 'dictionary']),
])
def test_bad_arguments(kwargs: dict[str, Any], facts: list[str]) -> None:
    arguments = {'model': make_layer(DistMult), 'data': make_data(), **kwargs}
    with pytest.raises((ArgumentError, DataError)) as caught:
        evaluate(**arguments)
    assert all(fact in str(caught.value) for fact in facts), caught.value


def test_empty_split() -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), NUM_NODES, NUM_RELATIONS)
    with pytest.raises(DataError, match="'test'"):
        evaluate(make_layer(DistMult), data)


# Further facts, tables of relations ###########################################


def test_further_facts_do_not_compete() -> None:
    data, model = make_data(), lookup(integer_scores())
    expected = evaluate(model, data)
    rest = torch.cat([data.facts('valid'), data.facts('test')])
    labels = {'entity_labels': [f'e{i}' for i in range(NUM_NODES)], 'relation_labels': ['likes', 'knows', 'sees']}
    named = make_data(**labels)
    table = pd.DataFrame([(f'e{h}', labels['relation_labels'][r], f'e{t}') for h, r, t in rest.tolist()],
                         columns=['head', 'relation', 'tail'])
    for graph, known in ((data, rest), (named, table)):
        found = evaluate(model, graph, filter_splits='train', known_facts=known)
        assert found.groups == expected.groups
        assert found.info['filtered by'] == 'train + 25 given facts'
    everything = data.facts('all')
    assert evaluate(model, data, filter_splits=None, known_facts=everything).groups == expected.groups
    table.loc[0, 'head'] = 'stranger'
    with pytest.warns(DataWarning, match="known_facts: 1 of 25 .*'stranger'"):
        evaluate(model, named, known_facts=table)


def test_a_table_of_relations() -> None:
    labels = ['likes', 'knows', 'sees']
    data, model = make_data(relation_labels=labels), lookup(integer_scores())
    metrics = evaluate(model, data, by='relation', num_negatives=5)
    table = metrics.by('relation')
    relation = data.facts('test')[:, 1]
    for number, name in enumerate(labels):
        chosen = relation == number
        only = KGData(data.edge_index, data.edge_type, NUM_NODES, NUM_RELATIONS, valid_edge_type=data.valid_edge_type,
                      valid_edge_index=data.valid_edge_index, test_edge_index=data.test_edge_index[:, chosen],
                      test_edge_type=relation[chosen])
        # Other test facts would compete, if they were not known.
        expected = evaluate(model, only, num_negatives=5, known_facts=data.facts('test'))
        for group, prefix in (('both', ''), ('tail', 'tail.'), ('head', 'head.')):
            for metric, value in expected.groups[group].items():
                assert table.loc[name, f'{prefix}{metric}'] == pytest.approx(value), (name, metric)
    assert table['count'].is_monotonic_decreasing and table['count'].sum() == 30
    assert metrics['macro.mrr'] == pytest.approx(table['mrr'].mean()) and metrics['macro.count'] == 3
    assert metrics['macro.mrr'] != pytest.approx(metrics['mrr'])
    plain = evaluate(model, data, num_negatives=5)
    assert 'macro' not in plain.groups and plain.to_dict().keys() == metrics.to_dict().keys() - {'macro', 'relations'}
    assert metrics.to_dict()['relations']['likes']['tail.mrr'] == pytest.approx(table.loc['likes', 'tail.mrr'])
    assert 'knows' in str(metrics) and 'macro' in str(metrics) and 'knows' in metrics._repr_html_()
    # A relation without ranks has no row, and one without ranks on a side no value there.
    with pytest.warns(DataWarning):
        part = evaluate(model, data, candidates=data.facts('test')[:1, 2], by='relation').by()
    assert len(part) < 3 or part.isna().any(axis=None) and (part[['tail.count', 'head.count']] == 0).any(axis=None)


def test_which_facts_were_ranked() -> None:
    data, model = make_data(entity_labels=[f'e{i}' for i in range(NUM_NODES)]), lookup(integer_scores())
    whole, part = (evaluate(model, data, max_triples=size).ranked() for size in (None, 4))
    assert list(part) == ['head', 'relation', 'tail', 'side', 'rank', 'competitors'] and len(part) == 8
    metrics = evaluate(model, data)
    assert whole['rank'].rdiv(1).mean() == pytest.approx(metrics['mrr'])
    counts = counts_of(metrics, 'tail') + counts_of(metrics, 'head')
    assert whole['competitors'].tolist() == [others for _, _, others in counts]
    rows = set(whole.itertuples(index=False, name=None))
    assert all(row in rows for row in part.itertuples(index=False, name=None))
    facts = [(data.entity_id(head), relation, data.entity_id(tail)) for head, relation, tail in
             part.loc[part['side'] == 'tail', ['head', 'relation', 'tail']].itertuples(index=False)]
    assert torch.tensor(facts).equal(evaluate(model, data, max_triples=4).facts['tail'])  # type: ignore[index]


# Sets of candidates ##########################################################


def brute_metrics(counts: list[tuple[int, int, int]], num_negatives: int) -> dict[str, float]:
    r"""Metrics of counts by their definitions."""
    rank = [greater + equal / 2 + 1 for greater, equal, _ in counts]
    missed = [(value - 1) / max(others, 1) for value, (_, _, others) in zip(rank, counts)]
    draws = num_negatives - 1
    hits = [sum(math.comb(draws, i) * p**i * (1 - p)**(draws - i) for i in range(min(10, draws + 1))) for p in missed]
    return {'mrr': sum(1 / value for value in rank) / len(rank), 'mr': sum(rank) / len(rank),
            'amri': 1 - sum(value - 1 for value in rank) / sum(others / 2 for _, _, others in counts),
            f'hits@10 ({num_negatives} negatives)': sum(hits) / len(hits), 'count': len(rank)}


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('by_function', [True, False])
def test_candidates_equal_brute_force(by_function: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    data, tables, layer = make_data(seed), integer_scores(seed), make_layer(DistMult, seed)
    chosen = torch.randperm(NUM_NODES, generator=generator)[:4 + seed].tolist()
    filtered = [[], ['train'], ['train', 'valid', 'test']][seed % 3]
    metrics = evaluate(lookup(tables) if by_function else layer, data, candidates=chosen, filter_splits=filtered,
                       num_negatives=20, batch_size=1 + seed)
    everything = []
    for side, known, column in (('tail', 0, 2), ('head', 2, 0)):
        facts = {tuple(fact) for split in filtered for fact in data.facts(split).tolist()}  # type: ignore[arg-type]
        expected = []
        for fact in data.facts('test').tolist():
            if fact[column] not in chosen:
                continue

            def score(entity: int, fact: list[int] = fact, known: int = known, column: int = column,
                      side: str = side) -> float:
                if by_function:
                    return float(tables[side][fact[known], fact[1], entity])
                triple = [*fact[:column], entity, *fact[column + 1:]]
                return layer(*(torch.tensor([part]) for part in triple)).item()

            others = [entity for entity in chosen if entity != fact[column]
                      and (*fact[:column], entity, *fact[column + 1:]) not in facts]
            own = score(fact[column])
            expected.append((sum(score(v) > own for v in others), sum(score(v) == own for v in others), len(others)))
        assert counts_of(metrics, side) == expected
        everything += expected
        if expected:
            assert metrics[f'{side}.count'] == len(expected)
    for name, value in brute_metrics(everything, 20).items():
        assert metrics[name] == pytest.approx(value), name
    assert metrics.info['candidates'].split()[0] == str(len(chosen))


def test_excluded_entities_count_nowhere() -> None:
    r"""Metrics among candidates are those of a graph that has no other entities."""
    data = make_data(3)
    scores = {side: torch.rand(NUM_NODES, NUM_RELATIONS, NUM_NODES, generator=torch.Generator().manual_seed(5))
              for side in ('tail', 'head')}
    inside = torch.zeros(NUM_NODES, dtype=torch.bool)
    inside[:7] = True
    for split in ('', 'valid_', 'test_'):
        kept = inside[data[f'{split}edge_index']].all(0)
        data[f'{split}edge_index'], data[f'{split}edge_type'] = (data[f'{split}edge_index'][:, kept],
                                                                 data[f'{split}edge_type'][kept])
    small = KGData(**{**{key: data[key] for key in data.keys()}, 'num_nodes': 7})
    shrunk = {side: table[:7, :, :7] for side, table in scores.items()}
    expected = evaluate(lookup(shrunk), small, num_negatives=5)
    # Entities outside would win everywhere, and NaN is no score of a candidate.
    for table in scores.values():
        table[..., 7:] = float('nan')
    found = evaluate(lookup(scores), data, num_negatives=5, candidates=inside)
    assert found.groups == expected.groups
    assert found['amri'] == expected['amri'] and found['hits@10 (5 negatives)'] == expected['hits@10 (5 negatives)']


def test_candidates_in_every_form() -> None:
    data = make_data(entity_labels=[f'e{i}' for i in range(NUM_NODES)], relation_labels=['likes', 'knows', 'sees'])
    model, chosen = make_layer(DistMult), [1, 2, 3, 5, 8, 10, 11]
    mask = torch.zeros(NUM_NODES, dtype=torch.bool)
    mask[chosen] = True
    with pytest.warns(DataWarning):
        expected = evaluate(model, data, candidates=chosen)
    labels = [f'e{i}' for i in chosen]
    forms: list[Any] = [mask, mask.numpy(), mask.tolist(), torch.tensor(chosen[::-1]), np.array(chosen * 2),
                        set(chosen), labels, set(labels), tuple(chosen), pd.Series(chosen), [*labels[:1], *chosen[1:]]]
    for form in forms:
        with pytest.warns(DataWarning):
            assert evaluate(model, data, candidates=form).to_dict() == expected.to_dict(), form
    everything = evaluate(model, data, candidates=range(NUM_NODES))
    assert everything.groups == evaluate(model, data).groups
    with pytest.raises(DataError, match="'virus'"):
        evaluate(model, data, candidates=['virus'])
    by_relation = evaluate(model, data, candidates=RelationCandidates.seen(data, 'all'))
    assert evaluate(model, data, candidates={'seen': 'all'}).to_dict() == by_relation.to_dict() != everything.to_dict()


def test_facts_without_a_candidate_are_counted() -> None:
    data, model = make_data(), lookup(integer_scores())
    facts = data.facts('test')
    chosen = [entity for entity in range(NUM_NODES) if entity != int(facts[0, 2])]
    left = {'tail': int((facts[:, 2] == facts[0, 2]).sum()), 'head': int((facts[:, 0] == facts[0, 2]).sum())}
    with pytest.warns(DataWarning, match=f"{left['tail']} tails"):
        metrics = evaluate(model, data, candidates=chosen)
    assert metrics['tail.count'] == len(facts) - left['tail'] and metrics['head.count'] == len(facts) - left['head']
    assert f"{left['tail']} tails" in metrics.info['not ranked']
    single = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 4, 1, test_edge_index=torch.tensor([[0], [2]]),
                    test_edge_type=torch.tensor([0]))
    with pytest.warns(DataWarning):
        heads = evaluate(lambda known, *_: torch.rand(len(known), 4), single, candidates=[0, 1])
    assert set(heads.groups) >= {'both', 'head'} and 'tail' not in heads.groups
    with pytest.raises(DataError, match='candidates'):
        evaluate(lambda known, *_: torch.rand(len(known), 4), single, candidates=[3])


@pytest.mark.filterwarnings('ignore::pyg_emu.core.errors.DataWarning')
@pytest.mark.parametrize('by_function', [True, False])
def test_sets_of_relations_rank_as_one_set_a_relation(by_function: bool) -> None:
    data = make_data(2)
    tables = {side: table.double() for side, table in integer_scores(2).items()}
    for table in tables.values():
        table[table == 0] = -torch.inf  # a score like others
    model = lookup(tables) if by_function else make_layer(DistMult, 2)
    sets = {'tail': {0: [0, 2, 4, 6, 8, 9, 11], 1: [1]}, 'head': {1: [3, 4, 5, 7, 10], 2: range(11)}}
    candidates = RelationCandidates(data, sets['tail'], sets['head'])  # type: ignore[arg-type]
    found = evaluate(model, data, candidates=candidates, num_negatives=5, batch_size=3)
    relation = data.facts('test')[:, 1]
    for side, column in (('tail', 2), ('head', 0)):
        expected = []
        for number in range(NUM_RELATIONS):
            only = KGData(data.edge_index, data.edge_type, NUM_NODES, NUM_RELATIONS,
                          valid_edge_index=data.valid_edge_index, valid_edge_type=data.valid_edge_type,
                          test_edge_index=data.test_edge_index[:, relation == number],
                          test_edge_type=relation[relation == number])
            chosen = sets[side].get(number, range(NUM_NODES))
            if torch.isin(only.facts('test')[:, column], torch.tensor(list(chosen))).any():
                expected += counts_of(evaluate(model, only, candidates=chosen, sides=(side,)), side)
        assert sorted(counts_of(found, side)) == sorted(expected)
    assert found.info['candidates'] == 'by relation'


def test_sets_of_another_graph() -> None:
    other = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), NUM_NODES + 1, NUM_RELATIONS)
    with pytest.raises(ArgumentError, match='candidates: .* 12 .* 13 '):
        evaluate(make_layer(DistMult), make_data(), candidates=RelationCandidates.seen(other))


# Limits: memory, threads, inference mode #####################################


OUT_OF_MEMORY = [
    MemoryError(),
    torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB'),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                 'to allocate 8589934592 bytes. Error code 12 (Cannot allocate memory)'),
]


@pytest.mark.parametrize('error', OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize('limit', [1, 2, 5])
def test_smaller_blocks_where_memory_does_not_suffice(error: Exception, limit: int) -> None:
    data, tables, asked = make_data(), integer_scores(), []

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        asked.append(known.numel())
        if known.numel() > limit:
            raise error
        return tables[side][known, rel_type]

    assert evaluate(model, data).to_dict() == evaluate(lookup(tables), data).to_dict()
    # After the first failures, blocks are small from the start.
    assert sum(size > limit for size in asked) <= 6


@pytest.mark.parametrize('error', OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_one_sentence_where_no_block_is_small_enough(error: Exception) -> None:
    def model(*_: Any) -> Tensor:
        raise error

    with pytest.raises(OutOfMemoryError) as caught:
        evaluate(model, make_data())
    assert isinstance(caught.value, MemoryError) and 'relation' in str(caught.value) and '\n' not in str(caught.value)
    table = make_layer(models.DistMult)
    table.entity_table = model
    with pytest.raises(OutOfMemoryError, match='test'):
        evaluate(table, make_data())


def test_other_errors_are_not_retried() -> None:
    asked = []

    def model(known: Tensor, *_: Any) -> Tensor:
        asked.append(known.numel())
        raise RuntimeError('mat1 and mat2 shapes cannot be multiplied')

    with pytest.raises(RuntimeError, match='mat1'):
        evaluate(model, make_data())
    assert len(asked) == 1


@pytest.mark.skipif(sys.platform != 'linux', reason='RLIMIT_AS bounds memory on Linux')
def test_address_space_of_a_process() -> None:
    r"""Under a limit that the usual block of scores exceeds, the ranks are those without one."""
    script = """
import resource, torch
from pyg_emu import KGData, evaluate
torch.set_num_threads(1)
V, F = 200_000, 60
g = torch.Generator().manual_seed(0)
test = torch.randint(V, (2, F), generator=g)
data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), V, 1, test_edge_index=test,
              test_edge_type=torch.zeros(F, dtype=torch.int64))
row = torch.rand(V, generator=g)
def model(known, rel_type, side):
    return (known.unsqueeze(1) * 7 + torch.arange(V)) % 1013 + row.expand(len(known), -1)
expected = evaluate(model, data, batch_size=1)['mr']
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
assert evaluate(model, data, batch_size=60)['mr'] == expected
"""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path), 'PYG_EMU_BACKEND': 'torch'}
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', script], env=environment, text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr


def test_threads_share_a_model_in_training_mode() -> None:
    data = make_data()

    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.frozen = torch.nn.Dropout(0.5), torch.nn.Dropout(0.5)
            self.table = torch.rand(NUM_NODES, NUM_NODES, generator=torch.Generator().manual_seed(0))

        def rank_all(self, known: Tensor, *_: Any) -> Tensor:
            scores = self.dropout(self.table[known])
            time.sleep(0.0005)  # lets other threads enter and leave
            return scores

    model = Noisy().train()
    model.frozen.eval()
    expected = evaluate(model.rank_all, data).to_dict()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(6):
            results = pool.map(lambda size: evaluate(model.rank_all, data, batch_size=size).to_dict(), [3, 5, 7, 9])
            assert all(result == expected for result in results)
            assert model.training and model.dropout.training and not model.frozen.training


def test_what_inference_mode_caches_can_be_trained_on() -> None:
    data = make_data()
    graph = data.with_inverse_relations()
    with torch.inference_mode():
        assert evaluate(make_layer(DistMult), data)['count'] == 30
        model = models.NBFNet(NUM_RELATIONS, 4, 1)
        evaluate(model.as_ranker(graph), graph)
    model = models.NBFNet(NUM_RELATIONS, 4, 1)
    model.score(graph, torch.tensor([0]), torch.tensor([0])).sum().backward()
    layer = make_layer(DistMult)
    for loader in (layer.loader(*data.facts('train').t(), batch_size=16),):
        for head, relation, tail in loader:
            layer.loss(head, relation, tail).backward()
    assert not data.facts('train').is_inference()


def test_one_side_and_integers_of_numpy() -> None:
    data, model = make_data(), lookup(integer_scores())
    assert evaluate(model, data, sides='tail').to_dict() == evaluate(model, data, sides=('tail', )).to_dict()
    numbers: Any = {'max_triples': np.int32(5), 'seed': np.int64(1), 'ks': np.array([1, 2]), 'batch_size': np.uint8(9)}
    found = evaluate(model, data, **numbers)
    assert found.to_dict() == evaluate(model, data, max_triples=5, seed=1, ks=(1, 2)).to_dict()

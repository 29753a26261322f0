from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import ComplEx, DistMult, RotatE, TransE

import pyg_emu.models as models
from pyg_emu.core.errors import ArgumentError, DataError, DivergenceError
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


def assert_equals_pykeen(data: KGData, model: Any, result: Any, filter_splits: Any = 'all') -> None:
    for tie in TIES:
        metrics = evaluate(model, data, tie=tie, filter_splits=filter_splits)  # type: ignore[arg-type]
        for side in ('both', 'tail', 'head'):
            for ours, theirs in PYKEEN_NAMES.items():
                if ours == 'amri' and tie != 'realistic':
                    continue  # which PyKEEN defines for realistic ranks alone
                expected = result.get_metric(f'{side}.{tie}.{theirs}')
                assert metrics[f'{side}.{ours}'] == pytest.approx(expected, abs=1e-6), (tie, side, ours)


@pytest.mark.parametrize('filtered', [True, False])
def test_equals_pykeen_on_the_same_scores(filtered: bool) -> None:
    evaluation = pytest.importorskip('pykeen.evaluation')
    data, tables = make_data(), integer_scores()
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
            evaluator.process_scores_(fact.unsqueeze(0), side, scores, own)
    assert_equals_pykeen(data, lookup(tables), evaluator.finalize(), 'all' if filtered else None)


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


def test_progress(capsys: pytest.CaptureFixture[str]) -> None:
    data, model = make_data(), lookup(integer_scores())
    evaluate(model, data)
    assert capsys.readouterr().err == ''
    evaluate(model, data, progress=True)
    assert '30/30' in capsys.readouterr().err


@pytest.mark.parametrize('kwargs, message', [
    ({'split': 'dev'}, "split: expected 'train', 'valid' or 'test', got 'dev'"),
    ({'tie': 'random'}, 'tie: expected one of'),
    ({'sides': 'tail'}, "sides: expected 'tail', 'head' or both in a tuple, got 'tail'"),
    ({'sides': ('tail', 'relation')}, 'sides: expected'),
    ({'sides': ()}, 'sides: expected'),
    ({'ks': (0,)}, 'ks: expected'),
    ({'ks': 10}, r'ks: expected one or more positive integers, such as \(1, 3, 10\), got 10'),
    ({'seed': 'a'}, "seed: expected an integer, got 'a'"),
    ({'num_negatives': 50.0}, 'num_negatives: expected an integer, got 50.0'),
    ({'batch_size': 0}, 'batch_size: expected at least one, got 0'),
    ({'max_triples': 0}, 'max_triples: expected at least one, got 0'),
    ({'max_triples': 0.5}, 'max_triples: expected at least one, got 0.5'),
    ({'data': 'UMLS'}, r'data: expected a KGData, after the model, got .* str; load_dataset\(...\) makes one'),
    ({'data': Data(edge_index=torch.zeros(2, 1))}, 'data: expected a KGData, after the model, got .* Data;'),
    ({'model': DistMult}, r'model: expected an object, got the class DistMult itself; make one with DistMult\(...\)'),
    ({'model': make_data()}, 'model: expected a model first, and then the data, got a KGData'),
    ({'model': models.NBFNet(NUM_RELATIONS, 4, 1)}, r'NBFNet scores by a graph .* model.as_ranker\(data\)'),
    ({'filter_splits': 'dev'}, "got 'dev'"),
    ({'backend': 'cuda'}, "backend: .*'cuda'"),
    ({'model': DistMult(NUM_NODES + 1, NUM_RELATIONS, 4)}, 'model: it has 13 entities, the data has 12'),
    ({'model': DistMult(NUM_NODES, NUM_RELATIONS - 1, 4)}, 'model: it has 2 relations, the data has 3'),
    ({'model': torch.nn.Linear(2, 2)}, 'Linear cannot be scored'),
    ({'model': 'DistMult'}, 'str cannot be scored'),
    ({'model': lambda known, *_: torch.zeros(len(known), 5)}, r'expected scores of shape \(\d+, 12\), got \(\d+, 5\)'),
])
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    arguments = {'model': make_layer(DistMult), 'data': make_data(), **kwargs}
    with pytest.raises(ArgumentError, match=message):
        evaluate(**arguments)


def test_empty_split() -> None:
    data = KGData(torch.tensor([[0], [1]]), torch.tensor([0]), NUM_NODES, NUM_RELATIONS)
    with pytest.raises(DataError, match="split 'test' has no facts"):
        evaluate(make_layer(DistMult), data)

r"""The rank of the true relation between two entities."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import DistMult, RotatE

import pyg_emu.models as models
from pyg_emu.core.errors import DivergenceError, OutOfMemoryError
from pyg_emu.data.graph import KGData
from pyg_emu.evaluation.metrics import TIES
from pyg_emu.evaluation.ranking import evaluate
from pyg_emu.evaluation.relations import scores_by_function

V, R = 9, 5


def make_data(seed: int = 0) -> KGData:
    generator = torch.Generator().manual_seed(seed)
    # Few pairs, so that a pair has several relations.
    pair, relation = torch.randint(12, (60,), generator=generator), torch.randint(R, (60,), generator=generator)
    head, tail = pair // 4, 4 + pair % 4
    edges = torch.stack([head, tail])
    return KGData(edges[:, :30], relation[:30], V, R, valid_edge_index=edges[:, 30:40],
                  valid_edge_type=relation[30:40], test_edge_index=edges[:, 40:], test_edge_type=relation[40:])


def integer_scores(seed: int = 0) -> Tensor:
    return torch.randint(3, (V, R, V), generator=torch.Generator().manual_seed(seed)).float()


def brute_counts(score: Any, data: KGData, filtered: bool) -> list[tuple[int, int, int]]:
    known, found = {tuple(fact) for fact in data.facts('all').tolist()} if filtered else set(), []
    for head, relation, tail in data.facts('test').tolist():
        others = [other for other in range(R) if other != relation and (head, other, tail) not in known]
        values, own = [score(head, other, tail) for other in others], score(head, relation, tail)
        found.append((sum(value > own for value in values), sum(value == own for value in values), len(others)))
    return found


def counts_of(metrics: Any) -> list[tuple[int, int, int]]:
    return [tuple(row) for row in torch.stack([metrics.ranks['relation'].greater, metrics.ranks['relation'].equal,
                                               metrics.ranks['relation'].candidates], 1).tolist()]


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('batch_size', [None, 1, 7])
def test_functions_equal_brute_force(seed: int, batch_size: Any) -> None:
    data, table = make_data(seed), integer_scores(seed)

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        assert side == 'tail'
        return table[known, rel_type]

    for filtered in (True, False):
        metrics = evaluate(model, data, sides=('relation',), batch_size=batch_size,
                           filter_splits='all' if filtered else None)
        assert counts_of(metrics) == brute_counts(lambda *fact: float(table[fact]), data, filtered)
    assert metrics['mrr'] == metrics['relation.mrr'] and metrics['count'] == 20


@pytest.mark.parametrize('layer', [DistMult, RotatE, models.TransE, models.HAKE])
def test_scorers_equal_brute_force(layer: Any) -> None:
    torch.manual_seed(0)
    data, model = make_data(), layer(V, R, 6).double()
    metrics = evaluate(model, data, sides=('relation', 'tail', 'head'), by='relation')
    expected = brute_counts(lambda *fact: model(*(torch.tensor([part]) for part in fact)).item(), data, True)
    assert counts_of(metrics) == expected
    # What is reported of both sides does not depend on relations.
    plain = evaluate(model, data)
    for group, values in plain.groups.items():
        assert metrics.groups[group] == values
    assert metrics['relation.count'] == 20 and 'relation' in str(metrics)
    table = metrics.by('relation')
    assert table['count'].equals(plain.by('relation')['count']) and table['relation.count'].sum() == 20
    assert set(metrics.ranked()['side']) == {'tail', 'head', 'relation'}


def test_nbfnet() -> None:
    graph = make_data().with_inverse_relations()
    torch.manual_seed(0)
    model = models.NBFNet(R, 8, 2).eval()
    with torch.no_grad():
        scores = torch.stack([model.score(graph, torch.arange(V), torch.full((V,), relation)) for relation in range(R)],
                             1)
    metrics = evaluate(model.as_ranker(graph), graph, sides=('relation',))
    assert counts_of(metrics) == brute_counts(lambda *fact: float(scores[fact]), graph, True)


def test_equals_pykeen() -> None:
    evaluation = pytest.importorskip('pykeen.evaluation')
    from pykeen.models import DistMult as PyKEENDistMult
    from pykeen.triples import CoreTriplesFactory

    data = make_data()
    model = models.DistMult(V, R, 8)
    with torch.no_grad():  # small integers: exact scores, and ties
        for weight in model.embedding_weights():
            weight.copy_(torch.randint(-1, 2, weight.shape, generator=torch.Generator().manual_seed(0)))
    factory = CoreTriplesFactory(data.facts('train'), V, R)
    theirs = PyKEENDistMult(triples_factory=factory, embedding_dim=8)
    with torch.no_grad():
        theirs.entity_representations[0]._embeddings.weight.copy_(model.node_emb.weight)
        theirs.relation_representations[0]._embeddings.weight.copy_(model.rel_emb.weight)
    # PyKEEN's own loop does not take relations (its pull request 728), but its evaluator does.
    evaluator = evaluation.RankBasedEvaluator(filtered=True)
    everything = data.facts('all')
    for fact in data.facts('test'):
        scores = theirs.predict_r(fact[[0, 2]].unsqueeze(0))
        own = scores[:, fact[1]].clone().unsqueeze(1)
        scores[0, everything[(everything[:, [0, 2]] == fact[[0, 2]]).all(1), 1]] = float('nan')
        scores[0, fact[1]] = own.item()
        evaluator.process_scores_(fact.unsqueeze(0), 'tail', scores, own)  # the name of a column
    result = evaluator.finalize()
    for tie in TIES:
        metrics = evaluate(model, data, sides=('relation',), tie=tie)  # type: ignore[arg-type]
        for ours, name in (('mrr', 'inverse_harmonic_mean_rank'), ('mr', 'arithmetic_mean_rank'),
                           ('hits@1', 'hits_at_1'), ('count', 'count')):
            assert metrics[ours] == pytest.approx(result.get_metric(f'tail.{tie}.{name}'), abs=1e-6)
    amri = result.get_metric('tail.realistic.adjusted_arithmetic_mean_rank_index')
    assert evaluate(model, data, sides=('relation',))['amri'] == pytest.approx(amri, abs=1e-6)


def test_pairs_with_the_same_head_share_calls() -> None:
    asked = []

    def model(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        asked.extend(zip(known.tolist(), rel_type.tolist()))
        return torch.rand(len(known), V)

    data = make_data()
    evaluate(model, data, sides=('relation',))
    heads = sorted(set(data.facts('test')[:, 0].tolist()))
    assert sorted(asked) == [(head, relation) for head in heads for relation in range(R)]


def test_limits() -> None:
    data, table = make_data(), integer_scores()

    def small(known: Tensor, rel_type: Tensor, side: str) -> Tensor:
        if known.numel() > R:  # one head
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return table[known, rel_type]

    found = evaluate(small, data, sides=('relation',))
    assert found.groups == evaluate(lambda known, rel, side: table[known, rel], data, sides=('relation',)).groups
    with pytest.raises(OutOfMemoryError, match=r'\(entity \d, \?, entity \d\)'):
        evaluate(lambda *_: torch.empty(2**60), data, sides=('relation',))
    with pytest.raises(DivergenceError, match=r'\(entity \d, \?, entity \d\)'):
        evaluate(lambda known, *_: torch.full((len(known), V), torch.nan), data, sides=('relation',))


def test_blocks_of_heads() -> None:
    r"""More heads than a block holds, and more relations."""
    generator = torch.Generator().manual_seed(0)
    for num_relations in (5, 300):
        table = torch.rand(60, num_relations, 60, generator=generator)
        head, tail = (torch.randint(60, (90,), generator=generator) for _ in range(2))
        relations = torch.randperm(num_relations, generator=generator)
        scores = scores_by_function(lambda known, rel_type, table=table: table[known, rel_type], 60, relations)
        assert scores(head, tail).equal(table[head, :, tail][:, relations])

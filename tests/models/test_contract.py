r"""Tests that all ways of scoring agree, for every model of :mod:`pyg_emu.models` and every PyG model."""
from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import kge

from pyg_emu import models
from pyg_emu.core.contract import Scorer
from pyg_emu.core.errors import ArgumentError
from pyg_emu.models import RGCN, KGEScorer, NBFNet, Reciprocal
from pyg_emu.models.adapters import as_scorer

NUM_NODES, NUM_RELATIONS, CHANNELS = 7, 3, 4
MODELS = {name: getattr(models, name) for name in models.__all__}
# NBFNet has no entity embeddings and is not a scorer. Its ranker is tested in tests/models/nbfnet. RGCN scores with one
# of the others, on encoded rows: tests/models/encoders compares the two.
MODELS = {name: cls for name, cls in MODELS.items() if inspect.isclass(cls) and cls not in (KGEScorer, NBFNet, RGCN)}
OURS = {name: cls for name, cls in MODELS.items() if issubclass(cls, KGEScorer)}
# Models with another initialization have their own test of it.
UNIFORM = {name: cls for name, cls in OURS.items() if cls.reset_parameters is KGEScorer.reset_parameters}
CASES = {
    **OURS,
    'TransE(p_norm=2)': lambda *sizes, **kwargs: models.TransE(*sizes, p_norm=2, **kwargs),
    'Reciprocal': lambda nodes, relations, *sizes: Reciprocal(models.ComplEx(nodes, 2 * relations, *sizes)),
    'PyG TransE': kge.TransE,
    'PyG TransE(p_norm=2)': lambda *sizes: kge.TransE(*sizes, p_norm=2),
    'PyG DistMult': kge.DistMult,
    'PyG ComplEx': kge.ComplEx,
    'PyG RotatE': kge.RotatE,
}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(5)
    return CASES[request.param](NUM_NODES, NUM_RELATIONS, CHANNELS).double()


def triples(count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    head, tail = torch.randint(NUM_NODES, (2, count), generator=generator)
    return head, torch.randint(NUM_RELATIONS, (count,), generator=generator), tail


def close(left: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_discovery_covers_every_export() -> None:
    assert set(MODELS) <= set(CASES)
    assert {'TransE', 'DistMult', 'ComplEx', 'RotatE', 'HAKE'} <= set(OURS)


def test_is_a_scorer(model: Any) -> None:
    scorer = as_scorer(model)
    assert isinstance(scorer, Scorer)
    assert (scorer.num_nodes, scorer.num_relations) == (NUM_NODES, NUM_RELATIONS)
    width = scorer.entity_table().size(1)
    assert scorer.query(*triples()[:2], 'tail').size(1) == scorer.interaction.query_width(width)


def test_tail_routes_agree(model: Any) -> None:
    scorer = as_scorer(model)
    head, relation, tail = triples()
    expected = model(head, relation, tail)
    assert expected.std() > 1e-3  # Equal scores would agree in any case.
    query = scorer.query(head, relation, 'tail')
    close(scorer(head, relation, tail), expected)
    close(scorer.score(query, scorer.candidates(tail)), expected)
    close(scorer.score_all(query).gather(1, tail.unsqueeze(1)).squeeze(1), expected)
    several = tail.unsqueeze(1).repeat(1, 3)
    close(scorer.score(query, scorer.candidates(several)), expected.unsqueeze(1).repeat(1, 3))


def test_head_routes_agree(model: Any) -> None:
    scorer = as_scorer(model)
    head, relation, tail = triples()
    if isinstance(model, Reciprocal):
        expected = model.model(tail, relation + NUM_RELATIONS, head)
    else:
        expected = model(head, relation, tail)
    query = scorer.query(tail, relation, 'head')
    close(scorer.score(query, scorer.candidates(head)), expected)
    close(scorer.score_all(query).gather(1, head.unsqueeze(1)).squeeze(1), expected)


def test_side_row_by_row(model: Any) -> None:
    scorer = as_scorer(model)
    head, relation, tail = triples()
    side = torch.arange(head.numel()) % 3 == 0
    mixed = scorer.query(torch.where(side, head, tail), relation, side)
    close(mixed[side], scorer.query(head, relation, 'tail')[side])
    close(mixed[~side], scorer.query(tail, relation, 'head')[~side])


def test_candidates_are_rows_of_the_table(model: Any) -> None:
    scorer = as_scorer(model)
    index = torch.tensor([[3, 3, 0], [6, 1, 2]])
    close(scorer.candidates(index), scorer.entity_table()[index])


def test_gradients_reach_every_parameter(model: Any) -> None:
    scorer = as_scorer(model)
    head, relation, tail = triples()
    parameters = list(model.parameters())
    expected = torch.autograd.grad(model(head, relation, tail).square().sum(), parameters)
    query = scorer.query(head, relation, 'tail')
    rows = scorer.entity_table()[tail]
    actual = torch.autograd.grad(scorer.score(query, rows).square().sum(), parameters)
    for left, right in zip(actual, expected):
        assert right.abs().sum() > 0
        torch.testing.assert_close(left, right)


def test_embedding_weights_are_the_tables(model: Any) -> None:
    weights = list(as_scorer(model).embedding_weights())
    assert {id(weight) for weight in weights} == {id(parameter) for parameter in model.parameters()}
    assert weights[0].size(0) == NUM_NODES


@pytest.mark.parametrize('cls', OURS.values(), ids=OURS.keys())
def test_gradcheck(cls: Any) -> None:
    torch.manual_seed(0)
    model = cls(4, 2, 3).double()
    head, relation, tail = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]), torch.tensor([1, 3, 0])

    def score(*weights: Tensor) -> Tensor:
        names = ['node_emb.weight', 'rel_emb.weight']
        return torch.func.functional_call(model, dict(zip(names, weights)), (head, relation, tail))

    assert torch.autograd.gradcheck(score, tuple(model.embedding_weights()))


@pytest.mark.parametrize('cls', UNIFORM.values(), ids=UNIFORM.keys())
def test_initial_embeddings(cls: Any) -> None:
    torch.manual_seed(3)
    first = cls(200, 50, 10)
    torch.manual_seed(3)
    second = cls(200, 50, 10)
    for left, right in zip(first.parameters(), second.parameters()):
        assert torch.equal(left, right)
        # uniform in +-(24 + 2) / 10, whose standard deviation is 2.6 / sqrt(3)
        assert 2.5 < left.abs().max() <= 2.6
        assert float(left.detach().std()) == pytest.approx(1.501, rel=0.05)
    before = first.node_emb.weight.clone()
    first.reset_parameters(torch.Generator().manual_seed(4))
    second.reset_parameters(torch.Generator().manual_seed(4))
    assert torch.equal(first.node_emb.weight, second.node_emb.weight)
    assert not torch.equal(first.node_emb.weight, before)


@pytest.mark.parametrize('cls', OURS.values(), ids=OURS.keys())
def test_sparse_gradients(cls: Any) -> None:
    torch.manual_seed(1)
    sparse = cls(NUM_NODES, NUM_RELATIONS, CHANNELS, sparse=True).double()
    dense = cls(NUM_NODES, NUM_RELATIONS, CHANNELS).double()
    dense.load_state_dict(sparse.state_dict())
    assert sparse.sparse and not dense.sparse
    for model in (sparse, dense):
        model(*triples()).sum().backward()
    for left, right in zip(sparse.parameters(), dense.parameters()):
        assert left.grad.is_sparse and not right.grad.is_sparse
        torch.testing.assert_close(left.grad.to_dense(), right.grad)


@pytest.mark.parametrize('cls', OURS.values(), ids=OURS.keys())
def test_kge_model_methods_work(cls: Any) -> None:
    torch.manual_seed(0)
    model = cls(NUM_NODES, NUM_RELATIONS, 8)
    head, relation, tail = triples()
    assert str(model) == f'{cls.__name__}(7, num_relations=3, hidden_channels=8)'
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(20):
        for batch in model.loader(head, relation, tail, batch_size=20):
            optimizer.zero_grad()
            loss = model.loss(*batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    assert sum(losses[-4:]) < sum(losses[:4])
    mean_rank, mrr, hits = model.test(head, relation, tail, batch_size=4, k=7, log=False)
    assert 0 <= mean_rank < NUM_NODES and 0 < mrr <= 1 and hits == 1


@pytest.mark.parametrize('cls', OURS.values(), ids=OURS.keys())
@pytest.mark.parametrize('name', ['num_nodes', 'num_relations', 'hidden_channels', 'margin'])
def test_refuses_impossible_sizes(cls: Any, name: str) -> None:
    arguments: dict[str, Any] = {'num_nodes': 3, 'num_relations': 2, 'hidden_channels': 4, 'margin': 1.0}
    arguments[name] = float('nan') if name == 'margin' else 0
    with pytest.raises(ArgumentError, match=name):
        cls(**arguments)


@pytest.mark.parametrize('cls', OURS.values(), ids=OURS.keys())
@pytest.mark.parametrize('value', [2.5, '3', None, True])
def test_refuses_sizes_that_are_no_integers(cls: Any, value: Any) -> None:
    for name in ('num_nodes', 'num_relations', 'hidden_channels'):
        arguments: dict[str, Any] = {'num_nodes': 3, 'num_relations': 2, 'hidden_channels': 4, name: value}
        with pytest.raises(ArgumentError, match=rf'^{name}: .*\b1\b.*{value!r}'):
            cls(**arguments)

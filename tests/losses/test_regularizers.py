from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_geometric.nn import kge

from pyg_emu.core.complex_rows import modulus
from pyg_emu.core.errors import ArgumentError
from pyg_emu.data.batch import Batch
from pyg_emu.losses.emu import EMULoss
from pyg_emu.losses.regularizers import L3Regularizer, LpRegularizer, N3Regularizer
from pyg_emu.models import ComplEx, DistMult, Reciprocal, RotatE
from pyg_emu.models.adapters import as_scorer
from pyg_emu.negatives import EMUNegatives


def test_by_hand() -> None:
    model = DistMult(2, 1, 2)
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        model.rel_emb.weight.copy_(torch.tensor([[-1.0, 2.0]]))
    penalty = L3Regularizer(0.5)(model)
    assert float(penalty.detach()) == 0.5 * (1 + 8 + 27 + 1 + 8)
    penalty.backward()
    assert model.node_emb.weight.grad.tolist() == [[1.5, -6.0], [0.0, 13.5]]
    assert model.rel_emb.weight.grad.tolist() == [[-1.5, 6.0]]


@pytest.mark.parametrize('p', [1.0, 1.5, 2.0, 3.0, 4.0])
@pytest.mark.parametrize('make', [DistMult, RotatE, kge.ComplEx])
def test_against_the_formula(p: float, make: Any) -> None:
    torch.manual_seed(0)
    model = make(5, 3, 4).double()
    scorer, weights = as_scorer(model), list(model.parameters())
    expected = 0.1 * sum(weight.abs().pow(p).sum() for weight in weights)
    actual = LpRegularizer(p, 0.1)(scorer)
    torch.testing.assert_close(actual, expected)
    for left, right in zip(torch.autograd.grad(actual, weights), torch.autograd.grad(expected, weights)):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize('p', [2.0, 2.5, 3.0])
def test_gradcheck(p: float) -> None:
    torch.manual_seed(0)
    model = DistMult(3, 2, 2).double()

    def penalty(*weights: torch.Tensor) -> torch.Tensor:
        class Tables:
            def embedding_weights(self) -> Any:
                return iter(weights)
        return LpRegularizer(p, 2.0)(Tables())  # type: ignore[arg-type]

    assert torch.autograd.gradcheck(penalty, tuple(model.embedding_weights()))


class Tables:
    def __init__(self, *weights: torch.Tensor) -> None:
        self.weights = weights

    def embedding_weights(self) -> Any:
        return iter(self.weights)


@pytest.mark.parametrize('p', [1.0, 2.0, 2.5, 3.0])
def test_second_derivatives(p: float) -> None:
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda weight: LpRegularizer(p, 2.0)(Tables(weight)),  # type: ignore[arg-type]
                                        (weight, ))


def test_sums_of_float16_do_not_overflow() -> None:
    weight = torch.full((100, 100), 3.0, dtype=torch.float16, requires_grad=True)
    penalty = LpRegularizer(3.0, 0.1)(Tables(weight))  # type: ignore[arg-type]
    assert float(penalty.detach()) == pytest.approx(27000, rel=1e-3)
    penalty.backward()
    assert weight.grad is not None and weight.grad.dtype == torch.float16
    assert weight.grad[0, 0].item() == pytest.approx(2.7, rel=1e-3)


def test_refuses() -> None:
    for p in (0.5, float('nan'), float('inf'), 'x'):
        with pytest.raises(ArgumentError, match='p: '):
            LpRegularizer(p, 0.1)
    for weight in (-1.0, float('nan'), 'x'):
        with pytest.raises(ArgumentError, match='weight: '):
            L3Regularizer(weight)
    assert str(L3Regularizer(1e-5)) == 'L3Regularizer(weight=1e-05)'


# The vectors of a batch ######################################################


def make_batch(side: Any = 'tail', facts: int = 4, num_nodes: int = 5) -> Batch:
    generator = torch.Generator().manual_seed(3)
    head, tail = torch.randint(num_nodes, (2, facts), generator=generator)
    return Batch(head_index=head, rel_type=torch.randint(3, (facts, ), generator=generator), tail_index=tail,
                  num_nodes=num_nodes, side=side, step=0)


def test_n3_by_hand() -> None:
    model = ComplEx(2, 1, 1)
    with torch.no_grad():
        model.node_emb.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))  # moduli 5 and 0
        model.rel_emb.weight.copy_(torch.tensor([[0.0, -2.0]]))
    batch = Batch(head_index=torch.tensor([0, 0]), rel_type=torch.tensor([0, 0]), tail_index=torch.tensor([1, 0]),
                   num_nodes=2, side='tail', step=0)
    penalty = N3Regularizer(0.1)(model, batch)
    assert float(penalty.detach()) == pytest.approx(0.1 * (3 * 125 + 2 * 8) / 2)
    penalty.backward()
    # d|z|^3 = 3 |z| z: three times for entity 0, halved by the batch.
    assert model.node_emb.weight.grad.tolist() == [pytest.approx([0.05 * 9 * 5 * 3, 0.05 * 9 * 5 * 4]), [0.0, 0.0]]
    assert model.rel_emb.weight.grad.tolist() == [pytest.approx([0.0, 0.05 * 6 * 2 * -2])]


@pytest.mark.parametrize('make, is_complex', [(DistMult, False), (ComplEx, True), (kge.DistMult, False),
                                              (kge.ComplEx, True), (kge.RotatE, True), (RotatE, True)])
def test_n3_against_the_formula(make: Any, is_complex: bool) -> None:
    torch.manual_seed(0)
    model, batch = make(5, 3, 4).double(), make_batch()
    scorer = as_scorer(model)
    rows = [scorer.candidates(batch.head_index), scorer.relation_rows(batch.rel_type, 'tail'),  # type: ignore[attr-defined]
            scorer.candidates(batch.tail_index)]
    moduli = [torch.complex(*row.chunk(2, -1)).abs() if is_complex else row.abs() for row in rows]
    expected = 0.1 * sum(value.pow(3).sum() for value in moduli) / 4
    actual = N3Regularizer(0.1)(scorer, batch)
    torch.testing.assert_close(actual, expected)
    weights = list(model.parameters())
    for left, right in zip(torch.autograd.grad(actual, weights), torch.autograd.grad(expected, weights)):
        torch.testing.assert_close(left, right)


def test_n3_of_rotations_is_that_of_entities() -> None:
    model, batch = RotatE(5, 3, 4).double(), make_batch()
    N3Regularizer(0.1)(model, batch).backward()
    assert model.rel_emb.weight.grad.abs().max() < 1e-12 and model.node_emb.weight.grad.abs().max() > 0.1


@pytest.mark.parametrize('side', ['tail', 'head', torch.tensor([True, False, True, False])], ids=str)
def test_n3_of_reciprocal_relations(side: Any) -> None:
    model, batch = Reciprocal(DistMult(5, 6, 4)), make_batch(side)
    N3Regularizer(0.1)(model, batch).backward()
    tails = side if isinstance(side, torch.Tensor) else torch.full((4, ), side == 'tail')
    used = set(torch.where(tails, batch.rel_type, batch.rel_type + 3).tolist())
    assert set(model.model.rel_emb.weight.grad.abs().sum(1).nonzero().flatten().tolist()) == used


def test_n3_is_row_sparse_where_the_model_is() -> None:
    model, batch = ComplEx(50, 3, 4, sparse=True), make_batch()
    N3Regularizer(0.1)(model, batch).backward()
    for weight in model.parameters():
        assert weight.grad.is_sparse
    touched = torch.cat([batch.head_index, batch.tail_index]).unique()
    assert model.node_emb.weight.grad.coalesce().indices().flatten().equal(touched)


@pytest.mark.parametrize('make', [DistMult, ComplEx])
def test_n3_second_derivatives(make: Any) -> None:
    torch.manual_seed(0)
    model, batch = make(5, 3, 4).double(), make_batch()
    with torch.no_grad():
        model.node_emb.weight[int(batch.head_index[0])] = 0.0
    found = []
    for penalty in (N3Regularizer(0.1)(model, batch), plain_n3(model, batch)):
        (grad, ) = torch.autograd.grad(penalty, model.node_emb.weight, create_graph=True)
        found += torch.autograd.grad(grad.square().sum(), model.node_emb.weight)
    torch.testing.assert_close(*found)
    assert found[1].abs().max() > 1e-3


def plain_n3(model: Any, batch: Batch) -> torch.Tensor:
    rows = [model.node_emb(batch.head_index), model.node_emb(batch.tail_index), model.rel_emb(batch.rel_type)]
    cubes = torch.stack([modulus(row) if model.complex_rows else row.abs() for row in rows]).pow(3)
    return 0.1 * cubes.sum() / batch.rel_type.numel()


def test_n3_refuses() -> None:
    for weight in (-1.0, float('nan')):
        with pytest.raises(ArgumentError, match='weight: '):
            N3Regularizer(weight)
    with pytest.raises(ArgumentError, match='batch: .*NoneType'):
        N3Regularizer(0.1)(DistMult(5, 3, 4), None)
    with pytest.raises(ArgumentError, match='model: N3Regularizer needs the relation vectors of object'):
        N3Regularizer(0.1)(object(), make_batch())
    assert str(N3Regularizer(0.1)) == 'N3Regularizer(weight=0.1)'


@pytest.mark.parametrize('make', [DistMult, ComplEx])
def test_n3_adds_its_rows_to_the_gradient_of_the_negatives(make: Any) -> None:
    torch.manual_seed(0)
    model = make(1000, 3, 16)
    batch = EMUNegatives(num_negatives=8, mutation_rate=0.5)(make_batch(facts=20, num_nodes=1000))
    weights = list(model.parameters())

    def gradients(criterion: Any) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(1)
        return torch.autograd.grad(criterion(model, batch), weights)

    penalty = N3Regularizer(0.1)
    alone = torch.autograd.grad(penalty(model, batch), weights)
    expected = [left + right for left, right in zip(gradients(EMULoss(0.1, 0.5)), alone)]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        found = gradients(EMULoss(0.1, 0.5, regularizer=penalty))
    for left, right in zip(found, expected):
        torch.testing.assert_close(left, right)
    size = model.node_emb.weight.numel() * 4
    large = [event for event in profile.events() if event.cpu_memory_usage >= size]
    assert not [event.name for event in large if event.name in ('aten::add', 'aten::embedding_dense_backward')]

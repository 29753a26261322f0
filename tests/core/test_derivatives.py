r"""Second derivatives: an error, or those of plain PyTorch, and never zero without a word."""
from __future__ import annotations

from typing import Any, Callable

import pytest
import torch
import torch.utils.checkpoint
from torch import Tensor

from pyg_emu import DistMult, EMULoss, EMUNegatives, KGData, N3Regularizer, TripletLoader
from pyg_emu.core.derivatives import first_order
from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L2
from pyg_emu.ops import (
    EdgeOrders,
    MaskPlan,
    MixPlan,
    SoftLabels,
    all_entities_cross_entropy,
    basis_sum,
    block_sum,
    emu_loss,
    emu_score,
    relational_conv,
)
from pyg_emu.ops.backend import use_backend
from pyg_emu.ops.row_linear import pna_linear

SIZE, NUM, NODES, WIDTH = 2, 3, 6, 16
INDEX = torch.tensor([[0, 3, 3], [5, 1, 0]])
MASK = MaskPlan(torch.arange(WIDTH).view(1, -1) < 5, torch.zeros(SIZE, dtype=torch.int64))
PAIRS = MixPlan(torch.full((SIZE, NUM), 0.7), INDEX.flip(1), None, torch.tensor([[2, 1, 0]] * SIZE))
EDGES = EdgeOrders.of(KGData(torch.tensor([[0, 1, 5, 2], [1, 4, 1, 3]]), torch.tensor([0, 1, 1, 0]), NODES, 2))
TARGET = torch.tensor([4, 2])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def score(table: Tensor, **kwargs: Any) -> Tensor:
    scores = emu_score(drawn(SIZE, WIDTH), drawn(SIZE, WIDTH, seed=1), table, INDEX, **kwargs)
    return sum(part.square().sum() for part in scores if part is not None)  # type: ignore[return-value]


def loss(table: Tensor, **kwargs: Any) -> Tensor:
    labels = SoftLabels(1.0, 1.0, 0.3)
    return emu_loss(drawn(SIZE, WIDTH), drawn(SIZE, WIDTH, seed=1), table, INDEX, MASK, labels=labels, **kwargs).loss


#: Scalar functions of a table.
REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    'emu_score': lambda table: score(table, plan=MASK, interaction=L2(), backend='numba'),
    'emu_score, row-sparse': lambda table: score(table, plan=MASK, interaction=L2(), backend='numba', sparse_grad=True),
    'emu_score, pairs': lambda table: score(table, plan=PAIRS, backend='numba'),
    'emu_score, triton': lambda table: score(table, plan=MASK, interaction=L2(), backend='triton'),
    'emu_loss': lambda table: loss(table, backend='numba'),
    'all_entities_cross_entropy': lambda table: all_entities_cross_entropy(drawn(SIZE, WIDTH), table, TARGET,
                                                                           [(1.0, 0.1)]),
    'relational_conv': lambda table: relational_conv(table.unsqueeze(1), drawn(2, WIDTH), EDGES, aggregate='sum',
                                                     backend='numba').square().sum(),
    'relational_conv, triton': lambda table: relational_conv(table.unsqueeze(1), drawn(2, WIDTH), EDGES,
                                                             aggregate='sum', backend='triton').square().sum(),
    'basis_sum': lambda table: basis_sum(table, drawn(2, 3), EDGES, backend='numba').square().sum(),
    'pna_linear': lambda table: pna_linear(table.unsqueeze(1), drawn(NODES, 2), drawn(2, WIDTH, 4)).square().sum(),
}

#: Scalar functions of a table, and how autograd sees them.
DIFFERENTIABLE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    'emu_score': (lambda table: score(table, plan=MASK, backend='torch', sparse_grad=True),
                  lambda table: score(table, plan=MASK, backend='torch')),
    'emu_loss': (lambda table: loss(table, backend='torch', sparse_grad=True),
                 lambda table: loss(table, backend='torch')),
    'block_sum': (lambda table: block_sum(table, drawn(2, 2, WIDTH // 2, 3), EDGES).pow(3).sum(),
                  lambda table: torch.zeros(NODES, 6).index_add(0, EDGES.by_target.target, torch.stack([
                      row @ torch.block_diag(*drawn(2, 2, WIDTH // 2, 3)[relation]) for row, relation in
                      zip(table[EDGES.by_target.source], EDGES.by_target.relation)])).pow(3).sum()),
}


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv('TRITON_INTERPRET', '1')


def second(function: Callable[[Tensor], Tensor]) -> Tensor:
    r"""The gradient of a gradient penalty."""
    table = drawn(NODES, WIDTH, seed=2).requires_grad_()
    (grad, ) = torch.autograd.grad(function(table), table, create_graph=True)
    (found, ) = torch.autograd.grad(grad.to_dense().square().sum(), table)
    return found.to_dense()


@pytest.mark.parametrize('name', REFUSED)
def test_refused(name: str) -> None:
    operator = name.split(',')[0]
    with pytest.raises(ArgumentError, match=f'^create_graph: {operator}.*second derivative'):
        second(REFUSED[name])


@pytest.mark.parametrize('name', REFUSED)
def test_a_graph_changes_no_first_derivative(name: str) -> None:
    table = drawn(NODES, WIDTH, seed=2).requires_grad_()
    expected, found = (torch.autograd.grad(REFUSED[name](table), table, create_graph=graph)[0]
                       for graph in (False, True))
    assert not expected.requires_grad and found.requires_grad and found.layout == expected.layout
    if found.is_sparse:
        assert found.is_coalesced() and torch.equal(found.indices(), expected.indices())
    assert torch.equal(found.to_dense(), expected.to_dense())


@pytest.mark.parametrize('name', DIFFERENTIABLE)
def test_differentiable(name: str) -> None:
    found, expected = map(second, DIFFERENTIABLE[name])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)
    assert expected.abs().max() > 1e-3


def test_saved_tensors_are_read_once() -> None:
    table = drawn(NODES, WIDTH).requires_grad_()
    value = torch.utils.checkpoint.checkpoint(lambda: score(table, plan=MASK, backend='numba'), use_reentrant=False)
    found, = torch.autograd.grad(value, table, create_graph=True)
    expected, = torch.autograd.grad(score(table, plan=MASK, backend='numba'), table)
    torch.testing.assert_close(found.detach(), expected)
    with pytest.raises(ArgumentError, match='^create_graph: emu_score'):
        found.sum().backward()


@pytest.mark.parametrize('sparse', [False, True])
@pytest.mark.parametrize('regularizer', [None, N3Regularizer(0.1)])
def test_second_derivatives_of_losses_of_models(sparse: bool, regularizer: Any) -> None:
    data = KGData(torch.tensor([[0, 1, 4, 2], [1, 4, 1, 3]]), torch.tensor([0, 1, 1, 0]), NODES, 2)
    torch.manual_seed(0)
    model = DistMult(NODES, 2, 4, sparse=sparse).double()
    criterion = EMULoss(regularizer=regularizer)
    start, way = model.node_emb.weight.detach().clone(), drawn(NODES, 4, seed=3).double()

    def slope(step: float) -> Tensor:
        with torch.no_grad():
            model.node_emb.weight.copy_(start + step * way)
        # The same negatives and masks each time.
        batch = next(iter(TripletLoader(data, batch_size=4, transform=EMUNegatives(num_negatives=3), seed=1)))
        grad, = torch.autograd.grad(criterion(model, batch), model.node_emb.weight, create_graph=True)
        return (grad.to_dense() * way).sum()

    with use_backend('torch'):
        curvature, = torch.autograd.grad(slope(0.0), model.node_emb.weight)
        expected = (slope(1e-5) - slope(-1e-5)).detach() / 2e-5
    torch.testing.assert_close((curvature.to_dense() * way).sum(), expected, rtol=1e-5, atol=1e-8)
    with pytest.raises(ArgumentError, match='^create_graph: '):
        slope(0.0).backward()


def test_some_gradients_are_missing() -> None:
    class Sum(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, factor: float, y: Tensor) -> Tensor:
            ctx.save_for_backward(y)
            return factor * (x * y).sum()

        @staticmethod
        @first_order('Sum', 'add yourself')
        def backward(ctx: Any, grad: Tensor) -> Any:
            assert not torch.is_grad_enabled() and not grad.requires_grad
            return 2 * grad, None, None

    x, y = torch.ones(()).requires_grad_(), torch.ones(()).requires_grad_()
    # The incoming gradient, 2 * Sum, requires one itself.
    grad, missing = torch.autograd.grad(Sum.apply(x, 2.0, y).square(), (x, y), create_graph=True, allow_unused=True)
    assert float(grad.detach()) == 8.0 and missing is None
    for inputs in ([x], [y], [x, y], None):
        with pytest.raises(ArgumentError, match='^create_graph: Sum .*add yourself'):
            grad.backward(retain_graph=True, inputs=inputs)

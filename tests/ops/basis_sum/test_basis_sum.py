from __future__ import annotations

from typing import Any, Optional

import pytest
import torch
from torch import Tensor

from pyg_emu import KGData
from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.ops import EdgeOrders, basis_sum, last_backend

BACKENDS = ('torch', 'numba', 'triton')


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        monkeypatch.setenv('TRITON_INTERPRET', '1')


def graph(nodes: int, relations: int, edges: int, seed: int = 0) -> tuple[EdgeOrders, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.randint(nodes, (2, edges), generator=generator)
    edge_type = torch.randint(relations, (edges, ), generator=generator)
    return EdgeOrders.of(KGData(edge_index, edge_type, nodes, relations)), edge_index, edge_type


def operands(nodes: int, relations: int, edges: int, bases: int, width: int,
             dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(nodes, width, generator=generator, dtype=torch.double)
    coefficient = torch.randn(relations, bases, generator=generator, dtype=torch.double)
    weight = torch.rand(edges, generator=generator, dtype=torch.double)
    return x.to(dtype).requires_grad_(), coefficient.to(dtype).requires_grad_(), weight.to(dtype)


def by_hand(x: Tensor, coefficient: Tensor, edge_index: Tensor, edge_type: Tensor,
            weight: Optional[Tensor]) -> Tensor:
    rows = []
    for node in range(x.size(0)):
        for base in range(coefficient.size(1)):
            total = x.new_zeros(x.size(1))
            for edge in range(edge_type.numel()):
                if edge_index[1, edge] == node:
                    share = coefficient[edge_type[edge], base] * (1 if weight is None else weight[edge])
                    total = total + share * x[edge_index[0, edge]]
            rows.append(total)
    return torch.stack(rows).view(x.size(0), coefficient.size(1), x.size(1))


def test_two_edges_worked_out() -> None:
    # Node 1 hears of node 0 by relation 0 with weight 2, and of itself by relation 1 with weight 1.
    edges = EdgeOrders.of(KGData(torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 1]), 2, 2))
    x, coefficient = torch.tensor([[1.0, 2.0], [10.0, 20.0]]), torch.tensor([[1.0, -1.0], [0.5, 0.0]])
    for backend in ('torch', 'numba'):
        out = basis_sum(x, coefficient, edges, torch.tensor([2.0, 1.0]), backend=backend)
        assert out.tolist() == [[[0, 0], [0, 0]], [[2 + 5, 4 + 10], [-2, -4]]]


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize(('nodes', 'relations', 'edges', 'bases', 'width', 'weighted'), [
    (5, 3, 20, 2, 7, True), (9, 2, 40, 4, 33, False), (1, 1, 3, 1, 1, True), (4, 3, 1, 3, 16, True)])
def test_backends_agree_with_a_plain_loop(backend: str, nodes: int, relations: int, edges: int, bases: int, width: int,
                                          weighted: bool) -> None:
    dtype = torch.float32 if backend == 'triton' else torch.float64
    orders, edge_index, edge_type = graph(nodes, relations, edges)
    x, coefficient, weight = operands(nodes, relations, edges, bases, width, dtype)
    share = weight if weighted else None
    expected = by_hand(x, coefficient, edge_index, edge_type, share)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    wanted = torch.autograd.grad(expected, (x, coefficient), slope)
    actual = basis_sum(x, coefficient, orders, share, backend=backend)
    assert last_backend('basis_sum') == backend
    tolerance = {'rtol': 1e-4, 'atol': 1e-5} if backend == 'triton' else {'rtol': 1e-10, 'atol': 1e-12}
    torch.testing.assert_close(actual, expected, **tolerance)
    for left, right in zip(torch.autograd.grad(actual, (x, coefficient), slope), wanted):
        torch.testing.assert_close(left, right, **tolerance)


def test_gradients_in_double_precision() -> None:
    orders, _, _ = graph(5, 3, 15)
    x, coefficient, weight = operands(5, 3, 15, 2, 3, torch.float64)
    assert torch.autograd.gradcheck(lambda x, a: basis_sum(x, a, orders, weight), (x, coefficient))


def test_operands_need_not_be_contiguous_nor_the_graph_have_edges() -> None:
    orders, edge_index, edge_type = graph(6, 2, 12)
    x, coefficient, _ = operands(6, 2, 12, 3, 10, torch.float64)
    actual = basis_sum(x[:, ::2], coefficient.t().contiguous().t(), orders)
    torch.testing.assert_close(actual, by_hand(x[:, ::2], coefficient, edge_index, edge_type, None))
    empty, _, _ = graph(6, 2, 0)
    out = basis_sum(x, coefficient, empty)
    assert out.shape == (6, 3, 10) and out.abs().sum() == 0
    assert torch.autograd.grad(out.sum(), x)[0].abs().sum() == 0


def test_any_number_of_threads_gives_the_same_bits() -> None:
    orders, _, _ = graph(300, 5, 4000)
    x, coefficient, weight = operands(300, 5, 4000, 3, 20, torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            out = basis_sum(x, coefficient, orders, weight, backend='numba')
            found.append((out.detach(), *torch.autograd.grad(out.square().sum(), (x, coefficient))))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(left, right) for left, right in zip(*found))


@pytest.mark.parametrize(('changed', 'said'), [
    ({'x': torch.ones(4)}, '(V, D)'), ({'x': torch.ones(4, 2)}, '5 nodes'.replace('5', '4')),
    ({'coefficient': torch.ones(2, 2)}, '3 edge types'), ({'coefficient': torch.ones(3, 2).double()}, 'float64'),
    ({'edge_weight': torch.ones(3)}, '(15,)'),
    ({'edge_weight': torch.ones(15, requires_grad=True)}, 'detach'), ({'edges': None}, 'EdgeOrders')])
def test_wrong_operands_are_named(changed: dict[str, Any], said: str) -> None:
    orders, _, _ = graph(5, 3, 15)
    given: dict[str, Any] = {'x': torch.ones(5, 2), 'coefficient': torch.ones(3, 2), 'edges': orders, **changed}
    with pytest.raises(ArgumentError) as caught:
        basis_sum(**given)
    assert next(iter(changed)) in str(caught.value) or 'edges' in str(caught.value)
    assert said in str(caught.value)


def test_a_backend_that_cannot_run_is_refused() -> None:
    orders, _, _ = graph(5, 3, 15)
    with pytest.raises(BackendError):
        basis_sum(torch.ones(5, 2).half(), torch.ones(3, 2).half(), orders, backend='numba')

from __future__ import annotations

import pytest
import torch

from pyg_emu import KGData
from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops import EdgeOrders, block_sum


def test_one_edge_worked_out() -> None:
    edges = EdgeOrders.of(KGData(torch.tensor([[0], [1]]), torch.tensor([1]), 2, 2))
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    weight = torch.zeros(2, 2, 2, 1)
    weight[1] = torch.tensor([[[1.0], [10.0]], [[100.0], [1000.0]]])
    assert block_sum(x, weight, edges, torch.tensor([0.5])).tolist() == [[0, 0], [10.5, 2150]]


@pytest.mark.parametrize(('blocks', 'weighted'), [(1, False), (2, True), (3, True)])
def test_values_and_gradients_are_those_of_a_plain_loop(blocks: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(6, (2, 25), generator=generator)
    edge_type = torch.randint(4, (25, ), generator=generator)
    orders = EdgeOrders.of(KGData(edge_index, edge_type, 6, 5))  # relation 4 has no edge
    x = torch.randn(6, 6, generator=generator, dtype=torch.double, requires_grad=True)
    weight = torch.randn(5, blocks, 6 // blocks, 3, generator=generator, dtype=torch.double, requires_grad=True)
    share = torch.rand(25, generator=generator, dtype=torch.double) if weighted else None
    expected = x.new_zeros(6, 3 * blocks)
    for edge in range(25):
        full = torch.block_diag(*weight[edge_type[edge]])
        message = x[edge_index[0, edge]] @ full * (1.0 if share is None else share[edge])
        expected = expected.index_add(0, edge_index[1, edge:edge + 1], message.unsqueeze(0))
    actual = block_sum(x, weight, orders, share)
    torch.testing.assert_close(actual, expected)
    slope = torch.randn(expected.shape, generator=generator, dtype=torch.double)
    for left, right in zip(torch.autograd.grad(actual, (x, weight), slope),
                           torch.autograd.grad(expected, (x, weight), slope)):
        torch.testing.assert_close(left, right)
    assert torch.autograd.gradcheck(lambda x, w: block_sum(x, w, orders, share), (x, weight))


def test_wrong_weights_are_named() -> None:
    orders = EdgeOrders.of(KGData(torch.tensor([[0], [1]]), torch.tensor([0]), 2, 1))
    x = torch.ones(2, 6)
    for weight, said in ((torch.ones(1, 6, 6), '(1, K, C, C_out)'), (torch.ones(1, 2, 2, 2), 'K * C = 6'),
                         (torch.ones(2, 2, 3, 3), '1 edge types')):
        with pytest.raises(ArgumentError) as caught:
            block_sum(x, weight, orders)
        assert 'weight' in str(caught.value) and said in str(caught.value)

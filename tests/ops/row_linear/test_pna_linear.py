r"""Tests of the linear layer of principal neighbourhood aggregation against its definition."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.ops.row_linear import pna_linear
from pyg_emu.ops.row_linear import torch as module


def expected(x: Tensor, scalers: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum('vbd,vk,kdo->vbo', x, scalers, weight)


def operands(num_nodes: int, size: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_nodes)
    return (torch.randn(num_nodes, size, 8, generator=generator, dtype=dtype, requires_grad=True),
            torch.randn(num_nodes, 3, generator=generator, dtype=dtype),
            torch.randn(3, 8, 5, generator=generator, dtype=dtype, requires_grad=True))


@pytest.mark.parametrize('nodes_at_a_time', [1, 3, 100])
@pytest.mark.parametrize(('num_nodes', 'size'), [(7, 4), (1, 1), (6, 1), (0, 3), (5, 0)])
def test_values_and_gradients(monkeypatch: pytest.MonkeyPatch, num_nodes: int, size: int, nodes_at_a_time: int) -> None:
    monkeypatch.setitem(module.CHUNK_BYTES, 'cpu', nodes_at_a_time * 8 * 5 * 8)
    x, scalers, weight = operands(num_nodes, size)
    out, reference = pna_linear(x, scalers, weight), expected(x, scalers, weight)
    torch.testing.assert_close(out, reference)
    upstream = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(0))
    for found, wanted in zip(torch.autograd.grad(out, (x, weight), upstream),
                             torch.autograd.grad(reference, (x, weight), upstream)):
        torch.testing.assert_close(found, wanted)


def test_gradcheck() -> None:
    x, scalers, weight = operands(3, 2)
    assert torch.autograd.gradcheck(lambda x, weight: pna_linear(x, scalers, weight), (x, weight))


def test_autocast_reaches_the_gradient() -> None:
    x, scalers, weight = operands(6, 4, torch.float32)
    reference = expected(x, scalers, weight)
    with torch.autocast('cpu', torch.bfloat16):
        out = pna_linear(x, scalers, weight)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), reference, rtol=0.05, atol=0.15)
    found = torch.autograd.grad(out.float().sum(), (x, weight))
    wanted = torch.autograd.grad(reference.sum(), (x, weight))
    for one, other in zip(found, wanted):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.3)


def test_shapes_that_do_not_fit_are_named() -> None:
    x, scalers, weight = operands(4, 2)
    for name, change in {'x': (x[..., :7], scalers, weight), 'scalers': (x, scalers[:, :2], weight),
                         'weight': (x, scalers, weight[0])}.items():
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            pna_linear(*change)
    with pytest.raises(ArgumentError, match='^scalers: '):
        pna_linear(x, scalers[:3], weight)


def test_gradient_inside_autocast_is_that_outside() -> None:
    x, scalers, weight = operands(6, 4, torch.float32)
    out = pna_linear(x, scalers, weight).square().sum()
    wanted = torch.autograd.grad(out, (x, weight), retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        found = torch.autograd.grad(out, (x, weight))
    for one, other in zip(found, wanted):
        assert torch.equal(one, other)

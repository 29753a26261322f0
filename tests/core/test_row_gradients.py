from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyg_emu.core.row_gradients import look_up, row_gradients


class _Dense(torch.autograd.Function):
    r"""A sum whose gradient is a new dense tensor, as that of an operator."""
    @staticmethod
    def forward(ctx: Any, query: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(query, table)
        return query.sum() + table.sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, table = ctx.saved_tensors
        return grad.expand_as(query), grad * torch.ones_like(table)


def test_gradients_are_dense_and_those_of_dense_look_ups() -> None:
    table = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    first, second = torch.tensor([0, 3, 3, 0]), torch.tensor([1, 1, 4, 3])

    def loss(within: bool) -> Tensor:
        if not within:
            return _Dense.apply(look_up(table, first) * look_up(table, second), table)
        with row_gradients(table) as operand:
            rows = look_up(table, first), look_up(table, second)
        assert torch.equal(operand, table)
        return _Dense.apply(rows[0] * rows[1], operand)

    (expected, ), (found, ) = (torch.autograd.grad(loss(within), table) for within in (False, True))
    assert not found.is_sparse
    torch.testing.assert_close(found, expected)
    for _ in range(2):  # accumulated
        loss(True).backward()
    assert table.grad is not None and not table.grad.is_sparse
    torch.testing.assert_close(table.grad, 2 * expected)


def test_rows_are_added_without_a_copy_of_the_table() -> None:
    table = torch.zeros(1000, 8, requires_grad=True)
    index = torch.arange(10)
    with row_gradients(table) as operand:
        rows = look_up(table, index) * look_up(table, index)
    loss = _Dense.apply(rows, operand)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        loss.backward()
    large = [event for event in profile.events() if event.cpu_memory_usage >= table.numel() * 4]
    # The operator makes a table of ones and multiplies it with the upstream gradient, and nothing else is as large.
    assert len([event for event in large if event.name in ('aten::empty', 'aten::empty_strided', 'aten::mul')]) == 2
    assert not [event.name for event in large if event.name in ('aten::add', 'aten::clone', 'aten::resize_')]


def test_no_effect_without_a_gradient() -> None:
    table = torch.zeros(4, 2)
    with row_gradients(table) as operand:
        assert operand is table

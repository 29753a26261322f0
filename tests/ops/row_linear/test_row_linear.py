r"""Linear maps against PyTorch's, and equal rows with equal results wherever they stand."""
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.ops.backend import last_backend
from pyg_emu.ops.row_linear import pna_linear, row_linear


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize('backend', ['torch', 'numba'])
@pytest.mark.parametrize('shape', [(1, 1, 1), (3, 5, 1), (4, 32, 32), (9, 33, 70), (130, 7, 31), (0, 3, 2), (2, 3, 0)])
def test_values_and_gradients(shape: tuple[int, int, int], backend: str) -> None:
    rows, width, columns = shape
    x, weight, bias = (draw(*size).requires_grad_() for size in ((rows, width), (columns, width), (columns,)))
    out, expected = row_linear(x, weight, bias, backend), F.linear(x, weight, bias)
    assert last_backend('row_linear') == backend
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(row_linear(x, weight, backend=backend), F.linear(x, weight))
    upstream = draw(rows, columns)
    for found, wanted in zip(torch.autograd.grad(out, (x, weight, bias), upstream),
                             torch.autograd.grad(expected, (x, weight, bias), upstream)):
        torch.testing.assert_close(found, wanted)


def test_gradcheck() -> None:
    operands = [value.requires_grad_() for value in (draw(2, 3, 4), draw(5, 4), draw(5))]
    assert torch.autograd.gradcheck(row_linear, operands)
    assert torch.autograd.gradgradcheck(row_linear, operands)


def test_views_of_any_layout() -> None:
    x, weight = draw(6, 5, 8).transpose(0, 1), draw(9, 16)[:, 3:11]
    torch.testing.assert_close(row_linear(x, weight), F.linear(x, weight))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize(('width', 'columns'), [(1, 1), (32, 32), (64, 1), (33, 70), (128, 8), (64, 64)])
def test_equal_rows_have_equal_results(width: int, columns: int, dtype: torch.dtype) -> None:
    row, weight, bias = draw(width, dtype=dtype), draw(columns, width, dtype=dtype), draw(columns, dtype=dtype)
    alone = row_linear(row.unsqueeze(0), weight, bias)
    for rows in (2, 3, 4, 5, 7, 33, 257, 1000):
        many = row_linear(row.expand(rows, width).contiguous(), weight, bias)
        assert torch.equal(many, alone.expand(rows, columns))
        mixed = draw(rows, width, dtype=dtype)
        mixed[rows // 2] = row
        assert torch.equal(row_linear(mixed, weight, bias)[rows // 2], alone[0])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_equal_nodes_have_equal_results(dtype: torch.dtype) -> None:
    statistics, scaler, weight = draw(12, dtype=dtype), draw(3, dtype=dtype), draw(3, 12, 40, dtype=dtype)
    alone = pna_linear(statistics.view(1, 1, -1), scaler.unsqueeze(0), weight)
    for nodes, queries in ((2, 1), (3, 5), (65, 2), (130, 7)):
        x, scalers = draw(nodes, queries, 12, dtype=dtype), draw(nodes, 3, dtype=dtype)
        x[nodes // 2, queries // 2], scalers[nodes // 2] = statistics, scaler
        x[0, 0], scalers[0] = statistics, scaler
        out = pna_linear(x, scalers, weight)
        assert torch.equal(out[nodes // 2, queries // 2], alone[0, 0]) and torch.equal(out[0, 0], alone[0, 0])


def test_neither_threads_nor_other_rows_change_a_bit() -> None:
    x, weight = draw(300, 20, dtype=torch.float32), draw(50, 20, dtype=torch.float32)
    whole = row_linear(x, weight)
    assert torch.equal(torch.cat([row_linear(part, weight) for part in x.split(7)]), whole)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        assert torch.equal(row_linear(x, weight), whole)
    finally:
        torch.set_num_threads(threads)


def test_low_precision_and_autocast_take_pytorch() -> None:
    x, weight = draw(3, 4, dtype=torch.bfloat16), draw(5, 4, dtype=torch.bfloat16)
    assert torch.equal(row_linear(x, weight), F.linear(x, weight))
    with pytest.raises(BackendError, match='bfloat16'):
        row_linear(x, weight, backend='numba')
    with torch.autocast('cpu', torch.bfloat16):
        assert row_linear(x.float(), weight.float()).dtype == torch.bfloat16


@pytest.mark.parametrize('shapes,name', [
    (((2, 5), (3, 4), None), 'x'), (((2, 3), (3, 4), None), 'x'), (((), (3, 4), None), 'x'),
    (((2, 4), (4, ), None), 'weight'), (((2, 4), (3, 4), (4, )), 'bias'), (((2, 4), (3, 4), (1, )), 'bias')])
@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_shapes_that_do_not_fit_are_named(shapes: tuple, name: str, backend: str) -> None:
    operands = [None if shape is None else torch.ones(shape) for shape in shapes]
    with pytest.raises(ArgumentError, match=f'^{name}: '):
        row_linear(*operands, backend=backend)  # type: ignore[arg-type]


def test_gradient_inside_autocast_is_that_outside() -> None:
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    out = row_linear(x, weight).square().sum()
    expected = torch.autograd.grad(out, (x, weight), retain_graph=True)
    with torch.autocast('cpu', torch.bfloat16):
        found = torch.autograd.grad(out, (x, weight))
    for one, other in zip(found, expected):
        assert torch.equal(one, other)

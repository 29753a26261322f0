from __future__ import annotations

import copy
from typing import Any, Callable

import pytest
import torch

from pyg_emu.core.errors import ArgumentError
from pyg_emu.losses.regularizers import L3Regularizer
from pyg_emu.models import ComplEx
from pyg_emu.ops import last_backend, use_backend
from pyg_emu.training.optimizers import RowAdagrad, RowAdam

PAIRS = [(RowAdagrad, torch.optim.Adagrad), (RowAdam, torch.optim.SparseAdam)]


def make_table(dtype: torch.dtype = torch.float64, sparse: bool = True) -> torch.nn.Embedding:
    torch.manual_seed(0)
    return torch.nn.Embedding(9, 5, sparse=sparse, dtype=dtype)


def train(optimizer: torch.optim.Optimizer, table: torch.nn.Embedding, steps: int = 4) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        # Ids are repeated, so gradients are summed before they are squared. The last two entities do not occur.
        table(torch.randint(7, (12, ), generator=generator)).pow(3).sum().backward()
        optimizer.step()


@pytest.mark.parametrize('backend', ['torch', 'numba'])
@pytest.mark.parametrize('ours', [RowAdagrad, RowAdam])
def test_a_backward_pass_after_a_step_is_refused(ours: Any, backend: str) -> None:
    table = make_table(torch.float32)
    optimizer = ours(table.parameters())
    older = table.weight.pow(3).sum()
    table(torch.arange(3)).sum().backward()
    with use_backend(backend):
        optimizer.step()
    assert table.weight._version > 0
    assert all(value._version > 0 for value in optimizer.state[table.weight].values()
               if isinstance(value, torch.Tensor) and value.dim() > 0)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        older.backward()


def test_adagrad_by_hand() -> None:
    table = torch.nn.Embedding.from_pretrained(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), freeze=False, sparse=True)
    optimizer = RowAdagrad(table.parameters(), lr=0.5, eps=0.0)
    for expected in (-0.5, -0.5 - 0.5 / 2**0.5):  # g = (2, 2): sums 4 and 8, steps 0.5 * 2 / 2 and 0.5 * 2 / sqrt(8)
        optimizer.zero_grad()
        table(torch.tensor([1, 1])).sum().backward()
        optimizer.step()
        torch.testing.assert_close(table.weight[1], torch.tensor([3.0, 4.0]) + expected)
    assert table.weight[0].tolist() == [1.0, 2.0]
    assert optimizer.state[table.weight]['sum'].tolist() == [[0.0, 0.0], [8.0, 8.0]]


@pytest.mark.parametrize('backend', ['torch', 'numba'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('ours, theirs, options', [
    (RowAdagrad, torch.optim.Adagrad, {'lr': 0.1}),
    (RowAdagrad, torch.optim.Adagrad, {'lr': 0.1, 'lr_decay': 0.5, 'maximize': True, 'initial_accumulator_value': 0.2}),
    (RowAdam, torch.optim.SparseAdam, {'lr': 0.1}),
    (RowAdam, torch.optim.SparseAdam, {'lr': 0.1, 'betas': (0.5, 0.7), 'eps': 1e-3, 'maximize': True}),
])
def test_equals_pytorch(ours: Any, theirs: Any, options: Any, dtype: torch.dtype, backend: str) -> None:
    table, reference = make_table(dtype), make_table(dtype)
    optimizer, other = ours(table.parameters(), **options), theirs(reference.parameters(), **options)
    with use_backend(backend):
        train(optimizer, table)
    assert last_backend('row_update') == backend
    train(other, reference)
    torch.testing.assert_close(table.weight, reference.weight)
    assert table.weight[7:].equal(make_table(dtype).weight[7:])
    assert table.weight.grad.is_sparse  # The gradient is kept.
    # The state equals that of PyTorch, so a run can switch between both.
    for key, value in other.state[reference.weight].items():
        torch.testing.assert_close(optimizer.state[table.weight][key], value)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.load_state_dict(copy.deepcopy(other.state_dict()))
    train(optimizer, table)
    train(other, reference)
    torch.testing.assert_close(table.weight, reference.weight)


@pytest.mark.parametrize('fused', [True, False])
def test_adagrad_takes_dense_gradients_beside_sparse_ones(fused: bool) -> None:
    table, dense = make_table(), make_table(sparse=False)
    optimizer = RowAdagrad([*table.parameters(), *dense.parameters()], lr=0.1, fused=fused)
    for _ in range(3):
        optimizer.zero_grad()
        (table(torch.tensor([1, 1, 3])).pow(3).sum() + dense(torch.tensor([1, 1, 3])).pow(3).sum()).backward()
        optimizer.step()
    torch.testing.assert_close(table.weight, dense.weight)
    assert not table.weight.equal(make_table().weight)


@pytest.mark.parametrize('ours', [RowAdagrad, RowAdam])
def test_number_of_threads_makes_no_difference(ours: Callable[..., torch.optim.Optimizer]) -> None:
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        table = make_table(torch.float32)
        train(ours(table.parameters(), lr=0.1), table)
        results.append(table.weight)
    torch.set_num_threads(before)
    assert results[0].equal(results[1])


def test_closure() -> None:
    for make in (RowAdagrad, RowAdam):
        table = make_table()

        def closure(table: torch.nn.Embedding = table) -> torch.Tensor:
            loss = table(torch.tensor([2])).pow(2).sum()
            loss.backward()
            return loss

        before = float(table.weight[2].detach().pow(2).sum())
        assert float(make(table.parameters(), lr=0.1).step(closure).detach()) == pytest.approx(before)
        assert float(table.weight[2].detach().pow(2).sum()) != before


def test_adagrad_refuses_decay_of_untouched_rows() -> None:
    table = make_table()
    with pytest.raises(ArgumentError, match=r'^weight_decay: .*\b0\b.*\b0\.1'):
        train(RowAdagrad(table.parameters(), lr=0.1, weight_decay=0.1), table)


def test_adam_refuses_dense_gradients() -> None:
    model = ComplEx(4, 2, 3, sparse=True)
    L3Regularizer(0.1)(model).backward()
    with pytest.raises(ArgumentError, match=r'^params: RowAdam .*\(4, 6\).*sparse=True.*torch\.optim\.Adam'):
        RowAdam(model.parameters()).step()

r"""Negatives that chunks share, beside the reference on the same ids, a copy for each row."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import MaskPlan, MixPlan, Plan, SharedIndex, emu_score, last_backend
from pyg_emu.ops.emu_score import shared

# Rows, rows of a chunk, rows missing in the first one, N, V, d: one row; one negative; a chunk larger than the batch;
# a remainder; only whole chunks; what a part of a batch begins and ends with; a chunk for each row; a part of a chunk.
SHAPES = [(1, 4, 0, 3, 5, 2), (5, 2, 0, 1, 5, 4), (3, 250, 0, 7, 6, 10), (13, 5, 0, 6, 4, 6), (12, 4, 0, 5, 9, 4),
          (11, 4, 3, 5, 7, 4), (4, 1, 0, 2, 5, 2), (2, 9, 5, 4, 3, 2)]
PLANS = ['none', 'hard', 'soft', 'mix']
DOT = Dot()


def operands(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, plan: str = 'none',
             interaction: Interaction = DOT) -> tuple[list[Tensor], SharedIndex, Plan | None]:
    r"""Query, positive and table; ids; and a plan. The same numbers, rounded, in every type."""
    size, chunk_size, skipped, num, num_nodes, width = shape
    generator = torch.Generator().manual_seed(sum(shape))
    shapes = (size, interaction.query_width(width)), (size, width), (num_nodes, width)
    args = [torch.randn(one, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for one in shapes]
    num_sets = -(-(skipped + size) // chunk_size)
    index = torch.randint(num_nodes, (num_sets, num), generator=generator)
    bank = torch.rand(4, width, generator=generator, dtype=torch.float64)
    weight = torch.rand(size, num, generator=generator, dtype=torch.float64)
    masks = torch.randint(4, (size, ), generator=generator)
    slots = torch.randint(4, (size, num), generator=generator)
    partner = torch.randint(num_nodes, (size, num), generator=generator)
    plans: dict[str, Plan | None] = {
        'none': None, 'hard': MaskPlan(bank < 0.5, masks.int()),
        'soft': MaskPlan(bank.to(dtype).requires_grad_(), masks), 'mix': MixPlan(weight.to(dtype).requires_grad_()),
        'per_negative': MaskPlan(bank < 0.5, slots), 'pair': MixPlan(weight.to(dtype).requires_grad_(), partner)}
    return args, SharedIndex(index, chunk_size, size, skipped), plans[plan]


def results(args: list[Tensor], index: Any, plan: Plan | None, **kwargs: Any) -> list[Tensor]:
    r"""Both scores and all gradients of a random function of them."""
    scores = [score for score in emu_score(*args, index, plan, **kwargs) if score is not None]
    generator = torch.Generator().manual_seed(1)
    loss = sum(((score * torch.randn(score.shape, generator=generator, dtype=torch.float64).to(score)).sum()
                for score in scores), start=torch.zeros((), dtype=scores[0].dtype))
    leaves = [*args, *(value for value in plan or () if value is not None and value.requires_grad)]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    if kwargs.get('sparse_grad'):
        ids = index.expand() if isinstance(index, SharedIndex) else index
        assert grads[2].is_sparse and grads[2].is_coalesced()
        assert set(ids.flatten().tolist()) <= set(grads[2].indices().flatten().tolist())
    return [value.detach().to_dense() for value in (*scores, *grads)]


def assert_same(found: list[Tensor], expected: list[Tensor], limit: float) -> None:
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        torch.testing.assert_close(value.double(), other.double(), rtol=limit, atol=limit)


def test_by_hand() -> None:
    query, positive = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([[7.0, 8.0]]).repeat(3, 1)
    table = torch.tensor([[1.0, 1.0], [5.0, 6.0], [0.0, 2.0]])
    index = SharedIndex(torch.tensor([[1, 0], [2, 2]]), 2, 3)
    plan = MaskPlan(torch.tensor([[True, False], [False, True]]), torch.tensor([0, 1, 1]))
    vanilla, mutated = emu_score(query, positive, table, index, plan)
    assert vanilla is not None and vanilla.tolist() == [[17.0, 3.0], [15.0, 3.0], [2.0, 2.0]]
    # [5, 6] with its first component from the positive is [7, 6]; with its second, [5, 8].
    assert mutated is not None and mutated.tolist() == [[19.0, 9.0], [15.0, 3.0], [8.0, 8.0]]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('plan_name', PLANS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_products_against_reference(shape: tuple[int, ...], plan_name: str, dtype: torch.dtype) -> None:
    args, index, plan = operands(shape, plan=plan_name)
    expected = results(args, index.expand(), plan, backend='torch')
    args, index, plan = operands(shape, dtype, plan_name)
    for sparse_grad in (False, True):
        found = results(args, index, plan, sparse_grad=sparse_grad)
        assert found[0].dtype == dtype
        assert_same(found, expected, 2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize('plan_name', PLANS)
def test_gradcheck(plan_name: str) -> None:
    args, index, plan = operands((7, 3, 1, 2, 4, 4), plan=plan_name)

    def score(query: Tensor, positive: Tensor, table: Tensor, learned: Tensor | None = None) -> tuple[Tensor, ...]:
        used = plan
        if learned is not None:
            used = plan._replace(**{'soft': {'bank': learned}, 'mix': {'weight': learned}}[plan_name])  # type: ignore
        return tuple(value for value in emu_score(query, positive, table, index, used) if value is not None)

    learned = [value for value in plan or () if value is not None and value.requires_grad]
    if plan is None:
        args[1] = args[1].detach()  # it is not read
    assert torch.autograd.gradcheck(score, (*args, *learned))
    assert torch.autograd.gradgradcheck(score, (*args, *learned))


@pytest.mark.parametrize('interaction, plan_name, backend', [
    *((interaction, plan, 'torch') for interaction in (L1(), L2(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0))
      for plan in ('none', 'hard', 'pair')),
    *((Dot(), plan, backend) for plan in ('per_negative', 'pair') for backend in ('torch', 'numba', 'triton')),
    *((L1(), 'hard', backend) for backend in ('numba', 'triton')),
], ids=lambda value: getattr(value, 'name', value))
def test_others_read_the_ids_row_by_row(interaction: Interaction, plan_name: str, backend: str) -> None:
    if backend == 'triton':
        pytest.importorskip('triton', reason='Triton is not installed, and its kernels cannot run: pip install triton')
    limit = 1e-12 if backend == 'torch' else 2e-4
    dtype = torch.float64 if backend == 'torch' else torch.float32
    for shape in ((3, 2, 1, 4, 5, 4), (1, 9, 0, 1, 3, 2)):
        args, index, plan = operands(shape, plan=plan_name, interaction=interaction)
        expected = results(args, index.expand(), plan, backend='torch', interaction=interaction)
        args, index, plan = operands(shape, dtype, plan_name, interaction)
        for sparse_grad in (False, True):
            found = results(args, index, plan, backend=backend, interaction=interaction, sparse_grad=sparse_grad)
            assert last_backend('emu_score') == backend
            assert_same(found, expected, limit)


@dataclass(frozen=True)
class Weighted(Interaction):
    r"""A user's own, whose formula is no plain dot product."""
    name: ClassVar[str] = 'weighted'

    def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
        return 2.0 * (query * candidates).sum(-1)


def test_who_takes_products(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    products = shared._products
    monkeypatch.setattr(shared, '_products', lambda *args: calls.append(1) or products(*args))  # type: ignore
    for interaction, plan_name, expected in [
            (Dot(), 'none', 1), (Dot(), 'hard', 2), (Dot(), 'soft', 2), (Dot(), 'mix', 1), (Dot(), 'per_negative', 0),
            (Dot(), 'pair', 0), (L1(), 'none', 0), (L2(), 'hard', 0), (Weighted(), 'hard', 0)]:
        for backend in ('torch', 'numba', None):
            if backend == 'numba' and isinstance(interaction, Weighted):
                continue
            calls.clear()
            args, index, plan = operands((5, 2, 0, 3, 4, 4), torch.float32, plan_name)
            both = emu_score(*args, index, plan, interaction=interaction, backend=backend)
            assert len(calls) == expected, (interaction, plan_name, backend)
            if plan is not None:  # Half of it costs half.
                calls.clear()
                alone = emu_score(*args, index, plan, interaction=interaction, backend=backend, vanilla=False)
                assert alone.vanilla is None and alone.mutated is not None and both.mutated is not None
                torch.testing.assert_close(alone.mutated, both.mutated)
                assert len(calls) == min(expected, 1)


def test_requested_backend_has_to_run() -> None:
    args, index, _ = operands((5, 2, 0, 3, 4, 4), torch.float16)
    with pytest.raises(BackendError, match='numba.*float16'):
        emu_score(*args, index, backend='numba')


@pytest.mark.parametrize('plan_name', PLANS)
@pytest.mark.parametrize('size, num', [(0, 3), (4, 0)])
def test_nothing_to_score(size: int, num: int, plan_name: str) -> None:
    args, index, plan = operands((size, 3, 0, num, 5, 4), torch.float32, plan_name)
    for sparse_grad in (False, True):
        scores = [score for score in emu_score(*args, index, plan, sparse_grad=sparse_grad) if score is not None]
        assert all(score.shape == (size, num) for score in scores)
        for value in results(args, index, plan, sparse_grad=sparse_grad):
            assert value.numel() == 0 or (value == 0).all()


@pytest.mark.parametrize('sparse_grad', [False, True])
def test_mixed_types_are_promoted(sparse_grad: bool) -> None:
    (query, positive, table), index, plan = operands((7, 3, 0, 4, 5, 4), torch.float32, 'soft')
    half = table.detach().bfloat16().requires_grad_()
    expected = emu_score(query, positive, half.float(), index, plan)
    with torch.autocast('cpu', torch.bfloat16):
        found = emu_score(query, positive, half, index, plan, sparse_grad=sparse_grad)
    for value, other in zip(found, expected):
        assert value is not None and other is not None and value.dtype == torch.float32
        torch.testing.assert_close(value, other)
    assert found.mutated is not None
    (grad, ) = torch.autograd.grad(found.mutated.sum(), half)
    assert grad.dtype == torch.bfloat16 and grad.is_sparse == sparse_grad


def test_no_batch_by_negatives_by_width_tensor() -> None:
    # What is kept for the backward pass grows with B * d and with C * N * d, not with B * N * d.
    args, index, plan = operands((60, 20, 0, 32, 5, 64), torch.float32, 'hard')
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        emu_score(*args, index, plan)
    assert saved and max(saved) <= 3 * 32 * 64


@pytest.mark.parametrize('change, facts', [
    ({'index': SharedIndex(torch.zeros(2, 3, dtype=torch.int64), 2, 5)}, ['index.index', 'expected 3', 'size=5']),
    ({'index': SharedIndex(torch.zeros(3, 3), 2, 5)}, ['index.index', 'float32']),  # type: ignore[arg-type]
    ({'index': SharedIndex(torch.full((3, 3), 9), 2, 5)}, ['index: 9 at position (0, 0)', '[0, 4)']),
    ({'query': torch.rand(4, 4)}, ['query', '(5, 4)', 'index of shape (5, 3)', '(4, 4)']),
    ({'plan': MaskPlan(torch.rand(1, 4), torch.zeros(4, dtype=torch.int64))}, ['plan.index', '(5, 3)', '(5,)']),
])
def test_errors_name_the_argument(change: dict[str, Any], facts: list[str]) -> None:
    (query, positive, table), index, plan = operands((5, 2, 0, 3, 4, 4), torch.float32, 'hard')
    arguments: dict[str, Any] = {'query': query, 'positive': positive, 'table': table, 'index': index, 'plan': plan}
    emu_score(**arguments)
    with pytest.raises(ArgumentError) as error:
        emu_score(**{**arguments, **change})
    assert all(fact in str(error.value) for fact in facts), str(error.value)

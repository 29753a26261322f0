from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import MaskPlan, MixPlan, Plan, emu_score, last_backend
from pyg_emu.ops.emu_score import numba as emu_score_numba
from pyg_emu.ops.emu_score import numba_kernels as kernels
from pyg_emu.ops.emu_score.numba_terms import Hard, Shared, Soft

INTERACTIONS = [Dot(), L1(), L2(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0)]
PLANS = ['none', 'per_negative', 'per_triple', 'tied', 'soft', 'soft_per_triple', 'mix']
# What is compiled for a pair of them takes seconds. Every plan goes with the simplest and with the fullest interaction,
# every interaction with a mask per negative and with one plan more; the fullest takes both precisions.
COMPILED = [
    *((INTERACTIONS[0], plan, torch.float32) for plan in PLANS),
    *((INTERACTIONS[1], plan, torch.float32) for plan in ('per_negative', 'per_triple')),
    *((INTERACTIONS[2], plan, torch.float32) for plan in ('tied', 'mix')),
    *((INTERACTIONS[3], plan, torch.float32) for plan in ('per_negative', 'tied', 'tied_per_triple')),
    *((INTERACTIONS[4], plan, torch.float32) for plan in ('none', 'per_triple')),
    *((INTERACTIONS[4], plan, torch.float64) for plan in ('per_negative', 'tied', 'soft', 'soft_per_triple', 'mix')),
]
# B, N, V, d: one slot; nothing a multiple of four; more than one piece of slots, with entities that cross pieces.
SHAPES = [(1, 1, 1, 2), (3, 7, 5, 10), (13, 33, 4, 38)]


def name_of(value: Any) -> str:
    return str(getattr(value, 'name', value)).removeprefix('torch.')


def masked_per_negative(interaction: Interaction) -> torch.dtype:
    r"""The precision that such masks are compiled in."""
    return torch.float64 if interaction == INTERACTIONS[4] else torch.float32


def operands(interaction: Interaction, size: int, num_nodes: int, width: int, seed: int = 0,
             dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = (size, interaction.query_width(width)), (size, width), (num_nodes, width)
    query, positive, table = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return tuple(value.to(dtype).requires_grad_() for value in (query, positive, table))  # type: ignore[return-value]


def make_plan(name: str, size: int, num: int, width: int, seed: int = 0,
              dtype: torch.dtype = torch.float64) -> Plan | None:
    generator = torch.Generator().manual_seed(seed)
    bank = torch.rand(4, width, generator=generator, dtype=torch.float64)
    index = torch.randint(4, (size, num), generator=generator)
    if name == 'none':
        return None
    if name == 'per_negative':
        return MaskPlan(bank < 0.5, index)
    if name == 'per_triple':
        return MaskPlan(bank < 0.5, torch.randint(4, (size, ), generator=generator, dtype=torch.int32))
    if name == 'tied_per_triple':
        return MaskPlan((bank < 0.5)[:, :width // 2].repeat(1, 2), torch.randint(4, (size, ), generator=generator))
    if name == 'tied':
        return MaskPlan((bank < 0.5)[:, :width // 2].repeat(1, 2), index.int())
    if name == 'soft':
        return MaskPlan(bank.to(dtype).requires_grad_(), index)
    if name == 'soft_per_triple':
        return MaskPlan(bank.to(dtype).requires_grad_(), torch.randint(4, (size, ), generator=generator))
    return MixPlan(torch.rand(size, num, generator=generator, dtype=torch.float64).to(dtype).requires_grad_())


def results(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, plan: Plan | None,
            **kwargs: Any) -> list[Tensor]:
    r"""Both scores and all gradients of a random function of them."""
    scores = [score for score in emu_score(query, positive, table, index, plan, **kwargs) if score is not None]
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=table.dtype)
    for score in scores:
        loss = loss + (score * torch.randn(score.shape, generator=generator, dtype=torch.float64).to(score)).sum()
    leaves = [query, positive, table]
    leaves += [value for value in plan or () if value.requires_grad]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    if kwargs.get('sparse_grad'):
        assert grads[2].is_sparse and grads[2].is_coalesced()
        assert grads[2].indices().flatten().tolist() == index.unique().tolist()
    return [value.detach().to_dense() for value in (*scores, *grads)]


def assert_same(found: list[Tensor], expected: list[Tensor], **tolerance: Any) -> None:
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        torch.testing.assert_close(value, other, **tolerance)


def test_reference_by_hand() -> None:
    query = torch.tensor([[1.0, 2.0]])
    positive = torch.tensor([[3.0, 4.0]])
    table = torch.tensor([[0.0, 0.0], [5.0, 6.0]])
    index = torch.tensor([[1, 0]])
    plan = MaskPlan(torch.tensor([[True, False], [False, True]]), torch.tensor([[0, 1]]))
    # [5, 6] with its first component from the positive is [3, 6]; [0, 0] with its second is [0, 4].
    for backend in ('torch', 'numba'):
        dot = emu_score(query, positive, table, index, plan, backend=backend)
        assert dot.vanilla is not None and dot.mutated is not None
        assert dot.vanilla.tolist() == [[17.0, 0.0]]
        assert dot.mutated.tolist() == [[15.0, 8.0]]
        assert last_backend('emu_score') == backend
        l1 = emu_score(query, positive, table, index, plan, interaction=L1(), vanilla=False, backend=backend)
        assert l1.vanilla is None and l1.mutated is not None
        assert l1.mutated.tolist() == [[-6.0, -3.0]]
        # A quarter of [5, 6] and three quarters of [3, 4] is [3.5, 4.5].
        mixed = emu_score(query, positive, table, index[:, :1], MixPlan(torch.tensor([[0.25]])), backend=backend)
        assert mixed.mutated is not None and mixed.mutated.tolist() == [[12.5]]


def test_every_kernel_is_compared() -> None:
    for choices, position in ((INTERACTIONS, 0), (PLANS, 1), ([torch.float32, torch.float64], 2)):
        assert all(choice in [case[position] for case in COMPILED] for choice in choices)


@pytest.mark.parametrize('interaction,plan_name,dtype', COMPILED, ids=name_of)
def test_numba_against_reference(interaction: Interaction, plan_name: str, dtype: torch.dtype) -> None:
    limit = 2e-4 if dtype == torch.float32 else 1e-11
    for seed, (size, num, num_nodes, width) in enumerate(SHAPES):
        reference = operands(interaction, size, num_nodes, width, seed)
        args = operands(interaction, size, num_nodes, width, seed, dtype)
        index = torch.randint(num_nodes, (size, num), generator=torch.Generator().manual_seed(seed))
        # The same entity over and over, as a dominant one would be drawn.
        index[:, num // 2:] = 0
        expected = results(*reference, index, make_plan(plan_name, size, num, width), interaction=interaction,
                           backend='torch')
        plan = make_plan(plan_name, size, num, width, dtype=dtype)
        for sparse_grad in (False, True):
            found = results(*args, index, plan, interaction=interaction, backend='numba', sparse_grad=sparse_grad)
            assert_same([value.double() for value in found], expected, rtol=limit, atol=limit)


@pytest.mark.parametrize('interaction,plan_name,kind', [
    (Dot(), 'per_triple', Shared),
    (L1(), 'per_triple', Shared),
    (ModulusPhase(0.7, 1.3, 2.0), 'per_triple', Shared),
    (ComplexModulus(), 'tied_per_triple', Shared),
    (ComplexModulus(), 'per_triple', Soft),
    (Dot(), 'soft_per_triple', Soft),
    (Dot(), 'per_negative', Hard),
], ids=lambda value: getattr(value, 'name', None) or getattr(value, '__name__', value))
def test_one_mask_per_triple(interaction: Interaction, plan_name: str, kind: type,
                             monkeypatch: pytest.MonkeyPatch) -> None:
    # A mask that all negatives of a triple share takes a way of its own, from the first pass to the last.
    ran: list[type] = []

    def spy(kernel: Any) -> Any:
        def run(first: Any, *args: Any) -> None:
            ran.append(type(first))
            kernel(first, *args)

        return run

    for name in ('forward', 'backward_batch', 'backward_rows'):
        monkeypatch.setattr(kernels, name, spy(getattr(kernels, name)))
    monkeypatch.setattr(emu_score_numba, 'announce', lambda *args: None)
    odd = 1 if interaction.name in ('dot', 'l1') else 2
    for size, num, width in ((1, 1, odd), (4, 1, 4 + odd), (3, 6, 20 + odd), (0, 3, 4 + odd), (2, 0, 4 + odd)):
        args = operands(interaction, size, 3, width)
        index = torch.randint(3, (size, num), generator=torch.Generator().manual_seed(0))
        single = operands(interaction, size, 3, width, dtype=torch.float32)
        plan = make_plan(plan_name, size, num, width)
        expected = results(*args, index, plan, interaction=interaction, backend='torch')
        plan = make_plan(plan_name, size, num, width, dtype=torch.float32)
        for sparse_grad in (False, True):
            ran.clear()
            found = results(*single, index, plan, interaction=interaction, backend='numba', sparse_grad=sparse_grad)
            assert_same([value.double() for value in found], expected, rtol=2e-4, atol=2e-4)
            assert index.numel() == 0 or ran[:3] == [kind] * 3


@pytest.mark.parametrize('interaction,plan_name,backend', [
    *((interaction, plan, 'torch') for interaction in INTERACTIONS for plan in ('tied', 'tied_per_triple')),
    (INTERACTIONS[0], 'tied', 'numba'),
    (INTERACTIONS[0], 'tied_per_triple', 'numba'),
    (INTERACTIONS[4], 'tied_per_triple', 'numba'),
], ids=name_of)
def test_halves(interaction: Interaction, backend: str, plan_name: str) -> None:
    # Asking for one score gives the same as asking for both, and so does using only one of both.
    args = operands(interaction, 3, 5, 6, dtype=torch.float32)
    index = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0))
    plan = make_plan(plan_name, 3, 6, 6)
    kwargs: dict[str, Any] = {'interaction': interaction, 'backend': backend}
    both = emu_score(*args, index, plan, **kwargs)
    alone = emu_score(*args, index, plan, vanilla=False, **kwargs), emu_score(*args, index, **kwargs)
    assert alone[0].vanilla is None and alone[1].mutated is None
    for score, other in zip((both.mutated, both.vanilla), (alone[0].mutated, alone[1].vanilla)):
        assert score is not None and other is not None
        torch.testing.assert_close(score, other)
        grads = [torch.autograd.grad(value.sum(), args[::2], retain_graph=True) for value in (score, other)]
        assert_same(list(grads[0]), list(grads[1]))


@pytest.mark.parametrize('backend', ['torch', 'numba'])
def test_double_precision_and_gradcheck(backend: str) -> None:
    # The interaction that has every part, and each kind of plan once.
    interaction = INTERACTIONS[-1]
    index = torch.tensor([[0, 1, 1, 3, 0], [2, 2, 2, 2, 2]])
    query, positive, table = operands(interaction, 2, 4, 4)
    masks = torch.tensor([[0, 1, 2, 3, 0], [1, 1, 1, 0, 3]])
    hard = torch.rand(4, 4, generator=torch.Generator().manual_seed(0)) < 0.5

    def mask(query: Tensor, positive: Tensor, table: Tensor, bank: Tensor | None = None) -> tuple[Tensor, ...]:
        plan = MaskPlan(hard if bank is None else bank, masks)
        return emu_score(query, positive, table, index, plan, interaction=interaction, backend=backend)  # type: ignore

    def mix(query: Tensor, positive: Tensor, table: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return emu_score(query, positive, table, index, MixPlan(weight), interaction=interaction,  # type: ignore
                         backend=backend)

    soft = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mask, (query, positive, table))
    assert torch.autograd.gradcheck(mask, (query, positive, table, soft))
    assert torch.autograd.gradcheck(mix, (query, positive, table, weight))


@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
def test_positive_among_negatives(interaction: Interaction) -> None:
    # Where query, positive and negative coincide, distances have no derivative: both backends take zero.
    table = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=masked_per_negative(interaction))
    table.requires_grad_()
    query = table.detach()[[0, 1]]
    if interaction.name == 'modulus_phase':
        query = torch.cat([query[:, :2], torch.ones(2, 2).to(query), 2.0 * query[:, 2:]], dim=1)
    query.requires_grad_()
    positive = table.detach()[[0, 1]].requires_grad_()
    index = torch.tensor([[0, 1, 2], [1, 1, 0]])
    plan = make_plan('tied', 2, 3, 4)
    found, expected = (results(query, positive, table, index, plan, interaction=interaction, backend=backend)
                       for backend in ('numba', 'torch'))
    assert all(value.isfinite().all() for value in found)
    assert_same(found, expected)


@pytest.mark.parametrize('plan_name', ['none', 'per_negative', 'soft'])
@pytest.mark.parametrize('size,num', [(0, 3), (2, 0)])
def test_nothing_to_score(size: int, num: int, plan_name: str) -> None:
    index = torch.empty(size, num, dtype=torch.int64)
    for backend in ('torch', 'numba'):
        for sparse_grad in (False, True):
            args = operands(Dot(), size, 5, 4, dtype=torch.float32)
            plan = make_plan(plan_name, size, num, 4, dtype=torch.float32)
            for value in results(*args, index, plan, backend=backend, sparse_grad=sparse_grad):
                assert value.numel() == 0 or (value == 0).all()


@pytest.mark.parametrize('interaction', [Dot(), ComplexModulus()], ids=name_of)
@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('plan_name', ['tied', 'tied_per_triple'])
def test_thread_count_changes_no_bit(interaction: Interaction, share: float, plan_name: str) -> None:
    # One entity holds the given share of the slots; there are many pieces of slots.
    size, num, num_nodes, width = 50, 60, 700, 10
    args = operands(interaction, size, num_nodes, width, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(num_nodes, (size, num), generator=generator)
    index[torch.rand(index.shape, generator=generator) < share] = 17
    before = torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for sparse_grad in (False, True):
                found.append(results(*args, index, make_plan(plan_name, size, num, width), interaction=interaction,
                                     backend='numba', sparse_grad=sparse_grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, expected) for value, expected in zip(other, found[0]))
    expected = results(*args, index, make_plan(plan_name, size, num, width), interaction=interaction, backend='torch')
    assert_same(found[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('interaction', INTERACTIONS, ids=name_of)
@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_bad_numbers_propagate(interaction: Interaction, bad: float) -> None:
    args = operands(interaction, 2, 3, 4, dtype=torch.float32)
    args[2].data[1] = bad
    index = torch.tensor([[0, 1], [2, 0]])
    plan = MaskPlan(torch.zeros(1, 4, dtype=torch.bool), torch.zeros(2, dtype=torch.int64))
    for backend in ('torch', 'numba'):
        for score in emu_score(*args, index, plan, interaction=interaction, backend=backend):
            assert score is not None
            assert score.isfinite().tolist() == [[True, False], [True, True]]
            if bad != bad:
                assert score[0, 1].isnan()


def test_sparse_gradient_of_a_large_table() -> None:
    # Ids beyond one digit of the radix sort, in a table that a dense gradient would not fit many times.
    num_nodes = 3_000_000
    table = torch.zeros(1, 2).expand(num_nodes, 2)
    index = torch.tensor([[num_nodes - 1, 5, 70_000], [5, 2_500_000, num_nodes - 1]])
    query = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    table = table.contiguous().requires_grad_()
    score = emu_score(query, query, table, index, sparse_grad=True, backend='numba').vanilla
    assert score is not None
    (grad, ) = torch.autograd.grad(score.sum(), table)
    assert grad.is_coalesced()
    assert grad.indices().tolist() == [[5, 70_000, 2_500_000, num_nodes - 1]]
    assert grad.values().tolist() == [[4.0, 6.0], [1.0, 2.0], [3.0, 4.0], [4.0, 6.0]]


def test_no_batch_by_negatives_by_width_tensor() -> None:
    # Everything kept for the backward pass is much smaller than the tensor of candidates.
    size, num, width = 8, 16, 64
    args = operands(Dot(), size, 5, width, dtype=torch.float32)
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        emu_score(*args, torch.zeros(size, num, dtype=torch.int64), make_plan('tied', size, num, width),
                  backend='numba')
    assert saved and max(saved) < size * num * width / 4


@pytest.mark.parametrize('name,change,message', [
    ('query', lambda a: a.update(query=a['query'][:, :3]), r'query: expected shape \(2, 4\)'),
    ('query', lambda a: a.update(query=a['query'].double()), 'query: expected torch.float32'),
    ('positive', lambda a: a.update(positive=a['positive'][:1]), r'positive: expected shape \(2, 4\)'),
    ('table', lambda a: a.update(table=a['table'][0]), r'table: expected floating-point numbers of shape \(V, d\)'),
    ('width', lambda a: a.update(table=a['table'][:, :3], interaction=ComplexModulus()), 'even number of columns'),
    ('index', lambda a: a.update(index=a['index'].int()), 'index: expected int64'),
    ('index', lambda a: a['index'].__setitem__((1, 0), 5), r'index: 5 at position \(1, 0\) is not in \[0, 5\)'),
    ('index', lambda a: a['index'].__setitem__((0, 2), -1), r'index: -1 at position \(0, 2\)'),
    ('plan', lambda a: a.update(plan='bernoulli'), 'plan: expected a MaskPlan'),
    ('bank', lambda a: a.update(plan=a['plan']._replace(bank=a['plan'].bank[:, :2])), r'plan.bank: .*\(M, 4\)'),
    ('bank', lambda a: a.update(plan=a['plan']._replace(bank=a['plan'].bank.double())), 'plan.bank: expected'),
    ('masks', lambda a: a.update(plan=a['plan']._replace(index=a['plan'].index[:1])), 'plan.index: expected int64'),
    ('masks', lambda a: a['plan'].index.fill_(4), r'plan.index: 4 at position \(0, 0\) is not in \[0, 4\)'),
    ('weight', lambda a: a.update(plan=MixPlan(torch.rand(2))), 'plan.weight: expected torch.float32'),
    ('nothing', lambda a: a.update(plan=None, vanilla=False), 'vanilla: there is nothing to score'),
    ('interaction', lambda a: a.update(interaction='dot'), 'interaction: expected an instance'),
])
def test_errors_name_the_argument(name: str, change: Any, message: str) -> None:
    query, positive, table = operands(Dot(), 2, 5, 4, dtype=torch.float32)
    arguments: dict[str, Any] = {
        'query': query, 'positive': positive, 'table': table, 'index': torch.zeros(2, 3, dtype=torch.int64),
        'plan': make_plan('per_negative', 2, 3, 4)
    }
    emu_score(**arguments, backend='torch')
    change(arguments)
    with pytest.raises(ArgumentError, match=message):
        emu_score(**arguments)

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import MaskPlan, MixPlan, Plan, emu_score, last_backend, mutate
from pyg_emu.ops.emu_score import numba_kernels as kernels
from pyg_emu.ops.emu_score.numba_terms import Hard, Shared, Soft

INTERACTIONS = [Dot(), L1(), L2(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0)]
PLANS = ['none', 'per_negative', 'per_triple', 'tied', 'soft', 'soft_per_triple', 'mix', 'pair']
# What is compiled for a pair of them takes seconds. Every plan goes with the simplest and with the fullest interaction,
# every interaction with a mask per negative, with pairs and with one plan more; the fullest takes both precisions.
COMPILED = [
    *((INTERACTIONS[0], plan, torch.float32) for plan in PLANS),
    *((INTERACTIONS[1], plan, torch.float32) for plan in ('per_negative', 'per_triple', 'pair')),
    *((INTERACTIONS[2], plan, torch.float32) for plan in ('tied', 'mix', 'pair')),
    *((INTERACTIONS[3], plan, torch.float32) for plan in ('per_negative', 'tied', 'tied_per_triple', 'pair')),
    *((INTERACTIONS[4], plan, torch.float32) for plan in ('none', 'per_triple')),
    *((INTERACTIONS[4], plan, torch.float64)
      for plan in ('per_negative', 'tied', 'soft', 'soft_per_triple', 'mix', 'pair')),
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
              dtype: torch.dtype = torch.float64, num_nodes: int = 1) -> Plan | None:
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
    weight = torch.rand(size, num, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    partner = torch.randint(num_nodes, (size, num), generator=generator)
    return MixPlan(weight, partner if name == 'pair' else None)


def results(query: Tensor, positive: Tensor, table: Tensor, index: Tensor, plan: Plan | None,
            **kwargs: Any) -> list[Tensor]:
    r"""Both scores and all gradients of a random function of them."""
    scores = [score for score in emu_score(query, positive, table, index, plan, **kwargs) if score is not None]
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros((), dtype=table.dtype)
    for score in scores:
        loss = loss + (score * torch.randn(score.shape, generator=generator, dtype=torch.float64).to(score)).sum()
    leaves = [query, positive, table]
    leaves += [value for value in plan or () if value is not None and value.requires_grad]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
    if kwargs.get('sparse_grad'):
        assert grads[2].is_sparse and grads[2].is_coalesced()
        partner = plan.partner if isinstance(plan, MixPlan) else None
        read = index if partner is None else torch.cat([index, partner])
        assert grads[2].indices().flatten().tolist() == read.unique().tolist()
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
        plan = make_plan(plan_name, size, num, width, num_nodes=num_nodes)
        expected = results(*reference, index, plan, interaction=interaction, backend='torch')
        plan = make_plan(plan_name, size, num, width, dtype=dtype, num_nodes=num_nodes)
        for sparse_grad in (False, True):
            found = results(*args, index, plan, interaction=interaction, backend='numba', sparse_grad=sparse_grad)
            assert_same([value.double() for value in found], expected, rtol=limit, atol=limit)


@pytest.mark.parametrize('interaction', [Dot(), ComplexModulus(), ModulusPhase(0.7, 1.3, 2.0)], ids=name_of)
def test_pairs_without_vanilla_scores(interaction: Interaction) -> None:
    for seed, (size, num, num_nodes, width) in enumerate(SHAPES):
        args = operands(interaction, size, num_nodes, width, seed)
        index = torch.randint(num_nodes, (size, num), generator=torch.Generator().manual_seed(seed))
        plan = make_plan('pair', size, num, width, num_nodes=num_nodes)
        expected, found = (results(*args, index, plan, interaction=interaction, vanilla=False, backend=backend)
                           for backend in ('torch', 'numba'))
        assert_same(found, expected, rtol=1e-11, atol=1e-11)


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

    def pair(query: Tensor, positive: Tensor, table: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        # A partner that is the slot's own negative, one that is another slot's, and one that no slot has.
        partner = torch.tensor([[0, 0, 2, 3, 1], [1, 2, 0, 2, 2]])
        return emu_score(query, positive, table, index, MixPlan(weight, partner), interaction=interaction,
                         backend=backend)  # type: ignore

    soft = torch.rand(4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mask, (query, positive, table))
    assert torch.autograd.gradcheck(mask, (query, positive, table, soft))
    assert torch.autograd.gradcheck(mix, (query, positive, table, weight))
    if backend == 'torch':
        # The positive is not read, and has no gradient that could be compared.
        positive = positive.detach()
    assert torch.autograd.gradcheck(pair, (query, positive, table, weight))


@pytest.mark.parametrize('interaction,dtype,backend', [
    *((interaction, torch.float64, 'torch') for interaction in INTERACTIONS),
    *((INTERACTIONS[place], torch.float32, 'numba') for place in (0, 2)),
    (INTERACTIONS[4], torch.float64, 'numba'),
], ids=name_of)
def test_pairs_with_the_positive(interaction: Interaction, dtype: torch.dtype, backend: str) -> None:
    # Where partners are the positives, rows of the table, pairs are the mix that needs no partners; the gradient of
    # the positive then goes to its row.
    size, num, num_nodes, width = 4, 6, 5, 10
    query, _, table = operands(interaction, size, num_nodes, width, dtype=dtype)
    index = torch.randint(num_nodes, (size, num), generator=torch.Generator().manual_seed(0))
    target = torch.tensor([4, 0, 4, 2])
    weight = make_plan('mix', size, num, width, dtype=dtype).weight  # type: ignore[union-attr]
    kwargs: dict[str, Any] = {'interaction': interaction, 'backend': backend}
    grads = []
    for plan in (MixPlan(weight), MixPlan(weight, target.unsqueeze(1).expand(-1, num))):
        scores = emu_score(query, table[target], table, index, plan, **kwargs)
        assert scores.vanilla is not None and scores.mutated is not None
        grads.append([*scores, *torch.autograd.grad((scores.mutated.exp() + scores.vanilla).sum(),
                                                    (query, table, weight))])
    if backend == 'torch':  # Kernels of different kinds round in different orders.
        assert all(torch.equal(value, other) for value, other in zip(grads[1][:2], grads[0][:2]))
    assert_same(grads[1], grads[0], rtol=1e-5, atol=1e-5)
    plan = MixPlan(torch.ones(size, num, dtype=dtype), index.flip(1))
    whole = emu_score(query, table[target], table, index, plan, **kwargs)
    assert whole.vanilla is not None and whole.mutated is not None
    torch.testing.assert_close(whole.mutated, whole.vanilla)


def test_mutate_by_hand() -> None:
    positive, negative = torch.tensor([[1.0, 2.0]]), torch.tensor([[[3.0, 4.0], [5.0, 6.0]]])
    bank = torch.tensor([[True, False], [False, True]])
    assert mutate(positive, negative, MaskPlan(bank, torch.tensor([[0, 1]]))).tolist() == [[[1.0, 4.0], [5.0, 2.0]]]
    assert mutate(positive, negative, MaskPlan(bank, torch.tensor([1]))).tolist() == [[[3.0, 2.0], [5.0, 2.0]]]
    soft = mutate(positive, negative, MaskPlan(torch.tensor([[0.25, 1.0]]), torch.tensor([0])))
    assert soft.tolist() == [[[2.5, 2.0], [4.0, 2.0]]]
    weight = torch.tensor([[0.0, 0.5]])
    assert mutate(positive, negative, MixPlan(weight)).tolist() == [[[1.0, 2.0], [3.0, 4.0]]]
    plan = MixPlan(weight, torch.tensor([[0, 1]]))
    partner = torch.tensor([[[7.0, 8.0], [9.0, 0.0]]])
    assert mutate(positive, negative, plan, partner).tolist() == [[[7.0, 8.0], [7.0, 3.0]]]
    with pytest.raises(ArgumentError, match=r'partner: .*\(1, 2, 2\)'):
        mutate(positive, negative, plan)


@pytest.mark.parametrize('change, name, facts', [
    ({'negative': torch.rand(2, 4)}, 'negative', ['(B, N, d)', '(2, 4)']),
    ({'negative': torch.zeros(2, 3, 4, dtype=torch.int64)}, 'negative', ['int64']),
    ({'positive': torch.rand(3, 4)}, 'positive', ['(2, 4)', '(3, 4)']),
    ({'positive': torch.zeros(2, 4).bool()}, 'positive', ['bool']),
    ({'positive': torch.zeros(2, 4, device='meta')}, 'positive', ['cpu', 'meta']),
    ({'plan': None}, 'plan', ['None']), ({'plan': torch.rand(2, 3)}, 'plan', ['Tensor']),
    ({'plan': MixPlan(torch.rand(2, 2))}, 'plan.weight', ['(2, 3)', '(2, 2)']),
    ({'plan': MixPlan(torch.zeros(2, 3, dtype=torch.int64))}, 'plan.weight', ['int64']),
    ({'plan': MaskPlan(torch.rand(5, 3), torch.zeros(2, dtype=torch.int64))}, 'plan.bank', ['(M, 4)', '(5, 3)']),
    ({'plan': MaskPlan(torch.rand(5, 4), torch.tensor([0, 5]))}, 'plan.index', ['5', 'position 1', '[0, 5)']),
    ({'plan': MaskPlan(torch.rand(5, 4), torch.tensor([0, -1]))}, 'plan.index', ['-1', 'position 1']),
    ({'plan': MixPlan(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64))}, 'partner', ['(2, 3, 4)', 'None']),
    ({'plan': MixPlan(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64)), 'partner': torch.rand(2, 3, 5)},
     'partner', ['(2, 3, 4)', '(2, 3, 5)']),
    ({'plan': MixPlan(torch.rand(2, 3), torch.full((2, 3), -1)), 'partner': torch.rand(2, 3, 4)}, 'plan.partner',
     ['-1', '(0, 0)']),
    ({'partner': torch.rand(2, 3, 4)}, 'partner', ['None']),
])
def test_mutate_refuses(change: dict[str, Any], name: str, facts: list[str]) -> None:
    given = {'positive': torch.rand(2, 4), 'negative': torch.rand(2, 3, 4), 'plan': MixPlan(torch.rand(2, 3))}
    with pytest.raises(ArgumentError) as caught:
        mutate(**{**given, **change})
    assert str(caught.value).startswith(f'{name}: ') and all(fact in str(caught.value) for fact in facts), caught.value


def test_mutate_promotes() -> None:
    negative = torch.rand(2, 3, 4)
    mixed = mutate(torch.rand(2, 4).double(), negative, MixPlan(torch.ones(2, 3)))
    assert mixed.dtype == torch.float64 and torch.equal(mixed, negative.double())


def test_rows_of_a_plan() -> None:
    # Every field follows, or a part of a batch would be mutated in another way than the whole.
    weight, label = torch.rand(2, 3, 2)
    partner, slot = torch.randint(5, (2, 3, 2))
    given = (weight, partner, label, slot)
    for value, expected in zip(MixPlan(*given).rows(slice(1, 3)), given, strict=True):
        assert value is not None and torch.equal(value, expected[1:3])
    assert MixPlan(weight).rows(slice(1, 3))[1:] == (None, None, None)
    masks = MaskPlan(torch.rand(4, 2), partner, label).rows(slice(1, 3))
    assert masks.label is not None and torch.equal(masks.label, label[1:3]) and torch.equal(masks.index, partner[1:3])
    assert masks.bank.size(0) == 4


def test_reference_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without gradients, triples are scored a few at a time: the result is the same, and no tensor has all rows.
    reference = importlib.import_module('pyg_emu.ops.emu_score.torch')
    sizes: list[int] = []

    class Watched(L1):
        def __call__(self, query: Tensor, candidates: Tensor) -> Tensor:
            sizes.append(candidates.numel())
            return super().__call__(query, candidates)

    query, positive, table = operands(Dot(), 7, 5, 4)
    index = torch.randint(5, (7, 3), generator=torch.Generator().manual_seed(0))
    for name in ('none', 'soft', 'per_triple', 'pair'):
        plan = make_plan(name, 7, 3, 4, num_nodes=5)
        expected = emu_score(query, positive, table, index, plan, interaction=Watched())
        sizes.clear()
        monkeypatch.setattr(reference, '_BYTES', 2 * 3 * 4 * 8)
        with torch.no_grad():
            found = emu_score(query, positive, table, index, plan, interaction=Watched())
        assert sizes and max(sizes) == 2 * 3 * 4
        for value, other in zip(found, expected):
            assert (value is None) == (other is None)
            assert value is None or torch.equal(value, other)  # type: ignore[arg-type]
        monkeypatch.undo()


@pytest.mark.parametrize('backend', ['torch', 'numba'])
@pytest.mark.parametrize('sparse_grad', [False, True])
def test_mixed_types_are_promoted(backend: str, sparse_grad: bool) -> None:
    # As under autocast: an encoder's rows in bfloat16, queries from parameters in float32.
    query, positive, table = operands(L1(), 3, 5, 4, dtype=torch.float32)
    half = table.detach().bfloat16().requires_grad_()
    index = torch.tensor([[0, 1], [2, 2], [4, 0]])
    plan = MixPlan(torch.full((3, 2), 0.25, dtype=torch.bfloat16), index.flip(1))
    kwargs: dict[str, Any] = {'interaction': L1(), 'backend': backend, 'sparse_grad': sparse_grad}
    scores = emu_score(query, positive.bfloat16(), half, index, plan, **kwargs)
    expected = emu_score(query, positive.bfloat16().float(), half.float(), index, plan, **kwargs)
    assert scores.mutated is not None and scores.mutated.dtype == torch.float32
    assert_same(list(scores), list(expected))  # type: ignore[arg-type]
    scores = emu_score(query, half[:3].detach(), half, index, plan, **kwargs)
    assert scores.mutated is not None and scores.mutated.dtype == torch.float32
    (grad, ) = torch.autograd.grad(scores.mutated.sum(), half)
    assert grad.dtype == torch.bfloat16 and grad.is_sparse == sparse_grad


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


@pytest.mark.parametrize('plan_name', ['none', 'per_negative', 'soft', 'pair'])
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
@pytest.mark.parametrize('plan_name', ['tied', 'tied_per_triple', 'pair'])
def test_thread_count_changes_no_bit(interaction: Interaction, share: float, plan_name: str) -> None:
    # One entity holds the given share of the slots; there are many pieces of slots.
    size, num, num_nodes, width = 50, 60, 700, 10
    args = operands(interaction, size, num_nodes, width, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(num_nodes, (size, num), generator=generator)
    index[torch.rand(index.shape, generator=generator) < share] = 17
    plan = make_plan(plan_name, size, num, width, dtype=torch.float32, num_nodes=num_nodes)
    before = torch.get_num_threads()
    found = []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for sparse_grad in (False, True):
                found.append(results(*args, index, plan, interaction=interaction, backend='numba',
                                     sparse_grad=sparse_grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, expected) for value, expected in zip(other, found[0]))
    expected = results(*args, index, plan, interaction=interaction, backend='torch')
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
        for name in ('tied', 'pair'):
            plan = make_plan(name, size, num, width, dtype=torch.float32)
            emu_score(*args, torch.zeros(size, num, dtype=torch.int64), plan, backend='numba')
    assert saved and max(saved) < size * num * width / 4


@pytest.mark.parametrize('name,change,message', [
    ('query', lambda a: a.update(query=a['query'][:, :3]), r'query: .*\(2, 4\).*\(2, 3\)'),
    ('query', lambda a: a.update(query=a['query'].long()), 'query: .*torch.int64'),
    ('positive', lambda a: a.update(positive=a['positive'][:1]), r'positive: .*\(2, 4\).*\(1, 4\)'),
    ('table', lambda a: a.update(table=a['table'][0]), r'table: .*\(V, d\).*\(4,\)'),
    ('width', lambda a: a.update(table=a['table'][:, :3], interaction=ComplexModulus()),
     'table: .*2 columns.*modulus.*3'),
    ('index', lambda a: a.update(index=a['index'].int()), '^index: .*int64.*int32'),
    ('index', lambda a: a['index'].__setitem__((1, 0), 5), r'index: 5 at position \(1, 0\) is not in \[0, 5\)'),
    ('index', lambda a: a['index'].__setitem__((0, 2), -1), r'index: -1 at position \(0, 2\)'),
    ('plan', lambda a: a.update(plan='bernoulli'), "plan: .*MaskPlan.* 'bernoulli'$"),
    ('bank', lambda a: a.update(plan=a['plan']._replace(bank=a['plan'].bank[:, :2])), r'plan.bank: .*\(M, 4\)'),
    ('bank', lambda a: a.update(plan=a['plan']._replace(bank=a['plan'].bank.int())), 'plan.bank: .*torch.int32'),
    ('masks', lambda a: a.update(plan=a['plan']._replace(index=a['plan'].index[:1])), 'plan.index: .*int64'),
    ('masks', lambda a: a['plan'].index.fill_(4), r'plan.index: 4 at position \(0, 0\) is not in \[0, 4\)'),
    ('weight', lambda a: a.update(plan=MixPlan(torch.rand(2))), r'plan.weight: .*\(2, 3\).*\(2,\)'),
    ('partner', lambda a: a.update(plan=MixPlan(torch.rand(2, 3), torch.zeros(2, 3))),
     'plan.partner: .*int64.*float32'),
    ('partner', lambda a: a.update(plan=MixPlan(torch.rand(2, 3), torch.zeros(2, dtype=torch.int64))),
     r'plan.partner: .*\(2, 3\).*\(2,\)'),
    ('partner', lambda a: a.update(plan=MixPlan(torch.rand(2, 3), torch.full((2, 3), 5))),
     r'plan.partner: 5 at position \(0, 0\) .*\[0, 5\)'),
    ('partner', lambda a: a.update(plan=MixPlan(torch.rand(2, 3), torch.full((2, 3), -1))), 'plan.partner: -1 at'),
    ('label', lambda a: a.update(plan=a['plan']._replace(label=torch.rand(2))), r'plan.label: .*\(2, 3\).*\(2,\)'),
    ('label', lambda a: a.update(plan=MixPlan(torch.rand(2, 3), label=torch.ones(2, 3, dtype=torch.int64))),
     'plan.label: .*torch.int64'),
    ('nothing', lambda a: a.update(plan=None, vanilla=False), '^vanilla: '),
    ('interaction', lambda a: a.update(interaction='dot'), "interaction: .*Interaction.*'dot'"),
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

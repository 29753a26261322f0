from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError, BackendError
from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops import MaskPlan, MixPlan, Plan, SoftLabels, backend, emu_loss, last_backend, use_backend
from pyg_emu.ops.emu_loss import is_fused

# What is compiled for a line takes seconds: every interaction, every kind of masks and both precisions once.
COMPILED = [
    (Dot(), 'per_triple', torch.float32),
    (Dot(), 'none', torch.float32),
    (L1(), 'per_negative', torch.float32),
    (L2(), 'per_triple', torch.float32),
    (ComplexModulus(), 'per_negative', torch.float64),
]
# B, N, V, components: one slot and one block; a block that overlaps by all but one lane; several blocks, nothing a
# multiple of four, and more than one piece of slots, with entities that cross pieces.
SHAPES = [(1, 1, 1, 16), (3, 6, 5, 17), (13, 33, 4, 43)]
#: Arguments here come from tuples and dictionaries, whose types are not known.
call: Any = emu_loss
LABELS = {'labels': SoftLabels(0.25, 1.0, 0.5), 'vanilla_labels': SoftLabels(0.75, 0.9, 0.1)}


def name_of(value: Any) -> str:
    return str(getattr(value, 'name', value)).removeprefix('torch.')


def operands(interaction: Interaction, size: int, num: int, num_nodes: int, components: int, plan_name: str,
             dtype: torch.dtype = torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Plan | None]:
    generator = torch.Generator().manual_seed(seed)
    width = components * interaction.parts
    shapes = (size, width), (size, width), (num_nodes, width)
    leaves = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    query, positive, table = (leaf.to(dtype).requires_grad_() for leaf in leaves)
    index = torch.randint(num_nodes, (size, num), generator=generator)
    # The same entity over and over, as a dominant one would be drawn.
    index[:, num // 2:] = 0
    bank = (torch.rand(4, components, generator=generator) < 0.4).repeat(1, interaction.parts)
    plan = None
    if plan_name != 'none':
        slots = (size, ) if plan_name == 'per_triple' else (size, num)
        plan = MaskPlan(bank, torch.randint(4, slots, generator=generator, dtype=torch.int32))
    return query, positive, table, index, plan


def results(args: tuple[Any, ...], upstream: float = -2.5, **kwargs: Any) -> list[Tensor]:
    r"""The loss, all that belongs to it, and the gradients of a multiple of it."""
    found = call(*args, **{**LABELS, **kwargs})
    grads = torch.autograd.grad(upstream * found.loss, args[:3])
    if kwargs.get('sparse_grad'):
        assert grads[2].is_sparse and grads[2].is_coalesced()
        assert grads[2].indices().flatten().tolist() == args[3].unique().tolist()
    return [value.detach().to_dense() for value in (*found, *grads) if value is not None]


def assert_same(found: list[Tensor], expected: list[Tensor], limit: float) -> None:
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        torch.testing.assert_close(value.double(), other.double(), rtol=limit, atol=limit)


def by_hand(width: int) -> tuple[Tensor, ...]:
    r"""q = (1, 2), e0 = (0, 1), e1 = (3, 0) and the positive (1, 1), with zeros elsewhere, among them the last two."""
    rows = torch.zeros(4, width, dtype=torch.float64)
    rows[:, [0, width - 1]] = torch.tensor([[1.0, 2.0], [1.0, 1.0], [0.0, 1.0], [3.0, 0.0]], dtype=torch.float64)
    query, positive, table = rows[:1], rows[1:2], rows[2:]
    return query.requires_grad_(), positive.requires_grad_(), table.requires_grad_(), torch.tensor([[1, 0]])


def test_reference_by_hand() -> None:
    query, positive, table, index = by_hand(2)
    plan = MaskPlan(torch.tensor([[False, True]]), torch.tensor([0]))
    found = call(query, positive, table, index, plan, labels=SoftLabels(0.5, 1.0, 0.25),
                     vanilla_labels=SoftLabels(2.0), offset=1.0)
    # s+ = 3; vanilla 3 and 2; with the second component of the positive, e1 = (3, 1) scores 5 and e0 = (0, 1) scores 2.
    assert found.positive.tolist() == [4.0]
    assert found.vanilla.tolist() == [[4.0, 3.0]]
    assert found.mutated is not None and found.mutated.tolist() == [[6.0, 3.0]]
    whole = math.log(math.exp(3) + math.exp(5) + math.exp(2))
    vanilla = math.log(2 * math.exp(3) + math.exp(2))
    expected = [0.5 * ((whole - 3) + 0.25 * (2 * whole - 7)), 2.0 * (vanilla - 3)]
    assert found.terms.tolist() == pytest.approx(expected)
    assert float(found.loss.detach()) == pytest.approx(sum(expected))


def test_masked_negatives_do_not_count_by_hand() -> None:
    query, positive, table, index = by_hand(2)
    found = call(query, positive, table, index, labels=SoftLabels(1.0, 1.0, 0.5),
                     mask=torch.tensor([[False, True]]))
    whole = math.log(math.exp(3) + math.exp(2))
    assert float(found.loss.detach()) == pytest.approx((whole - 3) + 0.5 * (whole - 2))
    found = call(query, positive, table, index, labels=SoftLabels(1.0, 1.0, 0.5),
                     mask=torch.tensor([[False, False]]))
    assert float(found.loss.detach()) == 0.0


@pytest.mark.parametrize('interaction,plan_name,dtype', COMPILED, ids=name_of)
def test_numba_against_reference(interaction: Interaction, plan_name: str, dtype: torch.dtype) -> None:
    limit = 2e-5 if dtype == torch.float32 else 1e-11
    for seed, (size, num, num_nodes, components) in enumerate(SHAPES):
        shape = interaction, size, num, num_nodes, components, plan_name
        args, exact = operands(*shape, dtype, seed), operands(*shape, seed=seed)
        mask = torch.rand(size, num, generator=torch.Generator().manual_seed(seed)) < 0.7
        mask[0] = False  # A triple without negatives.
        for options in ({}, {'mask': mask, 'offset': 3.0}, {'vanilla_labels': SoftLabels(0.0)}):
            expected = results(exact, interaction=interaction, backend='torch', **options)
            for sparse_grad in (False, True):
                found = results(args, interaction=interaction, backend='numba', sparse_grad=sparse_grad, **options)
                assert last_backend('emu_loss') == 'numba'
                assert_same(found, expected, limit)


def test_every_kernel_is_compared() -> None:
    from pyg_emu.ops.emu_loss.numba_terms import TERMS
    assert {type(case[0]) for case in COMPILED} == set(TERMS)
    assert {case[1] for case in COMPILED} == {'none', 'per_triple', 'per_negative'}
    assert {case[2] for case in COMPILED} == {torch.float32, torch.float64}


def test_gradcheck() -> None:
    query, positive, table, index, plan = operands(ComplexModulus(), 2, 5, 4, 17, 'per_negative')

    def loss(query: Tensor, positive: Tensor, table: Tensor) -> Tensor:
        loss: Tensor = call(query, positive, table, index, plan, interaction=ComplexModulus(), backend='numba',
                            **LABELS).loss
        return loss

    assert torch.autograd.gradcheck(loss, (query, positive, table), fast_mode=True)


def test_gradients_that_are_not_needed() -> None:
    args = operands(Dot(), 3, 6, 5, 17, 'per_triple', torch.float32)
    whole = results(args, backend='numba')[-3:]
    for place in range(3):
        leaves = [leaf.detach().requires_grad_(i == place) for i, leaf in enumerate(args[:3])]
        found = call(*leaves, *args[3:], backend='numba', **LABELS)
        (grad, ) = torch.autograd.grad(-2.5 * found.loss, leaves[place])
        assert torch.equal(grad, whole[place])
    with torch.no_grad():
        alone = call(*args, backend='numba', **LABELS)
    assert not alone.loss.requires_grad and torch.equal(alone.loss, found.loss.detach())


def test_second_derivatives_are_refused() -> None:
    args = operands(Dot(), 3, 6, 5, 17, 'per_triple', torch.float32)
    loss = call(*args, backend='numba').loss
    (grad, ) = torch.autograd.grad(loss, args[0], create_graph=True)
    with pytest.raises(ArgumentError, match='emu_loss.*second derivative'):
        grad.sum().backward()


def test_large_scores_lose_no_digits() -> None:
    # Scores around 1e4, whose exponentials no type holds: the loss depends on their differences alone.
    query, positive, table, index, _ = operands(Dot(), 3, 6, 5, 17, 'none')
    query, positive, table = (torch.zeros_like(value) for value in (query, positive, table))
    query[:, 0], positive[:, 0], table[:, 0] = 8192.0, 1.0, 1.0 - torch.arange(5) / 8192.0
    plan = MaskPlan(torch.zeros(1, 17, dtype=torch.bool), torch.zeros(3, dtype=torch.int64))
    expected, found = (call(*(value.to(dtype) for value in (query, positive, table)), index, plan,
                                labels=SoftLabels(1.0, 1.0, 0.5), backend=backend).loss
                       for dtype, backend in ((torch.float64, 'torch'), (torch.float32, 'numba')))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_bad_numbers_propagate(bad: float) -> None:
    args = operands(Dot(), 3, 6, 5, 17, 'per_triple', torch.float32)
    args[2].data[0] = bad
    assert not call(*args, backend='numba', **LABELS).loss.isfinite()


@pytest.mark.parametrize('share', [0.0, 0.5, 1.0])
def test_thread_count_changes_no_bit(share: float) -> None:
    # One entity holds the given share of the slots; there are many pieces of slots.
    size, num, num_nodes = 50, 60, 700
    args = operands(Dot(), size, num, num_nodes, 20, 'per_triple', torch.float32)
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(num_nodes, (size, num), generator=generator)
    index[torch.rand(index.shape, generator=generator) < share] = 17
    args = (*args[:3], index, args[4])
    before, found = torch.get_num_threads(), []
    try:
        for num_threads in (1, 2, 3):
            torch.set_num_threads(num_threads)
            for sparse_grad in (False, True):
                found.append(results(args, backend='numba', sparse_grad=sparse_grad))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, expected) for value, expected in zip(other, found[0]))
    assert_same(found[0], results(args, backend='torch'), 1e-4)


def test_positive_among_negatives() -> None:
    # Where query, positive and negative coincide, distances have no derivative: zero is taken.
    table = torch.randn(3, 34, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    query, positive = (table.detach()[[0, 1]].requires_grad_() for _ in range(2))
    plan = operands(ComplexModulus(), 2, 3, 3, 17, 'per_negative')[4]
    args = query, positive, table, torch.tensor([[0, 1, 2], [1, 1, 0]]), plan
    found, expected = (results(args, interaction=ComplexModulus(), backend=backend) for backend in ('numba', 'torch'))
    assert all(value.isfinite().all() for value in found)
    assert_same(found, expected, 1e-11)


def test_what_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, '_last', {})
    query, positive, table, index, plan = operands(Dot(), 3, 6, 5, 17, 'per_triple', torch.float32)
    assert is_fused(query, positive, table, index, plan, Dot()) and is_fused(query, positive, table, index, None, L1())
    assert isinstance(plan, MaskPlan)
    weight = torch.rand(3, 6)
    for other in (MixPlan(weight), plan._replace(label=weight), plan._replace(bank=plan.bank.float())):
        assert not is_fused(query, positive, table, index, other, Dot())
    assert not is_fused(query[:, :15], positive[:, :15], table[:, :15], index, None, Dot())
    assert not is_fused(query.double(), positive, table, index, None, Dot())
    assert not is_fused(query, positive, table, index[:, :0], None, Dot())
    assert not is_fused(torch.rand(3, 51), torch.rand(3, 34), torch.rand(5, 34), index, None, ModulusPhase())
    with use_backend('torch'):
        assert not is_fused(query, positive, table, index, plan, Dot())
    # A complex component is one term: masks of its parts may not differ.
    wide = torch.rand(3, 34), torch.rand(3, 34), torch.rand(5, 34)
    for bank, expected in ((plan.bank.repeat(1, 2), True), (torch.cat([plan.bank, ~plan.bank], 1), False)):
        assert is_fused(*wide, index, plan._replace(bank=bank), ComplexModulus()) == expected
    with pytest.raises(BackendError, match='binary masks'):
        call(query, positive, table, index, MixPlan(weight), backend='numba')
    # A run records what it computes with, not what it asks for.
    assert last_backend('emu_score') is None and last_backend('emu_loss') is None


@pytest.mark.parametrize('change,message', [
    ({'query': torch.rand(2, 17)}, r'^query: .*\(3, 17\).*\(2, 17\)'),
    ({'index': torch.full((3, 6), 5)}, r'^index: 5 at position \(0, 0\)'),
    ({'plan': MaskPlan(torch.rand(4, 16) < 0.5, torch.zeros(3, dtype=torch.int64))}, r'plan.bank: .*\(M, 17\)'),
    ({'plan': MixPlan(torch.rand(3, 6), label=torch.rand(3, 6))}, 'plan.label: .*None'),
    ({'labels': 0.5}, '^labels: .*SoftLabels.*0.5'),
    ({'labels': SoftLabels(-1.0)}, r'^labels.weight: .*-1.0'),
    ({'vanilla_labels': SoftLabels(1.0, 1.0, float('nan'))}, r'^vanilla_labels.negative: .*nan'),
    ({'offset': float('inf')}, '^offset: .*inf'),
    ({'mask': torch.ones(3, 5, dtype=torch.bool)}, r'^mask: .*\(3, 6\).*\(3, 5\)'),
    ({'mask': torch.ones(3, 6)}, '^mask: .*torch.bool.*float32'),
    ({'sparse_grad': 1}, '^sparse_grad: '),
])
def test_errors_name_the_argument(change: dict[str, Any], message: str) -> None:
    query, positive, table, index, _ = operands(Dot(), 3, 6, 5, 17, 'none', torch.float32)
    with pytest.raises(ArgumentError, match=message):
        call(**{'query': query, 'positive': positive, 'table': table, 'index': index, **change})

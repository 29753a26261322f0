r"""Dot products of pairs with known slots: equal to the reference without them, whatever the slots say."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyg_emu.core.errors import ArgumentError
from pyg_emu.core.interaction import L1
from pyg_emu.ops import MixPlan, emu_score, last_backend
from pyg_emu.ops.emu_score import numba as implementation

# B, N, V, d: nothing; one slot; a single negative; nothing a multiple of four; more than one piece of slots.
SHAPES = [(0, 3, 4, 2), (2, 0, 4, 2), (1, 1, 1, 2), (5, 1, 9, 3), (3, 7, 5, 10), (13, 33, 40, 38)]


def operands(size: int, num: int, num_nodes: int, width: int, share: float = 0.6) -> tuple[dict[str, Any], MixPlan]:
    r"""Differentiable operands and a plan, in which this share of partners are negatives of the same triple."""
    generator = torch.Generator().manual_seed(0)
    given = {name: torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
             for name, shape in (('query', (size, width)), ('positive', (size, width)), ('table', (num_nodes, width)))}
    given['index'] = torch.randint(num_nodes, (size, num), generator=generator)
    weight = torch.rand(size, num, generator=generator, dtype=torch.float64).requires_grad_()
    slot = torch.randint(max(num, 1), (size, num), generator=generator)
    slot[torch.rand(size, num, generator=generator) >= share] = -1
    elsewhere = torch.randint(num_nodes, (size, num), generator=generator)
    partner = torch.where(slot >= 0, given['index'].gather(1, slot.clamp(min=0)), elsewhere)
    return given, MixPlan(weight, partner, None, slot)


def results(given: dict[str, Any], plan: MixPlan, **kwargs: Any) -> list[Tensor | None]:
    r"""Scores, and the gradients of a random function of them."""
    scores = [score for score in emu_score(**given, plan=plan, **kwargs) if score is not None]
    generator = torch.Generator().manual_seed(1)
    loss = sum((score * torch.randn(score.shape, generator=generator, dtype=score.dtype)).sum() for score in scores)
    leaves = [value for value in (*given.values(), plan.weight) if value.requires_grad]
    grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)  # type: ignore[arg-type]
    return [*scores, *grads]


def assert_same(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert len(found) == len(expected)
    for value, other in zip(found, expected):
        assert value is not None and other is not None
        if value.is_sparse and other.is_sparse:
            assert torch.equal(value.coalesce().indices(), other.coalesce().indices())
        torch.testing.assert_close(value.detach().to_dense(), other.detach().to_dense())


@pytest.mark.parametrize('vanilla', [True, False])
@pytest.mark.parametrize('sparse', [True, False])
@pytest.mark.parametrize('size, num, num_nodes, width', SHAPES)
def test_equals_the_reference(size: int, num: int, num_nodes: int, width: int, sparse: bool, vanilla: bool) -> None:
    for share in (0.0, 0.6, 1.0):
        given, plan = operands(size, num, num_nodes, width, share)
        found = results(given, plan, sparse_grad=sparse, vanilla=vanilla, backend='numba')
        assert last_backend('emu_score') == 'numba'
        expected = results(given, plan._replace(slot=None), sparse_grad=sparse, vanilla=vanilla, backend='torch')
        assert_same(found, expected)


def test_slots_that_do_not_hold_the_partner_change_nothing() -> None:
    given, plan = operands(13, 33, 40, 38)
    assert plan.slot is not None
    wrong = torch.randint(-5, 40, plan.slot.shape, generator=torch.Generator().manual_seed(2))
    for slot in (wrong, torch.full_like(wrong, 2**40), torch.full_like(wrong, -2**40)):
        assert_same(results(given, plan._replace(slot=slot), backend='numba'),
                    results(given, plan._replace(slot=None), backend='torch'))


@pytest.mark.parametrize('leaves', [['query'], ['table'], ['weight'], ['query', 'weight']])
def test_gradients_of_some_operands(leaves: list[str]) -> None:
    given, plan = operands(5, 4, 9, 6)
    given = {name: value.detach().requires_grad_(name in leaves) if value.is_floating_point() else value
             for name, value in given.items()}
    plan = plan._replace(weight=plan.weight.detach().requires_grad_('weight' in leaves))
    assert_same(results(given, plan, backend='numba'), results(given, plan, backend='torch'))


def test_only_dot_products_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    made = implementation._DotPairs.apply

    def counted(*args: Any) -> Any:
        calls.append(args)
        return made(*args)

    monkeypatch.setattr(implementation._DotPairs, 'apply', counted)
    given, plan = operands(5, 4, 9, 6)
    for interaction, number in ((None, 1), (L1(), 1)):
        options = {} if interaction is None else {'interaction': interaction}
        assert_same(results(given, plan, backend='numba', **options), results(given, plan, backend='torch', **options))
        assert len(calls) == number


@pytest.mark.parametrize('change, facts', [
    ({'slot': torch.zeros(2, 3)}, ['float32', '(2, 3)']),
    ({'slot': torch.zeros(2, dtype=torch.int64)}, ['(2,)', '(2, 3)']),
    ({'slot': torch.zeros(2, 3, dtype=torch.int64), 'partner': None}, ['plan.partner']),
])
def test_unusable_slots(change: dict[str, Any], facts: list[str]) -> None:
    plan = MixPlan(torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64))._replace(**change)
    with pytest.raises(ArgumentError, match='plan.slot') as caught:
        emu_score(torch.rand(2, 4), torch.rand(2, 4), torch.rand(5, 4), torch.zeros(2, 3, dtype=torch.int64), plan)
    assert all(fact in str(caught.value) for fact in facts)

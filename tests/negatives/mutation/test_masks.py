from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyg_emu.core.errors import ArgumentError
from pyg_emu.negatives.mutation import (
    BernoulliMask,
    BlockMask,
    ExactMask,
    ImportanceMask,
    LearnedMask,
    LinearSchedule,
    MaskMutation,
    Mutation,
)
from pyg_emu.ops import MaskPlan, mutate
from tests.negatives.mutation.contexts import context

COUNTED = {'exact': ExactMask, 'block': BlockMask, 'importance': ImportanceMask}
STRATEGIES: dict[str, Any] = {'bernoulli': BernoulliMask, **COUNTED}

rates = st.floats(0.0, 1.0)
seeds = st.integers(0, 2**32)


def queries(batch: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, width, generator=torch.Generator().manual_seed(seed))


def plan_of(mutation: MaskMutation, query: torch.Tensor, num_negatives: int = 4, seed: int = 0,
            step: int = 0) -> MaskPlan:
    plan = mutation.plan(context(query, num_negatives, query.size(1), torch.Generator().manual_seed(seed), step))
    assert plan is not None
    return plan


@pytest.mark.parametrize('kind', COUNTED)
@given(rate=rates, width=st.integers(1, 40), tied=st.booleans(), seed=seeds)
def test_exact_count(kind: str, rate: float, width: int, tied: bool, seed: int) -> None:
    mutation = COUNTED[kind](rate, tied=tied)
    query = queries(5, 2 * width if tied else width)
    plan = mutation.plan(context(query, 4, query.size(1), torch.Generator().manual_seed(seed)))
    if rate == 0.0:
        assert plan is None
        return
    assert plan.bank.dtype == torch.bool and plan.bank.size(1) == query.size(1)
    assert (plan.bank.sum(1) == round(rate * width) * (2 if tied else 1)).all()


@pytest.mark.parametrize('kind', STRATEGIES)
@given(rate=st.floats(0.01, 1.0), half=st.integers(1, 20), seed=seeds)
def test_tied_parts_share_a_bit(kind: str, rate: float, half: int, seed: int) -> None:
    bank = plan_of(STRATEGIES[kind](rate, tied=True), queries(6, 2 * half), seed=seed).bank
    assert torch.equal(bank[:, :half], bank[:, half:])


@pytest.mark.parametrize('kind', ['bernoulli', 'exact', 'block'])
@given(batch=st.integers(0, 9), num_negatives=st.integers(1, 9), num_masks=st.integers(1, 50), shared=st.booleans())
def test_every_slot_has_a_mask(kind: str, batch: int, num_negatives: int, num_masks: int, shared: bool) -> None:
    mutation = STRATEGIES[kind](0.5, shared=shared, num_masks=num_masks)
    plan = plan_of(mutation, queries(batch, 6), num_negatives)
    assert plan.index.shape == ((batch, ) if shared else (batch, num_negatives))
    assert plan.bank.size(0) == min(plan.index.numel(), num_masks)
    assert ((plan.index >= 0) & (plan.index < plan.bank.size(0))).all()
    if plan.index.numel() <= num_masks:
        assert plan.index.unique().numel() == plan.index.numel()  # a mask of its own for each


@pytest.mark.parametrize('shared, batch', [(True, 20_000), (False, 200)])
def test_slots_share_few_masks_at_random(shared: bool, batch: int) -> None:
    index = plan_of(BernoulliMask(0.5, shared=shared, num_masks=4), queries(batch, 6), 100).index
    counts = index.flatten().bincount(minlength=4).double()
    # 3 degrees of freedom, once in a thousand.
    assert counts.sum() == 20_000 and float(((counts - 5000) ** 2 / 5000).sum()) < 16.3


@pytest.mark.parametrize('kind', STRATEGIES)
@given(rate=rates, seed=seeds)
def test_mutated_negatives_are_never_farther(kind: str, rate: float, seed: int) -> None:
    r"""Proposition B.1."""
    generator = torch.Generator().manual_seed(seed)
    positive, rows = torch.randn(3, 8, generator=generator), torch.randn(3, 5, 8, generator=generator)
    plan = STRATEGIES[kind](rate).plan(context(positive, 5, 8, generator))
    if plan is None:
        return
    before = (rows - positive.unsqueeze(1)).norm(dim=-1)
    after = (mutate(positive, rows, plan) - positive.unsqueeze(1)).norm(dim=-1)
    assert (after <= before).all()
    assert (after < before).any() == bool(plan.bank.any())


@pytest.mark.parametrize('rate', [0.03, 0.3, 0.61, 0.97])
def test_bernoulli_rate(rate: float) -> None:
    bank = plan_of(BernoulliMask(rate, num_masks=4096), queries(4096, 100)).bank
    error = 5 * (rate * (1 - rate) / bank.numel())**0.5 + 2**-16
    assert abs(float(bank.float().mean()) - rate) < error
    for share in (bank.float().mean(0), bank.float().mean(1)):  # neither columns nor rows are favoured
        assert (share - rate).abs().max() < 6 * (rate * (1 - rate) / 100)**0.5 + 2**-16


def test_bernoulli_rates_below_its_resolution_still_mutate() -> None:
    bank = plan_of(BernoulliMask(1e-9, num_masks=4096), queries(4096, 100)).bank
    assert 0 < float(bank.float().mean()) < 3 * 2**-16


@pytest.mark.parametrize('kind', STRATEGIES)
def test_extreme_rates(kind: str) -> None:
    query = queries(3, 8)
    assert STRATEGIES[kind](0.0).plan(context(query, 4, 8)) is None
    assert plan_of(STRATEGIES[kind](1.0), query).bank.all()


@pytest.mark.parametrize('kind', ['exact', 'block'])
def test_places_are_equally_likely(kind: str) -> None:
    bank = plan_of(STRATEGIES[kind](0.3, num_masks=20_000), queries(20_000, 10)).bank
    assert (bank.float().mean(0) - 0.3).abs().max() < 5 * (0.21 / 20_000)**0.5


def test_blocks_are_contiguous_on_the_ring() -> None:
    bank = plan_of(BlockMask(0.4), queries(200, 10)).bank
    assert ((bank.roll(1, dims=1) != bank).sum(1) == 2).all()
    assert not torch.equal(bank[0], bank[1]) or not torch.equal(bank[0], bank[2])


@pytest.mark.parametrize('first, expected', [('largest', [0, 1, 0, 1]), ('smallest', [1, 0, 1, 0])])
def test_importance_by_hand(first: str, expected: list[int]) -> None:
    query = torch.tensor([[0.1, -3.0, 0.2, 2.0], [0.1, 4.0, 0.3, -0.7]])
    bank = plan_of(ImportanceMask(0.5, first), query).bank
    assert bank.int().tolist() == [expected, expected]


def test_importance_of_complex_components_is_their_modulus() -> None:
    query = torch.tensor([[3.0, 0.0, 0.0, 4.0]])  # 3, 4i
    assert plan_of(ImportanceMask(0.5, tied=True), query).bank.int().tolist() == [[0, 1, 0, 1]]


def test_importance_serves_large_batches() -> None:
    plan = plan_of(ImportanceMask(0.5), queries(3000, 4))
    assert plan.bank.size(0) == 3000 and torch.equal(plan.index, torch.arange(3000))


@pytest.mark.parametrize('kind', ['bernoulli', 'exact', 'block'])
@pytest.mark.parametrize('shared', [True, False])
def test_deterministic(kind: str, shared: bool) -> None:
    mutation, query = STRATEGIES[kind](0.4, shared=shared, num_masks=7), queries(20, 12)
    first, again, other = (plan_of(mutation, query, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.bank, again.bank) and torch.equal(first.index, again.index)
    assert not torch.equal(first.bank, other.bank)


def test_schedule() -> None:
    schedule = LinearSchedule(0.0, 0.5, 10)
    assert [schedule(step) for step in (0, 5, 10, 1000)] == [0.0, 0.25, 0.5, 0.5]
    mutation, query = ExactMask(schedule), queries(3, 8)
    assert mutation.plan(context(query, 4, 8, step=0)) is None
    assert [int(plan_of(mutation, query, step=step).bank[0].sum()) for step in (5, 10, 20)] == [2, 4, 4]


def test_schedule_out_of_range_names_the_step() -> None:
    with pytest.raises(ArgumentError, match='rate at step 3: .*got 1.5'):
        BernoulliMask(lambda step: step / 2).plan(context(queries(2, 4), 3, 4, step=3))


@pytest.mark.parametrize('kind', STRATEGIES)
@pytest.mark.parametrize('rate', [-0.1, 1.1, float('nan'), '0.3', True])
def test_refuses_rates(kind: str, rate: Any) -> None:
    with pytest.raises(ArgumentError, match=r'rate: expected .* in \[0, 1\]'):
        STRATEGIES[kind](rate)


def test_refuses() -> None:
    for num_masks in (0, 2.5, '8'):
        with pytest.raises(ArgumentError, match=f'num_masks: expected an integer of at least 1, got {num_masks!r}'):
            BernoulliMask(0.3, num_masks=num_masks)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='tied: .*width 5'):
        BernoulliMask(0.3, tied=True).plan(context(queries(2, 5), 3, 5))
    with pytest.raises(ArgumentError, match='first'):
        ImportanceMask(0.3, 'last')
    with pytest.raises(ArgumentError, match=r'as wide as candidates \(4\), got queries of width 6'):
        ImportanceMask(0.3).plan(context(queries(2, 6), 3, 4))
    for steps in (0, '8', float('nan')):
        with pytest.raises(ArgumentError, match=f'steps: .*at least 1, got {steps!r}'):
            LinearSchedule(0.1, 0.2, steps)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match='end'):
        LinearSchedule(0.1, 2.0, 5)


@pytest.mark.parametrize('adversarial', [False, True])
@pytest.mark.parametrize('tied', [False, True])
def test_learned_mask(adversarial: bool, tied: bool) -> None:
    mutation = LearnedMask(6, 0.3, adversarial=adversarial, tied=tied).double()
    query = queries(4000, 6).double()
    plan = plan_of(mutation, query)
    assert plan.bank.dtype == torch.double
    assert ((plan.bank == 0) | (plan.bank == 1)).all()  # exactly, in spite of the gradient
    assert float(plan.bank.detach().mean()) == pytest.approx(0.3, abs=0.02)
    # Straight through: d bank / d logit = p (1 - p) in its column, whatever was drawn.
    (grad, ) = torch.autograd.grad(plan.bank.sum(), [mutation.logits])
    slope = plan.bank.size(0) * 0.21 * (2 if tied else 1) * (-1 if adversarial else 1)
    torch.testing.assert_close(grad, torch.full_like(grad, slope))


def test_learned_mask_learns_to_make_a_score_small() -> None:
    torch.manual_seed(0)
    mutation = LearnedMask(4, 0.5)
    optimizer = torch.optim.Adam(mutation.parameters(), lr=0.1)
    positive, rows = torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.zeros(1, 1, 4)
    for _ in range(50):
        optimizer.zero_grad()
        plan = mutation.plan(context(positive, 1, 4))
        assert plan is not None
        mutate(positive, rows, plan).sum().backward()
        optimizer.step()
    chance = mutation.logits.detach().sigmoid()
    assert (chance[[0, 2]] < 0.2).all() and (chance[[1, 3]] > 0.8).all()


def test_learned_mask_refuses() -> None:
    for rate in (0.0, 1.0):
        with pytest.raises(ArgumentError, match=r'inside \(0, 1\)'):
            LearnedMask(4, rate)
    with pytest.raises(ArgumentError, match='width: expected an integer of at least 1, got 0'):
        LearnedMask(0)
    with pytest.raises(ArgumentError, match='rows of width 4, got 6'):
        LearnedMask(4, tied=True).plan(context(queries(2, 6), 3, 6))


def test_strategies_are_mutations() -> None:
    for mutation in (BernoulliMask(0.1), LearnedMask(4)):
        assert isinstance(mutation, Mutation)
    assert str(BernoulliMask(0.1)) == 'BernoulliMask(rate=0.1, shared=True, tied=False)'

from __future__ import annotations

import pytest
import torch
from scipy import stats

from pyg_emu.core.errors import ArgumentError
from pyg_emu.negatives.mutation import Mixup, Mutation
from tests.negatives.mutation.contexts import context


@pytest.mark.parametrize('alpha, beta', [(2.0, 1.0), (0.5, 1.0), (2.0, 3.0)])
def test_weight_of_the_negative_is_beta_distributed(alpha: float, beta: float) -> None:
    plan = Mixup(alpha, beta).plan(context(torch.zeros(100, 4), 50, 4, torch.Generator().manual_seed(0)))
    assert plan.weight.shape == (100, 50) and plan.weight.dtype == torch.float
    assert ((plan.weight >= 0) & (plan.weight <= 1)).all()
    assert stats.kstest(plan.weight.flatten().numpy(), 'beta', (alpha, beta)).pvalue > 0.01


@pytest.mark.parametrize('beta', [1.0, 2.0])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
def test_half_precision(beta: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = Mixup(2.0, beta).plan(context(torch.zeros(9, 4, dtype=dtype), 5, 4, generator)).weight
    assert weight.dtype == dtype and ((weight >= 0) & (weight <= 1)).all() and weight.unique().numel() > 9


@pytest.mark.parametrize('beta', [1.0, 2.0])
def test_deterministic(beta: float) -> None:
    query = torch.zeros(3, 4, dtype=torch.double)
    first, again, other = (Mixup(2.0, beta).plan(context(query, 5, 4, torch.Generator().manual_seed(seed))).weight
                           for seed in (1, 1, 2))
    assert first.dtype == torch.double
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize('alpha, beta', [(0.001, 0.001), (0.01, 0.01), (0.05, 0.02), (0.02, 3.0)])
def test_tiny_parameters(alpha: float, beta: float) -> None:
    # Almost all weights are 0 or 1, where gamma variates of such parameters underflow.
    weight = Mixup(alpha, beta).plan(context(torch.zeros(200, 4), 500, 4, torch.Generator().manual_seed(0))).weight
    exact = stats.beta(alpha, beta)
    assert float(weight.mean()) == pytest.approx(exact.mean(), abs=0.01)
    assert float(weight.var()) == pytest.approx(exact.var(), abs=0.005)
    middle = ((weight > 0.25) & (weight < 0.75)).float().mean()
    assert float(middle) == pytest.approx(exact.cdf(0.75) - exact.cdf(0.25), abs=0.005)


def test_refuses() -> None:
    for name in ('alpha', 'beta'):
        for value in (0.0, -1.0, float('nan'), float('inf'), '2', None):
            with pytest.raises(ArgumentError, match=f'^{name}: .*got {value!r}'):
                Mixup(**{name: value})  # type: ignore[arg-type]


def test_is_a_mutation() -> None:
    assert isinstance(Mixup(), Mutation)
    assert str(Mixup()) == 'Mixup(alpha=2.0, beta=1.0)'

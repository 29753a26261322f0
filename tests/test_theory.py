r"""What the paper proves, and what holds of it.

Proposition B.1 holds. Theorem 3.2 states that the angle between A and :math:`\lambda \odot B`, :math:`\lambda` a random
mask with :math:`n_r` ones of :math:`N`, is normally distributed about :math:`\theta_0`, the angle between A and B. Its
proof (appendix C) puts A on the first axis and arrives at :math:`\sqrt{N / n_r} \cos\theta_0`, given
:math:`\lambda_1 = 1`. By simulation:

* for a generic A the cosine is close to normal, but its centre is :math:`\sqrt{n_r / N} \cos\theta_0`;
* for A on an axis the proof's centre holds under its condition, which masks meet with probability :math:`n_r / N`; in
  all other cases the cosine is exactly zero. The mean over both is again :math:`\sqrt{n_r / N} \cos\theta_0`, and the
  distribution is not normal;
* :math:`\theta_0` is the centre only where nothing is masked, or where A and B are orthogonal.

The consequence for Theorem 3.3: with a mask of its own for each negative, deviations from the positive turn away from
one another, by the share that is kept: that is the isotropy. With one mask per triple their angles keep their centre.
"""
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pyg_emu.evaluation.analysis import MaskedCosines, deviation_angles, masked_cosines, principal_axes
from pyg_emu.negatives.mutation import BernoulliMask, BlockMask, ExactMask, ImportanceMask, Mixup
from pyg_emu.ops import mutate
from tests.negatives.mutation.contexts import context

# Proposition B.1 #############################################################

numbers = st.floats(-1e6, 1e6, width=32)


@given(st.data(), st.integers(1, 12))
def test_mutated_negatives_are_never_farther(data: Any, width: int) -> None:
    vector = st.lists(numbers, min_size=width, max_size=width)
    positive, negative = (torch.tensor([data.draw(vector)], dtype=torch.double) for _ in range(2))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=width, max_size=width)))
    mutated = torch.where(mask, positive, negative)
    before, after = ((positive - value).square().sum().sqrt() for value in (negative, mutated))
    # Exactly, even in floating-point numbers: squares only ever become zero, and rounding keeps the order of sums.
    assert after <= before
    if bool((mask & ((positive - negative).square() > 1e-3 * before**2)).any()):
        assert after < before


@pytest.mark.parametrize('mutation', [
    BernoulliMask(0.5), BernoulliMask(0.5, shared=False), ExactMask(0.3, shared=False), BlockMask(0.8),
    ImportanceMask(0.4), BernoulliMask(0.5, tied=True), Mixup()
])
@pytest.mark.parametrize('order', [1, 2, math.inf])
def test_every_mutation_brings_negatives_closer(mutation: Any, order: float) -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negative = (torch.randn(shape, generator=generator, dtype=torch.double)
                          for shape in ((20, 16), (20, 30, 16)))
    mutated = mutate(positive, negative, mutation.plan(context(positive, 30, 16, generator)))
    before, after = (torch.linalg.vector_norm(value - positive.unsqueeze(1), ord=order, dim=-1)
                     for value in (negative, mutated))
    assert bool((after <= before).all()) and float((after < before).double().mean()) > (0.3 if order > 2 else 0.99)


# Theorem 3.2 #################################################################

SIZE, SAMPLES = 2000, 8000


def vectors(kind: str) -> tuple[Tensor, Tensor]:
    r"""B as the theorem assumes it, nearly constant, or without a mean; A generic, at a wide angle or a narrow one."""
    generator = torch.Generator().manual_seed(3)
    first, second = torch.randn(2, SIZE, generator=generator, dtype=torch.double)
    constant = 1.0 + 0.05 * second
    if kind == 'wide':
        return 0.5 + first, constant
    if kind == 'narrow':
        return 1.0 + 0.5 * first, constant
    if kind == 'no mean':
        return second + first, second
    return torch.eye(SIZE, dtype=torch.double)[0], constant


def simulate(kind: str, num_kept: int, **options: Any) -> MaskedCosines:
    return masked_cosines(*vectors(kind), num_kept, SAMPLES, torch.Generator().manual_seed(num_kept), **options)


def assert_center(cosine: Tensor, center: float, bias: float = 1e-3) -> None:
    r"""The mean is the centre, up to four standard errors and what is of higher order in 1 / N."""
    error = float(cosine.std()) / math.sqrt(cosine.numel())
    assert abs(float(cosine.mean()) - center) < 4 * error + bias * abs(center)


def assert_normal(values: Tensor, num_kept: int) -> None:
    r"""Skewness and excess kurtosis are those of a normal sample, up to four standard errors and what the central limit
    theorem leaves: terms in one over the square root of the number of components that are kept, or masked.
    """
    score = (values - values.mean()) / values.std()
    count, rest = values.numel(), 2 / math.sqrt(min(num_kept, SIZE - num_kept))
    assert abs(float(score.pow(3).mean())) < 4 * math.sqrt(6 / count) + rest
    assert abs(float(score.pow(4).mean()) - 3) < 4 * math.sqrt(24 / count) + rest
    # Shares within one and two deviations, from the distribution function.
    for width in (1, 2):
        share = math.erf(width / math.sqrt(2))
        assert abs(float((score.abs() < width).double().mean()) - share) < 4 * math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize('mask', ['exact', 'bernoulli'])
@pytest.mark.parametrize('num_kept', [200, 1000, 1800])
@pytest.mark.parametrize('kind', ['wide', 'narrow', 'no mean'])
def test_center_for_a_generic_vector(kind: str, num_kept: int, mask: Any) -> None:
    found = simulate(kind, num_kept, mask=mask)
    assert_center(found.cosine, found.center_expected)
    error = float(found.cosine.std()) / math.sqrt(SAMPLES)
    for other in (found.center_of_statement, found.center_of_proof):
        assert abs(float(found.cosine.mean()) - other) > 100 * error
    # The angle itself is as normal, about the arc cosine.
    assert_normal(found.cosine, num_kept)
    assert_normal(found.cosine.acos(), num_kept)
    assert_center(found.cosine.acos(), math.acos(found.center_expected), bias=2e-3)


@pytest.mark.parametrize('num_kept', [200, 1000, 1800])
def test_center_for_a_vector_on_an_axis(num_kept: int) -> None:
    found = simulate('axis', num_kept)
    kept = found.cosine[found.first_kept]
    # As the proof says, where the one component that A has was kept ...
    assert_center(kept, found.center_of_proof)
    assert_normal(kept, num_kept)
    with pytest.raises(AssertionError):
        assert_normal(found.cosine, num_kept)
    b = vectors('axis')[1]
    # ... with the spread that follows from equation 17: that of the mean of n_r of N components.
    spread = float(b.std() / b.mean()) * math.sqrt((1 - found.share) / num_kept)
    assert float(kept.std()) == pytest.approx(found.center_of_proof * spread, rel=0.05)
    # ... which is no matter of course:
    deviation = math.sqrt(found.share * (1 - found.share) / SAMPLES)
    assert abs(float(found.first_kept.double().mean()) - found.share) < 4 * deviation
    assert bool((found.cosine[~found.first_kept] == 0).all())
    assert_center(found.cosine, found.center_expected)


def test_stated_center_needs_a_mask_that_masks_nothing() -> None:
    found = simulate('wide', SIZE)
    assert float((found.cosine - found.center_of_statement).abs().max()) < 1e-12
    # Or a right angle, where all three centres coincide.
    a, b = vectors('wide')
    a = a - (a @ b) / (b @ b) * b
    found = masked_cosines(a, b, 800, SAMPLES, torch.Generator().manual_seed(0))
    assert_center(found.cosine, 0.0)
    assert_normal(found.cosine, 800)


# Theorem 3.3 #################################################################


def neighbors(offset: float, width: int = 400, count: int = 200) -> tuple[Tensor, Tensor]:
    r"""A positive, and negatives that all lie away from it in one direction, as far as :obj:`offset`."""
    generator = torch.Generator().manual_seed(1)
    positive = torch.randn(5, width, generator=generator, dtype=torch.double)
    spread = torch.randn(5, count, width, generator=generator, dtype=torch.double)
    return positive, positive.unsqueeze(1) + offset + spread


@pytest.mark.parametrize('rate', [0.3, 0.6, 0.9])
def test_masks_of_their_own_turn_deviations_apart(rate: float) -> None:
    positive, negative = neighbors(2.0)
    cosine = float(deviation_angles(positive, negative).cos().mean())
    assert cosine == pytest.approx(4 / 5, abs=0.02)  # offset^2 / (offset^2 + 1)
    generator = torch.Generator().manual_seed(2)
    found = {}
    for shared in (False, True):
        plan = ExactMask(rate, shared=shared).plan(context(positive, negative.size(1), positive.size(1), generator))
        assert plan is not None
        found[shared] = float(deviation_angles(positive, mutate(positive, negative, plan)).cos().mean())
    # Each deviation keeps n_r of N components; of those, another keeps n_r / N.
    assert found[False] == pytest.approx((1 - rate) * cosine, abs=0.02)
    # Negatives that share a mask keep the same components.
    assert found[True] == pytest.approx(cosine, abs=0.04)


def test_masks_of_their_own_make_negatives_more_isotropic() -> None:
    positive, negative = neighbors(2.0)
    generator = torch.Generator().manual_seed(2)
    found = {}
    for shared in (False, True):
        plan = ExactMask(0.9, shared=shared).plan(context(positive, negative.size(1), positive.size(1), generator))
        assert plan is not None
        mutated = mutate(positive, negative, plan)
        found[shared] = float(principal_axes(mutated, center=positive).isotropy.mean())
    before = float(principal_axes(negative, center=positive).isotropy.mean())
    # Along the offset the mean square is w^2 (s^2 N + ...), w the share that is kept, and across it in proportion to w.
    assert found[False] > 5 * before and found[True] < 5 * before

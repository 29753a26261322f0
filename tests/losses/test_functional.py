from __future__ import annotations

import math
from typing import Any, Optional

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from pyg_emu.core.errors import ArgumentError
from pyg_emu.losses.functional import (
    demix_cross_entropy,
    margin_ranking,
    smoothed_cross_entropy,
    softmax_entropy,
    uls_binary_cross_entropy,
    uls_cross_entropy,
)

betas = st.sampled_from([0.0, 0.12, 0.53, 2.0])


def scores(batch: int, count: int, seed: int, masked: bool, dtype: torch.dtype = torch.double) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    positive = 3 * torch.randn(batch, generator=generator, dtype=dtype)
    negative = 3 * torch.randn(batch, count, generator=generator, dtype=dtype)
    mask = torch.rand(batch, count, generator=generator) < 0.6
    return positive.requires_grad_(), negative.requires_grad_(), *([mask] if masked else [])


def soft_rows(positive: Tensor, negative: Tensor, labels: list[list[float]], mask: Optional[Tensor]) -> Tensor:
    r"""-sum_k y_k log softmax(s)_k, one row at a time, over the negatives that count."""
    rows = []
    for row in range(positive.numel()):
        kept = negative[row] if mask is None else negative[row][mask[row]]
        logs = torch.cat([positive[row:row + 1], kept]).log_softmax(0)
        rows.append(-(logs * torch.tensor(labels[row], dtype=logs.dtype)).sum())
    return torch.stack(rows).mean()


def counts(negative: Tensor, mask: Optional[Tensor]) -> list[int]:
    return [negative.size(1)] * negative.size(0) if mask is None else mask.sum(1).tolist()


def agree(actual: Tensor, expected: Tensor, positive: Tensor, negative: Tensor) -> None:
    # Closer than single precision, to which a count of integers would take all that it is multiplied by.
    torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)
    for left, right in zip(torch.autograd.grad(actual, [positive, negative], allow_unused=True),
                           torch.autograd.grad(expected, [positive, negative], allow_unused=True)):
        left, right = (torch.zeros(()) if value is None else value for value in (left, right))
        torch.testing.assert_close(*torch.broadcast_tensors(left.double(), right.double()), rtol=1e-11, atol=1e-11)


@given(batch=st.integers(1, 4), count=st.integers(1, 6), beta=betas, masked=st.booleans(), seed=st.integers(0, 999))
def test_uls_cross_entropy(batch: int, count: int, beta: float, masked: bool, seed: int) -> None:
    positive, negative, *mask = scores(batch, count, seed, masked)
    labels = [[1.0] + [beta] * n for n in counts(negative, *mask or [None])]
    agree(uls_cross_entropy(positive, negative, beta, *mask), soft_rows(positive, negative, labels, *mask or [None]),
          positive, negative)


@given(batch=st.integers(1, 4), count=st.integers(1, 6), smoothing=st.sampled_from([0.0, 0.1, 1.0]),
       masked=st.booleans(), seed=st.integers(0, 999))
def test_smoothed_cross_entropy(batch: int, count: int, smoothing: float, masked: bool, seed: int) -> None:
    positive, negative, *mask = scores(batch, count, seed, masked)
    sizes = counts(negative, *mask or [None])
    labels = [[1 - smoothing + smoothing / (n + 1)] + [smoothing / (n + 1)] * n for n in sizes]
    actual = smoothed_cross_entropy(positive, negative, smoothing, *mask)
    agree(actual, soft_rows(positive, negative, labels, *mask or [None]), positive, negative)
    if not masked:
        logits = torch.cat([positive.unsqueeze(1), negative], dim=1)
        target = torch.zeros(batch, dtype=torch.int64)
        torch.testing.assert_close(actual, F.cross_entropy(logits, target, label_smoothing=smoothing))


@given(batch=st.integers(1, 4), count=st.integers(1, 6), beta=betas, masked=st.booleans(), seed=st.integers(0, 999),
       temperature=st.sampled_from([None, 0.5, 2.0]))
def test_uls_binary_cross_entropy(batch: int, count: int, beta: float, masked: bool, seed: int,
                                  temperature: Optional[float]) -> None:
    positive, negative, *mask = scores(batch, count, seed, masked)
    rows = []
    for row in range(batch):
        kept = negative[row][mask[0][row]] if masked else negative[row]
        weight = torch.full_like(kept, 1 / max(kept.numel(), 1))
        if temperature is not None:
            weight = (kept.detach() / temperature).softmax(0)
        terms = torch.log1p(kept.exp()) - beta * kept
        total = 1 + float(kept.numel() > 0)
        rows.append((torch.log1p((-positive[row]).exp()) + (weight * terms).sum()) / total)
    actual = uls_binary_cross_entropy(positive, negative, beta, *mask or [None], temperature)
    agree(actual, torch.stack(rows).mean(), positive, negative)


@given(batch=st.integers(1, 4), count=st.integers(1, 6), masked=st.booleans(), seed=st.integers(0, 999))
def test_margin_ranking(batch: int, count: int, masked: bool, seed: int) -> None:
    positive, negative, *mask = scores(batch, count, seed, masked)
    kept = mask[0] if masked else torch.ones_like(negative, dtype=torch.bool)
    rows = [F.margin_ranking_loss(positive[row].expand(n), negative[row][kept[row]], torch.ones(n), margin=2.0)
            if n > 0 else 0.0 * positive[row] for row, n in enumerate(kept.sum(1).tolist())]
    agree(margin_ranking(positive, negative, 2.0, *mask), torch.stack(rows).mean(), positive, negative)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('temperature', [0.5, 3.0])
def test_self_adversarial_margin_ranking(temperature: float, masked: bool) -> None:
    positive, negative, *mask = scores(3, 5, 1, masked)
    rows = []
    for row in range(3):
        kept = negative[row][mask[0][row]] if masked else negative[row]
        weight = (kept.detach() / temperature).softmax(0)
        rows.append((weight * (2.0 - positive[row] + kept).clamp(min=0)).sum())
    agree(margin_ranking(positive, negative, 2.0, *mask, adversarial_temperature=temperature),
          torch.stack(rows).mean(), positive, negative)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('loss', [
    lambda *args: uls_cross_entropy(*args[:2], 0.53, *args[2:]),
    lambda *args: uls_cross_entropy(*args[:2], 0.0, *args[2:]),
    lambda *args: smoothed_cross_entropy(*args[:2], 0.1, *args[2:]),
    lambda *args: uls_binary_cross_entropy(*args[:2], 0.25, *args[2:]),
    lambda *args: margin_ranking(*args[:2], 1.0, *args[2:]),
], ids=['uls', 'plain', 'smoothed', 'bce', 'margin'])
def test_gradcheck(loss: Any, masked: bool) -> None:
    positive, negative, *mask = scores(3, 4, 1, masked)
    assert torch.autograd.gradcheck(lambda *inputs: loss(*inputs, *mask), (positive, negative))


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('loss', [
    lambda *args: uls_cross_entropy(*args[:2], 0.53, *args[2:]),
    lambda *args: uls_cross_entropy(*args[:2], 0.0, *args[2:]),
    lambda *args: uls_cross_entropy(*args[:2], torch.linspace(0, 1, 12).view(3, 4), *args[2:]),
    lambda *args: smoothed_cross_entropy(*args[:2], 0.1, *args[2:]),
], ids=['uls', 'plain', 'labels', 'smoothed'])
def test_second_derivatives(loss: Any, masked: bool) -> None:
    positive, negative, *mask = scores(3, 4, 1, masked)
    if masked:
        mask[0][1] = False  # a triple without any negative left
    assert torch.autograd.gradgradcheck(lambda *inputs: loss(*inputs, *mask), (positive, negative))


def test_hessian() -> None:
    positive, negative = (value.detach() for value in scores(3, 4, 1, False))
    target = torch.zeros(3, dtype=torch.int64)
    found = torch.autograd.functional.hessian(lambda x: uls_cross_entropy(positive, x), negative)
    expected = torch.autograd.functional.hessian(
        lambda x: F.cross_entropy(torch.cat([positive.unsqueeze(1), x], 1), target), negative)
    torch.testing.assert_close(found, expected)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('loss', [
    lambda *args: uls_cross_entropy(*args, 0.5),
    lambda *args: uls_cross_entropy(*args, torch.full((4, 2000), 0.5)),
    lambda *args: smoothed_cross_entropy(*args, 0.1),
    softmax_entropy,
    lambda *args: uls_binary_cross_entropy(*args, 0.25),
    demix_cross_entropy,
    lambda *args: margin_ranking(*args, 1.0),
    lambda *args: margin_ranking(*args, 1.0, weight=torch.full((4, ), 3e4)),
], ids=['uls', 'labels', 'smoothed', 'entropy', 'bce', 'demix', 'margin', 'weighted'])
def test_sums_in_half_precision(loss: Any, dtype: torch.dtype) -> None:
    # Sums over the negatives are above the largest number of float16.
    positive, negative = scores(4, 2000, 0, False)
    positive, negative = ((30 * value.detach()).to(dtype).requires_grad_() for value in (positive, negative))
    found, expected = loss(positive, negative), loss(positive.detach().double(), negative.detach().double())
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4, abs=1e-6)
    for grad in torch.autograd.grad(found, (positive, negative)):
        assert grad.dtype == dtype and bool(grad.isfinite().all())


def test_uls_by_hand() -> None:
    # lse(log 2, 0, 0) = log 4: log-probabilities -log 2, -log 4, -log 4.
    loss = uls_cross_entropy(torch.tensor([2.0]).log(), torch.zeros(1, 2), 0.5)
    assert float(loss) == pytest.approx(0.6931472 + 0.5 * 2 * 1.3862944)


@pytest.mark.parametrize('dtype', [torch.float, torch.double])
@pytest.mark.parametrize('scale', [1e4, 1e30])
def test_extreme_scores(dtype: torch.dtype, scale: float) -> None:
    positive = torch.tensor([scale, -scale, 0.0, scale], dtype=dtype, requires_grad=True)
    negative = torch.tensor([[-scale, -scale], [scale, -scale], [-scale, 0.0], [scale, scale]], dtype=dtype,
                            requires_grad=True)
    for beta in (0.0, 0.53):
        loss = uls_cross_entropy(positive, negative, beta)
        # Row by row: 2 scale beta each for the two negatives; 2 scale, and beta 2 scale; ...
        lost = [2 * beta * 2 * scale, 2 * scale * (1 + beta), beta * scale, 0.0]
        small = [0.0, 0.0, (1 + 2 * beta) * 0.6931472, (1 + 2 * beta) * 1.0986123]
        assert float(loss.detach()) == pytest.approx((sum(lost) + sum(small)) / 4, rel=1e-6)
        for grad in torch.autograd.grad(loss, [positive, negative]):
            assert grad.isfinite().all()
    for temperature in (None, 0.5):
        loss = uls_binary_cross_entropy(positive, negative, 0.25, None, temperature)
        assert loss.isfinite()
        for grad in torch.autograd.grad(loss, [positive, negative]):
            assert grad.isfinite().all()


def test_a_common_offset_costs_no_digits() -> None:
    # Eighths, so that adding 4096 is exact in single precision.
    positive, negative = ((8 * value.detach()).round() / 8 for value in scores(5, 256, 0, False, torch.float))
    expected = uls_cross_entropy(positive.double(), negative.double(), 0.53)
    assert float(uls_cross_entropy(positive + 4096, negative + 4096, 0.53)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize('loss', [
    lambda *args: uls_cross_entropy(*args[:2], 0.53, *args[2:]),
    lambda *args: smoothed_cross_entropy(*args[:2], 0.1, *args[2:]),
    lambda *args: uls_binary_cross_entropy(*args[:2], 0.25, *args[2:], 1.0),
    lambda *args: margin_ranking(*args[:2], 1.0, *args[2:]),
    lambda *args: margin_ranking(*args[:2], 1.0, *args[2:], adversarial_temperature=2.0),
], ids=['uls', 'smoothed', 'bce', 'margin', 'weighted margin'])
@pytest.mark.parametrize('junk', [1e30, float('inf'), float('nan')])
def test_masked_slots_have_no_say(loss: Any, junk: float) -> None:
    positive, negative, mask = scores(4, 5, 3, True)
    mask[1] = False  # a triple without any negative left
    expected = loss(positive, negative, mask)
    gradients = torch.autograd.grad(expected, [positive, negative])
    dirty = negative.detach().masked_fill(~mask, junk).requires_grad_()
    actual = loss(positive, dirty, mask)
    assert actual == expected
    for left, right in zip(torch.autograd.grad(actual, [positive, dirty]), gradients):
        assert torch.equal(left, right)
    assert (gradients[1][~mask] == 0).all()


@given(batch=st.integers(1, 4), count=st.integers(1, 6), masked=st.booleans(), seed=st.integers(0, 999))
def test_softmax_entropy(batch: int, count: int, masked: bool, seed: int) -> None:
    positive, negative, *mask = scores(batch, count, seed, masked)
    rows = []
    for row in range(batch):
        kept = negative[row][mask[0][row]] if masked else negative[row]
        rows.append(torch.distributions.Categorical(logits=torch.cat([positive[row:row + 1], kept])).entropy())
    agree(softmax_entropy(positive, negative, *mask), torch.stack(rows).mean(), positive, negative)


def test_softmax_entropy_of_extreme_scores() -> None:
    positive = torch.tensor([0.0, 1e4, 3.0, 0.0], requires_grad=True)
    negative = torch.tensor([[0.0, 0.0, 0.0], [-1e4, -1e4, 0.0], [1.0, 2.0, 3.0], [0.0, 5.0, 0.0]], requires_grad=True)
    mask = torch.tensor([[True] * 3, [True] * 3, [False] * 3, [True, False, False]])
    # Even over 4; certain; alone; even over 2.
    entropy = softmax_entropy(positive, negative, mask)
    assert entropy.item() == pytest.approx(3 / 4 * math.log(2.0))
    entropy.backward()
    assert positive.grad is not None and negative.grad is not None
    assert bool(positive.grad.isfinite().all()) and bool((negative.grad[~mask] == 0).all())


@pytest.mark.parametrize('loss', [
    uls_cross_entropy, smoothed_cross_entropy, softmax_entropy, uls_binary_cross_entropy, demix_cross_entropy,
    lambda positive, negative, **rest: smoothed_cross_entropy(positive, negative, 0.1, **rest),
    lambda positive, negative, **rest: margin_ranking(positive, negative, 1.0, **rest)])
def test_shapes_that_would_broadcast_are_refused(loss: Any) -> None:
    positive, negative, mask = scores(6, 4, 0, masked=True)
    given = {'positive': positive, 'negative': negative, 'mask': mask, 'weight': torch.ones(6)}
    assert loss(**given).isfinite()
    for name, value in (('positive', positive.unsqueeze(1)), ('positive', positive[:1]), ('negative', negative[0]),
                        ('mask', mask[:, :1]), ('mask', mask[0]), ('mask', mask.float()),
                        ('weight', torch.ones(6, 1)), ('weight', torch.ones(1)), ('weight', torch.ones(()))):
        with pytest.raises(ArgumentError, match=f'^{name}: '):
            loss(**{**given, name: value})

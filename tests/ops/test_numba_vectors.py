from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from pyg_emu.ops.numba_vectors import (
    absolute,
    anywhere,
    choose,
    convert,
    fill,
    first_half,
    join,
    load,
    multiply_add,
    prefetch,
    second_half,
    square_root,
    store,
)

LANES = 6  # Neither a power of two nor a multiple of a register width.


@njit
def _compute(x, out, truth):  # type: ignore[no-untyped-def]
    a, b = load(x, 0, 1, LANES), load(x, 1, 0, LANES)
    prefetch(x, 1, 0, 0)
    prefetch(out, 1000, 0, 1)
    store(out, 0, 1, a + b)
    store(out, 1, 1, a - b)
    store(out, 2, 1, a * b)
    store(out, 3, 1, a / b)
    store(out, 4, 1, choose(a > b, a, b))
    store(out, 5, 1, choose(a < b, a, b))
    store(out, 6, 1, choose(a <= b, fill(x[0, 0], LANES), b))
    store(out, 7, 1, join(second_half(a), first_half(b)))
    truth[0], truth[1] = anywhere(a > b), anywhere(a > fill(x.dtype.type(1e9), LANES))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_lane_by_lane(dtype: Any) -> None:
    x = np.random.default_rng(0).normal(size=(2, LANES + 2)).astype(dtype)
    x[1, 2] = x[0, 3]
    out, truth = np.full((8, LANES + 2), 7, dtype), np.zeros(2, bool)
    _compute(x, out, truth)
    a, b = x[0, 1:1 + LANES], x[1, :LANES]
    half = LANES // 2
    expected = [a + b, a - b, a * b, a / b, np.maximum(a, b), np.minimum(a, b), np.where(a <= b, x[0, 0], b),
                np.concatenate([a[half:], b[:half]])]
    np.testing.assert_array_equal(out[:, 1:1 + LANES], np.stack(expected))
    # Nothing outside the lanes is written.
    assert (out[:, [0, -1]] == 7).all()
    assert truth.tolist() == [True, False]


def test_nan_compares_as_false() -> None:
    @njit
    def larger(x, out):  # type: ignore[no-untyped-def]
        a, b = load(x, 0, 0, 2), load(x, 1, 0, 2)
        store(out, 0, 0, choose(a > b, a, b))
        store(out, 1, 0, choose(a <= b, a, b))

    out = np.zeros((2, 2))
    larger(np.array([[np.nan, 1.0], [2.0, np.nan]]), out)
    np.testing.assert_array_equal(out, [[2.0, np.nan], [2.0, np.nan]])


def test_whole_numbers_equal() -> None:
    @njit
    def where(x, out):  # type: ignore[no-untyped-def]
        store(out, 0, 0, choose(load(x, 0, 0, 3) == fill(np.int32(5), 3), fill(np.int32(1), 3), fill(np.int32(0), 3)))

    out = np.zeros((1, 3), np.int32)
    where(np.array([[4, 5, -5]], np.int32), out)
    assert out.tolist() == [[0, 1, 0]]


@pytest.mark.parametrize('function', [lambda x, n: load(x, 0, 0, n), lambda x, n: load(x[:, ::2], 0, 0, 2),
                                      lambda x, n: load(x, 0, 0, 2) + load(x, 0, 0, 4)])
def test_what_is_refused(function: Callable[..., Any]) -> None:
    # A variable number of lanes, rows that are not contiguous, and vectors of different lengths.
    compiled = njit(function)
    with pytest.raises(TypingError):
        compiled(np.zeros((2, 8)), 2)


@pytest.mark.parametrize('source', [np.float32, np.float64])
@pytest.mark.parametrize('target', [np.float32, np.float64])
def test_lanes_are_converted(source: Any, target: Any) -> None:
    @njit
    def copy(x, out):  # type: ignore[no-untyped-def]
        store(out, 0, 0, convert(load(x, 0, 0, LANES), out))

    x, out = np.random.default_rng(0).normal(size=(1, LANES)).astype(source), np.zeros((1, LANES), target)
    copy(x, out)
    np.testing.assert_array_equal(out, x.astype(target))


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_functions_of_lanes(dtype: Any) -> None:
    @njit
    def compute(x, out):  # type: ignore[no-untyped-def]
        a, b = load(x, 0, 0, LANES), load(x, 1, 0, LANES)
        store(out, 0, 0, absolute(a))
        store(out, 1, 0, square_root(a))
        store(out, 2, 0, multiply_add(a, b, b))

    x, out = np.random.default_rng(0).normal(size=(2, LANES)).astype(dtype), np.empty((3, LANES), dtype)
    x[0, :2] = -0.0, 4.0
    compute(x, out)
    np.testing.assert_array_equal(out[0], np.abs(x[0]))
    with np.errstate(invalid='ignore'):
        np.testing.assert_array_equal(out[1], np.sqrt(x[0]))
    # The product may be rounded or not.
    np.testing.assert_allclose(out[2], x[0] * x[1] + x[1], rtol=1e-5 if dtype is np.float32 else 1e-13)

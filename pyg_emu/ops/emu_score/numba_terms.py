r"""The interactions and the kinds of mutation for the CPU kernels of :func:`~pyg_emu.ops.emu_score`.

Each is a named tuple of numbers in the precision of the table. The compiler inlines the functions of its *type*, so
inner loops have no branches and one source serves all types.

An interaction sums *terms* of aligned components :math:`(q_0, q_1, q_2; x_0, x_1)` into two accumulators. Components
that an interaction does not have equal others and are not used. Its functions are

* :obj:`layout`: the numbers of query parts, candidate parts and accumulators, and whether the score contains a norm,
* :obj:`term`: the contribution of aligned components to the accumulators,
* :obj:`finish`: the score given two accumulators, and the norm in it, which :obj:`slope` requires,
* :obj:`slope`: the gradients of the accumulators given the gradient of the score and the norm,
* :obj:`pull`: the gradients of :math:`(q_0, q_1, q_2, x_0, x_1)` given those of the accumulators.

The functions of a kind of mutation are

* :obj:`mix`: the contribution of aligned components to the accumulators of the vanilla and the mutated score,
* :obj:`pull_batch`: the gradients of :math:`(q_0, q_1, q_2)`, of the positive's side and of a scalar mask,
* :obj:`pull_rows`: the gradients of :math:`(x_0, x_1)` or, for :class:`Mask`, of :math:`(f_0, f_1)`.

Here, :math:`p` are the components of the positive or of the partner of a :class:`Pair`, :math:`t` are their terms,
:math:`f` is the mask, and :math:`v` and :math:`m` are the gradients of the accumulators of the vanilla and the mutated
score. Masks are multiplied instead of used in selections, because the branch of a selection for the last components of
a row takes longer than the whole row.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction, ModulusPhase
from pyg_emu.ops.numba_runtime import FASTMATH


def by_type(name: str) -> Any:
    r"""Returns the function :obj:`name` of the type of its first argument, resolved at compile time."""
    def stub(tag: Any, *args: Any) -> Any:
        raise NotImplementedError

    register = overload(stub, jit_options={'fastmath': FASTMATH}, strict=False)
    register(lambda tag, *args: getattr(tag.instance_class, name))
    return stub


def real(like: Any, value: Any) -> Any:
    r"""Returns :obj:`value` in the precision of :obj:`like`. A literal would promote expressions to float64."""
    return type(like)(value)


@overload(real, strict=False)
def _real(like: Any, value: Any) -> Any:
    dtype = like
    return lambda like, value: dtype(value)


#: The values of :obj:`layout` for the kinds of mutation.
PLAIN, HARD, SHARED, SOFT, MASK, PAIR, LISTED = range(7)

layout, term, finish, slope, pull = (by_type(name) for name in ('layout', 'term', 'finish', 'slope', 'pull'))
mix, pull_batch, pull_rows = (by_type(name) for name in ('mix', 'pull_batch', 'pull_rows'))


class DotTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.Dot`: one sum of products."""
    one: Any

    @staticmethod
    def layout(tag):
        return 1, 1, 1, False

    @staticmethod
    def term(tag, q0, q1, q2, x0, x1):
        return q0 * x0, real(q0, 0)

    @staticmethod
    def finish(tag, s0, s1):
        return s0, s0

    @staticmethod
    def slope(tag, grad, norm):
        return grad, real(grad, 0)

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero = real(q0, 0)
        return w0 * x0, zero, zero, w0 * q0, zero


class L1Terms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.L1`: one sum of absolute differences."""
    one: Any

    @staticmethod
    def layout(tag):
        return 1, 1, 1, False

    @staticmethod
    def term(tag, q0, q1, q2, x0, x1):
        return abs(q0 - x0), real(q0, 0)

    @staticmethod
    def finish(tag, s0, s1):
        return -s0, s0

    @staticmethod
    def slope(tag, grad, norm):
        return -grad, real(grad, 0)

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero = real(q0, 0)
        # A sign that is computed: one that is selected leaves a branch, which half of all components mispredict.
        step = w0 * (real(q0, q0 > x0) - real(q0, q0 < x0))
        return step, zero, zero, -step, zero


class L2Terms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.L2`: one sum of squares, whose root is saved for the backward
    pass."""
    one: Any

    @staticmethod
    def layout(tag):
        return 1, 1, 1, True

    @staticmethod
    def term(tag, q0, q1, q2, x0, x1):
        return (q0 - x0) * (q0 - x0), real(q0, 0)

    @staticmethod
    def finish(tag, s0, s1):
        norm = math.sqrt(s0)
        return -norm, norm

    @staticmethod
    def slope(tag, grad, norm):
        # The subgradient at zero is zero. The factor 2 of the square's derivative and that of the root cancel.
        zero = real(grad, 0)
        return zero if norm == zero else -grad / norm, zero

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero = real(q0, 0)
        step = w0 * (q0 - x0)
        return step, zero, zero, -step, zero


class ModulusTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.ComplexModulus`: one sum of the moduli of complex differences."""
    one: Any

    @staticmethod
    def layout(tag):
        return 2, 2, 1, False

    @staticmethod
    def term(tag, q0, q1, q2, x0, x1):
        return math.sqrt((q0 - x0) * (q0 - x0) + (q1 - x1) * (q1 - x1)), real(q0, 0)

    @staticmethod
    def finish(tag, s0, s1):
        return -s0, s0

    @staticmethod
    def slope(tag, grad, norm):
        return -grad, real(grad, 0)

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero = real(q0, 0)
        modulus = math.sqrt((q0 - x0) * (q0 - x0) + (q1 - x1) * (q1 - x1))
        step = zero if modulus == zero else w0 / modulus
        return step * (q0 - x0), step * (q1 - x1), zero, step * (x0 - q0), step * (x1 - q1)


class ModulusPhaseTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.ModulusPhase`: a sum of squares and a sum of sines."""
    modulus_weight: Any
    phase_weight: Any
    phase_scale: Any

    @staticmethod
    def layout(tag):
        return 3, 2, 2, True

    @staticmethod
    def term(tag, q0, q1, q2, x0, x1):
        difference = q1 * x0 - q0
        return difference * difference, abs(_sine(_reduce((q2 - tag.phase_scale * x1) * real(q0, 0.5))))

    @staticmethod
    def finish(tag, s0, s1):
        norm = math.sqrt(s0)
        return -(tag.modulus_weight * norm + tag.phase_weight * s1), norm

    @staticmethod
    def slope(tag, grad, norm):
        zero = real(grad, 0)
        return zero if norm == zero else -grad * tag.modulus_weight / norm, -grad * tag.phase_weight

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero, half = real(q0, 0), real(q0, 0.5)
        step = w0 * (q1 * x0 - q0)
        angle = _reduce((q2 - tag.phase_scale * x1) * half)
        turn = half * w1 * _cosine(angle)
        turn = turn if angle > zero else (-turn if angle < zero else zero)
        return -step, step * x0, turn, step * q1, -tag.phase_scale * turn


# |sin| and its slope have period pi, so angles are reduced modulo pi. Polynomials are vectorized, unlike calls of the
# sine function of a library.


def _reduce(angle: Any) -> Any:
    r"""The angle modulo :math:`\pi`, in :math:`[-\pi/2, \pi/2]`."""


def _sine(angle: Any) -> Any:
    r"""The sine of a reduced angle."""


def _cosine(angle: Any) -> Any:
    r"""The cosine of a reduced angle."""


@overload(_reduce, strict=False)  # Not reassociated, because the two parts of pi must stay separate.
def _reduce_overload(angle: Any) -> Any:
    high = 3.140625 if angle.bitwidth == 32 else 3.141592653589793
    low = math.pi - 3.140625 if angle.bitwidth == 32 else 1.2246467991473532e-16

    def impl(angle):
        turns = np.floor(angle * real(angle, 1 / math.pi) + real(angle, 0.5))
        return (angle - turns * real(angle, high)) - turns * real(angle, low)

    return impl


def _horner(s: Any, c: Any) -> Any:
    r"""The polynomial of :obj:`s` with twelve coefficients :obj:`c`."""


@overload(_horner, jit_options={'fastmath': FASTMATH}, strict=False)
def _horner_overload(s: Any, c: Any) -> Any:
    return lambda s, c: c[0] + s * (c[1] + s * (c[2] + s * (c[3] + s * (c[4] + s * (c[5] + s * (c[6] + s * (c[7] + s * (
        c[8] + s * (c[9] + s * (c[10] + s * c[11]))))))))))


def _taylor(first: int, dtype: Any) -> tuple[Any, ...]:
    return tuple(dtype((-1)**k / math.factorial(2 * k + first)) for k in range(12))


@overload(_sine, jit_options={'fastmath': FASTMATH}, strict=False)
def _sine_overload(angle: Any) -> Any:
    series = _taylor(1, np.float32 if angle.bitwidth == 32 else np.float64)
    return lambda angle: angle * _horner(angle * angle, series)


@overload(_cosine, jit_options={'fastmath': FASTMATH}, strict=False)
def _cosine_overload(angle: Any) -> Any:
    series = _taylor(0, np.float32 if angle.bitwidth == 32 else np.float64)
    return lambda angle: _horner(angle * angle, series)


class Plain(NamedTuple):
    r"""Vanilla scores only."""
    one: Any

    @staticmethod
    def layout(kind):
        return PLAIN

    @staticmethod
    def mix(kind, tag, q0, q1, q2, x0, x1, p0, p1, t0, t1, f0, f1):
        zero = real(q0, 0)
        a0, a1 = term(tag, q0, q1, q2, x0, x1)
        return a0, a1, zero, zero

    @staticmethod
    def pull_batch(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        zero = real(q0, 0)
        g0, g1, g2, _, _ = pull(tag, q0, q1, q2, x0, x1, v0, v1)
        return g0, g1, g2, zero, zero, zero

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        _, _, _, g0, g1 = pull(tag, q0, q1, q2, x0, x1, v0, v1)
        return g0, g1


class Listed(NamedTuple):
    r"""Gradients of vanilla scores that stand in a list, each with its triple."""
    one: Any

    @staticmethod
    def layout(kind):
        return LISTED

    pull_rows = staticmethod(Plain.pull_rows)  # type: ignore[misc]  # A method, not a field.


class Hard(NamedTuple):
    r"""Binary masks: a term is either that of the negative or that of the positive, which is the same in all slots of a
    triple.

    A mask must have the same value for all components that share a term. The positive's side is the gradient of its
    terms.
    """
    one: Any

    @staticmethod
    def layout(kind):
        return HARD

    @staticmethod
    def mix(kind, tag, q0, q1, q2, x0, x1, p0, p1, t0, t1, f0, f1):
        one = real(q0, 1)
        a0, a1 = term(tag, q0, q1, q2, x0, x1)
        return a0, a1, f0 * t0 + (one - f0) * a0, f1 * t1 + (one - f1) * a1

    @staticmethod
    def pull_batch(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        g0, g1, g2, _, _ = pull(tag, q0, q1, q2, x0, x1, v0 + (one - f0) * m0, v1 + (one - f1) * m1)
        return g0, g1, g2, f0 * m0, f1 * m1, real(q0, 0)

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        _, _, _, g0, g1 = pull(tag, q0, q1, q2, x0, x1, v0 + (one - f0) * m0, v1 + (one - f1) * m1)
        return g0, g1


class Shared(NamedTuple):
    r"""As :class:`Hard`, but with one mask for all slots of a triple, and :math:`f` is the kept fraction of the
    negative.

    Only the terms of the negative differ between slots. Those of the positive, and their gradient, are computed once.
    """
    one: Any

    @staticmethod
    def layout(kind):
        return SHARED

    @staticmethod
    def mix(kind, tag, q0, q1, q2, x0, x1, p0, p1, t0, t1, f0, f1):
        a0, a1 = term(tag, q0, q1, q2, x0, x1)
        return a0, a1, f0 * a0, f1 * a1

    @staticmethod
    def pull_batch(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        zero = real(q0, 0)
        g0, g1, g2, _, _ = pull(tag, q0, q1, q2, x0, x1, v0 + f0 * m0, v1 + f1 * m1)
        return g0, g1, g2, zero, zero, zero

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        _, _, _, g0, g1 = pull(tag, q0, q1, q2, x0, x1, v0 + f0 * m0, v1 + f1 * m1)
        return g0, g1


class Soft(NamedTuple):
    r"""Any real mask, per component or per slot. The positive's side is the gradient of the positive."""
    one: Any

    @staticmethod
    def layout(kind):
        return SOFT

    @staticmethod
    def mix(kind, tag, q0, q1, q2, x0, x1, p0, p1, t0, t1, f0, f1):
        one = real(q0, 1)
        a0, a1 = term(tag, q0, q1, q2, x0, x1)
        b0, b1 = term(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1)
        return a0, a1, b0, b1

    @staticmethod
    def pull_batch(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        a0, a1, a2, _, _ = pull(tag, q0, q1, q2, x0, x1, v0, v1)
        b0, b1, b2, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return a0 + b0, a1 + b1, a2 + b2, f0 * y0, f1 * y1, y0 * (p0 - x0) + y1 * (p1 - x1)

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        _, _, _, a0, a1 = pull(tag, q0, q1, q2, x0, x1, v0, v1)
        _, _, _, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return a0 + (one - f0) * y0, a1 + (one - f1) * y1


class Pair(NamedTuple):
    r"""As :class:`Soft`, but with a scalar weight and with a row of the table instead of the positive.

    :obj:`pull_rows` computes the gradients of both rows of a slot. The gradient of the partner is that of a negative
    without vanilla score that is mixed with the slot's own negative.
    """
    one: Any

    @staticmethod
    def layout(kind):
        return PAIR

    mix = staticmethod(Soft.mix)  # type: ignore[misc]  # A method, not a field.
    pull_batch = staticmethod(Soft.pull_batch)  # type: ignore[misc]  # A method, not a field.
    pull_rows = staticmethod(Soft.pull_rows)  # type: ignore[misc]  # A method, not a field.


class LonePair(NamedTuple):
    r"""As :class:`Pair`, without a vanilla score: half of the work."""
    one: Any

    @staticmethod
    def layout(kind):
        return PAIR

    @staticmethod
    def mix(kind, tag, q0, q1, q2, x0, x1, p0, p1, t0, t1, f0, f1):
        zero, one = real(q0, 0), real(q0, 1)
        b0, b1 = term(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1)
        return zero, zero, b0, b1

    @staticmethod
    def pull_batch(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        b0, b1, b2, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return b0, b1, b2, f0 * y0, f1 * y1, y0 * (p0 - x0) + y1 * (p1 - x1)

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        _, _, _, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return (one - f0) * y0, (one - f1) * y1


class Mask(NamedTuple):
    r"""The gradient of the masks in :class:`Soft`."""
    one: Any

    @staticmethod
    def layout(kind):
        return MASK

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        _, _, _, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return y0 * (p0 - x0), y1 * (p1 - x1)


#: The interactions that the kernels support.
TERMS: dict[type[Interaction], Any] = {Dot: DotTerms, L1: L1Terms, L2: L2Terms, ComplexModulus: ModulusTerms,
                                       ModulusPhase: ModulusPhaseTerms}


def terms_of(interaction: Interaction, dtype: Any) -> Any:
    r"""Returns the tag of an interaction, with its constants in :obj:`dtype`."""
    if isinstance(interaction, ModulusPhase):
        constants = (interaction.modulus_weight, interaction.phase_weight, interaction.phase_scale)
        return ModulusPhaseTerms(*(dtype(constant) for constant in constants))
    return TERMS[type(interaction)](dtype(1))

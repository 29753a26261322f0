r"""The interactions and the kinds of mutation as the CPU kernels of :func:`~pyg_emu.ops.emu_score` see them.

Each is a named tuple of numbers in the precision of the table, whose *type* tells the compiler which functions to
inline: the inner loops hold no branch, and one source serves them all.

An interaction sums *terms* of aligned components :math:`(q_0, q_1, q_2; x_0, x_1)` into two accumulators; components
that it does not have coincide with others and go unused. Its functions are

* :obj:`layout`: the numbers of query parts, of candidate parts and of accumulators, and whether there is a norm,
* :obj:`term`: what aligned components add to the accumulators,
* :obj:`finish`: the score of two accumulators, and the norm in it that :obj:`slope` will need,
* :obj:`slope`: the gradients of the accumulators, given that of the score and the norm,
* :obj:`pull`: the gradients of :math:`(q_0, q_1, q_2, x_0, x_1)`, given those of the accumulators.

A kind of mutation has

* :obj:`mix`: what aligned components add to the accumulators of the vanilla and of the mutated score,
* :obj:`pull_batch`: the gradients of :math:`(q_0, q_1, q_2)`, of the positive's side and of a scalar mask,
* :obj:`pull_rows`: the gradients of :math:`(x_0, x_1)` or, of :class:`Mask`, of :math:`(f_0, f_1)`,

where :math:`p` are the components of the positive or of a :class:`Pair`'s partner, :math:`t` its terms, :math:`f` the
mask, :math:`v` and :math:`m` the gradients of the accumulators of the vanilla and of the mutated score. Masks multiply
rather than select: the branch that a selection leaves in the last components of a row costs more than the whole row.
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
    r"""The function :obj:`name` of the type of its first argument, chosen at compile time."""
    def stub(tag: Any, *args: Any) -> Any:
        raise NotImplementedError

    register = overload(stub, jit_options={'fastmath': FASTMATH}, strict=False)
    register(lambda tag, *args: getattr(tag.instance_class, name))
    return stub


def real(like: Any, value: Any) -> Any:
    r""":obj:`value` in the precision of :obj:`like`; a bare literal would make everything float64."""
    return type(like)(value)


@overload(real, strict=False)
def _real(like: Any, value: Any) -> Any:
    dtype = like
    return lambda like, value: dtype(value)


#: What :obj:`layout` says of the kinds of mutation, one each.
PLAIN, HARD, SHARED, SOFT, MASK, PAIR = range(6)

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
    r"""Terms of :class:`~pyg_emu.core.interaction.L2`: one sum of squares, whose root is kept for the gradient."""
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
        # The subgradient at zero is zero. The factor 2 of the square's derivative cancels with the root's.
        zero = real(grad, 0)
        return zero if norm == zero else -grad / norm, zero

    @staticmethod
    def pull(tag, q0, q1, q2, x0, x1, w0, w1):
        zero = real(q0, 0)
        step = w0 * (q0 - x0)
        return step, zero, zero, -step, zero


class ModulusTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.ComplexModulus`: one sum of moduli of complex differences."""
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
    r"""Terms of :class:`~pyg_emu.core.interaction.ModulusPhase`: a sum of squares and one of sines."""
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


# |sin| and the slope of |sin| have period pi, so that angles need only be known modulo pi. Polynomials, unlike calls
# of a library's sine, fill vector registers.


def _reduce(angle: Any) -> Any:
    r"""The angle modulo :math:`\pi`, in :math:`[-\pi/2, \pi/2]`."""


def _sine(angle: Any) -> Any:
    r"""The sine of a reduced angle."""


def _cosine(angle: Any) -> Any:
    r"""The cosine of a reduced angle."""


@overload(_reduce, strict=False)  # Not reassociated: the two parts of pi must stay apart.
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


class Hard(NamedTuple):
    r"""Masks of zeros and ones: a term is that of the negative or that of the positive, the same in all slots of a
    triple.

    A mask must agree on all components that share a term. The positive's side is the gradient of its terms.
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
    r"""As :class:`Hard`, with one mask for all slots of a triple, and :math:`f` what is kept of the negative.

    Only the negative's share differs between slots: that of the positive is added, and its gradient found, once.
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
    r"""Any real mask, per component or per slot. The positive's side is its gradient."""
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
    r"""As :class:`Soft`, with a scalar weight and a row of the table in the positive's place.

    Both rows of a slot get their gradients from :obj:`pull_rows`: the partner's is that of a negative without a vanilla
    score that is mixed with the slot's own negative.
    """
    one: Any

    @staticmethod
    def layout(kind):
        return PAIR

    mix = staticmethod(Soft.mix)  # type: ignore[misc]  # a method, not a field
    pull_batch = staticmethod(Soft.pull_batch)  # type: ignore[misc]  # a method, not a field
    pull_rows = staticmethod(Soft.pull_rows)  # type: ignore[misc]  # a method, not a field


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
    r"""The gradient of the masks themselves, in :class:`Soft`."""
    one: Any

    @staticmethod
    def layout(kind):
        return MASK

    @staticmethod
    def pull_rows(kind, tag, q0, q1, q2, x0, x1, p0, p1, f0, f1, v0, v1, m0, m1):
        one = real(q0, 1)
        _, _, _, y0, y1 = pull(tag, q0, q1, q2, f0 * p0 + (one - f0) * x0, f1 * p1 + (one - f1) * x1, m0, m1)
        return y0 * (p0 - x0), y1 * (p1 - x1)


#: The interactions that the kernels know.
TERMS: dict[type[Interaction], Any] = {Dot: DotTerms, L1: L1Terms, L2: L2Terms, ComplexModulus: ModulusTerms,
                                       ModulusPhase: ModulusPhaseTerms}


def terms_of(interaction: Interaction, dtype: Any) -> Any:
    r"""The tag of an interaction, with its constants in :obj:`dtype`."""
    if isinstance(interaction, ModulusPhase):
        constants = (interaction.modulus_weight, interaction.phase_weight, interaction.phase_scale)
        return ModulusPhaseTerms(*(dtype(constant) for constant in constants))
    return TERMS[type(interaction)](dtype(1))

r"""The interactions and the kinds of masks for the kernels of :func:`~pyg_emu.ops.emu_loss`.

Each is a named tuple of numbers in the precision of the table. The compiler inlines the functions of its *type*, so
inner loops have no branches and one source serves all types. Components are vectors of lanes.

An interaction is a function of one sum of weighted terms of aligned components :math:`(q_0, q_1; x_0, x_1)`. Components
that an interaction does not have equal others and are not used. Its functions are

* :obj:`parts`: the number of parts of a row,
* :obj:`weight`: the weight of a term in the sum, given the lanes that count: a query component or one,
* :obj:`term`: the term,
* :obj:`finish`: the score given the sum,
* :obj:`slope`: the gradient of the sum given the gradient of the score, and the score,
* :obj:`pull_query` and :obj:`pull_row`: the derivatives of a weighted term by :math:`(q_0, q_1)` and by
  :math:`(x_0, x_1)`.

The functions of a kind of masks are

* :obj:`has_masks` and :obj:`has_own_masks`: whether negatives are mutated, and whether each has a mask of its own,
* :obj:`mix`: the sum of the mutated score with one more term, where :math:`f` is the weight of the negative's term,
  :obj:`kept` says which components are the negative's, and :math:`o` is the weighted term of the positive,
* :obj:`blend`: the gradient of the sum with respect to a weighted term of the negative, given those of the vanilla
  score and of both scores.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from typing import Any, NamedTuple

from numba.extending import overload

from pyg_emu.core.interaction import L1, L2, ComplexModulus, Dot, Interaction
from pyg_emu.ops.emu_loss.numba_simd import inverse_root
from pyg_emu.ops.numba_runtime import FASTMATH
from pyg_emu.ops.numba_vectors import absolute, choose, fill, multiply_add

#: The number of components that are computed at once: one register of float32 with AVX-512, and two with AVX.
LANES = 16


def by_type(name: str) -> Any:
    r"""Returns the function :obj:`name` of the type of its first argument, resolved at compile time."""
    def stub(tag: Any, *args: Any) -> Any:
        raise NotImplementedError

    register = overload(stub, jit_options={'fastmath': FASTMATH, 'forceinline': True}, strict=False)
    register(lambda tag, *args: getattr(tag.instance_class, name))
    return stub


parts, weight, term, finish, slope, pull_query, pull_row = (
    by_type(name) for name in ('parts', 'weight', 'term', 'finish', 'slope', 'pull_query', 'pull_row'))
has_masks, has_own_masks, mix, blend = (by_type(name) for name in ('has_masks', 'has_own_masks', 'mix', 'blend'))


class DotTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.Dot`: components of the candidate, weighted by those of the query."""
    one: Any

    @staticmethod
    def parts(tag):
        return 1

    @staticmethod
    def weight(tag, live, q0):
        return live * q0

    @staticmethod
    def term(tag, q0, q1, x0, x1):
        return x0

    @staticmethod
    def finish(tag, total):
        return total

    @staticmethod
    def slope(tag, grad, score):
        return grad

    @staticmethod
    def pull_query(tag, q0, q1, x0, x1):
        return x0, x0

    @staticmethod
    def pull_row(tag, q0, q1, x0, x1):
        return q0, q0


class L1Terms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.L1`: absolute differences."""
    one: Any

    @staticmethod
    def parts(tag):
        return 1

    @staticmethod
    def weight(tag, live, q0):
        return live

    @staticmethod
    def term(tag, q0, q1, x0, x1):
        return absolute(q0 - x0)

    @staticmethod
    def finish(tag, total):
        return -total

    @staticmethod
    def slope(tag, grad, score):
        return -grad

    @staticmethod
    def pull_query(tag, q0, q1, x0, x1):
        one, zero = fill(tag.one, LANES), fill(tag.one - tag.one, LANES)
        sign = choose(q0 > x0, one, zero) - choose(q0 < x0, one, zero)
        return sign, sign

    @staticmethod
    def pull_row(tag, q0, q1, x0, x1):
        one, zero = fill(tag.one, LANES), fill(tag.one - tag.one, LANES)
        sign = choose(x0 > q0, one, zero) - choose(x0 < q0, one, zero)
        return sign, sign


class L2Terms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.L2`: squares of differences."""
    one: Any

    @staticmethod
    def parts(tag):
        return 1

    @staticmethod
    def weight(tag, live, q0):
        return live

    @staticmethod
    def term(tag, q0, q1, x0, x1):
        return (q0 - x0) * (q0 - x0)

    @staticmethod
    def finish(tag, total):
        return -math.sqrt(total)

    @staticmethod
    def slope(tag, grad, score):
        # The subgradient at zero is zero. The factor 2 of the square's derivative and that of the root cancel.
        zero = grad - grad
        return zero if score == zero else grad / score

    @staticmethod
    def pull_query(tag, q0, q1, x0, x1):
        return q0 - x0, q0 - x0

    @staticmethod
    def pull_row(tag, q0, q1, x0, x1):
        return x0 - q0, x0 - q0


class ModulusTerms(NamedTuple):
    r"""Terms of :class:`~pyg_emu.core.interaction.ComplexModulus`: moduli of complex differences."""
    one: Any

    @staticmethod
    def parts(tag):
        return 2

    @staticmethod
    def weight(tag, live, q0):
        return live

    @staticmethod
    def term(tag, q0, q1, x0, x1):
        square = multiply_add(q0 - x0, q0 - x0, (q1 - x1) * (q1 - x1))
        return square * inverse_root(square)

    @staticmethod
    def finish(tag, total):
        return -total

    @staticmethod
    def slope(tag, grad, score):
        return -grad

    @staticmethod
    def pull_query(tag, q0, q1, x0, x1):
        inverse = inverse_root(multiply_add(q0 - x0, q0 - x0, (q1 - x1) * (q1 - x1)))
        return (q0 - x0) * inverse, (q1 - x1) * inverse

    @staticmethod
    def pull_row(tag, q0, q1, x0, x1):
        inverse = inverse_root(multiply_add(q0 - x0, q0 - x0, (q1 - x1) * (q1 - x1)))
        return (x0 - q0) * inverse, (x1 - q1) * inverse


class Unmasked(NamedTuple):
    r"""Vanilla scores only."""
    one: Any

    @staticmethod
    def has_masks(kind):
        return False

    @staticmethod
    def has_own_masks(kind):
        return False

    @staticmethod
    def mix(kind, mutated, w, f, kept, t, o):
        return mutated

    @staticmethod
    def blend(kind, kept, vanilla, both):
        return vanilla


class PerTriple(NamedTuple):
    r"""One mask for all negatives of a triple, so that the terms of the positive are summed once."""
    one: Any

    @staticmethod
    def has_masks(kind):
        return True

    @staticmethod
    def has_own_masks(kind):
        return False

    @staticmethod
    def mix(kind, mutated, w, f, kept, t, o):
        return multiply_add(f, t, mutated)

    @staticmethod
    def blend(kind, kept, vanilla, both):
        return choose(kept, both, vanilla)


class PerNegative(NamedTuple):
    r"""A mask for each negative."""
    one: Any

    @staticmethod
    def has_masks(kind):
        return True

    @staticmethod
    def has_own_masks(kind):
        return True

    @staticmethod
    def mix(kind, mutated, w, f, kept, t, o):
        return mutated + choose(kept, w * t, o)

    @staticmethod
    def blend(kind, kept, vanilla, both):
        return choose(kept, both, vanilla)


#: The interactions that the kernels support.
TERMS: dict[type[Interaction], Any] = {Dot: DotTerms, L1: L1Terms, L2: L2Terms, ComplexModulus: ModulusTerms}

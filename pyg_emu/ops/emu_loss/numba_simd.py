r"""What the kernels of :func:`~pyg_emu.ops.emu_loss` need beyond :mod:`pyg_emu.ops.numba_vectors`: further instructions
on vectors, and an exponential function that the compiler vectorizes.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from pyg_emu.ops.numba_runtime import FASTMATH
from pyg_emu.ops.numba_vectors import call, is_real

#: Untyped, because callers omit the first argument of the decorated function.
_instruction: Any = intrinsic

#: Flags with which the compiler may compute the inverse of a root from the estimate of the processor.
_ESTIMATE = ('arcp', 'afn', 'contract', 'nsz', 'reassoc')


@_instruction
def total(typing_context, vector):
    r"""Returns the sum of the lanes."""
    if not is_real(vector):
        return None

    def generate(context, builder, signature, arguments):
        element = arguments[0].type.element
        return call(builder, 'vector.reduce.fadd', element, [ir.Constant(element, -0.0), arguments[0]],
                    fastmath=('reassoc', ))

    return vector.dtype(vector), generate


@_instruction
def inverse_root(typing_context, vector):
    r"""Returns the inverses of the square roots of the lanes, and zero where a lane is zero."""
    if not is_real(vector):
        return None

    def generate(context, builder, signature, arguments):
        kind = arguments[0].type
        one, zero = (ir.Constant(kind, [value] * kind.count) for value in (1.0, 0.0))
        root = call(builder, 'sqrt', kind, arguments, fastmath=_ESTIMATE)
        inverse = builder.fdiv(one, root, flags=_ESTIMATE)
        return builder.select(builder.fcmp_ordered('>', arguments[0], zero), inverse, zero)

    return vector(vector), generate


@_instruction
def _power_of_two(typing_context, exponent):
    r"""Returns two to the power of a whole number within the range of normal numbers."""
    if not isinstance(exponent, types.Float):
        return None

    def generate(context, builder, signature, arguments):
        single = exponent.bitwidth == 32
        word, bias, shift = ir.IntType(exponent.bitwidth), 127 if single else 1023, 23 if single else 52
        whole = builder.fptosi(arguments[0], word)
        return builder.bitcast(builder.shl(builder.add(whole, word(bias)), word(shift)), arguments[0].type)

    return exponent(exponent), generate


def exponential(x: Any) -> Any:
    r"""The exponential function of numbers that are not positive. Numbers whose result is not a normal number count as
    the smallest that is. Unlike that of a library, it is vectorized.
    """
    raise NotImplementedError


@overload(exponential, jit_options={'fastmath': FASTMATH, 'forceinline': True}, strict=False)
def _exponential(x: Any) -> Any:
    if not isinstance(x, types.Float):
        return None
    dtype: Any = np.float32 if x.bitwidth == 32 else np.float64
    lowest, half = dtype(-87.0 if x.bitwidth == 32 else -708.0), dtype(0.5)
    log2_e, ln_2 = dtype(1.0 / math.log(2.0)), dtype(math.log(2.0))
    c = tuple(dtype(1.0 / math.factorial(k)) for k in range(14))
    if x.bitwidth == 32:

        def single(x):
            x = lowest if x < lowest else x
            n = np.floor(x * log2_e + half)
            r = x - n * ln_2
            series = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * (c[5] + r * (c[6] + r * c[7]))))))
            return series * _power_of_two(n)

        return single

    def double(x):
        x = lowest if x < lowest else x
        n = np.floor(x * log2_e + half)
        r = x - n * ln_2
        high = c[8] + r * (c[9] + r * (c[10] + r * (c[11] + r * (c[12] + r * c[13]))))
        low = c[0] + r * (c[1] + r * (c[2] + r * (c[3] + r * (c[4] + r * (c[5] + r * (c[6] + r * c[7]))))))
        square = r * r
        fourth = square * square
        return (low + fourth * fourth * high) * _power_of_two(n)

    return double

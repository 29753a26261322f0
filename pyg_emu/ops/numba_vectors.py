r"""SIMD vectors with a fixed number of lanes for Numba kernels, mapped to LLVM vector types.

LLVM keeps the accumulators of a loop in registers only if it can prove that no store in the loop aliases them. It
cannot prove this for array rows. A :class:`Vector` is a value without an address, stored in as many registers as its
lanes need.

.. code-block:: python

    @njit
    def largest_row(x, out):
        largest = load(x, 0, 0, 64)
        for i in range(1, x.shape[0]):
            m = load(x, i, 0, 64)
            largest = choose(m > largest, m, largest)
        store(out, 0, 0, largest)

The operators :obj:`+`, :obj:`-`, :obj:`*`, :obj:`/` and comparisons work lane by lane on vectors of the same type. The
number of lanes must be a compile-time constant.
"""
# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_INDEX = ir.IntType(32)

#: Untyped, because callers omit the first argument of the decorated function.
_instruction: Any = intrinsic


class Vector(types.Type):
    r"""The Numba type of a vector.

    Args:
        dtype (numba.types.Type): The type of a lane.
        lanes (int): The number of lanes.
    """
    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f'Vector({dtype}, {lanes})')


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager.lookup(kind.dtype).get_value_type(), kind.lanes))


def _lanes(kind: Any) -> int:
    r"""Returns the value of a constant integer argument, or zero if the argument is not constant."""
    return kind.literal_value if isinstance(kind, types.IntegerLiteral) else 0


def _is_rows(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.ndim == 2 and kind.layout == 'C'


def _pointer(context, builder, signature, arguments, vector):
    r"""Returns the address of the first lane. Negative row and column indices are not supported."""
    rows = context.make_array(signature.args[0])(context, builder, arguments[0])
    width = builder.extract_value(rows.shape, 1)
    row, column = (context.cast(builder, arguments[i], signature.args[i], types.intp) for i in (1, 2))
    offset = builder.add(builder.mul(row, width), column)
    return builder.bitcast(builder.gep(rows.data, [offset]), vector.as_pointer())


def _alignment(context, kind) -> int:
    # The alignment of an array element, because the alignment of rows is unknown.
    return context.get_abi_sizeof(context.get_value_type(kind.dtype))


@_instruction(prefer_literal=True)
def load(typing_context, rows, row, column, lanes):
    r"""Loads consecutive lanes from a row of a C-contiguous matrix, starting at :obj:`column`."""
    if not _is_rows(rows) or not _lanes(lanes):
        return None
    kind = Vector(rows.dtype, _lanes(lanes))

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, context.get_value_type(kind))
        return builder.load(pointer, align=_alignment(context, kind))

    return kind(rows, row, column, lanes), generate


@_instruction
def store(typing_context, rows, row, column, vector):
    r"""Stores a vector to a row of a C-contiguous matrix, starting at :obj:`column`."""
    if not _is_rows(rows) or not isinstance(vector, Vector) or vector.dtype != rows.dtype:
        return None

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, arguments[3].type)
        builder.store(arguments[3], pointer, align=_alignment(context, vector))
        return context.get_dummy_value()

    return types.none(rows, row, column, vector), generate


@_instruction(prefer_literal=True)
def prefetch(typing_context, rows, row, column, writes):
    r"""Prefetches the cache line of an element of a C-contiguous matrix, for reading (0) or writing (1).

    Addresses outside the matrix are allowed.
    """
    if not _is_rows(rows) or not isinstance(writes, types.IntegerLiteral):
        return None

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, signature, arguments, ir.IntType(8))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INDEX, _INDEX, _INDEX])
        function = builder.module.declare_intrinsic('llvm.prefetch', [pointer.type], kind)
        builder.call(function, [pointer, _INDEX(writes.literal_value), _INDEX(3), _INDEX(1)])
        return context.get_dummy_value()

    return types.none(rows, row, column, writes), generate


@_instruction(prefer_literal=True)
def fill(typing_context, value, lanes):
    r"""Returns a vector with all lanes equal to :obj:`value`."""
    if not _lanes(lanes):
        return None
    value = types.unliteral(value)
    kind = Vector(value, _lanes(lanes))

    def generate(context, builder, signature, arguments):
        return _splat(builder, context.get_value_type(kind), arguments[0])

    return kind(value, lanes), generate


def _splat(builder, vector, value):
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, value, _INDEX(0))
    return builder.shuffle_vector(one, undefined, ir.VectorType(_INDEX, vector.count)([0] * vector.count))


def is_real(kind: Any) -> bool:
    r"""Returns whether a Numba type is a vector of floating-point numbers."""
    return isinstance(kind, Vector) and isinstance(kind.dtype, types.Float)


def call(builder, name, result, operands, **options):
    r"""Calls an LLVM function that is overloaded by the type of its last operand, a vector."""
    vector = operands[-1].type
    suffix = f'v{vector.count}f{32 if isinstance(vector.element, ir.FloatType) else 64}'
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    function = cgutils.get_or_insert_function(builder.module, kind, f'llvm.{name}.{suffix}')
    return builder.call(function, operands, **options)


@_instruction
def multiply_add(typing_context, one, other, added):
    r"""Returns :obj:`one * other + added`, rounded once where the processor does both in one instruction."""
    if not is_real(one) or not one == other == added:
        return None

    def generate(context, builder, signature, arguments):
        return call(builder, 'fmuladd', arguments[0].type, arguments)

    return one(one, other, added), generate


def _of_lanes(vector, name):
    if not is_real(vector):
        return None

    def generate(context, builder, signature, arguments):
        return call(builder, name, arguments[0].type, arguments)

    return vector(vector), generate


@_instruction
def absolute(typing_context, vector):
    r"""Returns the absolute values of the lanes."""
    return _of_lanes(vector, 'fabs')


@_instruction
def square_root(typing_context, vector):
    r"""Returns the square roots of the lanes, correctly rounded."""
    return _of_lanes(vector, 'sqrt')


@_instruction
def anywhere(typing_context, condition):
    r"""Returns whether any lane is true."""
    if not isinstance(condition, Vector) or condition.dtype != types.boolean:
        return None

    def generate(context, builder, signature, arguments):
        bits = ir.IntType(condition.lanes)
        return builder.icmp_unsigned('!=', builder.bitcast(arguments[0], bits), bits(0))

    return types.boolean(condition), generate


@_instruction
def convert(typing_context, vector, like):
    r"""The lanes of a vector of floating-point numbers in the type of the elements of an array."""
    if not isinstance(vector, Vector) or not isinstance(like, types.Array):
        return None
    kind = Vector(like.dtype, vector.lanes)

    def generate(context, builder, signature, arguments):
        if kind == vector:
            return arguments[0]
        cast = builder.fpext if kind.dtype.bitwidth > vector.dtype.bitwidth else builder.fptrunc
        return cast(arguments[0], context.get_value_type(kind))

    return kind(vector, like), generate


@_instruction
def choose(typing_context, condition, one, other):
    r"""Selects :obj:`one if condition else other` lane by lane."""
    if not isinstance(one, Vector) or one != other or condition != Vector(types.boolean, one.lanes):
        return None

    def generate(context, builder, signature, arguments):
        return builder.select(*arguments)

    return one(condition, one, other), generate


def _part(typing_context, vector, first, last):
    kind = Vector(vector.dtype, last - first)

    def generate(context, builder, signature, arguments):
        mask = ir.VectorType(_INDEX, kind.lanes)(list(range(first, last)))
        return builder.shuffle_vector(arguments[0], arguments[0], mask)

    return kind(vector), generate


@_instruction
def first_half(typing_context, vector):
    r"""Returns the first half of the lanes."""
    return _part(typing_context, vector, 0, vector.lanes // 2) if isinstance(vector, Vector) else None


@_instruction
def second_half(typing_context, vector):
    r"""Returns the second half of the lanes."""
    return _part(typing_context, vector, vector.lanes // 2, vector.lanes) if isinstance(vector, Vector) else None


@_instruction
def join(typing_context, one, other):
    r"""Concatenates the lanes of two vectors of the same type."""
    if not isinstance(one, Vector) or one != other:
        return None
    kind = Vector(one.dtype, 2 * one.lanes)

    def generate(context, builder, signature, arguments):
        return builder.shuffle_vector(*arguments, ir.VectorType(_INDEX, kind.lanes)(list(range(kind.lanes))))

    return kind(one, other), generate


def _register(operation: Any, instruction: str, *before: str, compares: bool = False,
              domain: Any = types.Float) -> None:
    r"""Registers an LLVM instruction as a binary operator on vectors."""
    @_instruction
    def compute(typing_context, one, other):
        def generate(context, builder, signature, arguments):
            return getattr(builder, instruction)(*before, *arguments)

        return Vector(types.boolean if compares else one.dtype, one.lanes)(one, other), generate

    @overload(operation)
    def of_vectors(one, other):
        if isinstance(one, Vector) and isinstance(one.dtype, domain) and one == other:
            return lambda one, other: compute(one, other)
        return None


for _operation, _name in ((operator.add, 'fadd'), (operator.sub, 'fsub'), (operator.mul, 'fmul'),
                          (operator.truediv, 'fdiv')):
    _register(_operation, _name)
for _operation, _sign in ((operator.gt, '>'), (operator.lt, '<'), (operator.le, '<=')):
    # Ordered comparisons return false if either operand is NaN.
    _register(_operation, 'fcmp_ordered', _sign, compares=True)
_register(operator.eq, 'icmp_signed', '==', compares=True, domain=types.Integer)

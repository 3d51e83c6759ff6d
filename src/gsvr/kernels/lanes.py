"""Building blocks of vector code for Numba intrinsics: eight float32 lanes at a time, in LLVM's own terms."""

from __future__ import annotations

import llvmlite.ir as ir
from numba.core import cgutils

LANES = 8
# Without leave to reassociate: a compiler that has it turns the multiplications from row to row into powers, made in
# advance for several rows at once, and is then short of registers.
FAST = ("nnan", "ninf", "nsz", "arcp", "contract", "afn")
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
INTEGER = ir.IntType(64)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)


def data(context, builder, array_type, array):
    """Pointer to the first element of a contiguous array."""
    return context.make_array(array_type)(context, builder, array).data


def vector_pointer(builder, pointer, offset):
    """Pointer to the eight elements that start at `offset`."""
    return builder.bitcast(builder.gep(pointer, [offset]), VECTOR.as_pointer())


def load_vector(builder, pointer, offset):
    """Eight elements from `offset` on, aligned or not."""
    return builder.load(vector_pointer(builder, pointer, offset), align=4)


def load_scalar(builder, pointer, offset):
    """The element at `offset` (an LLVM integer or a Python one)."""
    offset = ir.Constant(INTEGER, offset) if isinstance(offset, int) else offset
    return builder.load(builder.gep(pointer, [offset]))


def constant(value):
    """The same number in every lane."""
    return ir.Constant(VECTOR, [value] * LANES)


def broadcast(builder, scalar):
    """A scalar in every lane."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, zeros)


def lane_numbers():
    """0, 1, ..., 7."""
    return ir.Constant(VECTOR, [float(lane) for lane in range(LANES)])


def multiply(builder, a, b):
    """Product a b."""
    return builder.fmul(a, b, flags=FAST)


def add(builder, a, b):
    """Sum a + b."""
    return builder.fadd(a, b, flags=FAST)


def multiply_add(builder, a, b, c):
    """Sum a b + c, with one rounding where the machine can."""
    return builder.fadd(builder.fmul(a, b, flags=FAST), c, flags=FAST)


def add_to(builder, pointer, offset, values):
    """Add eight values to memory."""
    target = vector_pointer(builder, pointer, offset)
    builder.store(add(builder, builder.load(target, align=4), values), target, align=4)


def total(builder, vector):
    """Sum of the lanes."""
    reduce_type = ir.FunctionType(FLOAT, [FLOAT, VECTOR])
    reduce = cgutils.get_or_insert_function(builder.module, reduce_type, "llvm.vector.reduce.fadd.v8f32")
    return builder.call(reduce, [ir.Constant(FLOAT, 0.0), vector], fastmath=("fast",))


# 2^f for |f| <= 1/2, to 8e-8 (and 2.4e-7 with the rounding of float32): the polynomial of degree five whose largest
# relative error is smallest
_POWER_OF_TWO = (1.0000000717, 0.6931469671, 0.2402211972, 0.0555071327, 0.00967554143, 0.00132764721)


def power_of_two(builder, y):
    """2^y for y <= 115; zero below -126.

    y = k + f: a polynomial for 2^f, and 2^k by the bits of a float. The relative error is that of y in float32 for the
    most part: below 5e-6 from -126 to 115, and below 1.5e-6 from -23 to 0.
    """
    round_type = ir.FunctionType(VECTOR, [VECTOR])
    nearest = cgutils.get_or_insert_function(builder.module, round_type, "llvm.rint.v8f32")
    k = builder.call(nearest, [y])
    f = builder.fsub(y, k, flags=FAST)
    p = constant(_POWER_OF_TWO[-1])
    for coefficient in _POWER_OF_TWO[-2::-1]:
        p = multiply_add(builder, p, f, constant(coefficient))
    shift = builder.shl(builder.fptosi(k, _INTEGERS), ir.Constant(_INTEGERS, [23] * LANES))
    power = builder.bitcast(builder.add(builder.bitcast(p, _INTEGERS), shift), VECTOR)
    return builder.select(builder.fcmp_ordered(">", y, constant(-126.0)), power, constant(0.0))

"""Building blocks of vector code for Numba intrinsics: eight float32 lanes at a time, in LLVM's own terms."""

from __future__ import annotations

import math

import llvmlite.ir as ir
from numba.core import cgutils

LANES = 8
FAST = ("fast",)
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
    return builder.call(reduce, [ir.Constant(FLOAT, 0.0), vector], fastmath=FAST)


def exponential(builder, x):
    """Natural exponential of x <= 80; below -87 it is about 1e-38.

    x = (k + f) ln 2: a polynomial for 2^f on [-1/2, 1/2], and 2^k by the bits of a float. The relative error is that of
    x / ln 2 in float32 for the most part: below 5e-6 from -87 to 80, and below 1.5e-6 from -16 to 0.
    """
    y = multiply(builder, x, constant(1 / math.log(2)))
    least = constant(-126.0)
    y = builder.select(builder.fcmp_ordered(">", y, least), y, least)
    floor_type = ir.FunctionType(VECTOR, [VECTOR])
    floor = cgutils.get_or_insert_function(builder.module, floor_type, "llvm.floor.v8f32")
    k = builder.call(floor, [add(builder, y, constant(0.5))])
    f = builder.fsub(y, k, flags=FAST)
    # Taylor series of 2^f, six terms after the first
    p = constant(math.log(2) ** 6 / math.factorial(6))
    for power in range(5, -1, -1):
        p = multiply_add(builder, p, f, constant(math.log(2) ** power / math.factorial(power)))
    bias = ir.Constant(_INTEGERS, [127] * LANES)
    bits = builder.shl(builder.add(builder.fptosi(k, _INTEGERS), bias), ir.Constant(_INTEGERS, [23] * LANES))
    return multiply(builder, p, builder.bitcast(bits, VECTOR))

"""Vector building blocks of the CPU kernels: eight float32 lanes at a time.

LLVM's loop vectoriser does not reliably turn the short, overlapping loops of a splat into vector code, so
the three that matter are written as explicit vector operations. They run on any CPU: where it has no 256-bit
registers, LLVM splits them.
"""

from __future__ import annotations

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from gsvr.kernels import lanes


@njit(fastmath=True, inline="always")
def exponential(x):  # noqa: D103 - numba inlines the body; see the comment
    # exp(x) in float32 for x <= 88, relative error below 5e-6 over [-80, 10], underflows to about 1e-38:
    # x = (k + f) ln 2, Taylor polynomial for 2^f on [-1/2, 1/2], 2^k by its bits. Plain arithmetic
    # only, so that a loop over it becomes vector code.
    y = max(x * np.float32(1.4426950408889634), np.float32(-126.0))
    k = np.floor(y + np.float32(0.5))
    f = y - k
    p = np.float32(1.5403530393381609e-4)
    p = p * f + np.float32(1.3333558146428443e-3)
    p = p * f + np.float32(9.6181291076284772e-3)
    p = p * f + np.float32(5.5504108664821580e-2)
    p = p * f + np.float32(2.4022650695910072e-1)
    p = p * f + np.float32(6.9314718055994531e-1)
    p = p * f + np.float32(1.0)
    return p * (np.int32((np.int32(k) + np.int32(127)) << np.int32(23))).view(np.float32)


def gaussian_powers(builder, ratio):
    """Vectors of ratio^l in lane l, and of ratio^8 in all lanes: one factor a binary digit of l."""
    ones = ir.Constant(lanes.VECTOR, [1.0] * lanes.LANES)
    power, powers = lanes.broadcast(builder, ratio), None
    for bit in range(3):
        digits = [(lane >> bit) & 1 for lane in range(lanes.LANES)]
        has_bit = ir.Constant(ir.VectorType(ir.IntType(1), lanes.LANES), digits)
        factor = builder.select(has_bit, power, ones)
        powers = factor if powers is None else lanes.multiply(builder, powers, factor)
        power = lanes.multiply(builder, power, power)
    return powers, power


@intrinsic
def gaussian_window(typing_context, table, ratio, scale, out, blocks):
    """out[l] = scale * ratio^l * table[l] for l in 0 .. 8 blocks - 1: a Gaussian along pixels without exp."""
    signature = types.void(table, types.float32, types.float32, out, types.int64)

    def generate(context, builder, signature, arguments):
        table_type, _, _, out_type, _ = signature.args
        table, ratio, scale, out, blocks = arguments
        table_data = lanes.data(context, builder, table_type, table)
        out_data = lanes.data(context, builder, out_type, out)
        powers, power = gaussian_powers(builder, ratio)
        powers = lanes.multiply(builder, powers, lanes.broadcast(builder, scale))
        state = cgutils.alloca_once_value(builder, powers)
        with cgutils.for_range(builder, blocks) as loop:
            offset = builder.mul(loop.index, ir.Constant(lanes.INTEGER, lanes.LANES))
            current = builder.load(state)
            values = builder.load(lanes.vector_pointer(builder, table_data, offset), align=4)
            target = lanes.vector_pointer(builder, out_data, offset)
            builder.store(lanes.multiply(builder, values, current), target, align=4)
            builder.store(lanes.multiply(builder, current, power), state)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_outer(typing_context, plane, base, stride, column, n_rows, row, blocks):
    """plane[base + a stride + l] += column[a] row[l] for a < n_rows, l < 8 blocks."""
    signature = types.void(plane, types.int64, types.int64, column, types.int64, row, types.int64)

    def generate(context, builder, signature, arguments):
        plane, base, stride, column, n_rows, row, blocks = arguments
        plane_data = lanes.data(context, builder, signature.args[0], plane)
        column_data = lanes.data(context, builder, signature.args[3], column)
        row_data = lanes.data(context, builder, signature.args[5], row)
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, ir.Constant(lanes.INTEGER, lanes.LANES))
            vector = builder.load(lanes.vector_pointer(builder, row_data, lane), align=4)
            start = builder.add(base, lane)
            with cgutils.for_range(builder, n_rows) as loop:
                offset = builder.add(start, builder.mul(loop.index, stride))
                pointer = lanes.vector_pointer(builder, plane_data, offset)
                factor = builder.load(builder.gep(column_data, [loop.index]))
                old = builder.load(pointer, align=4)
                new = lanes.multiply_add(builder, lanes.broadcast(builder, factor), vector, old)
                builder.store(new, pointer, align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot_outer(typing_context, plane, base, stride, column, n_rows, row, blocks):
    """Sum over a < n_rows, l < 8 blocks of plane[base + a stride + l] column[a] row[l]."""
    signature = types.float32(plane, types.int64, types.int64, column, types.int64, row, types.int64)

    def generate(context, builder, signature, arguments):
        plane, base, stride, column, n_rows, row, blocks = arguments
        plane_data = lanes.data(context, builder, signature.args[0], plane)
        column_data = lanes.data(context, builder, signature.args[3], column)
        row_data = lanes.data(context, builder, signature.args[5], row)
        zeros = ir.Constant(lanes.VECTOR, [0.0] * lanes.LANES)
        total = cgutils.alloca_once_value(builder, zeros)
        partial = cgutils.alloca_once_value(builder, zeros)
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, ir.Constant(lanes.INTEGER, lanes.LANES))
            start = builder.add(base, lane)
            builder.store(zeros, partial)
            with cgutils.for_range(builder, n_rows) as loop:
                offset = builder.add(start, builder.mul(loop.index, stride))
                values = builder.load(lanes.vector_pointer(builder, plane_data, offset), align=4)
                factor = lanes.broadcast(builder, builder.load(builder.gep(column_data, [loop.index])))
                builder.store(lanes.multiply_add(builder, factor, values, builder.load(partial)), partial)
            vector = builder.load(lanes.vector_pointer(builder, row_data, lane), align=4)
            builder.store(lanes.multiply_add(builder, vector, builder.load(partial), builder.load(total)), total)
        return lanes.total(builder, builder.load(total))

    return signature, generate


@intrinsic
def add_outer_planes(
    typing_context, planes, base, stride, plane_size, columns, column_size, n_rows, first_row, second_row, blocks
):
    """`add_outer` on seven planes at once: columns 0, 1, 3, 5 with `first_row`, columns 2, 4, 6 with `second_row`.

    Plane k starts at ``k * plane_size`` of `planes`, column k at ``k * column_size`` of `columns`.
    """
    integer = types.int64
    signature = types.void(
        planes, integer, integer, integer, columns, integer, integer, first_row, second_row, integer
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        planes, base, stride, plane_size, columns, column_size, n_rows, first_row, second_row, blocks = arguments
        plane_data = lanes.data(context, builder, signature.args[0], planes)
        column_data = lanes.data(context, builder, signature.args[4], columns)
        row_data = [
            lanes.data(context, builder, signature.args[7 + n], row) for n, row in enumerate((first_row, second_row))
        ]
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, ir.Constant(lanes.INTEGER, lanes.LANES))
            vectors = [builder.load(lanes.vector_pointer(builder, data, lane), align=4) for data in row_data]
            start = builder.add(base, lane)
            with cgutils.for_range(builder, n_rows) as loop:
                offset = builder.add(start, builder.mul(loop.index, stride))
                entry = loop.index
                for plane in range(7):
                    pointer = lanes.vector_pointer(builder, plane_data, offset)
                    factor = lanes.broadcast(builder, builder.load(builder.gep(column_data, [entry])))
                    vector = vectors[1 if plane in (2, 4, 6) else 0]
                    new = lanes.multiply_add(builder, factor, vector, builder.load(pointer, align=4))
                    builder.store(new, pointer, align=4)
                    offset, entry = builder.add(offset, plane_size), builder.add(entry, column_size)
        return context.get_dummy_value()

    return signature, generate

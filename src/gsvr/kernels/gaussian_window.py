"""The window of one free Gaussian in a slice: its form in registers, and the loop over rows and blocks of columns.

A *form* holds the coefficients of the quadratic that a blurred Gaussian is the exponential of (see `gaussian_simd`).
"""

from __future__ import annotations

import llvmlite.ir as ir
from numba.core import cgutils

from gsvr.kernels import lanes

# log peak, coefficients of y, x, y y, y x, x x, the mean's place along u and v in the window; then the logarithm of the
# second component over the first: constant, y, x, and by what factor that ratio changes from row to row
FORM_SIZE = 12
# a second component that is not there: exp of it is nothing
ABSENT = -200.0


class Form:
    """The coefficients of one Gaussian in registers; `power` multiplies the exponent (2: the squared Gaussian)."""

    def __init__(self, builder, data, index, power) -> None:
        first = builder.mul(index, ir.Constant(lanes.INTEGER, FORM_SIZE))

        def read(number):
            return lanes.load_scalar(builder, data, builder.add(first, ir.Constant(lanes.INTEGER, number)))

        self.log_peak, self.y, self.x, self.yy, self.yx, self.xx = (
            builder.fmul(read(number), power, flags=lanes.FAST) for number in range(6)
        )
        self.mean_y, self.mean_x = read(6), read(7)
        self.ratio, self.ratio_y, self.ratio_x = read(8), read(9), read(10)
        self.ratio_step = lanes.broadcast(builder, read(11))

    def first_ratios(self, builder, x):
        """Second component over the first in the window's first row."""
        y = builder.fneg(self.mean_y)
        row = lanes.multiply_add(builder, self.ratio_y, y, self.ratio)
        slope = lanes.multiply(builder, lanes.broadcast(builder, self.ratio_x), x)
        exponent = lanes.add(builder, slope, lanes.broadcast(builder, row))
        # a component that is not there is zero, not a number so small that the machine is slow with it
        there = builder.fcmp_ordered(">", exponent, lanes.constant(ABSENT / 2))
        return builder.select(there, lanes.exponential(builder, exponent), lanes.constant(0.0))

    def columns(self, builder, block):
        """Distances x of a block of eight pixels, and the part of the exponent that depends on x alone."""
        start = builder.sitofp(builder.mul(block, ir.Constant(lanes.INTEGER, lanes.LANES)), lanes.FLOAT)
        start = builder.fsub(start, self.mean_x, flags=lanes.FAST)
        x = lanes.add(builder, lanes.broadcast(builder, start), lanes.lane_numbers())
        slope = lanes.multiply_add(builder, lanes.broadcast(builder, self.xx), x, lanes.broadcast(builder, self.x))
        return x, lanes.multiply_add(builder, slope, x, lanes.broadcast(builder, self.log_peak))

    def row(self, builder, row, x, along):
        """Distance y of a row, and the Gaussian at its eight pixels."""
        y = builder.fsub(builder.sitofp(row, lanes.FLOAT), self.mean_y, flags=lanes.FAST)
        whole = lanes.multiply(builder, y, lanes.multiply_add(builder, self.yy, y, self.y))
        tilt = lanes.broadcast(builder, lanes.multiply(builder, y, self.yx))
        exponent = lanes.multiply_add(builder, tilt, x, lanes.add(builder, along, lanes.broadcast(builder, whole)))
        return y, lanes.exponential(builder, exponent)


class Window:
    """Loops over the window of a Gaussian.

    `visit` gets where eight pixels are, their y and x, the Gaussian there (of the profile's first component), and the
    second component as a multiple of the first.
    """

    def __init__(self, form, base, stride, n_rows, blocks, limits=None, reach=None) -> None:
        self.form, self.base, self.stride, self.n_rows, self.blocks = form, base, stride, n_rows, blocks
        self.limits, self.reach = limits, reach

    def run(self, builder, visit, before_block=None, after_block=None):
        """Emit the loops; what `before_block` makes of a block's x is handed to `visit`."""
        ratios = cgutils.alloca_once_value(builder, lanes.constant(0.0))
        with cgutils.for_range(builder, self.blocks) as block:
            x, along = self.form.columns(builder, block.index)
            builder.store(self.form.first_ratios(builder, x), ratios)
            start = builder.add(self.base, builder.mul(block.index, ir.Constant(lanes.INTEGER, lanes.LANES)))
            context = before_block(x) if before_block else None
            with cgutils.for_range(builder, self.n_rows) as row:
                y, value = self.form.row(builder, row.index, x, along)
                offset = builder.add(start, builder.mul(row.index, self.stride))
                ratio = builder.load(ratios)
                builder.store(lanes.multiply(builder, ratio, self.form.ratio_step), ratios)
                visit(offset, y, x, self._seen(builder, offset, y, x, value), ratio, context)
            if after_block:
                after_block(x)

    def _seen(self, builder, offset, y, x, value):
        """The Gaussian where it is among the nearest, zero elsewhere."""
        if self.limits is None:
            return value
        depth, unit_y, unit_x = (lanes.load_scalar(builder, self.reach, number) for number in range(3))
        row = lanes.multiply_add(builder, lanes.multiply(builder, y, y), unit_y, depth)
        square = lanes.multiply(builder, x, x)
        distance = lanes.multiply_add(builder, square, lanes.broadcast(builder, unit_x), lanes.broadcast(builder, row))
        limit = lanes.load_vector(builder, self.limits, offset)
        return builder.select(builder.fcmp_ordered("<=", distance, limit), value, lanes.constant(0.0))

"""The window of one free Gaussian in a slice, in pieces of at most eight columns: its form, and the loop over its rows.

A piece's *form* holds the coefficients of the quadratic that a blurred Gaussian is two to the power of, about the
piece's first pixel. From row to row the Gaussian follows by two multiplications, so only the first row takes
exponentials. They are taken for many pieces in turn: each is a long chain of operations that depend on each other, and
a processor works on several chains at a time only where nothing between them has to be guessed.
"""

# Numba's intrinsics have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gsvr.kernels import lanes
from gsvr.kernels.lanes import LANES

# Binary logarithms at the pixel in lane x of the first row, as coefficients of 1 and x: of the Gaussian (and of x x),
# of the next row over this one, of the second component over the first. Then by what factors these two ratios change
# from row to row, and where the mean stands along u and v from the first pixel.
VALUE, NEXT_ROW, SECOND, NEXT_ROW_STEP, SECOND_STEP, MEAN = 0, 3, 5, 7, 8, 9
FORM_SIZE = 11
# a second component that is not there: two to the power of it is nothing
ABSENT = -200.0
# A value below 2^-126 in the first row is lost for the whole piece. A Gaussian falls by exp(-n^2 / 2) over n of its own
# standard deviations along the column, so pieces this long lose nothing that is nearer to its mean than five: a value
# at most 5 + 8 of them from the largest in its column. That holds for the first component of a profile; what very flat
# Gaussians (0.3 mm thin) lose of the second is below 2e-3 of its peak, within the bound of a cut-off of 3.
PIECE_DEVIATIONS = 8.0
LONGEST_PIECE = 16
# Pieces whose first rows are prepared together, and the numbers kept of each: three vectors.
PIECES_AT_ONCE = 16
START_SIZE = 3 * LANES
# Largest binary logarithm of a ratio: float32 has nothing above 2^128.
_MOST = 115.0


def _coefficient(builder, forms, first, number):
    """One number of a form, in every lane."""
    offset = builder.add(first, ir.Constant(lanes.INTEGER, number))
    return lanes.broadcast(builder, lanes.load_scalar(builder, forms, offset))


def _starting(components):
    @intrinsic
    def start_pieces(typing_context, forms, first, count, starts):
        """First rows of pieces first + i, i < count: the Gaussian, the next row over it, the second component over it.

        They are written to starts[i]; the second component only if there are two.
        """
        integer = types.int64
        signature = types.void(forms, integer, integer, starts)

        def generate(context, builder, signature, arguments):
            forms, first, count, starts = arguments
            forms = lanes.data(context, builder, signature.args[0], forms)
            starts = lanes.data(context, builder, signature.args[3], starts)
            with cgutils.for_range(builder, count) as piece:
                form = builder.mul(builder.add(first, piece.index), ir.Constant(lanes.INTEGER, FORM_SIZE))
                target = builder.mul(piece.index, ir.Constant(lanes.INTEGER, START_SIZE))
                for number, exponent in enumerate(_first_row(builder, forms, form, components)):
                    place = builder.add(target, ir.Constant(lanes.INTEGER, number * LANES))
                    power = lanes.power_of_two(builder, exponent)
                    builder.store(power, lanes.vector_pointer(builder, starts, place), align=4)
            return context.get_dummy_value()

        return signature, generate

    return start_pieces


def _first_row(builder, forms, form, components):
    """Binary logarithms of what `start_pieces` writes."""

    def coefficient(number):
        return _coefficient(builder, forms, form, number)

    x, most = lanes.lane_numbers(), lanes.constant(_MOST)
    slope = lanes.multiply_add(builder, coefficient(VALUE + 2), x, coefficient(VALUE + 1))
    yield lanes.multiply_add(builder, slope, x, coefficient(VALUE))
    for number in (NEXT_ROW, SECOND)[:components]:
        ratio = lanes.multiply_add(builder, coefficient(number + 1), x, coefficient(number))
        yield builder.select(builder.fcmp_ordered("<", ratio, most), ratio, most)


start_pieces, start_single_pieces = _starting(2), _starting(1)


class Rows:
    """Loops over the rows of one piece.

    `visit` gets where eight pixels are, their y and x from the mean, the Gaussian there (of the profile's first
    component), and the second component as a multiple of the first. The Gaussian is multiplied by `factor` (a vector)
    if that is given, and is zero where it is not among the nearest if there are limits.
    """

    def __init__(self, forms, index, starts, place, base, stride, n_rows, limits=None, reach=None, factor=None) -> None:
        self.forms, self.index, self.starts, self.place = forms, index, starts, place
        self.base, self.stride, self.n_rows = base, stride, n_rows
        self.limits, self.reach, self.factor = limits, reach, factor

    def run(self, builder, visit):
        """Emit the loop; returns the distance x of the eight columns."""
        form = builder.mul(self.index, ir.Constant(lanes.INTEGER, FORM_SIZE))
        next_row_step, second_step, mean_y, mean_x = (
            _coefficient(builder, self.forms, form, number) for number in (NEXT_ROW_STEP, SECOND_STEP, MEAN, MEAN + 1)
        )
        x = builder.fsub(lanes.lane_numbers(), mean_x, flags=lanes.FAST)
        start = builder.mul(self.place, ir.Constant(lanes.INTEGER, START_SIZE))
        value, change, second = (
            lanes.load_vector(builder, self.starts, builder.add(start, ir.Constant(lanes.INTEGER, n * LANES)))
            for n in range(3)
        )
        value = value if self.factor is None else lanes.multiply(builder, value, self.factor)
        values, changes, seconds = (cgutils.alloca_once_value(builder, vector) for vector in (value, change, second))
        with cgutils.for_range(builder, self.n_rows) as row:
            number = lanes.broadcast(builder, builder.sitofp(row.index, lanes.FLOAT))
            y = builder.fsub(number, mean_y, flags=lanes.FAST)
            offset = builder.add(self.base, builder.mul(row.index, self.stride))
            value, change, second = builder.load(values), builder.load(changes), builder.load(seconds)
            builder.store(lanes.multiply(builder, value, change), values)
            builder.store(lanes.multiply(builder, change, next_row_step), changes)
            builder.store(lanes.multiply(builder, second, second_step), seconds)
            visit(offset, y, x, self._seen(builder, offset, y, x, value), second)
        return x

    def _seen(self, builder, offset, y, x, value):
        """The Gaussian where it is among the nearest, zero elsewhere."""
        if self.limits is None:
            return value
        depth, unit_y, unit_x = (
            lanes.broadcast(builder, lanes.load_scalar(builder, self.reach, number)) for number in range(3)
        )
        row = lanes.multiply_add(builder, lanes.multiply(builder, y, y), unit_y, depth)
        distance = lanes.multiply_add(builder, lanes.multiply(builder, x, x), unit_x, row)
        limit = lanes.load_vector(builder, self.limits, offset)
        return builder.select(builder.fcmp_ordered("<=", distance, limit), value, lanes.constant(0.0))

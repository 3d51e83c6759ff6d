"""Vector loops over the window of one free Gaussian: add it to a slice, or take its moments with one.

In a slice a blurred Gaussian is the exponential of a quadratic form of the distance (y, x) from its mean, in pixels
along u and v. A *form* holds its coefficients, and where the mean stands in the window. The exponential is evaluated
for eight pixels at a time; unlike for a lattice, whose windows are products of two 1-D Gaussians, there is one for each
pixel. Where the slice profile has a second component, that is the first times an exponential which is linear in (y, x):
one vector a block, and one multiplication from row to row.

Each loop comes in two kinds: over all pixels of the window, and over those that have the Gaussian among their nearest.
The second compares the squared distance of pixel and mean, ``reach[0] + reach[1] y^2 + reach[2] x^2`` (mm^2), with a
plane of limits.
"""

# Numba's intrinsics have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gsvr.kernels import lanes

# log peak, coefficients of y, x, y y, y x, x x, the mean's place along u and v in the window; then the logarithm of the
# second component over the first: constant, y, x, and by what factor that ratio changes from row to row
FORM_SIZE = 12
# a second component that is not there: exp of it is nothing
ABSENT = -200.0
# sums of r G times 1, y, x, y y, y x, x x; and of the second component alone times 1, y, x
N_MOMENTS = 9
# the pixel, three derivatives, three torques
N_PLANES = 7


class _Form:
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


class _Window:
    """Loops over the window of a Gaussian.

    `visit` gets where eight pixels are, their y and x, the Gaussian there (of the profile's first component), and the
    second component as a multiple of the first.
    """

    def __init__(self, form, base, stride, n_rows, blocks, limits=None, reach=None) -> None:
        self.form, self.base, self.stride, self.n_rows, self.blocks = form, base, stride, n_rows, blocks
        self.limits, self.reach = limits, reach

    def run(self, builder, visit, before_block=None, after_block=None):
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


def _adding(nearest):
    @intrinsic
    def add_gaussian(typing_context, plane, base, stride, forms, index, factor, n_rows, blocks, limits, reach):
        """plane[base + a stride + l] += factor G(a, l) for a < n_rows, l < 8 blocks."""
        integer, real = types.int64, types.float32
        signature = types.void(plane, integer, integer, forms, integer, real, integer, integer, limits, reach)

        def generate(context, builder, signature, arguments):
            plane, base, stride, forms, index, factor, n_rows, blocks, limits, reach = (
                lanes.data(context, builder, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, arguments, strict=True)
            )
            form = _Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
            factor = lanes.broadcast(builder, factor)
            limited = (limits, reach) if nearest else ()

            def visit(offset, y, x, value, ratio, _):
                first = lanes.multiply(builder, factor, value)
                lanes.add_to(builder, plane, offset, lanes.multiply_add(builder, first, ratio, first))

            _Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit)
            return context.get_dummy_value()

        return signature, generate

    return add_gaussian


def _dotting(nearest):
    @intrinsic
    def dot_gaussian(typing_context, plane, base, stride, forms, index, power, n_rows, blocks, limits, reach):
        """Sum of plane[base + a stride + l] G(a, l)^power over a < n_rows, l < 8 blocks; `power` is 1 or 2."""
        integer, real = types.int64, types.float32
        signature = real(plane, integer, integer, forms, integer, real, integer, integer, limits, reach)

        def generate(context, builder, signature, arguments):
            plane, base, stride, forms, index, power, n_rows, blocks, limits, reach = (
                lanes.data(context, builder, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, arguments, strict=True)
            )
            form = _Form(builder, forms, index, power)
            limited = (limits, reach) if nearest else ()
            sums = cgutils.alloca_once_value(builder, lanes.constant(0.0))

            squared = builder.fcmp_ordered(">", power, ir.Constant(lanes.FLOAT, 1.5))

            def visit(offset, y, x, value, ratio, _):
                pixels = lanes.load_vector(builder, plane, offset)
                both = lanes.add(builder, ratio, lanes.constant(1.0))
                both = builder.select(squared, lanes.multiply(builder, both, both), both)
                value = lanes.multiply(builder, value, both)
                builder.store(lanes.multiply_add(builder, pixels, value, builder.load(sums)), sums)

            _Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit)
            return lanes.total(builder, builder.load(sums))

        return signature, generate

    return dot_gaussian


def _taking_moments(nearest):
    @intrinsic
    def moments_of_gaussian(
        typing_context, planes, base, stride, second, factor, forms, index, n_rows, blocks, limits, reach, out
    ):
        """Write the moments of r G over the window to `out`, in the order of `N_MOMENTS`.

        r is ``factor * planes[base + ...] + planes[second + base + ...]``: for a normalised field the residual of the
        numerator counts as often as the amplitude says, and that of the denominator once.
        """
        integer, real = types.int64, types.float32
        signature = types.void(
            planes, integer, integer, integer, real, forms, integer, integer, integer, limits, reach, out
        )  # fmt: skip

        def generate(context, builder, signature, arguments):
            planes, base, stride, second, factor, forms, index, n_rows, blocks, limits, reach, out = (
                lanes.data(context, builder, kind, value) if isinstance(kind, types.Array) else value
                for kind, value in zip(signature.args, arguments, strict=True)
            )
            form = _Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
            factor = lanes.broadcast(builder, factor)
            limited = (limits, reach) if nearest else ()
            sums = _Moments(builder)

            def visit(offset, y, x, value, ratio, _):
                first = lanes.load_vector(builder, planes, offset)
                other = lanes.load_vector(builder, planes, builder.add(offset, second))
                part = lanes.multiply(builder, value, lanes.multiply_add(builder, factor, first, other))
                second_part = lanes.multiply(builder, part, ratio)
                sums.add(lanes.add(builder, part, second_part), second_part, y)

            _Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit, sums.begin_block, sums.end_block)
            sums.write(out)
            return context.get_dummy_value()

        return signature, generate

    return moments_of_gaussian


class _Moments:
    """Nine sums: powers of y are gathered row by row, those of x when a block of columns is done."""

    def __init__(self, builder) -> None:
        self.builder = builder
        zero = lanes.constant(0.0)
        # both components times 1, y, y y; the second alone times 1, y
        self._columns = [cgutils.alloca_once_value(builder, zero) for _ in range(5)]
        self._totals = [cgutils.alloca_once_value(builder, zero) for _ in range(N_MOMENTS)]

    def begin_block(self, x):
        for column in self._columns:
            self.builder.store(lanes.constant(0.0), column)

    def add(self, both, second, y):
        y = lanes.broadcast(self.builder, y)
        with_y = lanes.multiply(self.builder, both, y)
        parts = (both, with_y, lanes.multiply(self.builder, with_y, y), second, lanes.multiply(self.builder, second, y))
        for column, part in zip(self._columns, parts, strict=True):
            self.builder.store(lanes.add(self.builder, self.builder.load(column), part), column)

    def end_block(self, x):
        builder = self.builder
        whole, with_y, with_yy, second, second_with_y = (builder.load(column) for column in self._columns)
        with_x = lanes.multiply(builder, whole, x)
        parts = (
            whole, with_y, with_x, with_yy, lanes.multiply(builder, with_y, x), lanes.multiply(builder, with_x, x),
            second, second_with_y, lanes.multiply(builder, second, x),
        )  # fmt: skip
        for kept, part in zip(self._totals, parts, strict=True):
            builder.store(lanes.add(builder, builder.load(kept), part), kept)

    def write(self, out):
        for number, kept in enumerate(self._totals):
            pointer = self.builder.gep(out, [ir.Constant(lanes.INTEGER, number)])
            self.builder.store(lanes.total(self.builder, self.builder.load(kept)), pointer)


add_gaussian, add_nearest_gaussian = _adding(False), _adding(True)
dot_gaussian, dot_nearest_gaussian = _dotting(False), _dotting(True)
moments_of_gaussian, moments_of_nearest_gaussian = _taking_moments(False), _taking_moments(True)


@intrinsic
def add_gaussian_planes(typing_context, planes, base, stride, plane_size, forms, index, factor, slopes, n_rows, blocks):
    """`add_gaussian` on seven planes: the pixel, its derivative by d = pixel - Gaussian (3), and the torques (3).

    With L = (Sigma + P)^-1 and h = L d the derivative is g = -h G. The torque about u is (P_w - P_v)
    (h_v h_w - L_vw) G, where L_vw comes from the peak, plus what the component's offset b along w adds to the lever,
    b g_v; about v and w alike. `slopes` holds h as a linear function of the distance, (constant, per y, per x) for each
    axis, then P_v - P_w, P_w - P_u, P_u - P_v, then L_vw, L_uw, L_uv (or zeros), then b.
    """
    integer = types.int64
    signature = types.void(
        planes, integer, integer, integer, forms, integer, types.float32, slopes, integer, integer
    )  # fmt: skip

    def generate(context, builder, signature, arguments):
        planes, base, stride, plane_size, forms, index, factor, slopes, n_rows, blocks = (
            lanes.data(context, builder, kind, value) if isinstance(kind, types.Array) else value
            for kind, value in zip(signature.args, arguments, strict=True)
        )
        form = _Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
        slope = [lanes.broadcast(builder, lanes.load_scalar(builder, slopes, number)) for number in range(16)]
        negative = lanes.broadcast(builder, builder.fneg(factor))

        def at_columns(x):
            return [lanes.multiply_add(builder, slope[3 * axis + 2], x, slope[3 * axis]) for axis in range(3)]

        def visit(offset, y, x, value, _, column):
            value = lanes.multiply(builder, negative, value)
            y = lanes.broadcast(builder, y)
            h = [lanes.multiply_add(builder, slope[3 * axis + 1], y, column[axis]) for axis in range(3)]
            force = [lanes.multiply(builder, value, part) for part in h]
            torque = []
            for axis in range(3):
                turning = lanes.multiply_add(
                    builder,
                    force[axis - 2],
                    h[axis - 1],
                    builder.fneg(lanes.multiply(builder, value, slope[12 + axis])),
                )
                torque.append(lanes.multiply(builder, slope[9 + axis], turning))
            torque[0] = lanes.multiply_add(builder, slope[15], force[1], torque[0])
            torque[1] = lanes.multiply_add(builder, slope[15], builder.fneg(force[0]), torque[1])
            for part in (builder.fneg(value), *force, *torque):
                lanes.add_to(builder, planes, offset, part)
                offset = builder.add(offset, plane_size)

        _Window(form, base, stride, n_rows, blocks).run(builder, visit, at_columns)
        return context.get_dummy_value()

    return signature, generate

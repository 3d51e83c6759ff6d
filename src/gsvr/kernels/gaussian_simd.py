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
from gsvr.kernels.gaussian_window import Form, Window

# sums of r G times 1, y, x, y y, y x, x x; and of the second component alone times 1, y, x
N_MOMENTS = 9
# the pixel, three derivatives, three torques
N_PLANES = 7


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
            form = Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
            factor = lanes.broadcast(builder, factor)
            limited = (limits, reach) if nearest else ()

            def visit(offset, y, x, value, ratio, _):
                first = lanes.multiply(builder, factor, value)
                lanes.add_to(builder, plane, offset, lanes.multiply_add(builder, first, ratio, first))

            Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit)
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
            form = Form(builder, forms, index, power)
            limited = (limits, reach) if nearest else ()
            sums = cgutils.alloca_once_value(builder, lanes.constant(0.0))

            squared = builder.fcmp_ordered(">", power, ir.Constant(lanes.FLOAT, 1.5))

            def visit(offset, y, x, value, ratio, _):
                pixels = lanes.load_vector(builder, plane, offset)
                both = lanes.add(builder, ratio, lanes.constant(1.0))
                both = builder.select(squared, lanes.multiply(builder, both, both), both)
                value = lanes.multiply(builder, value, both)
                builder.store(lanes.multiply_add(builder, pixels, value, builder.load(sums)), sums)

            Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit)
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
            form = Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
            factor = lanes.broadcast(builder, factor)
            limited = (limits, reach) if nearest else ()
            sums = _Moments(builder)

            def visit(offset, y, x, value, ratio, _):
                first = lanes.load_vector(builder, planes, offset)
                other = lanes.load_vector(builder, planes, builder.add(offset, second))
                part = lanes.multiply(builder, value, lanes.multiply_add(builder, factor, first, other))
                second_part = lanes.multiply(builder, part, ratio)
                sums.add(lanes.add(builder, part, second_part), second_part, y)

            Window(form, base, stride, n_rows, blocks, *limited).run(builder, visit, sums.begin_block, sums.end_block)
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
        form = Form(builder, forms, index, ir.Constant(lanes.FLOAT, 1.0))
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

        Window(form, base, stride, n_rows, blocks).run(builder, visit, at_columns)
        return context.get_dummy_value()

    return signature, generate

"""Vector loops over a piece of a free Gaussian's window: add it to a slice, or take its moments with one.

All work on one piece of `gaussian_window` whose first row `start_pieces` has prepared. A loop runs over all pixels of
the piece where `limits` is None, else over those that have the Gaussian among their nearest: it compares the squared
distance of pixel and mean, ``reach[0] + reach[1] y^2 + reach[2] x^2`` (mm^2), with a plane of limits.
"""

# Numba's intrinsics have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gsvr.kernels import lanes
from gsvr.kernels.gaussian_window import Rows

# sums of r G times 1, y, x, y y, y x, x x; and of the second component alone times 1, y, x
N_MOMENTS = 9
# the pixel, three derivatives, three torques
N_PLANES = 7


def _pointers(context, builder, signature, arguments):
    """Arguments of an intrinsic with arrays as pointers to their first elements; None stays None."""
    for kind, value in zip(signature.args, arguments, strict=True):
        if isinstance(kind, types.NoneType):
            yield None
        else:
            yield lanes.data(context, builder, kind, value) if isinstance(kind, types.Array) else value


def _adding(components):
    @intrinsic
    def add_gaussian(typing_context, plane, base, stride, forms, index, starts, place, factor, n_rows, limits, reach):
        """plane[base + a stride + l] += factor G(a, l) for a < n_rows, l < 8."""
        integer = types.int64
        signature = types.void(
            plane, integer, integer, forms, integer, starts, integer, types.float32, integer, limits, reach
        )

        def generate(context, builder, signature, arguments):
            plane, base, stride, forms, index, starts, place, factor, n_rows, limits, reach = _pointers(
                context, builder, signature, arguments
            )

            def visit(offset, y, x, value, second):
                both = lanes.multiply_add(builder, value, second, value) if components == 2 else value
                lanes.add_to(builder, plane, offset, both)

            factor = lanes.broadcast(builder, factor)
            Rows(forms, index, starts, place, base, stride, n_rows, limits, reach, factor).run(builder, visit)
            return context.get_dummy_value()

        return signature, generate

    return add_gaussian


add_gaussian, add_single_gaussian = _adding(2), _adding(1)


def _dotting(power):
    @intrinsic
    def dot_gaussian(typing_context, plane, base, stride, forms, index, starts, place, n_rows, limits, reach):
        """Sum of plane[base + a stride + l] G(a, l)^power over a < n_rows, l < 8."""
        integer = types.int64
        signature = types.float32(
            plane, integer, integer, forms, integer, starts, integer, integer, limits, reach
        )  # fmt: skip

        def generate(context, builder, signature, arguments):
            plane, base, stride, forms, index, starts, place, n_rows, limits, reach = _pointers(
                context, builder, signature, arguments
            )
            sums = cgutils.alloca_once_value(builder, lanes.constant(0.0))

            def visit(offset, y, x, value, second):
                pixels = lanes.load_vector(builder, plane, offset)
                value = lanes.multiply_add(builder, value, second, value)
                value = lanes.multiply(builder, value, value) if power == 2 else value
                builder.store(lanes.multiply_add(builder, pixels, value, builder.load(sums)), sums)

            Rows(forms, index, starts, place, base, stride, n_rows, limits, reach).run(builder, visit)
            return lanes.total(builder, builder.load(sums))

        return signature, generate

    return dot_gaussian


dot_gaussian, dot_squared_gaussian = _dotting(1), _dotting(2)


@intrinsic
def add_moments(
    typing_context, planes, base, stride, second, factor, forms, index, starts, place, n_rows, limits, reach, out
):
    """Write the moments of r G over the piece to `out`, in the order of `N_MOMENTS`.

    r is ``factor * planes[base + ...] + planes[second + base + ...]``: for a normalised field the residual of the
    numerator counts as often as the amplitude says, and that of the denominator once.
    """
    integer, real = types.int64, types.float32
    signature = types.void(
        planes, integer, integer, integer, real, forms, integer, starts, integer, integer, limits, reach, out
    )

    def generate(context, builder, signature, arguments):
        planes, base, stride, second_plane, factor, forms, index, starts, place, n_rows, limits, reach, out = _pointers(
            context, builder, signature, arguments
        )
        factor, sums = lanes.broadcast(builder, factor), _Moments(builder)

        def visit(offset, y, x, value, second):
            first = lanes.load_vector(builder, planes, offset)
            other = lanes.load_vector(builder, planes, builder.add(offset, second_plane))
            part = lanes.multiply(builder, value, lanes.multiply_add(builder, factor, first, other))
            second_part = lanes.multiply(builder, part, second)
            sums.add(lanes.add(builder, part, second_part), second_part, y)

        x = Rows(forms, index, starts, place, base, stride, n_rows, limits, reach).run(builder, visit)
        sums.write(out, x)
        return context.get_dummy_value()

    return signature, generate


class _Moments:
    """Sums over rows of powers of y; powers of x come in when all rows are done."""

    def __init__(self, builder) -> None:
        self.builder = builder
        # both components times 1, y, y y; the second alone times 1, y
        self._columns = [cgutils.alloca_once_value(builder, lanes.constant(0.0)) for _ in range(5)]

    def add(self, both, second, y):
        with_y = lanes.multiply(self.builder, both, y)
        parts = (both, with_y, lanes.multiply(self.builder, with_y, y), second, lanes.multiply(self.builder, second, y))
        for column, part in zip(self._columns, parts, strict=True):
            self.builder.store(lanes.add(self.builder, self.builder.load(column), part), column)

    def write(self, out, x):
        builder = self.builder
        whole, with_y, with_yy, second, second_with_y = (builder.load(column) for column in self._columns)
        with_x = lanes.multiply(builder, whole, x)
        parts = (
            whole, with_y, with_x, with_yy, lanes.multiply(builder, with_y, x), lanes.multiply(builder, with_x, x),
            second, second_with_y, lanes.multiply(builder, second, x),
        )  # fmt: skip
        for number, part in enumerate(parts):
            pointer = builder.gep(out, [ir.Constant(lanes.INTEGER, number)])
            builder.store(lanes.total(builder, part), pointer)


@intrinsic
def add_gaussian_planes(
    typing_context, planes, base, stride, plane_size, forms, index, starts, place, factor, slopes, n_rows
):
    """`add_gaussian` on seven planes: the pixel, its derivative by d = pixel - Gaussian (3), and the torques (3).

    With L = (Sigma + P)^-1 and h = L d the derivative is g = -h G. The torque about u is (P_w - P_v)
    (h_v h_w - L_vw) G, where L_vw comes from the peak, plus what the component's offset b along w adds to the lever,
    b g_v; about v and w alike. `slopes` holds h as a linear function of the distance, (constant, per y, per x) for each
    axis, then P_v - P_w, P_w - P_u, P_u - P_v, then L_vw, L_uw, L_uv (or zeros), then b. Only the first component of
    the form is taken.
    """
    integer = types.int64
    signature = types.void(
        planes, integer, integer, integer, forms, integer, starts, integer, types.float32, slopes, integer
    )

    def generate(context, builder, signature, arguments):
        planes, base, stride, plane_size, forms, index, starts, place, factor, slopes, n_rows = _pointers(
            context, builder, signature, arguments
        )
        slope = [lanes.broadcast(builder, lanes.load_scalar(builder, slopes, number)) for number in range(16)]

        def visit(offset, y, x, value, _):
            h = []
            for axis in range(3):
                column = lanes.multiply_add(builder, slope[3 * axis + 2], x, slope[3 * axis])
                h.append(lanes.multiply_add(builder, slope[3 * axis + 1], y, column))
            force = [lanes.multiply(builder, value, part) for part in h]
            torque = []
            for axis in range(3):
                peak = builder.fneg(lanes.multiply(builder, value, slope[12 + axis]))
                turning = lanes.multiply_add(builder, force[axis - 2], h[axis - 1], peak)
                torque.append(lanes.multiply(builder, slope[9 + axis], turning))
            torque[0] = lanes.multiply_add(builder, slope[15], force[1], torque[0])
            torque[1] = lanes.multiply_add(builder, slope[15], builder.fneg(force[0]), torque[1])
            for part in (builder.fneg(value), *force, *torque):
                lanes.add_to(builder, planes, offset, part)
                offset = builder.add(offset, plane_size)

        negative = lanes.broadcast(builder, builder.fneg(factor))
        Rows(forms, index, starts, place, base, stride, n_rows, factor=negative).run(builder, visit)
        return context.get_dummy_value()

    return signature, generate

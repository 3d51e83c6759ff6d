"""Splats whose windows are at most eight pixels wide and long, as nearly all are: many at a time.

What belongs to the splats alone, the powers of their ratios, is computed for eight splats at once, one in each lane, so
that nothing has to be moved between lanes; `transpose` then turns eight splats into eight windows. What is left for
each splat by itself is its rows of pixels. They are unrolled: their number is the same for all splats of a slice, so
that the branches that end them are predicted. The general building blocks, for windows of any size, are in `simd`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from gsvr.kernels import lanes
from gsvr.kernels.lanes import LANES, multiply, multiply_add

# Splats that are handled together; what is computed for a batch of them stays in the first-level cache.
BATCH = 256


def _integer(value: int) -> Any:
    return ir.Constant(lanes.INTEGER, value)


def _load_into_all_lanes(builder: Any, data: Any, offset: Any) -> Any:
    return lanes.broadcast(builder, lanes.load_scalar(builder, data, offset))


def _transpose(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Eight vectors of eight lanes, turned: exchange blocks of four lanes, then of two, then of one."""
    rows = list(rows)
    for width in (4, 2, 1):
        low = [lane if not lane & width else LANES + lane - width for lane in range(LANES)]
        high = [lane + width if not lane & width else LANES + lane for lane in range(LANES)]
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), LANES), order) for order in (low, high)]
        for first in range(LANES):
            if not first & width:
                pair = rows[first], rows[first + width]
                rows[first], rows[first + width] = (builder.shuffle_vector(*pair, mask) for mask in masks)
    return rows


def _squared_if(builder: Any, square: Any, vector: Any) -> Any:
    return builder.select(square, multiply(builder, vector, vector), vector)


@intrinsic
def fill_factors(typing_context, ratios, scales, first, blocks, square, table, n_rows, factors):
    """factors[a * BATCH + i] = scale ratio^a table[a] of splat first + i < first + 8 blocks, for a < n_rows.

    With `square` ratios and scales are squared first.
    """
    integer = types.int64
    signature = types.void(ratios, scales, integer, integer, types.boolean, table, integer, factors)

    def generate(context, builder, signature, arguments):
        ratios, scales, first, blocks, square, table, n_rows, factors = arguments
        ratios, scales, table, factors = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, ratios), (1, scales), (5, table), (7, factors))
        )
        square = builder.trunc(square, ir.IntType(1)) if square.type != ir.IntType(1) else square
        power_place = cgutils.alloca_once(builder, lanes.VECTOR)
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, _integer(LANES))
            source = builder.add(first, lane)
            ratio = _squared_if(builder, square, lanes.load_vector(builder, ratios, source))
            builder.store(_squared_if(builder, square, lanes.load_vector(builder, scales, source)), power_place)
            with cgutils.for_range(builder, n_rows) as row:
                power = builder.load(power_place)
                value = multiply(builder, power, _load_into_all_lanes(builder, table, row.index))
                target = builder.add(builder.mul(row.index, _integer(BATCH)), lane)
                builder.store(value, lanes.vector_pointer(builder, factors, target), align=4)
                builder.store(multiply(builder, power, ratio), power_place)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def fill_windows(typing_context, ratios, heights, first, height, blocks, table, windows):
    """windows[8 i + l] = heights[height + i] ratio^l table[l] of splat first + i < first + 8 blocks, for l < 8."""
    integer = types.int64
    signature = types.void(ratios, heights, integer, integer, integer, table, windows)

    def generate(context, builder, signature, arguments):
        ratios, heights, first, height, blocks, table, windows = arguments
        ratios, heights, table, windows = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, ratios), (1, heights), (5, table), (6, windows))
        )
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, _integer(LANES))
            ratio = lanes.load_vector(builder, ratios, builder.add(first, lane))
            power = lanes.load_vector(builder, heights, builder.add(height, lane))
            columns = []
            for number in range(LANES):
                columns.append(multiply(builder, power, _load_into_all_lanes(builder, table, _integer(number))))
                power = multiply(builder, power, ratio)
            for number, window in enumerate(_transpose(builder, columns)):
                target = builder.mul(builder.add(lane, _integer(number)), _integer(LANES))
                builder.store(window, lanes.vector_pointer(builder, windows, target), align=4)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def window_products(typing_context, sums, ratios, first, product, blocks, square, table, products):
    """products[product + i] = sum over l < 8 of sums[8 i + l] ratio^l table[l]: transpose of `fill_windows`."""
    integer = types.int64
    signature = types.void(sums, ratios, integer, integer, integer, types.boolean, table, products)

    def generate(context, builder, signature, arguments):
        sums, ratios, first, product, blocks, square, table, products = arguments
        sums, ratios, table, products = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, sums), (1, ratios), (6, table), (7, products))
        )
        square = builder.trunc(square, ir.IntType(1)) if square.type != ir.IntType(1) else square
        with cgutils.for_range(builder, blocks) as block:
            lane = builder.mul(block.index, _integer(LANES))
            ratio = _squared_if(builder, square, lanes.load_vector(builder, ratios, builder.add(first, lane)))
            starts = [builder.mul(builder.add(lane, _integer(number)), _integer(LANES)) for number in range(LANES)]
            columns = _transpose(builder, [lanes.load_vector(builder, sums, start) for start in starts])
            weighted = [
                multiply(builder, column, _load_into_all_lanes(builder, table, _integer(number)))
                for number, column in enumerate(columns)
            ]
            total = weighted.pop()
            while weighted:
                total = multiply_add(builder, total, ratio, weighted.pop())
            target = lanes.vector_pointer(builder, products, builder.add(product, lane))
            builder.store(total, target, align=4)
        return context.get_dummy_value()

    return signature, generate


class _Rows:
    """The rows of one splat: where its pixels start, and its factors in all lanes."""

    def __init__(self, builder: Any, plane: Any, base: Any, stride: Any, factors: Any, number: Any) -> None:
        self._builder, self._stride, self._factors, self._number = builder, stride, factors, number
        self._place = builder.gep(plane, [base])

    def following(self, a: int) -> tuple[Any, Any]:
        place = self._place
        self._place = self._builder.gep(place, [self._stride])
        offset = self._builder.add(self._number, _integer(a * BATCH))
        return place, _load_into_all_lanes(self._builder, self._factors, offset)

    def unrolled(self, n_rows: Any, row: Callable[[Any, Any], None]) -> None:
        """``for a in range(n_rows)``; at least one row, at most `LANES`."""
        builder = self._builder
        end = builder.append_basic_block("rows_done")
        row(*self.following(0))
        for a in range(1, LANES):
            following = builder.append_basic_block(f"row_{a}")
            builder.cbranch(builder.icmp_signed(">", n_rows, _integer(a)), following, end)
            builder.position_at_end(following)
            row(*self.following(a))
        builder.branch(end)
        builder.position_at_end(end)


def _add_product(builder: Any, place: Any, factor: Any, vector: Any) -> None:
    pointer = lanes.vector_pointer(builder, place, _integer(0))
    builder.store(multiply_add(builder, factor, vector, builder.load(pointer, align=4)), pointer, align=4)


@intrinsic
def add_splat(typing_context, plane, base, stride, n_rows, factors, windows, number):
    """plane[base + a stride + l] += u[a] v[l] for a < n_rows, l < 8: splat `number` of a batch."""
    integer = types.int64
    signature = types.void(plane, integer, integer, integer, factors, windows, integer)

    def generate(context, builder, signature, arguments):
        plane, base, stride, n_rows, factors, windows, number = arguments
        plane, factors, windows = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, plane), (4, factors), (5, windows))
        )
        window = lanes.load_vector(builder, windows, builder.mul(number, _integer(LANES)))

        def row(place: Any, factor: Any) -> None:
            _add_product(builder, place, factor, window)

        _Rows(builder, plane, base, stride, factors, number).unrolled(n_rows, row)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def add_derivatives(
    typing_context, planes, base, stride, plane_size, n_rows, factors, windows, number, start_u, step_u, start_v,
    step_v, slope, torque_u, torque_v,
):  # fmt: skip
    """`add_splat` on seven planes at once, `plane_size` apart.

    With d_u = start_u + a step_u and d_v = start_v + l step_v (mm) these are u v times 1, d_u, d_v, slope,
    torque_u d_v, torque_v d_u and d_u d_v.
    """
    integer, real = types.int64, types.float32
    signature = types.void(
        planes, integer, integer, integer, integer, factors, windows, integer, real, real, real, real, real, real, real
    )

    def generate(context, builder, signature, arguments):
        planes, base, stride, plane_size, n_rows, factors, windows, number, *numbers = arguments
        planes, factors, windows = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, planes), (5, factors), (6, windows))
        )
        start_u, step_u, start_v, step_v, slope, torque_u, torque_v = (lanes.broadcast(builder, one) for one in numbers)
        window = lanes.load_vector(builder, windows, builder.mul(number, _integer(LANES)))
        moment = multiply(builder, multiply_add(builder, lanes.lane_numbers(), step_v, start_v), window)
        sloped, turned_u, turned_v = (
            multiply(builder, *pair) for pair in ((slope, window), (torque_u, moment), (torque_v, window))
        )
        distance = cgutils.alloca_once_value(builder, start_u)

        def row(place: Any, factor: Any) -> None:
            moved = multiply(builder, factor, builder.load(distance))
            builder.store(builder.fadd(builder.load(distance), step_u, flags=("fast",)), distance)
            for plane, (scale, vector) in enumerate(
                (
                    *((factor, window), (moved, window), (factor, moment), (factor, sloped)),
                    *((factor, turned_u), (moved, turned_v), (moved, moment)),
                )
            ):
                _add_product(builder, builder.gep(place, [builder.mul(plane_size, _integer(plane))]), scale, vector)

        builder.store(start_u, distance)
        _Rows(builder, planes, base, stride, factors, number).unrolled(n_rows, row)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def sum_rows(typing_context, plane, base, stride, n_rows, factors, number, sums):
    """sums[8 number + l] = sum over a < n_rows of plane[base + a stride + l] u[a]: splat `number` of a batch."""
    integer = types.int64
    signature = types.void(plane, integer, integer, integer, factors, integer, sums)

    def generate(context, builder, signature, arguments):
        plane, base, stride, n_rows, factors, number, sums = arguments
        plane, factors, sums = (
            lanes.data(context, builder, signature.args[place], array)
            for place, array in ((0, plane), (4, factors), (6, sums))
        )
        place = cgutils.alloca_once(builder, lanes.VECTOR)
        builder.store(ir.Constant(lanes.VECTOR, [0.0] * LANES), place)

        def row(pixels: Any, factor: Any) -> None:
            values = lanes.load_vector(builder, pixels, _integer(0))
            builder.store(multiply_add(builder, factor, values, builder.load(place)), place)

        _Rows(builder, plane, base, stride, factors, number).unrolled(n_rows, row)
        target = lanes.vector_pointer(builder, sums, builder.mul(number, _integer(LANES)))
        builder.store(builder.load(place), target, align=4)
        return context.get_dummy_value()

    return signature, generate

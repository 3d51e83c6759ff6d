"""The splats of one slice and one lattice plane, for windows that fit into eight by eight pixels.

The plan holds these splats one after another. They are handled in batches, and within a batch not in order but at four
places in turn: neighbouring Gaussians touch the same pixels, and a processor has to wait before it can load what it has
just stored, unless it is exactly the same vector.
"""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np

from gsvr.kernels.numba_compiled import without_allocation
from gsvr.kernels.lanes import LANES
from gsvr.kernels.plan import OFFSET_U, OFFSET_V, OFFSET_W, SLOPE, prepare_row
from gsvr.kernels.short_window import (
    BATCH,
    add_derivatives,
    add_splat,
    fill_factors,
    fill_windows,
    sum_rows,
    window_products,
)

_PLACES = 4


@without_allocation
def gather(plane, first, count, line):
    """Write those entries of a lattice plane that a slice touches one after another, as the plan has them."""
    n = 0
    for iy in range(len(first)):
        start, here = np.int64(first[iy]), np.int64(count[iy])
        for i in range(here):
            line[n + i] = plane[iy, start + i]
        n += here


@without_allocation
def scatter(line, first, count, plane):
    """Transpose of `gather`."""
    n = 0
    for iy in range(len(first)):
        start, here = np.int64(first[iy]), np.int64(count[iy])
        for i in range(here):
            plane[iy, start + i] += line[n + i]
        n += here


@without_allocation
def add_short(
    first, last, heights, starts, ratios_u, ratios_v, scales, plane, stride, rows, table_u, table_v, factors, windows
):  # fmt: skip
    """Add the splats [first, last) times their `heights` to the pixels of a slice."""
    for begin in range(first, last, BATCH):
        count = min(BATCH, last - begin)
        blocks = (count + LANES - 1) // LANES
        fill_factors(ratios_u, scales, begin, blocks, False, table_u, rows, factors)
        fill_windows(ratios_v, heights, begin, begin - first, blocks, table_v, windows)
        places = starts[begin : begin + count]
        apart = (count + _PLACES - 1) // _PLACES
        for j in range(apart):
            for i in range(j, count, apart):
                add_splat(plane, np.int64(places[i]), stride, rows, factors, windows, i)


@without_allocation
def dot_short(
    first, last, products, starts, ratios_u, ratios_v, scales, plane, stride, rows, table_u, table_v, square, factors,
    windows,
):  # fmt: skip
    """Product of every splat in [first, last) with the pixels of a slice."""
    for begin in range(first, last, BATCH):
        count = min(BATCH, last - begin)
        blocks = (count + LANES - 1) // LANES
        fill_factors(ratios_u, scales, begin, blocks, square, table_u, rows, factors)
        places = starts[begin : begin + count]
        for i in range(count):
            sum_rows(plane, np.int64(places[i]), stride, rows, factors, i, windows)
        window_products(windows, ratios_v, begin, begin - first, blocks, square, table_v, products)


@without_allocation
def differentiate_short(
    first, last, heights, distances, starts, ratios_u, ratios_v, scales, planes, plane_size, stride, rows, table_u,
    table_v, factors, windows, spacing_u, spacing_v, curvature_u, curvature_v,
):  # fmt: skip
    """`add_short` for the value and its six derivatives; `distances` are those of `fill_distances`."""
    for begin in range(first, last, BATCH):
        count = min(BATCH, last - begin)
        blocks = (count + LANES - 1) // LANES
        fill_factors(ratios_u, scales, begin, blocks, False, table_u, rows, factors)
        fill_windows(ratios_v, heights, begin, begin - first, blocks, table_v, windows)
        places = starts[begin : begin + count]
        apart = (count + _PLACES - 1) // _PLACES
        for j in range(apart):
            for i in range(j, count, apart):
                n = begin - first + i
                w, slope = distances[2, n], distances[3, n]
                add_derivatives(
                    planes, np.int64(places[i]), stride, plane_size, rows, factors, windows, i,
                    spacing_u * distances[0, n], spacing_u, spacing_v * distances[1, n], spacing_v,
                    slope, slope + curvature_v * w, -(slope + curvature_u * w),
                )  # fmt: skip


@without_allocation
def fill_distances(
    s, ix, matrix, touched_first, touched_count, sharpness, reach, peaks, offsets, depth_sharpness, scratch, distances
):  # fmt: skip
    """Of every splat of a lattice plane: from Gaussian to first pixel (pixels), to slice (mm), and f'(w) / f(w)."""
    n = 0
    for iy in range(len(touched_first)):
        count = np.int64(touched_count[iy])
        if count == 0:
            continue
        first = touched_first[iy]
        prepare_row(s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, scratch)
        for i in range(count):
            distances[0, n + i], distances[1, n + i] = scratch[i + OFFSET_U], scratch[i + OFFSET_V]
            distances[2, n + i], distances[3, n + i] = scratch[i + OFFSET_W], scratch[i + SLOPE]
        n += count

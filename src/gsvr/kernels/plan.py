"""Which Gaussians of a lattice each slice touches, and the short windows through which they do.

A *splat* is one Gaussian seen by one slice: a window of pixels, an outer product E_u(u) E_v(v) times f(w). Along
pixels a Gaussian is ratio^l times a table (see `simd.gaussian_window`), so a splat is four numbers: where its window
starts, two ratios, and a scale. They depend on poses but not on amplitudes: a plan holds them for all applications of
the operator at the same poses (16 bytes a splat).
"""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from numba import njit

from gsvr.kernels.numba_compiled import without_allocation
from gsvr.kernels.lanes import LANES
from gsvr.kernels.simd import exponential

# Longest lattice row, a little off a power of two so that the rows of the scratch array fall into different cache
# sets, and where each quantity of `prepare_row` starts in it.
ROW_CAPACITY = 2064
FIRST_ROW, FIRST_COLUMN, OFFSET_U, OFFSET_V, OFFSET_W, RATIO_U, RATIO_V, SCALE, PROFILE, SLOPE = (
    number * ROW_CAPACITY for number in range(10)
)
SCRATCH_SIZE = 10 * ROW_CAPACITY
# Most pixels along u that one Gaussian touches.
WINDOW_CAPACITY = 256
TINY = np.float32(1e-25)


@without_allocation
def _row_interval(matrix, ix, iy, low, high, first, last):
    """Sites [first, last) of the lattice row (ix, iy) whose coordinates lie between `low` and `high`."""
    z0, z1 = float(first), float(last) - 1.0
    for axis in range(3):
        step = matrix[axis, 2]
        base = matrix[axis, 0] * ix + matrix[axis, 1] * iy + matrix[axis, 3]
        if abs(step) < 1e-9:
            if base < low[axis] or base > high[axis]:
                return 0, 0
        else:
            a, b = (low[axis] - base) / step, (high[axis] - base) / step
            if a > b:
                a, b = b, a
            z0, z1 = max(z0, a), min(z1, b)
            if z0 > z1:
                return 0, 0
    return int(np.ceil(z0)), int(np.floor(z1)) + 1


@njit(nogil=True, fastmath=True, cache=True)
def _limits(s, reach, depth, shapes, low, high):
    """Where a Gaussian must stand (pixels, pixels, mm) to touch slice `s`."""
    for axis in range(2):
        low[axis] = -reach[s, axis]
        high[axis] = shapes[s, axis] - 1 + reach[s, axis]
    low[2], high[2] = depth[s, 0], depth[s, 1]


@njit(nogil=True, fastmath=True, cache=True)
def _plane_touches(matrix, ix, ny, nz, low, high):
    """Whether the box spanned by a lattice plane's four corners reaches the slice on every axis."""
    for axis in range(3):
        base = matrix[axis, 0] * ix + matrix[axis, 3]
        y, z = matrix[axis, 1] * (ny - 1), matrix[axis, 2] * (nz - 1)
        least = base + min(y, 0.0) + min(z, 0.0)
        most = base + max(y, 0.0) + max(z, 0.0)
        if most < low[axis] or least > high[axis]:
            return False
    return True


@njit(nogil=True, fastmath=True, cache=True)
def find_rows(s, row_first, row_last, from_lattice, reach, depth, shapes, nz, touched_first, touched_count):
    """For every lattice row, which of its sites touch slice `s`: first and count in ``touched_*[s, ix, iy]``."""
    nx, ny = row_first.shape
    matrix = from_lattice[s]
    low, high = np.empty(3), np.empty(3)
    _limits(s, reach, depth, shapes, low, high)
    for ix in range(nx):
        if not _plane_touches(matrix, ix, ny, nz, low, high):
            continue
        for iy in range(ny):
            if row_first[ix, iy] < row_last[ix, iy]:
                first, last = _row_interval(matrix, ix, iy, low, high, row_first[ix, iy], row_last[ix, iy])
                if last > first:
                    touched_first[s, ix, iy], touched_count[s, ix, iy] = first, last - first


@without_allocation
def prepare_row(
    s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, scratch
):  # fmt: skip
    """Per Gaussian of a lattice row: first pixel touched, window ratios and scale, f(w) and f'(w) / f(w).

    `scratch` is one flat array with a row for each of the names below, `ROW_CAPACITY` apart: constant distances
    in one array are what lets LLVM prove that the loops can be vectorised.
    """
    su, sv = np.float32(sharpness[s, 0]), np.float32(sharpness[s, 1])
    ru, rv = np.float32(reach[s, 0]), np.float32(reach[s, 1])
    u0 = np.float32(matrix[0, 0] * ix + matrix[0, 1] * iy + matrix[0, 2] * first + matrix[0, 3])
    v0 = np.float32(matrix[1, 0] * ix + matrix[1, 1] * iy + matrix[1, 2] * first + matrix[1, 3])
    w0 = np.float32(matrix[2, 0] * ix + matrix[2, 1] * iy + matrix[2, 2] * first + matrix[2, 3])
    du, dv, dw = np.float32(matrix[0, 2]), np.float32(matrix[1, 2]), np.float32(matrix[2, 2])
    two = np.float32(2.0)
    # whole vectors: the lanes past the end are computed and ignored, which is cheaper than a scalar remainder
    count = (count + LANES - 1) // LANES * LANES
    # Powers of the ratio are counted from the middle of the window, where the Gaussian is near its peak: counted
    # from the edge they would run through exp(2 cutoff^2) and overflow for wide cut-offs.
    mu, mv = np.floor(ru), np.floor(rv)
    for i in range(count):
        step = np.float32(i)
        u, v = u0 + du * step, v0 + dv * step
        row, column = np.ceil(u - ru), np.ceil(v - rv)
        scratch[i + FIRST_ROW], scratch[i + FIRST_COLUMN] = row, column
        scratch[i + OFFSET_U], scratch[i + OFFSET_V] = row - u, column - v
        u, v = row + mu - u, column + mv - v
        scratch[i + RATIO_U] = exponential(-two * su * u)
        scratch[i + RATIO_V] = exponential(-two * sv * v)
        scratch[i + SCALE] = exponential(su * u * (two * mu - u) + sv * v * (two * mv - v))
        scratch[i + OFFSET_W] = -(w0 + dw * step)
        scratch[i + PROFILE], scratch[i + SLOPE] = np.float32(0.0), np.float32(0.0)
    for m in range(peaks.shape[1]):
        offset, sharp = np.float32(offsets[s, m]), np.float32(depth_sharpness[s, m])
        peak = np.float32(peaks[s, m])
        for i in range(count):
            distance = scratch[i + OFFSET_W] + offset
            part = peak * exponential(-sharp * distance * distance)
            scratch[i + PROFILE] += part
            scratch[i + SLOPE] -= two * sharp * distance * part
    for i in range(count):
        profile = scratch[i + PROFILE]
        scratch[i + SLOPE] /= max(profile, np.float32(1e-30))
        scratch[i + SCALE] *= profile


@njit(nogil=True, fastmath=True, cache=True)
def fill_plan(
    s, touched_first, touched_count, splat_first, from_lattice, sharpness, reach, peaks, offsets, depth_sharpness,
    shapes, n_rows, n_columns, starts, ratios_u, ratios_v, scales,
):  # fmt: skip
    """Write the splats of slice `s`, lattice row after lattice row, from ``splat_first[s, 0]`` on."""
    nx, ny = touched_first.shape[1], touched_first.shape[2]
    width = (n_columns + LANES - 1) // LANES * LANES
    stride = shapes[s, 1] + 2 * width + 1
    scratch = np.empty(SCRATCH_SIZE, np.float32)
    matrix = from_lattice[s]
    for ix in range(nx):
        n = splat_first[s, ix]
        for iy in range(ny):
            count = np.int64(touched_count[s, ix, iy])
            if count == 0:
                continue
            first = touched_first[s, ix, iy]
            prepare_row(s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, scratch)
            for i in range(count):
                row, column = np.int64(scratch[i + FIRST_ROW]), np.int64(scratch[i + FIRST_COLUMN])
                starts[n + i] = (row + n_rows + 1) * stride + column + width
                ratios_u[n + i], ratios_v[n + i] = scratch[i + RATIO_U], scratch[i + RATIO_V]
                scales[n + i] = scratch[i + SCALE]
            n += count


@njit(nogil=True, fastmath=True, cache=True)
def window_tables(s, sharpness, reach, n_rows, n_columns, table_u, table_v):
    """Gaussian at whole pixels from the middle of the window; far lanes are zero, since denormals are slow."""
    for a in range(n_rows):
        table_u[a] = np.exp(-min(sharpness[s, 0] * (a - np.floor(reach[s, 0])) ** 2, 200.0))
    for b in range(n_columns):
        table_v[b] = np.exp(-min(sharpness[s, 1] * (b - np.floor(reach[s, 1])) ** 2, 200.0))
    table_u[table_u < TINY] = np.float32(0.0)
    table_v[table_v < TINY] = np.float32(0.0)

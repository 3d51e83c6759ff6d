"""CPU kernels (Numba) of the acquisition operator on a lattice of equal isotropic Gaussians.

In the frame of a slice the blurred Gaussian is a product E_u(u) E_v(v) f(w): one outer product of two short
windows, with f evaluated once. Each Gaussian is *splatted* on the slice; nothing is stored between calls, and the
adjoint is the same loop with a dot product in place of the outer one, so that it is the exact transpose.
Along pixels the Gaussian needs no exponential: ratio^l times a table (see `simd.gaussian_window`).

Prediction is parallel over slices and the adjoint over planes of the lattice, so no two threads write to one
place and the result does not depend on the number of threads.
"""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from numba import njit

from gsvr.kernels.simd import LANES, add_outer, add_outer_planes, dot_outer, exponential, gaussian_window

# Axis order of the derivative planes: value, d/du, d/dv, d/dw, torque about u, v, w.
N_DERIVATIVE_PLANES = 7

# Longest lattice row, a little off a power of two so that the rows of the scratch array fall into different cache
# sets, and where each quantity of `_prepare_row` starts in it.
ROW_CAPACITY = 2064
FIRST_ROW, FIRST_COLUMN, OFFSET_U, OFFSET_V, OFFSET_W, RATIO_U, RATIO_V, SCALE, PROFILE, SLOPE = (
    number * ROW_CAPACITY for number in range(10)
)
SCRATCH_SIZE = 10 * ROW_CAPACITY
TINY = np.float32(1e-25)
# Most pixels along u that one Gaussian touches.
WINDOW_CAPACITY = 256


@njit(nogil=True, fastmath=True, cache=True)
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
def _prepare_row(
    s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, square, scratch
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
        scratch[i + SCALE] *= profile * profile if square else profile


@njit(nogil=True, fastmath=True, cache=True)
def _tables(s, sharpness, reach, n_rows, n_columns, table_u, table_v):
    """Gaussian at whole pixels from the middle of the window; far lanes are zero, since denormals are slow."""
    for a in range(n_rows):
        table_u[a] = np.exp(-min(sharpness[s, 0] * (a - np.floor(reach[s, 0])) ** 2, 200.0))
    for b in range(n_columns):
        table_v[b] = np.exp(-min(sharpness[s, 1] * (b - np.floor(reach[s, 1])) ** 2, 200.0))
    table_u[table_u < TINY] = np.float32(0.0)
    table_v[table_v < TINY] = np.float32(0.0)


@njit(nogil=True, fastmath=True, cache=True)
def predict_slice(
    s, amplitudes, row_first, row_last, from_lattice, sharpness, reach, depth, peaks, offsets, depth_sharpness,
    shapes, first_pixel, pixel_spacing, n_rows, n_columns, n_planes, out,
):  # fmt: skip
    """Splat every Gaussian that touches slice `s`; write its pixels to ``out[:n_planes]``.

    `n_planes` is 1 (values) or 7 (values and derivatives, see `N_DERIVATIVE_PLANES`).
    """
    nx, ny = amplitudes.shape[0], amplitudes.shape[1]
    blocks = (n_columns + LANES - 1) // LANES
    row_blocks = (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    stride = shapes[s, 1] + 2 * width + 1
    plane_size = (shapes[s, 0] + 2 * n_rows + 2) * stride
    planes = np.zeros(n_planes * plane_size, np.float32)
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    _tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
    low, high = np.empty(3), np.empty(3)
    _limits(s, reach, depth, shapes, low, high)
    scratch = np.empty(SCRATCH_SIZE, np.float32)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    columns, moment_v = np.empty(7 * WINDOW_CAPACITY, np.float32), np.empty(width, np.float32)
    rows = np.int64(np.floor(2 * reach[s, 0])) + 1
    matrix = from_lattice[s]
    hu, hv = np.float32(pixel_spacing[s, 0]), np.float32(pixel_spacing[s, 1])
    qu, qv = np.float32(2 * sharpness[s, 0]) / (hu * hu), np.float32(2 * sharpness[s, 1]) / (hv * hv)
    for ix in range(nx):
        for iy in range(ny):
            if row_first[ix, iy] >= row_last[ix, iy]:
                continue
            first, last = _row_interval(matrix, ix, iy, low, high, row_first[ix, iy], row_last[ix, iy])
            count = last - first
            if count <= 0:
                continue
            _prepare_row(
                s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, False,
                scratch,
            )  # fmt: skip
            for i in range(count):
                base = (
                    (np.int64(scratch[i + FIRST_ROW]) + n_rows + 1) * stride
                    + np.int64(scratch[i + FIRST_COLUMN])
                    + width
                )
                scale = amplitudes[ix, iy, first + i] * scratch[i + SCALE]
                gaussian_window(table_u, scratch[i + RATIO_U], scale, window_u, row_blocks)
                gaussian_window(table_v, scratch[i + RATIO_V], np.float32(1.0), window_v, blocks)
                if n_planes == 1:
                    add_outer(planes, base, stride, window_u, rows, window_v, blocks)
                    continue
                _derivative_columns(
                    window_u, window_v, rows, width, hu * scratch[i + OFFSET_U], hv * scratch[i + OFFSET_V],
                    scratch[i + OFFSET_W], scratch[i + SLOPE], hu, hv, qu, qv, columns, moment_v,
                )  # fmt: skip
                add_outer_planes(
                    planes, base, stride, plane_size, columns, WINDOW_CAPACITY, rows, window_v, moment_v, blocks
                )
    for plane in range(n_planes):
        for a in range(shapes[s, 0]):
            source = plane * plane_size + (a + n_rows + 1) * stride + width
            target = first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                out[plane, target + b] = planes[source + b]


@njit(nogil=True, fastmath=True, cache=True)
def _derivative_columns(window_u, window_v, rows, width, start_u, start_v, w, slope, hu, hv, qu, qv, columns, moment_v):
    """Columns of the seven outer products of one splat: value, derivatives by d = pixel - Gaussian, d x derivative.

    With E' = -q d E along u and v every plane is again an outer product, of one of these columns with E_v (planes 0, 1,
    3, 5) or d_v E_v (planes 2, 4, 6). Distances are mm, starting with the first pixel of the window.
    """
    torque_u, torque_v, torque_w = slope + qv * w, -(slope + qu * w), qu - qv
    for a in range((rows + LANES - 1) // LANES * LANES):
        value = window_u[a]
        moment = (start_u + hu * np.float32(a)) * value
        columns[a] = value
        columns[a + WINDOW_CAPACITY] = -qu * moment
        columns[a + 2 * WINDOW_CAPACITY] = -qv * value
        columns[a + 3 * WINDOW_CAPACITY] = slope * value
        columns[a + 4 * WINDOW_CAPACITY] = torque_u * value
        columns[a + 5 * WINDOW_CAPACITY] = torque_v * moment
        columns[a + 6 * WINDOW_CAPACITY] = torque_w * moment
    for b in range(width):
        moment_v[b] = (start_v + hv * np.float32(b)) * window_v[b]


@njit(nogil=True, fastmath=True, cache=True)
def pad_slices(values, shapes, first_pixel, n_rows, n_columns, padded, padded_first):
    """Copy every slice into a frame of zeros as wide as a window, so that windows need no border checks."""
    width = (n_columns + LANES - 1) // LANES * LANES
    for s in range(shapes.shape[0]):
        stride = shapes[s, 1] + 2 * width + 1
        for a in range(shapes[s, 0]):
            target = padded_first[s] + (a + n_rows + 1) * stride + width
            source = first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                padded[target + b] = values[source + b]


@njit(nogil=True, fastmath=True, cache=True)
def adjoint_plane(
    ix, padded, padded_first, row_first, row_last, from_lattice, sharpness, reach, depth, peaks, offsets,
    depth_sharpness, shapes, n_rows, n_columns, square, out,
):  # fmt: skip
    """Transpose of `predict_slice` for the lattice plane `ix`, over all slices.

    With `square` every weight is squared (the caller doubles `sharpness`): the diagonal of A^T W A.
    """
    ny, nz = out.shape[1], out.shape[2]
    blocks = (n_columns + LANES - 1) // LANES
    row_blocks = (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    low, high = np.empty(3), np.empty(3)
    scratch = np.empty(SCRATCH_SIZE, np.float32)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    for s in range(shapes.shape[0]):
        matrix = from_lattice[s]
        _limits(s, reach, depth, shapes, low, high)
        if not _plane_touches(matrix, ix, ny, nz, low, high):
            continue
        _tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
        stride = shapes[s, 1] + 2 * width + 1
        rows = np.int64(np.floor(2 * reach[s, 0])) + 1
        for iy in range(ny):
            if row_first[ix, iy] >= row_last[ix, iy]:
                continue
            first, last = _row_interval(matrix, ix, iy, low, high, row_first[ix, iy], row_last[ix, iy])
            count = last - first
            if count <= 0:
                continue
            _prepare_row(
                s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, square,
                scratch,
            )  # fmt: skip
            for i in range(count):
                base = (
                    padded_first[s]
                    + (np.int64(scratch[i + FIRST_ROW]) + n_rows + 1) * stride
                    + np.int64(scratch[i + FIRST_COLUMN])
                    + width
                )
                gaussian_window(table_u, scratch[i + RATIO_U], scratch[i + SCALE], window_u, row_blocks)
                gaussian_window(table_v, scratch[i + RATIO_V], np.float32(1.0), window_v, blocks)
                out[ix, iy, first + i] += dot_outer(padded, base, stride, window_u, rows, window_v, blocks)


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

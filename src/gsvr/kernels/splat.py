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

from gsvr.kernels.simd import LANES, add_outer, dot_outer, exponential, gaussian_window

# Axis order of the derivative planes: value, d/du, d/dv, d/dw, torque about u, v, w.
N_DERIVATIVE_PLANES = 7


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
    s,
    matrix,
    ix,
    iy,
    first,
    count,
    sharpness,
    reach,
    peaks,
    offsets,
    depth_sharpness,
    square,
    scratch,
    corner,
):
    """Per Gaussian of a row: first pixel touched, window ratios and scale, f(w) and f'(w).

    scratch rows: 0 ratio along u, 1 ratio along v, 2 product of all factors at the first pixel, 3 f'/f,
    4 and 5 first pixel minus Gaussian along u and v (pixels), 6 pixel minus Gaussian along w (mm).
    """
    su, sv = np.float32(sharpness[s, 0]), np.float32(sharpness[s, 1])
    ru, rv = np.float32(reach[s, 0]), np.float32(reach[s, 1])
    u0 = np.float32(matrix[0, 0] * ix + matrix[0, 1] * iy + matrix[0, 2] * first + matrix[0, 3])
    v0 = np.float32(matrix[1, 0] * ix + matrix[1, 1] * iy + matrix[1, 2] * first + matrix[1, 3])
    w0 = np.float32(matrix[2, 0] * ix + matrix[2, 1] * iy + matrix[2, 2] * first + matrix[2, 3])
    du, dv, dw = np.float32(matrix[0, 2]), np.float32(matrix[1, 2]), np.float32(matrix[2, 2])
    two = np.float32(2.0)
    # Powers of the ratio are counted from the middle of the window, where the Gaussian is near its peak: counted
    # from the edge they would run through exp(2 cutoff^2) and overflow for wide cut-offs.
    mu, mv = np.floor(ru), np.floor(rv)
    for i in range(count):
        step = np.float32(i)
        u, v, w = u0 + du * step, v0 + dv * step, -(w0 + dw * step)
        row, column = np.ceil(u - ru), np.ceil(v - rv)
        corner[0, i], corner[1, i] = np.int32(row), np.int32(column)
        scratch[4, i], scratch[5, i], scratch[6, i] = row - u, column - v, w
        u, v = row + mu - u, column + mv - v
        scratch[0, i] = exponential(-two * su * u)
        scratch[1, i] = exponential(-two * sv * v)
        scratch[2, i] = exponential(su * u * (two * mu - u) + sv * v * (two * mv - v))
    for i in range(count):
        profile, slope = np.float32(0.0), np.float32(0.0)
        for m in range(peaks.shape[1]):
            distance = scratch[6, i] + np.float32(offsets[s, m])
            sharp = np.float32(depth_sharpness[s, m])
            part = np.float32(peaks[s, m]) * exponential(-sharp * distance * distance)
            profile += part
            slope -= two * sharp * distance * part
        scratch[3, i] = slope / max(profile, np.float32(1e-30))
        scratch[2, i] *= profile * profile if square else profile


@njit(nogil=True, fastmath=True, cache=True)
def _tables(s, sharpness, reach, n_rows, n_columns, table_u, table_v):
    for a in range(n_rows):
        table_u[a] = np.exp(-sharpness[s, 0] * (a - np.floor(reach[s, 0])) ** 2)
    for b in range(n_columns):
        table_v[b] = np.exp(-sharpness[s, 1] * (b - np.floor(reach[s, 1])) ** 2)


@njit(nogil=True, fastmath=True, cache=True)
def predict_slice(
    s, amplitudes, row_first, row_last, from_lattice, sharpness, reach, depth, peaks, offsets, depth_sharpness,
    shapes, first_pixel, pixel_spacing, n_rows, n_columns, n_planes, out,
):  # fmt: skip
    """Splat every Gaussian that touches slice `s`; write its pixels to ``out[:n_planes]``.

    `n_planes` is 1 (values) or 7 (values and derivatives, see `N_DERIVATIVE_PLANES`).
    """
    nx, ny, nz = amplitudes.shape
    blocks = (n_columns + LANES - 1) // LANES
    row_blocks = (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    stride = shapes[s, 1] + 2 * width + 1
    planes = np.zeros((n_planes, (shapes[s, 0] + 2 * n_rows + 2) * stride), np.float32)
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    _tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
    low, high = np.empty(3), np.empty(3)
    _limits(s, reach, depth, shapes, low, high)
    scratch, corner = np.empty((7, nz), np.float32), np.empty((2, nz), np.int32)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    moments = np.empty((8, max(width, row_blocks * LANES)), np.float32)
    rows = np.int64(np.floor(2 * reach[s, 0])) + 1
    matrix = from_lattice[s]
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
                scratch, corner,
            )  # fmt: skip
            for i in range(count):
                base = (corner[0, i] + n_rows + 1) * stride + corner[1, i] + width
                scale = amplitudes[ix, iy, first + i] * scratch[2, i]
                gaussian_window(table_u, scratch[0, i], scale, window_u, row_blocks)
                gaussian_window(table_v, scratch[1, i], np.float32(1.0), window_v, blocks)
                add_outer(planes[0], base, stride, window_u, rows, window_v, blocks)
                if n_planes > 1:
                    _add_derivatives(
                        planes, base, stride, window_u, rows, window_v, blocks, scratch, i,
                        sharpness[s], pixel_spacing[s], moments,
                    )  # fmt: skip
    for plane in range(n_planes):
        for a in range(shapes[s, 0]):
            source = (a + n_rows + 1) * stride + width
            target = first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                out[plane, target + b] = planes[plane, source + b]


@njit(nogil=True, fastmath=True, cache=True)
def _add_derivatives(planes, base, stride, window_u, rows, window_v, blocks, scratch, i, sharpness, spacing, moments):
    """Add the derivative of one splat with respect to d = pixel - Gaussian (mm), and d x derivative.

    With E' = -q d E along u and v: each plane is again an outer product of a column and a row.
    """
    qu = np.float32(2 * sharpness[0] / spacing[0] ** 2)
    qv = np.float32(2 * sharpness[1] / spacing[1] ** 2)
    slope, w = scratch[3, i], scratch[6, i]
    hu, hv = np.float32(spacing[0]), np.float32(spacing[1])
    for a in range(rows):
        d = (scratch[4, i] + np.float32(a)) * hu
        moments[0, a] = -qu * d * window_u[a]
        moments[1, a] = slope * window_u[a]
        moments[2, a] = (slope + qv * w) * window_u[a]
        moments[3, a] = -(slope + qu * w) * d * window_u[a]
        moments[4, a] = (qu - qv) * d * window_u[a]
        moments[6, a] = -qv * window_u[a]
    for b in range(blocks * LANES):
        moments[5, b] = (scratch[5, i] + np.float32(b)) * hv * window_v[b]
    add_outer(planes[1], base, stride, moments[0], rows, window_v, blocks)
    add_outer(planes[2], base, stride, moments[6], rows, moments[5], blocks)
    add_outer(planes[3], base, stride, moments[1], rows, window_v, blocks)
    add_outer(planes[4], base, stride, moments[2], rows, moments[5], blocks)
    add_outer(planes[5], base, stride, moments[3], rows, window_v, blocks)
    if abs(qu - qv) > np.float32(1e-6) * qu:
        add_outer(planes[6], base, stride, moments[4], rows, moments[5], blocks)


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
    scratch, corner = np.empty((7, nz), np.float32), np.empty((2, nz), np.int32)
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
                scratch, corner,
            )  # fmt: skip
            for i in range(count):
                base = padded_first[s] + (corner[0, i] + n_rows + 1) * stride + corner[1, i] + width
                gaussian_window(table_u, scratch[0, i], scratch[2, i], window_u, row_blocks)
                gaussian_window(table_v, scratch[1, i], np.float32(1.0), window_v, blocks)
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

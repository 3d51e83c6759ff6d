"""CPU kernels (Numba) of the acquisition operator on a lattice of equal isotropic Gaussians.

Each Gaussian is *splatted* on every slice it touches, one outer product of two short windows (see `plan`). The
adjoint is the same loop with a dot product in place of the outer one, so that it is the exact transpose.

Prediction is parallel over slices and the adjoint over planes of the lattice, so no two threads write to one
place and the result does not depend on the number of threads.
"""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from numba import njit

from gsvr.kernels.lanes import LANES
from gsvr.kernels.plan import (
    FIRST_COLUMN,
    FIRST_ROW,
    OFFSET_U,
    OFFSET_V,
    OFFSET_W,
    RATIO_U,
    RATIO_V,
    SCALE,
    SCRATCH_SIZE,
    SLOPE,
    WINDOW_CAPACITY,
    prepare_row,
    window_tables,
)
from gsvr.kernels.short_splat import add_short, differentiate_short, dot_short, fill_distances, gather, scatter
from gsvr.kernels.short_window import BATCH
from gsvr.kernels.simd import add_outer, add_outer_planes, dot_outer, gaussian_window

# Order of the derivative planes: value, d/du, d/dv, d/dw, torque about u, v, w.
N_DERIVATIVE_PLANES = 7


@njit(nogil=True, fastmath=True, cache=True)
def predict_slice(
    s, amplitudes, touched_first, touched_count, splat_first, starts, ratios_u, ratios_v, scales, sharpness, reach,
    shapes, first_pixel, n_rows, n_columns, out,
):  # fmt: skip
    """Splat every Gaussian that touches slice `s` and write its pixels."""
    nx, ny = amplitudes.shape[0], amplitudes.shape[1]
    blocks, row_blocks = (n_columns + LANES - 1) // LANES, (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    stride = shapes[s, 1] + 2 * width + 1
    plane = np.zeros((shapes[s, 0] + 2 * n_rows + 2) * stride, np.float32)
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    window_tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    rows = np.int64(np.floor(2 * reach[s, 0])) + 1
    line = np.empty(ny * amplitudes.shape[2] + LANES, np.float32)
    factors, windows = np.empty(LANES * BATCH, np.float32), np.empty(LANES * BATCH, np.float32)
    for ix in range(nx):
        n, end = splat_first[s, ix], splat_first[s, ix + 1]
        if n < end and width == LANES and row_blocks == 1:
            gather(amplitudes[ix], touched_first[s, ix], touched_count[s, ix], line)
            add_short(
                n,
                end,
                line,
                starts,
                ratios_u,
                ratios_v,
                scales,
                plane,
                stride,
                rows,
                table_u,
                table_v,
                factors,
                windows,
            )
            continue
        for iy in range(ny):
            first = touched_first[s, ix, iy]
            for i in range(np.int64(touched_count[s, ix, iy])):
                scale = amplitudes[ix, iy, first + i] * scales[n]
                gaussian_window(table_u, ratios_u[n], scale, window_u, row_blocks)
                gaussian_window(table_v, ratios_v[n], np.float32(1.0), window_v, blocks)
                add_outer(plane, np.int64(starts[n]), stride, window_u, rows, window_v, blocks)
                n += 1
    for a in range(shapes[s, 0]):
        source, target = (a + n_rows + 1) * stride + width, first_pixel[s] + a * shapes[s, 1]
        for b in range(shapes[s, 1]):
            out[target + b] = plane[source + b]


@njit(nogil=True, fastmath=True, cache=True)
def differentiate_slice(
    s, amplitudes, touched_first, touched_count, splat_first, starts, ratios_u, ratios_v, scales, from_lattice,
    sharpness, reach, peaks, offsets, depth_sharpness, shapes, first_pixel, pixel_spacing, n_rows, n_columns, out,
):  # fmt: skip
    """Pixels of slice `s` and their derivatives, in the order of the derivative planes."""
    nx, ny = amplitudes.shape[0], amplitudes.shape[1]
    blocks, row_blocks = (n_columns + LANES - 1) // LANES, (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    stride = shapes[s, 1] + 2 * width + 1
    plane_size = (shapes[s, 0] + 2 * n_rows + 2) * stride
    planes = np.zeros(N_DERIVATIVE_PLANES * plane_size, np.float32)
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    window_tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
    scratch = np.empty(SCRATCH_SIZE, np.float32)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    columns, moment_v = np.empty(N_DERIVATIVE_PLANES * WINDOW_CAPACITY, np.float32), np.empty(width, np.float32)
    rows = np.int64(np.floor(2 * reach[s, 0])) + 1
    matrix = from_lattice[s]
    hu, hv = np.float32(pixel_spacing[s, 0]), np.float32(pixel_spacing[s, 1])
    qu, qv = np.float32(2 * sharpness[s, 0]) / (hu * hu), np.float32(2 * sharpness[s, 1]) / (hv * hv)
    short = width == LANES and row_blocks == 1
    capacity = ny * amplitudes.shape[2] + LANES if short else 0
    line, distances = np.empty(capacity, np.float32), np.empty((4, capacity), np.float32)
    factors, windows = np.empty(LANES * BATCH, np.float32), np.empty(LANES * BATCH, np.float32)
    for ix in range(nx):
        if short:
            n, end = splat_first[s, ix], splat_first[s, ix + 1]
            if n < end:
                gather(amplitudes[ix], touched_first[s, ix], touched_count[s, ix], line)
                fill_distances(
                    s, ix, matrix, touched_first[s, ix], touched_count[s, ix], sharpness, reach, peaks, offsets,
                    depth_sharpness, scratch, distances,
                )  # fmt: skip
                differentiate_short(
                    n, end, line, distances, starts, ratios_u, ratios_v, scales, planes, plane_size, stride, rows,
                    table_u, table_v, factors, windows, hu, hv, qu, qv,
                )  # fmt: skip
            continue
        for iy in range(ny):
            count = np.int64(touched_count[s, ix, iy])
            if count == 0:
                continue
            first = touched_first[s, ix, iy]
            prepare_row(s, matrix, ix, iy, first, count, sharpness, reach, peaks, offsets, depth_sharpness, scratch)
            for i in range(count):
                row, column = np.int64(scratch[i + FIRST_ROW]), np.int64(scratch[i + FIRST_COLUMN])
                base = (row + n_rows + 1) * stride + column + width
                scale = amplitudes[ix, iy, first + i] * scratch[i + SCALE]
                gaussian_window(table_u, scratch[i + RATIO_U], scale, window_u, row_blocks)
                gaussian_window(table_v, scratch[i + RATIO_V], np.float32(1.0), window_v, blocks)
                _derivative_columns(
                    window_u, window_v, rows, width, hu * scratch[i + OFFSET_U], hv * scratch[i + OFFSET_V],
                    scratch[i + OFFSET_W], scratch[i + SLOPE], hu, hv, qu, qv, columns, moment_v,
                )  # fmt: skip
                add_outer_planes(
                    planes, base, stride, plane_size, columns, WINDOW_CAPACITY, rows, window_v, moment_v, blocks
                )
    # the short kernels leave out what is the same for all splats of a slice
    _write_planes(s, planes, plane_size, short, qu, qv, shapes, first_pixel, n_rows, stride, width, out)


@njit(nogil=True, fastmath=True, cache=True)
def _write_planes(s, planes, plane_size, short, qu, qv, shapes, first_pixel, n_rows, stride, width, out):
    """Write the pixels of slice `s` in all planes, without their frame."""
    for plane in range(N_DERIVATIVE_PLANES):
        factor = np.float32(1.0)
        if short and plane in (1, 2, 6):
            factor = -qu if plane == 1 else (-qv if plane == 2 else qu - qv)
        for a in range(shapes[s, 0]):
            source = plane * plane_size + (a + n_rows + 1) * stride + width
            target = first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                out[plane, target + b] = factor * planes[source + b]


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
def adjoint_planes(
    first_plane, last_plane, padded, padded_first, touched_first, touched_count, splat_first, starts, ratios_u,
    ratios_v, scales, sharpness, reach, shapes, n_rows, n_columns, square, out,
):  # fmt: skip
    """Transpose of `predict_slice` for some planes of the lattice, over all slices.

    With `square` every weight is squared (the caller doubles `sharpness`): the diagonal of A^T W A.
    """
    ny = out.shape[1]
    blocks, row_blocks = (n_columns + LANES - 1) // LANES, (n_rows + LANES - 1) // LANES
    width = blocks * LANES
    table_u, table_v = np.zeros(row_blocks * LANES, np.float32), np.zeros(width, np.float32)
    window_u, window_v = np.empty(row_blocks * LANES, np.float32), np.empty(width, np.float32)
    line = np.empty(ny * out.shape[2] + LANES, np.float32)
    factors, windows = np.empty(LANES * BATCH, np.float32), np.zeros(LANES * BATCH, np.float32)
    for s in range(shapes.shape[0]):
        if splat_first[s, first_plane] == splat_first[s, last_plane]:
            continue
        window_tables(s, sharpness, reach, row_blocks * LANES, width, table_u, table_v)
        stride = shapes[s, 1] + 2 * width + 1
        rows = np.int64(np.floor(2 * reach[s, 0])) + 1
        pixels = padded[padded_first[s] : padded_first[s + 1]]
        for ix in range(first_plane, last_plane):
            n, end = splat_first[s, ix], splat_first[s, ix + 1]
            if n < end and width == LANES and row_blocks == 1:
                dot_short(
                    n, end, line, starts, ratios_u, ratios_v, scales, pixels, stride, rows, table_u, table_v, square,
                    factors, windows,
                )  # fmt: skip
                scatter(line, touched_first[s, ix], touched_count[s, ix], out[ix])
                continue
            for iy in range(ny):
                first = touched_first[s, ix, iy]
                for i in range(np.int64(touched_count[s, ix, iy])):
                    ratio_u, ratio_v, scale = ratios_u[n], ratios_v[n], scales[n]
                    if square:
                        ratio_u, ratio_v, scale = ratio_u * ratio_u, ratio_v * ratio_v, scale * scale
                    gaussian_window(table_u, ratio_u, scale, window_u, row_blocks)
                    gaussian_window(table_v, ratio_v, np.float32(1.0), window_v, blocks)
                    base = np.int64(starts[n])
                    out[ix, iy, first + i] += dot_outer(pixels, base, stride, window_u, rows, window_v, blocks)
                    n += 1

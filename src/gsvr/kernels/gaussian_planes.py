"""Free Gaussians on parallel planes, such as those of a volume: added one by one, and nothing is planned in advance.

A slice of an acquisition is predicted again and again, so its splats are planned once (see `gaussian_plan`). A picture
is made once: planning it would take longer than making it, and for the many planes of a volume the plan would be large.
"""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numba import njit

from gsvr.compiled.threads import parallel_for
from gsvr.field import GaussianField
from gsvr.kernels.gaussian_plan import inverse, piece_rows, position, window, write_form
from gsvr.kernels.gaussian_simd import add_single_gaussian
from gsvr.kernels.gaussian_window import (
    ABSENT,
    FORM_SIZE,
    PIECES_AT_ONCE,
    START_SIZE,
    start_single_pieces,
)
from gsvr.kernels.lanes import LANES
from gsvr.kernels.numba_compiled import by_multiplication

# Planes that one thread works on at a time.
_SLAB = 8
# A single plane is cut into so many strips, which share the threads.
_STRIPS = 4
# Side of the cells (mm) that Gaussians are sorted into, so that neighbours in memory are neighbours in space.
_CELL = 4.0


@dataclass(frozen=True)
class ParallelPlanes:
    """Planes of points one behind the other, each seen through the same slice profile of one or two components.

    Attributes
    ----------
    to_planes
        Rigid map from volume world to the frame of the first plane (mm): rows lie along u, columns along v, planes
        along w.
    shape
        Number of planes, of rows, of columns.
    spacing
        Distance (mm) of planes, of rows, of columns.
    weights, offsets, variances
        Slice profile (see `gsvr.psf.PointSpread`); without one: a single component of no variance.
    """

    to_planes: Float[np.ndarray, "3 4"]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    weights: Float[np.ndarray, " m"]
    offsets: Float[np.ndarray, " m"]
    variances: Float[np.ndarray, " m"]


def splat_on_planes(
    field: GaussianField, amplitudes: Float32[np.ndarray, " n"], planes: ParallelPlanes, cutoff: float, exact: bool
) -> Float32[np.ndarray, "planes rows columns"]:
    """Sum of the field's Gaussians, with these amplitudes, at all points.

    A term is left out where it is below exp(-cutoff^2 / 2) of its peak. `exact`: see `gaussian_views.SliceViews`.
    """
    near, cells, reach = _near(field, planes, cutoff)
    gaussians = (
        field.means[near].astype(np.float64),
        np.exp(field.log_scales[near].astype(np.float64)),
        field.quaternions[near].astype(np.float64),
        amplitudes[near].astype(np.float32),
        reach.astype(np.float64),
    )
    most = float(reach.max(initial=0.0))
    spacing = np.array(planes.spacing, dtype=np.float64)
    log_weights = np.log2(planes.weights)
    out = np.empty(planes.shape, np.float32)
    n_strips = min(_STRIPS, planes.shape[1]) if planes.shape[0] == 1 else 1
    edges = [planes.shape[1] * strip // n_strips for strip in range(n_strips + 1)]

    def body(number: int) -> None:
        slab, strip = divmod(number, n_strips)
        first, row = slab * _SLAB, edges[strip]
        part = out[first : first + _SLAB, row : edges[strip + 1]]
        low, high = first * spacing[0], (first + len(part) - 1) * spacing[0]
        begin = int(np.searchsorted(cells, np.floor((low - most) / _CELL), "left"))
        end = int(np.searchsorted(cells, np.floor((high + most) / _CELL), "right"))
        to_part = planes.to_planes.astype(np.float64)
        to_part[:, 3] -= row * spacing[1], 0.0, low
        padded = np.zeros((*part.shape[:2], part.shape[2] + LANES), np.float32)
        _add_to_planes(
            *(values[begin:end] for values in gaussians), to_part, spacing[0], spacing[1:], np.array(part.shape[1:]),
            log_weights, planes.offsets, planes.variances, cutoff, exact, *_new_pieces(), padded.reshape(-1),
        )  # fmt: skip
        part[:] = padded[:, :, : part.shape[2]]

    parallel_for(body, -(-planes.shape[0] // _SLAB) * n_strips)
    return out


def _near(field: GaussianField, planes: ParallelPlanes, cutoff: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians that may reach a plane, sorted by cells; their cells over the first plane and their reach (mm).

    For a single plane there is nothing to sort.
    """
    largest = np.exp(np.maximum(np.maximum(*field.log_scales.T[:2]), field.log_scales[:, 2]))
    reach = cutoff * np.sqrt(largest**2 + np.float32(planes.variances.max())) + np.float32(abs(planes.offsets).max())
    heights = field.means @ planes.to_planes[2, :3].astype(np.float32) + np.float32(planes.to_planes[2, 3])
    reach *= np.float32(1 + 1e-5)  # both are rounded
    thickness = planes.spacing[0] * (planes.shape[0] - 1)
    near = np.flatnonzero((heights + reach >= 0) & (heights - reach <= thickness))
    if planes.shape[0] == 1:
        return near, np.zeros(len(near)), reach[near]
    keys = [np.floor(values / _CELL) for values in (*field.means[near].T[:2], heights[near])]
    order = np.lexsort(keys)
    return near[order], keys[2][order], reach[near[order]]


def _new_pieces() -> tuple[np.ndarray, ...]:
    """Room for pieces that are added together: forms, first rows, corners, numbers of rows, amplitudes."""
    n = PIECES_AT_ONCE
    floats = [np.empty(n * size, np.float32) for size in (FORM_SIZE, START_SIZE)]
    return *floats, np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.float32)


@by_multiplication(makes_arrays=False)
def _add_to_planes(
    means, scales, quaternions, amplitudes, reaches, to_planes, between, pixel, shape, log_weights, offsets, variances,
    cutoff, exact, forms, starts, corners, rows, factors, out,
):  # fmt: skip
    """Add Gaussians to planes `between` apart, whose rows are padded: each component of the profile by itself.

    Two thin components may stand many standard deviations apart, so one is no multiple of the other in float32.
    """
    stride = shape[1] + LANES
    size, count = shape[0] * stride, np.int64(0)  # not a literal, for which `_add` would be compiled once more
    n_planes = out.shape[0] // size
    for j in range(means.shape[0]):
        u, v, w = position(to_planes, means[j])
        if u + reaches[j] < 0.0 or u - reaches[j] > shape[0] * pixel[0]:
            continue
        uu, uv, uw, vv, vw, ww = _turned(to_planes, quaternions[j], scales[j])
        volume = scales[j, 0] * scales[j, 1] * scales[j, 2]
        for m in range(offsets.shape[0]):
            blurred = (uu, uv, uw, vv, vw, ww + variances[m])
            reach, height = cutoff * np.sqrt(ww + variances[m]), w - offsets[m]
            begin = max(int(np.ceil((height - reach) / between)), 0)
            end = min(int(np.floor((height + reach) / between)) + 1, n_planes)
            if begin >= end:
                continue
            precision, determinant = inverse(blurred)
            peak = log_weights[m] + (0.5 * np.log2(volume * volume / determinant) if exact else 0.0)
            most_rows = piece_rows(precision[0], pixel[0])
            for plane in range(begin, end):
                distance = plane * between - height
                top, bottom, left, right = window(u, v, distance, blurred, cutoff, pixel, shape)
                for column in range(left, right + 1, LANES):
                    for row in range(top, bottom + 1, most_rows):
                        mean_y, mean_x = u / pixel[0] - row, v / pixel[1] - column
                        write_form(forms, count, precision, distance, peak, 0.0, ABSENT, pixel, mean_y, mean_x)
                        corners[count] = plane * size + row * stride + column
                        rows[count], factors[count] = min(most_rows, bottom + 1 - row), amplitudes[j]
                        count += 1
                        if count == PIECES_AT_ONCE:
                            _add(out, stride, forms, starts, corners, rows, factors, count)
                            count = np.int64(0)
    _add(out, stride, forms, starts, corners, rows, factors, count)


@by_multiplication(makes_arrays=False)
def _add(out, stride, forms, starts, corners, rows, factors, count):
    """Add the pieces that have been gathered."""
    start_single_pieces(forms, 0, count, starts)
    for place in range(count):
        add_single_gaussian(
            out, corners[place], stride, forms, place, starts, place, factors[place], rows[place], None, starts
        )


@njit(nogil=True, fastmath=True, cache=True)
def _turned(to_planes, quaternion, scales):
    """Upper triangle of the covariance in the frame of the planes."""
    w, x, y, z = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    double = 2.0 / (w * w + x * x + y * y + z * z)
    axes = (
        (1.0 - double * (y * y + z * z), double * (x * y + w * z), double * (x * z - w * y)),
        (double * (x * y - w * z), 1.0 - double * (x * x + z * z), double * (y * z + w * x)),
        (double * (x * z + w * y), double * (y * z - w * x), 1.0 - double * (x * x + y * y)),
    )
    uu, uv, uw, vv, vw, ww = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for axis in range(3):
        a, b, c = axes[axis]
        u = scales[axis] * (to_planes[0, 0] * a + to_planes[0, 1] * b + to_planes[0, 2] * c)
        v = scales[axis] * (to_planes[1, 0] * a + to_planes[1, 1] * b + to_planes[1, 2] * c)
        t = scales[axis] * (to_planes[2, 0] * a + to_planes[2, 1] * b + to_planes[2, 2] * c)
        uu, uv, uw, vv, vw, ww = uu + u * u, uv + u * v, uw + u * t, vv + v * v, vw + v * t, ww + t * t
    return uu, uv, uw, vv, vw, ww

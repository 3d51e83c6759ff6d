"""Which free Gaussians each slice sees, and the quadratic form of each in it.

Gaussians are sorted into buckets, cubes of space that hold some dozens each. A slice looks at the Gaussians of buckets
that it can reach; a pair of a Gaussian and a slice that is not cut off becomes a splat. The splats of one slice and one
bucket are stored together, so that prediction runs over slices and the adjoint over buckets. The slice profile has one
component, or two of equal variance: then the second Gaussian is the first times an exponential that is linear in
the plane.
"""

# Numba's star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from gsvr.field import GaussianField
from gsvr.kernels.gaussian_window import (
    ABSENT,
    FORM_SIZE,
    LONGEST_PIECE,
    MEAN,
    NEXT_ROW,
    NEXT_ROW_STEP,
    PIECE_DEVIATIONS,
    SECOND,
    SECOND_STEP,
    VALUE,
)
from gsvr.kernels.lanes import LANES
from gsvr.kernels.numba_compiled import without_allocation
from gsvr.kernels.simd import exponential

_PER_BUCKET = 64
_LOG2_E, _LOG_2 = float(np.log2(np.e)), float(np.log(2))


@dataclass(frozen=True)
class Buckets:
    """Gaussians sorted by place.

    Attributes
    ----------
    order
        Numbers of the Gaussians, bucket by bucket.
    first
        Where each bucket starts in it.
    centres, radii
        A ball (mm) around the means of each bucket, and `cutoff` of their standard deviations.
    """

    order: Int[np.ndarray, " n"]
    first: Int[np.ndarray, " b1"]
    centres: Float[np.ndarray, "b 3"]
    radii: Float[np.ndarray, " b"]


def sort_into_buckets(field: GaussianField, cutoff: float) -> Buckets:
    """Cubes of such a size that one holds `_PER_BUCKET` Gaussians where they are about evenly spread."""
    means = field.means.astype(np.float64)
    low, high = means.min(axis=0), means.max(axis=0)
    side = max(float(np.prod(high - low + 1.0) * _PER_BUCKET / len(means)) ** (1 / 3), 1.0)
    cell = np.floor((means - low) / side).astype(np.int64)
    count = cell.max(axis=0) + 1
    number = (cell[:, 0] * count[1] + cell[:, 1]) * count[2] + cell[:, 2]
    order = np.argsort(number, kind="stable")
    first = np.append(np.unique(number[order], return_index=True)[1], len(means)).astype(np.int64)
    sizes = np.diff(first)
    centres = np.add.reduceat(means[order], first[:-1]) / sizes[:, None]
    reach = np.linalg.norm(means[order] - np.repeat(centres, sizes, axis=0), axis=1)
    reach += cutoff * np.exp(field.log_scales[order].max(axis=1))
    return Buckets(order, first, centres, np.maximum.reduceat(reach, first[:-1]))


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def in_slice_frame(turn, covariance):
    """Upper triangle (uu, uv, uw, vv, vw, ww) of R Sigma R^T; `covariance` is the upper triangle in world."""
    xx, xy, xz, yy, yz, zz = covariance
    ux = turn[0, 0] * xx + turn[0, 1] * xy + turn[0, 2] * xz
    uy = turn[0, 0] * xy + turn[0, 1] * yy + turn[0, 2] * yz
    uz = turn[0, 0] * xz + turn[0, 1] * yz + turn[0, 2] * zz
    vx = turn[1, 0] * xx + turn[1, 1] * xy + turn[1, 2] * xz
    vy = turn[1, 0] * xy + turn[1, 1] * yy + turn[1, 2] * yz
    vz = turn[1, 0] * xz + turn[1, 1] * yz + turn[1, 2] * zz
    wx = turn[2, 0] * xx + turn[2, 1] * xy + turn[2, 2] * xz
    wy = turn[2, 0] * xy + turn[2, 1] * yy + turn[2, 2] * yz
    wz = turn[2, 0] * xz + turn[2, 1] * yz + turn[2, 2] * zz
    return (
        ux * turn[0, 0] + uy * turn[0, 1] + uz * turn[0, 2],
        ux * turn[1, 0] + uy * turn[1, 1] + uz * turn[1, 2],
        ux * turn[2, 0] + uy * turn[2, 1] + uz * turn[2, 2],
        vx * turn[1, 0] + vy * turn[1, 1] + vz * turn[1, 2],
        vx * turn[2, 0] + vy * turn[2, 1] + vz * turn[2, 2],
        wx * turn[2, 0] + wy * turn[2, 1] + wz * turn[2, 2],
    )


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def inverse(matrix):
    """Inverse of a symmetric 3 x 3 matrix and its determinant, both by upper triangle."""
    uu, uv, uw, vv, vw, ww = matrix
    a, b, c = vv * ww - vw * vw, uw * vw - uv * ww, uv * vw - uw * vv
    determinant = uu * a + uv * b + uw * c
    d = 1.0 / determinant
    return (
        (a * d, b * d, c * d, (uu * ww - uw * uw) * d, (uv * uw - uu * vw) * d, (uu * vv - uv * uv) * d),
        determinant,
    )


@njit(nogil=True, fastmath=True, cache=True)
def window(u, v, distance, blurred, cutoff, spacing, shape):
    """First and last row, first and last column inside the cut-off; the last before the first: out of sight."""
    uu, _, uw, vv, vw, ww = blurred
    left = cutoff * cutoff - distance * distance / ww
    if left <= 0.0:
        return 0, -1, 0, -1
    # given the distance through the plane, the Gaussian is centred elsewhere in it, and narrower
    middle_u, middle_v = u + uw / ww * distance, v + vw / ww * distance
    half_u = np.sqrt(left * (uu - uw * uw / ww))
    half_v = np.sqrt(left * (vv - vw * vw / ww))
    row = max(int(np.ceil((middle_u - half_u) / spacing[0])), 0)
    last_row = min(int(np.floor((middle_u + half_u) / spacing[0])), shape[0] - 1)
    column = max(int(np.ceil((middle_v - half_v) / spacing[1])), 0)
    last_column = min(int(np.floor((middle_v + half_v) / spacing[1])), shape[1] - 1)
    if last_row < row or last_column < column:
        return 0, -1, 0, -1
    return row, last_row, column, last_column


@njit(nogil=True, fastmath=True, cache=True)
def _bucket_in_sight(to_slice, centre, radius, in_plane, depth, cutoff, spacing, shape):
    """Whether the ball around a bucket, widened by the point spread function, reaches the slice."""
    u = to_slice[0, 0] * centre[0] + to_slice[0, 1] * centre[1] + to_slice[0, 2] * centre[2] + to_slice[0, 3]
    v = to_slice[1, 0] * centre[0] + to_slice[1, 1] * centre[1] + to_slice[1, 2] * centre[2] + to_slice[1, 3]
    w = to_slice[2, 0] * centre[0] + to_slice[2, 1] * centre[1] + to_slice[2, 2] * centre[2] + to_slice[2, 3]
    reach_u, reach_v = radius + cutoff * np.sqrt(in_plane[0]), radius + cutoff * np.sqrt(in_plane[1])
    return (
        abs(w) <= radius + depth
        and -reach_u <= u <= spacing[0] * (shape[0] - 1) + reach_u
        and -reach_v <= v <= spacing[1] * (shape[1] - 1) + reach_v
    )


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def position(to_slice, mean):
    """Mean of a Gaussian in the slice frame (mm)."""
    return (
        to_slice[0, 0] * mean[0] + to_slice[0, 1] * mean[1] + to_slice[0, 2] * mean[2] + to_slice[0, 3],
        to_slice[1, 0] * mean[0] + to_slice[1, 1] * mean[1] + to_slice[1, 2] * mean[2] + to_slice[1, 3],
        to_slice[2, 0] * mean[0] + to_slice[2, 1] * mean[1] + to_slice[2, 2] * mean[2] + to_slice[2, 3],
    )


@without_allocation
def plan_slice(
    s, write, bucket_first, bucket_centres, bucket_radii, means, covariances, determinants, to_slice, in_plane, weights,
    offsets, variances, cutoff, exact, spacing, shapes, piece_first, gaussians, corners, n_rows, forms, depths,
):  # fmt: skip
    """Count the pieces of splats of slice `s` by bucket into ``piece_first[s, 1:]``, or with `write` write them.

    Gaussians are in the order of their buckets. ``piece_first[s, b]`` must then tell where each bucket's pieces start.
    """
    turn, shape, pixel = to_slice[s], shapes[s], spacing[s]
    stride = shape[1] + LANES
    step, log_weight = offsets[s, -1] - offsets[s, 0], np.log2(weights[0])
    share = np.log2(weights[1] / weights[0]) if weights.shape[0] == 2 else ABSENT
    depth = 0.0
    for m in range(weights.shape[0]):
        depth = max(depth, abs(offsets[s, m]) + cutoff * np.sqrt(variances[s, m]))
    for bucket in range(bucket_centres.shape[0]):
        n = piece_first[s, bucket] if write else 0
        centre, radius = bucket_centres[bucket], bucket_radii[bucket]
        if _bucket_in_sight(turn, centre, radius, in_plane[s], depth, cutoff, pixel, shape):
            for j in range(bucket_first[bucket], bucket_first[bucket + 1]):
                u, v, w = position(turn, means[j])
                if _out_of_depth(w, turn, covariances[j], offsets[s], variances[s], cutoff):
                    continue
                uu, uv, uw, vv, vw, ww = in_slice_frame(turn, covariances[j])
                uu, vv = uu + in_plane[s, 0], vv + in_plane[s, 1]
                blurred = (uu, uv, uw, vv, vw, ww + variances[s, 0])
                row, last_row, column, last_column = window(u, v, offsets[s, 0] - w, blurred, cutoff, pixel, shape)
                if weights.shape[0] == 2:
                    other = window(u, v, offsets[s, 1] - w, blurred, cutoff, pixel, shape)
                    row, last_row, column, last_column = joined((row, last_row, column, last_column), other)
                if last_row < row:
                    continue
                precision, determinant = inverse(blurred)
                rows = piece_rows(precision[0], pixel[0])
                if not write:
                    n += ((last_column - column) // LANES + 1) * ((last_row - row) // rows + 1)
                    continue
                peak = log_weight + (0.5 * np.log2(determinants[j] / determinant) if exact else 0.0)
                for left in range(column, last_column + 1, LANES):
                    for top in range(row, last_row + 1, rows):
                        gaussians[n], corners[n] = j, top * stride + left
                        n_rows[n] = min(rows, last_row + 1 - top)
                        mean_y, mean_x = u / pixel[0] - top, v / pixel[1] - left
                        write_form(forms, n, precision, offsets[s, 0] - w, peak, step, share, pixel, mean_y, mean_x)
                        if depths.size > 0:
                            depths[n] = w * w
                        n += 1
        if not write:
            piece_first[s, bucket + 1] = n


@njit(nogil=True, fastmath=True, cache=True)
def _out_of_depth(w, turn, covariance, offsets, variances, cutoff):
    """Whether the slice is too far away for any pixel of it to see the Gaussian: most are left out by this alone."""
    xx, xy, xz, yy, yz, zz = covariance
    x, y, z = turn[2, 0], turn[2, 1], turn[2, 2]
    variance = x * (x * xx + 2.0 * (y * xy + z * xz)) + y * (y * yy + 2.0 * z * yz) + z * z * zz
    nearest = np.inf
    for m in range(offsets.shape[0]):
        nearest = min(nearest, (offsets[m] - w) ** 2 / (variance + variances[m]))
    return nearest >= cutoff * cutoff


@njit(nogil=True, fastmath=True, cache=True)
def _power_of_two(y):
    return exponential(np.float32(y * _LOG_2))


@njit(nogil=True, fastmath=True, cache=True)
def piece_rows(precision, spacing):
    """Most rows of a piece: see `PIECE_DEVIATIONS`."""
    return int(min(max(PIECE_DEVIATIONS / (np.sqrt(precision) * spacing), 1.0), LONGEST_PIECE))


@njit(nogil=True, fastmath=True, cache=True)
def write_form(forms, n, precision, distance, peak, step, share, pixel, mean_y, mean_x):
    """The form of a piece (see `gaussian_window`) whose first pixel is at -(mean_y, mean_x) from the Gaussian.

    `distance`: of the slice from the Gaussian along w, as the profile's first component sees it; the second stands
    `step` further. `peak` is the binary logarithm of the first's peak, `share` that of the second's weight over the
    first's.
    """
    uu, uv, uw, vv, vw, ww = precision
    yy, yx, xx = -_LOG2_E * uu * pixel[0] * pixel[0], -_LOG2_E * uv * pixel[0] * pixel[1], -_LOG2_E * vv * pixel[1] ** 2
    along_y, along_x = -_LOG2_E * uw * pixel[0], -_LOG2_E * vw * pixel[1]
    first = FORM_SIZE * n
    slope_y = along_y * distance - yy * mean_y - yx * mean_x
    slope_x = along_x * distance - yx * mean_y - xx * mean_x
    # by Euler: the quadratic at the corner is half of its slope there and half of its linear part times the place
    corner = -0.5 * (slope_y * mean_y + slope_x * mean_x + distance * (along_y * mean_y + along_x * mean_x))
    forms[first + VALUE] = peak - 0.5 * _LOG2_E * ww * distance * distance + corner
    forms[first + VALUE + 1], forms[first + VALUE + 2] = slope_x, 0.5 * xx
    forms[first + NEXT_ROW], forms[first + NEXT_ROW + 1] = slope_y + 0.5 * yy, yx
    forms[first + NEXT_ROW_STEP] = _power_of_two(yy)
    forms[first + MEAN], forms[first + MEAN + 1] = mean_y, mean_x
    if share == ABSENT:
        forms[first + SECOND], forms[first + SECOND + 1], forms[first + SECOND_STEP] = ABSENT, 0.0, 1.0
    else:
        middle = -_LOG2_E * ww * (distance + 0.5 * step) - along_y * mean_y - along_x * mean_x
        forms[first + SECOND], forms[first + SECOND + 1] = share + step * middle, step * along_x
        forms[first + SECOND_STEP] = _power_of_two(step * along_y)


@njit(nogil=True, fastmath=True, cache=True)
def joined(one, other):
    """The smallest window around two."""
    if one[1] < one[0]:
        return other
    if other[1] < other[0]:
        return one
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])

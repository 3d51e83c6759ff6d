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
from gsvr.kernels.gaussian_window import ABSENT, FORM_SIZE
from gsvr.kernels.lanes import LANES

_PER_BUCKET = 64


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


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _window(u, v, distance, blurred, cutoff, spacing, shape):
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


@njit(nogil=True, fastmath=True, cache=True, inline="always")
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


@njit(nogil=True, fastmath=True, cache=True)
def plan_slice(
    s, write, bucket_first, bucket_centres, bucket_radii, means, covariances, determinants, to_slice, in_plane, weights,
    offsets, variances, cutoff, exact, spacing, shapes, splat_first, gaussians, starts, n_rows, blocks,
    forms, depths,
):  # fmt: skip
    """Count the splats of slice `s` by bucket into ``splat_first[s, 1:]``, or with `write` write them.

    Gaussians are in the order of their buckets. ``splat_first[s, b]`` must then tell where each bucket's splats start.
    """
    turn, shape, pixel = to_slice[s], shapes[s], spacing[s]
    stride = shape[1] + LANES
    depth = 0.0
    for m in range(weights.shape[0]):
        depth = max(depth, abs(offsets[s, m]) + cutoff * np.sqrt(variances[s, m]))
    for bucket in range(bucket_centres.shape[0]):
        n = splat_first[s, bucket] if write else 0
        centre, radius = bucket_centres[bucket], bucket_radii[bucket]
        if _bucket_in_sight(turn, centre, radius, in_plane[s], depth, cutoff, pixel, shape):
            for j in range(bucket_first[bucket], bucket_first[bucket + 1]):
                u, v, w = position(turn, means[j])
                uu, uv, uw, vv, vw, ww = in_slice_frame(turn, covariances[j])
                uu, vv = uu + in_plane[s, 0], vv + in_plane[s, 1]
                blurred = (uu, uv, uw, vv, vw, ww + variances[s, 0])
                row, last_row, column, last_column = _window(u, v, offsets[s, 0] - w, blurred, cutoff, pixel, shape)
                if weights.shape[0] == 2:
                    other = _window(u, v, offsets[s, 1] - w, blurred, cutoff, pixel, shape)
                    row, last_row, column, last_column = _both((row, last_row, column, last_column), other)
                if last_row < row:
                    continue
                if write:
                    gaussians[n], starts[n] = j, row * stride + column
                    n_rows[n], blocks[n] = last_row - row + 1, (last_column - column) // LANES + 1
                    precision, determinant = inverse(blurred)
                    peak = weights[0] * (np.sqrt(determinants[j] / determinant) if exact else 1.0)
                    _write_form(forms, n, precision, offsets[s, 0] - w, peak, pixel, u, v, row, column)
                    if weights.shape[0] == 2:
                        step = offsets[s, 1] - offsets[s, 0]
                        middle = 0.5 * (offsets[s, 1] + offsets[s, 0]) - w
                        _write_ratio(forms, n, precision, middle, step, weights[1] / weights[0], pixel)
                    if depths.size > 1:
                        depths[n] = w * w
                n += 1
        if not write:
            splat_first[s, bucket + 1] = n


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _write_form(forms, n, precision, distance, peak, pixel, u, v, row, column):
    uu, uv, uw, vv, vw, ww = precision
    first = FORM_SIZE * n
    forms[first] = np.log(peak) - 0.5 * ww * distance * distance
    forms[first + 1] = -uw * distance * pixel[0]
    forms[first + 2] = -vw * distance * pixel[1]
    forms[first + 3] = -0.5 * uu * pixel[0] * pixel[0]
    forms[first + 4] = -uv * pixel[0] * pixel[1]
    forms[first + 5] = -0.5 * vv * pixel[1] * pixel[1]
    forms[first + 6] = u / pixel[0] - row
    forms[first + 7] = v / pixel[1] - column
    forms[first + 8], forms[first + 9], forms[first + 10], forms[first + 11] = ABSENT, 0.0, 0.0, 1.0


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _write_ratio(forms, n, precision, middle, step, share, pixel):
    """Logarithm of the second component over the first; `middle`: d_w half-way between, `step`: their distance."""
    _, _, uw, _, vw, ww = precision
    first = FORM_SIZE * n + 8
    forms[first] = np.log(share) - ww * middle * step
    forms[first + 1] = -uw * step * pixel[0]
    forms[first + 2] = -vw * step * pixel[1]
    forms[first + 3] = np.exp(-uw * step * pixel[0])


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _both(one, other):
    """The smallest window around two."""
    if one[1] < one[0]:
        return other
    if other[1] < other[0]:
        return one
    return min(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), max(one[3], other[3])

"""Prediction, adjoint and derivatives of free Gaussians, slice by slice or bucket by bucket (see `gaussian_plan`)."""

# Numba's intrinsics and star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from numba import njit

from gsvr.kernels.gaussian_plan import in_slice_frame, inverse, position
from gsvr.kernels.gaussian_simd import (
    N_MOMENTS,
    N_PLANES,
    add_gaussian,
    add_gaussian_planes,
    add_moments,
    dot_gaussian,
    dot_squared_gaussian,
)
from gsvr.kernels.gaussian_window import (
    FORM_SIZE,
    NEXT_ROW,
    PIECES_AT_ONCE,
    SECOND,
    SECOND_STEP,
    START_SIZE,
    VALUE,
    start_pieces,
    start_single_pieces,
)
from gsvr.kernels.lanes import LANES
from gsvr.kernels.numba_compiled import by_multiplication


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _set_reach(reach, depth, spacing):
    reach[0], reach[1], reach[2] = depth, spacing[0] * spacing[0], spacing[1] * spacing[1]


@by_multiplication(makes_arrays=True)
def predict_slice(
    s, factors, piece_first, gaussians, corners, n_rows, forms, depths, spacing, shapes, first_pixel, limits,
    limits_first, out,
):  # fmt: skip
    """Add every splat of slice `s`, `factors` times, and write its pixels."""
    stride = shapes[s, 1] + LANES
    plane = np.zeros(shapes[s, 0] * stride + LANES, np.float32)
    reach, starts = np.zeros(3, np.float32), np.empty(PIECES_AT_ONCE * START_SIZE, np.float32)
    end = piece_first[s, -1]
    for first in range(piece_first[s, 0], end, PIECES_AT_ONCE):
        count = min(PIECES_AT_ONCE, end - first)
        start_pieces(forms, first, count, starts)
        for place in range(count):
            n = first + place
            corner, rows, factor = np.int64(corners[n]), np.int64(n_rows[n]), factors[gaussians[n]]
            if limits is None:
                add_gaussian(plane, corner, stride, forms, n, starts, place, factor, rows, None, reach)
            else:
                _set_reach(reach, depths[n], spacing[s])
                limit = limits[limits_first[s] : limits_first[s + 1]]
                add_gaussian(plane, corner, stride, forms, n, starts, place, factor, rows, limit, reach)
    for a in range(shapes[s, 0]):
        source, target = a * stride, first_pixel[s] + a * shapes[s, 1]
        for b in range(shapes[s, 1]):
            out[target + b] = plane[source + b]


@by_multiplication(makes_arrays=True)
def pad_slices(values, shapes, first_pixel, padded, padded_first):
    """Copy every slice into rows that are eight columns wider, so that vectors need no border checks."""
    for s in range(shapes.shape[0]):
        stride = shapes[s, 1] + LANES
        for a in range(shapes[s, 0]):
            target, source = padded_first[s] + a * stride, first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                padded[target + b] = values[source + b]


@by_multiplication(makes_arrays=True)
def adjoint_buckets(
    first_bucket, last_bucket, padded, padded_first, piece_first, gaussians, corners, n_rows, forms, depths, spacing,
    shapes, limits, squared, out,
):  # fmt: skip
    """Transpose of `predict_slice` for the Gaussians of some buckets, over all slices; of squared weights if `squared`.

    Squared weights are those of pieces, which do not share a pixel. Several buckets together, because their splats in
    one slice follow each other in memory.
    """
    reach, starts = np.zeros(3, np.float32), np.empty(PIECES_AT_ONCE * START_SIZE, np.float32)
    for s in range(shapes.shape[0]):
        stride, base = shapes[s, 1] + LANES, padded_first[s]
        end = piece_first[s, last_bucket]
        for first in range(piece_first[s, first_bucket], end, PIECES_AT_ONCE):
            count = min(PIECES_AT_ONCE, end - first)
            start_pieces(forms, first, count, starts)
            for place in range(count):
                n = first + place
                corner, rows = base + np.int64(corners[n]), np.int64(n_rows[n])
                if limits is not None:
                    _set_reach(reach, depths[n], spacing[s])
                if squared:
                    value = dot_squared_gaussian(padded, corner, stride, forms, n, starts, place, rows, limits, reach)
                else:
                    value = dot_gaussian(padded, corner, stride, forms, n, starts, place, rows, limits, reach)
                out[gaussians[n]] += value


@by_multiplication(makes_arrays=True)
def differentiate_slice(
    s, factors, piece_first, gaussians, corners, n_rows, forms, means, covariances, to_slice,
    in_plane, offsets, variances, exact, spacing, shapes, first_pixel, out,
):  # fmt: skip
    """Pixels of slice `s` and their derivatives, the seven planes of `add_gaussian_planes`, component by component."""
    stride = shapes[s, 1] + LANES
    size = shapes[s, 0] * stride + LANES
    planes = np.zeros(N_PLANES * size, np.float32)
    slopes = np.zeros(16, np.float32)
    form, start = np.empty(FORM_SIZE, np.float32), np.empty(START_SIZE, np.float32)
    pixel = spacing[s]
    for n in range(piece_first[s, 0], piece_first[s, -1]):
        j = gaussians[n]
        uu, uv, uw, vv, vw, ww = in_slice_frame(to_slice[s], covariances[j])
        depth = variances[s, 0]
        precision, _ = inverse((uu + in_plane[s, 0], uv, uw, vv + in_plane[s, 1], vw, ww + depth))
        uu, uv, uw, vv, vw, ww = precision
        _, _, w = position(to_slice[s], means[j])
        slopes[1], slopes[2] = uu * pixel[0], uv * pixel[1]
        slopes[4], slopes[5] = uv * pixel[0], vv * pixel[1]
        slopes[7], slopes[8] = uw * pixel[0], vw * pixel[1]
        slopes[9], slopes[10] = in_plane[s, 1] - depth, depth - in_plane[s, 0]
        slopes[11] = in_plane[s, 0] - in_plane[s, 1]
        if exact:
            slopes[12], slopes[13], slopes[14] = vw, uw, uv
        for m in range(offsets.shape[1]):
            distance = offsets[s, m] - w
            slopes[0], slopes[3], slopes[6], slopes[15] = uw * distance, vw * distance, ww * distance, offsets[s, m]
            _component(forms, n, m, form)
            start_single_pieces(form, 0, 1, start)
            add_gaussian_planes(
                planes, np.int64(corners[n]), stride, size, form, 0, start, 0, factors[j], slopes, np.int64(n_rows[n])
            )
    for plane in range(N_PLANES):
        for a in range(shapes[s, 0]):
            source, target = plane * size + a * stride, first_pixel[s] + a * shapes[s, 1]
            for b in range(shapes[s, 1]):
                out[plane, target + b] = planes[source + b]


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _component(forms, n, m, form):
    """Form of one component of the slice profile alone, for a loop that does not look at the second."""
    first = FORM_SIZE * n
    for entry in range(FORM_SIZE):
        form[entry] = forms[first + entry]
    if m == 1:
        form[VALUE] += form[SECOND]
        form[VALUE + 1] += form[SECOND + 1]
        form[NEXT_ROW] += np.log2(form[SECOND_STEP])


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _symmetric_product(a, m):
    """Upper triangle of A M A for symmetric A and M by upper triangle."""
    auu, auv, auw, avv, avw, aww = a
    muu, muv, muw, mvv, mvw, mww = m
    # rows of A M
    xu, xv, xw = auu * muu + auv * muv + auw * muw, auu * muv + auv * mvv + auw * mvw, auu * muw + auv * mvw + auw * mww
    yu, yv, yw = auv * muu + avv * muv + avw * muw, auv * muv + avv * mvv + avw * mvw, auv * muw + avv * mvw + avw * mww
    zu, zv, zw = auw * muu + avw * muv + aww * muw, auw * muv + avw * mvv + aww * mvw, auw * muw + avw * mvw + aww * mww
    return (
        xu * auu + xv * auv + xw * auw,
        xu * auv + xv * avv + xw * avw,
        xu * auw + xv * avw + xw * aww,
        yu * auv + yv * avv + yw * avw,
        yu * auw + yv * avw + yw * aww,
        zu * auw + zv * avw + zw * aww,
    )


@by_multiplication(makes_arrays=True)
def gradient_bucket(
    bucket, planes, second, factors, padded_first, piece_first, gaussians, corners, n_rows, forms, depths,
    means, covariances, to_slice, in_plane, offsets, variances, centres, exact, spacing, shapes, limits,
    peaks, mean_gradient, covariance_gradient, pose_gradient,
):  # fmt: skip
    """Gradient of the sum of r times the pixels by geometry and poses, for the Gaussians of one bucket.

    Per Gaussian: the sum of r G into `peaks`, by its mean and by its covariance (upper triangle, world), without what
    the determinant of Sigma in the peak adds; per slice, by rotation and translation in its frame about its centre.
    With M the moments of r G d d^T and L the inverse of the blurred covariance, the gradient by it is
    L M L / 2 - L sum(r G) / 2.
    """
    reach, sums = np.zeros(3, np.float32), np.zeros(N_MOMENTS, np.float32)
    starts = np.empty(PIECES_AT_ONCE * START_SIZE, np.float32)
    for s in range(shapes.shape[0]):
        stride, base, pixel = shapes[s, 1] + LANES, padded_first[s], spacing[s]
        turn = to_slice[s]
        begin, end = piece_first[s, bucket], piece_first[s, bucket + 1]
        for n in range(begin, end):
            place = (n - begin) % PIECES_AT_ONCE
            if place == 0:
                start_pieces(forms, n, min(PIECES_AT_ONCE, end - n), starts)
            j = gaussians[n]
            corner, rows = base + np.int64(corners[n]), np.int64(n_rows[n])
            if limits is not None:
                _set_reach(reach, depths[n], pixel)
            add_moments(
                planes, corner, stride, second, factors[j], forms, n, starts, place, rows, limits, reach, sums
            )  # fmt: skip
            u, v, w = position(turn, means[j])
            whole = np.float64(sums[0])
            mu, mv, mw, moment = _moments(sums, offsets[s, 0] - w, offsets[s, -1] - w, pixel)
            inside = in_slice_frame(turn, covariances[j])
            uu, uv, uw, vv, vw, ww = inside
            precision, _ = inverse((uu + in_plane[s, 0], uv, uw, vv + in_plane[s, 1], vw, ww + variances[s, 0]))
            outer = _symmetric_product(precision, moment)
            if exact:  # the peak has the determinant of the blurred covariance in it
                outer = _less(outer, whole, precision)
            _to_world(turn, outer, covariance_gradient[j])
            uu, uv, uw, vv, vw, ww = precision
            pull_u, pull_v = uu * mu + uv * mv + uw * mw, uv * mu + vv * mv + vw * mw
            pull_w = uw * mu + vw * mv + ww * mw
            peaks[j] += whole
            for axis in range(3):
                mean_gradient[j, axis] += turn[0, axis] * pull_u + turn[1, axis] * pull_v + turn[2, axis] * pull_w
            lever_u, lever_v, lever_w = u - centres[s, 0], v - centres[s, 1], w
            row = pose_gradient[s, bucket]
            turn_u, turn_v, turn_w = _turning(outer, inside)
            row[0] += pull_v * lever_w - pull_w * lever_v + turn_u
            row[1] += pull_w * lever_u - pull_u * lever_w + turn_v
            row[2] += pull_u * lever_v - pull_v * lever_u + turn_w
            row[3] -= pull_u
            row[4] -= pull_v
            row[5] -= pull_w


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _moments(sums, first, second, pixel):
    """Sums of r G d (3) and of r G d d^T (upper triangle), mm; d_w is `first`, for the second component `second`."""
    step = second - first
    mu, mv, mw = pixel[0] * sums[1], pixel[1] * sums[2], first * sums[0] + step * sums[6]
    return (
        mu,
        mv,
        mw,
        (
            pixel[0] * pixel[0] * sums[3],
            pixel[0] * pixel[1] * sums[4],
            first * mu + step * pixel[0] * sums[7],
            pixel[1] * pixel[1] * sums[5],
            first * mv + step * pixel[1] * sums[8],
            first * first * sums[0] + (second * second - first * first) * sums[6],
        ),
    )


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _turning(outer, inside):
    """What turning a covariance changes, given twice the gradient by it: the antisymmetric part of their product."""
    huu, huv, huw, hvv, hvw, hww = outer
    uu, uv, uw, vv, vw, ww = inside
    return (
        huv * uw + hvv * vw + hvw * ww - huw * uv - hvw * vv - hww * vw,
        huw * uu + hvw * uv + hww * uw - huu * uw - huv * vw - huw * ww,
        huu * uv + huv * vv + huw * vw - huv * uu - hvv * uv - hvw * uw,
    )


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _less(outer, whole, precision):
    """L M L - whole L."""
    return (
        outer[0] - whole * precision[0], outer[1] - whole * precision[1], outer[2] - whole * precision[2],
        outer[3] - whole * precision[3], outer[4] - whole * precision[4], outer[5] - whole * precision[5],
    )  # fmt: skip


@njit(nogil=True, fastmath=True, cache=True, inline="always")
def _to_world(turn, outer, gradient):
    """Add R^T (matrix) R / 2 to the upper triangle of a gradient in world."""
    uu, uv, uw, vv, vw, ww = outer
    n = 0
    for a in range(3):
        # row a of R^T times the matrix
        x = turn[0, a] * uu + turn[1, a] * uv + turn[2, a] * uw
        y = turn[0, a] * uv + turn[1, a] * vv + turn[2, a] * vw
        z = turn[0, a] * uw + turn[1, a] * vw + turn[2, a] * ww
        for b in range(a, 3):
            gradient[n] += 0.5 * (x * turn[0, b] + y * turn[1, b] + z * turn[2, b])
            n += 1

"""Normal equations of every slice's pose, without a Jacobian in memory.

The six derivatives of a pixel (see `gsvr.forward.AcquisitionOperator.pose_derivatives`) are combinations of the sums
that the kernels return; they are made, multiplied and summed pixel by pixel.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numba import njit

from gsvr.forward import AcquisitionOperator
from gsvr.kernels.threads import parallel_for
from gsvr.solver.motion import LEVER, NormalEquations

_PAIRS = np.array([(i, j) for i in range(6) for j in range(i, 6)])


@njit(nogil=True, fastmath=True, cache=True)
def _add_row(planes, first, count, u, start_v, step_v, gain, values, weights, sums, gradient):
    """Add J^T W J (upper triangle, row after row) and J^T W r of one row of pixels."""
    s00 = s01 = s02 = s03 = s04 = s05 = s11 = s12 = s13 = s14 = s15 = np.float32(0.0)
    s22 = s23 = s24 = s25 = s33 = s34 = s35 = s44 = s45 = s55 = np.float32(0.0)
    g0 = g1 = g2 = g3 = g4 = g5 = np.float32(0.0)
    for b in range(count):
        p = first + b
        v = start_v + step_v * np.float32(b)
        j3, j4, j5 = planes[1, p], planes[2, p], planes[3, p]
        j0, j1, j2 = v * j5 - planes[4, p], -u * j5 - planes[5, p], u * j4 - v * j3 - planes[6, p]
        w = weights[p]
        r = w * (values[p] - gain * planes[0, p])
        w0, w1, w2, w3, w4, w5 = w * j0, w * j1, w * j2, w * j3, w * j4, w * j5
        s00, s01, s02, s03, s04, s05 = (
            s00 + w0 * j0, s01 + w0 * j1, s02 + w0 * j2, s03 + w0 * j3, s04 + w0 * j4, s05 + w0 * j5,
        )  # fmt: skip
        s11, s12, s13, s14, s15 = s11 + w1 * j1, s12 + w1 * j2, s13 + w1 * j3, s14 + w1 * j4, s15 + w1 * j5
        s22, s23, s24, s25 = s22 + w2 * j2, s23 + w2 * j3, s24 + w2 * j4, s25 + w2 * j5
        s33, s34, s35, s44, s45, s55 = (
            s33 + w3 * j3, s34 + w3 * j4, s35 + w3 * j5, s44 + w4 * j4, s45 + w4 * j5, s55 + w5 * j5,
        )  # fmt: skip
        g0, g1, g2, g3, g4, g5 = g0 + r * j0, g1 + r * j1, g2 + r * j2, g3 + r * j3, g4 + r * j4, g5 + r * j5
    row = (s00, s01, s02, s03, s04, s05, s11, s12, s13, s14, s15, s22, s23, s24, s25, s33, s34, s35, s44, s45, s55)
    for n in range(21):
        sums[n] += row[n]
    for n, part in enumerate((g0, g1, g2, g3, g4, g5)):
        gradient[n] += part


@njit(nogil=True, fastmath=True, cache=True)
def _sum_slice(s, planes, shapes, first_pixel, spacings, gains, values, weights, sums, gradients):
    """J^T W J and J^T W r of one slice, rotations in rad."""
    half_u, half_v = (shapes[s, 0] - 1) / 2, (shapes[s, 1] - 1) / 2
    for a in range(shapes[s, 0]):
        _add_row(
            planes, first_pixel[s] + a * shapes[s, 1], shapes[s, 1], np.float32((a - half_u) * spacings[s, 0]),
            np.float32(-half_v * spacings[s, 1]), np.float32(spacings[s, 1]), np.float32(gains[s]), values, weights,
            sums[s], gradients[s],
        )  # fmt: skip
    sums[s] *= gains[s] ** 2
    gradients[s] *= gains[s]


def pose_equations(
    operator: AcquisitionOperator,
    amplitudes: Float32[np.ndarray, "*sites"],
    values: Float32[np.ndarray, " p"],
    weights: Float32[np.ndarray, " p"],
) -> NormalEquations:
    """Sum J^T W J and J^T W r over the pixels of every slice, with r = `values` - prediction."""
    slices = operator.slices
    planes = operator.derivative_planes(amplitudes)
    n = slices.n_slices
    sums, gradients = np.zeros((n, len(_PAIRS))), np.zeros((n, 6))
    spacings, weights = slices.pixel_spacings, weights.astype(np.float32, copy=False)

    def body(s: int) -> None:
        _sum_slice(
            s, planes, slices.shapes, slices.offsets, spacings, operator.gains, values, weights, sums, gradients
        )  # fmt: skip

    parallel_for(body, n)
    curvature = np.empty((n, 6, 6))
    curvature[:, _PAIRS[:, 0], _PAIRS[:, 1]] = curvature[:, _PAIRS[:, 1], _PAIRS[:, 0]] = sums
    units = np.array([1 / LEVER] * 3 + [1.0] * 3)
    return NormalEquations(curvature * units[:, None] * units, gradients * units)

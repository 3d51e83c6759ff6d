"""Normal equations of every slice's pose, without a Jacobian in memory.

The six derivatives of a pixel (see `gsvr.operators.acquisition.AcquisitionOperator.pose_derivatives`) are combinations of the sums
that the kernels return; they are made, multiplied and summed pixel by pixel (``compiled/c/pose_equations.c``).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from gsvr import compiled
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.motion import LEVER, NormalEquations

_PAIRS = np.array([(i, j) for i in range(6) for j in range(i, 6)])


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
    compiled.run(
        "sum_pose_equations", n, planes, planes.shape[1], slices.shapes, slices.offsets, slices.pixel_spacings,
        operator.gains, values, weights.astype(np.float32, copy=False), sums, gradients,
    )  # fmt: skip
    curvature = np.empty((n, 6, 6))
    curvature[:, _PAIRS[:, 0], _PAIRS[:, 1]] = curvature[:, _PAIRS[:, 1], _PAIRS[:, 0]] = sums
    units = np.array([1 / LEVER] * 3 + [1.0] * 3)
    return NormalEquations(curvature * units[:, None] * units, gradients * units)

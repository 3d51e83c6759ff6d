"""How far the pose of every slice may be off: a standard deviation from the Gauss-Newton equations.

For a known field and independent pixels the covariance of a pose is noise^2 (J^T W J)^-1. Neither holds, so it is
scaled twice: by what neighbouring residuals share, which is measured (`shared_by_neighbours`), and by `_FIELD`, since
the field was made from the same slices. A slice that shows little is held by how much the poses of its stack vary.
A slice that was caught in a wrong place does not know it: its deviation is that of the place where it is.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from gsvr.backends.protocol import Array
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.motion import LEVER, in_mm, pose_parameters
from gsvr.solver.state import State

# Squared errors of poses over those of slices in a known field, as measured in simulated acquisitions of three brains.
_FIELD = 3.5
# Side of the blocks (mm) that pixels which share an error lie in.
_BLOCK = 9.0
# Least spread (mm) of poses in a stack: a stack that hardly moved says nothing on where a slice could be.
_LEAST_SPREAD = 1.0


def pose_deviations(state: State) -> Float[np.ndarray, "n 2"]:
    """Standard deviations of each slice's place (mm) and direction (degrees).

    The first is that of the slice's centre, the second of its rotation vector, each over all three axes (root of the
    sum of the variances).

    Parameters
    ----------
    state
        How the last stage ended.
    """
    operator, weights = state.operator, state.weights
    equations = operator.pose_equations(state.amplitudes, operator.pixels.values, weights.pixels)
    shared = max(shared_by_neighbours(operator, state.amplitudes, weights.pixels), 1.0)
    information = in_mm(equations)[0] / (_FIELD * shared * weights.noise**2)
    spread = _spread_in_stack(state.slices, state.poses)
    covariances = np.linalg.inv(information + np.eye(6) / spread[:, None, None] ** 2)
    variances = np.einsum("nii->ni", covariances)
    turn = np.rad2deg(np.sqrt(variances[:, :3].sum(axis=1)) / LEVER)
    return np.stack([np.sqrt(variances[:, 3:].sum(axis=1)), turn], axis=1)


def shared_by_neighbours(operator: AcquisitionOperator, amplitudes: Array, weights: Array) -> float:
    """Variance of what residuals pull at poses, relative to that of independent pixels.

    The pull of a pixel is its row of J^T W r. Pulls summed over blocks have the variance of their sum if pixels are
    independent, and more if neighbours share an error, such as that of an unknown coil field.
    """
    slices, host = operator.slices, operator.backend.host
    prediction, columns = operator.pose_derivatives(amplitudes)
    weighted = host(weights * (operator.pixels.values - prediction))
    blocks = _blocks(slices)
    together = alone = 0.0
    for column, unit in zip(columns, (1 / LEVER,) * 3 + (1.0,) * 3, strict=True):
        pull = unit * host(column).astype(np.float64) * weighted
        together += float((np.bincount(blocks, pull) ** 2).sum())
        alone += float((pull**2).sum())
    return together / max(alone, 1e-30)


def _blocks(slices: Slices) -> Int[np.ndarray, " p"]:
    """Number of the square of side `_BLOCK` that each pixel lies in."""
    numbers, first = [], 0
    for shape, spacing in zip(slices.shapes, slices.pixel_spacings, strict=True):
        row, column = (np.arange(n) * side // _BLOCK for n, side in zip(shape, spacing, strict=True))
        block = row[:, None].astype(np.int64) * (int(column[-1]) + 1) + column.astype(np.int64)
        numbers.append(first + block.ravel())
        first += int(block[-1, -1]) + 1
    return np.concatenate(numbers)


def _spread_in_stack(slices: Slices, poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, " n"]:
    """Of every slice, how much the poses of its stack differ (mm), as one parameter's standard deviation."""
    parameters = pose_parameters(slices, poses)
    spread = np.empty(slices.n_slices)
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        spread[members] = np.sqrt(parameters[members].var(axis=0).mean())
    return np.maximum(spread, _LEAST_SPREAD)

"""Optimising the geometry of free Gaussians: variable projection, and Gaussians that split or go.

For the best amplitudes, the gradient of the objective by the geometry is that at fixed amplitudes (variable projection;
Golub & Pereyra, 1973). So steps of AdamW on means, scales and rotations alternate with a few conjugate-gradient steps
on the amplitudes. No scale leaves the range that the scales had at the start.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsvr.model.fields import GaussianField
from gsvr.model.geometry import rotation_from_quaternion
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.adamw import AdamW, LearningRate
from gsvr.solver.free_rounds import FreeState, solve_round
from gsvr.solver.priors.neighbours import find_neighbours
from gsvr.solver.schedule import SolverOptions

# Children of a Gaussian stand this many standard deviations to either side; together they keep its variance.
APART = 0.6


def refine_geometry(slices: Slices, state: FreeState, options: SolverOptions, steps: int) -> FreeState:
    """Move, stretch and turn the Gaussians, at the weights of the state; then split and prune, if the options say so.

    Parameters
    ----------
    slices
        What the state was fitted to.
    state
        After at least one round.
    options
        Those of the reconstruction, with `SolverOptions.refinement`.
    steps
        Steps of AdamW; without any the state is returned as it is.
    """
    if steps == 0:
        return state
    refinement = options.refinement
    start = state.free_field
    floor, ceiling = start.log_scales.min(), start.log_scales.max()
    typical = float(np.exp(np.median(start.log_scales)))
    optimiser = AdamW(
        {
            "means": LearningRate(refinement.mean_rate * typical),
            "log_scales": LearningRate(refinement.scale_rate),
            "quaternions": LearningRate(refinement.quaternion_rate),
        },
        halved_every=max(steps // 2, 1),
    )
    for step in range(1, steps + 1):
        field = _moved(optimiser, state, slices)
        field = replace(field, log_scales=np.clip(field.log_scales, floor, ceiling))
        state = _at(state, field, options)
        if step % refinement.amplitudes_every == 0:
            state = solve_round(slices, options, state, refinement.iterations)
    if refinement.split_share > 0 or refinement.prune_below > 0:
        state = _at(state, split_and_pruned(slices, state, options), options)
    return replace(state, neighbours=find_neighbours(state.free_field, options.neighbours.count))


def _moved(optimiser: AdamW, state: FreeState, slices: Slices) -> GaussianField:
    """The field after one step against the gradient of half the weighted squared residuals."""
    field = state.free_field
    residual = state.weights.pixels * (state.prediction - slices.values)
    gradient = state.operator.geometry_gradient(state.amplitudes, residual)
    by_scale, by_quaternion = field.shape_gradient(gradient.covariances)
    moved = optimiser.step(
        {"means": field.means, "log_scales": field.log_scales, "quaternions": field.quaternions},
        {"means": gradient.means, "log_scales": by_scale, "quaternions": by_quaternion},
    )
    return replace(field, **moved)


def _at(state: FreeState, field: GaussianField, options: SolverOptions) -> FreeState:
    """The state with other Gaussians."""
    before = state.operator
    operator = AcquisitionOperator(field, before.slices, before.poses, before.gains, options.profile, options.backend)
    prediction = operator.predict(field.amplitudes)
    same = len(field.amplitudes) == len(state.amplitudes)
    neighbours = state.neighbours if same else find_neighbours(field, options.neighbours.count)
    return replace(
        state,
        amplitudes=field.amplitudes,
        operator=operator,
        prediction=prediction,
        neighbours=neighbours,
        diagonal=None,
    )


def split_and_pruned(slices: Slices, state: FreeState, options: SolverOptions) -> GaussianField:
    """Without Gaussians that do next to nothing, and with two in place of those where residuals are largest."""
    refinement, field = options.refinement, state.free_field
    weights = state.weights
    diagonal = state.operator.diagonal(weights.pixels)
    share = np.sqrt(diagonal) * np.abs(state.amplitudes) / np.float32(weights.white_noise)
    keep = share >= refinement.prune_below
    residual = state.prediction - slices.values
    energy = state.operator.diagonal(weights.pixels * residual * residual) / np.maximum(diagonal, 1e-6)
    # where hardly any pixel looks, there is nothing to split by
    energy[~keep | (diagonal < 0.1 * np.median(diagonal))] = 0
    count = int(refinement.split_share * len(keep))
    chosen = np.zeros_like(keep)
    chosen[np.argsort(energy)[len(energy) - count :]] = True
    return joined(field.subset(keep & ~chosen), halves(field.subset(chosen)))


def joined(one: GaussianField, other: GaussianField) -> GaussianField:
    """Gaussians of two fields."""
    return replace(
        one,
        means=np.concatenate([one.means, other.means]),
        log_scales=np.concatenate([one.log_scales, other.log_scales]),
        quaternions=np.concatenate([one.quaternions, other.quaternions]),
        amplitudes=np.concatenate([one.amplitudes, other.amplitudes]),
    )


def halves(field: GaussianField) -> GaussianField:
    """Two Gaussians for each, side by side along its longest axis, with its integral, mean and covariance."""
    longest, rows = field.log_scales.argmax(axis=1), np.arange(len(field.means))
    axes = rotation_from_quaternion(field.quaternions.astype(np.float64))[rows, :, longest]
    offset = (APART * np.exp(field.log_scales[rows, longest]))[:, None] * axes
    narrower = np.float32(np.sqrt(1 - APART**2))
    log_scales = field.log_scales.copy()
    log_scales[rows, longest] += np.log(narrower)
    half = replace(field, log_scales=log_scales, amplitudes=field.amplitudes / (2 * narrower))
    left = replace(half, means=(field.means - offset).astype(field.means.dtype))
    return joined(left, replace(half, means=(field.means + offset).astype(field.means.dtype)))

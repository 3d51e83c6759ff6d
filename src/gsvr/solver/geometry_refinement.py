"""Optimising the geometry of free Gaussians: variable projection, and Gaussians that split or go.

For the best amplitudes, the gradient of the objective by the geometry is that at fixed amplitudes (variable projection;
Golub & Pereyra, 1973). So steps of AdamW on means, scales and rotations alternate with a few conjugate-gradient steps
on the amplitudes. No scale leaves the range that the scales had at the start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsvr.model.fields import GaussianField
from gsvr.model.geometry import rotation_from_quaternion
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.adamw import AdamW, Halving, LearningRate
from gsvr.solver.amplitudes import refit
from gsvr.solver.priors.protocol import PriorOnGaussians
from gsvr.solver.state import State

# Children of a Gaussian stand this many standard deviations to either side; together they keep its variance.
_APART = 0.6


@dataclass(frozen=True)
class RefinementOptions:
    """How the geometry of free Gaussians is optimised.

    Attributes
    ----------
    mean_rate, scale_rate, quaternion_rate
        How far a step moves a mean (share of the typical standard deviation), a log-scale and a quaternion, at first.
    amplitudes_every, iterations
        After so many steps, so many conjugate-gradient steps for the amplitudes.
    split_share
        Share of Gaussians, those with the largest residuals around them, that are split in the end.
    prune_below
        Gaussians go whose contribution to all pixels (root of the weighted sum of squares) is below this, in standard
        deviations of the noise.
    """

    mean_rate: float = 0.01
    scale_rate: float = 0.01
    quaternion_rate: float = 0.005
    amplitudes_every: int = 5
    iterations: int = 2
    split_share: float = 0.0
    prune_below: float = 0.0


def refine_geometry(
    state: State, steps: int, options: RefinementOptions, neighbours: PriorOnGaussians, level: float
) -> State:
    """Move, stretch and turn the Gaussians, at the weights of the state; then split and prune, if the options say so.

    Parameters
    ----------
    state
        With free Gaussians, after at least one outer iteration.
    steps
        Steps of AdamW; without any the state is returned as it is.
    neighbours, level
        The prior, which is made anew for the Gaussians that come out, see `PriorOnGaussians`.
    """
    if steps == 0:
        return state
    start = _gaussians(state)
    floor, ceiling = start.log_scales.min(), start.log_scales.max()
    typical = float(np.exp(np.median(start.log_scales)))
    rates = {
        "means": LearningRate(options.mean_rate * typical),
        "log_scales": LearningRate(options.scale_rate),
        "quaternions": LearningRate(options.quaternion_rate),
    }
    optimiser = AdamW(rates, Halving(max(steps // 2, 1)))
    for step in range(1, steps + 1):
        field = _moved(optimiser, state)
        state = _at(state, replace(field, log_scales=np.clip(field.log_scales, floor, ceiling)))
        if step % options.amplitudes_every == 0:
            state = refit(state, options.iterations)
    if options.split_share > 0 or options.prune_below > 0:
        state = _at(state, split_and_pruned(state, options))
    return replace(state, prior=neighbours.on(_operator(state), level))


def _operator(state: State) -> GaussianOperator:
    if not isinstance(state.operator, GaussianOperator):
        raise TypeError("only free Gaussians have a geometry to refine: this state is on a lattice")
    return state.operator


def _gaussians(state: State) -> GaussianField:
    return _operator(state).field(state.amplitudes)


def _moved(optimiser: AdamW, state: State) -> GaussianField:
    """The field after one step against the gradient of half the weighted squared residuals."""
    field, operator = _gaussians(state), _operator(state)
    residual = state.weights.pixels * (state.prediction - operator.pixels.values)
    gradient = operator.geometry_gradient(state.amplitudes, residual)
    by_scale, by_quaternion = field.shape_gradient(gradient.covariances)
    moved = optimiser.step(
        {"means": field.means, "log_scales": field.log_scales, "quaternions": field.quaternions},
        {"means": gradient.means, "log_scales": by_scale, "quaternions": by_quaternion},
    )
    return replace(field, **moved)


def _at(state: State, field: GaussianField) -> State:
    """The state with other Gaussians."""
    operator = _operator(state).with_gaussians(field)
    amplitudes = operator.backend.array(field.amplitudes)
    prediction = operator.predict(amplitudes)
    return replace(state, amplitudes=amplitudes, operator=operator, prediction=prediction, diagonal=None)


def split_and_pruned(state: State, options: RefinementOptions) -> GaussianField:
    """Without Gaussians that do next to nothing, and with two in place of those where residuals are largest."""
    operator, weights, field = _operator(state), state.weights, _gaussians(state)
    host = operator.backend.host
    diagonal = host(operator.diagonal(weights.pixels))
    share = np.sqrt(diagonal) * np.abs(field.amplitudes) / np.float32(weights.white_noise)
    keep = share >= options.prune_below
    residual = state.prediction - operator.pixels.values
    energy = host(operator.diagonal(weights.pixels * residual * residual)) / np.maximum(diagonal, 1e-6)
    # where hardly any pixel looks, there is nothing to split by
    energy[~keep | (diagonal < 0.1 * np.median(diagonal))] = 0
    count = int(options.split_share * len(keep))
    chosen = np.zeros_like(keep)
    chosen[np.argsort(energy, kind="stable")[len(energy) - count :]] = True
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
    offset = (_APART * np.exp(field.log_scales[rows, longest]))[:, None] * axes
    narrower = np.float32(np.sqrt(1 - _APART**2))
    log_scales = field.log_scales.copy()
    log_scales[rows, longest] += np.log(narrower)
    half = replace(field, log_scales=log_scales, amplitudes=field.amplitudes / (2 * narrower))
    left = replace(half, means=(field.means - offset).astype(field.means.dtype))
    return joined(left, replace(half, means=(field.means + offset).astype(field.means.dtype)))

"""Stacks predicted from the others, at the poses that a reconstruction ended with: evidence that needs no truth.

The stacks are dealt into groups. A coarse field is made of all groups but one, and predicts the group that it has not
seen; then the pose of every slice of that group is fitted to it. A slice in a wrong place is not what the other stacks
predict, or wants to move.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.gains import intensity_scale
from gsvr.solver.motion import SliceMotion
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.stack_agreement import determined_pixels, operator_on
from gsvr.solver.state import Result, State

# Coarse fields suffice to tell where a slice belongs, and pixels are averaged to about this size (mm) for them.
_STAGE = Stage("prediction of stacks from others", 3.0, 1, 2, 5, "none")
_PIXEL = 3.3
_MOST_GROUPS = 3
# Slices are fitted in this many steps, without a prior along time; what a slice hardly tells stays as it is.
_STEPS = 3
_FREE = SliceMotion(prior_share=0.0, relaxation=1.0, damping=0.2)
# A slice is compared if the others determine so many of its pixels.
_LEAST_PIXELS = 12


@dataclass(frozen=True, repr=False)
class CrossPrediction:
    """How well every slice is predicted by stacks that are not its own; NaN for slices that the others do not reach.

    Attributes
    ----------
    unexplained
        Share of the variance of the slice's pixels, beyond that of noise, that the prediction leaves.
    displacement
        How far (mm, mean over its pixels) the slice moves when its pose is fitted to the prediction.
    pooled_ncc
        Correlation over all pixels; NaN without any.
    stack_ncc
        The same over the pixels of every stack.
    """

    unexplained: Float[np.ndarray, " n"]
    displacement: Float[np.ndarray, " n"]
    pooled_ncc: float
    stack_ncc: Float[np.ndarray, " stacks"]


def cross_prediction(result: Result) -> CrossPrediction:
    """Predict every slice of a result from the stacks of other groups."""
    slices, options = _levelled(result), SolverOptions(profile=result.profile)
    unexplained, displacement = np.full(slices.n_slices, np.nan), np.full(slices.n_slices, np.nan)
    pairs, stack_ncc = [], np.full(len(slices.stack_names), np.nan)
    for held_out in _groups(slices):
        told = slices.per_pixel(held_out)
        if not (slices.mask[told].any() and slices.mask[~told].any()):  # nothing to predict, or to predict it from
            continue
        state = _fitted(slices.subset(~held_out), result.poses[~held_out], result.slice_weights[~held_out], options)
        new, poses = slices.subset(held_out), result.poses[held_out]
        known = new.with_mask(determined_pixels(state, operator_on(state, new, poses)))
        operator = operator_on(state, known, poses)
        prediction = operator.predict(state.amplitudes)
        enough = known.sum_per_slice(known.mask) >= _LEAST_PIXELS
        left = _unexplained(known, prediction, state.weights.white_noise)
        unexplained[held_out] = np.where(enough, left, np.nan)
        displacement[held_out] = np.where(enough, _moved(new, poses, _settled(operator, state)), np.nan)
        pairs.append((known.values[known.mask], prediction[known.mask]))
        for stack in np.unique(known.stack_index):
            of_stack = known.mask & known.per_pixel(known.stack_index == stack)
            stack_ncc[stack] = _pooled([(known.values[of_stack], prediction[of_stack])])
    return CrossPrediction(unexplained, displacement, _pooled(pairs), stack_ncc)


def _pooled(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Correlation over the pixels of all pairs; NaN without contrast."""
    measured, predicted = (np.concatenate([pair[side] for pair in pairs] or [np.zeros(0)]) for side in (0, 1))
    if len(measured) < 2 or measured.std() == 0 or predicted.std() == 0:
        return float("nan")
    return float(np.corrcoef(measured, predicted)[0, 1])


def _levelled(result: Result) -> Slices:
    """Averaged pixels on one scale: gains, levels and bias taken out, bright tissue near one."""
    slices = result.slices
    if result.bias is not None:
        slices = replace(slices, values=slices.values / result.bias.at(slices))
    gains = np.maximum(result.gains, 1e-6).astype(np.float32)
    levelled = replace(slices, values=slices.values / slices.per_pixel(gains))
    scaled = replace(levelled, values=levelled.values / np.float32(intensity_scale(levelled)))
    return scaled.binned(max(1, round(_PIXEL / float(np.median(slices.spacings)))))


def _groups(slices: Slices) -> Iterator[Bool[np.ndarray, " n"]]:
    """The slices of each group in turn; stacks of like orientation are dealt to different groups."""
    left, order = [int(k) for k in np.unique(slices.stack_index)], []
    normals = {k: slices.frames[slices.stack_index == k][0, :3, 2] for k in left}
    while left:  # the next stack is the one most like the last
        last = normals[order[-1] if order else left[0]]
        order.append(max(left, key=lambda k: abs(float(normals[k] @ last))))
        left.remove(order[-1])
    for group in range(min(len(order), _MOST_GROUPS)):
        yield np.isin(slices.stack_index, order[group::_MOST_GROUPS])


def _fitted(slices: Slices, poses: np.ndarray, trust: np.ndarray, options: SolverOptions) -> State:
    """A coarse field of slices at these poses, which believes each of them as the reconstruction did."""
    state = begin_stage(slices, _STAGE, options, None, poses)
    pixels = state.weights.pixels * state.operator.pixels.per_pixel(trust)
    state = replace(state, weights=replace(state.weights, pixels=pixels))
    for _ in range(_STAGE.outer_iterations):
        state = advance(_STAGE, options, state)
    return state


def _unexplained(slices: Slices, prediction: Float32[np.ndarray, " p"], noise: float) -> Float[np.ndarray, " n"]:
    """Share of the variance of pixels beyond noise that their prediction leaves."""
    measured, predicted, mask = slices.values.astype(np.float64), prediction.astype(np.float64), slices.mask
    count = np.maximum(slices.sum_per_slice(mask), 1)

    def mean(values: np.ndarray) -> np.ndarray:
        return slices.sum_per_slice(values * mask) / count

    variance = mean(measured**2) - mean(measured) ** 2
    gain = mean(measured * predicted) / np.maximum(mean(predicted**2), 1e-20)
    left = mean((measured - predicted * slices.per_pixel(gain)) ** 2) - noise**2
    return np.clip(left / np.maximum(variance - noise**2, 0.05 * variance + 1e-20), 0, 1)


def _settled(operator: LatticeOperator, state: State) -> Float[np.ndarray, "n 4 4"]:
    """Poses fitted to a field that the slices have no part in."""
    pixels, placed = operator.pixels, operator
    for _ in range(_STEPS):
        equations = placed.pose_equations(state.amplitudes, pixels.values, pixels.coverage)
        poses = _FREE.moved(operator.slices, placed.poses, equations, state.weights.noise**2)
        placed = operator_on(state, operator.slices, poses)
    return placed.poses


def _moved(slices: Slices, before: np.ndarray, after: np.ndarray) -> Float[np.ndarray, " n"]:
    """Mean distance (mm) between where two sets of poses put the pixels of each slice."""
    distance = np.linalg.norm(slices.pixel_positions(after) - slices.pixel_positions(before), axis=1)
    return slices.sum_per_slice(distance * slices.mask) / np.maximum(slices.sum_per_slice(slices.mask), 1)

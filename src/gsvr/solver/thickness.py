"""How thick slices look: what the headers say of it is often wrong, and profiles are wider than they are nominally.

Thicker slices blur more, and only the right blur makes slices of different stacks agree. So pixels that are held out
decide, as for the final field (`gsvr.solver.final_field`): a field is fitted to the others for several thicknesses, all
of them times one factor, and the minimum of a parabola through the errors is the estimate. The headers are believed
where it differs by little.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Float32

from gsvr.model.slices import Slices
from gsvr.solver.held_out import HeldOut, held_out
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State, Thickness

logger = logging.getLogger(__name__)

# Factors that are tried differ by this one, and there are at most so many of them.
_STEP, _MOST = 1.18, 7
# It takes so many stacks, with so many pixels held out in each: of two nobody knows which is right.
_FEWEST_STACKS, _FEWEST_PIXELS = 3, 100
# Outer iterations of each.
_ITERATIONS = 2
# Only so many pixels are looked at, around the middle of the brain, if there are more.
_PIXELS = 200_000
# Of those that are fitted, the outermost (mm) are not held out: what they see is fitted only in part.
_EDGE = 4.0
# Estimates are off by 1 to 4 % where headers are right, and by more where detail is as fine as the Gaussians: so much
# (of the logarithm), and so many standard deviations, have to be exceeded, and the error has to fall by such a share,
# before headers are not believed.
_LEAST, _LEAST_DEVIATIONS, _LEAST_GAIN = 0.08, 3.0, 0.015


def estimated_thickness(
    slices: Slices, inner: Bool[np.ndarray, " p"], stage: Stage, options: SolverOptions, state: State
) -> Thickness | None:
    """How thick slices look, as a factor on what they are said to be; None where too little is seen.

    Parameters
    ----------
    slices
        Binned as the stage asks.
    inner
        Pixels that lie deep in the brain.
    stage
        How finely to fit: the one that ended with `state`, on a lattice.
    """
    stage = replace(stage, motion="none", consensus_mask=False)
    near, middle = _around_the_middle(slices, inner & slices.mask, state.poses)
    slices = slices.with_mask(near & slices.mask)
    held = held_out(slices.with_mask(middle & slices.mask), np.random.default_rng(options.seed))
    owners = slices.per_pixel(slices.stack_index)[held]
    stacks, counts = np.unique(owners, return_counts=True)
    if len(stacks) < _FEWEST_STACKS or counts.min() < _FEWEST_PIXELS:
        return None
    unseen = HeldOut.of(slices, held, state)
    predictions: dict[int, Float32[np.ndarray, " h"]] = {}

    def error(step: int, of: Bool[np.ndarray, " h"] | slice = slice(None)) -> float:
        if step not in predictions:
            thick = replace(slices, thicknesses=_STEP**step * slices.thicknesses)
            predictions[step] = unseen.predicted(_fitted(thick, held, stage, options, state))
        return unseen.mean_square(predictions[step], of)

    best, bracketed = 0, False
    while not bracketed and len(predictions) < _MOST:
        better = min((best - 1, best, best + 1), key=error)
        bracketed, best = better == best, better
    logs = [_minimum(best, lambda step, own=owners == stack: error(step, own)) for stack in stacks]
    logarithm, deviation = _minimum(best, error), float(np.std(logs, ddof=1) / np.sqrt(len(logs)))
    errors = {f"{_STEP**step:.3g}": float(np.sqrt(error(step))) for step in sorted(predictions)}
    gained = np.sqrt(error(best)) < (1 - _LEAST_GAIN) * np.sqrt(error(0))
    used = bracketed and bool(gained) and abs(logarithm) > max(_LEAST, _LEAST_DEVIATIONS * deviation)
    found = Thickness(round(float(np.exp(logarithm)), 3), deviation, used, errors)
    logger.info("slices look %.3f +- %.3f times as thick as stated: %s", found.factor, deviation, errors)
    return found


def _around_the_middle(
    slices: Slices, inner: Bool[np.ndarray, " p"], poses: Float[np.ndarray, "n 4 4"]
) -> tuple[Bool[np.ndarray, " p"], Bool[np.ndarray, " p"]]:
    """Pixels of a ball in the middle of the brain, or all, and those that lie deep in it."""
    used = np.flatnonzero(slices.mask)
    placed = slices.pixel_positions(poses, slices.mask)
    distance = np.linalg.norm(placed - np.median(placed, axis=0), axis=1)
    share = _PIXELS / len(used)
    radius = np.quantile(distance, share) if share < 1 else np.inf
    near, middle = np.zeros(len(slices.mask), bool), np.zeros(len(slices.mask), bool)
    near[used], middle[used] = distance < radius, distance < radius - _EDGE
    return near, middle & inner


def _fitted(slices: Slices, held: Bool[np.ndarray, " p"], stage: Stage, options: SolverOptions, state: State) -> State:
    """A fit to the pixels that are not held out."""
    fitted = begin_stage(slices, stage, options, state)
    fitted = replace(fitted, operator=fitted.operator.with_mask(slices.mask & ~held))
    for _ in range(_ITERATIONS):
        fitted = advance(stage, options, fitted)
    return fitted


def _minimum(step: int, error: Callable[[int], float]) -> float:
    """Logarithm of the factor at the minimum of the parabola through a step and its neighbours."""
    before, here, after = (error(at) for at in (step - 1, step, step + 1))
    curvature = before + after - 2 * here
    offset = 0.5 * (before - after) / curvature if curvature > 0 else 0.0
    return float((step + np.clip(offset, -1, 1)) * np.log(_STEP))

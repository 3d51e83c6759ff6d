"""How thick slices look: what the headers say of it is often wrong, and profiles are seldom slabs.

Thicker slices blur more, and only the right blur makes slices of different stacks agree. So pixels that are held out
decide, as for the final field (`gsvr.solver.final_field`): a field is fitted to the others for several thicknesses, all
of them times one factor, and the minimum of a parabola through the errors is the estimate. All fits start from one that
was made without those pixels; otherwise they would still remember them. The headers are believed where the estimate
differs by little. Where slabs are assumed, Gaussians are tried, too, and taken if they predict better.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

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
# A lattice with a wider spacing, as a share of the thickness, tells more of itself than of slices.
_WIDEST = 0.75
# Outer iterations of the fit that all others go on from, and of each of them.
_FIRST, _ITERATIONS = 4, 2
# Only so many pixels are looked at, around the middle of the brain, if there are more.
_PIXELS = 200_000
# Of those that are fitted, the outermost (mm) are not held out: what they see is fitted only in part.
_EDGE = 4.0
# Estimates are off by 1 to 5 %: so much (of the logarithm), and so many standard deviations, have to be exceeded, and
# the error has to fall by such a share, before headers are not believed. A Gaussian has to be better than a slab by as
# many where the slab looks as thick as it is said to be, and else by a third as many: then it is no slab that was said.
_LEAST, _LEAST_DEVIATIONS, _LEAST_GAIN = 0.08, 3.0, 0.005
# A Gaussian that blurs as a slab is so many steps narrower (its full width at half maximum).
_NARROWER = 2


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
    if stage.spacing > _WIDEST * float(np.median(slices.thicknesses)):
        return None
    stage = replace(stage, motion="none", consensus_mask=False)
    near, middle = _around_the_middle(slices, inner & slices.mask, state.poses)
    slices = slices.with_mask(near & slices.mask)
    held = held_out(slices.with_mask(middle & slices.mask), np.random.default_rng(options.seed))
    owners = slices.per_pixel(slices.stack_index)[held]
    stacks, counts = np.unique(owners, return_counts=True)
    if len(stacks) < _FEWEST_STACKS or counts.min() < _FEWEST_PIXELS:
        return None
    unseen = HeldOut.of(slices, held, state)
    begun = begin_stage(slices.with_mask(slices.mask & ~held), stage, options, None, state.poses)
    begun = _fitted(begun, unseen, stage, options, _FIRST)
    said = _Fits(slices, unseen, stage, options, begun)
    found = said.search(0, stacks, owners)
    gained = found.least < (1 - _LEAST_GAIN) * said.error(0)
    far = abs(found.logarithm) > max(_LEAST, _LEAST_DEVIATIONS * found.deviation)
    used, gaussian, errors = found.bracketed and gained and far, False, said.errors()
    if options.profile == "slab":
        fits = _Fits(slices, unseen, stage, replace(options, profile="gaussian"), begun)
        other = fits.search(found.step - _NARROWER, stacks, owners)
        errors |= {f"Gaussian, {factor}": error for factor, error in fits.errors().items()}
        # neighbouring pixels share what a fit gets wrong, slices hardly
        gains = unseen.weights * (said.squares(found) - fits.squares(other))
        gains = np.bincount(slices.per_pixel(np.arange(slices.n_slices))[held], gains)
        least = _LEAST_DEVIATIONS * np.sqrt((gains**2).sum()) * (1 / 3 if used else 1.0)
        gaussian = other.bracketed and bool(gains.sum() > least)
        found = other if gaussian else found
    thickness = Thickness(round(float(np.exp(found.logarithm)), 3), found.deviation, used or gaussian, errors, gaussian)
    logger.info("slices look %.3f times as thick as stated: %s", thickness.factor, thickness)
    return thickness


@dataclass(frozen=True)
class _Minimum:
    """Where the error is least, and how much; the nearest step, and whether both its neighbours are worse."""

    logarithm: float
    deviation: float
    least: float
    step: int
    bracketed: bool


class _Fits:
    """Fits with one profile, by how many steps of thickness, that go on from one."""

    def __init__(self, slices: Slices, unseen: HeldOut, stage: Stage, options: SolverOptions, begun: State) -> None:
        self._slices, self._unseen, self._stage, self._options, self._begun = slices, unseen, stage, options, begun
        self._predictions: dict[int, Float32[np.ndarray, " h"]] = {}

    def search(self, step: int, stacks: Int[np.ndarray, " s"], owners: Int[np.ndarray, " h"]) -> _Minimum:
        """Go on from a step to where neither neighbour is better; the deviation is that from stack to stack."""
        bracketed = False
        while not bracketed and len(self._predictions) < _MOST:
            better = min((step - 1, step, step + 1), key=self.error)
            bracketed, step = better == step, better
        logs = [self._minimum(step, owners == stack)[0] for stack in stacks]
        logarithm, least = self._minimum(step, slice(None))
        return _Minimum(logarithm, float(np.std(logs, ddof=1) / np.sqrt(len(logs))), least, step, bracketed)

    def error(self, step: int, of: Bool[np.ndarray, " h"] | slice = slice(None)) -> float:
        """Root mean square of the residuals of pixels held out, or of some of them."""
        if step not in self._predictions:
            slices = replace(self._slices, thicknesses=_STEP**step * self._slices.thicknesses)
            stage, options, unseen = self._stage, self._options, self._unseen
            fit = _fitted(begin_stage(slices, stage, options, self._begun), unseen, stage, options, _ITERATIONS)
            self._predictions[step] = unseen.predicted(fit)
        return float(np.sqrt(self._unseen.mean_square(self._predictions[step], of)))

    def squares(self, at: _Minimum) -> Float[np.ndarray, " h"]:
        """Of the residuals of each pixel held out, by the parabola."""
        before, here, after = (self._unseen.squares(self._predictions[at.step + step]) for step in (-1, 0, 1))
        offset = at.logarithm / float(np.log(_STEP)) - at.step
        return here + offset * (0.5 * (after - before) + 0.5 * offset * (before + after - 2 * here))

    def errors(self) -> dict[str, float]:
        """By factor."""
        return {f"{_STEP**step:.3g}": self.error(step) for step in sorted(self._predictions)}

    def _minimum(self, step: int, of: Bool[np.ndarray, " h"] | slice) -> tuple[float, float]:
        """Of the parabola through the mean squares of a step and its neighbours: logarithm of the factor, and error."""
        before, here, after = (self.error(at, of) ** 2 for at in (step - 1, step, step + 1))
        curvature, slope = before + after - 2 * here, 0.5 * (after - before)
        offset = float(np.clip(-slope / curvature, -1, 1)) if curvature > 0 else 0.0
        least = here + offset * (slope + 0.5 * offset * curvature)
        return (step + offset) * float(np.log(_STEP)), float(np.sqrt(max(least, 0.0)))


def _fitted(state: State, unseen: HeldOut, stage: Stage, options: SolverOptions, iterations: int) -> State:
    """A fit to the pixels that are not held out."""
    state = unseen.hidden_from(state)
    for _ in range(iterations):
        state = advance(stage, options, state)
    return state


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

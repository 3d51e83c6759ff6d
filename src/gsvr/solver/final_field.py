"""The final field: a lattice and free Gaussians, each by its share, and a prior as strong as the pixels want it.

Free Gaussians are sharper and less noisy where brains are smooth; where detail is as fine as the lattice there are too
few of them. What one gets wrong the other often gets right, so that their average is nearer to the truth than either
(stacking; Wolpert, Neural Networks 1992). And the sharper a brain, the weaker the prior should be. Nobody knows
beforehand. So small blocks of pixels, scattered over all slices, are held out. The lattice is fitted to the others,
with a prior that is made weaker as long as that predicts the blocks better; free Gaussians are seeded from it and
fitted to the same pixels; and the shares are those whose average predicts the blocks best. A fit goes on for as long as
that lowers the error. Then the blocks come back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from gsvr.model.slices import Slices
from gsvr.solver.held_out import HeldOut, held_out
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import AVERAGE, FREE, LATTICE, FieldChoice, State

logger = logging.getLogger(__name__)

# A fit ends with the outer iteration that lowers the error by less than this share.
_LEAST_FALL = 0.001
# The prior is made weaker by steps of this factor, so often at most, and only while that lowers the error by this
# share. A fit that goes on with the same prior may still gain a quarter per cent.
_WEAKER, _STEPS, _LEAST_GAIN = 0.5, 3, 0.005
# Of free Gaussians, to choose from.
_SHARES = np.linspace(0, 1, 21)


def final_field(
    slices: Slices,
    inner: Bool[np.ndarray, " p"],
    stage: Stage,
    options: SolverOptions,
    previous: State,
    known: FieldChoice | None = None,
) -> tuple[State, FieldChoice]:
    """The state after `Stage.trial_iterations` at most, with all pixels in use again, and what decided.

    It is that of the free Gaussians, with the lattice as its partner, which has no iterations left; of the free
    Gaussians alone; or of the lattice.

    Parameters
    ----------
    slices
        As for `gsvr.solver.outer_iteration.begin_stage`.
    inner
        Pixels that lie deep in the brain; those to hold out are drawn from them, or from all if there are none.
    stage
        With an alternative.
    previous
        How the stage before ended, on a lattice.
    known
        A decision on much the same slices: nothing is held out, and nothing tried.
    """
    assert stage.alternative is not None
    if known is None:
        lattice, free, choice = _decided(slices, inner, stage, stage.alternative, options, previous)
    else:
        lattice, free, choice = *_as_decided(slices, stage, stage.alternative, options, previous, known), known
    if choice.share == 0:
        return lattice, choice
    if choice.share == 1:
        return free, choice
    for _ in range(stage.alternative.outer_iterations - stage.alternative.trial_iterations):
        lattice = advance(stage.alternative, options, lattice)
    return replace(free, partner=lattice, share=choice.share), choice


def _decided(
    slices: Slices,
    inner: Bool[np.ndarray, " p"],
    stage: Stage,
    on_lattice: Stage,
    options: SolverOptions,
    previous: State,
) -> tuple[State, State, FieldChoice]:
    """Lattice and free Gaussians with pixels held out, and what those say."""
    inner = inner & slices.mask
    held = held_out(slices.with_mask(inner), np.random.default_rng(options.seed))
    if not held.any():
        held = held_out(slices, np.random.default_rng(options.seed))
    trial = _Trial(slices, HeldOut.of(slices, held, previous), options, {})
    lattice = trial.fitted_lattice(on_lattice, previous)
    free, share = trial.fitted_free(stage, lattice)
    choice = FieldChoice(share, lattice.prior_factor, int(held.sum()), trial.errors)
    logger.info("share of free Gaussians %.2f, prior times %g: %s", share, choice.prior_factor, trial.errors)
    return _with_all_pixels(lattice, slices), _with_all_pixels(free, slices), choice


def _as_decided(
    slices: Slices, stage: Stage, on_lattice: Stage, options: SolverOptions, previous: State, known: FieldChoice
) -> tuple[State, State]:
    """Lattice and free Gaussians after all their iterations but the last; the lattice twice if it is alone."""
    lattice = replace(begin_stage(slices, on_lattice, options, previous), prior_factor=known.prior_factor)
    for _ in range(on_lattice.trial_iterations):
        lattice = advance(on_lattice, options, lattice)
    if known.share == 0:
        return lattice, lattice
    free = _seeded(slices, stage, options, lattice)
    for _ in range(stage.trial_iterations):
        free = advance(stage, options, free)
    return lattice, free


def _seeded(slices: Slices, stage: Stage, options: SolverOptions, lattice: State) -> State:
    return replace(begin_stage(slices, stage, options, lattice), prior_factor=lattice.prior_factor)


@dataclass(frozen=True)
class _Trial:
    """Fits to the pixels that are not held out, and their errors on the others, by name and outer iteration."""

    slices: Slices
    held: HeldOut
    options: SolverOptions
    errors: dict[str, tuple[float, ...]]

    def fitted_lattice(self, stage: Stage, previous: State) -> State:
        """With the prior that predicts best."""
        begun = self.held.hidden_from(begin_stage(self.slices, stage, self.options, previous))
        best, least = self._settled(begun, stage, LATTICE, np.inf)
        for _ in range(_STEPS):
            factor = _WEAKER * best.prior_factor
            weaker, error = self._settled(
                replace(best, prior_factor=factor), stage, f"{LATTICE}, prior x {factor:g}", least
            )
            if error >= (1 - _LEAST_GAIN) * least:
                break
            best, least = weaker, error
        return best

    def _settled(self, state: State, stage: Stage, name: str, error: float) -> tuple[State, float]:
        """The state after outer iterations for as long as they lower the error, and that."""
        for _ in range(stage.trial_iterations):
            later = advance(stage, self.options, state)
            before, error = error, self._error(self.held.predicted(later))
            self._note(name, error)
            if error > before:
                return state, before
            state = later
            if error >= (1 - _LEAST_FALL) * before:
                break
        return state, error

    def fitted_free(self, stage: Stage, lattice: State) -> tuple[State, float]:
        """For as long as the average with the lattice predicts better, and their share in it."""
        of_lattice = self.held.predicted(lattice)
        free, share, error = self.held.hidden_from(_seeded(self.slices, stage, self.options, lattice)), 0.0, np.inf
        for _ in range(stage.trial_iterations):
            later = advance(stage, self.options, free)
            of_free = self.held.predicted(later)
            before, (error, best) = error, self._average(of_lattice, of_free)
            self._note(FREE, self._error(of_free))
            self._note(AVERAGE, error)
            if error > before:
                break
            free, share = later, best
            if share > 0 and error >= (1 - _LEAST_FALL) * before:
                break
        return free, share

    def _average(
        self, of_lattice: Float32[np.ndarray, " h"], of_free: Float32[np.ndarray, " h"]
    ) -> tuple[float, float]:
        """The least error of an average, and the share of the free Gaussians in it."""
        errors = [self._error(of_lattice + np.float32(share) * (of_free - of_lattice)) for share in _SHARES]
        best = int(np.argmin(errors))
        return errors[best], round(float(_SHARES[best]), 2)

    def _note(self, name: str, error: float) -> None:
        self.errors[name] = (*self.errors.get(name, ()), error)

    def _error(self, prediction: Float32[np.ndarray, " h"]) -> float:
        """Root mean square of the residuals (bright tissue is one)."""
        return float(np.sqrt(self.held.mean_square(prediction)))


def _with_all_pixels(state: State, slices: Slices) -> State:
    return replace(state, operator=state.operator.with_mask(slices.mask), diagonal=None)

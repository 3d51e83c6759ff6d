"""The final field: a lattice and free Gaussians, each by its share, and a prior as strong as the pixels want it.

Free Gaussians are sharper and less noisy where brains are smooth; where detail is as fine as the lattice there are too
few of them. What one gets wrong the other often gets right, so that their average is nearer to the truth than either
(stacking; Wolpert, Neural Networks 1992). And the sharper a brain, the weaker the prior should be. Nobody knows
beforehand. So small blocks of pixels, scattered over all slices, are held out. The lattice is fitted to the others,
with a prior that is made weaker as long as that predicts the blocks better; free Gaussians are seeded from it and
fitted to the same pixels; and the shares are those whose average predicts the blocks best. Then the blocks come back.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32

from gsvr.model.slices import Slices
from gsvr.solver.held_out import HeldOut, held_out
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import LATTICE_ITERATIONS, TRIAL_ITERATIONS, SolverOptions, Stage
from gsvr.solver.state import FieldChoice, State

logger = logging.getLogger(__name__)

# The prior is made weaker by steps of this factor, so often at most, and only while that lowers the error by this
# share: smaller differences are those of fits that have not converged.
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
    """The state after `TRIAL_ITERATIONS` of what goes on, with all pixels in use again, and what decided.

    It is that of the free Gaussians, with the lattice as its partner; of the free Gaussians alone; or of the lattice.

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
    for _ in range(stage.alternative.outer_iterations - LATTICE_ITERATIONS):
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
    trial = _Trial(slices, HeldOut.of(slices, held, previous), {})
    lattice = _fitted_lattice(trial, on_lattice, options, previous)
    free = trial.fitted(_seeded(slices, stage, options, lattice), stage, options, TRIAL_ITERATIONS, "free")
    share = trial.best_share(lattice, free)
    choice = FieldChoice(share, lattice.prior_factor, int(held.sum()), trial.errors)
    logger.info("share of free Gaussians %.2f, prior times %g: %s", share, choice.prior_factor, trial.errors)
    return _with_all_pixels(lattice, slices), _with_all_pixels(free, slices), choice


def _as_decided(
    slices: Slices, stage: Stage, on_lattice: Stage, options: SolverOptions, previous: State, known: FieldChoice
) -> tuple[State, State]:
    """Lattice and free Gaussians as far as `_decided` brings them; the lattice twice where it is to be alone."""
    lattice = replace(begin_stage(slices, on_lattice, options, previous), prior_factor=known.prior_factor)
    for _ in range(LATTICE_ITERATIONS):
        lattice = advance(on_lattice, options, lattice)
    if known.share == 0:
        return lattice, lattice
    free = _seeded(slices, stage, options, lattice)
    for _ in range(TRIAL_ITERATIONS):
        free = advance(stage, options, free)
    return lattice, free


def _seeded(slices: Slices, stage: Stage, options: SolverOptions, lattice: State) -> State:
    return replace(begin_stage(slices, stage, options, lattice), prior_factor=lattice.prior_factor)


@dataclass(frozen=True)
class _Trial:
    """Fits to the pixels that are not held out, and their errors on the others, by name and outer iteration."""

    slices: Slices
    held: HeldOut
    errors: dict[str, tuple[float, ...]]

    def fitted(self, state: State, stage: Stage, options: SolverOptions, iterations: int, name: str) -> State:
        """The state after some outer iterations."""
        state = replace(state, operator=state.operator.with_mask(self.slices.mask & ~self.held.pixels))
        for _ in range(iterations):
            state = advance(stage, options, state)
            self.errors[name] = (*self.errors.get(name, ()), self._error(self.held.predicted(state)))
        return state

    def best_share(self, lattice: State, free: State) -> float:
        """Of free Gaussians, in the average of both that predicts best."""
        of_lattice, of_free = self.held.predicted(lattice), self.held.predicted(free)
        errors = [self._error(of_lattice + np.float32(share) * (of_free - of_lattice)) for share in _SHARES]
        best = int(np.argmin(errors))
        self.errors["average"] = (errors[best],)
        return round(float(_SHARES[best]), 2)

    def _error(self, prediction: Float32[np.ndarray, " h"]) -> float:
        """Root mean square of the residuals (bright tissue is one)."""
        return float(np.sqrt(self.held.mean_square(prediction)))


def _fitted_lattice(trial: _Trial, stage: Stage, options: SolverOptions, previous: State) -> State:
    """The lattice with the prior that predicts best; priors are compared over its last outer iteration."""
    begun = trial.fitted(
        begin_stage(trial.slices, stage, options, previous), stage, options, TRIAL_ITERATIONS, "lattice"
    )
    best = trial.fitted(begun, stage, options, 1, "lattice")
    least = trial.errors["lattice"][-1]
    for _ in range(_STEPS):
        factor = _WEAKER * best.prior_factor
        name = f"lattice, prior x {factor:g}"
        weaker = trial.fitted(replace(begun, prior_factor=factor), stage, options, 1, name)
        error = trial.errors[name][-1]
        if error > (1 - _LEAST_GAIN) * least:
            break
        best, least = weaker, error
    return best


def _with_all_pixels(state: State, slices: Slices) -> State:
    return replace(state, operator=state.operator.with_mask(slices.mask), diagonal=None)

"""A lattice or free Gaussians: the field that better predicts pixels which neither has seen.

Free Gaussians are sharper and less noisy where brains are smooth; where detail is as fine as the lattice there are too
few of them. Nobody knows beforehand. So small blocks of pixels, scattered over all slices, are held out, both fields
are fitted to the others, and the smaller error on the blocks decides. Then the blocks come back.

Blocks lie well inside the brain: around it skull and skin move otherwise, and the more Gaussians the better they are
explained.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from gsvr.model.slices import Slices
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import TRIAL_ITERATIONS, SolverOptions, Stage
from gsvr.solver.state import FieldChoice, State

logger = logging.getLogger(__name__)

# How deep in the brain the pixels lie that are held out (mm).
RIM = 4.0
# Of these pixels, in squares of so many: wider than what the point spread function shares between pixels.
_SHARE, _BLOCK = 0.06, 4
# Errors that differ by less say nothing: a mask one pixel wider turns them round. Free Gaussians are less noisy then.
_TIE = 0.01
# Residuals count up to so many standard deviations: what nothing explains says nothing about fields.
_LIMIT = 6.0


def chosen_field(
    slices: Slices, inner: Bool[np.ndarray, " p"], stage: Stage, options: SolverOptions, previous: State
) -> tuple[State, FieldChoice]:
    """The better field after `TRIAL_ITERATIONS`, with all pixels in use again, and what decided.

    Parameters
    ----------
    slices
        As for `gsvr.solver.outer_iteration.begin_stage`.
    inner
        Pixels that lie deep in the brain (by `RIM`); those to hold out are drawn from them, or from all if there are
        none.
    stage
        With an alternative.
    previous
        How the stage before ended, on a lattice.
    """
    assert stage.alternative is not None
    inner = inner & slices.mask
    held = held_out(slices.with_mask(inner) if inner.any() else slices, np.random.default_rng(options.seed))
    lattice, errors_on_lattice = _tried(slices, held, stage.alternative, options, previous)
    free, errors_of_free = _tried(slices, held, stage, options, previous)
    better = free if errors_of_free[-1] <= (1 + _TIE) * errors_on_lattice[-1] else lattice
    choice = FieldChoice(
        kind="free" if better is free else "lattice",
        pixels=int(held.sum()),
        errors={"lattice": errors_on_lattice, "free": errors_of_free},
    )
    logger.info("%s: %d pixels held out, error by iteration %s", choice.kind, choice.pixels, choice.errors)
    return replace(better, operator=better.operator.with_mask(slices.mask), diagonal=None), choice


def held_out(slices: Slices, rng: np.random.Generator) -> Bool[np.ndarray, " p"]:
    """Pixels in use that lie in blocks drawn at random."""
    held = np.zeros(len(slices.mask), bool)
    for s in range(slices.n_slices):
        height, width = slices.shapes[s]
        blocks = rng.random((-(-height // _BLOCK), -(-width // _BLOCK))) < _SHARE
        held[slices.pixels_of(s)] = np.kron(blocks, np.ones((_BLOCK, _BLOCK), bool))[:height, :width].ravel()
    return held & slices.mask


def _tried(
    slices: Slices, held: Bool[np.ndarray, " p"], stage: Stage, options: SolverOptions, previous: State
) -> tuple[State, tuple[float, ...]]:
    """A field fitted to the pixels that are not held out, and the error on the others after every iteration."""
    state, errors = begin_stage(slices, stage, options, previous), []
    state = replace(state, operator=state.operator.with_mask(slices.mask & ~held))
    for _ in range(TRIAL_ITERATIONS):
        state = advance(stage, options, state)
        errors.append(_error(state, slices, held, _LIMIT * previous.weights.noise))
    return state, tuple(errors)


def _error(state: State, slices: Slices, held: Bool[np.ndarray, " p"], limit: float) -> float:
    """Root mean square of the residuals (bright tissue is one), by the weights of slices."""
    residuals = (slices.values - state.operator.backend.host(state.prediction))[held]
    weights = slices.per_pixel(state.weights.slices)[held]
    return float(np.sqrt(np.average(np.minimum(np.abs(residuals), limit) ** 2, weights=weights + 1e-12)))

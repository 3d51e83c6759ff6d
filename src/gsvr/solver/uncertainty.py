"""How far the volume may be off: samples from the posterior of the amplitudes.

For fixed poses, gains, weights and prior the posterior of the amplitudes is Gaussian with precision
(A^T W A + strength L) / noise^2. Perturbing data and prior by their own noise and solving once more gives an exact
sample of it (perturb and optimise; Papandreou and Yuille, NIPS 2010); a few samples give the standard deviation of
any voxel. Poses count as known and the model as right, so this is a lower bound where slices are misplaced.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gsvr.model.fields import Field, GaussianField, LatticeField, SumField
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.state import State, StopReconstruction

# Conjugate-gradient steps a sample; they bring the preconditioned gradient down to half a per cent.
_ITERATIONS = 20


def posterior_deviations(
    state: State, samples: int, seed: int, progress: Callable[[int, int], None] | None = None
) -> tuple[Field, ...]:
    """Samples of the field minus its estimate.

    Parameters
    ----------
    state
        How the last stage ended.
    seed
        Decides the samples.
    progress
        Told how many are drawn, and how many there will be; may raise `StopReconstruction` to have those alone.
    """
    drawn: list[Field] = []
    while len(drawn) < samples:
        drawn.append(_sample(state, (seed, len(drawn))))
        if progress is not None:
            try:
                progress(len(drawn), samples)
            except StopReconstruction:
                break
    return tuple(drawn)


def _sample(state: State, seed: tuple[int, int]) -> Field:
    """One sample; where two fits are averaged, both of the same noise of the pixels."""
    if state.partner is None:
        return _own_sample(state, seed, 0)
    shares = (1 - state.share, state.partner), (state.share, state)
    return SumField(tuple(_own_sample(of, seed, number).scaled(share) for number, (share, of) in enumerate(shares)))


def _own_sample(state: State, seed: tuple[int, int], number: int) -> LatticeField | GaussianField:
    """A sample of one fit; `seed` decides the noise of the pixels, and with `number` that of the prior."""
    operator, weights, strength = state.operator, state.weights, state.white_strength
    assert state.prior is not None  # else it would have no strength
    prior = state.prior.at(state.amplitudes)
    noise = operator.backend.array(weights.noise_sample(np.random.default_rng(seed), operator.backend))
    found = solve_amplitudes(
        operator,
        noise,
        weights.pixels,
        prior,
        strength,
        0 * state.amplitudes,
        0 * noise,
        _ITERATIONS,
        pull=weights.white_noise * prior.noise(strength, np.random.default_rng((*seed, number))),
        diagonal=state.diagonal,
    )
    return operator.field(found.values)

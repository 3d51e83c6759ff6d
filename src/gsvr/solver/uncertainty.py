"""How far the volume may be off: samples from the posterior of the amplitudes.

For fixed poses, gains, weights and prior the posterior of the amplitudes is Gaussian with precision
(A^T W A + strength L) / noise^2. Perturbing data and prior by their own noise and solving once more gives an exact
sample of it (perturb and optimise; Papandreou and Yuille, NIPS 2010); a few samples give the standard deviation of
any voxel. Poses count as known and the model as right, so this is a lower bound where slices are misplaced.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from gsvr.model.fields import GaussianField, LatticeField, field_of
from gsvr.model.slices import Slices
from gsvr.solver.amplitudes import solve_amplitudes
from gsvr.solver.free_rounds import FreeState, posterior_sample
from gsvr.solver.priors.lattice import DIRECTIONS, QuadraticPrior, quadratic_prior
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import State

# CG steps a sample; they bring the preconditioned gradient down to half a per cent.
_ITERATIONS = 20


def posterior_deviations(
    slices: Slices, state: State, options: SolverOptions
) -> tuple[LatticeField | GaussianField, ...]:
    """Samples of the field minus its estimate.

    Parameters
    ----------
    slices, state
        The last stage's slices and how it ended.
    options
        `SolverOptions.uncertainty_samples` says how many; the seed decides them.
    """
    rng = np.random.default_rng(options.seed)
    if isinstance(state, FreeState):
        samples = (
            posterior_sample(slices, state, options, rng, _ITERATIONS) for _ in range(options.uncertainty_samples)
        )
        return tuple(field_of(state.operator.primitives, sample) for sample in samples)
    operator, weights = state.operator, state.weights
    strength = options.prior.strength * weights.white_noise**2
    prior = quadratic_prior(operator.lattice, state.amplitudes, options.prior.edge)
    nothing = np.zeros(operator.lattice.shape, np.float32)
    samples = []
    for _ in range(options.uncertainty_samples):
        noise = weights.noise_sample(rng)
        pull = np.float32(weights.white_noise) * _prior_noise(prior, strength, rng)
        solution = solve_amplitudes(
            operator,
            noise,
            weights.pixels,
            prior,
            strength,
            nothing,
            np.zeros_like(noise),
            iterations=_ITERATIONS,
            pull=pull,
        )
        samples.append(LatticeField(operator.lattice, solution.amplitudes))
    return tuple(samples)


def _prior_noise(prior: QuadraticPrior, strength: float, rng: np.random.Generator) -> Float32[np.ndarray, "nx ny nz"]:
    """A random grid with covariance strength L: one independent number a bond, with opposite signs at its ends."""
    noise = np.zeros(prior.bonds.shape[1:], np.float32)
    for bond, (dx, dy, dz) in zip(prior.bonds, DIRECTIONS, strict=True):
        part = np.sqrt(np.float32(strength) * bond) * rng.standard_normal(bond.shape, np.float32)
        noise += part
        noise -= np.roll(part, (dx, dy, dz), axis=(0, 1, 2))  # bonds never cross the box, so nothing wraps
    return noise

"""The last stage with free Gaussians: seeded from the field on the lattice, then rounds of weights and amplitudes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from gsvr.acquisition import Slices
from gsvr.field import GaussianField, LatticeField
from gsvr.forward import AcquisitionOperator
from gsvr.kernels import backend_for
from gsvr.solver.free_amplitudes import solve_free_amplitudes
from gsvr.solver.neighbour_prior import NeighbourPrior, Neighbours, find_neighbours, sharpening
from gsvr.solver.rounds import refined_amplitudes, stage_lattice, weighed
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.seeding import seed_from_lattice
from gsvr.solver.state import State


@dataclass(frozen=True)
class FreeState(State):
    """A state whose Gaussians are free.

    Attributes
    ----------
    neighbours
        For the prior and the preconditioner.
    level
        Intensity of a field of amplitudes one.
    """

    neighbours: Neighbours | None = None
    level: float = 1.0

    @property
    def free_field(self) -> GaussianField:
        """The volume as Gaussians, which are free."""
        field = self.field
        assert isinstance(field, GaussianField)
        return field

    def prior(self, edge: float) -> NeighbourPrior:
        """The prior at these amplitudes."""
        assert self.neighbours is not None
        return NeighbourPrior(self.neighbours, self.amplitudes, self.level, edge)


def begin_free_stage(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> FreeState:
    """Free Gaussians where the previous field, on this stage's lattice, has its edges."""
    lattice = stage_lattice(slices, state.poses, stage, options.margin)
    previous = LatticeField(lattice, refined_amplitudes(state.lattice_field, lattice))
    seeds = seed_from_lattice(previous, state.weights.white_noise, options.seeds)
    backend = backend_for(seeds, options.backend)
    operator = AcquisitionOperator(seeds, slices, state.poses, state.gains, options.profile, backend)
    neighbours = find_neighbours(seeds, options.neighbours.count)
    prediction = operator.predict(seeds.amplitudes)
    level = options.seeds.level
    return FreeState(seeds.amplitudes, operator, state.weights, prediction, neighbours=neighbours, level=level)


def advance_free(slices: Slices, stage: Stage, options: SolverOptions, state: FreeState) -> FreeState:
    """One round: weights and gains from the last prediction, then amplitudes."""
    operator, weights, prediction = weighed(slices, options, state)
    state = replace(state, operator=operator, weights=weights, prediction=prediction)
    return solve_round(slices, options, state, stage.iterations)


def solve_round(slices: Slices, options: SolverOptions, state: FreeState, iterations: int) -> FreeState:
    """Better amplitudes at the weights and gains of the state."""
    operator, weights = state.operator, state.weights
    prior = state.prior(options.neighbours.edge)
    strength = options.neighbours.strength * weights.white_noise**2
    diagonal = operator.diagonal(weights.pixels) if state.diagonal is None else state.diagonal
    assert state.neighbours is not None
    amplitudes, prediction = solve_free_amplitudes(
        operator,
        slices.values,
        weights.pixels,
        prior,
        strength,
        sharpening(state.neighbours, diagonal + np.float32(strength) * prior.diagonal(), options.neighbours),
        state.amplitudes,
        state.prediction,
        iterations,
    )
    return replace(state, amplitudes=amplitudes, prediction=prediction, diagonal=diagonal)


def posterior_sample(
    slices: Slices, state: FreeState, options: SolverOptions, rng: np.random.Generator, iterations: int
) -> Float32[np.ndarray, " n"]:
    """Amplitudes of a sample of the posterior minus its mean (see `gsvr.solver.uncertainty`)."""
    weights, prior = state.weights, state.prior(options.neighbours.edge)
    strength = options.neighbours.strength * weights.white_noise**2
    root = np.sqrt(np.maximum(weights.pixels, 1e-6)).astype(np.float32)
    noise = np.float32(weights.white_noise) * rng.standard_normal(len(root), np.float32)
    diagonal = state.operator.diagonal(weights.pixels) if state.diagonal is None else state.diagonal
    assert state.neighbours is not None
    sample, _ = solve_free_amplitudes(
        state.operator,
        noise / root,  # of variance noise^2 / W, as a pixel of weight W has
        weights.pixels,
        prior,
        strength,
        sharpening(state.neighbours, diagonal + np.float32(strength) * prior.diagonal(), options.neighbours),
        np.zeros_like(state.amplitudes),
        np.zeros_like(slices.values),
        iterations,
        pull=np.float32(weights.white_noise) * prior.noise(strength, rng),
    )
    return sample

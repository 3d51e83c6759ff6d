"""The last stage with free Gaussians: seeded from the field on the lattice, then rounds of weights and amplitudes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.free_amplitudes import solve_free_amplitudes
from gsvr.solver.priors.neighbours import NeighbourPrior, Neighbours, find_neighbours, sharpening
from gsvr.solver.rounds import refined_amplitudes, stage_lattice, weighed
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.seeding import seed_from_lattice
from gsvr.solver.state import State


@dataclass(frozen=True, kw_only=True)
class FreeState(State):
    """A state whose Gaussians are free.

    Attributes
    ----------
    neighbours
        For the prior and the preconditioner.
    level
        Intensity of a field of amplitudes one.
    """

    neighbours: Neighbours
    level: float

    @property
    def free_field(self) -> GaussianField:
        """The volume as Gaussians, which are free."""
        field = self.field
        assert isinstance(field, GaussianField)
        return field

    def with_diagonal(self) -> FreeState:
        """The same state with the diagonal of its normal matrix."""
        if self.diagonal is not None:
            return self
        return replace(self, diagonal=self.operator.diagonal(self.weights.pixels))

    def prior(self, edge: float) -> NeighbourPrior:
        """The prior at these amplitudes."""
        return NeighbourPrior(self.neighbours, self.amplitudes, self.level, edge)


def begin_free_stage(slices: Slices, stage: Stage, options: SolverOptions, state: State) -> FreeState:
    """Free Gaussians where the previous field, on this stage's lattice, has its edges."""
    lattice = stage_lattice(slices, state.poses, stage, options)
    previous = LatticeField(lattice, refined_amplitudes(state.lattice_field, lattice))
    seeds = seed_from_lattice(previous, state.weights.white_noise, options.seeds_of(stage))
    operator = AcquisitionOperator(seeds, slices, state.poses, state.gains, options.profile, options.backend)
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
    state = state.with_diagonal()
    prior = state.prior(options.neighbours.edge)
    strength = options.neighbours.strength * state.weights.white_noise**2
    amplitudes, prediction = solve_free_amplitudes(
        state.operator,
        slices.values,
        state.weights.pixels,
        prior,
        strength,
        _preconditioner(state, prior, strength, options),
        state.amplitudes,
        state.prediction,
        iterations,
    )
    return replace(state, amplitudes=amplitudes, prediction=prediction)


def _preconditioner(
    state: FreeState, prior: NeighbourPrior, strength: float, options: SolverOptions
) -> Callable[[np.ndarray], np.ndarray]:
    assert state.diagonal is not None
    diagonal = state.diagonal + np.float32(strength) * prior.diagonal()
    return sharpening(state.neighbours, diagonal, options.neighbours)


def posterior_sample(
    slices: Slices, state: FreeState, options: SolverOptions, rng: np.random.Generator, iterations: int
) -> Float32[np.ndarray, " n"]:
    """Amplitudes of a sample of the posterior minus its mean (see `gsvr.solver.uncertainty`)."""
    state = state.with_diagonal()
    prior = state.prior(options.neighbours.edge)
    strength = options.neighbours.strength * state.weights.white_noise**2
    sample, _ = solve_free_amplitudes(
        state.operator,
        state.weights.noise_sample(rng),
        state.weights.pixels,
        prior,
        strength,
        _preconditioner(state, prior, strength, options),
        np.zeros_like(state.amplitudes),
        np.zeros_like(slices.values),
        iterations,
        pull=np.float32(state.weights.white_noise) * prior.noise(strength, rng),
    )
    return sample

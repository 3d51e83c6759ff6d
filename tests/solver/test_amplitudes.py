"""Amplitudes: the minimiser of the stated objective, on lattices and for free Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.backends.protocol import Array
from gsvr.solver.amplitudes import refit, solve_amplitudes
from gsvr.solver.conjugate_gradients import Solution
from gsvr.solver.state import State
from tests.solver.oblique import NormalEquations, same_array, sites_of, small_state


@pytest.fixture(scope="module", params=["lattice", "free"])
def state(request: pytest.FixtureRequest, backend: Backend) -> State:
    return small_state(backend, free=request.param == "free")


def solve(state: State, iterations: int, **given: object) -> Solution:
    operator, prior = state.operator, state.prior
    assert prior is not None
    given.setdefault("start", 0 * state.amplitudes)
    return solve_amplitudes(
        *(operator, operator.pixels.values, state.weights.pixels, prior.at(state.amplitudes)),
        strength=prior.strength * state.weights.white_noise**2,
        iterations=iterations,
        **given,  # pyright: ignore[reportArgumentType]
    )


def settled(state: State, **given: object) -> Solution:
    """Three solutions, each from the one before: by then nothing is left of the tolerance of one."""
    found = solve(state, 300, **given)
    for _ in range(2):
        assert found.converged
        found = solve(state, 300, **{**given, "start": found.values})
    return found


def host(state: State, amplitudes: Array) -> np.ndarray:
    """Amplitudes of the Gaussians, flat."""
    return state.operator.backend.host(amplitudes).ravel()[sites_of(state)]


def agree(found: np.ndarray, expected: np.ndarray) -> bool:
    """The normal matrix is conditioned like 1e4, and steps are float32."""
    return bool(np.abs(found - expected).max() < 2e-3 * np.abs(expected).max())


@pytest.fixture(scope="module")
def equations(state: State) -> NormalEquations:
    return NormalEquations.of(state)


def test_the_result_is_that_of_a_dense_solve(state: State, equations: NormalEquations):
    found = settled(state)
    assert agree(host(state, found.values), np.linalg.solve(equations.normal + equations.prior, equations.right))
    values = state.operator.backend.host(found.values).ravel()
    assert not np.delete(values, sites_of(state)).any()


def test_every_step_lowers_the_objective(state: State, equations: NormalEquations):
    def objective(amplitudes: Array) -> float:
        """But for a constant."""
        c = host(state, amplitudes).astype(np.float64)
        return float(0.5 * c @ (equations.normal + equations.prior) @ c - c @ equations.right)

    costs = [0.0, *(objective(solve(state, n).values) for n in range(1, 9))]
    assert np.all(np.diff(costs) < 1e-6 * abs(costs[-1]))
    assert costs[1] < 0.3 * costs[-1]  # both are below zero
    halfway = solve(state, 4)
    assert objective(solve(state, 4, start=halfway.values).values) < costs[4]


def test_the_prediction_comes_along(state: State):
    found = solve(state, 8, start=state.amplitudes)
    at_end = state.operator.predict(found.values)
    # float32 sums of eight steps
    assert float(abs(found.image - at_end).max()) < 1e-5 * float(abs(at_end).max())


def test_what_is_known_already_changes_nothing(state: State):
    backend, operator, start = state.operator.backend, state.operator, state.amplitudes
    prediction, diagonal = operator.predict(start), operator.diagonal(state.weights.pixels)
    kept = [backend.host(part).copy() for part in (start, prediction, diagonal)]
    given = solve(state, 3, start=start, prediction=prediction, diagonal=diagonal)
    for before, after in zip(kept, (start, prediction, diagonal), strict=True):
        np.testing.assert_array_equal(backend.host(after), before)
    alone = solve(state, 3, start=start)
    assert same_array(given.values, alone.values, backend)


def test_a_pull_adds_to_the_right_hand_side(state: State, equations: NormalEquations):
    backend, sites = state.operator.backend, sites_of(state)
    pull = np.zeros(tuple(state.amplitudes.shape), np.float32)
    pull.flat[sites] = np.random.default_rng(3).normal(size=len(sites))
    expected = np.linalg.solve(equations.normal + equations.prior, equations.right + pull.flat[sites])
    assert agree(host(state, settled(state, pull=backend.array(pull)).values), expected)


def test_where_nothing_is_seen_nothing_is_found(state: State):
    blind = replace(state, weights=replace(state.weights, pixels=0 * state.weights.pixels))
    found = solve(blind, 5)
    assert found.converged
    assert not bool(found.values.any())


def test_refit_weighs_the_prior_against_the_noise_between_neighbours(state: State, equations: NormalEquations):
    """By the square of `white_noise`; `noise`, which is twice as large, does not count."""
    louder = replace(state, weights=replace(state.weights, white_noise=20 * state.weights.white_noise))
    found = refit(louder, 300)
    normal = equations.normal + 400 * equations.prior
    c = host(state, found.amplitudes).astype(np.float64)
    away = c - np.linalg.solve(normal, equations.right)
    # one solution, to its tolerance of a thousandth of the gradient at a random start
    assert away @ normal @ away < 1e-3 * (c @ normal @ c)
    assert found.diagonal is not None
    assert refit(found, 1).diagonal is found.diagonal


def test_without_a_prior_there_is_nothing_to_solve(state: State):
    with pytest.raises(ValueError, match="no prior"):
        refit(replace(state, prior=None), 3)

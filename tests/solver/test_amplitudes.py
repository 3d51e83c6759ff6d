"""Conjugate gradients: the minimiser of the stated objective, step by step downwards, and honest about how it ended."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.amplitudes import LinearSolution, solve_amplitudes
from gsvr.solver.priors.lattice import QuadraticPrior, quadratic_prior
from tests.acquisitions import random_amplitudes, small_lattice, small_slices

STRENGTH = 0.02


@dataclass(frozen=True)
class Problem:
    operator: AcquisitionOperator
    values: np.ndarray
    weights: np.ndarray
    prior: QuadraticPrior

    @property
    def nothing(self) -> np.ndarray:
        return np.zeros(self.operator.lattice.shape, np.float32)

    def solve(self, iterations: int, start: np.ndarray | None = None, tolerance: float = 1e-6) -> LinearSolution:
        return solve_amplitudes(
            self.operator,
            self.values,
            self.weights,
            self.prior,
            STRENGTH,
            self.nothing if start is None else start,
            iterations=iterations,
            tolerance=tolerance,
        )

    def objective(self, amplitudes: np.ndarray) -> float:
        residual = self.values.astype(np.float64) - self.operator.predict(amplitudes)
        smoothness = float((amplitudes.astype(np.float64) * self.prior.apply(amplitudes)).sum())
        return 0.5 * float((self.weights * residual**2).sum()) + 0.5 * STRENGTH * smoothness

    def matrix(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sites, A and L of the support, dense, float64."""
        sites = np.flatnonzero(self.operator.lattice.support)
        forward, laplacian = [], []
        for site in sites:
            unit = self.nothing
            unit.flat[site] = 1
            forward.append(self.operator.predict(unit))
            laplacian.append(self.prior.apply(unit).ravel()[sites])
        return sites, np.stack(forward, 1).astype(np.float64), np.stack(laplacian, 1).astype(np.float64)


@pytest.fixture(scope="module")
def problem() -> Problem:
    slices, poses = small_slices()
    lattice = small_lattice(spacing=3.0, sigma=2.2)
    rng = np.random.default_rng(0)
    operator = AcquisitionOperator(lattice, slices, poses, rng.uniform(0.8, 1.2, slices.n_slices), cutoff=5.0)
    truth = random_amplitudes(lattice)
    values = operator.predict(truth) + rng.normal(scale=0.05, size=len(slices.values)).astype(np.float32)
    weights = rng.random(len(values)).astype(np.float32) * slices.mask
    return Problem(operator, values, weights, quadratic_prior(lattice, truth, 0.2))


def test_result_is_that_of_a_dense_solve(problem: Problem):
    sites, forward, laplacian = problem.matrix()
    normal = forward.T @ (problem.weights[:, None] * forward) + STRENGTH * laplacian
    expected = np.linalg.solve(normal, forward.T @ (problem.weights * problem.values))
    solution = problem.solve(200)
    assert solution.converged
    got = solution.amplitudes.ravel()[sites]
    # the normal matrix is conditioned like 1e4 here, and steps are float32
    assert np.abs(got - expected).max() < 2e-3 * np.abs(expected).max()
    outside = ~problem.operator.lattice.support
    assert not solution.amplitudes[outside].any()


def test_objective_falls_with_every_iteration(problem: Problem):
    costs = [problem.objective(problem.solve(n).amplitudes) for n in range(1, 13)]
    costs = [problem.objective(problem.nothing), *costs]
    assert np.all(np.diff(costs) < 1e-6 * costs[0])
    assert costs[1] < 0.5 * costs[0]


def test_prediction_comes_along(problem: Problem):
    solution = problem.solve(8)
    np.testing.assert_allclose(solution.prediction, problem.operator.predict(solution.amplitudes), atol=1e-5)


def test_iterations_are_counted(problem: Problem):
    assert problem.solve(5).iterations == 5
    quick = problem.solve(200, tolerance=0.1)
    assert 1 <= quick.iterations < 20


def gradient_size(problem: Problem, amplitudes: np.ndarray) -> float:
    """Norm of the gradient, preconditioned with the diagonal as documented."""
    diagonal = problem.operator.diagonal(problem.weights) + np.float32(STRENGTH) * problem.prior.diagonal()
    residual = problem.weights * (problem.values - problem.operator.predict(amplitudes))
    gradient = problem.operator.adjoint(residual) - np.float32(STRENGTH) * problem.prior.apply(amplitudes)
    support = problem.operator.lattice.support
    return float(np.sqrt((gradient[support] ** 2 / np.maximum(diagonal[support], 1e-6)).sum()))


@pytest.mark.parametrize("tolerance", [0.3, 0.03])
def test_converged_means_what_it_says(problem: Problem, tolerance: float):
    whole = gradient_size(problem, problem.nothing)
    solution = problem.solve(200, tolerance=tolerance)
    assert solution.converged
    assert gradient_size(problem, solution.amplitudes) <= 1.1 * tolerance * whole
    before = problem.solve(solution.iterations - 1, tolerance=tolerance)
    assert not before.converged
    assert gradient_size(problem, before.amplitudes) > 0.9 * tolerance * whole


def test_a_warm_start_is_never_left_for_worse(problem: Problem):
    best = problem.solve(200).amplitudes
    again = problem.solve(3, start=best).amplitudes
    assert problem.objective(again) <= problem.objective(best) * (1 + 1e-5)
    halfway = problem.solve(4).amplitudes
    resumed = problem.solve(4, start=halfway).amplitudes
    assert problem.objective(resumed) < problem.objective(halfway)
    assert problem.objective(resumed) < problem.objective(problem.solve(4).amplitudes)


def test_start_is_left_as_it_was_and_a_known_prediction_changes_nothing(problem: Problem):
    start = problem.solve(2).amplitudes
    kept, prediction = start.copy(), problem.operator.predict(start)
    prediction_kept = prediction.copy()
    given = solve_amplitudes(
        problem.operator, problem.values, problem.weights, problem.prior, STRENGTH, start, prediction, iterations=3
    )
    np.testing.assert_array_equal(start, kept)
    np.testing.assert_array_equal(prediction, prediction_kept)
    np.testing.assert_array_equal(given.amplitudes, problem.solve(3, start=start, tolerance=1e-3).amplitudes)


def test_nothing_to_see_gives_nothing(problem: Problem):
    blind = Problem(problem.operator, problem.values, np.zeros_like(problem.weights), problem.prior)
    solution = blind.solve(5)
    assert solution.converged
    assert not solution.amplitudes.any()

"""Conjugate gradients: exact in n steps, honest about how they ended, and silent about what they were given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.backends.protocol import Array
from gsvr.solver.conjugate_gradients import Solution, conjugate_gradients

N, PIXELS = 9, 23


@dataclass(frozen=True)
class System:
    """N = A^T A of given eigenvalues, with a random right-hand side."""

    backend: Backend
    a: np.ndarray
    b: np.ndarray
    inverse_diagonal: np.ndarray

    @staticmethod
    def random(backend: Backend, eigenvalues: np.ndarray, scaled: bool = True) -> System:
        rng = np.random.default_rng(4)
        left, right = (np.linalg.qr(rng.normal(size=shape))[0] for shape in ((PIXELS, N), (N, N)))
        a = left * np.sqrt(eigenvalues) @ right.T
        inverse = 1 / np.diag(a.T @ a) if scaled else np.ones(N)
        return System(backend, a, rng.normal(size=N), inverse)

    @property
    def solution(self) -> np.ndarray:
        return np.linalg.solve(self.a.T @ self.a, self.b)

    def gradient_size(self, x: np.ndarray) -> float:
        """Preconditioned norm."""
        gradient = self.b - self.a.T @ (self.a @ x)
        return float(np.sqrt((gradient**2 * self.inverse_diagonal).sum()))

    def solve(self, iterations: int, start: np.ndarray | None = None, tolerance: float = 1e-6) -> Solution:
        array, start = self.backend.array, np.zeros(N) if start is None else start
        a, inverse = array(self.a), array(self.inverse_diagonal)

        def normal(direction: Array) -> tuple[Array, Array]:
            along = a @ direction
            return a.T @ along, along

        return conjugate_gradients(
            *(normal, array(start), array(self.a @ start), array(self.b - self.a.T @ (self.a @ start))),
            *(lambda gradient: inverse * gradient, self.backend, iterations, tolerance),
        )

    def host(self, found: Solution) -> np.ndarray:
        return self.backend.host(found.values)


@pytest.fixture
def system(backend: Backend) -> System:
    return System.random(backend, np.linspace(1, 12, N))


def test_n_unknowns_take_n_steps(system: System):
    found = system.solve(N)
    # steps are float32: a few of their 1e-7 times the condition
    np.testing.assert_allclose(system.host(found), system.solution, atol=2e-5 * np.abs(system.solution).max())
    assert np.abs(system.host(system.solve(N - 4)) - system.solution).max() > 1e-3 * np.abs(system.solution).max()


def test_as_many_steps_as_there_are_different_eigenvalues(backend: Backend):
    system = System.random(backend, np.array([1.0] * 4 + [3.0] * 3 + [11.0] * 2), scaled=False)
    np.testing.assert_allclose(system.host(system.solve(3)), system.solution, atol=2e-5)
    assert np.abs(system.host(system.solve(2)) - system.solution).max() > 1e-2


def test_the_image_comes_along(system: System):
    start = np.random.default_rng(5).normal(size=N)
    found = system.solve(4, start)
    np.testing.assert_allclose(system.backend.host(found.image), system.a @ system.host(found), atol=2e-5)


def test_at_the_solution_no_step_is_taken(backend: Backend):
    # whole numbers, so that the gradient is zero to the bit
    solution = np.arange(1.0, N + 1)
    system = System(backend, np.eye(PIXELS, N), solution, np.ones(N))
    found = system.solve(5, solution)
    assert (found.iterations, found.converged) == (0, True)
    np.testing.assert_array_equal(system.host(found), solution)


@pytest.mark.parametrize("tolerance", [0.3, 0.01])
def test_converged_means_what_it_says(system: System, tolerance: float):
    start = np.random.default_rng(6).normal(size=N)
    found = system.solve(50, start, tolerance)
    assert found.converged
    assert 0 < found.iterations < N
    whole = system.gradient_size(start)
    assert system.gradient_size(system.host(found)) <= 1.001 * tolerance * whole
    before = system.solve(found.iterations - 1, start, tolerance)
    assert (before.iterations, before.converged) == (found.iterations - 1, False)
    assert system.gradient_size(system.host(before)) > 0.999 * tolerance * whole


def test_start_and_image_stay_as_they_were(system: System):
    array = system.backend.array
    a, start, image = array(system.a), array(np.ones(N)), array(system.a.sum(axis=1))
    kept = [system.backend.host(part).copy() for part in (start, image)]
    conjugate_gradients(
        *(lambda d: (a.T @ (a @ d), a @ d), start, image, array(system.b), lambda g: 1 * g, system.backend, 5)
    )
    for before, after in zip(kept, (start, image), strict=True):
        np.testing.assert_array_equal(system.backend.host(after), before)

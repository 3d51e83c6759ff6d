"""The prior on neighbouring free Gaussians, and its preconditioner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.fields import GaussianField
from gsvr.model.neighbours import find_neighbours
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.priors.neighbours import NeighbourPrior
from gsvr.solver.priors.protocol import Prior, QuadraticPrior
from tests.even_field import even_field
from tests.solver.oblique import dense, oblique_slices

OPTIONS = NeighbourPrior()
LEVEL = 13.0

FIELD = replace(even_field(), amplitudes=even_field().amplitudes / np.float32(LEVEL))
NEIGHBOURS = find_neighbours(FIELD, OPTIONS.count)


def prior_on(backend: Backend, options: NeighbourPrior = OPTIONS, field: GaussianField = FIELD) -> Prior:
    return options.on(GaussianOperator(field, *oblique_slices(), backend=backend), LEVEL)


def quadratic_at(backend: Backend, amplitudes: np.ndarray) -> QuadraticPrior:
    return prior_on(backend).at(backend.array(amplitudes))


def matrix_of(backend: Backend, amplitudes: np.ndarray) -> np.ndarray:
    return dense(quadratic_at(backend, amplitudes).apply, backend, (len(FIELD.means),))


def test_equal_amplitudes_cost_nothing_and_others_do(backend: Backend):
    n = len(FIELD.means)
    equal, prior = backend.array(np.full(n, 0.7)), quadratic_at(backend, FIELD.amplitudes)
    matrix = matrix_of(backend, FIELD.amplitudes)
    assert np.abs(backend.host(prior.apply(equal))).max() < 1e-5 * np.abs(matrix).max()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-5 * eigenvalues[-1]
    assert eigenvalues[1] > 1e-3 * eigenvalues[-1]  # only equal amplitudes are free: all Gaussians hang together
    values, start = (np.random.default_rng(seed).normal(size=n).astype(np.float32) for seed in (2, 3))
    got = backend.host(prior.apply(backend.array(values), 2.5, backend.array(start)))
    np.testing.assert_allclose(got, start + 2.5 * matrix @ values, atol=1e-5 * np.abs(matrix).max())


def test_the_quadratic_touches_the_energy(backend: Backend):
    """Its gradient where it touches is that of sum w sqrt(1 + (difference / edge)^2)."""
    c = FIELD.amplitudes.astype(np.float64)
    first, second = NEIGHBOURS.first, NEIGHBOURS.second

    def energy(values: np.ndarray) -> float:
        difference = LEVEL / OPTIONS.edge * (values[first] - values[second])
        return float((NEIGHBOURS.weights * np.sqrt(1 + difference**2)).sum())

    step = 1e-5
    numeric = [(energy(c + step * unit) - energy(c - step * unit)) / (2 * step) for unit in np.eye(len(c))]
    gradient = matrix_of(backend, FIELD.amplitudes) @ c
    np.testing.assert_allclose(gradient, numeric, atol=1e-4 * np.abs(numeric).max())


def test_edges_are_held_together_less(backend: Backend):
    step = np.where(np.arange(len(FIELD.means)) < len(FIELD.means) // 2, 0.0, 1.0).astype(np.float32) / LEVEL
    across = step[NEIGHBOURS.first] != step[NEIGHBOURS.second]
    flat, at_edge = (matrix_of(backend, values.astype(np.float32)) for values in (0 * step, step))
    first, second = NEIGHBOURS.first, NEIGHBOURS.second
    ratio = at_edge[first, second] / flat[first, second]
    np.testing.assert_allclose(ratio[~across], 1, rtol=1e-5)
    np.testing.assert_allclose(ratio[across], 1 / np.sqrt(1 + 1 / OPTIONS.edge**2), rtol=1e-4)


def test_noise_has_the_covariance_of_the_prior(backend: Backend):
    prior, rng, strength, samples = quadratic_at(backend, FIELD.amplitudes), np.random.default_rng(0), 0.3, 3000
    drawn = np.stack([backend.host(prior.noise(strength, rng)) for _ in range(samples)]).astype(np.float64)
    wanted = strength * matrix_of(backend, FIELD.amplitudes)
    root = np.sqrt(np.diag(wanted))
    error = (drawn.T @ drawn / samples - wanted) / np.outer(root, root)
    # an element's standard error is at most sqrt(2 / samples); of 64 x 64 none is beyond 5.5 of them
    assert np.abs(error).max() < 5.5 * np.sqrt(2 / samples)
    assert np.abs(drawn.mean(axis=0) / root).max() < 5 / np.sqrt(samples)


@pytest.mark.parametrize("sharpenings", [0, 3])
def test_the_preconditioner_is_symmetric_and_positive_and_sharpens(backend: Backend, sharpenings: int):
    """D^-1/2 (1 + a L)^m D^-1/2 as stated, with the normalised Laplacian of the neighbours for L."""
    options, n = replace(OPTIONS, sharpenings=sharpenings), len(FIELD.means)
    diagonal, strength = np.random.default_rng(1).uniform(0.5, 2, n).astype(np.float32), 0.1
    diagonal[3] = 0  # seen by no pixel
    quadratic = prior_on(backend, options).at(backend.array(FIELD.amplitudes))
    matrix = dense(quadratic.preconditioner(backend.array(diagonal), strength), backend, (n,))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] > 0
    links = np.zeros((n, n))
    links[NEIGHBOURS.first, NEIGHBOURS.second] = links[NEIGHBOURS.second, NEIGHBOURS.first] = 1
    degree = links.sum(axis=1)
    sharpened = np.eye(n) + options.sharpening * (np.eye(n) - links / np.sqrt(np.outer(degree, degree)))
    root = 1 / np.sqrt(diagonal + strength * np.diag(matrix_of(backend, FIELD.amplitudes)))
    expected = root[:, None] * np.linalg.matrix_power(sharpened, sharpenings) * root
    np.testing.assert_allclose(matrix, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("n", [1, 3])
def test_gaussians_with_nobody_near_are_on_their_own(backend: Backend, n: int):
    apart = FIELD.subset(np.arange(n))
    lonely = replace(apart, means=apart.means * 100)
    quadratic = prior_on(backend, field=lonely).at(backend.array(lonely.amplitudes))
    assert not backend.host(quadratic.apply(backend.array(lonely.amplitudes))).any()
    got = backend.host(quadratic.preconditioner(backend.array(np.ones(n)), 1.0)(backend.array(np.ones(n))))
    assert np.all(got > 0)
    assert np.isfinite(got).all()

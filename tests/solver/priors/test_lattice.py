"""The prior: a graph Laplacian that touches the edge-preserving energy from above."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import Lattice
from gsvr.solver.priors.lattice import QuadraticPrior, prior_energy, quadratic_prior
from tests.acquisitions import random_amplitudes

EDGE = 0.3


@pytest.fixture
def lattice() -> Lattice:
    """5 x 4 x 6 sites without a corner and with a hole, all connected."""
    support = np.ones((5, 4, 6), bool)
    support[:2, :2, :2] = False
    support[3, 2, 3] = False
    return Lattice(np.zeros(3), 2.0, 1.5, support)


@pytest.fixture
def amplitudes(lattice: Lattice) -> np.ndarray:
    return random_amplitudes(lattice)


@pytest.fixture
def prior(lattice: Lattice, amplitudes: np.ndarray) -> QuadraticPrior:
    return quadratic_prior(lattice, amplitudes, EDGE)


def dense(prior: QuadraticPrior, shape: tuple[int, ...]) -> np.ndarray:
    """L column by column."""
    columns = []
    for site in range(int(np.prod(shape))):
        unit = np.zeros(shape, np.float32)
        unit.flat[site] = 1
        columns.append(prior.apply(unit).ravel())
    return np.stack(columns, axis=1).astype(np.float64)


def test_laplacian_is_symmetric_and_positive_semidefinite(lattice: Lattice, prior: QuadraticPrior):
    matrix = dense(prior, lattice.shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert values.min() > -1e-5 * values.max()
    # one constant on the connected support, and every site outside of it
    assert (values > 1e-5 * values.max()).sum() == lattice.n_sites - 1


def test_constant_field_costs_nothing(lattice: Lattice, prior: QuadraticPrior):
    constant = np.full(lattice.shape, 3.7, np.float32)
    assert np.abs(prior.apply(constant)).max() < 1e-5 * prior.diagonal().max()
    assert prior_energy(lattice, constant, EDGE) == 0


def test_diagonal_is_that_of_the_matrix(lattice: Lattice, prior: QuadraticPrior):
    np.testing.assert_allclose(prior.diagonal().ravel(), np.diag(dense(prior, lattice.shape)), rtol=1e-5, atol=1e-6)


def test_bonds_never_leave_the_support(lattice: Lattice, prior: QuadraticPrior):
    matrix = dense(prior, lattice.shape)
    outside = ~lattice.support.ravel()
    assert outside.any()
    assert not matrix[outside].any()
    assert not matrix[:, outside].any()
    # and not through the walls of the box: opposite faces do not meet
    first, last = np.ravel_multi_index((4, 0, 0), lattice.shape), np.ravel_multi_index((4, 0, 5), lattice.shape)
    assert matrix[first, last] == 0
    assert matrix[first, first + 1] < 0


def test_all_26_neighbours_are_bonded(lattice: Lattice, prior: QuadraticPrior):
    matrix = dense(prior, lattice.shape)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    middle = np.ravel_multi_index((2, 2, 4), lattice.shape)
    assert (off_diagonal[middle] < 0).sum() == 25  # one neighbour is the hole
    assert off_diagonal.max() <= 0


def test_quadratic_touches_the_energy_with_its_slope(lattice: Lattice, amplitudes: np.ndarray, prior: QuadraticPrior):
    rng = np.random.default_rng(1)
    slope = prior.apply(amplitudes).astype(np.float64)
    for _ in range(5):
        direction = rng.normal(size=lattice.shape).astype(np.float32) * lattice.support
        h = 1e-2
        plus, minus = (prior_energy(lattice, amplitudes + np.float32(s * h) * direction, EDGE) for s in (1, -1))
        assert float((slope * direction).sum()) == pytest.approx((plus - minus) / (2 * h), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("size", [0.01, 0.3, 5.0])
def test_quadratic_lies_above_the_energy(lattice, amplitudes: np.ndarray, prior: QuadraticPrior, size: float):
    def quadratic(values: np.ndarray) -> float:
        return 0.5 * float((values.astype(np.float64) * prior.apply(values)).sum())

    energy, touching = prior_energy(lattice, amplitudes, EDGE), quadratic(amplitudes)
    for seed in range(10):
        step = np.random.default_rng(seed).normal(scale=size, size=lattice.shape).astype(np.float32)
        other = amplitudes + step * lattice.support
        bound = energy + quadratic(other) - touching
        assert prior_energy(lattice, other, EDGE) <= bound + 1e-5 * abs(bound)


def test_reweighting_lowers_energy_and_misfit_together(lattice: Lattice, amplitudes: np.ndarray):
    """Denoising with L reweighted: every step lowers 1/2 |c - y|^2 + mu E(c)."""
    strength, data = 0.02, amplitudes.astype(np.float64)
    values, costs = amplitudes, []
    for _ in range(8):
        misfit = 0.5 * ((values - data) ** 2).sum()
        costs.append(float(misfit + strength * prior_energy(lattice, values, EDGE)))
        matrix = np.eye(data.size) + strength * dense(quadratic_prior(lattice, values, EDGE), lattice.shape)
        values = np.linalg.solve(matrix, data.ravel()).reshape(data.shape).astype(np.float32)
    assert np.all(np.diff(costs) < 1e-6 * costs[0])
    assert costs[-1] < 0.9 * costs[0]


def test_an_edge_costs_less_than_the_same_rise_spread_out():
    support = np.ones((12, 6, 6), bool)
    lattice = Lattice(np.zeros(3), 2.0, 1.5, support)
    step = np.zeros(support.shape, np.float32)
    step[6:] = 1
    ramp = np.broadcast_to(np.linspace(0, 1, 12, dtype=np.float32)[:, None, None], support.shape).copy()
    small, large = 0.01, 100.0
    assert prior_energy(lattice, step, small) < 1.2 * prior_energy(lattice, ramp, small)
    # far above the edge scale differences are judged by their square, which an edge makes large
    assert prior_energy(lattice, step, large) > 5 * prior_energy(lattice, ramp, large)
    bonds = quadratic_prior(lattice, step, small)
    across = dense_row(bonds, (5, 3, 3), (6, 3, 3), lattice.shape)
    along = dense_row(bonds, (5, 3, 3), (5, 3, 4), lattice.shape)
    assert abs(across) < 0.02 * abs(along)


def dense_row(prior: QuadraticPrior, row: tuple[int, ...], column: tuple[int, ...], shape: tuple[int, ...]) -> float:
    unit = np.zeros(shape, np.float32)
    unit[column] = 1
    return float(prior.apply(unit)[row])


def test_slopes_cost_the_same_in_every_direction():
    shape = (9, 9, 9)
    lattice = Lattice(np.zeros(3), 1.0, 1.0, np.ones(shape, bool))
    position = np.moveaxis(np.indices(shape), 0, -1).astype(np.float32)
    flat = quadratic_prior(lattice, np.zeros(shape, np.float32), 1.0)
    costs = []
    for direction in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [2, -1, 3]):
        ramp = position @ (np.array(direction, np.float32) / np.linalg.norm(direction))
        # the flow of each inner site towards its neighbours, without the faces of the box
        squared = flat.apply(ramp.astype(np.float32) ** 2)[4, 4, 4]
        costs.append(-float(squared))
    np.testing.assert_allclose(costs, costs[0], rtol=1e-4)
    # all bonds of an inner site together are as strong as six of strength one along the axes would be
    assert flat.diagonal()[4, 4, 4] == pytest.approx(6.0, rel=1e-5)


def test_threads_change_nothing(lattice: Lattice, amplitudes: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("GSVR_THREADS", threads)
        prior = quadratic_prior(lattice, amplitudes, EDGE)
        results.append((prior.bonds, prior.apply(amplitudes)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])

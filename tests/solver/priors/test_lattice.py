"""The prior: a graph Laplacian that touches the edge-preserving energy from above."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from gsvr.backends import Backend
from gsvr.backends.protocol import LatticeBonds
from gsvr.model.fields import Lattice
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.priors.protocol import Prior, QuadraticPrior
from tests.solver.oblique import ball_lattice, dense, oblique_slices, random_amplitudes
from tests.solver.priors.energy import prior_energy

EDGE = 0.3


@dataclass(frozen=True)
class OnLattice:
    """The prior at some amplitudes, with arrays of the host."""

    backend: Backend
    quadratic: QuadraticPrior
    bonds: LatticeBonds

    @staticmethod
    def at(backend: Backend, lattice: Lattice, amplitudes: np.ndarray, edge: float = EDGE) -> OnLattice:
        operator = LatticeOperator(lattice, *oblique_slices(), backend=backend)
        array = backend.array(amplitudes)
        return OnLattice(
            backend, LatticePrior(edge=edge).on(operator).at(array), backend.lattice_bonds(lattice, array, edge)
        )

    def apply(self, values: np.ndarray) -> np.ndarray:
        return self.backend.host(self.quadratic.apply(self.backend.array(values)))

    def diagonal(self) -> np.ndarray:
        return self.backend.host(self.bonds.diagonal())

    def matrix(self, shape: tuple[int, ...]) -> np.ndarray:
        return dense(self.quadratic.apply, self.backend, shape)


@pytest.fixture
def lattice() -> Lattice:
    """5 x 4 x 6 sites without a corner and with a hole, all connected."""
    support = np.ones((5, 4, 6), bool)
    support[:2, :2, :2] = False
    support[3, 2, 3] = False
    return Lattice(np.array([-4.0, -3.0, -5.0]), 2.0, 1.5, support)


@pytest.fixture
def amplitudes(lattice: Lattice) -> np.ndarray:
    return random_amplitudes(lattice)


@pytest.fixture
def prior(backend: Backend, lattice: Lattice, amplitudes: np.ndarray) -> OnLattice:
    return OnLattice.at(backend, lattice, amplitudes)


def test_laplacian_is_symmetric_and_positive_semidefinite(lattice: Lattice, prior: OnLattice):
    matrix = prior.matrix(lattice.shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    assert values.min() > -1e-5 * values.max()
    # one constant on the connected support, and every site outside of it
    assert (values > 1e-5 * values.max()).sum() == lattice.n_sites - 1


def test_constant_field_costs_nothing(lattice: Lattice, prior: OnLattice):
    constant = np.full(lattice.shape, 3.7, np.float32)
    assert np.abs(prior.apply(constant)).max() < 1e-5 * prior.diagonal().max()
    assert prior_energy(lattice, constant, EDGE) == 0


def test_diagonal_is_that_of_the_matrix(lattice: Lattice, prior: OnLattice):
    np.testing.assert_allclose(prior.diagonal().ravel(), np.diag(prior.matrix(lattice.shape)), rtol=1e-5, atol=1e-6)


def test_bonds_never_leave_the_support(lattice: Lattice, prior: OnLattice):
    matrix = prior.matrix(lattice.shape)
    outside = ~lattice.support.ravel()
    assert outside.any()
    assert not matrix[outside].any()
    assert not matrix[:, outside].any()
    # and not through the walls of the box: opposite faces do not meet
    first, last = np.ravel_multi_index((4, 0, 0), lattice.shape), np.ravel_multi_index((4, 0, 5), lattice.shape)
    assert matrix[first, last] == 0
    assert matrix[first, first + 1] < 0


def test_all_26_neighbours_are_bonded(lattice: Lattice, prior: OnLattice):
    matrix = prior.matrix(lattice.shape)
    off_diagonal = matrix - np.diag(np.diag(matrix))
    middle = np.ravel_multi_index((2, 2, 4), lattice.shape)
    assert (off_diagonal[middle] < 0).sum() == 25  # one neighbour is the hole
    assert off_diagonal.max() <= 0


def test_quadratic_touches_the_energy_with_its_slope(lattice: Lattice, amplitudes: np.ndarray, prior: OnLattice):
    rng = np.random.default_rng(1)
    slope = prior.apply(amplitudes).astype(np.float64)
    for _ in range(5):
        direction = rng.normal(size=lattice.shape).astype(np.float32) * lattice.support
        h = 1e-2
        plus, minus = (prior_energy(lattice, amplitudes + np.float32(s * h) * direction, EDGE) for s in (1, -1))
        assert float((slope * direction).sum()) == pytest.approx((plus - minus) / (2 * h), rel=1e-2, abs=1e-2)


@pytest.mark.parametrize("size", [0.01, 0.3, 5.0])
def test_quadratic_lies_above_the_energy(lattice: Lattice, amplitudes: np.ndarray, prior: OnLattice, size: float):
    def quadratic(values: np.ndarray) -> float:
        return 0.5 * float((values.astype(np.float64) * prior.apply(values)).sum())

    energy, touching = prior_energy(lattice, amplitudes, EDGE), quadratic(amplitudes)
    for seed in range(10):
        step = np.random.default_rng(seed).normal(scale=size, size=lattice.shape).astype(np.float32)
        other = amplitudes + step * lattice.support
        bound = energy + quadratic(other) - touching
        assert prior_energy(lattice, other, EDGE) <= bound + 1e-5 * abs(bound)


def test_reweighting_lowers_energy_and_misfit_together(backend: Backend, lattice: Lattice, amplitudes: np.ndarray):
    """Denoising with L reweighted: every step lowers 1/2 |c - y|^2 + mu E(c)."""
    strength, data = 0.02, amplitudes.astype(np.float64)
    values, costs = amplitudes, []
    for _ in range(8):
        misfit = 0.5 * ((values - data) ** 2).sum()
        costs.append(float(misfit + strength * prior_energy(lattice, values, EDGE)))
        matrix = np.eye(data.size) + strength * OnLattice.at(backend, lattice, values).matrix(lattice.shape)
        values = np.linalg.solve(matrix, data.ravel()).reshape(data.shape).astype(np.float32)
    assert np.all(np.diff(costs) < 1e-6 * costs[0])
    assert costs[-1] < 0.9 * costs[0]


def test_an_edge_costs_less_than_the_same_rise_spread_out(backend: Backend):
    support = np.ones((12, 6, 6), bool)
    lattice = Lattice(np.zeros(3), 2.0, 1.5, support)
    step = np.zeros(support.shape, np.float32)
    step[6:] = 1
    ramp = np.broadcast_to(np.linspace(0, 1, 12, dtype=np.float32)[:, None, None], support.shape).copy()
    small, large = 0.01, 100.0
    assert prior_energy(lattice, step, small) < 1.2 * prior_energy(lattice, ramp, small)
    # far above the edge scale differences are judged by their square, which an edge makes large
    assert prior_energy(lattice, step, large) > 5 * prior_energy(lattice, ramp, large)
    bonds = OnLattice.at(backend, lattice, step, small)
    across = dense_row(bonds, (5, 3, 3), (6, 3, 3), lattice.shape)
    along = dense_row(bonds, (5, 3, 3), (5, 3, 4), lattice.shape)
    assert abs(across) < 0.02 * abs(along)


def dense_row(prior: OnLattice, row: tuple[int, ...], column: tuple[int, ...], shape: tuple[int, ...]) -> float:
    unit = np.zeros(shape, np.float32)
    unit[column] = 1
    return float(prior.apply(unit)[row])


def test_slopes_cost_the_same_in_every_direction(backend: Backend):
    shape = (9, 9, 9)
    lattice = Lattice(np.zeros(3), 1.0, 1.0, np.ones(shape, bool))
    position = np.moveaxis(np.indices(shape), 0, -1).astype(np.float32)
    flat = OnLattice.at(backend, lattice, np.zeros(shape, np.float32), 1.0)
    costs = []
    for direction in ([1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 1, 1], [2, -1, 3]):
        ramp = position @ (np.array(direction, np.float32) / np.linalg.norm(direction))
        # the flow of each inner site towards its neighbours, without the faces of the box
        squared = flat.apply(ramp.astype(np.float32) ** 2)[4, 4, 4]
        costs.append(-float(squared))
    np.testing.assert_allclose(costs, costs[0], rtol=1e-4)
    # all bonds of an inner site together are as strong as six of strength one along the axes would be
    assert flat.diagonal()[4, 4, 4] == pytest.approx(6.0, rel=1e-5)


def test_a_factor_and_a_start(lattice: Lattice, amplitudes: np.ndarray, prior: OnLattice):
    array, rng = prior.backend.array, np.random.default_rng(3)
    start = rng.normal(size=lattice.shape).astype(np.float32) * lattice.support
    got = prior.backend.host(prior.quadratic.apply(array(amplitudes), -0.7, array(start)))
    expected = start - 0.7 * prior.apply(amplitudes)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_noise_has_the_covariance_of_the_prior(lattice: Lattice, prior: OnLattice):
    rng, strength, samples = np.random.default_rng(0), 0.3, 2000
    drawn = np.stack([prior.backend.host(prior.quadratic.noise(strength, rng)).ravel() for _ in range(samples)])
    inside = lattice.support.ravel()
    assert not drawn[:, ~inside].any()
    wanted = strength * prior.matrix(lattice.shape)[np.ix_(inside, inside)]
    root = np.sqrt(np.diag(wanted))
    drawn = drawn[:, inside].astype(np.float64)
    error = (drawn.T @ drawn / samples - wanted) / np.outer(root, root)
    # an element's standard error is at most sqrt(2 / samples)
    assert np.abs(error).max() < 5.5 * np.sqrt(2 / samples)
    assert np.abs(drawn.mean(axis=0) / root).max() < 5 / np.sqrt(samples)


FLAT = Lattice(np.zeros(3), 2.0, 1.5, np.ones((5, 1, 4), bool))


@pytest.mark.parametrize(("lattice", "sharpened"), [(ball_lattice(3.0, 2.4), True), (FLAT, True), (FLAT, False)])
def test_the_preconditioner_is_symmetric_and_positive_and_sharpens(backend: Backend, lattice: Lattice, sharpened: bool):
    """D^-1/2 (1 + a (1 - S))^m D^-1/2 as stated, with binomial smoothing for S; nothing outside the support."""
    options, n = LatticePrior(), lattice.support.size
    amplitudes, strength = random_amplitudes(lattice), 0.2
    diagonal = np.random.default_rng(1).uniform(0.5, 2, lattice.shape).astype(np.float32) * lattice.support
    operator = LatticeOperator(lattice, *oblique_slices(), backend=backend)
    quadratic = options.on(operator, sharpened).at(backend.array(amplitudes))
    matrix = dense(quadratic.preconditioner(backend.array(diagonal), strength), backend, lattice.shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    inside = lattice.support.ravel()
    assert not matrix[~inside].any()
    assert np.linalg.eigvalsh(matrix[np.ix_(inside, inside)])[0] > 0
    units = np.eye(n).reshape(n, *lattice.shape)
    for axis in (1, 2, 3):
        units = ndimage.correlate1d(units, np.array([1, 2, 1]) / 4, axis, mode="constant")
    sharpening = np.eye(n) + options.sharpening * (np.eye(n) - units.reshape(n, n))
    bonds = backend.host(backend.lattice_bonds(lattice, backend.array(amplitudes), options.edge).diagonal())
    root = np.zeros(n)
    root[inside] = (diagonal + strength * bonds).ravel()[inside] ** -0.5
    expected = root[:, None] * np.linalg.matrix_power(sharpening, options.sharpenings if sharpened else 0) * root
    np.testing.assert_allclose(matrix, expected, atol=1e-5 * np.abs(expected).max())


def test_a_site_that_nothing_sees_is_no_division_by_zero(backend: Backend):
    lattice = ball_lattice(3.0, 2.4)
    operator = LatticeOperator(lattice, *oblique_slices(), backend=backend)
    flat = LatticePrior().on(operator).at(backend.array(np.zeros(lattice.shape, np.float32)))
    diagonal = lattice.support.astype(np.float32)
    unseen = tuple(np.argwhere(lattice.support)[7])
    diagonal[unseen] = 0
    got = backend.host(flat.preconditioner(backend.array(diagonal), 0.0)(backend.array(np.ones(lattice.shape))))
    assert np.isfinite(got).all()
    assert got[unseen] == pytest.approx(1e4, rel=0.05)  # a ten-thousandth of the mean, as inverse
    assert not got[~lattice.support].any()


def test_it_is_a_prior_as_the_solver_asks_for(backend: Backend):
    options = LatticePrior(strength=0.7)
    made = options.on(LatticeOperator(ball_lattice(), *oblique_slices(), backend=backend))
    assert isinstance(made, Prior)
    assert made.strength == 0.7

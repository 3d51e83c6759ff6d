"""Neighbours of free Gaussians, their prior, and the preconditioner."""

from __future__ import annotations

import numpy as np
import pytest
from gsvr.solver.priors.neighbour_search import nearest_neighbours
from scipy.spatial import KDTree

from gsvr.model.fields import GaussianField
from gsvr.solver.priors.neighbours import NeighbourOptions, NeighbourPrior, find_neighbours, sharpening

OPTIONS = NeighbourOptions()
LEVEL = 13.0


def even_field(per_axis: int = 4, width: float = 0.95, seed: int = 0) -> GaussianField:
    """Gaussians about 1.5 mm apart, a little off a lattice; `width` is their share of that distance."""
    rng = np.random.default_rng(seed)
    sites = np.moveaxis(np.indices((per_axis, per_axis, per_axis)), 0, -1).reshape(-1, 3)
    n = len(sites)
    return GaussianField(
        means=(1.5 * (sites + rng.uniform(-0.2, 0.2, (n, 3)))).astype(np.float32),
        log_scales=np.full((n, 3), np.log(1.5 * width), np.float32),
        quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        amplitudes=rng.uniform(0.2, 1.0, n).astype(np.float32) / np.float32(LEVEL),
    )


FIELD = even_field()
NEIGHBOURS = find_neighbours(FIELD, OPTIONS.count)


def prior_at(amplitudes: np.ndarray, edge: float = OPTIONS.edge) -> NeighbourPrior:
    return NeighbourPrior(NEIGHBOURS, amplitudes, LEVEL, edge)


def matrix_of(prior: NeighbourPrior, strength: float = 1.0) -> np.ndarray:
    columns = np.eye(len(FIELD.means), dtype=np.float32)
    return np.stack([prior.apply(column, strength) for column in columns], axis=1).astype(np.float64)


@pytest.mark.parametrize("per_axis", [7, 18])
def test_nearest_are_those_of_a_tree(per_axis: int):
    """Wide enough for all of the eight to be within a cell's side."""
    field = even_field(per_axis, width=2.0)
    here, there = nearest_neighbours(field, 8)
    expected = np.asarray(KDTree(field.means).query(field.means, 9)[1])
    assert set(zip(here.tolist(), there.tolist(), strict=True)) == {
        (i, int(j)) for i, row in enumerate(expected) for j in row[1:]
    }


def test_of_usual_gaussians_none_is_missed_within_a_cells_side():
    field = even_field(9)
    side = 1.3 * 1.5 * 0.95
    here, there = nearest_neighbours(field, 8)
    distances = np.linalg.norm(field.means[here] - field.means[there], axis=1)
    near = distances < side
    found = set(zip(here[near].tolist(), there[near].tolist(), strict=True))
    lengths, expected = (np.asarray(part) for part in KDTree(field.means).query(field.means, 9))
    wanted = {
        (i, int(j))
        for i, (row, far) in enumerate(zip(expected, lengths, strict=True))
        for j, length in zip(row[1:], far[1:], strict=True)
        if length < side
    }
    assert found == wanted
    assert len(here) > 7 * len(field.means)


def test_who_stands_alone_has_no_neighbour():
    alone = FIELD.means.copy()
    alone[0] -= 40
    field = GaussianField(alone, FIELD.log_scales, FIELD.quaternions, FIELD.amplitudes)
    here, there = nearest_neighbours(field, 8)
    assert 0 not in here
    assert 0 not in there
    neighbours = find_neighbours(field, 8)
    values = np.random.default_rng(0).normal(size=len(alone)).astype(np.float32)
    applied = neighbours.laplacian.apply(values)
    assert np.isfinite(applied).all()
    assert applied[0] == values[0]  # of the normalised Laplacian, one on the diagonal


def test_pairs_are_there_once_and_weigh_as_on_a_lattice():
    first, second, weights = NEIGHBOURS.first, NEIGHBOURS.second, NEIGHBOURS.weights
    assert np.all(first < second)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(first)
    assert weights.sum() == pytest.approx(3 * len(FIELD.means), rel=1e-5)
    squares = ((FIELD.means[first] - FIELD.means[second]) ** 2).sum(axis=1)
    np.testing.assert_allclose(weights * squares, np.full(len(first), weights[0] * squares[0]), rtol=1e-4)


def test_equal_amplitudes_cost_nothing_and_others_do():
    n = len(FIELD.means)
    equal, prior = np.full(n, 0.7, np.float32), prior_at(FIELD.amplitudes)
    matrix = matrix_of(prior)
    assert np.abs(prior.apply(equal, 1.0)).max() < 1e-5 * np.abs(matrix).max()
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6 * np.abs(matrix).max())
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > -1e-5 * eigenvalues[-1]
    assert eigenvalues[1] > 1e-3 * eigenvalues[-1]  # only equal amplitudes are free: all Gaussians hang together
    np.testing.assert_allclose(prior.diagonal(), np.diag(matrix), rtol=1e-5)
    np.testing.assert_allclose(matrix_of(prior, 2.5), 2.5 * matrix, rtol=1e-5, atol=1e-6 * np.abs(matrix).max())


def test_the_quadratic_touches_the_energy():
    """Its gradient where it touches is that of sum w sqrt(1 + (difference / edge)^2)."""
    c = FIELD.amplitudes.astype(np.float64)
    first, second = NEIGHBOURS.first, NEIGHBOURS.second

    def energy(values: np.ndarray) -> float:
        difference = LEVEL / OPTIONS.edge * (values[first] - values[second])
        return float((NEIGHBOURS.weights * np.sqrt(1 + difference**2)).sum())

    step = 1e-5
    numeric = [(energy(c + step * unit) - energy(c - step * unit)) / (2 * step) for unit in np.eye(len(c))]
    gradient = prior_at(FIELD.amplitudes).apply(FIELD.amplitudes, 1.0)
    np.testing.assert_allclose(gradient, numeric, atol=1e-4 * np.abs(numeric).max())


def test_edges_are_held_together_less():
    step = np.where(np.arange(len(FIELD.means)) < len(FIELD.means) // 2, 0.0, 1.0).astype(np.float32) / LEVEL
    across = step[NEIGHBOURS.first] != step[NEIGHBOURS.second]
    flat, at_edge = (matrix_of(prior_at(values)) for values in (0 * step, step))
    first, second = NEIGHBOURS.first, NEIGHBOURS.second
    ratio = at_edge[first, second] / flat[first, second]
    np.testing.assert_allclose(ratio[~across], 1, rtol=1e-5)
    np.testing.assert_allclose(ratio[across], 1 / np.sqrt(1 + 1 / OPTIONS.edge**2), rtol=1e-4)


def test_noise_has_the_covariance_of_the_prior():
    prior, rng, strength, samples = prior_at(FIELD.amplitudes), np.random.default_rng(0), 0.3, 6000
    drawn = np.stack([prior.noise(strength, rng) for _ in range(samples)]).astype(np.float64)
    wanted = matrix_of(prior, strength)
    root = np.sqrt(np.diag(wanted))
    error = (drawn.T @ drawn / samples - wanted) / np.outer(root, root)
    # an element's standard error is at most sqrt(2 / samples); of 64 x 64 none is beyond 5.5 of them
    assert np.abs(error).max() < 5.5 * np.sqrt(2 / samples)
    assert np.abs(drawn.mean(axis=0) / root).max() < 5 / np.sqrt(samples)


def test_sharpening_is_symmetric_and_positive():
    diagonal = np.random.default_rng(1).uniform(0.5, 2, len(FIELD.means)).astype(np.float32)
    diagonal[3] = 0  # seen by no pixel
    apply = sharpening(NEIGHBOURS, diagonal, OPTIONS)
    matrix = np.stack([apply(column) for column in np.eye(len(diagonal), dtype=np.float32)], axis=1).astype(np.float64)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-5 * np.abs(matrix).max())
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2)[0] > 0
    plain = sharpening(NEIGHBOURS, diagonal, NeighbourOptions(sharpenings=0))
    seen = diagonal > 0
    np.testing.assert_allclose(plain(diagonal)[seen], 1, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_gaussians_with_nobody_near_have_no_neighbours(n: int):
    apart = FIELD.subset(np.arange(n))
    lonely = GaussianField(apart.means * 1000, apart.log_scales, apart.quaternions, apart.amplitudes)
    found = find_neighbours(lonely, OPTIONS.count)
    assert len(found.first) == len(found.second) == len(found.weights) == 0
    prior = NeighbourPrior(found, lonely.amplitudes, LEVEL, OPTIONS.edge)
    assert not prior.apply(lonely.amplitudes, 1.0).any()
    assert np.all(sharpening(found, np.ones(n, np.float32), OPTIONS)(np.ones(n, np.float32)) > 0)

"""Fields of Gaussians: where lattices stand, what they sum to, and their free form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.fields import GaussianField, Lattice, LatticeField, SumField, lattice_covering, lattice_values
from gsvr.model.geometry import pose_about, rotation_from_vector, transform_points
from gsvr.render.points import values_at
from tests.acquisitions import random_amplitudes, small_lattice


def sites(lattice: Lattice) -> np.ndarray:
    return np.argwhere(lattice.support) * lattice.spacing + lattice.origin


def field_at(field: LatticeField, points: np.ndarray) -> np.ndarray:
    """Sum over all Gaussians by definition, in float64."""
    gaussians = field.to_gaussians()
    offset = points[:, None] - gaussians.means.astype(np.float64)
    exponent = np.einsum("pni,nij,pnj->pn", offset, np.linalg.inv(gaussians.covariances), offset)
    return np.exp(-0.5 * exponent) @ gaussians.amplitudes.astype(np.float64)


def test_lattice_covers_what_it_is_asked_to_and_no_more():
    points = np.random.default_rng(0).normal(scale=8, size=(200, 3)) + np.array([100, -30, 7])
    lattice = lattice_covering(points, spacing=1.7, sigma=1.2, margin=4.0)
    distance = np.linalg.norm(sites(lattice)[:, None] - points, axis=2)
    assert distance.min(axis=0).max() <= 1.7 * np.sqrt(3) / 2 + 1e-9  # every point has a site in its cell
    # points count by the site nearest to them, which is at most half a cell's diagonal away
    assert distance.min(axis=1).max() <= 4.0 + 1.7 * np.sqrt(3) / 2
    around = points[:5, None] + np.array([[3.0, 0, 0], [0, -3.0, 0], [0, 0, 3.0]])
    to_site = np.linalg.norm(sites(lattice) - around.reshape(-1, 1, 3), axis=2).min(axis=1)
    assert to_site.max() <= 1.7 * np.sqrt(3) / 2 + 1e-9


def test_lattices_of_one_spacing_share_their_sites():
    rng = np.random.default_rng(1)
    for points in (rng.normal(size=(5, 3)), rng.normal(size=(5, 3)) + 33.3):
        lattice = lattice_covering(points, spacing=1.3, sigma=1.0, margin=3.0)
        multiples = sites(lattice) / 1.3
        np.testing.assert_allclose(multiples, np.rint(multiples), atol=1e-9)


def test_lattice_knows_its_geometry():
    lattice = small_lattice()
    index = np.argwhere(lattice.support)
    np.testing.assert_allclose(index @ lattice.affine[:3, :3].T + lattice.affine[:3, 3], sites(lattice))
    assert lattice.n_sites == len(index)
    assert lattice.shape == lattice.support.shape


def test_nothing_to_cover_and_bad_lengths_are_refused():
    with pytest.raises(ValueError, match="no points"):
        lattice_covering(np.zeros((0, 3)), 1.0, 1.0, 1.0)
    for spacing, sigma in ((0.0, 1.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="positive"):
            lattice_covering(np.zeros((1, 3)), spacing, sigma, 1.0)
    for place in (np.nan, np.inf, -1e8):  # the kernel would write out of bounds
        with pytest.raises(ValueError, match="cover lies more than"):
            lattice_covering(np.array([[0.0, 0.0, 0.0], [0.0, place, 1.0]]), 1.0, 1.0, 1.0)


def test_sampling_is_the_sum_over_all_gaussians():
    lattice = small_lattice(spacing=2.0, sigma=1.5)
    field = LatticeField(lattice, random_amplitudes(lattice))
    axes = (np.array([-3.0, 0.4, 11.0]), np.array([0.0, 2.1]), np.linspace(-9, 9, 4))
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    got = lattice_values(field, axes)
    assert got.shape == (3, 2, 4)
    expected = field_at(field, grid)
    # float32 sums of at most a hundred terms of size one
    np.testing.assert_allclose(got.ravel(), expected, atol=2e-6 * np.abs(field.amplitudes).sum() ** 0.5)


def test_equal_amplitudes_are_a_flat_field_of_the_stated_level():
    """Why amplitudes are rescaled for another lattice by (sigma sqrt(2 pi) / spacing)^3."""
    lattice = Lattice(np.zeros(3), 1.5, 1.2, np.ones((25, 25, 25), bool))
    field = LatticeField(lattice, np.ones(lattice.shape, np.float32))
    inside = np.linspace(16, 20, 7)
    level = (1.2 * np.sqrt(2 * np.pi) / 1.5) ** 3
    np.testing.assert_allclose(lattice_values(field, (inside, inside, inside)), level, rtol=1e-4)


def test_free_form_is_the_same_field():
    lattice = small_lattice()
    amplitudes = random_amplitudes(lattice)
    gaussians = LatticeField(lattice, amplitudes).to_gaussians()
    assert len(gaussians.means) == lattice.n_sites
    np.testing.assert_allclose(gaussians.means, sites(lattice), atol=1e-5)
    np.testing.assert_allclose(
        gaussians.covariances, np.broadcast_to(1.5**2 * np.eye(3), (lattice.n_sites, 3, 3)), rtol=1e-6
    )
    np.testing.assert_array_equal(gaussians.amplitudes, amplitudes[lattice.support])


def test_covariances_have_the_scales_along_the_turned_axes():
    turn = rotation_from_vector(np.array([0.4, -0.7, 0.2]))
    # half angle by hand: quaternion (cos a/2, axis sin a/2)
    angle = np.linalg.norm([0.4, -0.7, 0.2])
    quaternion = np.array([np.cos(angle / 2), *(np.array([0.4, -0.7, 0.2]) / angle * np.sin(angle / 2))])
    scales = np.array([0.5, 1.0, 3.0])
    field = GaussianField(np.zeros((1, 3)), np.log(scales)[None], quaternion[None], np.ones(1))
    covariance = field.covariances[0]
    for axis in range(3):
        direction = turn[:, axis]
        np.testing.assert_allclose(covariance @ direction, scales[axis] ** 2 * direction, atol=1e-12)


def test_shape_gradient_is_the_limit_of_differences():
    rng = np.random.default_rng(5)
    parts = {"log_scales": 0.4 * rng.normal(size=(6, 3)), "quaternions": rng.normal(size=(6, 4))}
    root, h = rng.normal(size=(6, 3, 3)), 1e-6
    by_covariance = root + np.swapaxes(root, 1, 2)

    def field(name: str, axis: int, sign: int) -> GaussianField:
        moved = parts[name].copy()
        moved[:, axis] += sign * h
        shapes = parts | {name: moved}
        return GaussianField(np.zeros((6, 3)), shapes["log_scales"], shapes["quaternions"], np.ones(6))

    got = field("log_scales", 0, 0).shape_gradient(by_covariance)
    for (name, values), gradient in zip(parts.items(), got, strict=True):
        assert gradient.shape == values.shape
        for axis in range(values.shape[1]):
            change = field(name, axis, 1).covariances - field(name, axis, -1).covariances
            expected = (by_covariance * change).sum(axis=(1, 2)) / (2 * h)
            np.testing.assert_allclose(gradient[:, axis], expected, atol=1e-7)


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_a_turned_field_is_the_field_elsewhere(normalisation: float | None):
    generator = np.random.default_rng(5)
    parts = [generator.normal(size=(40, n)) for n in (3, 3, 4)]
    field = GaussianField(8 * parts[0], 0.3 * parts[1] + 1, parts[2], generator.normal(size=40), normalisation)
    pose = pose_about(np.array([0.4, -2.0, 1.0]), np.array([10.0, -20.0, 5.0]), np.array([3.0, 0.0, 1.0]))
    points = 8 * generator.normal(size=(50, 3))
    here = values_at(field, points)
    assert np.allclose(values_at(field.turned(pose), transform_points(pose, points)), here, atol=1e-4)
    assert not np.allclose(values_at(field, transform_points(pose, points)), here, atol=1e-2)


def test_a_blurred_field_is_its_mean_around_every_point():
    generator = np.random.default_rng(6)
    parts = [generator.normal(size=(20, n)) for n in (3, 3, 4)]
    field = GaussianField(6 * parts[0], 0.2 * parts[1] + 1, parts[2], generator.normal(size=20))
    points, sigma = 6 * generator.normal(size=(30, 3)), 0.9
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    offsets = np.stack(np.meshgrid(nodes, nodes, nodes), axis=-1).reshape(-1, 3)
    shares = np.prod(np.stack(np.meshgrid(weights, weights, weights), axis=-1).reshape(-1, 3), axis=1)
    around = values_at(field, (points[:, None] + sigma * offsets).reshape(-1, 3)).reshape(len(points), -1)
    np.testing.assert_allclose(values_at(field.blurred(sigma), points), around @ shares / shares.sum(), atol=1e-4)


def test_a_blurred_normalised_field_keeps_the_level_of_its_amplitudes():
    generator = np.random.default_rng(7)
    parts = [generator.normal(size=(20, n)) for n in (3, 3, 4)]
    field = GaussianField(parts[0], 0.2 * parts[1], parts[2], np.full(20, 3.0), 1e-6)
    blurred = field.blurred(0.5)
    np.testing.assert_array_equal(blurred.amplitudes, field.amplitudes)
    np.testing.assert_allclose(blurred.covariances, field.covariances + 0.25 * np.eye(3), atol=1e-5)


def test_a_sum_of_fields_has_the_gaussians_of_all():
    lattice = lattice_covering(np.zeros((1, 3)), 1.0, 0.7, 2.0)
    on_lattice = LatticeField(lattice, np.random.default_rng(0).random(lattice.shape, np.float32) * lattice.support)
    field = SumField((on_lattice, on_lattice.to_gaussians().subset(np.arange(4))))
    assert field.n_gaussians == lattice.n_sites + 4
    free = field.to_gaussians()
    np.testing.assert_array_equal(free.amplitudes, field.amplitudes)
    np.testing.assert_array_equal(free.means[-4:], free.means[:4])
    np.testing.assert_array_equal(field.scaled(3.0).amplitudes, 3 * field.amplitudes)
    with pytest.raises(ValueError, match="a sum of fields needs at least one"):
        SumField(())
    with pytest.raises(ValueError, match="cannot be parts of a sum"):
        SumField((replace(free, normalisation=0.1),))

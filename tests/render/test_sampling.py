"""Fields at points: grids and planes of free Gaussians against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import GaussianField, LatticeField, lattice_values
from gsvr.model.geometry import pose_about
from gsvr.model.point_spread import PointSpread, point_spread
from gsvr.render.sampling import plane_slices, sample_grid, sample_slices
from tests.acquisitions import random_amplitudes, random_field, small_lattice, small_slices
from tests.oracle import field_values

# float32, and Gaussians cut off at 5 standard deviations: 4e-6 of each peak
TOLERANCE = 3e-5
DELTA = 0.1
NORMALISATIONS = pytest.mark.parametrize("normalisation", [None, DELTA])


def field_of(normalisation: float | None) -> GaussianField:
    slices, poses = small_slices()
    return random_field(slices, poses, normalisation=normalisation)


def assert_close(got: np.ndarray, want: np.ndarray, normalisation: float | None) -> None:
    """An error of the sums, over a density that is at least delta."""
    assert got.dtype == np.float32
    assert np.abs(want).max() > 0.5
    assert np.abs(got - want).max() < TOLERANCE * np.abs(want).max() / (normalisation or 1)


@NORMALISATIONS
def test_a_grid_holds_the_field_at_its_points(normalisation: float | None):
    field = field_of(normalisation)
    # more planes than are sampled at once, and another step along every axis
    axes = (np.linspace(-12, 12, 70), np.linspace(-9, 10, 13), np.linspace(-8, 11, 9))
    expected = field_values(field, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    assert_close(sample_grid(field, axes), expected, normalisation)


def test_a_grid_may_be_a_single_point():
    field = field_of(None)
    at = field.means[17]
    got = sample_grid(field, (at[:1], at[1:2], at[2:]))
    np.testing.assert_allclose(got, field_values(field, at).reshape(1, 1, 1), atol=TOLERANCE)


def test_a_normalised_field_is_an_average_and_fades_to_nothing():
    field = field_of(DELTA)
    low, high = field.amplitudes.min(), field.amplitudes.max()
    axis = np.linspace(-12, 12, 9)
    values = sample_grid(field, (axis, axis, axis))
    assert np.all((values > low) & (values < high))
    assert not np.any(sample_grid(field, (axis + 300, axis, axis)))


def test_a_lattice_and_its_free_form_are_one_field():
    lattice = small_lattice()
    field = LatticeField(lattice, random_amplitudes(lattice))
    axes = (np.linspace(-9, 9, 5), np.linspace(-8, 7, 6), np.linspace(-3, 9, 4))
    np.testing.assert_allclose(sample_grid(field.to_gaussians(), axes), lattice_values(field, axes), atol=TOLERANCE)


def turned_planes(n: int = 3):
    rng = np.random.default_rng(2)
    frames = pose_about(rng.normal(size=(n, 3)), 2 * rng.normal(size=(n, 3)) - [5, 4, 0], np.zeros((n, 3)))
    return plane_slices(frames, np.tile([11, 8], (n, 1)), (1.1, 0.9))


@NORMALISATIONS
def test_planes_hold_the_field_at_their_pixels(normalisation: float | None):
    field, planes = field_of(normalisation), turned_planes()
    got = sample_slices(field, planes, PointSpread.points(planes.n_slices))
    assert_close(got, field_values(field, planes.pixel_positions()), normalisation)


def test_a_thick_plane_of_an_additive_field_is_the_average_through_it():
    field, planes = field_of(None), turned_planes()
    n = planes.n_slices
    through = point_spread(np.ones((n, 2)), np.full(n, 3.0), "slab")
    spread = PointSpread.through_plane(
        np.zeros((n, 2)), through.weights, through.offsets[:, :, 2], through.covariances[:, :, 2, 2]
    )
    got = sample_slices(field, planes, spread)
    normals = planes.per_pixel(np.arange(n))
    depths = 0.2 * np.arange(-25, 26)
    profile = sum(
        weight * np.exp(-0.5 * (depths - offset) ** 2 / variance) / np.sqrt(variance)
        for weight, offset, variance in zip(
            spread.weights, spread.offsets[0, :, 2], spread.covariances[0, :, 2, 2], strict=True
        )
    )
    points = planes.pixel_positions()[:, None] + depths[:, None] * planes.frames[normals, :3, 2][:, None]
    assert_close(got, field_values(field, points) @ profile / np.sum(profile), None)
    assert np.abs(got - sample_slices(field, planes, PointSpread.points(n))).max() > 0.05


def test_planes_are_slices_that_stand_in_volume_world():
    planes = turned_planes()
    assert planes.n_slices == 3
    assert len(planes.values) == 3 * 88
    np.testing.assert_allclose(planes.pixel_positions()[88], planes.frames[1, :3, 3], atol=1e-12)
    np.testing.assert_allclose(planes.pixel_positions()[96], (planes.frames[1] @ [1.1, 0, 0, 1])[:3])

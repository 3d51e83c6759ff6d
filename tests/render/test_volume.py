"""Fields as voxel volumes: where the voxels are, what they hold, and what the mask does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.model.fields import GaussianField, Lattice, LatticeField, lattice_values
from gsvr.model.volume import Volume
from gsvr.render.volume import check_voxel_size, render_deviation, render_volume
from tests.acquisitions import random_amplitudes, small_lattice
from tests.oracle import field_values

MIDDLE = np.array([40.0, -20.0, 10.0])


@pytest.fixture
def field() -> LatticeField:
    """Gaussians around a place away from the world's origin."""
    lattice = small_lattice()
    lattice = replace(lattice, origin=lattice.origin + MIDDLE)
    return LatticeField(lattice, random_amplitudes(lattice))


def ball(radius: float) -> Volume:
    """Mask of 2 mm voxels around the middle of the field."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = MIDDLE - 20
    index = np.moveaxis(np.indices((21, 21, 21)), 0, -1) * 2.0 - 20
    mask = np.linalg.norm(index, axis=-1) <= radius
    return Volume(mask.astype(np.float32), affine, mask)


@pytest.mark.parametrize("spacing", [0.5, 1.3, 3.0])
def test_voxels_hold_the_field_at_their_centres(field: LatticeField, spacing: float):
    volume = render_volume(field, spacing)
    np.testing.assert_allclose(volume.affine[:3, :3], spacing * np.eye(3))
    assert volume.mask is None
    axes = [volume.affine[k, 3] + spacing * np.arange(n) for k, n in enumerate(volume.data.shape)]
    np.testing.assert_allclose(volume.data, lattice_values(field, (axes[0], axes[1], axes[2])), atol=1e-6)


def test_the_whole_field_is_on_the_grid(field: LatticeField):
    volume = render_volume(field, 1.0)
    means = field.to_gaussians().means
    corner = volume.affine[:3, 3] + np.array(volume.data.shape) - 1
    assert np.all(volume.affine[:3, 3] <= means.min(axis=0))
    assert np.all(corner >= means.max(axis=0))


def test_grids_of_one_spacing_coincide(field: LatticeField):
    moved = replace(field, lattice=replace(field.lattice, origin=field.lattice.origin + 0.37))
    for volume in (render_volume(field, 0.8), render_volume(moved, 0.8), render_volume(field, 0.8, ball(6.0))):
        steps = volume.affine[:3, 3] / 0.8
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)


def test_mask_crops_and_clears_beyond_the_margin(field: LatticeField):
    volume = render_volume(field, 1.0, ball(4.0), margin=2.0)
    assert volume.mask is not None
    from_middle = np.linalg.norm(volume.voxel_positions() - MIDDLE, axis=1).reshape(volume.data.shape)
    everything = render_volume(field, 1.0)
    assert volume.data.size < everything.data.size
    assert np.all(volume.mask[from_middle < 2.5])
    assert not np.any(volume.mask[from_middle > 5.5])
    assert np.all(volume.data[from_middle > 7.5] == 0)
    near = from_middle < 4.5
    axes = [volume.affine[k, 3] + np.arange(n) for k, n in enumerate(volume.data.shape)]
    np.testing.assert_allclose(volume.data[near], lattice_values(field, (axes[0], axes[1], axes[2]))[near], atol=1e-6)


@pytest.mark.parametrize("spacing", [0.7, 1.6])
def test_the_margin_is_in_mm_at_any_spacing(field: LatticeField, spacing: float):
    volume = render_volume(field, spacing, ball(3.0), margin=3.0)
    assert volume.mask is not None
    to_mask = np.asarray(ndimage.distance_transform_edt(~volume.mask, sampling=spacing))
    assert min(to_mask.take([0, -1], axis).min() for axis in range(3)) > 3.0  # nothing is cut off
    x, y, z = (volume.affine[k, 3] + spacing * np.arange(n) for k, n in enumerate(volume.data.shape))
    shown = np.abs(lattice_values(field, (x, y, z))) > 1e-4
    assert np.count_nonzero(shown & (to_mask > 3.0)) > 50
    np.testing.assert_array_equal((volume.data != 0)[shown], (to_mask <= 3.0)[shown])


def test_deviations_are_smoothed_in_mm():
    """The variance of one round Gaussian, smoothed: second moments along three axes of different spacings."""
    lattice = Lattice(MIDDLE, 2.0, 1.5, np.ones((1, 1, 1), bool))
    sample = LatticeField(lattice, np.full((1, 1, 1), 30.0, np.float32))
    spacing = np.array([0.7, 1.0, 1.3])
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = MIDDLE - 14 * spacing.max()
    shape = tuple(np.rint(2 * 14 * spacing.max() / spacing).astype(int) + 1)
    volume = Volume(np.ones(shape, np.float32), affine, np.ones(shape, bool))
    variance = render_deviation([sample, sample], volume, smoothing=2.0).data.astype(np.float64) ** 2
    positions = volume.voxel_positions().reshape(*shape, 3) - MIDDLE
    moments = (variance[..., None] * positions**2).sum(axis=(0, 1, 2)) / variance.sum()
    # that of the square of a Gaussian, and of the smoothing, whose filter ends at four standard deviations
    np.testing.assert_allclose(moments, 1.5**2 / 2 + 2.0**2, rtol=5e-3)
    assert variance.sum() * spacing.prod() == pytest.approx(30.0**2 * (np.pi * 1.5**2) ** 1.5, rel=1e-2)


def test_deviations_are_zero_where_the_volume_is():
    lattice = small_lattice()
    volume = render_volume(LatticeField(lattice, random_amplitudes(lattice)), 1.2)
    volume = replace(volume, data=volume.data * (np.arange(volume.data.shape[0]) > 5)[:, None, None])
    deviation = render_deviation([LatticeField(lattice, random_amplitudes(lattice, 1))], volume)
    np.testing.assert_array_equal(deviation.data != 0, volume.data != 0)
    with pytest.raises(ValueError, match="no samples"):
        render_deviation([], volume)


def test_where_two_fields_differ_by_more_than_samples_it_is_their_difference():
    lattice = small_lattice()
    volume = render_volume(LatticeField(lattice, random_amplitudes(lattice)), 1.2)
    sample, other = (LatticeField(lattice, random_amplitudes(lattice, seed)) for seed in (1, 2))
    of_samples, of_difference = (render_deviation([field], volume).data for field in (sample, other))
    deviation = render_deviation([sample], volume, other)
    np.testing.assert_allclose(deviation.data, np.maximum(of_samples, of_difference), rtol=1e-5)
    assert 0.2 < (of_difference > of_samples).mean() < 0.8


@pytest.mark.parametrize("spacing", [0.5, 1.0, 1.5])
def test_mask_keeps_its_size_at_any_spacing(spacing: float):
    lattice = small_lattice(4.0, 3.0, 24.0)
    field = LatticeField(replace(lattice, origin=lattice.origin + MIDDLE), random_amplitudes(lattice))
    mask, rendered = ball(16.0).mask, render_volume(field, spacing, ball(16.0)).mask
    assert mask is not None
    assert rendered is not None
    assert rendered.sum() * spacing**3 == pytest.approx(mask.sum() * 2.0**3, rel=0.06)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("flipped", [False, True])
def test_mask_may_be_stored_along_other_axes(field: LatticeField, axes: tuple[int, int, int], flipped: bool):
    straight = ball(7.0)
    assert straight.mask is not None
    off_centre = straight.mask & (np.arange(21) < 12)[:, None, None]
    data, columns = off_centre.transpose(axes), straight.affine[:, [*axes, 3]]
    if flipped:
        data = data[::-1]
        columns = columns.copy()
        columns[:, 3] += columns[:, 0] * (data.shape[0] - 1)
        columns[:, 0] *= -1
    expected = render_volume(field, 0.9, Volume(straight.data, straight.affine, off_centre))
    got = render_volume(field, 0.9, Volume(data.astype(np.float32), columns, data))
    assert expected.mask is not None
    assert got.mask is not None
    assert 0 < expected.mask.sum() < expected.mask.size
    np.testing.assert_allclose(got.affine, expected.affine)
    np.testing.assert_array_equal(got.mask, expected.mask)
    np.testing.assert_array_equal(got.data, expected.data)


def test_bad_spacing_and_empty_fields_are_refused(field: LatticeField):
    with pytest.raises(ValueError, match="positive"):
        render_volume(field, 0.0)
    nothing = Lattice(np.zeros(3), 1.0, 1.0, np.zeros((2, 2, 2), bool))
    with pytest.raises(ValueError, match="no Gaussians"):
        render_volume(LatticeField(nothing, np.zeros((2, 2, 2), np.float32)), 1.0)


@pytest.mark.parametrize("spacing", [0.0, -1.0, 0.01, 50.0, np.nan, np.inf])
def test_a_voxel_size_that_cannot_be_meant_is_refused(spacing: float):
    with pytest.raises(InputError, match="output resolution between"):
        check_voxel_size(spacing)


def test_usual_voxel_sizes_are_accepted():
    for spacing in (0.2, 0.5, 0.8, 1.0, 10.0):
        check_voxel_size(spacing)


@pytest.mark.parametrize("normalisation", [None, 0.05])
def test_free_gaussians_are_rendered_as_they_are_defined(normalisation: float | None):
    rng = np.random.default_rng(0)
    field = GaussianField(
        means=rng.normal(scale=3, size=(30, 3)) + MIDDLE,
        log_scales=rng.normal(scale=0.3, size=(30, 3)),
        quaternions=rng.normal(size=(30, 4)),
        amplitudes=rng.normal(size=30).astype(np.float32),
        normalisation=normalisation,
    )
    everything = render_volume(field, 0.9)
    np.testing.assert_allclose(everything.affine[:3, :3], 0.9 * np.eye(3))
    # a normalised field as seen through a Gaussian of FWHM 1.2 voxels
    seen = field if normalisation is None else field.blurred(0.9 * 1.2 / np.sqrt(8 * np.log(2)))
    expected = field_values(seen, everything.voxel_positions()).reshape(everything.data.shape)
    assert np.abs(expected).max() > 0.5
    # float32, and Gaussians cut off at 5 standard deviations: 4e-6 of each peak, over a density of `normalisation`
    assert np.abs(everything.data - expected).max() < 3e-5 / (normalisation or 1)
    masked = render_volume(field, 0.9, ball(4.0), margin=2.0)
    from_middle = np.linalg.norm(masked.voxel_positions() - MIDDLE, axis=1).reshape(masked.data.shape)
    assert np.all(masked.data[from_middle > 7.5] == 0)
    near = from_middle < 4.5
    expected = field_values(seen, masked.voxel_positions()).reshape(masked.data.shape)
    assert np.abs(masked.data - expected)[near].max() < 3e-5 / (normalisation or 1)


def test_a_lattice_and_its_free_form_give_one_volume(field: LatticeField):
    one, other = render_volume(field, 1.1), render_volume(field.to_gaussians(), 1.1)
    np.testing.assert_array_equal(one.affine, other.affine)
    np.testing.assert_allclose(one.data, other.data, atol=2e-5)

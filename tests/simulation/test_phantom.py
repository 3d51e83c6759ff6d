"""The phantom: size, orientation, contrast, smoothness and determinism."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom

phantom_of = cache(brain_phantom)


@pytest.fixture(scope="module")
def phantom() -> Volume:
    return phantom_of(1.0)


def value_at(volume: Volume, x: float, y: float, z: float) -> float:
    index = np.linalg.inv(volume.affine) @ [x, y, z, 1]
    return float(ndimage.map_coordinates(volume.data, index[:3, None], order=1)[0])


def test_brain_has_the_size_of_thirty_weeks(phantom: Volume):
    assert phantom.mask is not None
    positions = phantom.voxel_positions(phantom.mask)
    np.testing.assert_allclose(np.ptp(positions, axis=0), [85, 105, 87], atol=4)
    assert 300e3 < phantom.mask.sum() < 450e3  # mm^3


def test_background_is_zero_and_surrounds_the_brain(phantom: Volume):
    assert phantom.mask is not None
    assert phantom.data.dtype == np.float32
    assert np.all(phantom.data >= 0)
    assert np.all(phantom.data[np.asarray(ndimage.distance_transform_edt(~phantom.mask)) > 6] == 0)
    assert phantom.data[~phantom.mask].max() <= 510  # half the fluid's intensity at the edge
    for axis in range(3):
        faces = np.take(phantom.data, [0, 1, -2, -1], axis=axis)
        assert np.all(faces == 0)


def test_contrast_is_that_of_t2_weighting(phantom: Volume):
    fluid = value_at(phantom, 0, 17, 9.5)  # cavum septi pellucidi
    thalamus = value_at(phantom, 8.5, -5, 3)
    white_matter = value_at(phantom, 19, 14, 14)
    assert thalamus < white_matter < fluid
    assert fluid > 900


def test_left_ventricle_is_larger():
    volume = brain_phantom(spacing=1.0, seed=3)
    y, z = np.meshgrid(np.arange(-40, 30), np.arange(5, 20), indexing="ij")
    areas = {}
    for side in (-1, 1):
        points = np.array([(side * x, *yz) for x in range(4, 24) for yz in zip(y.ravel(), z.ravel(), strict=True)])
        index = np.linalg.inv(volume.affine)[:3] @ np.column_stack([points, np.ones(len(points))]).T
        areas[side] = np.count_nonzero(ndimage.map_coordinates(volume.data, index, order=1) > 850)
    assert areas[-1] > 1.3 * areas[1]


def test_cortex_is_a_thin_ribbon(phantom: Volume):
    # Two banks of a sulcus are 4 mm of cortex; nothing laterally is dark over more than that.
    dark = (phantom.data > 250) & (phantom.data < 500)
    lateral = np.abs(phantom.voxel_positions()[:, 0]).reshape(dark.shape) > 30
    ribbon = dark & lateral
    assert ribbon.sum() > 5000
    assert ndimage.binary_opening(ribbon, np.ones((5, 5, 5))).sum() < 0.02 * ribbon.sum()


def test_edges_are_no_steeper_than_the_grid_can_hold():
    # A step would change by the whole contrast from one voxel to the next.
    for spacing in (1.0, 2.0):
        data = phantom_of(spacing).data
        steepest = max(float(np.abs(np.diff(data, axis=axis)).max()) for axis in range(3))
        assert steepest < 650


def test_anatomy_does_not_depend_on_spacing():
    fine, coarse = phantom_of(1.0), phantom_of(2.0)
    index = np.linalg.inv(fine.affine)[:3] @ np.column_stack([coarse.voxel_positions(), np.ones(coarse.data.size)]).T
    smooth = ndimage.gaussian_filter(fine.data, 1.0)
    resampled = ndimage.map_coordinates(smooth, index, order=1)
    assert np.corrcoef(resampled, coarse.data.ravel())[0, 1] > 0.98


def test_seed_decides_the_folds():
    first, again, other = brain_phantom(2.0, 4), brain_phantom(2.0, 4), brain_phantom(2.0, 5)
    np.testing.assert_array_equal(first.data, again.data)
    assert np.abs(first.data - other.data).max() > 300


def test_spacing_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        brain_phantom(0.0)

"""Where the voxels of a volume are: all of them, their outline, their centre of mass."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.geometry import pose_about
from gsvr.model.volume import Volume


@pytest.fixture
def volume() -> Volume:
    """Voxels of unequal sides on turned axes, some of them inside."""
    rng = np.random.default_rng(0)
    affine = pose_about(np.array([0.3, -0.8, 0.4]), np.array([5.0, -7, 2]), np.zeros(3)) @ np.diag([1.0, 2, 3, 1])
    return Volume(rng.random((7, 9, 8), dtype=np.float32), affine, rng.random((7, 9, 8)) < 0.2)


def test_nothing_inside_lies_beyond_the_outline(volume: Volume):
    assert volume.mask is not None
    inside, outline = volume.voxel_positions(volume.mask), volume.outline(volume.mask)
    assert len(outline) < len(inside) + 2 * 7 * 9
    for direction in np.random.default_rng(1).normal(size=(200, 3)):
        assert (outline @ direction).max() == pytest.approx((inside @ direction).max(), abs=1e-12)


def test_the_centre_is_the_mean_of_the_positions(volume: Volume):
    assert volume.mask is not None
    positions = volume.voxel_positions(volume.mask)
    np.testing.assert_allclose(volume.centre(volume.mask), positions.mean(axis=0), atol=1e-12)
    weights = volume.data.astype(np.float64)
    wanted = np.average(positions, axis=0, weights=weights[volume.mask])
    np.testing.assert_allclose(volume.centre(volume.mask, weights), wanted, atol=1e-12)

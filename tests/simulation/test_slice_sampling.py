"""Sampling one slice: profiles of stated width, unit gain, and thickness apart from spacing."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.volume import Volume
from gsvr.simulation.slice_sampling import SliceSampler, sample_mask, through_plane_profile

STACK_AFFINE = np.array([[0, 0, 4.0, -10], [1.5, 0, 0, -9], [0, 1.5, 0, -9], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def volume() -> Volume:
    """Smooth blobs of 1 mm voxels, the origin of the world in the middle."""
    rng = np.random.default_rng(0)
    affine = np.eye(4)
    affine[:3, 3] = -16.0
    return Volume(rng.uniform(0, 100, (33, 33, 33)).astype(np.float32), affine)


@pytest.mark.parametrize(("profile", "variance"), [("slab", 3.0**2 / 12 + 0.3**2), ("gaussian", (3.0 / 2.3548) ** 2)])
def test_profiles_have_their_width(profile: str, variance: float):
    offsets, weights = through_plane_profile(3.0, profile, 0.5)
    assert len(offsets) >= 12
    assert weights.sum() == pytest.approx(1.0)
    assert weights @ offsets == pytest.approx(0.0, abs=1e-12)
    assert weights @ offsets**2 == pytest.approx(variance, rel=0.01)


def test_slab_is_flat_and_ends_at_its_thickness():
    offsets, weights = through_plane_profile(4.0, "slab", 0.1)
    height = weights / weights.max()
    assert np.all(height[np.abs(offsets) < 1.0] > 0.99)
    assert np.interp(2.0, offsets, height) == pytest.approx(0.5, abs=0.02)
    assert np.all(height[np.abs(offsets) > 3.0] < 0.01)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_constant_volume_gives_a_constant_slice(profile: str):
    affine = np.eye(4)
    affine[:3, 3] = -20.0
    constant = Volume(np.full((41, 41, 41), 7.0, dtype=np.float32), affine)
    image = SliceSampler(constant, 1.5, 3.0, profile).sample(STACK_AFFINE, (13, 13), 2, np.eye(4))
    np.testing.assert_allclose(image[3:-3, 3:-3], 7.0, rtol=2e-3)


def test_thickness_not_spacing_shapes_a_slice(volume: Volume):
    sampler = SliceSampler(volume, 1.5, 3.0, "slab")
    wide = STACK_AFFINE.copy()
    wide[:, 2] *= 2
    image = sampler.sample(STACK_AFFINE, (13, 13), 4, np.eye(4))
    np.testing.assert_allclose(sampler.sample(wide, (13, 13), 2, np.eye(4)), image, rtol=1e-5)
    thick = SliceSampler(volume, 1.5, 6.0, "slab").sample(STACK_AFFINE, (13, 13), 4, np.eye(4))
    assert thick.std() < 0.85 * image.std()


def test_a_pose_moves_the_slice_as_an_affine_does(volume: Volume):
    sampler = SliceSampler(volume, 1.5, 3.0, "slab")
    pose = np.array([[0.8, -0.6, 0, 1], [0.6, 0.8, 0, 2], [0, 0, 1, -3], [0, 0, 0, 1.0]])
    moved = sampler.sample(STACK_AFFINE, (13, 13), 2, pose)
    np.testing.assert_allclose(sampler.sample(pose @ STACK_AFFINE, (13, 13), 2, np.eye(4)), moved, rtol=1e-5)


def test_far_away_there_is_nothing(volume: Volume):
    pose = np.eye(4)
    pose[0, 3] = 100.0
    assert np.all(SliceSampler(volume, 1.5, 3.0, "slab").sample(STACK_AFFINE, (13, 13), 2, pose) == 0)


def test_mask_is_seen_from_any_of_the_planes():
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[2, 3, 4] = True
    seen = sample_mask(mask, np.eye(4), (5, 5), np.array([0.0, 4.0]))
    assert np.argwhere(seen).tolist() == [[2, 3]]
    assert not sample_mask(mask, np.eye(4), (5, 5), np.array([0.0, 3.0])).any()


def test_unknown_profile_is_refused():
    with pytest.raises(ValueError, match="round"):
        through_plane_profile(3.0, "round", 0.5)

"""Gaussians at pixels with steep gradients (Dannecker et al., eq. 6)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.geometry import identity_poses, pose_about, transform_points
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks
from gsvr.solver.pixel_seeding import seed_at_pixels, seeding_probabilities
from tests.solver.oblique import oblique_slices


def step_slices() -> Slices:
    """One slice of 10 x 8 pixels of 2 x 1 mm, dark and bright halves, with a mask that is not a rectangle."""
    data = np.zeros((10, 8, 1), np.float32)
    data[5:] = 6.0
    mask = np.ones((10, 8, 1), bool)
    mask[:3, 4:] = False
    stack = Stack("step", data, np.diag([2.0, 1.0, 3.0, 1.0]), 3.0, mask, interleaved_times(1))
    return slices_from_stacks([stack], [mask])


def test_probabilities_follow_the_gradient():
    slices = step_slices()
    # a step of 6 over 2 mm: central differences see 1.5 per mm on both sides of it, and nothing elsewhere
    expected = np.zeros((10, 8))
    expected[4:6] = 1 / 16
    np.testing.assert_allclose(seeding_probabilities(slices, 0.0), expected.ravel()[slices.mask])


def test_part_of_the_probability_is_uniform():
    slices = step_slices()
    mixed = seeding_probabilities(slices, 0.25)
    steep = seeding_probabilities(slices, 0.0)
    np.testing.assert_allclose(mixed, 0.75 * steep + 0.25 / slices.n_pixels)
    np.testing.assert_allclose(seeding_probabilities(slices, 1.0), 1 / slices.n_pixels)


def test_flat_slices_are_seeded_evenly():
    slices = replace(step_slices(), values=np.ones(80, np.float32))
    np.testing.assert_allclose(seeding_probabilities(slices, 0.0), 1 / slices.n_pixels)


def test_each_gaussian_has_the_place_and_the_intensity_of_one_pixel_in_the_mask():
    slices, poses = oblique_slices()
    field = seed_at_pixels(slices, poses, 60, 1.6, seed=2)
    owner = slices.per_pixel(np.arange(slices.n_slices))
    placed = transform_points(poses[owner], slices.pixel_positions())
    distance = np.linalg.norm(field.means[:, None] - placed, axis=2)
    pixel = distance.argmin(axis=1)
    assert distance.min(axis=1).max() < 1e-5
    assert slices.mask[pixel].all()
    assert not slices.mask.all()
    np.testing.assert_array_equal(field.amplitudes, slices.values[pixel])
    assert len(set(pixel)) == 60
    np.testing.assert_allclose(np.exp(field.log_scales), 1.6, rtol=1e-6)


def test_no_more_gaussians_than_pixels_to_put_them():
    slices = step_slices()
    assert seed_at_pixels(slices, identity_poses(1), 50, 1.6).n_gaussians == 16


def test_seeding_moves_with_the_slices():
    slices = step_slices()
    pose = pose_about(np.array([[0.3, 0.1, -0.2]]), np.array([[4.0, 0.0, 1.0]]), slices.centres)
    here, there = (seed_at_pixels(slices, poses, 10, 1.6) for poses in (identity_poses(1), pose))
    np.testing.assert_allclose(there.means, transform_points(pose[0], here.means), atol=1e-5)


def test_without_pixels_there_is_nowhere_to_start():
    slices = step_slices()
    with pytest.raises(ValueError, match="nowhere"):
        seed_at_pixels(slices.with_mask(np.zeros(80, bool)), identity_poses(1), 10, 1.6)

"""Alignment finds a known motion of an analytic volume that is never interpolated to make the test."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from gsvr.evaluation.registration import register_rigid
from gsvr.model.geometry import invert, pose_about, rotation_from_vector, transform_points
from gsvr.model.volume import Volume

# The largest error (mm) of any point of the mask that counts as precise.
PRECISE = 0.02


def blobs(points: np.ndarray) -> np.ndarray:
    """Thirty Gaussian blobs in a ball of 30 mm: no symmetry, no edges."""
    rng = np.random.default_rng(3)
    centres = rng.uniform(-18, 18, (30, 3)) + np.array([4, -3, 2])
    sigmas, heights = rng.uniform(2.5, 6, 30), rng.uniform(20, 100, 30)
    total = np.zeros(points.shape[:-1])
    for centre, sigma, height in zip(centres, sigmas, heights, strict=True):
        total += height * np.exp(-np.sum((points - centre) ** 2, axis=-1) / (2 * sigma**2))
    return total


def grid(affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


@functools.cache
def fixed_volume() -> Volume:
    """The blobs on an oblique grid with voxels of three sizes."""
    shape = (57, 46, 38)
    affine = np.eye(4)
    affine[:3, :3] = rotation_from_vector(np.array([0.5, -0.7, 0.9])) * [1.3, 1.6, 1.9]
    affine[:3, 3] = [4, -3, 2] - affine[:3, :3] @ (np.array(shape) - 1) / 2
    points = grid(affine, shape)
    mask = np.linalg.norm(points - [4, -3, 2], axis=-1) < 27
    return Volume(blobs(points).astype(np.float32), affine, mask)


def moving_volume(pose: np.ndarray) -> Volume:
    """The blobs in a world from which `pose` leads to theirs, on a flipped, permuted, anisotropic grid."""
    affine = np.array([[0, 0, 1.6, -50], [-1.3, 0, 0, 50], [0, -1.5, 0, 50], [0, 0, 0, 1]])
    return Volume(blobs(transform_points(pose, grid(affine, (77, 67, 63)))).astype(np.float32), affine)


def largest_error(estimated: np.ndarray, true: np.ndarray, volume: Volume) -> float:
    points = transform_points(invert(true), volume.voxel_positions(volume.mask))
    distance = transform_points(estimated, points) - transform_points(true, points)
    return float(np.linalg.norm(distance, axis=1).max())


def random_pose(degrees: float, millimetres: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    axis, direction = rng.standard_normal((2, 3))
    vector = np.radians(degrees) * axis / np.linalg.norm(axis)
    return pose_about(vector, millimetres * direction / np.linalg.norm(direction), np.array([4.0, -3.0, 2.0]))


@pytest.mark.parametrize(("degrees", "millimetres"), [(0, 0), (3, 2), (12, 12), (20, 15)])
@pytest.mark.parametrize("seed", [0, 1])
def test_known_motion_is_recovered(degrees: float, millimetres: float, seed: int):
    fixed = fixed_volume()
    assert fixed.mask is not None
    true = random_pose(degrees, millimetres, seed)
    found = register_rigid(moving_volume(true), fixed, fixed.mask)
    assert largest_error(found.pose, true, fixed) < PRECISE
    assert found.ncc > 0.9999


def test_gain_and_offset_change_nothing():
    fixed = fixed_volume()
    assert fixed.mask is not None
    moving = moving_volume(random_pose(10, 8, 5))
    scaled = Volume(0.01 * moving.data + 3, moving.affine)
    first = register_rigid(moving, fixed, fixed.mask)
    second = register_rigid(scaled, fixed, fixed.mask)
    assert largest_error(second.pose, first.pose, fixed) < 1e-3


def test_noise_costs_little():
    fixed = fixed_volume()
    assert fixed.mask is not None
    true = random_pose(12, 12, 7)
    moving = moving_volume(true)
    noise = 0.1 * np.ptp(moving.data) * np.random.default_rng(0).standard_normal(moving.data.shape)
    found = register_rigid(Volume((moving.data + noise).astype(np.float32), moving.affine), fixed, fixed.mask)
    assert largest_error(found.pose, true, fixed) < 0.15


def test_what_lies_outside_the_mask_does_not_pull():
    fixed = fixed_volume()
    assert fixed.mask is not None
    # Bright tissue beside the anatomy that only the fixed volume shows.
    beside = ~fixed.mask & (np.indices(fixed.data.shape)[0] > 30)
    bright = np.where(beside, fixed.data.max(), fixed.data).astype(np.float32)
    true = random_pose(8, 6, 9)
    found = register_rigid(moving_volume(true), Volume(bright, fixed.affine), fixed.mask)
    assert largest_error(found.pose, true, fixed) < PRECISE


def test_a_mask_of_another_shape_is_refused():
    fixed = fixed_volume()
    with pytest.raises(ValueError, match="shape"):
        register_rigid(fixed, fixed, np.ones((3, 3, 3), dtype=bool))


def test_no_contrast_is_refused():
    flat = Volume(np.ones((9, 9, 9), dtype=np.float32), np.eye(4))
    with pytest.raises(ValueError, match="contrast"):
        register_rigid(fixed_volume(), flat, np.ones((9, 9, 9), dtype=bool))

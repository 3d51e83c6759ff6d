"""Motion of stated severity, drawn in the order of acquisition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gsvr.model.geometry import transform_points, vector_from_rotation
from gsvr.model.slices import interleaved_times
from gsvr.simulation.motion import MOTION_LEVELS, draw_poses, mean_displacement

COUNTS = (30, 34, 28, 30, 34, 28)
TIMES = [interleaved_times(count) for count in COUNTS]


@pytest.fixture(scope="module")
def brain() -> np.ndarray:
    """Voxels of an ellipsoid of the size of a brain of 30 weeks, away from the origin (mm)."""
    points = np.random.default_rng(0).uniform(-1, 1, (6000, 3))
    return points[np.linalg.norm(points, axis=1) < 1] * [41, 51, 42] + [10, -20, 30]


@pytest.mark.parametrize(("motion", "expected"), [("none", 0.0), ("mild", 1.5), ("moderate", 3.9), ("severe", 8.0)])
def test_mean_displacement_is_that_of_the_level(brain: np.ndarray, motion: str, expected: float):
    for seed in range(5):
        poses = np.concatenate(draw_poses(motion, TIMES, brain, np.random.default_rng(seed)))
        distances = [np.linalg.norm(transform_points(pose, brain) - brain, axis=1).mean() for pose in poses]
        assert np.mean(distances) == pytest.approx(expected, rel=0.02)


def test_uniform_motion_has_its_ranges(brain: np.ndarray):
    poses = np.concatenate(draw_poses("uniform", TIMES, brain, np.random.default_rng(0)))
    translation = transform_points(poses, brain.mean(axis=0)) - brain.mean(axis=0)
    angles = Rotation.from_matrix(poses[:, :3, :3]).as_euler("xyz", degrees=True)
    for values, limit in ((translation, 4.0), (angles, 6.0)):
        assert np.abs(values).max() <= limit + 1e-9
        assert np.abs(values).max() > 0.95 * limit
        np.testing.assert_allclose(values.std(axis=0), limit / np.sqrt(3), rtol=0.15)
    stated = MOTION_LEVELS["uniform"].mean_displacement
    assert mean_displacement([poses], brain) == pytest.approx(stated, rel=0.1)


def test_rotations_and_translations_both_matter(brain: np.ndarray):
    poses = np.concatenate(draw_poses("severe", TIMES, brain, np.random.default_rng(1)))
    rotation = vector_from_rotation(poses[:, :3, :3])
    translation = transform_points(poses, brain.mean(axis=0)) - brain.mean(axis=0)
    assert 3 < np.degrees(np.linalg.norm(rotation, axis=1)).mean() < 20
    assert 2 < np.linalg.norm(translation, axis=1).mean() < 8


def test_motion_is_smooth_in_the_order_of_acquisition(brain: np.ndarray):
    # Typical step between slices, in the order of acquisition and in the order of place.
    in_time, in_place = [], []
    for seed in range(10):
        for poses, times in zip(draw_poses("moderate", TIMES, brain, np.random.default_rng(seed)), TIMES, strict=True):
            moved = transform_points(poses, brain[:1])
            in_time.append(np.median(np.linalg.norm(np.diff(moved[np.argsort(times)], axis=0), axis=1)))
            in_place.append(np.median(np.linalg.norm(np.diff(moved, axis=0), axis=1)))
    assert np.mean(in_time) < 0.6 * np.mean(in_place)
    assert np.mean(in_time) < 0.25 * MOTION_LEVELS["moderate"].mean_displacement


def test_every_stack_moves_within_itself(brain: np.ndarray):
    for poses in draw_poses("moderate", TIMES, brain, np.random.default_rng(3)):
        moved = transform_points(poses, brain.mean(axis=0))
        assert np.ptp(moved, axis=0).max() > 0.5

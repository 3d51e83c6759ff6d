"""Pose errors: blind to a motion of the whole volume, honest about slices, not bent by outliers."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.evaluation import pose_errors
from gsvr.model.geometry import identity_poses, pose_about, transform_points

N_SLICES = 40


def random_poses(rng: np.random.Generator, radians: float, millimetres: float) -> np.ndarray:
    vectors, translations = rng.standard_normal((2, N_SLICES, 3))
    return pose_about(radians * vectors, millimetres * translations, np.zeros((N_SLICES, 3)))


def slices(seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """True poses, and points of parallel discs of different sizes."""
    rng = np.random.default_rng(seed)
    true = random_poses(rng, np.radians(5), 3.0)
    points = []
    for number in range(N_SLICES):
        height = 3.0 * (number - N_SLICES / 2)
        disc = rng.uniform(-30, 30, (int(rng.integers(20, 200)), 3)) * [1, 1, 0]
        points.append(disc + np.array([5, -4, height]))
    return true, points


def global_motion() -> np.ndarray:
    return pose_about(np.array([0.5, -0.8, 0.3]), np.array([30.0, -12.0, 7.0]), np.array([10.0, 0.0, 0.0]))


def test_true_poses_have_no_error():
    true, points = slices()
    errors = pose_errors(true, true, points)
    assert errors.per_slice.shape == (N_SLICES,)
    assert errors.per_slice.max() < 1e-9
    np.testing.assert_allclose(errors.global_rigid, np.eye(4), atol=1e-9)


def test_a_motion_of_the_volume_is_free():
    true, points = slices()
    errors = pose_errors(global_motion() @ true, true, points)
    assert errors.per_slice.max() < 1e-6
    np.testing.assert_allclose(errors.global_rigid @ global_motion(), np.eye(4), atol=1e-6)


def test_errors_do_not_depend_on_a_motion_of_the_volume():
    true, points = slices()
    rng = np.random.default_rng(1)
    off = random_poses(rng, 0.02, 0.5)
    first = pose_errors(true @ off, true, points)
    second = pose_errors(global_motion() @ true @ off, true, points)
    np.testing.assert_allclose(second.per_slice, first.per_slice, atol=1e-5)
    # One rigid motion cannot explain forty independent errors: they stay about as large as they were made.
    made = [
        np.linalg.norm(transform_points(pose, group) - group, axis=1).mean()
        for pose, group in zip(off, points, strict=True)
    ]
    assert first.mean == pytest.approx(np.mean(made), rel=0.1)


def test_outliers_have_their_own_error_and_shift_no_other():
    true, points = slices()
    estimated = true.copy()
    lost = np.arange(0, N_SLICES, 4)
    estimated[lost, :3, 3] += [40.0, 0.0, 0.0]
    errors = pose_errors(global_motion() @ estimated, true, points)
    np.testing.assert_allclose(errors.per_slice[lost], 40.0, atol=1e-4)
    assert np.delete(errors.per_slice, lost).max() < 1e-4
    assert errors.median < 1e-4
    assert errors.p90 == pytest.approx(40.0, abs=1e-4)


def test_slices_count_alike_whatever_their_size():
    """Thirty small slices are in place and ten large ones, which have most of the points, are not."""
    rng = np.random.default_rng(6)
    sizes = np.where(np.arange(N_SLICES) % 4 == 0, 64, 8)
    points = [rng.uniform(-30, 30, (size, 3)) * [1, 1, 0] + [0, 0, k] for k, size in enumerate(sizes)]
    true = random_poses(rng, np.radians(5), 3.0)
    estimated = true.copy()
    estimated[sizes == 64, :3, 3] += [3.0, -4.0, 0.0]
    errors = pose_errors(estimated, true, points)
    assert errors.per_slice[sizes == 8].max() < 1e-4
    np.testing.assert_allclose(errors.per_slice[sizes == 64], 5.0, atol=1e-4)


def test_a_translation_counts_in_mm_and_a_rotation_with_its_arm():
    points = [np.array([[30.0, 0, 0], [-30.0, 0, 0]])] * 9
    estimated = identity_poses(9)
    estimated[0, :3, 3] = [0, 0, 2]
    estimated[1] = pose_about(np.array([0, 0, 0.1]), np.zeros(3), np.zeros(3))
    errors = pose_errors(estimated, identity_poses(9), points)
    assert errors.per_slice[0] == pytest.approx(2.0, abs=1e-3)
    assert errors.per_slice[1] == pytest.approx(2 * 30 * np.sin(0.05), abs=1e-3)


def test_summaries_are_those_of_the_slices():
    true, points = slices()
    estimated = true.copy()
    estimated[:, 0, 3] += np.random.default_rng(4).exponential(1.0, N_SLICES)
    errors = pose_errors(estimated, true, points)
    assert errors.mean == pytest.approx(errors.per_slice.mean())
    assert (errors.median, errors.p90, errors.p95) == pytest.approx(
        tuple(np.percentile(errors.per_slice, [50, 90, 95]))
    )


def test_points_may_be_an_array():
    true, _ = slices()
    points = np.random.default_rng(5).uniform(-30, 30, (N_SLICES, 7, 3))
    assert pose_errors(true, true, points).mean < 1e-9


def test_what_cannot_be_measured_is_refused():
    true, points = slices()
    with pytest.raises(ValueError, match="as many"):
        pose_errors(true, true, points[:-1])
    with pytest.raises(ValueError, match="no points"):
        pose_errors(true, true, [*points[:-1], np.empty((0, 3))])
    with pytest.raises(ValueError, match="not none"):
        pose_errors(true[:0], true[:0], [])

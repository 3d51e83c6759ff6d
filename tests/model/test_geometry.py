"""Rigid geometry: laws of the group, conventions by hand, and fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from gsvr.model.geometry import (
    identity_poses,
    invert,
    nearest_rotation,
    parts_about,
    pose_about,
    pose_from_parts,
    quaternion_from_rotation,
    quaternion_gradient,
    rotation_from_quaternion,
    rotation_from_vector,
    transform_points,
    vector_from_rotation,
)

QUARTER_TURN_Z = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])

# each component below 1.8: the angle stays below pi, where a rotation has one vector
vectors = arrays(np.float64, 3, elements=st.floats(-1.8, 1.8))
points = arrays(np.float64, 3, elements=st.floats(-200, 200))


def random_poses(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return pose_from_parts(rotation_from_vector(rng.normal(size=(n, 3))), rng.normal(scale=30, size=(n, 3)))


@given(vectors)
def test_rotations_are_those_of_scipy(vector: np.ndarray):
    rotation = Rotation.from_rotvec(vector)
    np.testing.assert_allclose(rotation_from_vector(vector), rotation.as_matrix(), atol=1e-14)
    quaternion = rotation.as_quat(scalar_first=True)
    np.testing.assert_allclose(rotation_from_quaternion(-3 * quaternion), rotation.as_matrix(), atol=1e-14)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-6, 1e-3, 1.0, 3.0, np.pi - 1e-9, np.pi])
def test_vectors_of_rotations_by_any_angle(angle: float):
    axis = np.array([2.0, -1, 2]) / 3
    vector = vector_from_rotation(Rotation.from_rotvec(angle * axis).as_matrix())
    turned = vector if vector @ axis >= 0 else -vector  # by half a turn both are right
    np.testing.assert_allclose(turned, angle * axis, rtol=1e-7, atol=1e-15)


def test_rotations_turn_counterclockwise_about_their_axis():
    np.testing.assert_allclose(rotation_from_vector(np.array([0, 0, np.pi / 2])), QUARTER_TURN_Z, atol=1e-15)
    quaternion = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])  # w first
    np.testing.assert_allclose(rotation_from_quaternion(quaternion), QUARTER_TURN_Z, atol=1e-15)


@given(vectors)
def test_vector_and_matrix_round_trip(vector: np.ndarray):
    rotation = rotation_from_vector(vector)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation_from_vector(vector_from_rotation(rotation)), rotation, atol=1e-9)
    if np.linalg.norm(vector) < 3.1:
        np.testing.assert_allclose(vector_from_rotation(rotation), vector, atol=1e-7)


@given(vectors)
def test_quaternion_and_matrix_round_trip(vector: np.ndarray):
    rotation = rotation_from_vector(vector)
    quaternion = quaternion_from_rotation(rotation)
    assert quaternion[0] >= 0
    assert np.linalg.norm(quaternion) == pytest.approx(1)
    np.testing.assert_allclose(rotation_from_quaternion(quaternion), rotation, atol=1e-12)
    np.testing.assert_allclose(rotation_from_quaternion(-3 * quaternion), rotation, atol=1e-12)


@given(vectors, points, points)
def test_pose_about_a_centre(vector: np.ndarray, translation: np.ndarray, centre: np.ndarray):
    pose = pose_about(vector, translation, centre)
    np.testing.assert_allclose(transform_points(pose, centre), centre + translation, atol=1e-9)
    back = parts_about(pose, centre)
    np.testing.assert_allclose(pose_about(*back, centre), pose, atol=1e-9)
    np.testing.assert_allclose(back[1], translation, atol=1e-9)


@given(vectors, points, points)
def test_inverse_undoes(vector: np.ndarray, translation: np.ndarray, point: np.ndarray):
    pose = pose_about(vector, translation, np.zeros(3))
    np.testing.assert_allclose(transform_points(invert(pose), transform_points(pose, point)), point, atol=1e-9)
    np.testing.assert_allclose(invert(pose) @ pose, np.eye(4), atol=1e-9)


def test_composition_is_the_matrix_product():
    first, second = random_poses(2)
    at = np.array([3.0, -2.0, 7.0])
    np.testing.assert_allclose(
        transform_points(second @ first, at), transform_points(second, transform_points(first, at))
    )


def test_leading_axes_broadcast():
    poses, at = random_poses(4), np.random.default_rng(1).normal(size=(4, 5, 3))
    together = transform_points(poses[:, None], at)
    assert together.shape == (4, 5, 3)
    np.testing.assert_allclose(together[2, 3], poses[2, :3, :3] @ at[2, 3] + poses[2, :3, 3])
    np.testing.assert_array_equal(identity_poses(3)[1], np.eye(4))


def test_nearest_rotation_repairs_and_never_mirrors():
    rotation = rotation_from_vector(np.array([0.3, -1.0, 0.5]))
    np.testing.assert_allclose(nearest_rotation(rotation), rotation, atol=1e-12)
    noisy = rotation + 0.05 * np.random.default_rng(0).normal(size=(3, 3))
    found = nearest_rotation(noisy)
    np.testing.assert_allclose(found @ found.T, np.eye(3), atol=1e-12)
    assert np.linalg.norm(found - noisy) <= np.linalg.norm(rotation - noisy)
    mirrored = nearest_rotation(np.stack([rotation, np.diag([1.0, 1.0, -1.0])]))
    np.testing.assert_allclose(np.linalg.det(mirrored), 1)


def test_quaternion_gradient_is_the_limit_of_differences():
    """For quaternions of any length, by the definition: the sum of the gradient times the rotation."""
    rng = np.random.default_rng(4)
    quaternions, by_rotation, h = rng.normal(size=(6, 4)), rng.normal(size=(6, 3, 3)), 1e-6
    got = quaternion_gradient(quaternions, by_rotation)
    for axis in range(4):
        step = np.zeros(4)
        step[axis] = h
        change = rotation_from_quaternion(quaternions + step) - rotation_from_quaternion(quaternions - step)
        np.testing.assert_allclose(got[:, axis], (by_rotation * change).sum(axis=(1, 2)) / (2 * h), atol=1e-7)
    np.testing.assert_allclose((got * quaternions).sum(axis=1), 0, atol=1e-12)  # the length does not matter

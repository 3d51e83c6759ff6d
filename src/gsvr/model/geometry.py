"""Rigid geometry: rotations, poses and averages. No images, no file formats.

A *pose* is a 4 x 4 float64 matrix that maps acquired world (RAS+, mm) to volume world (RAS+, mm).
Arrays of poses carry leading batch axes; every function below broadcasts over them.
Quaternions are ordered (w, x, y, z) throughout the package.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def rotation_from_vector(vector: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Matrix exponential of rotation vectors in radians (axis times angle)."""
    vector = np.asarray(vector, dtype=np.float64)
    half = 0.5 * np.linalg.norm(vector, axis=-1, keepdims=True)
    # sinc: sin(angle / 2) over the angle, at zero, too
    return rotation_from_quaternion(np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * vector], axis=-1))


def vector_from_rotation(rotation: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3"]:
    """Rotation vectors in radians (axis times angle, angle at most pi) of rotation matrices."""
    quaternion = quaternion_from_rotation(rotation)
    real, axis = quaternion[..., :1], quaternion[..., 1:]
    half = np.arctan2(np.linalg.norm(axis, axis=-1, keepdims=True), real)
    return 2 / np.sinc(half / np.pi) * axis


def rotation_from_quaternion(quaternion: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z); they need not have unit length."""
    quaternion = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quaternion_gradient(
    quaternion: Float[np.ndarray, "n 4"], rotation_gradient: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "n 4"]:
    """Gradient by quaternions (w, x, y, z) of any length, from the gradient by their rotation matrices."""
    length = np.linalg.norm(quaternion, axis=1, keepdims=True)
    unit = quaternion / length
    w, x, y, z = unit.T
    g = np.moveaxis(rotation_gradient, 0, -1)
    by_unit = 2.0 * np.stack(
        [
            x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]),
            w * (g[2, 1] - g[1, 2]) + y * (g[0, 1] + g[1, 0]) + z * (g[0, 2] + g[2, 0]) - 2 * x * (g[1, 1] + g[2, 2]),
            w * (g[0, 2] - g[2, 0]) + x * (g[0, 1] + g[1, 0]) + z * (g[1, 2] + g[2, 1]) - 2 * y * (g[0, 0] + g[2, 2]),
            w * (g[1, 0] - g[0, 1]) + x * (g[0, 2] + g[2, 0]) + y * (g[1, 2] + g[2, 1]) - 2 * z * (g[0, 0] + g[1, 1]),
        ],
        axis=1,
    )
    # the length of a quaternion does not matter, so nothing along it
    return (by_unit - unit * (by_unit * unit).sum(axis=1, keepdims=True)) / length


def quaternion_from_rotation(rotation: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 4"]:
    """Unit quaternions (w, x, y, z) with w >= 0 of rotation matrices."""
    m = np.asarray(rotation, dtype=np.float64).reshape(-1, 3, 3)
    diagonal = np.einsum("nii->ni", m)
    trace = diagonal.sum(axis=1)
    # 4 q_i^2, and 4 q_i q_j for all j: of the four rows of 4 q q^T the one of the largest entry is the most accurate
    squares = np.concatenate([1 + trace[:, None], 1 + 2 * diagonal - trace[:, None]], axis=1)
    largest = squares.argmax(axis=1)
    products = np.empty((len(m), 4, 4))
    products[:, range(4), range(4)] = squares
    for axis, (a, b) in enumerate(((1, 2), (2, 0), (0, 1))):
        products[:, 0, axis + 1] = products[:, axis + 1, 0] = m[:, b, a] - m[:, a, b]
        products[:, a + 1, b + 1] = products[:, b + 1, a + 1] = m[:, a, b] + m[:, b, a]
    quaternion = products[np.arange(len(m)), largest]
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    quaternion *= np.where(quaternion[:, :1] < 0, -1.0, 1.0)
    return quaternion.reshape(*np.shape(rotation)[:-2], 4)


def pose_from_parts(
    rotation: Float[np.ndarray, "*n 3 3"], translation: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*n 4 4"]:
    """Assemble poses x -> rotation x + translation (mm)."""
    pose = np.zeros((*np.shape(rotation)[:-2], 4, 4))
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = translation
    pose[..., 3, 3] = 1.0
    return pose


def identity_poses(n: int) -> Float[np.ndarray, "n 4 4"]:
    """`n` poses that change nothing."""
    return np.tile(np.eye(4), (n, 1, 1))


def pose_about(
    vector: Float[np.ndarray, "*n 3"],
    translation: Float[np.ndarray, "*n 3"],
    centre: Float[np.ndarray, "*n 3"],
) -> Float[np.ndarray, "*n 4 4"]:
    """Rotate by `vector` (rad) about `centre` (mm), then translate (mm)."""
    rotation = rotation_from_vector(vector)
    centre = np.asarray(centre, dtype=np.float64)
    moved = np.einsum("...ij,...j->...i", rotation, centre)
    return pose_from_parts(rotation, centre - moved + translation)


def parts_about(
    pose: Float[np.ndarray, "*n 4 4"], centre: Float[np.ndarray, "*n 3"]
) -> tuple[Float[np.ndarray, "*n 3"], Float[np.ndarray, "*n 3"]]:
    """Rotation vector (rad) and translation (mm) of poses about `centre`: the inverse of `pose_about`."""
    return vector_from_rotation(pose[..., :3, :3]), transform_points(pose, centre) - centre


def invert(pose: Float[np.ndarray, "*n 4 4"]) -> Float[np.ndarray, "*n 4 4"]:
    """Inverse of rigid poses (exact transpose, no linear solve)."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    return pose_from_parts(rotation, -np.einsum("...ij,...j->...i", rotation, pose[..., :3, 3]))


def transform_points(
    matrix: Float[np.ndarray, "*m 4 4"], points: Float[np.ndarray, "*n 3"]
) -> Float[np.ndarray, "*k 3"]:
    """Apply affine 4 x 4 matrices to points; leading axes broadcast."""
    if matrix.ndim == 2:  # one product of two matrices
        return points @ matrix[:3, :3].T + matrix[:3, 3]
    return np.einsum("...ij,...j->...i", matrix[..., :3, :3], points) + matrix[..., :3, 3]


def nearest_rotation(matrix: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 3 3"]:
    """Closest proper rotation in the Frobenius norm (polar decomposition)."""
    left, _, right = np.linalg.svd(matrix)
    sign = np.sign(np.linalg.det(left @ right))
    left = left.copy()
    left[..., :, 2] *= sign[..., None]
    return left @ right

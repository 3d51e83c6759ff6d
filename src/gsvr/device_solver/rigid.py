"""Rigid poses as tensors; `gsvr.model.geometry` says what they mean. Nothing here waits for the device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# Below this angle (rad, squared) the series is exact in float64.
_SMALL = 1e-8


def rotation_from_vector(vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Matrix exponential of rotation vectors in radians."""
    squared = (vector * vector).sum(1)[:, None, None]
    angle = squared.clamp(min=_SMALL).sqrt()
    sine = torch.where(squared < _SMALL, 1 - squared / 6, torch.sin(angle) / angle)
    cosine = torch.where(squared < _SMALL, 0.5 - squared / 24, (1 - torch.cos(angle)) / (angle * angle))
    cross = cross_matrix(vector)
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + sine * cross + cosine * (cross @ cross)


def cross_matrix(vector: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 3"]:
    """Matrices [v] with [v] x = v cross x."""
    x, y, z = vector.unbind(1)
    nothing = torch.zeros_like(x)
    return torch.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], 1).reshape(-1, 3, 3)


def quaternion_from_rotation(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 4"]:
    """Unit quaternions (w, x, y, z) with w >= 0, from the row of their products with the largest diagonal."""
    m = rotation
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    diagonal = torch.stack([trace, m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]], 1)
    x, y, z = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    candidates = torch.stack(
        [
            torch.stack([1 + trace, x, y, z], 1),
            torch.stack([x, 1 + 2 * m[:, 0, 0] - trace, xy, xz], 1),
            torch.stack([y, xy, 1 + 2 * m[:, 1, 1] - trace, yz], 1),
            torch.stack([z, xz, yz, 1 + 2 * m[:, 2, 2] - trace], 1),
        ],
        1,
    )
    best = diagonal.argmax(1)[:, None, None].expand(-1, 1, 4)
    quaternion = candidates.gather(1, best)[:, 0]
    quaternion = quaternion / quaternion.norm(dim=1, keepdim=True)
    return torch.where(quaternion[:, :1] < 0, -quaternion, quaternion)


def vector_from_rotation(rotation: Float[Tensor, "n 3 3"]) -> Float[Tensor, "n 3"]:
    """Rotation vectors (rad, angle at most pi)."""
    quaternion = quaternion_from_rotation(rotation)
    real, axis = quaternion[:, :1], quaternion[:, 1:]
    length = axis.norm(dim=1, keepdim=True)
    factor = torch.where(length < 1e-7, 2 / real.clamp(min=0.5), 2 * torch.atan2(length, real) / length.clamp(min=1e-7))
    return factor * axis


def pose_from_parts(rotation: Float[Tensor, "n 3 3"], translation: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4 4"]:
    """Assemble poses x -> rotation x + translation (mm)."""
    pose = torch.zeros((len(rotation), 4, 4), dtype=rotation.dtype, device=rotation.device)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = translation
    pose[:, 3, 3].fill_(1)
    return pose


def pose_about(
    vector: Float[Tensor, "n 3"], translation: Float[Tensor, "n 3"], centre: Float[Tensor, "n 3"]
) -> Float[Tensor, "n 4 4"]:
    """Rotate by `vector` (rad) about `centre` (mm), then translate (mm)."""
    rotation = rotation_from_vector(vector)
    moved = (rotation @ centre[:, :, None])[:, :, 0]
    return pose_from_parts(rotation, centre - moved + translation)


def invert(pose: Float[Tensor, "n 4 4"]) -> Float[Tensor, "n 4 4"]:
    """Inverse of rigid poses."""
    rotation = pose[:, :3, :3].transpose(1, 2)
    return pose_from_parts(rotation, -(rotation @ pose[:, :3, 3:])[:, :, 0])


def transform_points(pose: Float[Tensor, "n 4 4"], points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Apply one pose to each point."""
    return (pose[:, :3, :3] @ points[:, :, None])[:, :, 0] + pose[:, :3, 3]

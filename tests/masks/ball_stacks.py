"""A ball seen by stacks of unequal voxels, for the tests of masks."""

from __future__ import annotations

import numpy as np

from gsvr.model.geometry import rotation_from_vector, transform_points
from gsvr.model.slices import Stack

CENTRE, RADIUS = np.array([10.0, -5.0, 3.0]), 16.0
TURN = rotation_from_vector(np.array([0.3, -0.2, 0.4]))
AXES = (TURN, TURN[:, [1, 2, 0]], TURN[:, [2, 0, 1]])


def ball_stack(
    number: int,
    noise: float = 0.0,
    background: float = 0.0,
    mask: bool = True,
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0),
) -> Stack:
    """A ball of radius 16 mm, of a texture, in a field of view of 56 mm; the number decides the orientation."""
    shape = np.rint(56 / np.array(spacing)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = AXES[number] * spacing
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (shape - 1) / 2
    points = transform_points(affine, np.moveaxis(np.indices(tuple(shape)), 0, -1).astype(float))
    inside = np.linalg.norm(points - CENTRE, axis=-1) < RADIUS
    rng = np.random.default_rng(number)
    data = np.where(inside, 100 + 20 * np.sin(points.sum(axis=-1) / 4), background)
    data = np.abs(data + noise * rng.normal(size=data.shape))
    times = np.arange(float(shape[2]))
    return Stack(f"stack-{number}", data.astype(np.float32), affine, spacing[2], inside if mask else None, times)


def inside_ball(stack: Stack, radius: float = RADIUS) -> np.ndarray:
    index = np.moveaxis(np.indices(stack.data.shape), 0, -1).astype(float)
    return np.linalg.norm(transform_points(stack.affine, index) - CENTRE, axis=-1) < radius


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())

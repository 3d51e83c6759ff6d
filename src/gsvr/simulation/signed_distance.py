"""Signed distances to simple shapes (mm, negative inside), and how to join, cut and paint them.

Points are stored as three rows, x, y and z (mm). Distances are exact for capsules and exact to first order
at the surface for ellipsoids; joined shapes keep that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32

Points = Float32[np.ndarray, "3 n"]
Distance = Float32[np.ndarray, " n"]


def ellipsoid(
    points: Points, centre: Sequence[float | int], radii: Sequence[float | int], power: float = 2.0
) -> Distance:
    """Distance to an ellipsoid along the axes; a `power` above two makes it boxier."""
    radius = np.array(radii, dtype=np.float32)[:, None]
    scaled = np.abs(points - np.array(centre, dtype=np.float32)[:, None]) / radius + np.float32(1e-6)
    level = np.sum(scaled**power, axis=0) ** (1 / power)
    slope = np.sqrt(np.sum(((scaled / level) ** (power - 1) / radius) ** 2, axis=0))
    return (level - 1) / slope


def capsule(
    points: Points,
    start: Sequence[float | int],
    end: Sequence[float | int],
    radii: tuple[float | int, float | int],
) -> Distance:
    """Distance to a round tube whose radius runs from `radii[0]` at `start` to `radii[1]` at `end`."""
    first, last = np.array(start, dtype=np.float32), np.array(end, dtype=np.float32)
    axis = last - first
    offset = points - first[:, None]
    along = np.clip((axis @ offset) / (axis @ axis), 0, 1)
    distance = np.sqrt(np.sum((offset - axis[:, None] * along) ** 2, axis=0))
    return distance - (radii[0] + along * (radii[1] - radii[0])).astype(np.float32)


def smooth_minimum(first: Distance, second: Distance, width: float) -> Distance:
    """Join two shapes; the seam is rounded over about `width` (mm)."""
    overlap = np.maximum(width - np.abs(first - second), 0) / width
    return np.minimum(first, second) - overlap**2 * (width / 4)


def smooth_maximum(first: Distance, second: Distance, width: float) -> Distance:
    """Intersect two shapes; the edge is rounded over about `width` (mm)."""
    return -smooth_minimum(-first, -second, width)


def inside(distance: Distance, width: float) -> Distance:
    """Share of material: one inside, zero outside, and a smooth step whose length is `width` (mm)."""
    return 0.5 - 0.5 * np.tanh(distance / (2.0 * width))

"""Distances and connected parts of regions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage


def depth(inside: Bool[np.ndarray, "*shape"], spacing: Sequence[float]) -> Float[np.ndarray, "*shape"]:
    """Distance (mm) of the points inside to the nearest one outside; 0 outside."""
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=spacing))


def connected_parts(inside: Bool[np.ndarray, "*shape"]) -> tuple[Int[np.ndarray, "*shape"], int]:
    """Number of the connected part of each point, from 1 (0 outside), and how many there are."""
    labels = np.empty(inside.shape, np.int32)
    return labels, int(ndimage.label(inside, output=labels))  # type: ignore[arg-type]


def nearest_part(
    parts: Int[np.ndarray, "*shape"], spacing: Sequence[float]
) -> tuple[Float[np.ndarray, "*shape"], Int[np.ndarray, "*shape"]]:
    """Distance (mm) of each point to the nearest part, and the number of that part."""
    index = np.empty((parts.ndim, *parts.shape), np.int32)
    away = ndimage.distance_transform_edt(parts == 0, sampling=spacing, return_indices=True, indices=index)
    return np.asarray(away), parts[tuple(index)]

"""Shapes of masks: distance to a mask, and its largest part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage


def distance_to(mask: Bool[np.ndarray, "x y z"], spacing: float | Sequence[float]) -> Float[np.ndarray, "x y z"]:
    """Distance (mm) of every voxel's centre to the nearest voxel inside the mask; zero inside.

    `spacing` is the voxel size (mm). An empty mask is infinitely far away.
    """
    if not mask.any():
        return np.full(mask.shape, np.inf)
    sampling = [float(size) for size in np.broadcast_to(spacing, 3)]
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=sampling))


def within(
    mask: Bool[np.ndarray, "x y z"], distance: float, spacing: float | Sequence[float]
) -> Bool[np.ndarray, "x y z"]:
    """Voxels whose centre lies at most `distance` (mm) from the nearest voxel inside the mask."""
    near = np.zeros_like(mask)
    if not mask.any():
        return near
    # only the neighbourhood of the mask can be near: a brain fills a hundredth of a stack
    reach = np.ceil(distance / np.broadcast_to(spacing, 3)).astype(int) + 1
    box = []
    for axis in range(3):
        lines = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(lines[0]) - reach[axis], 0), int(lines[-1]) + reach[axis] + 1))
    near[tuple(box)] = distance_to(mask[tuple(box)], spacing) <= distance
    return near


def largest_part(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Largest connected part of a mask, holes filled; empty if the mask is."""
    labels = np.empty(mask.shape, dtype=np.int32)
    if not ndimage.label(mask, output=labels):
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=bool)

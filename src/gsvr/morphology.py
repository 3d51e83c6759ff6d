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


def largest_part(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Largest connected part of a mask, holes filled; empty if the mask is."""
    labels = np.empty(mask.shape, dtype=np.int32)
    if not ndimage.label(mask, output=labels):
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=bool)

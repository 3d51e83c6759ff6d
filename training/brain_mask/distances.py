"""Signed distances to the edge of a region of voxels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def distance_to(region: np.ndarray, spacing: float) -> np.ndarray:
    """Distance (mm) of every voxel to the nearest one of ``region``."""
    return np.asarray(ndimage.distance_transform_edt(~region, sampling=spacing))


def signed_distance(region: np.ndarray, spacing: float) -> np.ndarray:
    """Distance (mm) outside of the edge of ``region``, negative inside; float32."""
    distance = distance_to(region, spacing) - distance_to(~region, spacing)
    # half a voxel: the transform measures to the centre of the nearest voxel on the other side
    return (distance - np.sign(distance) * spacing / 2).astype(np.float32)


def grown(region: np.ndarray, radius: float, spacing: float) -> np.ndarray:
    """``region`` grown by ``radius`` mm, or shrunk where that is negative."""
    if radius >= 0:
        return distance_to(region, spacing) <= radius
    return distance_to(~region, spacing) > -radius

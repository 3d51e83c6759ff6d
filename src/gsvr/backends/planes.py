"""Parallel planes of points, such as those of a volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class ParallelPlanes:
    """Planes of points one behind the other, each seen through the same slice profile.

    Attributes
    ----------
    to_planes
        Rigid map from volume world to the frame of the first plane (mm): rows lie along u, columns along v, planes
        along w.
    shape
        Number of planes, of rows, of columns.
    spacing
        Distance (mm) of planes, of rows, of columns.
    weights, offsets, variances
        Slice profile: components along w, see `gsvr.model.point_spread.PointSpread` (mm, mm^2). Without one: a single
        component of no variance.
    """

    to_planes: Float[np.ndarray, "3 4"]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    weights: Float[np.ndarray, " m"]
    offsets: Float[np.ndarray, " m"]
    variances: Float[np.ndarray, " m"]

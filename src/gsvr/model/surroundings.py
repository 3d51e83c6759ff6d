"""The part of a grid that lies near something."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def box_near(
    points: Float[np.ndarray, "n 3"], affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...], margin: float
) -> tuple[slice, ...]:
    """Smallest box of a grid that holds what lies within `margin` of the box around some points; all if that is none.

    Parameters
    ----------
    points
        In world (mm).
    affine, shape
        Of the grid, voxel index -> world (mm).
    margin
        mm.
    """
    ends = np.stack([points.min(axis=0) - margin, points.max(axis=0) + margin])
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i, j, k in np.ndindex(2, 2, 2)])
    index = (corners - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    first = np.clip(np.ceil(index.min(axis=0)).astype(int), 0, shape)
    last = np.clip(np.floor(index.max(axis=0)).astype(int) + 1, 0, shape)
    if (last <= first).any():
        return tuple(slice(0, n) for n in shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))

"""A mask on another grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr import compiled
from gsvr.model.volume import Volume


def mask_on_grid(
    mask: Volume, affine: Float[np.ndarray, "4 4"], shape: tuple[int, int, int]
) -> Bool[np.ndarray, "nx ny nz"]:
    """The mask of a volume on another grid (voxel -> world): the half level of its smooth linear interpolation."""
    smooth = ndimage.gaussian_filter(np.asarray(mask.mask, dtype=np.float32), 0.7)
    step = np.linalg.inv(mask.affine) @ affine
    if np.abs(step[:3, :3] - np.diag(np.diag(step[:3, :3]))).max() * max(shape) > 1e-6:
        turned = ndimage.affine_transform(smooth, step[:3], output_shape=shape, order=1)
        return np.asarray(turned) > 0.5
    # grids along the same axes: neighbours and weights depend on one index each
    (x, x_weights), (y, y_weights), (z, z_weights) = (
        _neighbours(step[axis, axis] * np.arange(count) + step[axis, 3], smooth.shape[axis])
        for axis, count in enumerate(shape)
    )
    out = np.empty(shape, bool)
    compiled.run(
        "exceeds_half", shape[0], smooth, *smooth.shape, *shape[1:], x, x_weights, y, y_weights, z, z_weights, out
    )
    return out


def _neighbours(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower of the two voxels around each position, and the weights of both: zero beyond the outermost voxels."""
    lower = np.clip(np.floor(positions).astype(np.int64), 0, max(count - 2, 0))
    inside = (positions >= 0) & (positions <= count - 1)
    share = positions - lower
    return lower, (np.stack([1 - share, share], axis=1) * inside[:, None]).astype(np.float32)

"""A mask on another grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr.kernels.numba_compiled import without_allocation
from gsvr.kernels.threads import parallel_for
from gsvr.volume_grid import Volume


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
    out, depth = np.empty(shape, bool), mask.data.shape[2]

    def body(i: int) -> None:
        row = np.empty(depth, np.float32)
        _interpolate_plane(smooth, x[i], x_weights[i], y, y_weights, z, z_weights, row, out[i])

    parallel_for(body, shape[0])
    return out


def _neighbours(positions: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower of the two voxels around each position, and the weights of both: zero beyond the outermost voxels."""
    lower = np.clip(np.floor(positions).astype(np.int64), 0, max(count - 2, 0))
    inside = (positions >= 0) & (positions <= count - 1)
    share = positions - lower
    return lower, (np.stack([1 - share, share], axis=1) * inside[:, None]).astype(np.float32)


@without_allocation
def _interpolate_plane(values, x, x_weights, y, y_weights, z, z_weights, row, out):
    """Whether the interpolated values exceed one half, for one plane; `row` is scratch."""
    next_x = min(x + 1, values.shape[0] - 1)
    for j in range(out.shape[0]):
        low, high = y[j], min(y[j] + 1, values.shape[1] - 1)
        a, b = x_weights[0] * y_weights[j, 0], x_weights[0] * y_weights[j, 1]
        c, d = x_weights[1] * y_weights[j, 0], x_weights[1] * y_weights[j, 1]
        for k in range(row.shape[0]):
            row[k] = (
                a * values[x, low, k]
                + b * values[x, high, k]
                + c * values[next_x, low, k]
                + d * values[next_x, high, k]
            )
        for k in range(out.shape[1]):
            above = min(z[k] + 1, row.shape[0] - 1)
            out[j, k] = z_weights[k, 0] * row[z[k]] + z_weights[k, 1] * row[above] > 0.5

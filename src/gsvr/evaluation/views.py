"""From how many sides the anatomy was seen: directions of slices, and how much of the brain several stacks cover."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.solver.state import Result

# A stack sees a place where one of its pixels lies in the same cell of this width (mm), or in one next to it; cells are
# wider where slices are thick.
_CELL = 2.5
_CELL_PER_THICKNESS = 0.75


def directions(result: Result, believed: Bool[np.ndarray, " n"]) -> float:
    """Effective number of directions that slices were acquired from: 1 (all parallel) to 3 (orthogonal, evenly).

    With the normals n of the slices, as they lie in the volume, it is 1 / sum of the squared eigenvalues of the mean of
    n n^T over all pixels. Two stacks at right angles have 2, two that are tilted by 20 degrees 1.06.

    Parameters
    ----------
    believed
        Slices that count.
    """
    slices = result.slices
    normals = (result.poses @ slices.frames)[:, :3, 2]
    pixels = slices.sum_per_slice(slices.mask) * believed
    tensor = np.einsum("n,ni,nj->ij", pixels, normals, normals) / max(float(pixels.sum()), 1.0)
    power = float(np.sum(np.linalg.eigvalsh(tensor) ** 2))
    return 1 / power if power > 0 else 0.0


def coverage(result: Result, believed: Bool[np.ndarray, " n"]) -> float:
    """Share of the brain that at least two stacks see.

    Parameters
    ----------
    believed
        Slices that count.
    """
    views, brain = views_of_cells(result.slices, result.poses, believed, result.mask)
    return float(np.average(views >= 2, weights=brain))


def views_of_cells(
    slices: Slices, poses: Float[np.ndarray, "n 4 4"], believed: Bool[np.ndarray, " n"], mask: Volume
) -> tuple[Int[np.ndarray, "x y z"], Int[np.ndarray, "x y z"]]:
    """How many stacks see each cell of a grid along the world's axes, and how many voxels of the brain lie in it.

    Parameters
    ----------
    slices, poses
        With the pixels in use.
    believed
        Slices that count.
    mask
        The brain (volume world).
    """
    assert mask.mask is not None
    width = max(_CELL, _CELL_PER_THICKNESS * float(np.median(slices.thicknesses)))
    cells = _cells(mask.voxel_positions(mask.mask), width)
    coarse = slices.binned(max(1, int(width / float(np.median(slices.spacings)))))
    used = coarse.mask & coarse.per_pixel(believed)
    places = _cells(coarse.pixel_positions(poses, used), width)
    stacks = coarse.per_pixel(slices.stack_index)[used]
    low = np.minimum(cells.min(axis=0), places.min(axis=0, initial=0))
    shape = np.maximum(cells.max(axis=0), places.max(axis=0, initial=0)) - low + 1
    views, brain = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    np.add.at(brain, tuple((cells - low).T), 1)
    for stack in np.unique(stacks):
        seen = np.zeros(shape, bool)
        seen[tuple((places[stacks == stack] - low).T)] = True
        views += ndimage.binary_dilation(seen, np.ones((3, 3, 3)))
    return views, brain


def _cells(points: Float[np.ndarray, "n 3"], width: float) -> np.ndarray:
    return np.floor(points / width).astype(np.int64)

"""How each slice looks at free Gaussians: geometry, point spread function and cut-off, the same for every backend.

Seen through a component of the point spread function, a Gaussian is cut off where its Mahalanobis distance, of the
blurred Gaussian, from the pixel exceeds `cutoff`. Bound: a term that is left out is smaller than exp(-cutoff^2 / 2)
times its own peak c_j p_m a_ijm, so a predicted pixel is off by less than exp(-cutoff^2 / 2) times the sum of
|c_j| p_m a_ijm over the terms left out. Optionally only the K Gaussians whose means are nearest to a pixel are kept
(Dannecker et al., MIDL 2026, use K = 50): a radius for every pixel, from `nearest_radii`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int

from gsvr.backends.windows import CUTOFF
from gsvr.model.geometry import invert
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices


@dataclass(frozen=True)
class SliceViews:
    """Geometry of every slice relative to volume world.

    Attributes
    ----------
    to_slice
        Rigid map: volume world -> slice frame (mm).
    pixel_spacing
        mm per pixel along u and v.
    centres
        Middle of each slice in its own frame (mm): what poses turn about.
    spread
        Point spread function of every slice.
    shapes, first_pixel
        Extent of each slice and where its pixels start in the flat arrays.
    cutoff
        In standard deviations of the blurred Gaussian.
    exact
        Whether a blurred Gaussian has its true peak a_ij, as the convolution asks; otherwise one, as in the
        normalised field of Dannecker et al. (MIDL 2026, eq. 5).
    squared_radii
        Square of the distance (mm) within which a Gaussian's mean must stand from a pixel to be seen; None: no limit.
    """

    to_slice: Float[np.ndarray, "n 3 4"]
    pixel_spacing: Float[np.ndarray, "n 2"]
    centres: Float[np.ndarray, "n 2"]
    spread: PointSpread
    shapes: Int[np.ndarray, "n 2"]
    first_pixel: Int[np.ndarray, " n1"]
    cutoff: float = CUTOFF
    exact: bool = True
    squared_radii: Float32[np.ndarray, " p"] | None = None


def slice_views(
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    spread: PointSpread,
    cutoff: float = CUTOFF,
    exact: bool = True,
    squared_radii: Float32[np.ndarray, " p"] | None = None,
) -> SliceViews:
    """Views for poses acquired world -> volume world."""
    to_slice = invert(slices.frames) @ invert(poses)
    return SliceViews(
        to_slice=to_slice[:, :3].copy(),
        pixel_spacing=slices.pixel_spacings,
        centres=(slices.shapes - 1) * slices.pixel_spacings / 2,
        spread=spread,
        shapes=slices.shapes,
        first_pixel=slices.offsets,
        cutoff=cutoff,
        exact=exact,
        squared_radii=squared_radii,
    )


def nearest_radii(
    means: Float[np.ndarray, "gaussians 3"], slices: Slices, poses: Float[np.ndarray, "n 4 4"], count: int
) -> Float32[np.ndarray, " p"]:
    """Square of the distance (mm^2) from every pixel to its `count`-th nearest Gaussian, for K nearest neighbours.

    Pixels outside the mask see nothing (a negative number).
    """
    from scipy.spatial import KDTree  # slow to import

    radii = np.full(len(slices.values), -1.0, np.float32)
    placed = slices.pixel_positions(poses, slices.mask)
    count = min(count, len(means))
    # a list asks for that one neighbour alone, which the type of `query` does not say
    distances, _ = KDTree(means).query(placed, k=[count], workers=-1)  # pyright: ignore[reportArgumentType]
    # A little more than the distance, so that rounding does not lose the last neighbour: kernels know where a mean
    # stands in its window, which may be hundreds of pixels wide, to half a unit in the last place of float32.
    radii[slices.mask] = (distances[:, 0] * (1 + 1e-6) + 2e-5) ** 2
    return radii

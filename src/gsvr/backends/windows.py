"""Which Gaussians touch which pixels: one cut-off for every backend, with a stated bound.

In the frame of a slice an isotropic Gaussian seen through a separable point spread function is a product of three 1-D
functions, so culling is an interval on each axis: `cutoff` standard deviations of the blurred Gaussian in the plane,
and of every component of the mixture through the plane.

Bound: a term that is left out is smaller than exp(-cutoff^2 / 2) times its own peak c_j p_m a_ijm, so a predicted pixel
is off by less than exp(-cutoff^2 / 2) times the sum of |c_j| p_m a_ijm over the terms left out; as a share of the
blurred Gaussian's mass, less than 3 erfc(cutoff / sqrt(2)) is lost (0.8 % at 3, 0.14 % at 3.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gsvr.model.fields import Lattice
from gsvr.model.geometry import invert
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices

CUTOFF = 3.0
# Where it counts that nothing is lost: what is left out is below 4e-6 of each peak, as float32 is.
WHOLE = 5.0


@dataclass(frozen=True)
class SliceWindows:
    """What a lattice kernel must know of each slice, in pixels along u and v and in mm along w.

    Attributes
    ----------
    from_lattice
        Affine map: lattice site index -> (u, v, w).
    sharpness
        1 / (2 sigma^2) of the blurred Gaussian along u and v, in pixel^-2.
    reach
        Cut-off along u and v in pixels.
    depth
        First and last w (mm, of the Gaussian relative to the slice) that is not cut off.
    peaks, offsets, depth_sharpness
        Through-plane mixture: peak of each blurred component (p_m a_ij), its centre (mm), 1 / (2 sigma^2).
    shapes, first_pixel
        Extent of each slice and where its pixels start in the flat arrays.
    pixel_spacing
        mm per pixel along u and v.
    """

    from_lattice: Float[np.ndarray, "n 3 4"]
    sharpness: Float[np.ndarray, "n 2"]
    reach: Float[np.ndarray, "n 2"]
    depth: Float[np.ndarray, "n 2"]
    peaks: Float[np.ndarray, "n m"]
    offsets: Float[np.ndarray, "n m"]
    depth_sharpness: Float[np.ndarray, "n m"]
    shapes: Int[np.ndarray, "n 2"]
    first_pixel: Int[np.ndarray, " n1"]
    pixel_spacing: Float[np.ndarray, "n 2"]

    @property
    def n_rows(self) -> int:
        """Pixels along u that one Gaussian can touch, over all slices."""
        return int(np.floor(2 * self.reach[:, 0].max())) + 1

    @property
    def n_columns(self) -> int:
        """Pixels along v that one Gaussian can touch, over all slices."""
        return int(np.floor(2 * self.reach[:, 1].max())) + 1


def slice_windows(
    lattice: Lattice,
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    spread: PointSpread,
    cutoff: float = CUTOFF,
) -> SliceWindows:
    """Geometry of every slice relative to the lattice, for poses acquired world -> volume world.

    Raises
    ------
    ValueError
        If the point spread function is not separable, see `gsvr.model.point_spread.PointSpread.is_separable`.
    """
    if not spread.is_separable:
        raise ValueError("lattice kernels need a point spread function that is separable in the slice frame")
    to_slice = invert(slices.frames) @ invert(poses)
    in_mm = to_slice @ lattice.affine
    spacing = slices.pixel_spacings
    from_lattice = in_mm[:, :3].copy()
    from_lattice[:, :2] /= spacing[:, :, None]
    in_plane = spread.covariances[:, 0, (0, 1), (0, 1)] + lattice.sigma**2
    through = spread.covariances[:, :, 2, 2] + lattice.sigma**2
    offsets = spread.offsets[:, :, 2]
    # a_ij = sqrt(det Sigma_j / det(Sigma_j + P_i)): what makes adding covariances an exact convolution
    peaks = spread.weights * np.sqrt(lattice.sigma**6 / (in_plane.prod(axis=1)[:, None] * through))
    reach_through = cutoff * np.sqrt(through)
    return SliceWindows(
        from_lattice=from_lattice,
        sharpness=spacing**2 / (2 * in_plane),
        reach=cutoff * np.sqrt(in_plane) / spacing,
        depth=np.stack(
            [(offsets - reach_through).min(axis=1), (offsets + reach_through).max(axis=1)],
            axis=1,
        ),
        peaks=peaks,
        offsets=np.ascontiguousarray(offsets),
        depth_sharpness=1 / (2 * through),
        shapes=slices.shapes,
        first_pixel=slices.offsets,
        pixel_spacing=spacing,
    )

"""What an ideal scanner would record of a volume: slices by numerical integration.

Deliberately not the reconstruction's closed form: the volume is interpolated by cubic splines and summed over
sub-planes and sub-pixels, so that a reconstruction is never judged on data made by its own model.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage
from scipy.special import ndtr

from gsvr.model.morphology import bounding_box
from gsvr.model.point_spread import FWHM_PER_SIGMA, IN_PLANE_FWHM_PER_SPACING
from gsvr.model.volume import Volume

SLICE_PROFILES = ("slab", "gaussian")

# A slab's edges are blurred by a Gaussian with this share of the thickness as its standard deviation.
SLAB_EDGE = 0.1
_FEWEST_PLANES = 12
# Longest sampling step as a share of the volume's finest spacing.
_LONGEST_STEP = 0.75
# Standard deviations after which a Gaussian is cut.
_REACH = 3.5
# Voxels around content after which a cubic spline through it has died away.
_SPLINE_REACH = 4


def through_plane_profile(
    thickness: float, profile: str, longest_step: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """Sub-planes of a slice: offsets along its normal (mm) and weights that sum to one.

    Parameters
    ----------
    thickness
        Slice thickness (mm).
    profile
        ``"slab"``: a box as wide as the slice with slightly blurred edges; ``"gaussian"``: FWHM = thickness.
    longest_step
        Largest distance between sub-planes (mm); there are at least twelve.

    Raises
    ------
    ValueError
        If the profile is unknown.
    """
    if profile not in SLICE_PROFILES:
        raise ValueError(f"unknown slice profile {profile!r}: choose one of {', '.join(SLICE_PROFILES)}")
    sigma = SLAB_EDGE * thickness if profile == "slab" else thickness / FWHM_PER_SIGMA
    half = _REACH * sigma + (thickness / 2 if profile == "slab" else 0.0)
    n_planes = max(_FEWEST_PLANES, int(np.ceil(2 * half / longest_step)))
    offsets = (np.arange(n_planes) + 0.5) / n_planes * 2 * half - half
    if profile == "slab":
        weights = ndtr((offsets + thickness / 2) / sigma) - ndtr((offsets - thickness / 2) / sigma)
    else:
        weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    return offsets, weights / weights.sum()


class SliceSampler:
    """Samples slices of one volume for stacks of one geometry.

    Parameters
    ----------
    volume
        What is imaged, not zero everywhere; zero outside its grid.
    spacing
        In-plane pixel spacing (mm); the in-plane point spread function is a Gaussian of FWHM 1.2 x spacing.
    thickness, profile
        See `through_plane_profile`.
    """

    def __init__(self, volume: Volume, spacing: float, thickness: float, profile: str) -> None:
        longest_step = _LONGEST_STEP * float(volume.spacing.min())
        self._spacing = spacing
        self._factor = max(2, int(np.ceil(spacing / longest_step)))
        self._sigma = IN_PLANE_FWHM_PER_SPACING / FWHM_PER_SIGMA
        self._offsets, self._weights = through_plane_profile(thickness, profile, longest_step)
        # Points of a slice's middle plane from which no sub-plane can meet content need not be sampled.
        reach = np.ceil(np.abs(self._offsets).max() / volume.spacing).astype(int) + _SPLINE_REACH
        box = bounding_box(volume.data != 0)
        padded = np.pad(volume.data[box], [(count, count) for count in reach])
        self._support = ndimage.maximum_filter(padded != 0, size=tuple(2 * reach + 1), mode="constant")
        self._coefficients = np.asarray(ndimage.spline_filter(padded, order=3, mode="mirror"), dtype=np.float32)
        self._world_to_index = np.linalg.inv(volume.affine)
        self._world_to_index[:3, 3] -= np.array([part.start for part in box]) - reach

    def sample(
        self,
        affine: Float[np.ndarray, "4 4"],
        shape: tuple[int, int],
        index: int,
        pose: Float[np.ndarray, "4 4"],
    ) -> Float32[np.ndarray, "columns rows"]:
        """Noise-free slice.

        Parameters
        ----------
        affine
            Of the stack: voxel index -> acquired world (mm), perpendicular axes.
        shape
            Pixels along the two in-plane axes.
        index
            Which slice of the stack.
        pose
            Acquired world -> volume world.
        """
        normal = np.eye(4)
        normal[2, 2] = 1.0 / np.linalg.norm(affine[:3, 2])
        normal[2, 3] = index
        matrix = self._world_to_index @ pose @ affine @ normal
        weights = [_decimation(count, self._factor, self._sigma) for count in shape]
        columns, rows = (_fine_positions(count, self._factor, self._sigma) for count in shape)
        grid = (
            matrix[:3, 0, None, None] * columns[:, None] + matrix[:3, 1, None, None] * rows + matrix[:3, 3, None, None]
        )
        relevant = np.asarray(ndimage.map_coordinates(self._support, grid, order=0, prefilter=False), dtype=bool)
        points = grid[:, relevant]
        total = np.zeros(points.shape[1])
        for offset, weight in zip(self._offsets, self._weights, strict=True):
            total += weight * ndimage.map_coordinates(
                self._coefficients, points + offset * matrix[:3, 2:3], order=3, prefilter=False
            )
        fine = np.zeros(relevant.shape)
        fine[relevant] = total
        return (weights[0] @ fine @ weights[1].T).astype(np.float32)


def sample_mask(
    mask: Bool[np.ndarray, "x y z"],
    to_index: Float[np.ndarray, "4 4"],
    shape: tuple[int, int],
    planes: Float[np.ndarray, " _"],
) -> Bool[np.ndarray, "columns rows"]:
    """Pixels of which a mask covers at least half of any of the `planes`.

    Parameters
    ----------
    mask
        On the volume's grid.
    to_index
        Column, row, plane -> voxel index of the mask.
    shape
        Pixels along the two in-plane axes.
    planes
        Positions along the third axis of `to_index`.
    """
    seen = np.zeros(shape, dtype=bool)
    columns, rows = np.meshgrid(*(np.arange(count) for count in shape), indexing="ij")
    for plane in planes:
        points = np.stack([columns.ravel(), rows.ravel(), np.full(columns.size, plane)])
        index = np.rint(to_index[:3, :3] @ points + to_index[:3, 3:]).astype(int)
        within = np.all((index >= 0) & (index < np.array(mask.shape)[:, None]), axis=0)
        inside = np.zeros(columns.size, dtype=bool)
        inside[within] = mask[tuple(index[:, within])]
        seen |= inside.reshape(shape)
    return seen


def _padding(factor: int, sigma: float) -> int:
    """Sub-pixels beyond the first and the last pixel that the in-plane Gaussian reaches."""
    return int(np.ceil(_REACH * sigma * factor))


def _fine_positions(count: int, factor: int, sigma: float) -> Float[np.ndarray, " fine"]:
    """Positions of the sub-pixels in pixels."""
    padding = _padding(factor, sigma)
    return np.arange(-padding, (count - 1) * factor + padding + 1) / factor


def _decimation(count: int, factor: int, sigma: float) -> Float[np.ndarray, "count fine"]:
    """Weights of the sub-pixels in each pixel: a Gaussian of `sigma` pixels; rows sum to one."""
    distance = np.arange(count)[:, None] - _fine_positions(count, factor, sigma)
    weights = np.where(np.abs(distance) <= _REACH * sigma + 1e-9, np.exp(-0.5 * (distance / sigma) ** 2), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)

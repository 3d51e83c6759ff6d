"""Rigid alignment of one volume with another: where a reconstruction lies in the world of the truth.

A reconstruction is only determined up to one rigid motion, so it has to be aligned before it is compared
voxel by voxel. Both volumes are smoothed with a Gaussian that narrows from level to level. On each level
inverse-compositional Gauss-Newton steps match the moving volume, up to gain and offset, with the fixed one:
derivatives are those of the fixed volume, computed once, so that a step costs one interpolation.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from gsvr.model.geometry import invert, pose_about, transform_points
from gsvr.model.morphology import bounding_box
from gsvr.model.volume import Volume

logger = logging.getLogger(__name__)

# Gaussians are cut off this many standard deviations from their centre.
_TRUNCATE = 3.0
# Rounding makes correlations differ by less than this.
_FLAT = 1e-6
# Coarse to fine: the standard deviation (mm) of the Gaussian that smooths both volumes; the share of it that a voxel
# must have inside the mask to count, since what lies outside, where one volume may be cut off and the other go on,
# should pull little (0.99 is 2.3 standard deviations deep, less strict where the motion is still large); how many
# voxels are used, drawn at random but always the same.
_LEVELS = ((4.0, 0.9, 4_000), (2.0, 0.97, 20_000), (1.0, 0.99, 100_000))
# First guesses are turned by this much (degrees) about each axis and back.
_START_ANGLE = 20.0
# Steps that each first guess gets before the best is taken; most steps on a level.
_START_STEPS, _STEPS = 12, 30
# A level ends when a step moves the edge of the mask by less (mm).
_TOLERANCE = 1e-4
# A mask keeps to its interior when more than this share of it is left.
_LEAST_INTERIOR = 0.2


@dataclass(frozen=True)
class Registration:
    """Result of `register_rigid`.

    Attributes
    ----------
    pose
        World of the moving volume -> world of the fixed one (mm).
    ncc
        Normalised cross-correlation of the smoothed volumes in the mask, on the finest level.
    """

    pose: Float[np.ndarray, "4 4"]
    ncc: float


def register_rigid(moving: Volume, fixed: Volume, mask: Bool[np.ndarray, "x y z"]) -> Registration:
    """Find the rigid motion that brings `moving` onto `fixed`, whatever their gains and offsets.

    Parameters
    ----------
    moving, fixed
        The two volumes, of any grids; beyond its grid `moving` counts as zero.
    mask
        Voxels of `fixed` to match.

    Raises
    ------
    ValueError
        If `mask` has another shape than `fixed`, selects fewer than 8 voxels, or `fixed` is constant in it.
    """
    if mask.shape != fixed.data.shape:
        raise ValueError(f"the mask has shape {mask.shape}, its volume {fixed.data.shape}")
    if mask.sum() < 8 or np.ptp(fixed.data[mask]) == 0:
        raise ValueError("alignment needs at least 8 voxels in the mask, and contrast among them")
    levels = (_Level(moving, fixed, mask, *level) for level in _LEVELS)
    first = next(levels)
    starts = [first.descend(start, _START_STEPS) for start in _first_guesses(moving, fixed, mask)]
    pose, ncc = max(starts, key=lambda result: result[1])
    for level in itertools.chain([first], levels):
        pose, ncc = level.descend(pose, _STEPS)
        logger.debug("alignment with %.1f mm smoothing: NCC %.4f", level.smoothing, ncc)
    return Registration(invert(pose), ncc)


def _first_guesses(moving: Volume, fixed: Volume, mask: np.ndarray) -> list[np.ndarray]:
    """World of `fixed` -> world of `moving`: as they lie, or centre on centre, each also turned both ways."""
    centre = _centre_of_intensity(fixed, mask)
    shift = _centre_of_intensity(moving, moving.mask) - centre
    turns = np.radians(_START_ANGLE) * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    return [pose_about(turn, offset, centre) for offset in (np.zeros(3), shift) for turn in turns]


def _centre_of_intensity(volume: Volume, mask: np.ndarray | None) -> np.ndarray:
    weights = np.maximum(volume.data, 0).astype(np.float64)
    inside = np.ones(weights.shape, bool) if mask is None else mask
    if not weights[inside].any():
        return transform_points(volume.affine, (np.array(weights.shape) - 1) / 2)
    return volume.centre(inside, weights)


class _Level:
    """Both volumes smoothed by one Gaussian, and the steps that match them.

    The fixed volume T moved by a small motion (w, t) about the centre c is, to first order,
    T(p) + grad T . (w x (p - c) + t). A step fits gain T + offset and these six derivatives to the moving
    volume at the present pose. The design of this fit never changes: its pseudo-inverse is computed once.
    """

    def __init__(
        self,
        moving: Volume,
        fixed: Volume,
        mask: np.ndarray,
        smoothing: float,
        interior: float,
        n_samples: int,
    ) -> None:
        self.smoothing = smoothing
        smooth, affine = _smooth(moving, smoothing)
        self._coefficients = ndimage.spline_filter(smooth, order=3).astype(np.float32)
        self._to_index = np.linalg.inv(affine)
        values, gradients, self._points = _sample(fixed, mask, smoothing, interior, n_samples)
        self._centre = self._points.mean(axis=0)
        arms = self._points - self._centre
        self._radius = float(np.sqrt(np.mean(np.sum(arms**2, axis=1))))
        # Rotations count in mm at the radius, so that all derivatives have the same unit.
        turning = np.cross(arms / self._radius, gradients)
        columns = [turning, gradients, (values - values.mean())[:, None], np.ones((len(values), 1))]
        self._solve = np.linalg.pinv(np.concatenate(columns, axis=1), rcond=1e-6)
        self._truth = (values - values.mean()) / max(float(values.std()), 1e-30)
        self._spread = float(values.std())

    def descend(self, pose: np.ndarray, n_steps: int) -> tuple[np.ndarray, float]:
        """Improve `pose` (world of the fixed volume -> world of the moving one); the best one and its NCC."""
        best, best_ncc = pose, -np.inf
        for _ in range(n_steps):
            moved = ndimage.map_coordinates(
                self._coefficients,
                transform_points(self._to_index @ pose, self._points).T,
                order=3,
                prefilter=False,
            )
            spread = float(moved.std())
            ncc = float(np.mean(self._truth * (moved - moved.mean()))) / spread if spread > 0 else 0.0
            if ncc > best_ncc:
                best, best_ncc = pose, ncc
            if spread == 0:
                break
            # Far from the match the fitted gain is too small and steps would overshoot; the ratio of the
            # spreads is not.
            step = self._solve[:6] @ moved * (self._spread / spread)
            length = float(np.linalg.norm(step))
            step *= min(1.0, 2.0 * self.smoothing / max(length, 1e-30))
            pose = pose @ invert(pose_about(step[:3] / self._radius, step[3:], self._centre))
            if length < _TOLERANCE:
                # The correlation is flat at its top: a converged pose is more precise than the best of them.
                return (pose, ncc) if ncc > best_ncc - _FLAT else (best, best_ncc)
        return best, best_ncc


def _smooth(volume: Volume, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed data and their affine, thinned out where the smoothing allows it."""
    sigmas = smoothing / volume.spacing
    smooth = ndimage.gaussian_filter(volume.data, sigmas, mode="constant", truncate=_TRUNCATE, output=np.float32)
    # Two voxels a standard deviation are enough: a cubic spline through them misses nothing that matters.
    strides = np.maximum(sigmas / 2, 1).astype(int)
    thin = smooth[:: strides[0], :: strides[1], :: strides[2]]
    return thin, volume.affine @ np.diag([*strides, 1.0])


def _sample(
    fixed: Volume, mask: np.ndarray, smoothing: float, interior: float, n_samples: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smoothed values, their gradients (per mm in world) and positions (world, mm) of voxels of the mask."""
    reach = np.ceil(_TRUNCATE * smoothing / fixed.spacing).astype(int) + 2
    box = bounding_box(mask, reach)
    sigmas = smoothing / fixed.spacing
    smooth = ndimage.gaussian_filter(fixed.data[box], sigmas, mode="constant", truncate=_TRUNCATE, output=np.float32)
    inside = np.flatnonzero(_interior(mask[box], sigmas, interior))
    if len(inside) > n_samples:
        inside = np.sort(np.random.default_rng(0).choice(inside, n_samples, replace=False))
    index = np.stack(np.unravel_index(inside, smooth.shape), axis=1)
    by_index = np.stack([np.gradient(smooth, axis=axis).ravel()[inside] for axis in range(3)], axis=1)
    gradients = by_index.astype(np.float64) @ np.linalg.inv(fixed.affine[:3, :3])
    positions = transform_points(fixed.affine, index + [float(part.start) for part in box])
    return smooth.ravel()[inside].astype(np.float64), gradients, positions


def _interior(mask: np.ndarray, sigmas: np.ndarray, least_share: float) -> np.ndarray:
    """Voxels into which little from outside the mask is smoothed; a mask too thin for that as it is."""
    share = ndimage.gaussian_filter(
        mask.astype(np.float32), sigmas, mode="constant", truncate=_TRUNCATE, output=np.float32
    )
    interior = mask & (share > least_share)
    return interior if interior.sum() > _LEAST_INTERIOR * mask.sum() else mask

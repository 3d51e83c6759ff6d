"""Gaussians that start at pixels of the slices, more where the image changes (Dannecker et al., MIDL 2026, eq. 6)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

from gsvr.model.fields import GaussianField
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Slices


def seeding_probabilities(slices: Slices, uniform_share: float) -> Float[np.ndarray, " m"]:
    """Probability of every pixel inside the mask, p = (1 - lambda) |grad I| / sum |grad I| + lambda / M.

    The gradient is that of the slice in its plane (per mm), from central differences. Where there is none at all,
    pixels are equally likely.

    Parameters
    ----------
    uniform_share
        Lambda, from 0 (gradient alone) to 1 (all pixels alike).
    """
    steepness = np.concatenate([_steepness(slices, s) for s in range(slices.n_slices)])[slices.mask]
    alike = np.full(steepness.size, 1.0 / steepness.size)
    total = steepness.sum()
    return (1 - uniform_share) * steepness / total + uniform_share * alike if total > 0 else alike


def _steepness(slices: Slices, index: int) -> Float[np.ndarray, " p"]:
    """Length of the in-plane gradient (per mm) at every pixel of one slice."""
    image = slices.image(index).astype(np.float64)
    squares = np.zeros(image.shape)
    for axis, spacing in enumerate(slices.pixel_spacings[index]):
        if image.shape[axis] > 1:
            squares += np.gradient(image, spacing, axis=axis) ** 2
    return np.sqrt(squares).ravel()


def seed_at_pixels(
    slices: Slices,
    poses: Float[np.ndarray, "n 4 4"],
    n_gaussians: int,
    scale: float,
    uniform_share: float = 0.0,
    seed: int = 0,
) -> GaussianField:
    """Isotropic Gaussians at pixels drawn without replacement; each starts with the intensity of its pixel.

    Positions, intensities and probabilities all are of the pixels inside one mask, in one order.

    Parameters
    ----------
    slices, poses
        Pixels to draw from, and where they are: acquired world -> volume world.
    n_gaussians
        How many; fewer if not so many pixels have a probability above zero.
    scale
        Standard deviation (mm).
    uniform_share, seed
        See `seeding_probabilities`; source of chance.

    Raises
    ------
    ValueError
        If no pixel is inside the mask.
    """
    if not slices.mask.any():
        raise ValueError("no pixel is inside any mask: nowhere to put a Gaussian")
    probabilities = seeding_probabilities(slices, uniform_share)
    n = min(n_gaussians, int(np.count_nonzero(probabilities)))
    drawn = np.random.default_rng(seed).choice(len(probabilities), n, replace=False, p=probabilities)
    pixels = np.flatnonzero(slices.mask)[drawn]
    owner = slices.per_pixel(np.arange(slices.n_slices))[pixels]
    amplitudes: Float32[np.ndarray, " n"] = slices.values[pixels].astype(np.float32)
    return GaussianField(
        means=transform_points(poses[owner], slices.pixel_positions()[pixels]).astype(np.float32),
        log_scales=np.full((n, 3), np.log(scale), np.float32),
        quaternions=np.tile(np.array([1, 0, 0, 0], np.float32), (n, 1)),
        amplitudes=amplitudes,
    )

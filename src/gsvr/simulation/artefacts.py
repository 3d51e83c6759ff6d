"""What spoils simulated slices besides motion: gains, lost signal, coil sensitivity and noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

# Share of the signal that a slice with signal loss keeps.
SIGNAL_KEPT = (0.2, 0.6)
# Distance from the brain's centre (mm) at which the speed of its motion is measured.
_RADIUS = 40.0


def draw_gains(counts: Sequence[int], spread: float, rng: np.random.Generator) -> list[Float[np.ndarray, " _"]]:
    """Log-normal gains of the slices of each stack, whose mean over all slices is one.

    Parameters
    ----------
    counts
        Number of slices of each stack.
    spread
        Standard deviation of the gains' logarithm.
    rng
        Source of chance.
    """
    gains = np.exp(spread * rng.standard_normal(sum(counts)))
    return np.split(gains / gains.mean(), np.cumsum(counts)[:-1])


def draw_signal_losses(
    slice_times: Sequence[Float[np.ndarray, " _"]],
    poses: Sequence[Float[np.ndarray, "_ 4 4"]],
    centre: Float[np.ndarray, " 3"],
    share: float,
    rng: np.random.Generator,
) -> list[Float[np.ndarray, " _"]]:
    """Share of its signal that each slice keeps: one, or `SIGNAL_KEPT` for those that lost theirs.

    Signal is lost to motion during a slice, so slices before which the brain moved far are the likelier.

    Parameters
    ----------
    slice_times
        For each stack, the place of each slice in the order of acquisition.
    poses
        Acquired world -> volume world.
    centre
        Of the brain (mm).
    share
        Of all slices that lose their signal.
    rng
        Source of chance.
    """
    speed = np.concatenate([_speed(time, pose, centre) for time, pose in zip(slice_times, poses, strict=True)])
    likelihood = speed + max(0.2 * float(speed.mean()), 1e-3)
    likelihood /= likelihood.sum()
    lost = rng.choice(len(speed), round(share * len(speed)), replace=False, p=likelihood)
    kept = np.ones(len(speed))
    kept[lost] = rng.uniform(*SIGNAL_KEPT, len(lost))
    return np.split(kept, np.cumsum([len(time) for time in slice_times])[:-1])


def _speed(
    time: Float[np.ndarray, " n"], poses: Float[np.ndarray, "n 4 4"], centre: Float[np.ndarray, " 3"]
) -> Float[np.ndarray, " n"]:
    """How far (mm) the brain's surface moved since the slice acquired before."""
    order = np.argsort(time)
    corners = centre + _RADIUS * np.concatenate([np.eye(3), -np.eye(3)])
    moved = np.einsum("nij,cj->nci", poses[order, :3, :3], corners) + poses[order, None, :3, 3]
    speed = np.zeros(len(time))
    speed[order[1:]] = np.linalg.norm(np.diff(moved, axis=0), axis=-1).mean(axis=-1)
    return speed


def coil_field(
    affine: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    brain: Float[np.ndarray, "p 3"],
    strength: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "columns rows slices"]:
    """Receive-coil sensitivity on a stack's grid: the exponential of a quadratic in acquired world.

    Parameters
    ----------
    affine, shape
        Of the stack: voxel index -> acquired world (mm).
    brain
        Positions of the unmoved brain's voxels (mm).
    strength
        Standard deviation of the field's logarithm over the brain, where its mean is zero.
    rng
        Source of chance.
    """
    linear, quadratic = rng.standard_normal(3), 0.5 * rng.standard_normal(3)
    centre, extent = brain.mean(axis=0), brain.std(axis=0).max()

    def exponent(points: np.ndarray) -> np.ndarray:
        scaled = (points - centre) / extent
        return scaled @ linear + scaled**2 @ quadratic

    over_brain = exponent(brain)
    index = np.stack(np.meshgrid(*(np.arange(count) for count in shape), indexing="ij"), axis=-1)
    field = exponent(index @ affine[:3, :3].T + affine[:3, 3])
    return np.exp(strength * (field - over_brain.mean()) / over_brain.std()).astype(np.float32)


def magnitude(
    signal: Float[np.ndarray, "*shape"] | Float32[np.ndarray, "*shape"],
    sigma: float,
    rng: np.random.Generator,
) -> Float32[np.ndarray, "*shape"]:
    """Magnitude of `signal` in complex Gaussian noise of standard deviation `sigma` a channel (Rician)."""
    real = signal + sigma * rng.standard_normal(signal.shape)
    imaginary = sigma * rng.standard_normal(signal.shape)
    return np.hypot(real, imaginary).astype(np.float32)

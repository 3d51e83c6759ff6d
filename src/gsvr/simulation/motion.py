"""How a fetus moves between slices: true poses for simulated acquisitions, of known severity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gsvr.model.geometry import pose_about, pose_from_parts, transform_points


@dataclass(frozen=True)
class MotionLevel:
    """Severity of motion, and what comes with it.

    Attributes
    ----------
    mean_displacement
        How far slices' brain voxels are from where they belong before any correction, on average (mm).
    gain
        Standard deviation of the logarithm of the slices' gains (spin history).
    signal_loss
        Share of slices that lost most of their signal.
    """

    mean_displacement: float
    gain: float
    signal_loss: float


# The displacement of "uniform" follows from its ranges and is given for a brain of 30 weeks.
MOTION_LEVELS: dict[str, MotionLevel] = {
    "none": MotionLevel(mean_displacement=0.0, gain=0.0, signal_loss=0.0),
    "mild": MotionLevel(mean_displacement=1.5, gain=0.02, signal_loss=0.0),
    "moderate": MotionLevel(mean_displacement=3.9, gain=0.03, signal_loss=0.01),
    "severe": MotionLevel(mean_displacement=8.0, gain=0.05, signal_loss=0.03),
    "uniform": MotionLevel(mean_displacement=4.8, gain=0.0, signal_loss=0.0),
}

UNIFORM_ROTATION = 6.0
UNIFORM_TRANSLATION = 4.0

# Shares of the variance: position at the start of a stack, drift, jumps. Times are in slices.
_OFFSET_SHARE, _DRIFT_SHARE, _JUMP_SHARE = 0.45, 0.35, 0.20
_DRIFT_TIME = 8.0
_JUMPS_PER_STACK = 1.5
# Turning by this much (degrees) is as likely as moving by 1 mm: both then displace a brain about equally.
_DEGREES_PER_MM = 1.5
_SCALING_STEPS = 5


def draw_poses(
    motion: str,
    slice_times: Sequence[Float[np.ndarray, " _"]],
    points: Float[np.ndarray, "p 3"],
    rng: np.random.Generator,
) -> list[Float[np.ndarray, "_ 4 4"]]:
    """Draw true poses, acquired world -> volume world, for the slices of each stack.

    ``"mild"``, ``"moderate"`` and ``"severe"``: in acquisition time each stack starts at a place of its own,
    drifts (a smoothed Ornstein-Uhlenbeck process) and jumps now and then. The mean motion of all slices,
    which no reconstruction can tell from a moved brain, is taken out; then rotations and translations are
    scaled by one factor so that the mean displacement of `points` is the level's exactly, whatever the seed.
    ``"uniform"``: independent slices, U(-6, 6) degrees about each axis and U(-4, 4) mm along each
    (the protocol of Dannecker et al., MIDL 2026).

    Parameters
    ----------
    motion
        Name of the level, a key of `MOTION_LEVELS`.
    slice_times
        For each stack, the place of each slice in the order of acquisition (0, 1, 2, ...).
    points
        Brain voxels (volume world, mm); motion turns about their mean.
    rng
        Source of chance.
    """
    centre = points.mean(axis=0)
    counts = [len(times) for times in slice_times]
    if motion == "uniform":
        return [_uniform_poses(count, centre, rng) for count in counts]
    target = MOTION_LEVELS[motion].mean_displacement
    ordered = [_path(count, rng)[times.astype(int)] for count, times in zip(counts, slice_times, strict=True)]
    motions = np.concatenate(ordered) * np.repeat([np.deg2rad(_DEGREES_PER_MM), 1.0], 3)
    motions -= motions.mean(axis=0)
    centres = np.broadcast_to(centre, (len(motions), 3))
    scale = 1.0 if target else 0.0
    poses = pose_about(scale * motions[:, :3], scale * motions[:, 3:], centres)
    # Displacement is nearly proportional to the scale, so a few steps of this fixed point suffice.
    for _ in range(_SCALING_STEPS if target else 0):
        scale *= target / mean_displacement([poses], points)
        poses = pose_about(scale * motions[:, :3], scale * motions[:, 3:], centres)
    return np.split(poses, np.cumsum(counts)[:-1])


def mean_displacement(poses: Sequence[Float[np.ndarray, "_ 4 4"]], points: Float[np.ndarray, "p 3"]) -> float:
    """Mean distance (mm) that poses move points by, over all slices and about a thousand of the points."""
    some = points[:: max(1, len(points) // 1000)]
    moved = transform_points(np.concatenate(poses)[:, None], some)
    return float(np.linalg.norm(moved - some, axis=-1).mean())


def _path(n: int, rng: np.random.Generator) -> Float[np.ndarray, "n 6"]:
    """Motion in the order of acquisition, every component with about unit variance."""
    offset = rng.standard_normal(6)
    warm_up = int(5 * _DRIFT_TIME)
    memory = np.exp(-1 / _DRIFT_TIME)
    drift = np.zeros((warm_up + n, 6))
    steps = rng.standard_normal(drift.shape) * np.sqrt(1 - memory**2)
    for k in range(1, len(drift)):
        drift[k] = memory * drift[k - 1] + steps[k]
    # A body does not shake from slice to slice.
    drift = ndimage.gaussian_filter1d(drift, 1.0, axis=0)[warm_up:]
    jumps = np.zeros((n, 6))
    for _ in range(rng.poisson(_JUMPS_PER_STACK)):
        jumps[rng.integers(n) :] += rng.standard_normal(6)
    return np.sqrt(_OFFSET_SHARE) * offset + np.sqrt(_DRIFT_SHARE) * drift + np.sqrt(_JUMP_SHARE) * jumps


def _uniform_poses(n: int, centre: Float[np.ndarray, " 3"], rng: np.random.Generator) -> Float[np.ndarray, "n 4 4"]:
    angles = rng.uniform(-UNIFORM_ROTATION, UNIFORM_ROTATION, (n, 3))
    translation = rng.uniform(-UNIFORM_TRANSLATION, UNIFORM_TRANSLATION, (n, 3))
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return pose_from_parts(rotation, centre - rotation @ centre + translation)

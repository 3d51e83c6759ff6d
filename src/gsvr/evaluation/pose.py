"""How far estimated poses are from the true ones, in mm, with the one free rigid motion taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gsvr.model.geometry import nearest_rotation, pose_from_parts, transform_points

# The global motion is fitted to this many points a slice at most, until no point moves further (mm).
_LARGEST_SAMPLE = 64
_TOLERANCE = 1e-7
_LARGEST_NUMBER_OF_FITS = 200
# Displacements below this (mm) all count alike in the robust fit.
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class PoseErrors:
    """Displacement of slices from where they truly belong.

    Attributes
    ----------
    per_slice
        Mean displacement of each slice's points (mm).
    mean, median, p90, p95
        Mean, median and percentiles of `per_slice` (mm).
    global_rigid
        Volume world of the estimates -> volume world of the truth: the motion that was taken out.
    """

    per_slice: Float[np.ndarray, " n"]
    mean: float
    median: float
    p90: float
    p95: float
    global_rigid: Float[np.ndarray, "4 4"]


def pose_errors(
    estimated: Float[np.ndarray, "n 4 4"],
    true: Float[np.ndarray, "n 4 4"],
    points: Sequence[Float[np.ndarray, "_ 3"]] | Float[np.ndarray, "n _ 3"],
) -> PoseErrors:
    """Measure how far estimated poses displace the points of each slice from their true places.

    All estimates may differ from the truth by one rigid motion G of the volume. It is found as the robust
    least-squares fit of G estimated_i(x) to true_i(x) over the points x: slices are reweighted by
    1 / (d^2 + s^2), d their displacement and s the median over slices, so outliers do not bend it.

    Parameters
    ----------
    estimated, true
        Poses, acquired world -> volume world.
    points
        For each slice, its points in acquired world (mm), usually the pixels inside its mask.

    Raises
    ------
    ValueError
        If there are no slices, the numbers differ, or a slice has no points.
    """
    if not len(estimated) == len(true) == len(points) or len(true) == 0:
        raise ValueError(
            f"{len(estimated)} estimated poses, {len(true)} true poses and points of {len(points)} slices: "
            "the three must be as many, and not none"
        )
    if any(len(group) == 0 for group in points):
        raise ValueError("a slice has no points to measure its pose with")
    counts = np.array([len(group) for group in points])
    source = [transform_points(pose, group) for pose, group in zip(estimated, points, strict=True)]
    target = [transform_points(pose, group) for pose, group in zip(true, points, strict=True)]
    strides = -(-counts // _LARGEST_SAMPLE)
    global_rigid = _fit_robustly(
        [group[::stride] for group, stride in zip(source, strides, strict=True)],
        [group[::stride] for group, stride in zip(target, strides, strict=True)],
    )
    per_slice = _displacements(global_rigid, np.concatenate(source), np.concatenate(target), counts)
    return PoseErrors(
        per_slice=per_slice,
        mean=float(per_slice.mean()),
        median=float(np.median(per_slice)),
        p90=float(np.percentile(per_slice, 90)),
        p95=float(np.percentile(per_slice, 95)),
        global_rigid=global_rigid,
    )


def _displacements(
    rigid: np.ndarray, source: np.ndarray, target: np.ndarray, counts: np.ndarray
) -> Float[np.ndarray, " n"]:
    """Mean distance of each slice's points after `rigid` (mm)."""
    distance = np.linalg.norm(transform_points(rigid, source) - target, axis=1)
    return np.add.reduceat(distance, np.cumsum(counts) - counts) / counts


def _fit_robustly(source: list[np.ndarray], target: list[np.ndarray]) -> Float[np.ndarray, "4 4"]:
    counts = np.array([len(group) for group in source])
    start, end = np.concatenate(source), np.concatenate(target)
    rigid, weights = np.eye(4), np.ones(len(counts))
    for _ in range(_LARGEST_NUMBER_OF_FITS):
        previous = rigid
        # Every slice counts as much as its weight, however many points it has.
        rigid = _fit_weighted(start, end, np.repeat(weights / counts, counts))
        moved = transform_points(rigid, start) - transform_points(previous, start)
        if np.linalg.norm(moved, axis=1).max() < _TOLERANCE:
            break
        displacement = _displacements(rigid, start, end, counts)
        scale = max(float(np.median(displacement)), _SMALLEST_SCALE)
        weights = 1.0 / (displacement**2 + scale**2)
    return rigid


def _fit_weighted(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "4 4"]:
    """Weighted least-squares rigid map from `source` to `target` (Kabsch)."""
    shares = weights / weights.sum()
    source_mean, target_mean = shares @ source, shares @ target
    rotation = nearest_rotation((target - target_mean).T @ ((source - source_mean) * shares[:, None]))
    return pose_from_parts(rotation, target_mean - rotation @ source_mean)

"""A field at any points, with its gradient: for registration, surfaces, losses and profiles along lines."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from gsvr.backends.cpu.gaussian_plan import sort_into_buckets
from gsvr.backends.windows import WHOLE
from gsvr.compiled import Structure, run
from gsvr.model.fields import Field, GaussianField

# Points whose sums are in memory at once.
_AT_ONCE = 1 << 20
# Side of the cubes (mm) that points are sorted into, so that neighbours look for their Gaussians together.
_CUBE = 3.0


def values_at(field: Field, points: ArrayLike, cutoff: float = WHOLE) -> Float[np.ndarray, "*n"]:
    """Value of a field at points in any order; zero where there is no Gaussian.

    Parameters
    ----------
    points
        Positions in volume world (mm), an array or lists of shape (..., 3).
    cutoff
        Exact but for this: a Gaussian is left out where it is below exp(-cutoff^2 / 2) of its peak, 4e-6 by default.

    Raises
    ------
    ValueError
        If there are not three finite coordinates for each point, or the cut-off is not positive.
    """
    return _sampled(field, points, cutoff, derivatives=False)[..., 0]


def values_and_gradients_at(
    field: Field, points: ArrayLike, cutoff: float = WHOLE
) -> tuple[Float[np.ndarray, "*n"], Float[np.ndarray, "*n 3"]]:
    """Value of a field at points, and its derivatives by their coordinates (per mm), see `values_at`.

    Where only the nearest Gaussians count, the derivative is that of those: the field jumps where they change.
    """
    sampled = _sampled(field, points, cutoff, derivatives=True)
    return sampled[..., 0], sampled[..., 1:]


def _sampled(field: Field, points: ArrayLike, cutoff: float, derivatives: bool) -> Float[np.ndarray, "*n numbers"]:
    """Value, and with `derivatives` three of them."""
    points = np.asarray(points, np.float64)
    if points.shape[-1:] != (3,) or not np.isfinite(points).all():
        raise ValueError(f"points of shape {points.shape}: give three finite coordinates (mm) each, shape (..., 3)")
    if not cutoff > 0:
        raise ValueError(f"the cut-off must be positive, not {cutoff}")
    flat, free = points.reshape(-1, 3), field.to_gaussians()
    sampled = np.zeros((len(flat), 4 if derivatives else 1))
    if free.n_gaussians and len(flat):
        gaussians = _in_space(free, cutoff)
        reach = cutoff * np.exp(free.log_scales.max())
        low, high = free.means.min(axis=0) - reach, free.means.max(axis=0) + reach
        near = np.flatnonzero(((flat >= low) & (flat <= high)).all(axis=1))
        for first in range(0, len(near), _AT_ONCE):
            some = near[first : first + _AT_ONCE]
            sampled[some] = _sums(free, gaussians, flat[some], derivatives)
    return sampled.reshape(*points.shape[:-1], sampled.shape[1])


def _in_space(field: GaussianField, cutoff: float) -> Structure:
    """The Gaussians as the kernel takes them (``compiled/c/point_kernels.h``)."""
    buckets = sort_into_buckets(field, cutoff)
    # the precision is the covariance of the inverse scales
    precisions = replace(field, log_scales=-field.log_scales).covariances[:, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)]
    squared_reach = (cutoff * np.exp(field.log_scales.max(axis=1).astype(np.float64))) ** 2
    numbers = np.column_stack([field.means, precisions, field.amplitudes, squared_reach])
    return Structure(
        "gaussians_in_space",
        n_buckets=len(buckets.radii),
        cutoff=float(cutoff),
        first=buckets.first,
        centres=np.ascontiguousarray(buckets.centres),
        radii=np.asarray(buckets.radii, np.float64),
        numbers=np.ascontiguousarray(numbers[buckets.order], np.float64),
    )


def _sums(
    field: GaussianField, gaussians: Structure, points: Float[np.ndarray, "n 3"], derivatives: bool
) -> Float[np.ndarray, "n numbers"]:
    cubes = np.floor((points - points.min(axis=0)) / _CUBE).astype(np.int64)
    across = cubes.max(axis=0) + 1
    number = (cubes[:, 0] * across[1] + cubes[:, 1]) * across[2] + cubes[:, 2]
    order = np.argsort(number, kind="stable")
    first = np.append(np.unique(number[order], return_index=True)[1], len(points)).astype(np.int64)
    ordered = np.ascontiguousarray(points[order])
    limits = None if field.nearest is None else _squared_distances(field, ordered)
    sums = np.empty((len(points), 8 if derivatives else 2))
    run("sum_at_points", len(first) - 1, first, ordered, limits, gaussians, int(derivatives), sums)
    values = np.concatenate([sums[:, :1], sums[:, 2:5]], axis=1)
    if field.normalisation is not None:  # d (N / D) = (dN - (N / D) dD) / D
        density = sums[:, 1:2] + field.normalisation
        values[:, 1:] -= values[:, :1] / density * sums[:, 5:]
        values /= density
    sampled = np.empty_like(values)
    sampled[order] = values
    return sampled


def _squared_distances(field: GaussianField, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Square of the distance (mm^2) from every point to the farthest Gaussian that counts there."""
    from scipy.spatial import KDTree  # slow to import

    means = field.means.astype(np.float64)
    count = min(field.nearest or len(means), len(means))
    distances, _ = KDTree(means).query(points, k=[count], workers=-1)  # pyright: ignore[reportArgumentType]
    return distances[:, 0] ** 2 * (1 + 1e-12)  # since it is rounded

"""Which free Gaussians each slice sees, and the quadratic form of each in it.

Gaussians are sorted into buckets, cubes of space that hold some dozens each. A slice looks at the Gaussians of buckets
that it can reach; a pair of a Gaussian and a slice that is not cut off becomes a splat. The splats of one slice and one
bucket are stored together, so that prediction runs over slices and the adjoint over buckets. Each component of the
point spread function has splats of its own; only a pair of equal covariance, one behind the other, shares them: the
second Gaussian is the first times an exponential that is linear in the plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from gsvr.backends.views import SliceViews
from gsvr.compiled import LANES, Structure, constant, run
from gsvr.model.fields import GaussianField
from gsvr.model.point_spread import PointSpread

_PER_BUCKET = 64
# How many standard deviations a pair may stand apart: where the first vanishes in float32, the second must be small.
_FARTHEST = 4.0
# Rows and columns of a symmetric matrix's upper triangle.
_UPPER = ((0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2))


@dataclass(frozen=True)
class Buckets:
    """Gaussians sorted by place.

    Attributes
    ----------
    order
        Numbers of the Gaussians, bucket by bucket.
    first
        Where each bucket starts in it.
    centres, radii
        A ball (mm) around the means of each bucket, and `cutoff` of their standard deviations.
    """

    order: Int[np.ndarray, " n"]
    first: Int[np.ndarray, " b1"]
    centres: Float[np.ndarray, "b 3"]
    radii: Float[np.ndarray, " b"]


def sort_into_buckets(field: GaussianField, cutoff: float) -> Buckets:
    """Cubes of such a size that one holds `_PER_BUCKET` Gaussians where they are about evenly spread."""
    if len(field.means) == 0:
        raise ValueError("a field without Gaussians has nothing to show")
    means = field.means.astype(np.float64)
    low, high = means.min(axis=0), means.max(axis=0)
    side = max(float(np.prod(high - low + 1.0) * _PER_BUCKET / len(means)) ** (1 / 3), 1.0)
    cell = np.floor((means - low) / side).astype(np.int64)
    count = cell.max(axis=0) + 1
    number = (cell[:, 0] * count[1] + cell[:, 1]) * count[2] + cell[:, 2]
    order = np.argsort(number, kind="stable")
    first = np.append(np.unique(number[order], return_index=True)[1], len(means)).astype(np.int64)
    sizes = np.diff(first)
    centres = np.add.reduceat(means[order], first[:-1]) / sizes[:, None]
    reach = np.linalg.norm(means[order] - np.repeat(centres, sizes, axis=0), axis=1)
    reach += cutoff * np.exp(field.log_scales[order].max(axis=1))
    return Buckets(order, first, centres, np.maximum.reduceat(reach, first[:-1]))


def padded_first(views: SliceViews) -> Int[np.ndarray, " n1"]:
    """Where each slice starts once its rows are eight columns wider, so that vectors need no border checks."""
    sizes = views.shapes[:, 0] * (views.shapes[:, 1] + LANES) + LANES
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def pairs_and_singles(spread: PointSpread) -> list[tuple[int, ...]]:
    """All components, those together that share their splats."""
    left, found = list(range(len(spread.weights))), []
    while left:
        first = left.pop(0)
        together = (first, *[other for other in left if _are_pair(spread, first, other)][:1])
        left = [other for other in left if other not in together]
        found.append(together)
    return found


def _are_pair(spread: PointSpread, first: int, second: int) -> bool:
    covariances, steps = spread.covariances[:, first], spread.offsets[:, second] - spread.offsets[:, first]
    if (covariances != spread.covariances[:, second]).any() or steps[:, :2].any():
        return False
    # s^T P^-1 s <= f^2 if and only if f^2 P - s s^T is positive semi-definite, also where P has no inverse
    nearness = _FARTHEST**2 * covariances - steps[:, :, None] * steps[:, None]
    return bool((np.linalg.eigvalsh(nearness) >= 0).all())


def structure_of_views(views: SliceViews, components: tuple[int, ...], limits: np.ndarray | None = None) -> Structure:
    """Views through one component or a pair for the kernels; `limits`: the padded `squared_radii`."""
    spread, first, last = views.spread, components[0], components[-1]
    reals = {
        "to_slice": views.to_slice,
        "weights": spread.weights[list(components)],
        "covariances": spread.covariances[:, first, *_UPPER],
        "offsets": spread.offsets[:, first],
        "steps": spread.offsets[:, last, 2] - spread.offsets[:, first, 2],
        "pixel_spacing": views.pixel_spacing,
        "centres": views.centres,
    }
    return Structure(
        "gaussian_views",
        n_slices=len(views.shapes),
        n_components=len(components),
        exact=int(views.exact),
        cutoff=float(views.cutoff),
        shapes=np.ascontiguousarray(views.shapes, np.int64),
        first_pixel=np.ascontiguousarray(views.first_pixel, np.int64),
        padded_first=padded_first(views),
        limits=limits,
        **{name: np.ascontiguousarray(values, np.float64) for name, values in reals.items()},
    )


def structure_of_gaussians(buckets: Buckets, field: GaussianField) -> Structure:
    """Gaussians in the order of their buckets for the kernels."""
    n, covariances = len(buckets.order), field.covariances
    values = np.ones((10, n + LANES))
    values[:3, :n] = field.means[buckets.order].T
    for row, (a, b) in enumerate(zip(*_UPPER, strict=True), 3):
        values[row, :n] = covariances[buckets.order, a, b]
    values[9, :n] = np.exp(2.0 * field.log_scales[buckets.order].astype(np.float64).sum(axis=1))
    return Structure(
        "gaussian_buckets",
        n_buckets=len(buckets.radii),
        stride=values.shape[1],
        first=buckets.first,
        centres=np.ascontiguousarray(buckets.centres),
        radii=buckets.radii,
        values=values,
    )


@dataclass(frozen=True)
class Pieces:
    """Pieces of splats (pairs of a Gaussian and a slice), by slice and then by bucket.

    Attributes
    ----------
    n_splats
        How many splats they are of.
    structure
        All that the kernels ask for.
    """

    n_splats: int
    structure: Structure


def plan_pieces(
    gaussians: Structure, n_buckets: int, views: Structure, n_slices: int, times: Structure | None, limited: bool
) -> Pieces:
    """All splats of all slices, first counted and then written; for `times` see `plan_gaussians`."""
    first = np.zeros((n_slices, n_buckets + 1), np.int64)
    n_splats = np.zeros(n_slices, np.int64)
    run("count_gaussian_pieces", n_slices, gaussians, views, times, first, n_splats)
    ends = np.cumsum(first[:, 1:].ravel()).reshape(n_slices, n_buckets)
    first[:, 1:] = ends
    first[1:, 0] = ends[:-1, -1]
    n = int(ends[-1, -1])
    arrays = {
        "gaussians": np.empty(n, np.int32),
        "corners": np.empty(n, np.int32),
        "n_rows": np.empty(n, np.int16),
        "forms": np.empty(n * constant("FORM_SIZE"), np.float32),
        "places": np.empty(2 * n, np.float32),
        "depths": np.empty(n, np.float32) if limited else None,
    }
    run("plan_gaussians", n_slices, gaussians, views, times, first, *arrays.values())
    structure = Structure("gaussian_pieces", n_buckets=n_buckets, first=first, **arrays)
    return Pieces(int(n_splats.sum()), structure)

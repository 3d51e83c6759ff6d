"""Free Gaussians for tests, and their field by its definition."""

from __future__ import annotations

import numpy as np

from gsvr.model.fields import GaussianField
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Slices


def random_field(slices: Slices, poses: np.ndarray, n: int = 200, normalisation: float | None = None) -> GaussianField:
    """Stretched, turned Gaussians all around the slices: so many that they fill several of the kernel's buckets."""
    rng = np.random.default_rng(0)
    places = transform_points(poses, slices.centres)
    low, high = places.min(axis=0) - 6, places.max(axis=0) + 6
    return GaussianField(
        means=rng.uniform(low, high, (n, 3)),
        log_scales=np.log(rng.uniform(0.5, 2.0, (n, 3))),
        quaternions=rng.normal(size=(n, 4)),
        amplitudes=rng.normal(size=n).astype(np.float32),
        normalisation=normalisation,
    )


def field_values(field: GaussianField, points: np.ndarray) -> np.ndarray:
    """The field at points (mm), by its definition."""
    roots = np.linalg.cholesky(np.linalg.inv(field.covariances))
    whitened = np.einsum("...i,nij->...nj", points, roots) - np.einsum("ni,nij->nj", field.means, roots)
    weights = np.exp(-0.5 * (whitened**2).sum(axis=-1))
    if field.normalisation is None:
        return weights @ field.amplitudes
    return weights @ field.amplitudes / (weights.sum(axis=-1) + field.normalisation)

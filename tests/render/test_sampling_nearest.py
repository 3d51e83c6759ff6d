"""Values of free Gaussians on a grid, against the sum itself."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import GaussianField
from gsvr.render.sampling import sample_grid

AXES = (np.arange(-4.0, 4.5, 1.0), np.arange(-3.0, 3.5, 0.75), np.arange(-2.0, 2.5, 0.5))


def summed(field: GaussianField) -> np.ndarray:
    """The field by its definition, at every point of the grid."""
    points = np.stack(np.meshgrid(*AXES, indexing="ij"), axis=-1)
    d = points[..., None, :] - field.means
    heights = np.exp(-0.5 * np.einsum("...i,...ij,...j->...", d, np.linalg.inv(field.covariances), d))
    if field.nearest is not None:
        distance = np.linalg.norm(d, axis=-1)
        heights *= distance <= np.sort(distance, axis=-1)[..., field.nearest - 1, None]
    values = heights @ field.amplitudes
    return values if field.normalisation is None else values / (heights.sum(-1) + field.normalisation)


@pytest.mark.parametrize("normalisation", [None, 1e-2])
@pytest.mark.parametrize("nearest", [None, 1, 7])
def test_a_grid_holds_the_values_of_the_field(normalisation: float | None, nearest: int | None):
    rng = np.random.default_rng(5)
    n = 60
    field = GaussianField(
        means=rng.uniform(-4, 4, (n, 3)).astype(np.float32),
        log_scales=rng.normal(0.3, 0.2, (n, 3)).astype(np.float32),
        quaternions=rng.normal(size=(n, 4)).astype(np.float32),
        amplitudes=rng.uniform(0, 1, n).astype(np.float32),
        normalisation=normalisation,
        nearest=nearest,
    )
    # the cut-off leaves out less than 4e-6 of each Gaussian; division by delta may magnify it
    np.testing.assert_allclose(sample_grid(field, AXES), summed(field), rtol=0, atol=1e-3 if normalisation else 1e-4)


def test_one_small_gaussian_is_its_own_nearest():
    # a single window of a few pixels: the smallest plan there is
    one = GaussianField(np.zeros((1, 3)), np.full((1, 3), -1.5), np.eye(4)[:1], np.ones(1, np.float32), nearest=1)
    axes = (np.zeros(1), np.arange(-1.0, 1.1, 0.5), np.arange(-1.0, 1.1, 0.5))
    y, z = np.meshgrid(*axes[1:], indexing="ij")
    expected = np.exp(-0.5 * (y**2 + z**2) * np.exp(3.0))[None]
    np.testing.assert_allclose(sample_grid(one, axes), expected, rtol=0, atol=1e-5)

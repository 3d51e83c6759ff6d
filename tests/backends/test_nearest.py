"""Nearest neighbours of every pixel on a device: plain PyTorch, against the definition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends.views import SliceViews, nearest_radii, slice_views
from tests.acquisitions import small_slices, spread_of
from tests.free_gaussians import random_field

torch = pytest.importorskip("torch", reason="kernels of tiles need PyTorch")
from gsvr.backends.torch.gaussians import HostGaussianKernel  # noqa: E402
from tests.acquisition_matrix import leaves, matrix  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402

NEAREST = 20
SLICES, POSES = small_slices()
FIELD = random_field(SLICES, POSES)
# a cut-off that costs nothing
WIDE = 6.0


def views_of(nearest: int, exact: bool = True, profile: str = "slab", cutoff: float = WIDE) -> SliceViews:
    radii = nearest_radii(FIELD.means, SLICES, POSES, nearest)
    return slice_views(SLICES, POSES, spread_of(SLICES, profile), cutoff, exact, radii)


def close(got: np.ndarray, want: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.abs(want).max() > 0
    assert np.abs(got - want).max() < tolerance * np.abs(want).max()


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize("exact", [True, False])
def test_products_are_those_of_the_definition(exact: bool, profile: str):
    kernel = HostGaussianKernel(FIELD, views_of(NEAREST, exact, profile), str(DEVICE))
    full = matrix(leaves(FIELD), SLICES, POSES, spread_of(SLICES, profile), exact, NEAREST).detach().numpy()
    full = full * SLICES.mask[:, None]
    pixels = np.random.default_rng(1).normal(size=len(full)).astype(np.float32)
    close(kernel.predict(FIELD.amplitudes), full @ FIELD.amplitudes)
    close(kernel.adjoint(pixels), full.T @ pixels)
    close(kernel.squared_adjoint(pixels), (full**2).T @ pixels)


@pytest.mark.parametrize("nearest", [1, NEAREST])
def test_each_pixel_sees_its_nearest_and_nothing_outside_the_mask(nearest: int):
    wide = replace(FIELD, log_scales=FIELD.log_scales + 1)  # so that none is cut off
    kernel = HostGaussianKernel(wide, views_of(nearest, profile="gaussian", cutoff=9.0), str(DEVICE))
    columns = [kernel.predict(unit) for unit in np.eye(len(FIELD.means), dtype=np.float32)]
    seen = np.count_nonzero(columns, axis=0)
    np.testing.assert_array_equal(seen, np.where(SLICES.mask, nearest, 0))

"""How the CPU's kernels of free Gaussians take a mixture apart; what they compute: tests/laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends.cpu.gaussian_plan import pairs_and_singles
from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.backends.views import nearest_radii, slice_views
from gsvr.model.point_spread import PointSpread
from gsvr.model.slices import Slices
from tests import oracle
from tests.acquisitions import four_in_space, random_field, small_slices, spread_of, three_through_plane

SLICES, POSES = small_slices()
FIELD = random_field(SLICES, POSES)


def far_apart(slices: Slices) -> PointSpread:
    """Two thin components: nine of their standard deviations from one to the other."""
    n = slices.n_slices
    return PointSpread.through_plane(
        np.full((n, 2), 0.3), np.array([0.6, 0.4]), np.tile([-0.9, 0.9], (n, 1)), np.full((n, 2), 0.04)
    )


def test_components_of_equal_covariance_one_behind_the_other_are_pairs():
    assert pairs_and_singles(spread_of(SLICES)) == [(0, 1)]
    assert pairs_and_singles(spread_of(SLICES, "gaussian")) == [(0,)]
    assert pairs_and_singles(three_through_plane(SLICES)) == [(0,), (1,), (2,)]
    assert pairs_and_singles(four_in_space(SLICES)) == [(0,), (1, 3), (2,)]
    assert pairs_and_singles(PointSpread.points(3)) == [(0,)]


def test_components_that_differ_in_one_slice_or_stand_aside_are_none():
    pair = spread_of(SLICES)
    covariances, offsets = pair.covariances.copy(), pair.offsets.copy()
    covariances[-1, 1, 0, 2] += 1e-3
    offsets[-1, 1, 0] += 0.1
    for other in (replace(pair, covariances=covariances), replace(pair, offsets=offsets), far_apart(SLICES)):
        assert pairs_and_singles(other) == [(0,), (1,)]


def test_components_far_apart_are_as_good_as_others():
    """In float32 the one has vanished where the other is largest, for flat Gaussians as well."""
    flat = replace(FIELD, log_scales=FIELD.log_scales + np.log([0.1, 1.0, 1.0]))
    spread = far_apart(SLICES)
    kernel = CpuGaussianKernel(flat, slice_views(SLICES, POSES, spread, cutoff=6.0))
    want = oracle.matrix(flat.means, oracle.covariances(flat), SLICES, POSES, spread) @ flat.amplitudes
    assert np.abs(kernel.predict(flat.amplitudes) - want).max() < 1e-5 * np.abs(want).max()


def test_what_is_not_there_is_refused():
    views = slice_views(SLICES, POSES, spread_of(SLICES))
    near = replace(views, squared_radii=nearest_radii(FIELD.means, SLICES, POSES, 20))
    with pytest.raises(ValueError, match="nearest neighbours"):
        CpuGaussianKernel(FIELD, near).derivatives(FIELD.amplitudes)
    with pytest.raises(ValueError, match="without Gaussians"):
        CpuGaussianKernel(FIELD.subset(np.zeros(0, int)), views)

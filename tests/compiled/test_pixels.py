"""Pixels binned, placed, sampled and marked in C, against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsvr.compiled import run
from gsvr.model.fields import lattice_covering
from tests.acquisitions import small_slices


@pytest.mark.parametrize("factor", [2, 3])
def test_bins_are_averages_inside_the_mask(factor: int):
    slices, _ = small_slices()
    binned = slices.binned(factor)
    for index in range(slices.n_slices):
        value, mask = slices.image(index), slices.image(index, slices.mask)
        got, coverage = binned.image(index), binned.image(index, binned.coverage)
        for row, column in np.ndindex(got.shape):
            block = (slice(row * factor, (row + 1) * factor), slice(column * factor, (column + 1) * factor))
            inside = value[block][mask[block]]
            assert coverage[row, column] == pytest.approx(inside.size / factor**2)
            assert got[row, column] == pytest.approx(inside.mean() if inside.size else 0, rel=1e-6)


def test_some_pixels_are_placed_like_all():
    slices, poses = small_slices()
    some = np.random.default_rng(0).random(len(slices.values)) < 0.3
    np.testing.assert_array_equal(slices.pixel_positions(poses, some), slices.pixel_positions(poses)[some])


def test_samples_are_those_of_scipy():
    slices, poses = small_slices()
    volume = np.random.default_rng(0).random((9, 8, 7))
    affine = np.diag([2.0, 2, 2, 1])
    affine[:3, 3] = -8, -7, -6
    to_index = np.linalg.inv(affine)
    got = np.empty(len(slices.values))
    corners, steps = slices.pixel_grid(to_index @ poses)
    run(
        "sample_at_pixels", slices.n_slices, slices.shapes, slices.offsets, corners, steps, volume, *volume.shape, -9.0,
        got,
    )  # fmt: skip
    index = slices.pixel_positions(to_index @ poses)
    want = ndimage.map_coordinates(volume, index.T, order=1, mode="constant", cval=-9.0)
    assert (want == -9).any()
    assert (want != -9).any()
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_the_outermost_voxels_are_inside():
    volume, out = np.arange(8.0).reshape(2, 2, 2), np.empty(4)
    corner, steps = np.array([[0.0, 0, 0]]), np.array([[[1.0, 1, 1], [1e-9, 0, 0]]])
    run(
        "sample_at_pixels", 1, np.array([[2, 2]]), np.array([0, 4]), corner, steps, volume, 2, 2, 2, -1.0, out
    )  # fmt: skip
    assert out[0] == 0
    assert out[2] == 7
    assert out[3] == -1  # a little beyond


def test_a_lattice_stands_around_the_nearest_sites():
    points = np.random.default_rng(0).normal(size=(500, 3)) * 5
    lattice = lattice_covering(points, 1.7, 1.0, 0.0)
    index = np.rint(points / 1.7).astype(int) - np.rint(lattice.origin / 1.7).astype(int)
    want = np.zeros(lattice.shape, bool)
    want[tuple(index.T)] = True
    np.testing.assert_array_equal(lattice.support, want)

"""The definition that kernels are compared with is the average of the field over the point spread function."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import LatticeField
from gsvr.operators.acquisition import moved_poses
from tests import oracle
from tests.acquisitions import small_lattice
from tests.laws.cases import CASES, DELTA, Case

# binned pixels are wider than the quadrature's grid
OF_SUMS = [case for case in CASES if case.exact and case.field.nearest is None and case.slices.binning == 1]


def average_and_definition(case: Case, pixel: int) -> tuple[float, float]:
    """A pixel of the dozen Gaussians that it sees best: by quadrature, and by the definition."""
    few = case.field.subset(np.argsort(case.at_rest[pixel])[-12:])
    scene = (case.slices, case.poses, case.spread)
    row = oracle.matrix(few.means.astype(np.float64), oracle.covariances(few), *scene, exact=case.exact)[pixel]
    return oracle.average(few, *scene, pixel), float(row @ few.amplitudes / (1 if case.exact else row.sum() + DELTA))


@pytest.mark.parametrize("case", OF_SUMS, ids=lambda case: case.name)
def test_it_is_the_convolution_with_the_point_spread_function(case: Case):
    for pixel in np.flatnonzero(case.slices.mask)[5 :: case.slices.n_pixels // 3]:
        average, definition = average_and_definition(case, int(pixel))
        assert abs(average - definition) < 1e-6 * np.abs(case.amplitudes).max()


def test_the_normalised_field_is_not():
    """By construction: a quotient of averages is no average of quotients."""
    case = next(case for case in CASES if case.name == "normalised, slab")
    pixels = np.flatnonzero(case.slices.mask)[20::100]
    averages, definitions = np.array([average_and_definition(case, int(pixel)) for pixel in pixels]).T
    assert np.abs(averages - definitions).max() > 0.05 * np.abs(averages).max()


def test_without_its_factor_a_gaussian_has_height_one():
    case = next(case for case in CASES if case.name == "gaussians, gaussian")
    first = (case.poses[0] @ case.slices.frames[0])[:3, 3]
    plain = oracle.matrix(first[None], case.covariances[:1], case.slices, case.poses, case.spread, exact=False)
    assert plain[0, 0] == pytest.approx(1)


def test_moved_poses_are_those_of_the_package():
    case = CASES[0]
    steps = np.random.default_rng(2).normal(size=(case.slices.n_slices, 6)) * 0.3
    expected = oracle.moved(case.slices, case.poses, steps)
    np.testing.assert_allclose(moved_poses(case.slices, case.poses, steps), expected, atol=1e-12)


def test_a_lattice_is_written_out_site_by_site():
    lattice = small_lattice()
    values = np.arange(lattice.support.size, dtype=np.float32).reshape(lattice.shape)
    field, site = LatticeField(lattice, values).to_gaussians(), np.argwhere(lattice.support)[17]
    np.testing.assert_allclose(field.means[17], lattice.origin + lattice.spacing * site, rtol=1e-6)
    assert field.amplitudes[17] == values[tuple(site)]
    np.testing.assert_allclose(oracle.covariances(field)[17], lattice.sigma**2 * np.eye(3), rtol=1e-6)

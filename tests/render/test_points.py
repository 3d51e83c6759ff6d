"""Fields at any points: against sums over all Gaussians in float64, values and gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.render import points as sampling
from gsvr.render.points import values_and_gradients_at, values_at
from tests.acquisitions import random_amplitudes, random_field, small_lattice, small_slices

POINTS = np.random.default_rng(4).uniform(-14, 13, (300, 3))
# so wide that nothing is left out: what remains is the rounding of float64
WIDE = 40.0


def definition(field: GaussianField, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and gradient of a field, summed over all Gaussians."""
    d = points[:, None] - field.means.astype(np.float64)
    by_d = np.einsum("pni,nij->pnj", d, np.linalg.inv(field.covariances))
    heights = np.exp(-0.5 * (by_d * d).sum(axis=-1))
    if field.nearest is not None:
        distances = np.linalg.norm(d, axis=-1)
        heights *= distances <= np.sort(distances, axis=1)[:, field.nearest - 1, None]
    amplitudes = field.amplitudes.astype(np.float64)
    sums, gradients = heights @ amplitudes, -np.einsum("pn,pni->pi", heights * amplitudes, by_d)
    if field.normalisation is None:
        return sums, gradients
    density, of_density = heights.sum(axis=1), -np.einsum("pn,pni->pi", heights, by_d)
    below = density + field.normalisation
    return sums / below, (gradients - (sums / below)[:, None] * of_density) / below[:, None]


def field_of(normalisation: float | None = None, nearest: int | None = None) -> GaussianField:
    slices, poses = small_slices()
    return replace(random_field(slices, poses, normalisation=normalisation), nearest=nearest)


@pytest.mark.parametrize("normalisation", [None, 0.1])
@pytest.mark.parametrize("nearest", [None, 1, 7])
def test_values_and_gradients_are_those_of_the_definition(normalisation: float | None, nearest: int | None):
    field = field_of(normalisation, nearest)
    values, gradients = values_and_gradients_at(field, POINTS, WIDE)
    expected, slopes = definition(field, POINTS)
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients, slopes, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(values_at(field, POINTS, WIDE), values)


def test_the_gradient_is_the_limit_of_differences():
    field, step = field_of(0.1), 1e-5
    _, gradients = values_and_gradients_at(field, POINTS, WIDE)
    for axis, move in enumerate(step * np.eye(3)):
        change = (values_at(field, POINTS + move, WIDE) - values_at(field, POINTS - move, WIDE)) / (2 * step)
        np.testing.assert_allclose(gradients[:, axis], change, rtol=0, atol=1e-7)


@pytest.mark.parametrize("cutoff", [2.0, 5.0])
def test_what_is_left_out_keeps_its_bound(cutoff: float):
    field = field_of()
    error = np.abs(values_at(field, POINTS, cutoff) - definition(field, POINTS)[0])
    assert 0 < error.max() < np.exp(-(cutoff**2) / 2) * np.abs(field.amplitudes).sum()


def test_a_lattice_is_the_sum_of_its_gaussians():
    lattice = small_lattice()
    lattice = replace(lattice, origin=lattice.origin + np.array([3.0, -4.0, 1.5]))
    field = LatticeField(lattice, random_amplitudes(lattice))
    values, gradients = values_and_gradients_at(field, POINTS, WIDE)
    expected, slopes = definition(field.to_gaussians(), POINTS)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(gradients, slopes, rtol=0, atol=1e-11)


def test_points_do_not_depend_on_each_other_or_on_their_order(monkeypatch: pytest.MonkeyPatch):
    field = field_of(0.1, 7)
    together = values_at(field, POINTS)
    np.testing.assert_array_equal(values_at(field, POINTS[::-1])[::-1], together)
    np.testing.assert_array_equal(values_at(field, POINTS[17]), together[17])
    np.testing.assert_array_equal(values_at(field, POINTS.reshape(10, 30, 3)), together.reshape(10, 30))
    monkeypatch.setattr(sampling, "_AT_ONCE", 41)
    monkeypatch.setenv("GSVR_THREADS", "3")
    np.testing.assert_array_equal(values_at(field, POINTS), together)


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_far_away_there_is_nothing(normalisation: float | None):
    field = field_of(normalisation)
    far = np.concatenate([POINTS[:2], [[400.0, 0, 0], [0, -1e12, 1e9]]])
    values, gradients = values_and_gradients_at(field, far)
    assert np.all(values[:2])
    assert not values[2:].any()
    assert not gradients[2:].any()
    assert values_at(field, np.empty((0, 3))).shape == (0,)
    assert not values_at(field.subset(np.empty(0, int)), POINTS).any()


def test_points_that_are_none_are_refused():
    field = field_of()
    for points in (np.zeros((4, 2)), np.array([[0.0, np.nan, 0.0]]), np.zeros(())):
        with pytest.raises(ValueError, match="three finite coordinates"):
            values_at(field, points)
    with pytest.raises(ValueError, match="cut-off"):
        values_at(field, POINTS, 0.0)

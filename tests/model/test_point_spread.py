"""Slice profiles: the widths they state, moments of a slab, and what they refuse."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from gsvr.model.point_spread import FWHM_PER_SIGMA, PROFILES, PointSpread, point_spread

SPACINGS = np.array([[1.1, 1.1], [0.8, 1.4]])
THICKNESSES = np.array([3.0, 5.0])
# E[x^k] of a standard normal variable
NORMAL_MOMENTS = (1, 0, 1, 0, 3, 0, 15)


def through_plane(spread: PointSpread) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and variances along w; the components differ in nothing else."""
    assert spread.is_separable
    return spread.offsets[:, :, 2], spread.covariances[:, :, 2, 2]


def in_plane(spread: PointSpread) -> np.ndarray:
    """Variances along u and v, which all components share."""
    return np.diagonal(spread.covariances[:, 0], axis1=1, axis2=2)[:, :2]


def mixture_moment(weights: np.ndarray, offsets: np.ndarray, variances: np.ndarray, order: int) -> float:
    """E[w^order] of a mixture of normal distributions."""
    sigmas = np.sqrt(variances)
    terms = [comb(order, k) * offsets ** (order - k) * sigmas**k * NORMAL_MOMENTS[k] for k in range(order + 1)]
    return float(weights @ np.sum(terms, axis=0))


def slab_moment(thickness: float, order: int) -> float:
    half = thickness / 2
    return (half ** (order + 1) - (-half) ** (order + 1)) / ((order + 1) * thickness)


def test_slab_has_the_moments_of_a_slab_up_to_the_fifth():
    spread = point_spread(SPACINGS, THICKNESSES, "slab")
    offsets, variances = through_plane(spread)
    for s, thickness in enumerate(THICKNESSES):
        for order in range(6):
            moment = mixture_moment(spread.weights, offsets[s], variances[s], order)
            assert moment == pytest.approx(slab_moment(thickness, order), rel=1e-12, abs=1e-12), order
        sixth = mixture_moment(spread.weights, offsets[s], variances[s], 6)
        assert sixth != pytest.approx(slab_moment(thickness, 6), rel=1e-3)


def test_one_gaussian_has_the_variance_of_a_slab():
    variances = through_plane(point_spread(SPACINGS, THICKNESSES, "slab-gaussian"))[1]
    np.testing.assert_allclose(variances[:, 0], THICKNESSES**2 / 12)
    np.testing.assert_allclose(np.sqrt(variances[:, 0]) * FWHM_PER_SIGMA, 0.68 * THICKNESSES, rtol=2e-3)


def test_gaussian_is_as_wide_as_the_slice_is_thick():
    variances = through_plane(point_spread(SPACINGS, THICKNESSES, "gaussian"))[1]
    at_half = np.exp(-0.5 * (THICKNESSES / 2) ** 2 / variances[:, 0])
    np.testing.assert_allclose(at_half, 0.5)


@pytest.mark.parametrize("profile", list(PROFILES))
def test_profiles_are_normalised_and_centred(profile):
    spread = point_spread(SPACINGS, THICKNESSES, profile)
    assert spread.weights.sum() == pytest.approx(1)
    offsets, variances = through_plane(spread)
    np.testing.assert_allclose(offsets @ spread.weights, 0, atol=1e-12)
    assert np.all(variances > 0)


def test_in_plane_width_is_that_of_single_shot_imaging():
    spread = point_spread(SPACINGS, THICKNESSES)
    at_half = np.exp(-0.5 * (1.2 * SPACINGS / 2) ** 2 / in_plane(spread))
    np.testing.assert_allclose(at_half, 0.5)


def test_binning_adds_the_variance_of_the_pixels_averaged():
    for binning in (2, 3):
        centres = np.arange(binning) - (binning - 1) / 2
        added = point_spread(SPACINGS, THICKNESSES, binning=binning)
        added = in_plane(added) - in_plane(point_spread(SPACINGS, THICKNESSES))
        np.testing.assert_allclose(added, SPACINGS**2 * np.mean(centres**2))


def test_thickness_and_spacing_act_apart():
    thick = point_spread(SPACINGS, 2 * THICKNESSES)
    thin = point_spread(SPACINGS, THICKNESSES)
    np.testing.assert_array_equal(in_plane(thick), in_plane(thin))
    np.testing.assert_allclose(through_plane(thick)[0], 2 * through_plane(thin)[0])
    np.testing.assert_allclose(through_plane(thick)[1], 4 * through_plane(thin)[1])


def test_subset_keeps_slices_apart():
    spread = point_spread(SPACINGS, THICKNESSES)
    second = spread.subset(np.array([1]))
    np.testing.assert_array_equal(second.offsets, spread.offsets[1:])
    np.testing.assert_array_equal(second.covariances, spread.covariances[1:])


def test_a_mixture_is_separable_only_if_every_slice_is_along_all_axes():
    spread = point_spread(SPACINGS, THICKNESSES)
    for entry in ((1, 0, 0, 1), (1, 1, 0, 2), (0, 1, 1, 2), (1, 1, 0, 0), (0, 0, 1, 1)):
        covariances = spread.covariances.copy()
        covariances[entry] += 0.1
        assert not PointSpread(spread.weights, spread.offsets, covariances).is_separable, entry
    for axis in (0, 1):
        offsets = spread.offsets.copy()
        offsets[1, 0, axis] = 0.1
        assert not PointSpread(spread.weights, offsets, spread.covariances).is_separable
    other = PointSpread.through_plane(
        SPACINGS, np.ones(2) / 2, np.array([[0, 1.0], [2, 3]]), np.array([[1, 2.0], [3, 4]])
    )
    assert other.is_separable
    np.testing.assert_array_equal(other.covariances[1, 1], np.diag([0.8, 1.4, 4]))
    np.testing.assert_array_equal(other.offsets[1, 0], [0, 0, 2])


def test_weights_that_are_none_are_refused():
    spread = point_spread(SPACINGS, THICKNESSES)
    for weights in ([1.0, 0.0], [1.5, -0.5], [np.nan, 1.0], [0.5, 0.6]):
        with pytest.raises(ValueError, match="positive and sum to one"):
            PointSpread(np.array(weights), spread.offsets, spread.covariances)


def test_bad_input_is_refused():
    # with annotations checked, as here, it does not even get that far
    with pytest.raises((ValueError, TypeCheckError), match="triangle"):
        point_spread(SPACINGS, THICKNESSES, "triangle")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="positive"):
        point_spread(SPACINGS, np.array([3.0, 0.0]))
    with pytest.raises(ValueError, match="positive"):
        point_spread(-SPACINGS, THICKNESSES)
    with pytest.raises(ValueError, match="positive"):
        point_spread(SPACINGS, np.array([3.0, np.nan]))

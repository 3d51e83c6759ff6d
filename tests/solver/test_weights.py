"""Weights and gains: outliers count little, nothing counts nothing, and empty slices are no accident."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from gsvr.solver.weights import WeightOptions, fit_gains, robust_deviation, robust_weights

from gsvr.model.slices import Slices
from tests.acquisitions import small_slices

OPTIONS = WeightOptions()


@pytest.fixture
def slices() -> Slices:
    return small_slices()[0]


@pytest.fixture
def prediction(slices: Slices) -> np.ndarray:
    """The recorded values but for noise of 0.05."""
    noise = np.random.default_rng(3).normal(scale=0.05, size=len(slices.values))
    return (slices.values + noise).astype(np.float32)


def with_values(slices: Slices, index: int, values: np.ndarray | float) -> Slices:
    changed = slices.values.copy()
    changed[slices.pixels_of(index)] = values
    return replace(slices, values=changed)


def test_robust_deviation_is_that_of_normal_noise_and_shrugs_off_outliers():
    noise = np.random.default_rng(0).normal(scale=2.0, size=20_000)
    assert robust_deviation(noise) == pytest.approx(2.0, rel=0.03)
    noise[:2000] = 1e6
    assert robust_deviation(noise) == pytest.approx(2.0, rel=0.2)
    assert robust_deviation(np.zeros(0)) == 0


def test_noise_is_found_and_weights_are_near_one(slices: Slices, prediction: np.ndarray):
    weights = robust_weights(slices, prediction, OPTIONS)
    assert weights.noise == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(weights.residuals, 0.05, rtol=0.4)
    assert weights.pixels[slices.mask].mean() > 0.9
    assert weights.slices.min() > 0.8


def test_outside_the_mask_nothing_counts_and_inside_everything_does(slices: Slices, prediction: np.ndarray):
    prediction = prediction.copy()
    prediction[::7] += 1000
    weights = robust_weights(slices, prediction, OPTIONS)
    assert not weights.pixels[~slices.mask].any()
    assert weights.pixels[slices.mask].min() > 0
    assert weights.slices.min() >= OPTIONS.slice_floor


def test_an_outlying_pixel_is_weighed_down_alone(slices: Slices, prediction: np.ndarray):
    pixel = int(np.flatnonzero(slices.mask)[40])
    clean = robust_weights(slices, prediction, OPTIONS)
    prediction = prediction.copy()
    prediction[pixel] = slices.values[pixel] + OPTIONS.pixel_cauchy * clean.noise
    weights = robust_weights(slices, prediction, OPTIONS)
    per_slice = slices.per_pixel(weights.slices)
    assert weights.pixels[pixel] / per_slice[pixel] == pytest.approx(0.5, rel=0.1)  # as `WeightOptions` states
    others = np.arange(len(prediction)) != pixel
    np.testing.assert_allclose(
        (weights.pixels / per_slice)[others], (clean.pixels / slices.per_pixel(clean.slices))[others], rtol=0.05
    )


def test_an_outlying_slice_is_weighed_down_and_kept(slices: Slices, prediction: np.ndarray):
    wrong = with_values(slices, 3, 5.0)
    weights = robust_weights(wrong, prediction, OPTIONS)
    assert weights.slices[3] == OPTIONS.slice_floor
    others = np.arange(slices.n_slices) != 3
    assert weights.slices[others].min() > 0.5
    assert weights.residuals.argmax() == 3


def test_a_slice_better_than_the_others_gains_nothing(slices: Slices, prediction: np.ndarray):
    prediction = prediction.copy()
    prediction[slices.pixels_of(2)] = slices.values[slices.pixels_of(2)]
    weights = robust_weights(slices, prediction, OPTIONS)
    assert weights.slices[2] == 1
    assert weights.slices.max() <= 1


def test_coverage_counts(slices: Slices, prediction: np.ndarray):
    half = replace(slices, coverage=slices.coverage * np.float32(0.5))
    full_weights, half_weights = (robust_weights(s, prediction, OPTIONS).pixels for s in (slices, half))
    np.testing.assert_allclose(half_weights, 0.5 * full_weights, rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_constant_and_empty_slices_are_survived(slices: Slices, prediction: np.ndarray, level: float):
    flat = with_values(slices, 4, level)
    mask = slices.mask.copy()
    mask[slices.pixels_of(6)] = False
    flat = replace(flat, mask=mask, coverage=mask.astype(np.float32))
    weights = robust_weights(flat, prediction, OPTIONS)
    for values in (weights.pixels, weights.slices, weights.residuals, weights.noise):
        assert np.isfinite(values).all()
    assert weights.slices.min() >= OPTIONS.slice_floor
    assert not weights.pixels[slices.pixels_of(6)].any()
    gains = fit_gains(flat, prediction, weights.pixels, OPTIONS)
    assert np.isfinite(gains).all()
    assert gains.min() > 0


def test_a_perfect_prediction_is_survived(slices: Slices):
    weights = robust_weights(slices, slices.values, OPTIONS)
    assert weights.noise > 0
    np.testing.assert_array_equal(weights.slices, 1)
    np.testing.assert_array_equal(weights.pixels, slices.coverage * slices.mask)


def test_gains_are_recovered_with_mean_one(slices: Slices):
    true = np.random.default_rng(5).uniform(0.7, 1.4, slices.n_slices)
    field = slices.values + 1
    acquired = replace(slices, values=field * slices.per_pixel(true.astype(np.float32)))
    weights = (slices.coverage * slices.mask).astype(np.float32)
    gains = fit_gains(acquired, field, weights, OPTIONS)
    energy = slices.sum_per_slice(weights * field**2)
    assert np.average(gains, weights=energy) == pytest.approx(1, abs=0.02)
    # every slice is held to the mean a little
    np.testing.assert_allclose(gains / gains.mean(), true / np.average(true, weights=energy), rtol=0.06)


def test_gains_do_not_depend_on_the_scale_of_the_field(slices: Slices):
    field = slices.values + 1
    weights = (slices.coverage * slices.mask).astype(np.float32)
    acquired = replace(slices, values=np.float32(3.0) * field)
    np.testing.assert_allclose(fit_gains(acquired, field, weights, OPTIONS), 1, rtol=1e-5)
    # slices that the field has not seen keep the factor
    np.testing.assert_allclose(fit_gains(acquired, field, weights, OPTIONS, mean_one=False), 3, rtol=1e-5)


def test_gains_stay_within_their_limit_and_the_dark_stay_near_the_mean(slices: Slices):
    field = slices.values + 1
    weights = (slices.coverage * slices.mask).astype(np.float32)
    bright = with_values(replace(slices, values=field.copy()), 2, 50 * field[slices.pixels_of(2)])
    gains = fit_gains(bright, field, weights, OPTIONS, mean_one=False)
    others = np.arange(slices.n_slices) != 2
    assert gains[2] / gains[others].max() <= OPTIONS.gain_limit**2 * 1.01
    dark_field = field.copy()
    dark_field[slices.pixels_of(1)] *= 1e-4
    noise_only = with_values(replace(slices, values=dark_field.copy()), 1, 1e-3)
    gains = fit_gains(noise_only, dark_field, weights, OPTIONS)
    assert gains[1] == pytest.approx(1, abs=0.1)

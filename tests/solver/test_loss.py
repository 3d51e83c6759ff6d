"""Weights: outliers count little, nothing counts nothing, and empty slices are no accident."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver import loss
from gsvr.solver.loss import RobustLoss, Weights, robust_deviation
from tests.solver.oblique import ball_lattice, oblique_slices

LOSS = RobustLoss()
SLICES, POSES = oblique_slices()


@pytest.fixture
def prediction() -> np.ndarray:
    """The recorded values but for noise of 0.05."""
    noise = np.random.default_rng(3).normal(scale=0.05, size=len(SLICES.values))
    return (SLICES.values + noise).astype(np.float32)


def weigh(backend: Backend, slices: Slices, prediction: np.ndarray, options: RobustLoss = LOSS) -> Weights:
    """Weights, with those of the pixels on the host."""
    operator = LatticeOperator(ball_lattice(), slices, POSES, backend=backend)
    found = options.weights(operator, backend.array(prediction))
    return replace(found, pixels=backend.host(found.pixels))


def changed(values: np.ndarray, index: int, value: np.ndarray | float) -> np.ndarray:
    """Other pixels for one slice."""
    values = values.copy()
    values[SLICES.pixels_of(index)] = value
    return values


def test_robust_deviation_is_that_of_normal_noise_and_shrugs_off_outliers():
    noise = np.random.default_rng(0).normal(scale=2.0, size=20_000)
    assert robust_deviation(noise) == pytest.approx(2.0, rel=0.03)
    noise[:2000] = 1e6
    assert robust_deviation(noise) == pytest.approx(2.0, rel=0.2)
    assert robust_deviation(np.zeros(0)) == 0


def test_noise_is_found_and_weights_are_near_one(backend: Backend, prediction: np.ndarray):
    weights = weigh(backend, SLICES, prediction)
    # of some 500 pixels a median knows its place to 5 %
    assert weights.noise == pytest.approx(0.05, rel=0.1)
    assert weights.white_noise == pytest.approx(0.05, rel=0.1)
    np.testing.assert_allclose(weights.residuals, 0.05, rtol=0.4)
    assert weights.pixels[SLICES.mask].mean() > 0.9
    assert weights.slices.min() > 0.8


def test_white_noise_is_what_neighbouring_pixels_do_not_share(backend: Backend, prediction: np.ndarray):
    """Whole slices that are too bright or too dark, by far more than the noise."""
    smooth = SLICES.per_pixel(np.random.default_rng(1).choice([-0.4, 0.4], SLICES.n_slices).astype(np.float32))
    weights = weigh(backend, SLICES, prediction + smooth)
    assert weights.white_noise == pytest.approx(0.05, rel=0.1)
    assert weights.noise == pytest.approx(0.4 * 1.4826, rel=0.1)
    # without such errors it is never above the noise
    rough = np.where(np.arange(len(prediction)) % 2, 0.3, -0.3).astype(np.float32)
    weights = weigh(backend, SLICES, SLICES.values + rough)
    assert weights.white_noise == weights.noise == pytest.approx(0.3 * 1.4826, rel=1e-5)


def test_of_many_pixels_the_noise_is_measured_in_some(
    backend: Backend, prediction: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    whole = weigh(backend, SLICES, prediction)
    monkeypatch.setattr(loss, "_ENOUGH", SLICES.n_pixels // 3)
    some = weigh(backend, SLICES, prediction)
    for name in ("noise", "white_noise"):
        assert getattr(some, name) == pytest.approx(getattr(whole, name), rel=0.15)
        assert getattr(some, name) != getattr(whole, name)


def test_outside_the_mask_nothing_counts_and_inside_everything_does(backend: Backend, prediction: np.ndarray):
    prediction[::7] += 1000
    weights = weigh(backend, SLICES, prediction)
    assert not weights.pixels[~SLICES.mask].any()
    assert weights.pixels[SLICES.mask].min() > 0
    assert weights.slices.min() >= LOSS.slice_floor


def test_an_outlying_pixel_is_weighed_down_alone(backend: Backend, prediction: np.ndarray):
    pixel = int(np.flatnonzero(SLICES.mask)[40])
    clean = weigh(backend, SLICES, prediction)
    prediction[pixel] = SLICES.values[pixel] + LOSS.pixel_cauchy * clean.noise
    weights = weigh(backend, SLICES, prediction)
    per_slice = SLICES.per_pixel(weights.slices)
    assert weights.pixels[pixel] / per_slice[pixel] == pytest.approx(0.5, rel=0.1)  # as `RobustLoss` states
    others = np.arange(len(prediction)) != pixel
    np.testing.assert_allclose(
        (weights.pixels / per_slice)[others], (clean.pixels / SLICES.per_pixel(clean.slices))[others], rtol=0.05
    )


def test_an_outlying_slice_is_weighed_down_and_kept(backend: Backend, prediction: np.ndarray):
    weights = weigh(backend, replace(SLICES, values=changed(SLICES.values, 3, 5.0)), prediction)
    assert weights.slices[3] == LOSS.slice_floor
    others = np.arange(SLICES.n_slices) != 3
    assert weights.slices[others].min() > 0.5
    assert weights.residuals.argmax() == 3


def of_residuals(residuals: np.ndarray) -> np.ndarray:
    """A prediction that is wrong by these root mean squares, slice by slice."""
    signs = np.where(np.arange(len(SLICES.values)) % 2, 1, -1)
    return (SLICES.values + signs * SLICES.per_pixel(residuals)).astype(np.float32)


def test_slices_are_judged_by_their_excess_in_robust_deviations(backend: Backend):
    residuals = 0.1 + 0.01 * (np.arange(SLICES.n_slices) - SLICES.n_slices // 2)
    weights = weigh(backend, SLICES, of_residuals(residuals))
    np.testing.assert_allclose(weights.residuals, residuals, rtol=1e-4)
    excess = np.maximum(residuals - np.median(residuals), 0) / robust_deviation(residuals - np.median(residuals))
    np.testing.assert_allclose(weights.slices, np.exp(-0.5 * (excess / LOSS.slice_welsch) ** 2), rtol=1e-3)
    assert weights.slices.min() < 0.95
    assert weights.slices.max() == 1


def test_slices_that_are_all_alike_are_not_judged_by_less_than_a_twentieth_of_their_residual(backend: Backend):
    """Most have the same residual to the bit, so they spread by nothing: an excess of a tenth counts as two."""
    residuals = np.full(SLICES.n_slices, 0.125)
    residuals[4] *= 1.1
    weights = weigh(backend, SLICES, of_residuals(residuals))
    assert weights.slices[4] == pytest.approx(np.exp(-0.5 * (2 / LOSS.slice_welsch) ** 2), rel=1e-3)
    np.testing.assert_allclose(np.delete(weights.slices, 4), 1, rtol=1e-4)


def test_a_slice_better_than_the_others_gains_nothing(backend: Backend, prediction: np.ndarray):
    prediction = changed(prediction, 2, SLICES.values[SLICES.pixels_of(2)])
    weights = weigh(backend, SLICES, prediction)
    assert weights.slices[2] == 1
    assert weights.slices.max() <= 1


def test_coverage_counts(backend: Backend, prediction: np.ndarray):
    half = replace(SLICES, coverage=SLICES.coverage * np.float32(0.5))
    whole_weights, half_weights = (weigh(backend, s, prediction).pixels for s in (SLICES, half))
    np.testing.assert_allclose(half_weights, 0.5 * whole_weights, rtol=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_constant_and_empty_slices_are_survived(backend: Backend, prediction: np.ndarray, level: float):
    mask = SLICES.mask.copy()
    mask[SLICES.pixels_of(6)] = False
    values = changed(SLICES.values, 4, level)
    flat = replace(SLICES, values=values, mask=mask, coverage=mask.astype(np.float32))
    weights = weigh(backend, flat, prediction)
    for numbers in (weights.pixels, weights.slices, weights.residuals, weights.noise):
        assert np.isfinite(numbers).all()
    assert weights.slices.min() >= LOSS.slice_floor
    assert not weights.pixels[SLICES.pixels_of(6)].any()
    # the slice that shows nothing is not one of those that others are compared with
    assert weights.slices[[0, 1, 2, 3, 5]].min() > 0.5


def test_a_perfect_prediction_is_survived(backend: Backend):
    weights = weigh(backend, SLICES, SLICES.values)
    assert weights.noise > 0
    np.testing.assert_array_equal(weights.slices, 1)
    np.testing.assert_array_equal(weights.pixels, SLICES.coverage * SLICES.mask)


def test_noise_of_a_pixel_is_what_its_weight_says(backend: Backend):
    pixels = np.repeat([1.0, 0.25, 0.01], 40_000).astype(np.float32)
    nobody = np.ones(1)
    weights = Weights(backend.array(pixels), nobody, 9.0, 0.3, nobody)
    drawn = weights.noise_sample(np.random.default_rng(0), backend).reshape(3, -1)
    # 40,000 numbers know a deviation to 0.35 %
    np.testing.assert_allclose(drawn.std(axis=1), 0.3 / np.sqrt([1.0, 0.25, 0.01]), rtol=0.02)

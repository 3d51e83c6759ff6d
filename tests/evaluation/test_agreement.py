"""Agreement of predicted with measured slices: one gain a stack, and each slice on its own."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.evaluation import slice_agreement


def stack(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Measured pixels of four slices of 500, and the slice of each."""
    measured = np.random.default_rng(seed).uniform(10, 100, 2000).astype(np.float32)
    return measured, np.repeat(np.arange(4), 500)


def test_a_gain_of_the_stack_costs_nothing():
    measured, slice_of = stack()
    agreement = slice_agreement(measured / 5, measured, np.ones(2000, dtype=bool), slice_of)
    assert agreement.gain == pytest.approx(5)
    assert agreement.psnr > 100
    np.testing.assert_allclose(agreement.slice_ncc, 1)
    np.testing.assert_array_equal(agreement.n_pixels, [500] * 4)


def test_noise_of_known_size():
    measured, _ = stack()
    predicted = measured + np.random.default_rng(1).normal(0, 2, 2000)
    agreement = slice_agreement(predicted, measured, np.ones(2000, dtype=bool))
    assert agreement.psnr == pytest.approx(20 * np.log10(measured.max() / 2), abs=0.3)
    assert agreement.slice_ncc.shape == (1,)
    assert agreement.slice_psnr[0] == pytest.approx(agreement.psnr)


def test_a_bad_slice_shows_where_it_is():
    measured, slice_of = stack()
    predicted = measured.copy()
    predicted[slice_of == 2] = predicted[slice_of == 2][::-1]
    agreement = slice_agreement(predicted, measured, np.ones(2000, dtype=bool), slice_of)
    assert abs(agreement.slice_ncc[2]) < 0.2
    assert agreement.slice_ncc[[0, 1, 3]].min() > 0.999
    assert agreement.slice_psnr[2] < agreement.slice_psnr[[0, 1, 3]].min() - 10
    assert agreement.slice_ncc[2] < agreement.ncc < 1


def test_pixels_outside_the_mask_do_not_count():
    measured, slice_of = stack()
    mask = np.arange(2000) % 3 == 0
    mask[slice_of == 1] = False
    predicted = np.where(mask, measured, -1e6)
    agreement = slice_agreement(predicted, measured, mask, slice_of)
    assert agreement.ncc == pytest.approx(1)
    assert agreement.n_pixels[1] == 0
    assert np.isnan(agreement.slice_ncc[1])
    assert np.isnan(agreement.slice_psnr[1])


def test_an_empty_mask_is_refused():
    measured, slice_of = stack()
    with pytest.raises(ValueError, match="no pixel"):
        slice_agreement(measured, measured, np.zeros(2000, dtype=bool), slice_of)

"""The noise floor of magnitude images, against drawn magnitudes."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.slices import slices_from_arrays
from gsvr.simulation.artefacts import magnitude
from gsvr.solver.noise_floor import noise_floor, noise_of

_AFFINE = np.diag([1.0, 1.0, 3.0, 1.0])


def _slices(signal, noise, seed=0):
    drawn = magnitude(np.asarray(signal, float), noise, np.random.default_rng(seed))
    return slices_from_arrays([drawn], [_AFFINE], 3.0)


def _flat(signal):
    """Of each slice, pixel after pixel, as in `Slices`."""
    return np.concatenate([signal[:, :, k].ravel() for k in range(signal.shape[2])])


def _ramp(noise, least, most):
    """Signals between two multiples of the noise, rising slowly along both axes of every slice."""
    rise = np.linspace(0, 1, 60)
    return noise * np.broadcast_to((least + (most - least) * (rise[:, None] + rise) / 2)[:, :, None], (60, 60, 10))


@pytest.mark.parametrize("noise", [0.2, 3.0, 50.0])
def test_the_noise_is_that_of_a_channel(noise):
    slices = _slices(_ramp(noise, 0, 8), noise)
    assert noise_of(slices, np.arange(slices.n_slices)) == pytest.approx(noise, rel=0.03)


@pytest.mark.parametrize(("least", "most"), [(1.5, 3), (3, 6), (6, 20)])
def test_without_its_floor_a_magnitude_is_the_signal(least, most):
    signal = _ramp(1.0, least, most)
    # bright pixels tell the noise
    signal = np.concatenate([signal, np.full_like(signal, 30.0)], axis=0)
    slices = _slices(signal, 1.0)
    dark = _flat(np.broadcast_to(np.arange(120)[:, None, None] < 58, signal.shape))
    excess = (slices.values - _flat(signal))[dark].mean()
    left = (slices.values - noise_floor(slices) - _flat(signal))[dark].mean()
    assert excess > 0.03
    assert abs(left) < 0.25 * excess


def test_hardly_anything_is_taken_from_bright_tissue():
    slices = _slices(np.full((40, 40, 4), 30.0), 1.0)
    assert noise_floor(slices).max() < 0.03


def test_noise_alone_has_the_mean_zero_without_it():
    signal = np.zeros((80, 40, 4))
    signal[40:] = 30.0
    slices = _slices(signal, 1.0)
    dark = _flat(np.broadcast_to(np.arange(80)[:, None, None] < 38, signal.shape))
    assert slices.values[dark].mean() == pytest.approx(np.sqrt(np.pi / 2), rel=0.02)
    assert abs((slices.values - noise_floor(slices))[dark].mean()) < 0.3


def test_pixels_that_were_blanked_stay_zero():
    signal = np.full((40, 40, 4), 5.0)
    slices = _slices(signal, 1.0)
    values = slices.values.copy()
    values[:800] = 0
    blanked = slices_from_arrays([values.reshape(4, 40, 40).transpose(1, 2, 0)], [_AFFINE], 3.0)
    floor = noise_floor(blanked)
    assert not floor[blanked.values == 0].any()
    assert np.all(floor <= blanked.values + 1.3)


def test_without_noise_there_is_no_floor():
    slices = slices_from_arrays([np.full((40, 40, 4), 5.0, np.float32)], [_AFFINE], 3.0)
    assert not noise_floor(slices).any()


def test_a_few_pixels_do_not_tell_the_noise():
    slices = slices_from_arrays([np.random.default_rng(0).random((10, 10, 1)).astype(np.float32)], [_AFFINE], 3.0)
    assert not noise_floor(slices).any()

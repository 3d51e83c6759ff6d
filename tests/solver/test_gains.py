"""Gains: what slices and stacks differ by, held where there is little to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.gains import SliceGains, intensity_scale, slice_levels
from tests.solver.oblique import ball_lattice, oblique_slices, unequal_gains

MODEL = SliceGains()
SLICES, POSES = oblique_slices()
# what a field says of the pixels: nowhere dark
PLAIN = SLICES.values + 1
WEIGHTS = (SLICES.coverage * SLICES.mask).astype(np.float32)
ENERGY = SLICES.sum_per_slice(WEIGHTS * PLAIN**2)


def gains_of(backend: Backend, values: np.ndarray, plain: np.ndarray = PLAIN, mean_one: bool = True) -> np.ndarray:
    operator = LatticeOperator(
        ball_lattice(), replace(SLICES, values=values.astype(np.float32)), POSES, backend=backend
    )
    return MODEL.gains(operator, backend.array(plain), backend.array(WEIGHTS), mean_one)


def scaled(values: np.ndarray, per_slice: np.ndarray) -> np.ndarray:
    return values * SLICES.per_pixel(per_slice)


def test_gains_are_recovered_with_mean_one(backend: Backend):
    true = unequal_gains(SLICES)
    gains = gains_of(backend, scaled(PLAIN, true))
    assert np.average(gains, weights=ENERGY) == pytest.approx(1, abs=0.01)
    # every slice is held to its stack's level a little, the smallest most
    np.testing.assert_allclose(gains, true / np.average(true, weights=ENERGY), rtol=0.04)
    largest = np.median(ENERGY) < ENERGY
    np.testing.assert_allclose(gains[largest] / gains[largest].mean(), true[largest] / true[largest].mean(), rtol=0.01)


def test_gains_do_not_depend_on_the_scale_of_the_field(backend: Backend):
    np.testing.assert_allclose(gains_of(backend, 3 * PLAIN), 1, rtol=1e-5)
    # slices that the field has not seen keep the factor
    np.testing.assert_allclose(gains_of(backend, 3 * PLAIN, mean_one=False), 3, rtol=1e-5)


def test_a_slice_of_a_hundredth_of_the_energy_is_held_half_way_to_its_stacks_level(backend: Backend):
    darker = np.ones(SLICES.n_slices)
    darker[1] = np.sqrt(0.01 * np.median(ENERGY) / ENERGY[1])
    plain, true = scaled(PLAIN, darker).astype(np.float32), np.ones(SLICES.n_slices)
    true[1] = 2.0
    gains = gains_of(backend, scaled(plain, true), plain, mean_one=False)
    # the slice itself is a thousandth of its stack, and of the median energy that it is held against
    assert gains[1] == pytest.approx(1.5, abs=0.01)
    np.testing.assert_allclose(np.delete(gains, 1), 1, atol=0.005)


def test_a_slice_stays_within_the_limit_about_its_stacks_level(backend: Backend):
    true = np.where(SLICES.stack_index == 0, 1.0, 4.0)
    true[[2, 7]] *= [50, 1 / 50]
    assert SLICES.stack_index[[2, 7]].tolist() == [0, 1]
    gains = gains_of(backend, scaled(PLAIN, true), mean_one=False)
    match = SLICES.sum_per_slice(WEIGHTS * PLAIN * scaled(PLAIN, true))
    levels = [match[SLICES.stack_index == k].sum() / ENERGY[SLICES.stack_index == k].sum() for k in (0, 1)]
    np.testing.assert_allclose(gains[[2, 7]], [MODEL.limit * levels[0], levels[1] / MODEL.limit], rtol=1e-4)
    assert np.median(gains[SLICES.stack_index == 1]) == pytest.approx(4, rel=0.05)


def test_noise_alone_is_no_gain(backend: Backend):
    plain = PLAIN.copy()
    plain[SLICES.pixels_of(1)] *= 1e-4
    values = plain.copy()
    values[SLICES.pixels_of(1)] = 1e-3
    assert gains_of(backend, values, plain)[1] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_constant_slices_have_a_gain(backend: Backend, level: float):
    values = PLAIN.copy()
    values[SLICES.pixels_of(4)] = level
    gains = gains_of(backend, values)
    assert np.isfinite(gains).all()
    assert gains.min() > 0


# --- levels of stacks, and of all


def stack_scaled(factor: float, values: np.ndarray = SLICES.values) -> Slices:
    """The second stack brighter."""
    per_slice = np.where(SLICES.stack_index == 1, factor, 1.0)
    return replace(SLICES, values=scaled(values, per_slice).astype(np.float32))


def test_levels_of_stacks_have_weighted_mean_one_and_the_ratio_of_the_medians():
    slices = stack_scaled(3.0)
    levels = slice_levels(slices)
    first, second = levels[slices.stack_index == 0], levels[slices.stack_index == 1]
    assert np.ptp(first) == np.ptp(second) == 0
    medians = [np.median(slices.values[slices.mask & slices.per_pixel(slices.stack_index == k)]) for k in (0, 1)]
    assert second[0] / first[0] == pytest.approx(medians[1] / medians[0], rel=1e-5)
    counts = [(slices.mask & slices.per_pixel(slices.stack_index == k)).sum() for k in (0, 1)]
    assert np.average([first[0], second[0]], weights=counts) == pytest.approx(1, rel=1e-5)


def test_a_slice_far_brighter_than_its_stack_has_a_level_of_its_own():
    factor = np.where(np.arange(SLICES.n_slices) == 4, 100.0, 1.0)
    before, levels = (
        slice_levels(replace(SLICES, values=scaled(PLAIN, f).astype(np.float32))) for f in (1 + 0 * factor, factor)
    )
    ratio = levels / before
    assert np.ptp(np.delete(ratio, 4)) < 0.05 * ratio[0]
    assert ratio[4] / ratio[0] == pytest.approx(100, rel=0.3)


def test_zeros_inside_masks_say_nothing_about_a_stacks_level():
    """A skull-stripped stack with a box for a mask is mostly zero; its brain is as bright as that of the others."""
    spotted = np.where(np.arange(len(PLAIN)) % 3 == 0, PLAIN, 0)
    values = np.where(SLICES.per_pixel(SLICES.stack_index) == 0, spotted, PLAIN).astype(np.float32)
    levels = slice_levels(replace(SLICES, values=values))
    # medians of a third of the pixels
    assert levels[SLICES.stack_index == 0][0] / levels[SLICES.stack_index == 1][0] == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(slice_levels(replace(SLICES, values=0 * values)), 1)


def test_bright_tissue_is_the_99th_percentile_inside_the_masks():
    values = np.where(SLICES.mask, np.linspace(-1, 0.5, len(SLICES.values)), 1000).astype(np.float32)
    scale = intensity_scale(replace(SLICES, values=values))
    assert (np.abs(values[SLICES.mask]) > scale).mean() == pytest.approx(0.01, abs=0.003)
    with pytest.raises(ValueError, match="all zero"):
        intensity_scale(replace(SLICES, values=np.where(SLICES.mask, 0, values).astype(np.float32)))

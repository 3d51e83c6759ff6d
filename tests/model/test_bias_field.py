"""Bias fields: smooth factors on the brightness of stacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsvr.model.bias_field import N_TERMS, BiasField
from tests.solver.oblique import oblique_slices


def test_no_bias_is_one_everywhere():
    slices = oblique_slices()[0]
    bias = BiasField.none(slices)
    assert (bias.at(slices) == 1).all()
    assert set(bias.spreads(slices).values()) == {0.0}


def test_the_mean_logarithm_is_zero_and_the_spread_is_told():
    slices = oblique_slices()[0]
    nothing = BiasField.none(slices)
    coefficients = 0.1 * np.random.default_rng(0).standard_normal((len(slices.stack_names), N_TERMS))
    bias = replace(nothing, coefficients=coefficients)
    logarithm, stack_of = np.log(bias.at(slices)), slices.per_pixel(slices.stack_index)
    for stack, spread in enumerate(bias.spreads(slices).values()):
        inside = logarithm[slices.mask & (stack_of == stack)]
        np.testing.assert_allclose(inside.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(inside.std(), spread, rtol=1e-5)
    # it belongs to places, not to the pixels that happen to be in use
    fewer = slices.with_mask(slices.mask & (np.arange(len(slices.mask)) % 3 == 0))
    np.testing.assert_array_equal(bias.at(fewer), bias.at(slices))


def test_it_is_bounded_and_smooth_along_its_terms():
    slices = oblique_slices()[0]
    nothing = BiasField.none(slices)
    huge = replace(nothing, coefficients=np.full_like(nothing.coefficients, 50.0))
    assert np.isclose(huge.at(slices).max(), 3)
    assert np.isclose(huge.at(slices).min(), 1 / 3)
    along_x = np.zeros_like(nothing.coefficients)
    along_x[:, 0] = 0.2
    logarithm = np.log(replace(nothing, coefficients=along_x).at(slices))
    x = slices.pixel_positions()[:, 0]
    for stack in range(len(slices.stack_names)):
        of_stack = slices.per_pixel(slices.stack_index) == stack
        slope = np.polyfit(x[of_stack], logarithm[of_stack], 1)[0]
        np.testing.assert_allclose(slope, 0.2 / nothing.radius, rtol=1e-4)


def test_a_stack_has_the_same_bias_among_other_stacks():
    slices = oblique_slices()[0]
    coefficients = 0.1 * np.random.default_rng(1).standard_normal((len(slices.stack_names), N_TERMS))
    bias = replace(BiasField.none(slices), coefficients=coefficients)
    few = slices.subset(slices.stack_index == 1)
    few = few.with_mask(few.mask & (np.arange(len(few.mask)) % 5 > 0))  # another centre and radius
    known = bias.polynomials(slices)
    found = BiasField.none(few).with_polynomials(few, {name: known[name] for name in few.stack_names[1:2]})
    ratio = found.at(few) / bias.at(slices)[slices.per_pixel(slices.stack_index) == 1]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)  # but for the constant
    assert BiasField.none(few).with_polynomials(few, {}).coefficients.any() == 0

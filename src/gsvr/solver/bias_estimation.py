"""Bias fields: first from the stacks as they are, then from residuals.

All stacks show one subject, roughly in one place. So a smooth trend of brightness that one stack has and the others
have not is its bias, and that is seen before anything has been aligned. Later the field of Gaussians is one for all
stacks, and what a stack shows brighter or darker than predicted, smoothly over space, is its bias. One that all stacks
have in common cannot be told from the anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from gsvr.model.bias_field import N_TERMS, BiasField
from gsvr.model.slices import Slices
from gsvr.solver.loss import robust_deviation
from gsvr.solver.state import State


@dataclass(frozen=True)
class BiasOptions:
    """How bias fields are estimated.

    Attributes
    ----------
    spread
        Expected standard deviation of each coefficient.
    model_noise
        Factor on the residual variance: neighbouring pixels share model errors and are not independent.
    least
        A standard deviation of brightness over a stack that is no bias but model error; where no stack has more, none
        is corrected.
    """

    spread: float = 0.4
    model_noise: float = 30.0
    least: float = 0.04


# Neighbouring pixels share anatomy: so many of them count as one where there is no prediction of them yet.
_ANATOMY = 300.0
# Pixels darker than this share of their stack's median are background.
_DARK = 0.1
# Contrast (in robust standard deviations) at which a pixel counts half, and how often that is settled anew.
_CAUCHY, _REWEIGHTINGS = 2.0, 3


def first_guess(bias: BiasField, slices: Slices, options: BiasOptions) -> BiasField:
    """The bias in which the logarithms of stacks differ as they are: one polynomial for all, and one more for each.

    Parameters
    ----------
    bias
        None so far.
    slices
        At one level, see `gsvr.solver.gains.levelled`, and not aligned yet.
    """
    stacks = np.unique(slices.stack_index).tolist()
    equations = [_trend_equations(bias, slices, stack) for stack in stacks]
    held = np.eye(N_TERMS) / options.spread**2
    kept = [np.eye(N_TERMS) - curvature @ np.linalg.inv(curvature + held) for curvature, _ in equations]
    total = sum(keep @ curvature for keep, (curvature, _) in zip(kept, equations, strict=True))
    wanted = sum(keep @ gradient for keep, (_, gradient) in zip(kept, equations, strict=True))
    common = np.linalg.solve(total + 1e-6 * np.eye(N_TERMS), wanted)
    coefficients = bias.coefficients.copy()
    for stack, (curvature, gradient) in zip(stacks, equations, strict=True):
        coefficients[stack] = np.linalg.solve(curvature + held, gradient - curvature @ common)
    found = replace(bias, coefficients=coefficients)
    return found if max(found.spreads(slices).values()) > options.least else bias


def _trend_equations(
    bias: BiasField, slices: Slices, stack: int
) -> tuple[Float[np.ndarray, "9 9"], Float[np.ndarray, " 9"]]:
    """Normal equations of the polynomial in the logarithm of a stack's brightness, within slices."""
    inside = slices.mask & (slices.values > 0) & slices.per_pixel(slices.stack_index == stack)
    if inside.any():
        inside &= slices.values > _DARK * np.median(slices.values[inside])
    slice_of = slices.per_pixel(np.arange(slices.n_slices))[inside]
    if not len(slice_of):
        return np.zeros((N_TERMS, N_TERMS)), np.zeros(N_TERMS)
    logarithm = _within_slices(np.log(slices.values[inside].astype(np.float64))[None], slice_of)[0]
    terms = _within_slices(bias.terms(slices, stack, inside), slice_of)
    curvature, gradient, trend = np.eye(N_TERMS), np.zeros(N_TERMS), np.zeros(N_TERMS)
    for _ in range(_REWEIGHTINGS):
        contrast = logarithm - trend @ terms
        spread = max(robust_deviation(contrast), 1e-3)
        weighted = terms / ((1 + (contrast / (_CAUCHY * spread)) ** 2) * _ANATOMY * spread**2)
        curvature, gradient = weighted @ terms.T, weighted @ logarithm
        trend = np.linalg.solve(curvature + np.eye(N_TERMS), gradient)
    return curvature, gradient


def refined(bias: BiasField, state: State, options: BiasOptions) -> BiasField:
    """The bias with what the residuals of a state add to it: one Gauss-Newton step of each stack's coefficients.

    Parameters
    ----------
    bias
        That the values of the state's slices were already divided by.
    """
    slices, host = state.slices, state.operator.backend.host
    predicted, weights = host(state.prediction), host(state.weights.pixels)
    stack_of, slice_of = slices.per_pixel(slices.stack_index), slices.per_pixel(np.arange(slices.n_slices))
    coefficients = bias.coefficients.copy()
    for stack in np.unique(slices.stack_index):
        inside = slices.mask & (stack_of == stack)
        if not inside.any():
            continue
        prediction = predicted[inside].astype(np.float64)
        jacobian = prediction * _within_slices(bias.terms(slices, int(stack), inside), slice_of[inside])
        weighted = jacobian * (weights[inside] / (options.model_noise * state.weights.noise**2))
        curvature = weighted @ jacobian.T + np.eye(N_TERMS) / options.spread**2
        gradient = weighted @ (slices.values[inside] - prediction) - coefficients[stack] / options.spread**2
        coefficients[stack] += np.linalg.solve(curvature, gradient)
    found = replace(bias, coefficients=coefficients)
    return found if max(found.spreads(slices).values()) > options.least else bias


def _within_slices(terms: Float[np.ndarray, "k q"], slice_of: Int[np.ndarray, " q"]) -> Float[np.ndarray, "k q"]:
    """Minus their mean over each slice: what differs from slice to slice is left to gains."""
    first = np.flatnonzero(np.diff(slice_of, prepend=-1))
    counts = np.diff(first, append=len(slice_of))
    return terms - np.repeat(np.add.reduceat(terms, first, axis=1) / counts, counts, axis=1)

"""Bias fields from residuals.

The field of Gaussians is one for all stacks, so what a stack shows brighter or darker than predicted, smoothly over
space, is its bias. One that all stacks have in common cannot be told from the anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gsvr.model.bias_field import N_TERMS, BiasField
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

    spread: float = 0.2
    model_noise: float = 30.0
    least: float = 0.04


def refined(bias: BiasField, state: State, options: BiasOptions) -> BiasField:
    """The bias with what the residuals of a state add to it: one Gauss-Newton step of each stack's coefficients.

    Parameters
    ----------
    bias
        That the values of the state's slices were already divided by.
    """
    slices, host = state.slices, state.operator.backend.host
    predicted = host(state.prediction).astype(np.float64)
    weights = host(state.weights.pixels).astype(np.float64) / (options.model_noise * state.weights.noise**2)
    residual = slices.values - predicted
    # what differs from slice to slice is left to gains
    count = np.maximum(slices.sum_per_slice(slices.mask), 1)
    means = [slices.per_pixel(slices.sum_per_slice(values * slices.mask) / count) for values in bias.terms(slices)]
    terms = [values - mean for values, mean in zip(bias.terms(slices), means, strict=True)]
    stack_of, coefficients = slices.per_pixel(slices.stack_index), bias.coefficients.copy()
    for stack in np.unique(slices.stack_index):
        inside = slices.mask & (stack_of == stack)
        jacobian = predicted[inside, None] * np.stack([values[inside] for values in terms], axis=1)
        weighted = weights[inside, None] * jacobian
        curvature = weighted.T @ jacobian + np.eye(N_TERMS) / options.spread**2
        gradient = weighted.T @ residual[inside] - coefficients[stack] / options.spread**2
        coefficients[stack] += np.linalg.solve(curvature, gradient)
    found = replace(bias, coefficients=coefficients)
    return found if max(found.spreads(slices).values()) > options.least else bias

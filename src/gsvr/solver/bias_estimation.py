"""Bias fields from residuals.

The field of Gaussians is one for all stacks, so what a stack shows brighter or darker than predicted, smoothly over
space, is its bias. One that all stacks have in common cannot be told from the anatomy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

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


def _within_slices(terms: Float[np.ndarray, "9 q"], slice_of: Int[np.ndarray, " q"]) -> Float[np.ndarray, "9 q"]:
    """Minus their mean over each slice: what differs from slice to slice is left to gains."""
    first = np.flatnonzero(np.diff(slice_of, prepend=-1))
    counts = np.diff(first, append=len(slice_of))
    return terms - np.repeat(np.add.reduceat(terms, first, axis=1) / counts, counts, axis=1)

"""Amplitudes of free Gaussians by preconditioned conjugate gradients (see `gsvr.solver.amplitudes` for the problem)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float32

from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.priors.neighbours import NeighbourPrior


def solve_free_amplitudes(
    operator: AcquisitionOperator,
    values: Float32[np.ndarray, " p"],
    weights: Float32[np.ndarray, " p"],
    prior: NeighbourPrior,
    strength: float,
    precondition: Callable[[np.ndarray], np.ndarray],
    start: Float32[np.ndarray, " n"],
    prediction: Float32[np.ndarray, " p"],
    iterations: int,
    pull: Float32[np.ndarray, " n"] | None = None,
) -> tuple[Float32[np.ndarray, " n"], Float32[np.ndarray, " p"]]:
    """Warm-started conjugate gradients: amplitudes, and their prediction.

    Parameters
    ----------
    precondition
        Symmetric and positive, see `gsvr.solver.priors.neighbours.sharpening`.
    start, prediction
        Where to start, and A c there.
    pull
        Added to the right-hand side A^T W y.
    """
    amplitudes, predicted = start.copy(), prediction.copy()
    gradient = operator.adjoint(weights * (values - predicted)) - prior.apply(amplitudes, strength)
    if pull is not None:
        gradient += pull
    direction = precondition(gradient)
    rho = float(gradient @ direction)
    for _ in range(iterations):
        if rho <= 0:  # nothing is left to be found
            break
        along = operator.predict(direction)
        curved = operator.adjoint(weights * along) + prior.apply(direction, strength)
        step = np.float32(rho / float(direction @ curved))
        amplitudes += step * direction
        predicted += step * along
        gradient -= step * curved
        better = precondition(gradient)
        rho, previous = float(gradient @ better), rho
        direction = better + np.float32(rho / previous) * direction
    return amplitudes, predicted

"""Amplitudes of a field: the linear half of the reconstruction.

For fixed poses, weights and prior the amplitudes minimise

    1/2 sum_p W_p (y_p - (A c)_p)^2 + 1/2 strength c^T L c,

a linear least-squares problem: (A^T W A + strength L) c = A^T W y.
"""

from __future__ import annotations

from dataclasses import replace

from gsvr.backends.protocol import Array
from gsvr.operators.acquisition import Operator
from gsvr.solver.conjugate_gradients import Solution, conjugate_gradients
from gsvr.solver.priors.protocol import QuadraticPrior
from gsvr.solver.state import State


def solve_amplitudes(
    operator: Operator,
    values: Array,
    weights: Array,
    prior: QuadraticPrior,
    strength: float,
    start: Array,
    prediction: Array | None = None,
    iterations: int = 10,
    pull: Array | None = None,
    diagonal: Array | None = None,
) -> Solution:
    """Warm-started preconditioned conjugate gradients; the image of the solution c is the prediction A c.

    Parameters
    ----------
    values, weights
        Recorded pixels y and their weights W.
    prior, strength
        L and its factor.
    start, prediction
        Amplitudes to start from, and A c for them, if known; saves one application.
    pull
        Added to the right-hand side A^T W y.
    diagonal
        Of A^T W A, at least nearly, if known; saves one application. It decides how fast the steps converge, not where.
    """
    diagonal = operator.diagonal(weights) if diagonal is None else diagonal
    prediction = operator.predict(start) if prediction is None else prediction
    gradient = prior.apply(start, -strength, operator.adjoint(weights * (values - prediction)))
    if pull is not None:
        gradient += pull

    def normal(direction: Array) -> tuple[Array, Array]:
        along = operator.predict(direction)
        return prior.apply(direction, strength, operator.adjoint(weights * along)), along

    precondition = prior.preconditioner(diagonal, strength)
    return conjugate_gradients(normal, start, prediction, gradient, precondition, operator.backend, iterations)


def refit(state: State, iterations: int) -> State:
    """Better amplitudes at the poses, weights and gains of a state."""
    operator, weights = state.operator, state.weights
    strength = state.white_strength
    assert state.prior is not None  # else it would have no strength
    diagonal = operator.diagonal(weights.pixels) if state.diagonal is None else state.diagonal
    found = solve_amplitudes(
        operator,
        operator.pixels.values,
        weights.pixels,
        state.prior.at(state.amplitudes),
        strength,
        state.amplitudes,
        state.prediction,
        iterations,
        diagonal=diagonal,
    )
    return replace(state, amplitudes=found.values, prediction=found.image, diagonal=diagonal)

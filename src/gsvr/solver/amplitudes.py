"""Amplitudes by preconditioned conjugate gradients: the linear half of the reconstruction.

For fixed poses, weights and prior the amplitudes minimise

    1/2 sum_p W_p (y_p - (A c)_p)^2 + 1/2 strength c^T L c,

a linear least-squares problem: (A^T W A + strength L) c = A^T W y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from gsvr import compiled
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.priors.lattice import QuadraticPrior


@dataclass(frozen=True)
class LinearSolution:
    """What conjugate gradients found.

    Attributes
    ----------
    amplitudes
        Solution on the lattice.
    prediction
        A c for it, without another application of the operator.
    diagonal
        That of A^T W A, for `solve_amplitudes` at nearly the same poses and weights.
    iterations
        Steps taken.
    converged
        Whether the gradient fell below the tolerance (otherwise the steps ran out).
    """

    amplitudes: Float32[np.ndarray, "nx ny nz"]
    prediction: Float32[np.ndarray, " p"]
    diagonal: Float32[np.ndarray, "nx ny nz"]
    iterations: int
    converged: bool


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a.ravel(), b.ravel()))


def _step(step: np.float32, *grids: np.ndarray) -> float:
    """One step along the first of `grids`; the new gradient times itself preconditioned (``conjugate_gradients.c``)."""
    products = np.empty(len(grids[0]), np.float32)
    compiled.run("step_conjugate_gradients", len(products), grids[0][0].size, float(step), *grids, products)
    return float(products.sum(dtype=np.float64))


def solve_amplitudes(
    operator: AcquisitionOperator,
    values: Float32[np.ndarray, " p"],
    weights: Float32[np.ndarray, " p"],
    prior: QuadraticPrior,
    strength: float,
    start: Float32[np.ndarray, "nx ny nz"],
    prediction: Float32[np.ndarray, " p"] | None = None,
    iterations: int = 10,
    tolerance: float = 1e-3,
    pull: Float32[np.ndarray, "nx ny nz"] | None = None,
    diagonal: Float32[np.ndarray, "nx ny nz"] | None = None,
) -> LinearSolution:
    """Warm-started conjugate gradients with a diagonal preconditioner.

    Parameters
    ----------
    prediction
        A c for `start`, if known; saves one application.
    tolerance
        Stop when the preconditioned gradient norm has fallen to this share of what it was at `start`.
    pull
        Added to the right-hand side A^T W y.
    diagonal
        Of A^T W A, at least nearly, if known; saves one application. It decides how fast the steps converge, not where.
    """
    diagonal = operator.diagonal(weights) if diagonal is None else diagonal
    total, support = diagonal + np.float32(strength) * prior.diagonal(), operator.lattice.support
    floor = np.float32(1e-4 * total.sum(dtype=np.float64) / max(operator.lattice.n_sites, 1))
    inverse = support / np.maximum(total, floor)

    amplitudes = start.copy()
    predicted = operator.predict(amplitudes) if prediction is None else prediction.copy()
    right = operator.adjoint(weights * (values - predicted))
    gradient = prior.apply(amplitudes, -strength, right)
    if pull is not None:
        gradient += operator.lattice.support * pull
    direction = inverse * gradient
    rho = _dot(gradient, direction)
    scale = rho
    preconditioned, count = np.empty_like(direction), 0
    while count < iterations and rho > tolerance**2 * scale:
        count += 1
        along = operator.predict(direction)
        curved = prior.apply(direction, strength, operator.adjoint(weights * along))
        step = np.float32(rho / _dot(direction, curved))
        along *= step
        predicted += along
        rho, previous = _step(step, direction, curved, inverse, amplitudes, gradient, preconditioned), rho
        direction *= np.float32(rho / previous)
        direction += preconditioned
    return LinearSolution(amplitudes, predicted, diagonal, count, rho <= tolerance**2 * scale)

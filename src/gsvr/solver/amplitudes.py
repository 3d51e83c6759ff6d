"""Amplitudes by preconditioned conjugate gradients: the linear half of the reconstruction.

For fixed poses, weights and prior the amplitudes minimise

    1/2 sum_p W_p (y_p - (A c)_p)^2 + 1/2 strength c^T L c,

a linear least-squares problem: (A^T W A + strength L) c = A^T W y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from gsvr.forward import AcquisitionOperator
from gsvr.solver.prior import QuadraticPrior


@dataclass(frozen=True)
class LinearSolution:
    """What conjugate gradients found.

    Attributes
    ----------
    amplitudes
        Solution on the lattice.
    prediction
        A c for it, without another application of the operator.
    iterations
        Steps taken.
    converged
        Whether the gradient fell below the tolerance (otherwise the steps ran out).
    """

    amplitudes: Float32[np.ndarray, "nx ny nz"]
    prediction: Float32[np.ndarray, " p"]
    iterations: int
    converged: bool


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.dot(a.ravel(), b.ravel()))


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
    """
    diagonal = operator.diagonal(weights) + np.float32(strength) * prior.diagonal()
    floor = np.float32(1e-4 * diagonal[operator.lattice.support].mean())
    inverse = np.where(operator.lattice.support, 1 / np.maximum(diagonal, floor), 0).astype(np.float32)

    amplitudes = start.copy()
    predicted = operator.predict(amplitudes) if prediction is None else prediction.copy()
    right = operator.adjoint(weights * (values - predicted))
    gradient = right - np.float32(strength) * prior.apply(amplitudes)
    if pull is not None:
        gradient += operator.lattice.support * pull
    direction = inverse * gradient
    rho = _dot(gradient, direction)
    scale = rho
    count = 0
    while count < iterations and rho > tolerance**2 * scale:
        count += 1
        along = operator.predict(direction)
        curved = operator.adjoint(weights * along) + np.float32(strength) * prior.apply(direction)
        step = np.float32(rho / _dot(direction, curved))
        amplitudes += step * direction
        predicted += step * along
        gradient -= step * curved
        preconditioned = inverse * gradient
        rho, previous = _dot(gradient, preconditioned), rho
        direction = preconditioned + np.float32(rho / previous) * direction
    return LinearSolution(amplitudes, predicted, count, rho <= tolerance**2 * scale)

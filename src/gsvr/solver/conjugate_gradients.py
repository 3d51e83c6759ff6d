"""Preconditioned conjugate gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gsvr.backends import Backend
from gsvr.backends.protocol import Array


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found.

    Attributes
    ----------
    values
        The solution.
    image
        Its image, carried along.
    iterations
        Steps taken.
    converged
        Whether the gradient fell below the tolerance (otherwise the steps ran out).
    """

    values: Array
    image: Array
    iterations: int
    converged: bool


def conjugate_gradients(
    normal: Callable[[Array], tuple[Array, Array]],
    start: Array,
    image: Array,
    gradient: Array,
    precondition: Callable[[Array], Array],
    backend: Backend,
    iterations: int,
    tolerance: float = 1e-3,
) -> Solution:
    """Solve N x = b for a symmetric positive N = A^T W A + ..., from a warm start.

    Parameters
    ----------
    normal
        N d of a direction d, and its image A d.
    start, image
        Where to start, and A times it. Both stay as they are.
    gradient
        b - N x at the start; overwritten.
    precondition
        Symmetric and positive: about the inverse of N.
    tolerance
        Stop when the preconditioned norm of the gradient has fallen to this share of what it was at the start.
    """
    values, image = 1 * start, 1 * image
    direction = precondition(gradient)
    rho = _dot(gradient, direction)
    enough, count = tolerance**2 * rho, 0
    while count < iterations and rho > enough:
        count += 1
        curved, along = normal(direction)
        size = rho / _dot(direction, curved)
        along *= size
        image += along
        backend.step(size, direction, curved, values, gradient)
        better = precondition(gradient)
        rho, previous = _dot(gradient, better), rho
        direction *= rho / previous
        direction += better
    return Solution(values, image, count, rho <= enough)


def _dot(a: Array, b: Array) -> float:
    return float(a.reshape(-1) @ b.reshape(-1))

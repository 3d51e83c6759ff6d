"""Eigenvalues and eigenvectors of many symmetric 3 x 3 matrices on a device, by Jacobi's rotations.

A closed form loses the axes where eigenvalues lie close to each other; libraries for matrices of any size take one
matrix after the other. Rotations of all matrices at once are some hundred operations, whatever their number.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

# The off-diagonal part falls quadratically: what is left after five rounds is below the rounding of float64.
_ROUNDS = 6
_PAIRS = ((0, 1, 2), (0, 2, 1), (1, 2, 0))


def symmetric_eigen(matrices: Float[Tensor, "n 3 3"]) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3 3"]]:
    """Eigenvalues in ascending order, and eigenvectors as columns; nothing waits for the device."""
    diagonal = [matrices[:, axis, axis] for axis in range(3)]
    off = {(a, b): matrices[:, a, b] for a, b, _ in _PAIRS}
    axes = list(torch.eye(3, dtype=matrices.dtype, device=matrices.device).expand(len(matrices), 3, 3).unbind(2))
    for _ in range(_ROUNDS):
        for a, b, rest in _PAIRS:
            turned = off[a, b]
            tangent = _tangent(diagonal[b] - diagonal[a], 2 * turned)
            cosine = torch.rsqrt(1 + tangent * tangent)
            sine = tangent * cosine
            diagonal[a], diagonal[b] = diagonal[a] - tangent * turned, diagonal[b] + tangent * turned
            off[a, b] = torch.zeros_like(turned)
            first, second = (min(a, rest), max(a, rest)), (min(b, rest), max(b, rest))
            off[first], off[second] = (
                cosine * off[first] - sine * off[second],
                sine * off[first] + cosine * off[second],
            )
            cosine, sine = cosine[:, None], sine[:, None]
            axes[a], axes[b] = cosine * axes[a] - sine * axes[b], sine * axes[a] + cosine * axes[b]
    eigenvalues, order = torch.stack(diagonal, 1).sort(dim=1)
    return eigenvalues, torch.stack(axes, 2).gather(2, order[:, None].expand(-1, 3, -1))


def _tangent(difference: Float[Tensor, " n"], twice: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Tangent of the smaller angle that turns a pair onto its axes, from a_qq - a_pp and 2 a_pq."""
    below = difference + torch.copysign(torch.hypot(difference, twice), difference)
    return (twice / below).masked_fill(below == 0, 0)

"""Neighbours of free Gaussians on a device: their prior, and the preconditioner, of `gsvr.solver.priors.neighbours`.

Every Gaussian has a column of neighbours, padded to the longest, so that sums over them are gathered and not scattered:
nothing depends on an order, and any device can do it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from gsvr.device_solver.device_neighbour_search import DevicePairs
from gsvr.solver.priors.neighbours import NeighbourOptions

# Of the mean of the diagonal: below that a Gaussian is seen by nothing.
_LEAST_DIAGONAL = 1e-3


class DeviceNeighbours:
    """The pairs of some Gaussians, the quadratic that touches their energy, and the preconditioner.

    Parameters
    ----------
    pairs
        Which Gaussians are neighbours.
    level
        Intensity of a field of amplitudes one.
    options
        Edge, and how much the preconditioner sharpens.
    """

    def __init__(self, pairs: DevicePairs, level: float, options: NeighbourOptions) -> None:
        self._options = options
        self._per_edge = level / options.edge
        n, n_pairs, device = pairs.n_gaussians, len(pairs.first), pairs.first.device
        others, numbers = pairs.columns()
        self._shape = others.shape
        self._others = others.flatten()
        # the last weight is that of no neighbour
        weights = torch.cat([pairs.weights * self._per_edge**2, torch.zeros(1, device=device)])
        self._weights = weights[numbers]
        there = numbers < n_pairs
        root = torch.rsqrt(there.sum(0).clamp(min=1).float())
        self._adjacency = there * root * root[others]
        self._bonds = torch.zeros_like(self._weights)
        self._diagonal = torch.zeros(n, device=device)
        self._root = torch.zeros(n, device=device)

    def _gathered(self, values: Float32[Tensor, " n"]) -> Float32[Tensor, "k n"]:
        return values.index_select(0, self._others).view(self._shape)

    def reweight(self, amplitudes: Float32[Tensor, " n"]) -> None:
        """Touch the energy at other amplitudes."""
        difference = self._per_edge * (amplitudes - self._gathered(amplitudes))
        torch.mul(self._weights, torch.rsqrt(1 + difference * difference), out=self._bonds)
        self._diagonal.copy_(self._bonds.sum(0))

    def apply(self, values: Float32[Tensor, " n"], strength: Float32[Tensor, ""]) -> Float32[Tensor, " n"]:
        """Strength L c, with L of the energy."""
        return strength * (self._diagonal * values - (self._bonds * self._gathered(values)).sum(0))

    def prepare(self, diagonal: Float32[Tensor, " n"], strength: Float32[Tensor, ""]) -> None:
        """Make the preconditioner for a normal matrix A^T W A with this diagonal, and the prior."""
        total = diagonal + strength * self._diagonal
        self._root.copy_(torch.rsqrt(torch.maximum(total, _LEAST_DIAGONAL * total.mean())))

    def precondition(self, gradient: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
        """See `gsvr.solver.priors.neighbours.sharpening`."""
        options, values = self._options, self._root * gradient
        for _ in range(options.sharpenings):
            rough = values - (self._adjacency * self._gathered(values)).sum(0)
            values = values + options.sharpening * rough
        return self._root * values

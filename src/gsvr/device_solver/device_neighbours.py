"""Neighbours of free Gaussians on a device: their prior, and the preconditioner, of `gsvr.solver.neighbour_prior`.

Every Gaussian has a column of neighbours, padded to the longest, so that sums over them are gathered and not scattered:
nothing depends on an order, and any device can do it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32, Int32
from torch import Tensor

from gsvr.solver.neighbour_prior import NeighbourOptions, Neighbours

# Of the mean of the diagonal: below that a Gaussian is seen by nothing.
_LEAST_DIAGONAL = 1e-3


class DeviceNeighbours:
    """The pairs of some Gaussians, the quadratic that touches their energy, and the preconditioner.

    Parameters
    ----------
    neighbours, level
        As of `gsvr.solver.free_rounds.FreeState`.
    options
        Edge, and how much the preconditioner sharpens.
    """

    def __init__(
        self, neighbours: Neighbours, n: int, level: float, options: NeighbourOptions, device: torch.device
    ) -> None:
        self._options = options
        self._per_edge = level / options.edge
        others, pairs = _columns(neighbours, n)

        def move(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values)).to(dtype).to(device)

        self._shape = others.shape
        self._others = move(others.ravel(), torch.int32)
        # the last weight is that of no neighbour
        weights = np.append(neighbours.weights, 0) * self._per_edge**2
        self._weights = move(weights[pairs], torch.float32)
        there = pairs < len(neighbours.first)
        root = 1 / np.sqrt(np.maximum(there.sum(axis=0), 1))
        self._adjacency = move(there * root * root[others], torch.float32)
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
        """See `gsvr.solver.neighbour_prior.sharpening`."""
        options, values = self._options, self._root * gradient
        for _ in range(options.sharpenings):
            rough = values - (self._adjacency * self._gathered(values)).sum(0)
            values = values + options.sharpening * rough
        return self._root * values


def _columns(neighbours: Neighbours, n: int) -> tuple[Int32[np.ndarray, "k n"], Int32[np.ndarray, "k n"]]:
    """Neighbours of every Gaussian, numbers of the pairs; where there is none, itself and one past the last pair."""
    n_pairs = len(neighbours.first)
    here = np.concatenate([neighbours.first, neighbours.second])
    there = np.concatenate([neighbours.second, neighbours.first])
    order = np.argsort(here, kind="stable")
    counts = np.bincount(here, minlength=n)
    here, there, pair = here[order], there[order], np.tile(np.arange(n_pairs), 2)[order]
    place = np.arange(len(here)) - np.repeat(np.cumsum(counts) - counts, counts)
    others = np.tile(np.arange(n, dtype=np.int32), (max(int(counts.max()), 1), 1))
    pairs = np.full_like(others, n_pairs)
    others[place, here], pairs[place, here] = there, pair
    return others, pairs

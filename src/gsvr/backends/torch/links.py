"""Links between neighbouring free Gaussians on tensors.

Every Gaussian has a column of neighbours, padded to the longest, so that sums over them are gathered and not scattered:
always the same order, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from gsvr.backends.torch.tensors import moved
from gsvr.model.neighbours import Neighbours


@dataclass(frozen=True)
class NeighbourColumns:
    """The neighbours of every Gaussian, one below the other.

    Attributes
    ----------
    others, pairs
        The neighbours, and the pair that each comes from; zero below the last.
    there
        Whether there is one.
    weights
        Of the pair; zero below the last.
    n_pairs
        How many pairs there are.
    """

    others: Int64[Tensor, "k n"]
    pairs: Int64[Tensor, "k n"]
    there: Bool[Tensor, "k n"]
    weights: Float32[Tensor, "k n"]
    n_pairs: int

    @staticmethod
    def of(neighbours: Neighbours, device: torch.device) -> NeighbourColumns:
        """Copy pairs to a device."""
        first, columns, pairs = neighbours.by_gaussian
        counts = np.diff(first)
        gaussian = np.repeat(np.arange(neighbours.n_gaussians), counts)
        row = np.arange(len(columns)) - first[gaussian]
        shape = (int(counts.max(initial=0)), neighbours.n_gaussians)

        def padded(values: np.ndarray, dtype: torch.dtype) -> Tensor:
            table = np.zeros(shape, values.dtype)
            table[row, gaussian] = values
            return moved(table, dtype, device)

        return NeighbourColumns(
            padded(columns, torch.int64),
            padded(pairs, torch.int64),
            padded(np.ones(len(columns), bool), torch.bool),
            padded(neighbours.weights[pairs], torch.float32),
            len(neighbours.first),
        )


class TorchLinks:
    """See `gsvr.backends.protocol.NeighbourLinks`.

    Parameters
    ----------
    bonds
        Of each Gaussian to its neighbours.
    sums
        What stands on the diagonal.
    """

    def __init__(self, columns: NeighbourColumns, bonds: Float32[Tensor, "k n"], sums: Float32[Tensor, " n"]) -> None:
        self._columns, self._bonds, self._sums = columns, bonds, sums

    @staticmethod
    def between(columns: NeighbourColumns, amplitudes: Float32[Tensor, " n"], scale: float) -> TorchLinks:
        """Links weighed at some amplitudes."""
        difference = float(scale) * (amplitudes - amplitudes[columns.others])
        bonds = columns.weights * float(scale) ** 2 * torch.rsqrt(1 + difference * difference)
        return TorchLinks(columns, bonds, bonds.sum(0))

    @staticmethod
    def normalised(columns: NeighbourColumns) -> TorchLinks:
        """The normalised Laplacian."""
        root = torch.rsqrt(columns.there.sum(0).clamp(min=1).to(torch.float32))
        return TorchLinks(columns, columns.there * root * root[columns.others], torch.ones_like(root))

    def apply(
        self, values: Float32[Tensor, " n"], factor: float = 1.0, start: Float32[Tensor, " n"] | None = None
    ) -> Float32[Tensor, " n"]:
        applied = float(factor) * (self._sums * values - (self._bonds * values[self._columns.others]).sum(0))
        return applied if start is None else start + applied

    def diagonal(self) -> Float32[Tensor, " n"]:
        return self._sums

    def weights(self) -> Float32[np.ndarray, " pairs"]:
        """Weight of every pair: one of its two entries, which are equal."""
        weights, there = np.empty(self._columns.n_pairs, np.float32), self._columns.there
        weights[self._columns.pairs[there].cpu().numpy()] = self._bonds[there].cpu().numpy()
        return weights

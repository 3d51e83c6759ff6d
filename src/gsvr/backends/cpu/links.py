"""Links between neighbouring free Gaussians on the CPU (``compiled/c/gaussian_links.c``)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from gsvr.compiled import Structure, run
from gsvr.model.neighbours import Neighbours

# Gaussians that one thread takes at a time.
_CHUNK = 4096


class CpuLinks:
    """See `gsvr.backends.protocol.NeighbourLinks`.

    Parameters
    ----------
    bonds
        Of each Gaussian to its neighbours, in the order of `Neighbours.by_gaussian`.
    sums
        What stands on the diagonal.
    """

    def __init__(
        self, neighbours: Neighbours, bonds: Float32[np.ndarray, " twice_pairs"], sums: Float32[np.ndarray, " n"]
    ) -> None:
        self._neighbours, self._bonds, self._sums = neighbours, bonds, sums
        first, columns, _ = neighbours.by_gaussian
        self._structure = Structure(
            "gaussian_links", n=len(sums), row_first=first, columns=columns, bonds=bonds, sums=sums
        )

    @staticmethod
    def between(neighbours: Neighbours, amplitudes: Float32[np.ndarray, " n"], scale: float) -> CpuLinks:
        """Links weighed at some amplitudes."""
        first, columns, pairs = neighbours.by_gaussian
        n, bonds = len(amplitudes), np.empty(len(columns), np.float32)
        sums, amplitudes = np.empty(n, np.float32), np.ascontiguousarray(amplitudes, np.float32)
        run(
            "weigh_links", -(-n // _CHUNK), _CHUNK, n, first, columns, pairs, neighbours.weights, amplitudes,
            float(scale), bonds, sums,
        )  # fmt: skip
        return CpuLinks(neighbours, bonds, sums)

    @staticmethod
    def normalised(neighbours: Neighbours) -> CpuLinks:
        """The normalised Laplacian."""
        first, columns, _ = neighbours.by_gaussian
        counts = np.diff(first)
        root = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        bonds = np.repeat(root, counts) * root[columns]
        return CpuLinks(neighbours, bonds, np.ones(neighbours.n_gaussians, np.float32))

    def apply(
        self, values: Float32[np.ndarray, " n"], factor: float = 1.0, start: Float32[np.ndarray, " n"] | None = None
    ) -> Float32[np.ndarray, " n"]:
        out = np.empty_like(values)
        run("apply_links", -(-len(values) // _CHUNK), _CHUNK, self._structure, float(factor), values, start, out)
        return out

    def diagonal(self) -> Float32[np.ndarray, " n"]:
        return self._sums

    def weights(self) -> Float32[np.ndarray, " pairs"]:
        """Weight of every pair: one of its two entries, which are equal."""
        weights = np.empty(len(self._neighbours.first), np.float32)
        weights[self._neighbours.by_gaussian[2]] = self._bonds
        return weights

"""Bonds between neighbouring sites of a lattice on the CPU (``compiled/c/lattice_bonds.c``)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Int

from gsvr.compiled import Structure, run
from gsvr.compiled.threads import Lazy
from gsvr.model.fields import DIRECTIONS, Lattice


class CpuBonds:
    """See `gsvr.backends.protocol.LatticeBonds`.

    Parameters
    ----------
    bonds
        Weight of each bond, at the site where it starts.
    extent
        First and last (excluded) site of each row of the lattice that any bond may start or end at.
    """

    def __init__(self, bonds: Float32[np.ndarray, "13 nx ny nz"], extent: Int[np.ndarray, "nx ny 2"]) -> None:
        self._bonds = bonds
        nx, ny, nz = bonds.shape[1:]
        self._structure = Structure("lattice_bonds", nx=nx, ny=ny, nz=nz, weights=bonds, extent=extent)

    @staticmethod
    def between(lattice: Lattice, amplitudes: Float32[np.ndarray, "nx ny nz"], edge: float) -> CpuBonds:
        """Bonds weighed at some amplitudes."""
        bonds = np.zeros((len(DIRECTIONS), *lattice.shape), np.float32)
        extent, present = lattice.row_ends, lattice.support.astype(np.float32)
        lengths = (DIRECTIONS**2).sum(axis=1).astype(np.float32)
        lengths *= np.float32((1 / lengths).sum() / 3)  # as strong in all as the three axes alone
        run(
            "weigh_bonds", len(present), *present.shape, DIRECTIONS, lengths, present, extent,
            np.ascontiguousarray(amplitudes, np.float32), float(edge), bonds,
        )  # fmt: skip
        return CpuBonds(bonds, extent)

    def apply(
        self,
        values: Float32[np.ndarray, "nx ny nz"],
        factor: float = 1.0,
        start: Float32[np.ndarray, "nx ny nz"] | None = None,
    ) -> Float32[np.ndarray, "nx ny nz"]:
        out = np.empty_like(values)
        run("apply_bonds", len(out), self._structure, self._row_sums, float(factor), values, start, out)
        return out

    def diagonal(self) -> Float32[np.ndarray, "nx ny nz"]:
        return self._row_sums

    def weights(self) -> Float32[np.ndarray, "13 nx ny nz"]:
        return self._bonds

    @Lazy
    def _row_sums(self) -> Float32[np.ndarray, "nx ny nz"]:
        out, ones = np.empty(self._bonds.shape[1:], np.float32), np.ones(self._bonds.shape[1:], np.float32)
        run("sum_bonds", len(out), self._structure, ones, out)
        return out

"""Edge-preserving prior on the field: neighbouring amplitudes are alike, except across edges.

The energy is mu sum over neighbouring sites of (sqrt(1 + (c_j - c_k)^2 / edge^2) - 1) (Charbonnier), minimised by
reweighting: a quadratic with weight mu / edge^2 / sqrt(1 + (c_j - c_k)^2 / edge^2) touches it from above, so each
reweighted step lowers it. Neighbours are the 13 directions of a 3 x 3 x 3 cube, weighted by 1 / distance^2, so that the
prior hardly prefers the axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int

from gsvr import compiled
from gsvr.compiled import Structure
from gsvr.model.fields import Lattice

DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)])


@dataclass(frozen=True)
class PriorOptions:
    """Strength and edge scale, for intensities scaled so that the bright tissue is near one.

    Attributes
    ----------
    strength
        mu, in units of the noise variance: the energy is weighed against residuals of standard deviation one.
    edge
        Difference between neighbouring amplitudes above which they count as lying across an edge.
    """

    strength: float = 0.05
    edge: float = 0.01


@dataclass(frozen=True)
class QuadraticPrior:
    """The quadratic that touches the edge-preserving energy at some amplitudes: 1/2 c^T L c.

    Attributes
    ----------
    bonds
        Weight of each bond between neighbours; 13 directions.
    extent
        First and last (excluded) site of each row of the lattice that any bond may start or end at.
    """

    bonds: Float32[np.ndarray, "13 nx ny nz"]
    extent: Int[np.ndarray, "nx ny 2"]

    def apply(
        self,
        values: Float32[np.ndarray, "nx ny nz"],
        factor: float = 1.0,
        start: Float32[np.ndarray, "nx ny nz"] | None = None,
    ) -> Float32[np.ndarray, "nx ny nz"]:
        """L c, times `factor`, added to `start` if that is given."""
        out = np.empty_like(values)
        compiled.run("apply_bonds", len(out), self._structure, self._row_sums, factor, values, start, out)
        return out

    def diagonal(self) -> Float32[np.ndarray, "nx ny nz"]:
        """Diagonal of L: the sum of the bonds at each site."""
        return self._row_sums

    @cached_property
    def _structure(self) -> Structure:
        nx, ny, nz = self.bonds.shape[1:]
        return Structure("lattice_bonds", nx=nx, ny=ny, nz=nz, weights=self.bonds, extent=self.extent)

    @cached_property
    def _row_sums(self) -> Float32[np.ndarray, "nx ny nz"]:
        out, ones = np.empty(self.bonds.shape[1:], np.float32), np.ones(self.bonds.shape[1:], np.float32)
        compiled.run("sum_bonds", len(out), self._structure, ones, out)
        return out


def quadratic_prior(lattice: Lattice, amplitudes: Float32[np.ndarray, "nx ny nz"], edge: float) -> QuadraticPrior:
    """Reweighted prior at `amplitudes`; differences well above `edge` (intensity) count as edges."""
    bonds, support = np.zeros((len(DIRECTIONS), *lattice.shape), np.float32), lattice.support
    occupied = support.any(axis=2)
    ends = support.argmax(axis=2), support.shape[2] - support[:, :, ::-1].argmax(axis=2)
    extent = np.stack([np.where(occupied, end, 0) for end in ends], axis=2)
    present = support.astype(np.float32)
    lengths = (DIRECTIONS**2).sum(axis=1).astype(np.float32)
    lengths *= np.float32((1 / lengths).sum() / 3)  # as strong in all as the three axes alone
    compiled.run(
        "weigh_bonds", len(present), *present.shape, DIRECTIONS, lengths, present, extent, amplitudes, float(edge),
        bonds,
    )  # fmt: skip
    return QuadraticPrior(bonds, extent)


def prior_energy(lattice: Lattice, amplitudes: Float32[np.ndarray, "nx ny nz"], edge: float) -> float:
    """The edge-preserving energy itself (mu = 1): what reweighting lowers."""
    lengths = (DIRECTIONS**2).sum(axis=1)
    scale = (1 / lengths).sum() / 3
    total = 0.0
    for (dx, dy, dz), length in zip(DIRECTIONS, lengths, strict=True):
        first = tuple(slice(max(0, -d), n - max(0, d)) for d, n in zip((dx, dy, dz), lattice.shape, strict=True))
        second = tuple(slice(max(0, d), n + min(0, d)) for d, n in zip((dx, dy, dz), lattice.shape, strict=True))
        both = lattice.support[first] & lattice.support[second]
        difference = (amplitudes[first].astype(np.float64) - amplitudes[second])[both]
        total += float((np.sqrt(1 + (difference / edge) ** 2) - 1).sum()) / (length * scale)
    return total

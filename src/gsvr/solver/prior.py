"""Edge-preserving prior on the field: neighbouring amplitudes are alike, except across edges.

The energy is mu sum over neighbouring sites of (sqrt(1 + (c_j - c_k)^2 / edge^2) - 1) (Charbonnier), minimised by
reweighting: a quadratic with weight mu / edge^2 / sqrt(1 + (c_j - c_k)^2 / edge^2) touches it from above, so each
reweighted step lowers it. Neighbours are the 13 directions of a 3 x 3 x 3 cube, weighted by 1 / distance^2, so that the
prior hardly prefers the axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numba import njit

from gsvr.field import Lattice
from gsvr.kernels.threads import parallel_for

DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)])


@njit(nogil=True, fastmath=True, cache=True)
def _apply_plane(ix, directions, bonds, values, out):
    """Row sums of the weighted graph Laplacian for one plane of the lattice."""
    nx, ny, nz = values.shape
    for n in range(directions.shape[0]):
        dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
        for sign in (1, -1):
            jx = ix + sign * dx
            if jx < 0 or jx >= nx:
                continue
            # a bond is stored at its first end; seen from the second end that is the neighbour
            bx = ix if sign == 1 else jx
            for iy in range(max(0, -sign * dy), min(ny, ny - sign * dy)):
                jy = iy + sign * dy
                by = iy if sign == 1 else jy
                step = sign * dz
                low, high = max(0, -step), min(nz, nz - step)
                shift = 0 if sign == 1 else step
                # slices that start at the first site: plain indices from zero are what LLVM can vectorise
                row, here = out[ix, iy, low:high], values[ix, iy, low:high]
                there = values[jx, jy, low + step : high + step]
                bond = bonds[n, bx, by, low + shift : high + shift]
                for i in range(high - low):
                    row[i] += bond[i] * (here[i] - there[i])


@njit(nogil=True, fastmath=True, cache=True)
def _bond_plane(ix, directions, lengths, support, values, edge, bonds):
    """Weights of the bonds that start in one plane: 1 / (edge^2 sqrt(1 + (difference / edge)^2) length^2)."""
    nx, ny, nz = values.shape
    for n in range(directions.shape[0]):
        dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
        jx = ix + dx
        if jx < 0 or jx >= nx:
            continue
        factor = np.float32(1.0) / (edge * edge * lengths[n])
        for iy in range(max(0, -dy), min(ny, ny - dy)):
            low, high = max(0, -dz), min(nz, nz - dz)
            inside, inside_there = support[ix, iy, low:high], support[jx, iy + dy, low + dz : high + dz]
            here, there = values[ix, iy, low:high], values[jx, iy + dy, low + dz : high + dz]
            bond = bonds[n, ix, iy, low:high]
            for i in range(high - low):
                t = (here[i] - there[i]) / edge
                present = factor if inside[i] and inside_there[i] else np.float32(0.0)
                bond[i] = present / np.sqrt(np.float32(1.0) + t * t)


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
    """

    bonds: Float32[np.ndarray, "13 nx ny nz"]

    def apply(self, values: Float32[np.ndarray, "nx ny nz"]) -> Float32[np.ndarray, "nx ny nz"]:
        """L c."""
        out = np.zeros_like(values)
        parallel_for(lambda ix: _apply_plane(ix, DIRECTIONS, self.bonds, values, out), values.shape[0])
        return out

    def diagonal(self) -> Float32[np.ndarray, "nx ny nz"]:
        """Diagonal of L: the sum of the bonds at each site."""
        total = self.bonds.sum(axis=0)
        for bond, (dx, dy, dz) in zip(self.bonds, DIRECTIONS, strict=True):
            total += np.roll(bond, (dx, dy, dz), axis=(0, 1, 2))  # bonds never cross the box, so no wrap
        return total


def quadratic_prior(lattice: Lattice, amplitudes: Float32[np.ndarray, "nx ny nz"], edge: float) -> QuadraticPrior:
    """Reweighted prior at `amplitudes`; differences well above `edge` (intensity) count as edges."""
    bonds = np.zeros((len(DIRECTIONS), *lattice.shape), np.float32)
    lengths = (DIRECTIONS**2).sum(axis=1).astype(np.float32)
    lengths *= np.float32((1 / lengths).sum() / 3)  # as strong in all as the three axes alone
    parallel_for(
        lambda ix: _bond_plane(ix, DIRECTIONS, lengths, lattice.support, amplitudes, np.float32(edge), bonds),
        lattice.shape[0],
    )
    return QuadraticPrior(bonds)


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

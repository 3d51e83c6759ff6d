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

from gsvr.field import Lattice
from gsvr.kernels.numba_compiled import without_allocation
from gsvr.kernels.threads import parallel_for

DIRECTIONS = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)])


# The first direction leads along a row of the lattice; then follow four groups of three (z = -1, 0, 1), each to
# one other row, by these steps along x and y.
_ROW_STEPS = ((0, 1), (1, -1), (1, 0), (1, 1))


@without_allocation
def _add_row(first, last, below, level, above, there, row):
    """row[k] += below[k] there[k - 1] + level[k] there[k] + above[k] there[k + 1] for first <= k < last."""
    end = len(row) - 1
    if first == 0:  # no bond leads out of the lattice
        row[0] += level[0] * there[0] + (above[0] * there[1] if end > 0 else np.float32(0.0))
    if last > end and end > 0:
        row[end] += below[end] * there[end - 1] + level[end] * there[end]
    first, last = max(first, 1), min(last, end)
    inner, down, here, up = row[first:last], there[first - 1 : last], there[first:last], there[first + 1 : last + 1]
    from_below, from_level, from_above = below[first:last], level[first:last], above[first:last]
    for k in range(last - first):
        inner[k] += from_below[k] * down[k] + from_level[k] * here[k] + from_above[k] * up[k]


@without_allocation
def _add_row_back(first, last, below, level, above, there, row):
    """`_add_row` along the same bonds from their other ends: their sites are those of `there`."""
    end = len(row) - 1
    if first == 0:
        row[0] += level[0] * there[0] + (below[1] * there[1] if end > 0 else np.float32(0.0))
    if last > end and end > 0:
        row[end] += above[end - 1] * there[end - 1] + level[end] * there[end]
    first, last = max(first, 1), min(last, end)
    inner, down, here, up = row[first:last], there[first - 1 : last], there[first:last], there[first + 1 : last + 1]
    from_below, from_level, from_above = above[first - 1 : last], level[first:last], below[first + 1 : last + 1]
    for k in range(last - first):
        inner[k] += from_below[k] * down[k] + from_level[k] * here[k] + from_above[k] * up[k]


@without_allocation
def _sum_neighbours(ix, bonds, extent, values, out):
    """For one plane of the lattice, the sum of each site's neighbours times their bonds."""
    nx, ny, nz = values.shape
    for iy in range(ny):
        row, here, along = out[ix, iy], values[ix, iy], bonds[0, ix, iy]
        row[:] = np.float32(0.0)
        first, last = extent[ix, iy, 0], extent[ix, iy, 1]
        if first == last:
            continue
        for k in range(first, min(last, nz - 1)):
            row[k] += along[k] * here[k + 1]
        for k in range(max(first, 1), last):
            row[k] += along[k - 1] * here[k - 1]
        for group in range(4):
            n = 1 + 3 * group
            dx, dy = _ROW_STEPS[group]
            jx, jy = ix + dx, iy + dy
            if jx < nx and 0 <= jy < ny and extent[jx, jy, 0] < extent[jx, jy, 1]:
                three = bonds[n, ix, iy], bonds[n + 1, ix, iy], bonds[n + 2, ix, iy]
                _add_row(first, last, *three, values[jx, jy], row)
            jx, jy = ix - dx, iy - dy
            if jx >= 0 and 0 <= jy < ny and extent[jx, jy, 0] < extent[jx, jy, 1]:
                three = bonds[n, jx, jy], bonds[n + 1, jx, jy], bonds[n + 2, jx, jy]
                _add_row_back(first, last, *three, values[jx, jy], row)


@without_allocation
def _apply_plane(ix, bonds, extent, row_sums, factor, values, out):
    """`factor` times the graph Laplacian for one plane of the lattice: row sums on its diagonal, minus the bonds."""
    _sum_neighbours(ix, bonds, extent, values, out)
    for iy in range(values.shape[1]):
        row, total, here = out[ix, iy], row_sums[ix, iy], values[ix, iy]
        for k in range(extent[ix, iy, 0], extent[ix, iy, 1]):
            row[k] = factor * (total[k] * here[k] - row[k])


@without_allocation
def _bond_plane(ix, directions, lengths, support, extent, values, edge, bonds):
    """Weights of the bonds that start in one plane: 1 / (edge^2 sqrt(1 + (difference / edge)^2) length^2)."""
    nx, ny, nz = values.shape
    inverse_edge = np.float32(1.0) / edge
    for n in range(directions.shape[0]):
        dx, dy, dz = directions[n, 0], directions[n, 1], directions[n, 2]
        jx = ix + dx
        if jx < 0 or jx >= nx:
            continue
        factor = np.float32(1.0) / (edge * edge * lengths[n])
        for iy in range(max(0, -dy), min(ny, ny - dy)):
            low, high = max(extent[ix, iy, 0], -dz), min(extent[ix, iy, 1], nz - dz)
            inside, inside_there = support[ix, iy, low:high], support[jx, iy + dy, low + dz : high + dz]
            here, there = values[ix, iy, low:high], values[jx, iy + dy, low + dz : high + dz]
            bond = bonds[n, ix, iy, low:high]
            for i in range(high - low):
                t = (here[i] - there[i]) * inverse_edge
                bond[i] = factor * inside[i] * inside_there[i] / np.sqrt(np.float32(1.0) + t * t)


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

    def apply(self, values: Float32[np.ndarray, "nx ny nz"], factor: float = 1.0) -> Float32[np.ndarray, "nx ny nz"]:
        """L c, times `factor`."""
        out, scale, row_sums = np.empty_like(values), np.float32(factor), self._row_sums
        parallel_for(
            lambda ix: _apply_plane(ix, self.bonds, self.extent, row_sums, scale, values, out), values.shape[0]
        )
        return out

    def diagonal(self) -> Float32[np.ndarray, "nx ny nz"]:
        """Diagonal of L: the sum of the bonds at each site."""
        return self._row_sums

    @cached_property
    def _row_sums(self) -> Float32[np.ndarray, "nx ny nz"]:
        out, ones = np.empty(self.bonds.shape[1:], np.float32), np.ones(self.bonds.shape[1:], np.float32)
        parallel_for(lambda ix: _sum_neighbours(ix, self.bonds, self.extent, ones, out), len(out))
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
    parallel_for(
        lambda ix: _bond_plane(ix, DIRECTIONS, lengths, present, extent, amplitudes, np.float32(edge), bonds),
        lattice.shape[0],
    )
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

"""Edge-preserving prior on a lattice: neighbouring amplitudes are alike, except across edges.

The energy is mu sum over neighbouring sites of (sqrt(1 + (c_j - c_k)^2 / edge^2) - 1) (Charbonnier), minimised by
reweighting with the bonds mu / edge^2 / sqrt(1 + (c_j - c_k)^2 / edge^2). Neighbours are the 13 directions of a
3 x 3 x 3 cube, weighted by 1 / distance^2, so that the prior hardly prefers the axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gsvr.backends import Backend
from gsvr.backends.protocol import Array, LatticeBonds
from gsvr.model.fields import DIRECTIONS, Lattice
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.priors.protocol import Prior

# Of the mean of the diagonal: below that a site is seen by nothing.
_LEAST_DIAGONAL = 1e-4


@dataclass(frozen=True)
class LatticePrior:
    """Strength and edge scale, for intensities scaled so that the bright tissue is near one.

    Attributes
    ----------
    strength
        mu, in units of the noise variance.
    edge
        Difference between neighbouring amplitudes above which they count as lying across an edge.
    """

    strength: float = 0.05
    edge: float = 0.01

    def on(self, operator: LatticeOperator) -> Prior:
        """The prior on the lattice of an operator."""
        return _PriorOnLattice(self, operator.lattice, operator.backend)


class _PriorOnLattice:
    """See `gsvr.solver.priors.protocol.Prior`."""

    def __init__(self, options: LatticePrior, lattice: Lattice, backend: Backend) -> None:
        self.strength, self._edge = options.strength, options.edge
        self._lattice, self._backend = lattice, backend
        self._support = backend.array(lattice.support.astype(np.float32))

    def at(self, amplitudes: Array) -> QuadraticLatticePrior:
        """The quadratic form that touches the energy at these amplitudes."""
        bonds = self._backend.lattice_bonds(self._lattice, amplitudes, self._edge)
        return QuadraticLatticePrior(bonds, self._support, self._lattice.n_sites, self._backend)


class QuadraticLatticePrior:
    """See `gsvr.solver.priors.protocol.QuadraticPrior`.

    Parameters
    ----------
    support
        One at the sites that carry a Gaussian, zero elsewhere.
    """

    def __init__(self, bonds: LatticeBonds, support: Array, n_sites: int, backend: Backend) -> None:
        self._bonds, self._support, self._n_sites, self._backend = bonds, support, max(n_sites, 1), backend

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        return self._bonds.apply(values, factor, start)

    def preconditioner(self, diagonal: Array, strength: float) -> Callable[[Array], Array]:
        """The inverse of the diagonal."""
        total = diagonal + strength * self._bonds.diagonal()
        inverse = self._support / total.clip(min=_LEAST_DIAGONAL * float(total.sum()) / self._n_sites)
        return lambda gradient: inverse * gradient

    def noise(self, strength: float, rng: np.random.Generator) -> Array:
        """One independent number a bond, with opposite signs at its ends."""
        bonds = self._bonds.weights()
        noise = np.zeros(bonds.shape[1:], np.float32)
        for bond, (dx, dy, dz) in zip(bonds, DIRECTIONS, strict=True):
            part = np.sqrt(np.float32(strength) * bond) * rng.standard_normal(bond.shape, np.float32)
            noise += part
            noise -= np.roll(part, (dx, dy, dz), axis=(0, 1, 2))  # bonds never cross the box, so nothing wraps
        return self._backend.array(noise)

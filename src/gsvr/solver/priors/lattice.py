"""Edge-preserving prior on a lattice: neighbouring amplitudes are alike, except across edges.

The energy is mu sum over neighbouring sites of (sqrt(1 + (c_j - c_k)^2 / edge^2) - 1) (Charbonnier), minimised by
reweighting with the bonds mu / edge^2 / sqrt(1 + (c_j - c_k)^2 / edge^2). Neighbours are the 13 directions of a
3 x 3 x 3 cube, weighted by 1 / distance^2, so that the prior hardly prefers the axes.

On a lattice that is fine for the slices the normal matrix is nearly a blur: it hardly sees how neighbours differ, and
conjugate gradients find that last. There the preconditioner sharpens: D^-1/2 (1 + a (1 - S))^m D^-1/2, with D the
diagonal of the normal matrix and S the binomial smoothing (1, 2, 1) / 4 along each axis. It is symmetric and positive:
the solution stays the same. Where slices move, a few steps with the diagonal alone leave a field smoother than the
prior would: in strong noise it misleads them less.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

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
    sharpening, sharpenings
        a and m of the preconditioner, in stages that ask for it.
    """

    strength: float = 0.05
    edge: float = 0.01
    sharpening: float = 4.0
    sharpenings: int = 2

    def on(self, operator: LatticeOperator, sharpened: bool = False) -> Prior:
        """The prior on the lattice of an operator."""
        options = self if sharpened else replace(self, sharpenings=0)
        return _PriorOnLattice(options, operator.lattice, operator.backend)


class _PriorOnLattice:
    """See `gsvr.solver.priors.protocol.Prior`."""

    def __init__(self, options: LatticePrior, lattice: Lattice, backend: Backend) -> None:
        self.strength, self._options = options.strength, options
        self._lattice, self._backend = lattice, backend
        self._support = backend.array(lattice.support.astype(np.float32))

    def at(self, amplitudes: Array) -> QuadraticLatticePrior:
        """The quadratic form that touches the energy at these amplitudes."""
        bonds = self._backend.lattice_bonds(self._lattice, amplitudes, self._options.edge)
        return QuadraticLatticePrior(bonds, self._support, self._options, self._backend)


class QuadraticLatticePrior:
    """See `gsvr.solver.priors.protocol.QuadraticPrior`.

    Parameters
    ----------
    support
        One at the sites that carry a Gaussian, zero elsewhere.
    """

    def __init__(self, bonds: LatticeBonds, support: Array, options: LatticePrior, backend: Backend) -> None:
        self._bonds, self._support, self._options, self._backend = bonds, support, options, backend

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        return self._bonds.apply(values, factor, start)

    def preconditioner(self, diagonal: Array, strength: float) -> Callable[[Array], Array]:
        """Sharpening between two scalings by the root of the diagonal."""
        total = diagonal + strength * self._bonds.diagonal()
        least = _LEAST_DIAGONAL * float(total.sum()) / max(float(self._support.sum()), 1.0)
        root = self._support * total.clip(min=least) ** -0.5

        def precondition(gradient: Array) -> Array:
            values = root * gradient
            for _ in range(self._options.sharpenings):
                values = values + self._options.sharpening * (values - _smoothed(values))
            return root * values

        return precondition

    def noise(self, strength: float, rng: np.random.Generator) -> Array:
        """One independent number a bond, with opposite signs at its ends."""
        bonds = self._bonds.weights()
        noise = np.zeros(bonds.shape[1:], np.float32)
        for bond, (dx, dy, dz) in zip(bonds, DIRECTIONS, strict=True):
            part = np.sqrt(np.float32(strength) * bond) * rng.standard_normal(bond.shape, np.float32)
            noise += part
            noise -= np.roll(part, (dx, dy, dz), axis=(0, 1, 2))  # bonds never cross the box, so nothing wraps
        return self._backend.array(noise)


def _smoothed(values: Array) -> Array:
    """Averages of sites and their neighbours, (1, 2, 1) / 4 along each axis; beyond the lattice there is nothing."""
    for axis in range(3):
        after: list[slice] = [slice(None)] * 3
        before = list(after)
        after[axis], before[axis] = slice(1, None), slice(None, -1)
        there, back, smoothed = tuple(after), tuple(before), 0.5 * values
        smoothed[there] += 0.25 * values[back]
        smoothed[back] += 0.25 * values[there]
        values = smoothed
    return values

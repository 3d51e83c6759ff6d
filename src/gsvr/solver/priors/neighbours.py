"""Edge-preserving prior on free Gaussians: neighbours have similar amplitudes, except across edges.

The energy is the one of the lattice (`gsvr.solver.priors.lattice`), over pairs of neighbours.

Wide Gaussians overlap, so their normal matrix is nearly a blur: it hardly sees how neighbours differ, and conjugate
gradients find that last. The preconditioner sharpens: D^-1/2 (1 + a L)^m D^-1/2, with D the diagonal of the normal
matrix and L the normalised Laplacian of the neighbours. It is symmetric and positive: the solution stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gsvr.backends import Backend
from gsvr.backends.protocol import Array, NeighbourLinks
from gsvr.model.neighbours import Neighbours, find_neighbours
from gsvr.operators.gaussians import GaussianOperator
from gsvr.solver.priors.protocol import Prior

# Of the mean of the diagonal: below that a Gaussian is seen by nothing.
_LEAST_DIAGONAL = 1e-3


@dataclass(frozen=True)
class NeighbourPrior:
    """Neighbours, and what they are used for. Intensities are scaled so that bright tissue is near one.

    Attributes
    ----------
    count
        Nearest neighbours of each Gaussian.
    strength
        Of the prior, in units of the noise variance.
    edge
        Difference between neighbours, as intensity, above which they count as lying across an edge.
    sharpening, sharpenings
        a and m of the preconditioner.
    """

    count: int = 8
    strength: float = 0.03
    edge: float = 0.2
    sharpening: float = 3.0
    sharpenings: int = 3

    def on(self, operator: GaussianOperator, level: float) -> Prior:
        """The prior on the Gaussians of an operator; `level`: intensity of a field whose amplitudes are all one."""
        neighbours = find_neighbours(operator.primitives, self.count)
        return _PriorOnNeighbours(self, neighbours, level, operator.backend)


class _PriorOnNeighbours:
    """See `gsvr.solver.priors.protocol.Prior`."""

    def __init__(self, options: NeighbourPrior, neighbours: Neighbours, level: float, backend: Backend) -> None:
        self.strength, self._options = options.strength, options
        self._neighbours, self._scale, self._backend = neighbours, level / options.edge, backend
        self._laplacian = backend.normalised_laplacian(neighbours)

    def at(self, amplitudes: Array) -> QuadraticNeighbourPrior:
        """The quadratic form that touches the energy at these amplitudes; differences are measured as intensities."""
        links = self._backend.neighbour_links(self._neighbours, amplitudes, self._scale)
        return QuadraticNeighbourPrior(links, self._laplacian, self._neighbours, self._options, self._backend)


class QuadraticNeighbourPrior:
    """See `gsvr.solver.priors.protocol.QuadraticPrior`."""

    def __init__(
        self,
        links: NeighbourLinks,
        laplacian: NeighbourLinks,
        neighbours: Neighbours,
        options: NeighbourPrior,
        backend: Backend,
    ) -> None:
        self._links, self._laplacian, self._neighbours = links, laplacian, neighbours
        self._options, self._backend = options, backend

    def apply(self, values: Array, factor: float = 1.0, start: Array | None = None) -> Array:
        """`factor` L c, added to `start` if that is given."""
        return self._links.apply(values, factor, start)

    def preconditioner(self, diagonal: Array, strength: float) -> Callable[[Array], Array]:
        """Sharpening between two scalings by the root of the diagonal."""
        total = diagonal + strength * self._links.diagonal()
        root = total.clip(min=_LEAST_DIAGONAL * float(total.sum()) / len(total)) ** -0.5

        def precondition(gradient: Array) -> Array:
            values = root * gradient
            for _ in range(self._options.sharpenings):
                values = self._laplacian.apply(values, self._options.sharpening, values)
            return root * values

        return precondition

    def noise(self, strength: float, rng: np.random.Generator) -> Array:
        """One independent number a pair, with opposite signs at its ends."""
        pairs, bonds = self._neighbours, self._links.weights()
        part = np.sqrt(np.float32(strength) * bonds) * rng.standard_normal(len(bonds), np.float32)
        ends = (np.bincount(end, part, pairs.n_gaussians) for end in (pairs.first, pairs.second))
        return self._backend.array(np.subtract(*ends).astype(np.float32))

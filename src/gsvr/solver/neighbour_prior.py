"""Prior on free Gaussians: neighbours have similar amplitudes; and a preconditioner made of the same neighbours.

The energy is strength / 2 sum over pairs of neighbours of w (c_j - c_k)^2, w reweighted at edges as on the lattice
(`gsvr.solver.prior`).

Wide Gaussians overlap, so their normal matrix is nearly a blur: it hardly sees how neighbours differ, and conjugate
gradients find that last. The preconditioner sharpens: D^-1/2 (1 + a L)^m D^-1/2, with D the diagonal of the normal
matrix and L the normalised Laplacian of the neighbours. It is symmetric and positive: the solution stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int
from scipy import sparse

from gsvr.field import GaussianField
from gsvr.solver.neighbour_search import nearest_neighbours

# Of the median distance of pairs: closer ones weigh no more than at this distance.
CLOSEST = 0.2


@dataclass(frozen=True)
class NeighbourOptions:
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


@dataclass(frozen=True)
class Neighbours:
    """Pairs of Gaussians that lie near each other.

    Attributes
    ----------
    first, second
        The pairs, each once.
    weights
        Of each pair: 1 / distance^2, three times the number of Gaussians in all, as on a lattice.
    n_gaussians
        How many there are, with and without neighbours.
    """

    first: Int[np.ndarray, " pairs"]
    second: Int[np.ndarray, " pairs"]
    weights: Float32[np.ndarray, " pairs"]
    n_gaussians: int

    @cached_property
    def laplacian(self) -> sparse.csr_matrix:
        """Normalised Laplacian of the pairs."""
        adjacency = _symmetric(np.ones(len(self.first), np.float32), self.first, self.second, self.n_gaussians)
        root = sparse.diags(1 / np.sqrt(np.maximum(np.asarray(adjacency.sum(axis=1)).ravel(), 1)))
        laplacian = sparse.identity(self.n_gaussians) - root @ adjacency @ root
        return laplacian.tocsr().astype(np.float32)


def find_neighbours(field: GaussianField, count: int) -> Neighbours:
    """The nearest of every Gaussian, `count` at most: far from most others there may be fewer."""
    n = len(field.means)
    here, there = nearest_neighbours(field, count)
    key = np.sort(np.minimum(here, there) * n + np.maximum(here, there))
    key = key[np.diff(key, prepend=-1) > 0]  # several times as fast as np.unique
    first, second = key // n, key % n
    if len(key) == 0:
        return Neighbours(first, second, np.zeros(0, np.float32), n)
    lengths = np.linalg.norm(field.means[first] - field.means[second], axis=1)
    weights = 1 / np.maximum(lengths, CLOSEST * np.median(lengths)) ** 2
    weights *= 3 * n / weights.sum()
    return Neighbours(first, second, weights.astype(np.float32), n)


def _symmetric(values: np.ndarray, first: np.ndarray, second: np.ndarray, n: int) -> sparse.csr_matrix:
    both = np.concatenate([values, values]), (np.concatenate([first, second]), np.concatenate([second, first]))
    return sparse.csr_matrix(both, shape=(n, n))


class NeighbourPrior:
    """The quadratic that touches the edge-preserving energy at some amplitudes.

    Parameters
    ----------
    neighbours
        The pairs.
    amplitudes
        Where it touches.
    level
        Intensity of a field of amplitudes one: differences are measured as intensities.
    edge
        See `NeighbourOptions`.
    """

    def __init__(
        self, neighbours: Neighbours, amplitudes: Float32[np.ndarray, " n"], level: float, edge: float
    ) -> None:
        self._neighbours = neighbours
        difference = level / edge * (amplitudes[neighbours.first] - amplitudes[neighbours.second])
        self._bonds = neighbours.weights * np.float32((level / edge) ** 2) / np.sqrt(1 + difference**2)
        n = len(amplitudes)
        bonds = _symmetric(self._bonds, neighbours.first, neighbours.second, n)
        self._diagonal = np.asarray(bonds.sum(axis=1), dtype=np.float32).ravel()
        self._matrix = (sparse.diags(self._diagonal) - bonds).tocsr().astype(np.float32)

    def apply(self, values: Float32[np.ndarray, " n"], strength: float) -> Float32[np.ndarray, " n"]:
        """Strength L c."""
        return np.asarray(np.float32(strength) * (self._matrix @ values))

    def diagonal(self) -> Float32[np.ndarray, " n"]:
        """Diagonal of L."""
        return self._diagonal

    def noise(self, strength: float, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
        """A random vector with covariance strength L: one number a pair, with opposite signs at its ends."""
        part = np.sqrt(np.float32(strength) * self._bonds) * rng.standard_normal(len(self._bonds), np.float32)
        n, pairs = len(self._diagonal), self._neighbours
        return (np.bincount(pairs.first, part, n) - np.bincount(pairs.second, part, n)).astype(np.float32)


def sharpening(
    neighbours: Neighbours, diagonal: Float32[np.ndarray, " n"], options: NeighbourOptions
) -> Callable[[np.ndarray], np.ndarray]:
    """The preconditioner, for a normal matrix with this diagonal."""
    floor = 1e-3 * float(diagonal.mean(dtype=np.float64))
    root = (1 / np.sqrt(np.maximum(diagonal, np.float32(floor)))).astype(np.float32)

    def apply(gradient: np.ndarray) -> np.ndarray:
        values = root * gradient
        for _ in range(options.sharpenings):
            values = values + np.float32(options.sharpening) * (neighbours.laplacian @ values)
        return root * values

    return apply

"""Prior on free Gaussians: neighbours have similar amplitudes; and a preconditioner made of the same neighbours.

The energy is strength / 2 sum over pairs of neighbours of w (c_j - c_k)^2, w reweighted at edges as on the lattice
(`gsvr.solver.priors.lattice`).

Wide Gaussians overlap, so their normal matrix is nearly a blur: it hardly sees how neighbours differ, and conjugate
gradients find that last. The preconditioner sharpens: D^-1/2 (1 + a L)^m D^-1/2, with D the diagonal of the normal
matrix and L the normalised Laplacian of the neighbours. It is symmetric and positive: the solution stays the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int, Int32

from gsvr.compiled import Structure, run
from gsvr.model.fields import GaussianField
from gsvr.solver.priors.neighbour_search import nearest_neighbours

# Gaussians that one thread takes at a time.
_CHUNK = 4096
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
    def by_gaussian(
        self,
    ) -> tuple[Int[np.ndarray, " n1"], Int32[np.ndarray, " twice_pairs"], Int32[np.ndarray, " twice_pairs"]]:
        """Where each Gaussian's neighbours begin; these neighbours; and the pair that each comes from."""
        first = np.zeros(self.n_gaussians + 1, np.int64)
        columns, pairs = (np.empty(2 * len(self.first), np.int32) for _ in range(2))
        run("link_pairs", 1, len(self.first), self.first, self.second, self.n_gaussians, first, columns, pairs)
        return first, columns, pairs

    @cached_property
    def laplacian(self) -> Links:
        """Normalised Laplacian of the pairs."""
        first, columns, _ = self.by_gaussian
        counts = np.diff(first)
        root = (1 / np.sqrt(np.maximum(counts, 1))).astype(np.float32)
        return Links(first, columns, np.repeat(root, counts) * root[columns], np.ones(self.n_gaussians, np.float32))


class Links:
    """A symmetric matrix with entries for neighbours only: `sums` on its diagonal, minus the `bonds`."""

    def __init__(
        self,
        first: Int[np.ndarray, " n1"],
        columns: Int32[np.ndarray, " twice_pairs"],
        bonds: Float32[np.ndarray, " twice_pairs"],
        sums: Float32[np.ndarray, " n"],
    ) -> None:
        self.diagonal = sums
        self._structure = Structure(
            "gaussian_links", n=len(sums), row_first=first, columns=columns, bonds=bonds, sums=sums
        )

    def apply(
        self, values: Float32[np.ndarray, " n"], factor: float = 1.0, start: Float32[np.ndarray, " n"] | None = None
    ) -> Float32[np.ndarray, " n"]:
        """`factor` times the matrix times values, added to `start` if that is given."""
        out = np.empty_like(values)
        run("apply_links", -(-len(values) // _CHUNK), _CHUNK, self._structure, float(factor), values, start, out)
        return out


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
        first, columns, pairs = neighbours.by_gaussian
        n, bonds = len(amplitudes), np.empty(len(columns), np.float32)
        sums, amplitudes = np.empty(n, np.float32), np.ascontiguousarray(amplitudes, np.float32)
        run(
            "weigh_links", -(-n // _CHUNK), _CHUNK, n, first, columns, pairs, neighbours.weights, amplitudes,
            float(level / edge), bonds, sums,
        )  # fmt: skip
        self._bonds = bonds
        self._matrix = Links(first, columns, bonds, sums)

    def apply(self, values: Float32[np.ndarray, " n"], strength: float) -> Float32[np.ndarray, " n"]:
        """Strength L c."""
        return self._matrix.apply(values, strength)

    def diagonal(self) -> Float32[np.ndarray, " n"]:
        """Diagonal of L."""
        return self._matrix.diagonal

    def noise(self, strength: float, rng: np.random.Generator) -> Float32[np.ndarray, " n"]:
        """A random vector with covariance strength L: one number a pair, with opposite signs at its ends."""
        n, pairs = len(self.diagonal()), self._neighbours
        bonds = np.empty(len(pairs.first), np.float32)
        bonds[pairs.by_gaussian[2]] = self._bonds  # one of the two entries of each pair: they are equal
        part = np.sqrt(np.float32(strength) * bonds) * rng.standard_normal(len(bonds), np.float32)
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
            values = neighbours.laplacian.apply(values, options.sharpening, values)
        return root * values

    return apply

"""Which free Gaussians are nearest to each other, found by sorting them into cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int, Int32

from gsvr.compiled import LANES, run
from gsvr.compiled.threads import Lazy
from gsvr.model.fields import GaussianField

# Side of a cell, in typical standard deviations: the 27 cells around a Gaussian hold several times as many as are
# asked for.
_SIDE = 1.3
# Of the median distance of pairs: closer ones weigh no more than at this distance.
_CLOSEST = 0.2
# Gaussians that one thread takes at a time.
_CHUNK = 4096


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

    @Lazy
    def by_gaussian(
        self,
    ) -> tuple[Int[np.ndarray, " n1"], Int32[np.ndarray, " twice_pairs"], Int32[np.ndarray, " twice_pairs"]]:
        """Where each Gaussian's neighbours begin; these neighbours; and the pair that each comes from."""
        first = np.zeros(self.n_gaussians + 1, np.int64)
        columns, pairs = (np.empty(2 * len(self.first), np.int32) for _ in range(2))
        run("link_pairs", 1, len(self.first), self.first, self.second, self.n_gaussians, first, columns, pairs)
        return first, columns, pairs


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
    weights = 1 / np.maximum(lengths, _CLOSEST * np.median(lengths)) ** 2
    weights *= 3 * n / weights.sum()
    return Neighbours(first, second, weights.astype(np.float32), n)


def nearest_neighbours(field: GaussianField, count: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Pairs of a Gaussian and one of the `count` nearest, within about one cell's side: there may be fewer."""
    side = _SIDE * float(np.exp(np.median(field.log_scales.mean(axis=1, dtype=np.float64))))
    low = field.means.min(axis=0)
    cells = np.floor((field.means - low) / side).astype(np.int64)
    shape = cells.max(axis=0) + 1
    number = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    order = np.argsort(number, kind="stable")
    first = np.zeros(int(shape.prod()) + 1, np.int64)
    np.cumsum(np.bincount(number, minlength=len(first) - 1), out=first[1:])
    n = len(field.means)
    places = np.zeros((3, n + LANES), np.float32)
    places[:, :n] = field.means[order].T
    found = np.full((n, count), -1, np.int64)
    run(
        "find_nearest_neighbours", -(-n // _CHUNK), _CHUNK, n, places.shape[1], count, places, cells[order], shape,
        first, found,
    )  # fmt: skip
    there = found >= 0  # the nearest come first, so those that are not there stand behind
    return np.repeat(order, there.sum(axis=1)), order[found[there]]

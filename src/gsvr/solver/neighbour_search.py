"""Which Gaussians are nearest to each other, by sorting them into cells."""

# Numba's star arguments have no types.
# pyright: reportCallIssue=false, reportArgumentType=false

from __future__ import annotations

import numpy as np
from jaxtyping import Int
from numba import njit

from gsvr.compiled.threads import parallel_for
from gsvr.field import GaussianField

# Side of a cell, in typical standard deviations: the 27 cells around a Gaussian hold several times as many as are
# asked for.
SIDE = 1.3
_CHUNK = 4096


def nearest_neighbours(field: GaussianField, count: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Pairs of a Gaussian and one of the `count` nearest, within about one cell's side: there may be fewer."""
    side = SIDE * float(np.exp(np.median(field.log_scales.mean(axis=1, dtype=np.float64))))
    low = field.means.min(axis=0)
    cells = np.floor((field.means - low) / side).astype(np.int64)
    shape = cells.max(axis=0) + 1
    number = (cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]
    order = np.argsort(number, kind="stable")
    first = np.zeros(int(shape.prod()) + 1, np.int64)
    np.cumsum(np.bincount(number, minlength=len(first) - 1), out=first[1:])
    places = np.ascontiguousarray(field.means[order], dtype=np.float32)
    n = len(places)
    found = np.full((n, count), -1, np.int64)

    sorted_cells = cells[order]

    def search(chunk: int) -> None:
        _search(chunk * _CHUNK, min((chunk + 1) * _CHUNK, n), places, sorted_cells, first, shape, found)

    parallel_for(search, -(-n // _CHUNK))
    here, rank = np.nonzero(found >= 0)
    return order[here], order[found[here, rank]]


@njit(nogil=True, cache=True)
def _search(start, end, places, cells, first, shape, found):
    """For Gaussians `start` to `end`, in the order of their cells: the nearest in the 27 cells around each."""
    count = found.shape[1]
    distances = np.empty(count, np.float32)
    for j in range(start, end):
        distances[:] = np.inf
        for x in range(max(cells[j, 0] - 1, 0), min(cells[j, 0] + 2, shape[0])):
            for y in range(max(cells[j, 1] - 1, 0), min(cells[j, 1] + 2, shape[1])):
                row = (x * shape[1] + y) * shape[2]
                # cells along z follow each other
                low = first[row + max(cells[j, 2] - 1, 0)]
                high = first[row + min(cells[j, 2] + 2, shape[2])]
                for k in range(low, high):
                    if k == j:
                        continue
                    square = np.float32(0.0)
                    for axis in range(3):
                        square += (places[k, axis] - places[j, axis]) ** 2
                    if square < distances[count - 1]:
                        rank = count - 1
                        while rank > 0 and distances[rank - 1] > square:
                            distances[rank], found[j, rank] = distances[rank - 1], found[j, rank - 1]
                            rank -= 1
                        distances[rank], found[j, rank] = square, k

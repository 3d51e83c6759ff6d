"""Which Gaussians are nearest to each other, by sorting them into cells."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from gsvr.compiled import LANES, run
from gsvr.model.fields import GaussianField

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

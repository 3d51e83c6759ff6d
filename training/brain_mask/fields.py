"""Smooth random fields and rotations on the sample points of a scene."""

from __future__ import annotations

import numpy as np


def _spline_weights(positions: np.ndarray, spacing: float) -> tuple[np.ndarray, int]:
    """Weights (positions, knots) of uniform cubic B-splines with knots ``spacing`` mm apart."""
    offset = (positions - positions.min()) / spacing
    first = np.floor(offset).astype(int)
    u = (offset - first).astype(np.float32)
    n_knots = int(first.max()) + 4
    weights = np.zeros((len(positions), n_knots), np.float32)
    rows = np.arange(len(positions))
    cubic = ((1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3)
    for k, value in enumerate(cubic):
        weights[rows, first + k] = value / 6
    return weights, n_knots


class Fields:
    """Draws smooth random fields on a grid of planes (depth, rows, columns) given in mm."""

    def __init__(self, rng: np.random.Generator, depths: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
        self._rng = rng
        self._axes = (depths, rows, columns)

    def draw(self, scale: float, count: int = 1) -> np.ndarray:
        """``count`` fields (count, depth, rows, columns) of mean 0 and standard deviation about 1.

        ``scale`` is the distance of the knots in mm; what is smooth over that distance varies over twice of it.
        """
        (z, nz), (y, ny), (x, nx) = (_spline_weights(axis, scale) for axis in self._axes)
        knots = self._rng.standard_normal((count, nz, ny, nx), dtype=np.float32)
        # a cubic B-spline of white noise has this variance on average, an axis
        knots *= (0.479**-0.5) ** 3
        along_x = knots @ x.T
        along_y = np.matmul(y, along_x)
        shape = (count, len(z), len(y), len(x))
        flat = np.matmul(z, along_y.reshape(count, nz, -1))
        return flat.reshape(shape)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """A rotation matrix drawn uniformly."""
    w, x, y, z = (q := rng.standard_normal(4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def small_rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """A rotation about a random axis by an angle of standard deviation ``degrees``."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(degrees) * rng.standard_normal()
    cross = np.cross(np.eye(3), axis)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)

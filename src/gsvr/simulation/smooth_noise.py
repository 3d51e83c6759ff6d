"""Smooth random functions of position, defined everywhere rather than on a grid."""

from __future__ import annotations

import numpy as np

from gsvr.simulation.signed_distance import Distance, Points


class SmoothNoise:
    """Random function of position with zero mean and unit variance, band-limited to about one wavelength.

    A sum of plane waves of random direction and phase, so values and gradients are exact at any position.

    Parameters
    ----------
    rng
        Source of the directions and phases.
    wavelength
        Typical wavelength (mm); the waves' own lie within a factor of 1.33.
    waves
        Number of plane waves.
    """

    def __init__(self, rng: np.random.Generator, wavelength: float, waves: int = 16) -> None:
        direction = rng.standard_normal((waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        number = 2 * np.pi / wavelength * rng.uniform(0.75, 1.25, (waves, 1))
        self._vectors = (direction * number).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, waves).astype(np.float32)
        self._amplitude = np.float32(np.sqrt(2.0 / waves))

    def values(self, points: Points) -> Distance:
        """Values at `points` (mm)."""
        total = np.zeros(points.shape[1], dtype=np.float32)
        for vector, phase in zip(self._vectors, self._phases, strict=True):
            total += np.cos(vector @ points + phase)
        return self._amplitude * total

    def values_and_gradients(self, points: Points) -> tuple[Distance, Points]:
        """Values at `points` (mm) and their derivatives with respect to x, y and z (1 / mm)."""
        total, gradient = np.zeros(points.shape[1], dtype=np.float32), np.zeros_like(points)
        for vector, phase in zip(self._vectors, self._phases, strict=True):
            argument = vector @ points + phase
            total += np.cos(argument)
            gradient -= vector[:, None] * np.sin(argument)
        return self._amplitude * total, self._amplitude * gradient

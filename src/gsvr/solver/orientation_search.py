"""All orientations and shifts of one coarse field against another: masked correlation by FFT.

Of each orientation of a grid on SO(3) the best shift is found from the normalised correlation over the overlap of both
fields (Padfield, IEEE TIP 2012); a small overlap has to correlate better to count as much. Orientations are some 25
degrees apart, which Gauss-Newton bridges on a coarse field.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import fft
from scipy.ndimage import map_coordinates

from gsvr.compiled.threads import thread_count
from gsvr.model.fields import LatticeField, lattice_values
from gsvr.model.geometry import rotation_from_quaternion

_ORIENTATIONS = 400
# Both fields are sampled on grids of so many points along an edge, and shifted by up to as many.
_POINTS = 12
# The overlap is at least this share of the smaller field.
_LEAST_OVERLAP = 0.4
# Placements that differ by less (degrees) are one.
_APART = 25.0
_CHUNK = 25
_ALMOST_ONE = 1 - 1e-4


@dataclass(frozen=True)
class CoarseImage:
    """A field on the sites of its lattice.

    Attributes
    ----------
    values
        Of the field.
    inside
        Where they are determined.
    origin, spacing
        World position of site (0, 0, 0), and the distance between sites (mm).
    """

    values: Float[np.ndarray, "nx ny nz"]
    inside: Bool[np.ndarray, "nx ny nz"]
    origin: Float[np.ndarray, " 3"]
    spacing: float

    @classmethod
    def of(cls, field: LatticeField, inside: Bool[np.ndarray, "nx ny nz"]) -> CoarseImage:
        """Of a field, where it is determined."""
        lattice = field.lattice
        return cls(lattice_values(field, lattice.axes), inside, lattice.origin, lattice.spacing)

    def centre_and_diameter(self) -> tuple[Float[np.ndarray, " 3"], float]:
        """Of what is inside (world, mm)."""
        points = np.argwhere(self.inside) * self.spacing + self.origin
        centre = points.mean(axis=0)
        return centre, 2 * float(np.percentile(np.linalg.norm(points - centre, axis=1), 98))

    def turned(
        self, rotations: Float[np.ndarray, "r 3 3"], centre: Float[np.ndarray, " 3"], step: float
    ) -> tuple[Float32[np.ndarray, "r n n n"], Float32[np.ndarray, "r n n n"]]:
        """Values and mask on a grid around the centre, the field having been turned about it."""
        index = np.indices((_POINTS,) * 3).reshape(3, -1).T
        grid = (index - (_POINTS - 1) / 2) * step
        points = (grid @ rotations + centre - self.origin) / self.spacing
        shape = (len(rotations),) + (_POINTS,) * 3
        inside, values = (
            map_coordinates(part, points.reshape(-1, 3).T, order=1, mode="constant").reshape(shape)
            for part in (self.inside.astype(np.float32), (self.values * self.inside).astype(np.float32))
        )
        within = inside > 0.5
        return np.where(within, values / np.maximum(inside, 0.5), 0), within.astype(np.float32)


def orientations(n: int) -> Float[np.ndarray, "n 3 3"]:
    """Rotations spread evenly over SO(3): the super-Fibonacci spiral (Alexa, CVPR 2022)."""
    place = np.arange(n) + 0.5
    inner, outer = np.sqrt(place / n), np.sqrt(1 - place / n)
    one, other = 2 * np.pi * place / np.sqrt(2), 2 * np.pi * place / 1.533751168755204288118041
    spiral = (inner * np.sin(one), inner * np.cos(one), outer * np.sin(other), outer * np.cos(other))
    return rotation_from_quaternion(np.stack(spiral, axis=1))


def placements(moving: CoarseImage, fixed: CoarseImage, count: int) -> Float[np.ndarray, "n 4 4"]:
    """The most promising rigid maps from the world of one field to that of another, best first.

    Parameters
    ----------
    count
        How many at most.
    """
    if not (moving.inside.any() and fixed.inside.any()):
        return np.zeros((0, 4, 4))
    (own_centre, own_size), (centre, size) = moving.centre_and_diameter(), fixed.centre_and_diameter()
    step = max(own_size, size, 4 * moving.spacing) / (_POINTS - 2)
    rotations = orientations(_ORIENTATIONS)
    correlation = _MaskedCorrelation(*(part[0] for part in fixed.turned(np.eye(3)[None], centre, step)))
    evidence, shifts = np.zeros(len(rotations)), np.zeros((len(rotations), 3))
    for first in range(0, len(rotations), _CHUNK):
        part = slice(first, first + _CHUNK)
        evidence[part], shifts[part] = correlation.best(*moving.turned(rotations[part], own_centre, step))
    chosen: list[int] = []
    for number in np.argsort(-evidence, kind="stable"):
        if evidence[number] <= 0 or len(chosen) == count:
            break
        cosines = (np.einsum("ij,nij->n", rotations[number], rotations[chosen]) - 1) / 2
        if not (cosines > np.cos(np.deg2rad(_APART))).any():
            chosen.append(int(number))
    poses = np.tile(np.eye(4), (len(chosen), 1, 1))
    poses[:, :3, :3] = rotations[chosen]
    poses[:, :3, 3] = centre + shifts[chosen] * step - rotations[chosen] @ own_centre
    return poses


class _MaskedCorrelation:
    """Correlation with a fixed image at all shifts, over the overlap of both masks."""

    def __init__(self, values: Float32[np.ndarray, "n n n"], inside: Float32[np.ndarray, "n n n"]) -> None:
        self._mean, self._size = values.sum() / inside.sum(), float(inside.sum())
        centred = (values - self._mean) * inside
        self._fixed = [np.conj(_forward(part)) for part in (inside, centred, centred**2)]

    def best(
        self, values: Float32[np.ndarray, "r n n n"], inside: Float32[np.ndarray, "r n n n"]
    ) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r 3"]]:
        """Evidence for the best shift of each image, and that shift (grid points, to be added to the image's place)."""
        mask, one, two = self._fixed
        centred = (values - self._mean) * inside
        own_mask, own, own_two = (_forward(part) for part in (inside, centred, centred**2))
        overlap = _backward(own_mask * mask)
        smaller = np.minimum(inside.sum(axis=(1, 2, 3)), self._size)[:, None, None, None]
        known = np.maximum(overlap, 1)
        mean, fixed_mean = _backward(own * mask), _backward(own_mask * one)
        variance = _backward(own_two * mask) - mean**2 / known
        fixed_variance = _backward(own_mask * two) - fixed_mean**2 / known
        covariance = _backward(own * one) - mean * fixed_mean / known
        correlation = covariance / np.sqrt(np.maximum(variance * fixed_variance, 1e-12))
        correlation = np.where(overlap > _LEAST_OVERLAP * smaller, np.clip(correlation, 0, _ALMOST_ONE), 0)
        evidence = (-overlap / np.maximum(smaller, 1) * np.log(1 - correlation**2)).reshape(len(values), -1)
        best = evidence.argmax(axis=1)
        index = np.stack(np.unravel_index(best, (2 * _POINTS,) * 3), axis=1)
        index = np.where(index > _POINTS, index - 2 * _POINTS, index)
        return np.take_along_axis(evidence, best[:, None], 1)[:, 0], -index.astype(np.float64)


def _forward(images: np.ndarray) -> np.ndarray:
    return np.asarray(fft.rfftn(images, (2 * _POINTS,) * 3, axes=(-3, -2, -1), workers=thread_count()))


def _backward(spectra: np.ndarray) -> np.ndarray:
    return np.asarray(fft.irfftn(spectra, (2 * _POINTS,) * 3, axes=(-3, -2, -1), workers=thread_count()))

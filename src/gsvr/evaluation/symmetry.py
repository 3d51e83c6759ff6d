"""The plane in which a brain mirrors itself.

A brain is looked at in its own units: its middle is the origin, and the length is its radius, the root mean square
distance of its voxels from the middle. Reflections are compared by what they bring together, intensity as well as
outline, on a hemisphere of directions first; the best are refined together with the place of the plane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import ndimage, optimize

from gsvr.model.geometry import transform_points
from gsvr.model.morphology import bounding_box, largest_part
from gsvr.model.volume import Volume

# Half the side of the cube that is kept (radii); blur of what is kept, as a share of the distance of its samples.
_REACH, _BLUR = 1.9, 0.9
# Reach (radii) of what intensities are compared with, the least share of brain in it, and the least spread of
# intensities there, as a share of the typical one.
_AROUND, _LEAST_SHARE, _LEAST_SPREAD = 0.4, 0.05, 0.3
# Voxels darker than this share of bright tissue are none of the brain, whatever the mask says (its 95th percentile).
_DARK, _BRIGHT = 0.05, 95.0
_PERCENTILES = (1.0, 99.0)
# Weight of intensities beside the outline, which masks cut.
_VALUES = 0.6
# Below this occupancy a place is none of the brain.
_OCCUPIED = 0.05
# Directions that are tried, and places at which reflections are compared: first, while refining, and in the end.
_DIRECTIONS, _PLACES = 400, (800, 1_500, 8_000)
# Planes that are refined, their least angle to each other (degrees), and the cosine from which on two are one.
_CANDIDATES, _APART, _SAME = 6, 20.0, 0.998


@dataclass(frozen=True)
class NormalisedBrain:
    """A brain in its own units, on a cube of samples.

    Attributes
    ----------
    centre, radius
        Of the brain (mm, world).
    step
        Distance of samples (radii).
    values
        Intensity in standard deviations from the mean of what is around it in the brain, blurred; zero outside. So
        neither smooth brightness nor a mask that shows more than the brain changes much.
    occupancy
        Share that is brain, blurred.
    """

    centre: Float[np.ndarray, " 3"]
    radius: float
    step: float
    values: Float32[np.ndarray, "n n n"]
    occupancy: Float32[np.ndarray, "n n n"]

    def at(self, points: Float[np.ndarray, "p 3"]) -> tuple[np.ndarray, np.ndarray]:
        """Values and occupancy at some places (radii); zero beyond the cube."""
        index = (points / self.step + self.values.shape[0] // 2).T
        values, occupancy = (
            ndimage.map_coordinates(part, index, order=1, output=np.float32) for part in (self.values, self.occupancy)
        )
        return values, occupancy

    def places(self, most: int) -> Float[np.ndarray, "p 3"]:
        """Places in the brain (radii), at random but always the same."""
        index = np.argwhere(self.occupancy > _OCCUPIED)
        if len(index) > most:
            index = index[np.random.default_rng(0).choice(len(index), most, replace=False)]
        return (index - self.values.shape[0] // 2) * self.step


@dataclass(frozen=True)
class SymmetryPlane:
    """Points x (radii) with ``normal @ x == offset``.

    Attributes
    ----------
    normal, offset
        Of unit length; distance from the middle of the brain (radii).
    likeness
        Correlation of the brain with its mirror image, weighted, of intensity and outline.
    """

    normal: Float[np.ndarray, " 3"]
    offset: float
    likeness: float


def normalised_brain(volume: Volume, step: float = 0.11) -> NormalisedBrain:
    """Bring a brain to its own units.

    Parameters
    ----------
    volume
        With a mask; without one, what is not dark counts. What is dark in the mask (air) does not.
    step
        Distance of samples (radii).

    Raises
    ------
    ValueError
        If nothing is left, or it has no contrast.
    """
    data = volume.data
    inside = data > 0 if volume.mask is None else volume.mask & (data > 0)
    if not inside.any():
        raise ValueError("there is no brain in the volume")
    inside &= data > _DARK * np.percentile(data[inside], _BRIGHT)
    inside = largest_part(inside)
    centre = volume.centre(inside)
    radius = float(np.sqrt(np.mean(np.sum((volume.voxel_positions(inside) - centre) ** 2, axis=1))))
    low, high = np.percentile(data[inside], _PERCENTILES)
    mean, spread = float(data[inside].mean()), float(np.clip(data[inside], low, high).std())
    if not spread > 0 or not radius > 0:
        raise ValueError("the brain in the volume has no contrast")
    sigmas = _BLUR * step * radius / volume.spacing
    box = bounding_box(inside, np.ceil(4 * sigmas).astype(int))
    values = np.where(inside[box], (np.clip(data[box], low, high) - mean) / spread, np.float32(0)).astype(np.float32)
    n = int(np.ceil(_REACH / step))
    side = np.arange(-n, n + 1) * step * radius
    grid = np.stack(np.meshgrid(side, side, side, indexing="ij"), axis=-1).reshape(-1, 3) + centre
    index = transform_points(np.linalg.inv(volume.affine), grid) - [float(part.start) for part in box]
    sampled = [
        ndimage.map_coordinates(
            ndimage.gaussian_filter(part, sigmas, output=np.float32), index.T, order=1, output=np.float32
        )
        for part in (values, inside[box].astype(np.float32))
    ]
    values, occupancy = (part.reshape((2 * n + 1,) * 3) for part in sampled)
    return NormalisedBrain(centre, radius, step, _levelled(values, occupancy, _AROUND / step), occupancy)


def _levelled(values: np.ndarray, occupancy: np.ndarray, reach: float) -> np.ndarray:
    """Values less the mean around them, over the spread around them; `reach` in samples."""
    share = np.maximum(ndimage.gaussian_filter(occupancy, reach), _LEAST_SHARE)
    contrast = values - occupancy * ndimage.gaussian_filter(values, reach) / share
    spread = np.sqrt(ndimage.gaussian_filter(contrast**2, reach) / share)
    typical = float(spread[occupancy > 0.5].mean())
    if not typical > 0:
        raise ValueError("the brain in the volume has no contrast")
    return contrast / np.maximum(spread, _LEAST_SPREAD * typical) * occupancy


def symmetry_planes(brain: NormalisedBrain) -> list[SymmetryPlane]:
    """Planes in which a brain looks more or less like its mirror image, the best first."""
    places = brain.places(_PLACES[0])
    directions = _hemisphere(_DIRECTIONS)
    likeness = np.array([_likeness(brain, places, direction, 0.0) for direction in directions])
    chosen: list[np.ndarray] = []
    for number in likeness.argsort()[::-1]:
        if all(abs(directions[number] @ other) < np.cos(np.radians(_APART)) for other in chosen):
            chosen.append(directions[number])
    places = brain.places(_PLACES[1])
    planes: list[SymmetryPlane] = []
    for normal in chosen[:_CANDIDATES]:
        plane = _refined(brain, places, SymmetryPlane(normal, 0.0, 0.0), 0.1)
        if all(abs(plane.normal @ other.normal) < _SAME for other in planes):
            planes.append(plane)
    return sorted(planes, key=lambda plane: -plane.likeness)


def refined_plane(brain: NormalisedBrain, plane: SymmetryPlane) -> SymmetryPlane:
    """The same plane as a brain in finer samples has it."""
    return _refined(brain, brain.places(_PLACES[2]), plane, 0.03)


def likeness(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> float:
    """Correlation of values and of occupancy (`NormalisedBrain.at`), weighted."""
    return _VALUES * _correlation(a[0], b[0]) + (1 - _VALUES) * _correlation(a[1], b[1])


def _likeness(brain: NormalisedBrain, places: np.ndarray, normal: np.ndarray, offset: float) -> float:
    mirrored = places - 2 * (places @ normal - offset)[:, None] * normal
    return likeness(brain.at(places), brain.at(mirrored))


def _refined(brain: NormalisedBrain, places: np.ndarray, plane: SymmetryPlane, step: float) -> SymmetryPlane:
    across = np.cross(plane.normal, np.eye(3)[np.abs(plane.normal).argmin()])
    across /= np.linalg.norm(across)
    along = np.cross(plane.normal, across)

    def normal(change: np.ndarray) -> np.ndarray:
        turned = plane.normal + change[0] * across + change[1] * along
        return turned / np.linalg.norm(turned)

    found = optimize.minimize(
        lambda change: -_likeness(brain, places, normal(change), plane.offset + change[2]),
        np.zeros(3),
        method="Nelder-Mead",
        options={
            "initial_simplex": step * np.concatenate([np.zeros((1, 3)), np.diag([1.0, 1.0, 0.5])]),
            "xatol": 1e-3,
            "fatol": 1e-5,
            "maxiter": 80,
        },
    )
    return SymmetryPlane(normal(found.x), float(plane.offset + found.x[2]), -float(found.fun))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float((a @ a) * (b @ b))
    return float(a @ b) / np.sqrt(size) if size > 0 else 0.0


def _hemisphere(n: int) -> Float[np.ndarray, "n 3"]:
    """Directions spread evenly, one of every two opposite ones."""
    number = np.arange(n) + 0.5
    height, turn = number / n, np.pi * (1 + np.sqrt(5)) * number
    across = np.sqrt(1 - height**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), height], axis=1)

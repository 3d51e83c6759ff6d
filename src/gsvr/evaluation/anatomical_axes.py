"""Which way a brain looks: its axes from its plane of symmetry and an average brain, or from a template.

The plane of symmetry gives the axis from left to right. Turned about it, the brain is compared with average brains, all
around and both ways up: that tells front from back and top from bottom. What is left and what is right
then follows, since turning a brain does not mirror it; nothing here looks for differences between left and right.

The average brains (``average_brains.npz``, made by ``training.average_brains``) are those of fifteen fetal atlases of
three ages, and one subject; standard axes are the axes of the atlases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np
from jaxtyping import Float
from scipy import optimize

from gsvr.evaluation.symmetry import (
    NormalisedBrain,
    SymmetryPlane,
    likeness,
    normalised_brain,
    refined_plane,
    symmetry_planes,
)
from gsvr.model.geometry import pose_from_parts, rotation_from_vector, vector_from_rotation
from gsvr.model.volume import Volume

# Levels of what is stored.
VALUE_LEVELS, OCCUPANCY_LEVELS = 40.0, 250.0
# Directions of the front that are tried in a plane, and places at which brains are compared: while searching and in the
# end; the places lie in the middle of the cube (radii).
_FRONTS, _PLACES, _WITHIN = 48, (1_500, 4_000), 1.7
# How much the symmetry of a plane counts beside the likeness to an average brain.
_SYMMETRY = 0.5
# Samples (radii) for the last refinement; first steps of turns (rad), shifts and size (radii).
_FINE_STEP, _TURN, _SHIFT = 0.06, 0.1, 0.08
# Rows of what may change of seven numbers (rotation, shift, size) while the plane of symmetry stays.
_WITHIN_PLANE = np.eye(7)[[0, 4, 5, 6]]
# Other axes are those that are turned by more than this (degrees).
_OTHER = 40.0
# The brain must be this much like an average brain, and this much more than when it is turned otherwise: of 408 brains
# in ``benchmarks/results/orientation.json`` none that is turned wrongly has such a margin.
LEAST_LIKENESS, LEAST_MARGIN = 0.35, 0.04


@dataclass(frozen=True)
class AnatomicalAxes:
    """How a brain lies.

    Attributes
    ----------
    pose
        World -> anatomical world (RAS+, mm), rigid; the origin of the latter is the middle of the brain on its plane of
        symmetry, or that of the template.
    likeness
        Correlation with the average brain, or with the template.
    margin
        By how much this, with the symmetry, is more than the best of other axes, those turned by more than 40 degrees.
    symmetry
        Correlation of the brain with its mirror image.
    """

    pose: Float[np.ndarray, "4 4"]
    likeness: float
    margin: float
    symmetry: float

    @property
    def resolved(self) -> bool:
        """Whether front and top are beyond doubt."""
        return self.likeness >= LEAST_LIKENESS and self.margin >= LEAST_MARGIN


@dataclass(frozen=True)
class _Guess:
    """Axes of a brain as columns, its place, and how much it is like an average one (`number`)."""

    axes: Float[np.ndarray, "3 3"]
    place: Float[np.ndarray, " 3"]
    plane: SymmetryPlane
    number: int
    likeness: float

    @property
    def score(self) -> float:
        """What the best has most of."""
        return self.likeness + _SYMMETRY * self.plane.likeness


def anatomical_axes(volume: Volume, averages: Sequence[NormalisedBrain] | None = None) -> AnatomicalAxes:
    """Find the axes of the brain in a volume, which may lie in any way.

    Parameters
    ----------
    volume
        The brain, with its mask.
    averages
        Brains in standard axes that are as good as symmetric; default: `average_brains`.

    Raises
    ------
    ValueError
        If there is no brain, or it has no contrast.
    """
    averages = average_brains() if averages is None else averages
    brain = normalised_brain(volume)
    best, margin = _searched(brain, averages)
    fine = normalised_brain(volume, _FINE_STEP)
    plane = refined_plane(fine, best.plane)
    normal = plane.normal * np.sign(plane.normal @ best.axes[:, 0])
    front = best.axes[:, 1] - normal * (normal @ best.axes[:, 1])
    front /= np.linalg.norm(front)
    start = replace(best, axes=_right_handed(normal, front), place=plane.offset * plane.normal, plane=plane)
    found = _fitted(fine, averages[best.number], start, _WITHIN_PLANE)
    centre = fine.centre + fine.radius * plane.offset * plane.normal
    pose = pose_from_parts(found.axes.T, -found.axes.T @ centre)
    return AnatomicalAxes(pose, found.likeness, margin, plane.likeness)


def axes_of_template(volume: Volume, template: Volume) -> AnatomicalAxes:
    """Find the rigid motion that brings the brain in a volume, which may lie in any way, onto that of a template.

    Parameters
    ----------
    template
        A brain without a skull, and perhaps its mask; it may be of another age, since sizes are matched to find the
        motion.

    Raises
    ------
    ValueError
        If there is no brain in one of them, or no contrast.
    """
    # the search takes the plane of symmetry of what it looks for to be that of left and right
    right = symmetry_planes(normalised_brain(template))[0].normal
    upright = _right_handed(right * np.sign(right[np.abs(right).argmax()]), _across(right))
    turned = Volume(template.data, pose_from_parts(upright.T, np.zeros(3)) @ template.affine, template.mask)
    best, margin = _searched(normalised_brain(volume), [normalised_brain(turned)])
    best = replace(best, axes=best.axes @ upright.T)
    brain, model = normalised_brain(volume, _FINE_STEP), normalised_brain(template, _FINE_STEP)
    found = _fitted(brain, model, best, np.eye(7))
    # what lies in the middle of the template is brought there
    middle = brain.centre + brain.radius * found.place
    pose = pose_from_parts(found.axes.T, model.centre - found.axes.T @ middle)
    return AnatomicalAxes(pose, found.likeness, margin, best.plane.likeness)


@cache
def average_brains() -> tuple[NormalisedBrain, ...]:
    """Average brains of the weeks 21 to 25, 25 to 28 and 29 to 34, in standard axes (RAS), mirror symmetric."""
    file = resources.files("gsvr.evaluation") / "average_brains.npz"
    with file.open("rb") as opened, np.load(opened) as stored:
        values = stored["values"].astype(np.float32) / VALUE_LEVELS
        occupancy = stored["occupancy"].astype(np.float32) / OCCUPANCY_LEVELS
        step = float(stored["step"])
    # only the right halves are kept
    whole = [np.concatenate([part[:, :0:-1], part], axis=1) for part in (values, occupancy)]
    return tuple(NormalisedBrain(np.zeros(3), 1.0, step, *parts) for parts in zip(*whole, strict=True))


def _right_handed(right: np.ndarray, front: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """Axes as columns: to the right, to the front, to the top."""
    return np.stack([right, front, np.cross(right, front)], axis=1)


def _across(normal: np.ndarray) -> Float[np.ndarray, " 3"]:
    """A direction in a plane."""
    across = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    return across / np.linalg.norm(across)


def _searched(brain: NormalisedBrain, averages: Sequence[NormalisedBrain]) -> tuple[_Guess, float]:
    """The axes in which a brain is most like one of some average brains, and by how much more than in others."""
    places = _cube(_PLACES[0])
    expected = [average.at(places) for average in averages]
    guesses = []
    for plane in symmetry_planes(brain):
        place = plane.offset * plane.normal
        across = _across(plane.normal)
        along = np.cross(plane.normal, across)
        for right in (plane.normal, -plane.normal):
            for angle in 2 * np.pi * np.arange(_FRONTS) / _FRONTS:
                front = np.cos(angle) * across + np.sin(angle) * along
                axes = _right_handed(right, front)
                seen = brain.at(places @ axes.T + place)
                alike = [likeness(seen, other) for other in expected]
                guesses.append(_Guess(axes, place, plane, int(np.argmax(alike)), max(alike)))
    best = max(guesses, key=lambda guess: guess.score)
    turns = vector_from_rotation(np.stack([guess.axes for guess in guesses]).swapaxes(1, 2) @ best.axes)
    far = np.linalg.norm(turns, axis=1) > np.radians(_OTHER)
    others = [guess.score for guess, other in zip(guesses, far, strict=True) if other]
    return best, float(best.score - max(others, default=0.0))


def _fitted(brain: NormalisedBrain, average: NormalisedBrain, start: _Guess, free: Float[np.ndarray, "k 7"]) -> _Guess:
    """Turn, move and scale a brain, as far as it is free to, until it is most like an average one."""
    places = _cube(_PLACES[1])
    expected = average.at(places)

    def at(change: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        full = change @ free
        axes = start.axes @ rotation_from_vector(full[:3])
        return axes, start.place + axes @ full[3:6], float(np.exp(full[6]))

    def unlike(change: np.ndarray) -> float:
        axes, place, size = at(change)
        return -likeness(brain.at(size * places @ axes.T + place), expected)

    steps = free @ np.array([_TURN] * 3 + [_SHIFT] * 4)
    simplex = np.concatenate([np.zeros((1, len(free))), np.diag(steps)])
    options = {"initial_simplex": simplex, "xatol": 2e-3, "fatol": 1e-5, "maxiter": 60 * len(free)}
    found = optimize.minimize(unlike, np.zeros(len(free)), method="Nelder-Mead", options=options)
    axes, place, _ = at(found.x)
    return replace(start, axes=axes, place=place, likeness=-float(found.fun))


def _cube(n: int) -> Float[np.ndarray, "n 3"]:
    """Places in the middle of the cube (radii), at random but always the same."""
    return np.random.default_rng(1).uniform(-_WITHIN, _WITHIN, (n, 3))

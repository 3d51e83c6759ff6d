"""A coarse image is found in another at any orientation and shift."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from gsvr.model.geometry import invert, pose_about, transform_points
from gsvr.solver.orientation_search import CoarseImage, orientations, placements

SPACING, SIZE = 5.0, 20
ORIGIN = np.array([10.0, -20.0, 5.0])


def blobs(seed: int = 0) -> np.ndarray:
    """Something without symmetry, in the middle of the grid."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((SIZE,) * 3), 1.5)
    return noise / noise.std() + 3


def ball(radius: float, offset: float = 0.0) -> np.ndarray:
    index = np.indices((SIZE,) * 3) - (SIZE - 1) / 2
    index[2] -= offset
    return np.linalg.norm(index, axis=0) < radius


def moved(image: CoarseImage, pose: np.ndarray) -> CoarseImage:
    """The image as if it had been moved by a pose, on the same grid."""
    points = np.indices(image.values.shape).reshape(3, -1).T * image.spacing + image.origin
    index = (transform_points(invert(pose), points) - image.origin) / image.spacing
    values, inside = (
        map_coordinates(part.astype(float), index.T, order=1).reshape(part.shape)
        for part in (image.values, image.inside)
    )
    return CoarseImage(values, inside > 0.5, image.origin, image.spacing)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance (mm) between where two poses put the points of a ball of 30 mm."""
    points = ORIGIN + SPACING * (SIZE - 1) / 2 + 30 * np.concatenate([np.eye(3), -np.eye(3)])
    return float(np.linalg.norm(transform_points(one, points) - transform_points(other, points), axis=1).mean())


def test_orientations_leave_no_gap():
    grid = orientations(400)
    np.testing.assert_allclose(np.linalg.det(grid), 1, atol=1e-12)
    some = orientations(1013)  # another spiral
    cosines = (np.einsum("nij,mij->nm", some, grid).max(axis=1) - 1) / 2
    assert np.rad2deg(np.arccos(np.clip(cosines, -1, 1))).max() < 36  # what Gauss-Newton bridges


@pytest.mark.parametrize(("degrees", "millimetres"), [(0, 0), (60, 10), (90, 30), (180, 20)])
def test_the_place_is_among_the_first(degrees: float, millimetres: float):
    image = CoarseImage(blobs(), ball(6), ORIGIN, SPACING)
    axis, direction = np.random.default_rng(int(degrees)).standard_normal((2, 3))
    centre = ORIGIN + SPACING * (SIZE - 1) / 2
    turn = np.deg2rad(degrees) * axis / np.linalg.norm(axis)
    pose = pose_about(turn, millimetres * direction / np.linalg.norm(direction), centre)
    found = placements(moved(image, pose), image, 12)
    assert 1 < len(found) <= 12
    # half the distance of orientations at 30 mm, and half a step of the grid
    assert min(distance(guess @ pose, np.eye(4)) for guess in found[:2]) < 16


def test_a_part_is_found_in_the_whole():
    whole = CoarseImage(blobs(3), ball(6), ORIGIN, SPACING)
    part = CoarseImage(whole.values, ball(6) & (np.arange(SIZE) > SIZE / 2), ORIGIN, SPACING)
    pose = pose_about(np.array([0.0, 0.4, 0.0]), np.array([0.0, 12.0, 0.0]), ORIGIN + 47.5)
    found = placements(moved(part, pose), whole, 12)
    assert min(distance(guess @ pose, np.eye(4)) for guess in found[:4]) < 16


def test_nothing_is_found_in_nothing():
    image = CoarseImage(blobs(), ball(6), ORIGIN, SPACING)
    nothing = CoarseImage(blobs(), np.zeros((SIZE,) * 3, bool), ORIGIN, SPACING)
    assert len(placements(nothing, image, 5)) == 0
    assert len(placements(image, nothing, 5)) == 0

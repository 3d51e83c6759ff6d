"""Free Gaussians on parallel planes against their definition."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.backends.cpu.planes import ParallelPlanes, splat_on_planes
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import invert, rotation_from_vector
from tests.oracle import field_values

# cut off at five standard deviations (4e-6 of each peak), and float32
CUTOFF, TOLERANCE = 5.0, 2e-5


def frame(turn: tuple[float, float, float], corner: tuple[float, float, float]) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = rotation_from_vector(np.array(turn)), corner
    return result


def points_of(placed: np.ndarray, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    """World position of every point; rows are along the frame's first axis, planes along its third."""
    plane, row, column = np.meshgrid(
        *(np.arange(n) * step for n, step in zip(shape, spacing, strict=True)), indexing="ij"
    )
    return np.stack([row, column, plane], axis=-1) @ placed[:3, :3].T + placed[:3, 3]


def needles(n: int = 40) -> GaussianField:
    """Thin long Gaussians in all directions, some a fraction of a pixel wide."""
    rng = np.random.default_rng(1)
    return GaussianField(
        means=rng.uniform(-4, 4, (n, 3)),
        log_scales=np.log(rng.uniform([0.08, 0.2, 1.0], [0.2, 0.6, 4.0], (n, 3))),
        quaternions=rng.normal(size=(n, 4)),
        amplitudes=rng.normal(size=n).astype(np.float32),
    )


@pytest.mark.parametrize("shape", [(1, 33, 40), (19, 12, 21), (1, 2, 1)])
def test_every_point_holds_the_field_however_thin_the_gaussians(shape: tuple[int, int, int]):
    field, spacing = needles(), (0.6, 0.4, 0.5)
    placed = frame((0.4, -0.7, 1.1), (-3.0, -5.0, 2.0))
    planes = ParallelPlanes(invert(placed)[:3], shape, spacing, np.ones(1), np.zeros(1), np.zeros(1))
    found = splat_on_planes(field, field.amplitudes.astype(np.float32), planes, CUTOFF, exact=True)
    want = field_values(field, points_of(placed, shape, spacing))
    # of a peak, not of the largest value here: needles may miss every point
    assert np.abs(found - want).max() < TOLERANCE * np.abs(field.amplitudes).max()


# weights, offsets and variances of a pair, of one component, and of some that differ in everything
PROFILES = {
    "pair": ([0.5, 0.5], [-0.6, 0.6], [0.12, 0.12]),
    "single": ([1.0], [0.0], [0.5]),
    "three": ([0.5, 0.2, 0.3], [-0.9, 0.2, 1.4], [0.3, 1.1, 0.08]),
}


@pytest.mark.parametrize("profile", list(PROFILES))
def test_planes_with_a_profile_average_through_it(profile: str):
    field, shape, spacing = needles(), (10, 8, 12), (1.0, 1.4, 1.1)
    shares, offsets, variances = (np.array(numbers) for numbers in PROFILES[profile])
    placed = frame((-0.9, 0.3, 0.2), (-5.0, -6.0, 1.0))
    planes = ParallelPlanes(invert(placed)[:3], shape, spacing, shares, offsets, variances)
    found = splat_on_planes(field, field.amplitudes.astype(np.float32), planes, CUTOFF, exact=True)
    nodes = np.linspace(-6, 6, 601)  # of a standard deviation, a tenth of the thinnest needle apart
    weights = np.exp(-0.5 * nodes**2) / np.exp(-0.5 * nodes**2).sum()
    points, normal, want = points_of(placed, shape, spacing), placed[:3, 2], 0.0
    for share, offset, variance in zip(shares, offsets, variances, strict=True):
        for node, weight in zip(nodes, weights, strict=True):
            want = want + share * weight * field_values(field, points + (offset + node * np.sqrt(variance)) * normal)
    assert np.abs(want).max() > 0.05
    assert np.abs(found - want).max() < TOLERANCE * np.abs(field.amplitudes).max()


def test_planes_out_of_reach_are_empty():
    field = needles()
    planes = ParallelPlanes(
        invert(frame((0.0, 0.0, 0.0), (500.0, 0.0, 0.0)))[:3],
        (9, 4, 4),
        (1.0, 1.0, 1.0),
        np.ones(1),
        np.zeros(1),
        np.zeros(1),
    )
    assert not splat_on_planes(field, field.amplitudes.astype(np.float32), planes, CUTOFF, exact=True).any()

"""Oblique planes: against sums written out, the voxel volume, and quadrature through the slice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.fields import LatticeField, SumField, lattice_values
from gsvr.model.geometry import pose_about, transform_points
from gsvr.model.point_spread import PROFILES, ProfileName
from gsvr.render.plane import plane_frame, render_plane
from gsvr.render.points import values_at
from gsvr.render.volume import render_volume
from tests.acquisitions import random_amplitudes, small_lattice
from tests.oracle import field_values

MIDDLE = np.array([12.0, -7.0, 4.0])
SHAPE, SPACING = (70, 41), (0.4, 0.55)  # more rows than one strip has
# The kernel works in float32 and cuts off at 5 standard deviations
TOLERANCE = 3e-5


@pytest.fixture
def field() -> LatticeField:
    lattice = small_lattice()
    lattice = replace(lattice, origin=lattice.origin + MIDDLE)
    return LatticeField(lattice, random_amplitudes(lattice))


def oblique_frame() -> np.ndarray:
    frame = plane_frame(MIDDLE + np.array([0.7, 0.2, -0.4]), np.array([0.4, -0.3, 0.8]), SHAPE, SPACING)
    return frame @ pose_about(np.array([0.0, 0.0, 0.6]), np.zeros(3), np.array([14.0, 11.0, 0.0]))


def points_of(frame: np.ndarray, depth: float = 0.0) -> np.ndarray:
    u, v = np.meshgrid(np.arange(SHAPE[0]) * SPACING[0], np.arange(SHAPE[1]) * SPACING[1], indexing="ij")
    return transform_points(frame, np.stack([u, v, np.full(SHAPE, depth)], axis=-1))


def summed(field: LatticeField, points: np.ndarray) -> np.ndarray:
    """The field written out in float64, Gaussian by Gaussian."""
    gaussians = field.to_gaussians()
    values = np.zeros(points.shape[:-1])
    for mean, amplitude in zip(gaussians.means.astype(np.float64), gaussians.amplitudes, strict=True):
        values += amplitude * np.exp(-0.5 * ((points - mean) ** 2).sum(axis=-1) / field.lattice.sigma**2)
    return values


def test_an_oblique_plane_is_the_sum_of_all_gaussians(field: LatticeField):
    frame = oblique_frame()
    expected = summed(field, points_of(frame))
    got = render_plane(field, frame, SHAPE, SPACING)
    assert got.dtype == np.float32
    assert np.abs(expected).max() > 0.5
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


def test_a_plane_along_the_axes_is_a_layer_of_the_volume(field: LatticeField):
    frame = np.eye(4)
    frame[:3, 3] = MIDDLE - [12.0, 9.0, 1.3]
    axes = tuple(frame[k, 3] + SPACING[k] * np.arange(SHAPE[k]) for k in range(2))
    layer = lattice_values(field, (axes[0], axes[1], frame[2, 3:4]))[:, :, 0]
    got = render_plane(field, frame, SHAPE, SPACING)
    assert np.abs(got - layer).max() < TOLERANCE * np.abs(layer).max()


@pytest.mark.parametrize("profile", PROFILES)
def test_a_thick_plane_is_the_average_through_its_profile(field: LatticeField, profile: ProfileName):
    thickness, frame = 3.0, oblique_frame()
    depths = np.arange(-6.9, 6.91, 0.3)
    weights = np.zeros_like(depths)
    for weight, offset, sigma in zip(*PROFILES[profile], strict=True):
        weights += weight * np.exp(-0.5 * ((depths - offset * thickness) / (sigma * thickness)) ** 2) / sigma
    weights /= weights.sum()
    expected = sum(w * summed(field, points_of(frame, d)) for w, d in zip(weights, depths, strict=True))
    got = render_plane(field, frame, SHAPE, SPACING, thickness, profile)
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    assert np.abs(got - render_plane(field, frame, SHAPE, SPACING)).max() > 0.05


def test_a_plane_does_not_depend_on_threads_or_on_what_is_rendered_beside_it(
    field: LatticeField, monkeypatch: pytest.MonkeyPatch
):
    frame = oblique_frame()
    monkeypatch.setenv("GSVR_THREADS", "1")
    alone = render_plane(field, frame, SHAPE, SPACING)
    monkeypatch.setenv("GSVR_THREADS", "3")
    np.testing.assert_array_equal(render_plane(field, frame, SHAPE, SPACING), alone)
    larger = render_plane(field, frame, (SHAPE[0] + 60, SHAPE[1]), SPACING)
    assert np.abs(larger[: SHAPE[0]] - alone).max() < 1e-6


@pytest.mark.parametrize(
    ("normal", "right", "upward"),
    [
        ((0, 0, -1), (-1, 0, 0), (0, 1, 0)),  # axial from the feet: the patient's left on the right
        ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),  # coronal from the front
        ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),  # sagittal from the left: the front on the left
    ],
)
def test_the_radiological_views(normal: tuple, right: tuple, upward: tuple):
    frame = plane_frame(MIDDLE, np.array(normal, dtype=float))
    np.testing.assert_allclose(frame[:3, 0], right, atol=1e-12)
    np.testing.assert_allclose(frame[:3, 1], upward, atol=1e-12)
    np.testing.assert_allclose(frame[:3, 2], normal, atol=1e-12)


def test_a_frame_is_rigid_and_centred():
    rng = np.random.default_rng(0)
    for normal in rng.normal(size=(20, 3)):
        frame = plane_frame(MIDDLE, normal, SHAPE, SPACING)
        np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(frame) == pytest.approx(1)
        assert np.abs(points_of(frame).mean(axis=(0, 1)) - MIDDLE).max() < 1e-9


@pytest.mark.parametrize("normalisation", [None, 0.05])
def test_a_plane_of_free_gaussians_is_their_field(field: LatticeField, normalisation: float | None):
    rng = np.random.default_rng(1)
    free = replace(field.to_gaussians(), normalisation=normalisation)
    n = free.n_gaussians
    free = replace(free, log_scales=rng.uniform(-0.5, 0.7, (n, 3)), quaternions=rng.normal(size=(n, 4)))
    frame = oblique_frame()
    expected = field_values(free, points_of(frame))
    got = render_plane(free, frame, SHAPE, SPACING)
    # an error of the sums, over a density that is at least `normalisation`
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max() / (normalisation or 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_lattice_and_its_free_form_give_one_thick_plane(field: LatticeField, profile: ProfileName):
    one, other = (
        render_plane(form, oblique_frame(), SHAPE, SPACING, 3.0, profile) for form in (field, field.to_gaussians())
    )
    assert np.abs(one - other).max() < TOLERANCE * np.abs(one).max()


def test_a_sum_is_rendered_as_the_gaussians_of_its_parts(field: LatticeField):
    both = SumField((field, field.to_gaussians().turned(pose_about(np.array([0.0, 0.3, 0.0]), MIDDLE, np.zeros(3)))))
    frame, free = oblique_frame(), both.to_gaussians()
    pairs = [
        (render_plane(both, frame, SHAPE, SPACING, thickness), render_plane(free, frame, SHAPE, SPACING, thickness))
        for thickness in (0.0, 3.0)
    ]
    pairs.append((render_volume(both, 1.3).data, render_volume(free, 1.3).data))
    points = points_of(frame)[::9, ::9]
    pairs.append((values_at(both, points), values_at(both.parts[0], points) + values_at(both.parts[1], points)))
    for got, expected in pairs:
        assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


def test_what_makes_no_sense_is_refused(field: LatticeField):
    frame = oblique_frame()
    for shape, spacing, thickness in (((0, 5), SPACING, 0.0), (SHAPE, (0.0, 1.0), 0.0), (SHAPE, SPACING, -1.0)):
        with pytest.raises(ValueError, match="positive spacing"):
            render_plane(field, frame, shape, spacing, thickness)
    with pytest.raises(ValueError, match="rigid"):
        render_plane(field, np.diag([2.0, 1, 1, 1]), SHAPE, SPACING)
    with pytest.raises(ValueError, match="normal"):
        plane_frame(MIDDLE, np.zeros(3))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("spacing", [(3.1, 4.0), (6.0, 9.0), (12.0, 10.0), (7.0, 0.15), (0.15, 7.0)])
def test_pixels_far_wider_than_the_gaussians(backend: str, spacing: tuple[float, float]):
    """Powers of ratios between neighbouring pixels leave float32 there. As free Gaussians they take another path."""
    if backend == "torch":
        pytest.importorskip("torch")
    lattice = replace(small_lattice(), sigma=0.45)
    field = LatticeField(lattice, random_amplitudes(lattice))
    shape = int(np.ceil(14 / spacing[0])), int(np.ceil(14 / spacing[1]))
    frame = plane_frame(np.array([0.4, 0.3, -0.2]), np.array([0.3, -0.2, 1.0]), shape, spacing)
    values = render_plane(field, frame, shape, spacing, backend=backend)
    expected = render_plane(field.to_gaussians(), frame, shape, spacing)
    assert np.abs(expected).max() > 0.05
    # five standard deviations are where the kernels cut off
    np.testing.assert_allclose(values, expected, rtol=0, atol=5e-5)

"""Grids and planes rendered on a device against those of the host, and against the field's definition."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest

from gsvr.backends.cpu.planes import ParallelPlanes
from gsvr.errors import InputError
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.point_spread import point_spread
from gsvr.render.plane import plane_frame, render_plane
from gsvr.render.sampling import sample_grid, sample_parallel
from gsvr.render.volume import render_deviation, render_volume
from tests.acquisitions import random_amplitudes, small_lattice, small_slices
from tests.free_gaussians import field_values, random_field

torch = pytest.importorskip("torch", reason="devices need PyTorch")
from gsvr.backends import device_rendering, plain_gaussians  # noqa: E402
from gsvr.backends.torch.gaussians import triton_gaussian_kernels  # noqa: E402
from tests.backends.tiled_kernels import CARD, DEVICE, HAS_TRITON, TRITON  # noqa: E402

CUTOFF = 5.0
# Of the sum of the peaks nearby (below 1 after division by the largest value): exp(-25/2), and float32 exponents
TOLERANCE = 1e-5
NORMALISATIONS = pytest.mark.parametrize("normalisation", [None, 0.1])
BOTH = pytest.mark.parametrize("name", ["plain", TRITON])


def kernels(name: str) -> ModuleType:
    return plain_gaussians if name == "plain" else triton_gaussian_kernels()


@pytest.fixture
def _few_planes_at_once(monkeypatch: pytest.MonkeyPatch):
    """Several blocks of planes; and the interpreter takes as long for a small chunk as for a large one."""
    monkeypatch.setattr(device_rendering, "_AT_ONCE", 3)
    if HAS_TRITON and not CARD:
        monkeypatch.setattr(triton_gaussian_kernels(), "CHUNK", 64)


@pytest.fixture
def _pretended_device(monkeypatch: pytest.MonkeyPatch):
    """Without a card "cuda" is the CPU, with the plain kernels."""
    if not CARD:
        monkeypatch.setattr(torch, "device", lambda _: DEVICE)


def field_of(normalisation: float | None, n: int = 200) -> GaussianField:
    slices, poses = small_slices()
    return random_field(slices, poses, n, normalisation)


def oblique_planes(shape: tuple[int, int, int], thickness: float) -> ParallelPlanes:
    turned = plane_frame(np.array([0.3, -0.4, 0.2]), np.array([0.4, -0.5, 0.8]), (shape[1], shape[2]), (0.9, 0.8))
    to_planes = np.linalg.inv(turned)[:3]
    to_planes[2, 3] += 1.1 * (shape[0] - 1) / 2
    weights, offsets, variances = np.ones(1), np.zeros(1), np.zeros(1)
    if thickness:
        spread = point_spread(np.ones((1, 2)), np.array([thickness]), "slab")
        weights, offsets, variances = spread.weights, spread.offsets[0], spread.variances[0]
    return ParallelPlanes(to_planes, shape, (1.1, 0.9, 0.8), weights, offsets, variances)


def assert_same(got: np.ndarray, want: np.ndarray, normalisation: float | None) -> None:
    assert got.dtype == np.float32
    assert np.abs(want).max() > 0.3
    # an error of the sums, over a density that is at least delta
    assert np.abs(got - want).max() < TOLERANCE * np.abs(want).max() / (normalisation or 1)


@BOTH
@NORMALISATIONS
@pytest.mark.parametrize("thickness", [0.0, 3.0])
@pytest.mark.usefixtures("_few_planes_at_once")
def test_planes_are_those_of_the_host(name: str, normalisation: float | None, thickness: float):
    field, planes = field_of(normalisation, 80), oblique_planes((4, 20, 13), thickness)
    got = device_rendering.render_on_planes(field, planes, CUTOFF, DEVICE, kernels(name))
    assert_same(got, sample_parallel(field, planes), normalisation)


@pytest.mark.usefixtures("_pretended_device")
@NORMALISATIONS
def test_a_grid_holds_the_field_at_its_points(normalisation: float | None):
    field = field_of(normalisation)
    axes = (np.linspace(-12, 12, 40), np.linspace(-9, 10, 19), np.linspace(-8, 11, 33))
    expected = field_values(field, np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1))
    got = sample_grid(field, axes, "cuda")
    # both ends of the comparison: the definition leaves nothing out
    assert np.abs(got - expected).max() < 3 * TOLERANCE * np.abs(expected).max() / (normalisation or 1)
    assert_same(got, sample_grid(field, axes), normalisation)
    assert not np.any(sample_grid(field, (axes[0] + 300, *axes[1:]), "cuda"))


@pytest.mark.usefixtures("_pretended_device")
def test_thin_gaussians_are_not_lost_between_the_components_of_a_profile():
    """Both components are many standard deviations of a thin Gaussian apart."""
    field = GaussianField(
        np.zeros((1, 3), np.float32),
        np.log([[2.0, 2.0, 0.02]]).astype(np.float32),
        np.array([[1, 0, 0, 0]], np.float32),
        np.ones(1, np.float32),
    )
    between = 0.5
    to_planes = np.array([[1.0, 0, 0, 5.0], [0, 1, 0, 5.0], [0, 0, 1, 6 * between]])
    planes = ParallelPlanes(
        to_planes, (13, 11, 11), (between, 1.0, 1.0), np.full(2, 0.5), np.array([-1.0, 1.0]), np.full(2, 1e-4)
    )
    want = sample_parallel(field, planes)
    assert np.flatnonzero(want.any(axis=(1, 2))).tolist() == [4, 8]
    np.testing.assert_allclose(sample_parallel(field, planes, "cuda"), want, rtol=0, atol=TOLERANCE * want.max())


@pytest.mark.usefixtures("_pretended_device")
def test_volumes_deviations_and_planes_of_lattices_are_those_of_the_host():
    lattice = small_lattice()
    field = LatticeField(lattice, random_amplitudes(lattice))
    want = render_volume(field, 0.9)
    got = render_volume(field, 0.9, backend="cuda")
    assert_same(got.data, want.data, None)
    np.testing.assert_array_equal(got.affine, want.affine)
    deviation = render_deviation([field], want)
    np.testing.assert_allclose(
        render_deviation([field], want, backend="cuda").data, deviation.data, atol=TOLERANCE * deviation.data.max()
    )
    frame = plane_frame(np.zeros(3), np.array([0.2, 0.3, 0.9]), (30, 20), (0.7, 0.8))
    for thickness in (0.0, 3.0):
        want = render_plane(field, frame, (30, 20), (0.7, 0.8), thickness)
        assert_same(render_plane(field, frame, (30, 20), (0.7, 0.8), thickness, backend="cuda"), want, None)


@pytest.mark.usefixtures("_pretended_device")
@NORMALISATIONS
def test_nearest_neighbours_are_rendered_in_plain_pytorch(
    normalisation: float | None, caplog: pytest.LogCaptureFixture
):
    # wide ones, of which each point would see many more than three
    field = replace(field_of(normalisation, 60), log_scales=np.full((60, 3), np.log(3.0), np.float32), nearest=3)
    axes = (np.linspace(-6, 6, 7), np.linspace(-5, 4, 19), np.linspace(-4, 5, 18))
    want = sample_grid(field, axes)
    with caplog.at_level("INFO", "gsvr"):
        assert_same(sample_grid(field, axes, "cuda"), want, normalisation)
    assert "nearest neighbours: plain PyTorch" in caplog.text
    assert np.abs(want - sample_grid(replace(field, nearest=None), axes)).max() > 0.1


def test_an_unknown_backend_is_refused():
    axis = np.arange(3.0)
    with pytest.raises(InputError, match="unknown backend 'card'"):
        sample_grid(field_of(None), (axis, axis, axis), "card")

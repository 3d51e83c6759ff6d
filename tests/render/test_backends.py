"""Pictures made by the backend of PyTorch against those of the CPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import named
from gsvr.errors import InputError
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.render.plane import plane_frame, render_plane
from gsvr.render.sampling import sample_grid
from gsvr.render.volume import render_deviation, render_volume
from tests.acquisitions import random_amplitudes, random_field, small_lattice, small_slices

# Of the largest value: both cut off at 5 standard deviations, 4e-6 of each peak, and work in float32
TOLERANCE = 1e-5
AXES = (np.linspace(-12, 12, 30), np.linspace(-9, 10, 19), np.linspace(-8, 11, 23))
FRAME = plane_frame(np.array([0.3, -0.4, 0.2]), np.array([0.2, 0.3, 0.9]), (30, 20), (0.7, 0.8))


def field_of(normalisation: float | None, n: int = 200) -> GaussianField:
    slices, poses = small_slices()
    return random_field(slices, poses, n, normalisation)


def assert_same(got: np.ndarray, want: np.ndarray, normalisation: float | None = None) -> None:
    assert got.dtype == np.float32
    assert np.abs(want).max() > 0.3
    # an error of the sums, over a density that is at least delta
    assert np.abs(got - want).max() < TOLERANCE * np.abs(want).max() / (normalisation or 1)


@pytest.fixture
def torch_backend() -> str:
    pytest.importorskip("torch", reason="the backend needs PyTorch")
    return "torch"


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_free_gaussians(torch_backend: str, normalisation: float | None):
    field = field_of(normalisation)
    assert_same(sample_grid(field, AXES, torch_backend), sample_grid(field, AXES), normalisation)
    for thickness in (0.0, 3.0):
        got, want = (
            render_plane(field, FRAME, (30, 20), (0.7, 0.8), thickness, backend=backend)
            for backend in (named(torch_backend), "cpu")
        )
        assert_same(got, want, normalisation)


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_nearest_neighbours(torch_backend: str, normalisation: float | None):
    # wide ones, of which each point would see many more than three
    field = replace(field_of(normalisation, 60), log_scales=np.full((60, 3), np.log(3.0), np.float32), nearest=3)
    want = sample_grid(field, AXES)
    assert_same(sample_grid(field, AXES, torch_backend), want, normalisation)
    assert np.abs(want - sample_grid(replace(field, nearest=None), AXES)).max() > 0.1


def test_lattices(torch_backend: str):
    lattice = small_lattice()
    field = LatticeField(lattice, random_amplitudes(lattice))
    want = render_volume(field, 0.9)
    got = render_volume(field, 0.9, backend=torch_backend)
    assert_same(got.data, want.data)
    np.testing.assert_array_equal(got.affine, want.affine)
    deviation = render_deviation([field], want)
    assert_same(render_deviation([field], want, backend=torch_backend).data, deviation.data)
    for thickness in (0.0, 3.0):
        want = render_plane(field, FRAME, (30, 20), (0.7, 0.8), thickness)
        assert_same(render_plane(field, FRAME, (30, 20), (0.7, 0.8), thickness, backend=torch_backend), want)


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="unknown backend 'card'"):
        sample_grid(field_of(None), AXES, "card")

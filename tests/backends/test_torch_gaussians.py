"""Kernels of free Gaussians in plain PyTorch and by Triton against the definition, for any mixture of Gaussians."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these kernels need PyTorch")

from gsvr.backends import named  # noqa: E402
from gsvr.backends.views import nearest_radii  # noqa: E402
from gsvr.model.fields import GaussianField  # noqa: E402
from gsvr.model.point_spread import PointSpread, Profile, spread_of  # noqa: E402
from gsvr.operators.gaussians import GaussianOperator  # noqa: E402
from tests.backends.torch_backends import (  # noqa: E402
    BOTH,
    WIDE,
    backend_named,
    close,
    leaf,
    matrix,
    mixture_of_three,
    oblique_slices,
    pose_derivatives,
    positions,
    random_gaussians,
)

# exponents to base two of up to thirty in float32: 30 x 6e-8, and sums of some dozens
TOLERANCE = 4e-6
SLICES, POSES = oblique_slices()
PIXELS = np.random.default_rng(1).normal(size=len(SLICES.values)).astype(np.float32)


def operator(
    name: str, field: GaussianField, profile: Profile = mixture_of_three, cutoff: float = WIDE
) -> GaussianOperator:
    return GaussianOperator(field, SLICES, POSES, None, profile, backend_named(name), cutoff)


def definition(field: GaussianField, spread: PointSpread) -> np.ndarray:
    geometry = torch.tensor(field.means).double(), torch.tensor(field.covariances)
    return matrix(*geometry, SLICES, POSES, spread, field.normalisation is None).numpy()


@BOTH
@pytest.mark.parametrize("profile", ["slab", mixture_of_three])
def test_products_are_those_of_the_definition(name: str, profile: Profile):
    backend, field = backend_named(name), random_gaussians()
    tried, a = operator(name, field, profile), definition(field, spread_of(SLICES, profile))
    close(backend.host(tried.predict(backend.array(field.amplitudes))), a @ field.amplitudes, TOLERANCE)
    close(backend.host(tried.adjoint(backend.array(PIXELS))), a.T @ PIXELS, TOLERANCE)
    close(backend.host(tried.diagonal(backend.array(PIXELS))), (a * a).T @ PIXELS, TOLERANCE)


@BOTH
def test_pose_derivatives_are_those_of_the_definition(name: str):
    backend, field = backend_named(name), random_gaussians(12)
    value, derivatives = operator(name, field).pose_derivatives(backend.array(field.amplitudes))
    spread = mixture_of_three(SLICES)
    close(backend.host(value), definition(field, spread) @ field.amplitudes, TOLERANCE)
    for got, want in zip(derivatives, pose_derivatives(field, SLICES, POSES, spread), strict=True):
        # products of two or three such numbers
        close(backend.host(got), want, 3 * TOLERANCE)


@BOTH
@pytest.mark.parametrize("normalisation", [None, 0.3])
def test_geometry_gradients_are_those_of_the_definition(name: str, normalisation: float | None):
    field, spread, backend = random_gaussians(30, normalisation), mixture_of_three(SLICES), backend_named(name)
    means, covariances, steps = leaf(field.means), leaf(field.covariances), leaf(np.zeros((SLICES.n_slices, 6)))
    a = matrix(means, covariances, SLICES, POSES, spread, normalisation is None, steps)
    predicted = a @ torch.tensor(field.amplitudes).double()
    if normalisation is not None:
        predicted = predicted / (a.sum(1) + normalisation)
    (predicted * torch.tensor(PIXELS)).sum().backward()
    got = operator(name, field).geometry_gradient(backend.array(field.amplitudes), backend.array(PIXELS))
    for part, wanted in (("means", means), ("covariances", covariances), ("poses", steps)):
        assert wanted.grad is not None
        want = wanted.grad.numpy()
        symmetric = (want + np.swapaxes(want, 1, 2)) / 2 if part == "covariances" else want
        # sums over pixels that cancel in part
        close(getattr(got, part), symmetric, 5 * TOLERANCE)


@BOTH
def test_what_the_cutoff_leaves_out_stays_below_its_bound_and_the_adjoint_is_the_transpose(name: str):
    backend, field = backend_named(name), random_gaussians()
    tried = operator(name, field, cutoff=2.5)
    predicted = backend.host(tried.predict(backend.array(field.amplitudes))).astype(np.float64)
    error = np.abs(predicted - definition(field, mixture_of_three(SLICES)) @ field.amplitudes)
    assert 1e-4 < error.max() <= np.exp(-(2.5**2) / 2) * np.abs(field.amplitudes).sum()
    backward = field.amplitudes @ backend.host(tried.adjoint(backend.array(PIXELS))).astype(np.float64)
    assert abs(predicted @ PIXELS - backward) < 1e-6 * np.linalg.norm(predicted) * np.linalg.norm(PIXELS)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_the_same_pairs_are_seen_as_on_the_cpu(profile: Profile):
    field = random_gaussians(400)
    counts = [
        GaussianOperator(field, SLICES, POSES, None, profile, named(name), 2.5)._gaussian_kernel.n_splats  # pyright: ignore[reportAttributeAccessIssue]
        for name in ("cpu", "torch")
    ]
    assert counts[0] == counts[1] < 400 * SLICES.n_slices


@BOTH
def test_sums_are_the_same_bits_again_and_good_at_any_scale(name: str):
    backend, field = backend_named(name), random_gaussians()
    tried, pixels = operator(name, field, "slab", 3.0), backend.array(PIXELS)
    once, again = (tried.geometry_gradient(backend.array(field.amplitudes), pixels) for _ in range(2))
    for part in ("means", "covariances", "poses"):
        np.testing.assert_array_equal(getattr(once, part), getattr(again, part))
    want = tried.adjoint(pixels)
    assert torch.equal(tried.adjoint(pixels), want)
    for scale in (1e-9, 1e9):
        close(backend.host(tried.adjoint(scale * pixels) / scale), backend.host(want), TOLERANCE)
    assert not tried.adjoint(0 * pixels).any()


@pytest.mark.parametrize("normalisation", [None, 0.1])
def test_nearest_neighbours_are_those_of_the_definition(normalisation: float | None, caplog: pytest.LogCaptureFixture):
    """Wide Gaussians, of which every pixel would see all."""
    count = 4
    field = replace(random_gaussians(60, normalisation), log_scales=np.full((60, 3), np.log(2.5), np.float32))
    backend = backend_named("plain")
    tried = operator("plain", replace(field, nearest=count))
    distances = np.linalg.norm(positions(SLICES, POSES)[:, None] - field.means, axis=2)
    near = (distances <= np.sort(distances, axis=1)[:, count - 1 : count]) & SLICES.mask[:, None]
    a = definition(field, mixture_of_three(SLICES)) * near
    a = a if normalisation is None else a / (a.sum(axis=1, keepdims=True) + normalisation)
    close(backend.host(tried.predict(backend.array(field.amplitudes))), a @ field.amplitudes, TOLERANCE)
    close(backend.host(tried.adjoint(backend.array(PIXELS))), a.T @ PIXELS, TOLERANCE)
    with pytest.raises(ValueError, match="nearest"):
        tried.pose_derivatives(backend.array(field.amplitudes))
    radii = nearest_radii(field.means, SLICES, POSES, count)
    with caplog.at_level("INFO", "gsvr"):
        GaussianOperator(field, SLICES, POSES, None, "slab", backend_named("plain"), squared_radii=radii)
        assert not caplog.text


@pytest.mark.parametrize("name", BOTH.args[1][1:])
def test_nearest_neighbours_without_a_kernel_are_logged(name: str, caplog: pytest.LogCaptureFixture):
    field, backend = replace(random_gaussians(), nearest=3), backend_named(name)
    with caplog.at_level("INFO", "gsvr"):
        got = operator(name, field).predict(backend.array(field.amplitudes))
    assert "nearest neighbours: plain PyTorch" in caplog.text
    plain = backend_named("plain")
    want = operator("plain", field).predict(plain.array(field.amplitudes))
    close(backend.host(got), plain.host(want), TOLERANCE)


def test_gaussians_out_of_sight_and_no_gaussians():
    backend, field = backend_named("plain"), random_gaussians()
    away = operator("plain", replace(field, means=field.means + np.float32(500)))
    assert not away.predict(backend.array(field.amplitudes)).any()
    assert not away.adjoint(backend.array(PIXELS)).any()
    with pytest.raises(ValueError, match="without Gaussians"):
        operator("plain", field.subset(np.zeros(0, int)))

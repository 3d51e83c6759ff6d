"""Kernels of free Gaussians in PyTorch and by Triton, on slices of several tiles; their laws are in tests/laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these kernels need PyTorch")

from gsvr.backends import Backend, named  # noqa: E402
from gsvr.model.fields import GaussianField  # noqa: E402
from gsvr.model.point_spread import Profile  # noqa: E402
from gsvr.operators.gaussians import GaussianOperator  # noqa: E402
from tests.backends.torch_backends import (  # noqa: E402
    BOTH,
    TRITON,
    WIDE,
    backend_named,
    close,
    mixture_of_three,
    oblique_slices,
    random_gaussians,
    results_of,
)

# Exponents to base two of up to thirty in float32 (30 x 6e-8), exponentials of the CPU good to 2e-6, products of two or
# three such numbers, and sums that cancel in part
TOLERANCE = 2e-5
SLICES, POSES = oblique_slices()
PIXELS = np.random.default_rng(1).normal(size=len(SLICES.values)).astype(np.float32)


def operator(
    backend: Backend, field: GaussianField, profile: Profile = mixture_of_three, cutoff: float = WIDE
) -> GaussianOperator:
    return GaussianOperator(field, SLICES, POSES, None, profile, backend, cutoff)


@BOTH
@pytest.mark.parametrize(("profile", "normalisation"), [(mixture_of_three, None), ("slab", 0.3)])
def test_all_results_are_those_of_the_cpu(name: str, profile: Profile, normalisation: float | None):
    field = random_gaussians(12, normalisation)
    got, want = (
        results_of(operator(backend, field, profile), field.amplitudes, PIXELS)
        for backend in (backend_named(name), named("cpu"))
    )
    assert got.keys() == want.keys()
    for part in want:
        close(got[part], want[part], TOLERANCE)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_the_same_pairs_are_seen_as_on_the_cpu(profile: Profile):
    """Of other mixtures the CPU's kernels count every component by itself."""
    field = random_gaussians(400)
    counts = [
        operator(named(name), field, profile, 2.5)._gaussian_kernel.n_splats  # pyright: ignore[reportAttributeAccessIssue]
        for name in ("cpu", "torch")
    ]
    assert counts[0] == counts[1] < 400 * SLICES.n_slices


@BOTH
def test_sums_are_the_same_bits_again_and_good_at_any_scale(name: str):
    backend, field = backend_named(name), random_gaussians()
    tried, pixels = operator(backend, field, "gaussian", 3.0), backend.array(PIXELS)
    once, again = (tried.geometry_gradient(backend.array(field.amplitudes), pixels) for _ in range(2))
    for part in ("means", "covariances", "poses"):
        np.testing.assert_array_equal(getattr(once, part), getattr(again, part))
    want = tried.adjoint(pixels)
    assert torch.equal(tried.adjoint(pixels), want)
    for scale in (1e-9, 1e9):
        close(backend.host(tried.adjoint(scale * pixels) / scale), backend.host(want), TOLERANCE)
    assert not tried.adjoint(0 * pixels).any()


@pytest.mark.parametrize("name", [TRITON])
def test_nearest_neighbours_run_in_plain_pytorch_which_is_logged(name: str, caplog: pytest.LogCaptureFixture):
    field, plain, triton = replace(random_gaussians(), nearest=3), backend_named("plain"), backend_named(name)
    with caplog.at_level("INFO", "gsvr"):
        want = operator(plain, field).predict(plain.array(field.amplitudes))
        assert not caplog.text
        got = operator(triton, field).predict(triton.array(field.amplitudes))
    assert "nearest neighbours: plain PyTorch" in caplog.text
    close(triton.host(got), plain.host(want), TOLERANCE)


def test_gaussians_out_of_sight_and_no_gaussians():
    backend, field = backend_named("plain"), random_gaussians()
    away = operator(backend, replace(field, means=field.means + np.float32(500)))
    assert not away.predict(backend.array(field.amplitudes)).any()
    assert not away.adjoint(backend.array(PIXELS)).any()
    with pytest.raises(ValueError, match="without Gaussians"):
        operator(backend, field.subset(np.zeros(0, int)))

"""Laws of the acquisition operator: it is the convolution, its adjoint is its transpose, its derivatives are true."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.model.fields import LatticeField
from gsvr.model.geometry import transform_points
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, spread_of

pytest.importorskip("torch", reason="the reference needs PyTorch")
import torch

from gsvr.backends.torch import gaussian_reference

# A cut-off (6 sigma) that costs less than float32 does
WIDE = 6.0


def gaussians(seed: int, n: int = 6) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    means = 3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    log_scales = 0.3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    amplitudes = torch.rand(n, generator=generator, dtype=torch.float64) + 0.2
    return means, log_scales, quaternions, amplitudes


def test_closed_form_equals_quadrature_of_the_convolution() -> None:
    """Brute force: the field times the point spread function, summed over a fine grid around the pixel."""
    means, log_scales, quaternions, amplitudes = gaussians(0)
    sigma = gaussian_reference.covariances(log_scales, quaternions)
    axes = gaussian_reference.rotation_from_quaternion(torch.tensor([[0.9, 0.2, -0.3, 0.1]], dtype=torch.float64))[0]
    slices, _ = small_slices()
    spread = spread_of(slices)
    in_plane, weights = torch.tensor(spread.in_plane_variances[0]), torch.tensor(spread.weights)
    offsets, variances = torch.tensor(spread.offsets[0]), torch.tensor(spread.variances[0])
    points = torch.tensor([[0.5, -1.0, 2.0], [3.0, 1.0, -2.0]], dtype=torch.float64)
    got = gaussian_reference.responses(means, sigma, points, axes, in_plane, weights, offsets, variances) @ amplitudes
    step = torch.arange(-6, 6.01, 0.15, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3)

    def normal(x: torch.Tensor, mean: torch.Tensor | float, variance: torch.Tensor) -> torch.Tensor:
        return torch.exp(-0.5 * (x - mean) ** 2 / variance) / torch.sqrt(2 * torch.pi * variance)

    through = sum(w * normal(grid[:, 2], b, v) for w, b, v in zip(weights, offsets, variances, strict=True))
    psf = normal(grid[:, 0], 0.0, in_plane[0]) * normal(grid[:, 1], 0.0, in_plane[1]) * through * 0.15**3
    for point, value in zip(points, got, strict=True):
        d = (point + grid @ axes.T)[:, None] - means
        field = torch.exp(-0.5 * torch.einsum("gni,nij,gnj->gn", d, torch.linalg.inv(sigma), d)) @ amplitudes
        assert abs((psf * field).sum() - value) < 1e-9


def test_lattice_operator_equals_the_definition() -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    amplitudes = random_amplitudes(lattice)
    predicted = AcquisitionOperator(lattice, slices, poses, cutoff=WIDE).predict(amplitudes)
    field = LatticeField(lattice, amplitudes).to_gaussians()
    spread = spread_of(slices)
    positions = slices.pixel_positions()
    for s in range(slices.n_slices):
        matrix = gaussian_reference.responses(
            torch.tensor(field.means, dtype=torch.float64),
            torch.tensor(field.covariances),
            torch.tensor(transform_points(poses[s], positions[slices.pixels_of(s)])),
            torch.tensor((poses[s] @ slices.frames[s])[:3, :3]),
            torch.tensor(spread.in_plane_variances[s]),
            torch.tensor(spread.weights),
            torch.tensor(spread.offsets[s]),
            torch.tensor(spread.variances[s]),
        ).numpy()
        expected = matrix @ field.amplitudes.astype(np.float64)
        got = predicted[slices.pixels_of(s)]
        assert np.abs(got - expected).max() < 3e-5 * np.abs(expected).max()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_adjoint_is_the_transpose(backend: str) -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    rng = np.random.default_rng(3)
    gains = rng.uniform(0.5, 2, slices.n_slices)
    operator = AcquisitionOperator(lattice, slices, poses, gains, backend=backend)
    amplitudes = random_amplitudes(lattice)
    pixels = rng.normal(size=len(slices.values)).astype(np.float32)
    forward = float(operator.predict(amplitudes).astype(np.float64) @ pixels)
    backward = float(amplitudes.ravel().astype(np.float64) @ operator.adjoint(pixels).ravel())
    size = np.linalg.norm(operator.predict(amplitudes)) * np.linalg.norm(pixels)
    assert abs(forward - backward) < 1e-6 * size


def test_diagonal_is_that_of_the_normal_matrix() -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    operator = AcquisitionOperator(lattice, slices, poses, np.full(slices.n_slices, 1.3), cutoff=WIDE)
    weights = np.random.default_rng(0).random(len(slices.values)).astype(np.float32)
    diagonal = operator.diagonal(weights)
    for site in np.argwhere(lattice.support)[::60]:
        unit = np.zeros(lattice.shape, np.float32)
        unit[tuple(site)] = 1
        column = operator.predict(unit)
        assert diagonal[tuple(site)] == pytest.approx(float((weights * column**2).sum()), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_pose_derivative_is_the_limit_of_differences(backend: str) -> None:
    slices, poses = small_slices()
    lattice = small_lattice()
    amplitudes = random_amplitudes(lattice)

    def operator(at: np.ndarray) -> AcquisitionOperator:
        return AcquisitionOperator(lattice, slices, at, backend=backend, cutoff=WIDE)

    _, jacobian = operator(poses).pose_derivatives(amplitudes)
    for parameter in range(6):
        h = 2e-3 if parameter < 3 else 1e-2
        step = np.zeros((slices.n_slices, 6))
        step[:, parameter] = h
        plus = operator(moved_poses(slices, poses, step)).predict(amplitudes)
        minus = operator(moved_poses(slices, poses, -step)).predict(amplitudes)
        difference = (plus - minus) / (2 * h)
        # central differences: float32 noise 1e-6 / h, curvature h^2
        assert np.abs(jacobian[parameter] - difference).max() < 2e-3 * np.abs(difference).max(), parameter

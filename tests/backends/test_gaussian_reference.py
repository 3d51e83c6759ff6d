"""The definition of free Gaussians: every derivative of it is true."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference needs PyTorch")
from gsvr.backends import gaussian_reference  # noqa: E402
from gsvr.model.geometry import rotation_from_quaternion  # noqa: E402

# tensors this small are a hundred times slower on two busy cores than on one
torch.set_num_threads(1)

POINTS = torch.tensor([[0.5, -1.0, 2.0], [2.0, 1.0, -1.0]], dtype=torch.float64)
PARTS = [torch.tensor(values, dtype=torch.float64) for values in ([0.3, 0.4], [0.4, 0.6], [-0.7, 0.5], [0.2, 0.3])]


def gaussians(n: int) -> list:
    generator = torch.Generator().manual_seed(1)
    sizes = ((n, 3), (n, 3), (n, 4), (n,))
    means, log_scales, quaternions, amplitudes = (
        torch.randn(*size, generator=generator, dtype=torch.float64) for size in sizes
    )
    return [3 * means, 0.3 * log_scales, quaternions, amplitudes]


@pytest.mark.parametrize(
    ("exact", "delta", "nearest"), [(True, None, None), (False, None, None), (False, 0.1, None), (False, 0.1, 2)]
)
def test_every_derivative_is_true(exact: bool, delta: float | None, nearest: int | None):
    """Gradcheck in float64: means, scales, rotations, amplitudes, and the pose (points and axes)."""
    turn = torch.tensor([[0.9, 0.2, -0.3, 0.1]], dtype=torch.float64)

    def predict(means, log_scales, quaternions, amplitudes, points, turn):
        axes = gaussian_reference.rotation_from_quaternion(turn)[0]
        sigma = gaussian_reference.covariances(log_scales, quaternions)
        matrix = gaussian_reference.responses(means, sigma, points, axes, *PARTS, exact=exact, nearest=nearest)
        pixels = matrix @ amplitudes
        return pixels if delta is None else gaussian_reference.normalised(pixels, matrix.sum(1), delta)

    inputs = [x.clone().requires_grad_() for x in (*gaussians(3), POINTS, turn)]
    assert torch.autograd.gradcheck(predict, inputs)


def test_rotations_are_those_of_the_package():
    quaternions = gaussians(5)[2]
    expected = rotation_from_quaternion(quaternions.numpy())
    np.testing.assert_allclose(gaussian_reference.rotation_from_quaternion(quaternions).numpy(), expected, atol=1e-12)


def test_without_the_factor_a_gaussian_has_height_one():
    """Seen at its blurred centre by a profile of one component."""
    means, log_scales, quaternions, _ = gaussians(3)
    sigma = gaussian_reference.covariances(log_scales, quaternions)
    one = [torch.tensor(values, dtype=torch.float64) for values in ([0.3, 0.4], [1.0], [0.0], [0.5])]
    eye = torch.eye(3, dtype=torch.float64)
    plain = gaussian_reference.responses(means, sigma, means, eye, *one, exact=False)
    np.testing.assert_allclose(plain.diagonal(), 1, atol=1e-12)
    true = gaussian_reference.responses(means, sigma, means, eye, *one)
    spread = torch.diag(torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64))
    np.testing.assert_allclose(true.diagonal() ** 2, torch.linalg.det(sigma) / torch.linalg.det(sigma + spread))


def test_only_the_nearest_are_seen():
    means, log_scales, quaternions, _ = gaussians(6)
    sigma = gaussian_reference.covariances(log_scales + 1, quaternions)
    seen = gaussian_reference.responses(means, sigma, POINTS, torch.eye(3, dtype=torch.float64), *PARTS, nearest=2) > 0
    order = np.linalg.norm(POINTS.numpy()[:, None] - means.numpy(), axis=2).argsort(axis=1)
    for row, nearest in zip(seen.numpy(), order[:, :2], strict=True):
        assert set(np.flatnonzero(row)) == set(nearest)

"""Laws of the acquisition of free Gaussians: frames do not matter, gradients are true, what is a convolution is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends.views import nearest_radii
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import pose_about, quaternion_from_rotation, rotation_from_quaternion, transform_points
from gsvr.operators.acquisition import AcquisitionOperator, moved_poses
from tests.acquisitions import random_amplitudes, small_lattice, small_slices, spread_of
from tests.free_gaussians import field_values, random_field

# a cut-off (6 standard deviations) that costs less than float32 does
WIDE = 6.0
SLICES, POSES = small_slices()
GAINS = np.random.default_rng(3).uniform(0.5, 2, SLICES.n_slices)
# so large that it is seen in every pixel
DELTA = 0.1
NORMALISATIONS = pytest.mark.parametrize("normalisation", [None, DELTA])


def field_of(normalisation: float | None) -> GaussianField:
    return random_field(SLICES, POSES, normalisation=normalisation)


def operator(field: GaussianField, poses: np.ndarray = POSES, **settings) -> AcquisitionOperator:
    return AcquisitionOperator(field, SLICES, poses, GAINS, cutoff=WIDE, **settings)


def random_pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(SLICES.values)).astype(np.float32)


@NORMALISATIONS
def test_moving_field_and_slices_together_changes_nothing(normalisation: float | None):
    field = field_of(normalisation)
    move = pose_about(np.array([0.4, -0.2, 0.7]), np.array([3.0, -5.0, 1.0]), np.zeros(3))
    turned = replace(
        field,
        means=transform_points(move, field.means),
        quaternions=quaternion_from_rotation(move[:3, :3] @ rotation_from_quaternion(field.quaternions)),
    )
    still = operator(field).predict(field.amplitudes)
    moved = operator(turned, move @ POSES).predict(field.amplitudes)
    assert np.abs(moved - still).max() < 1e-5 * np.abs(still).max()
    slices_only = operator(field, move @ POSES).predict(field.amplitudes)
    assert np.abs(slices_only - still).max() > 0.1 * np.abs(still).max()


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_a_lattice_as_free_gaussians_gives_the_same_pixels(profile):
    lattice = small_lattice()
    amplitudes = random_amplitudes(lattice)
    field = LatticeField(lattice, amplitudes).to_gaussians()
    one = AcquisitionOperator(lattice, SLICES, POSES, GAINS, profile, cutoff=WIDE)
    other = AcquisitionOperator(field, SLICES, POSES, GAINS, profile, cutoff=WIDE)
    pixels, expected = random_pixels(0), one.predict(amplitudes)
    assert np.abs(other.predict(field.amplitudes) - expected).max() < 2e-5 * np.abs(expected).max()
    expected = one.adjoint(pixels)[lattice.support]
    assert np.abs(other.adjoint(pixels) - expected).max() < 2e-5 * np.abs(expected).max()


@NORMALISATIONS
def test_adjoint_is_the_transpose(normalisation: float | None):
    field = field_of(normalisation)
    tested, pixels = operator(field), random_pixels(1)
    predicted = tested.predict(field.amplitudes)
    forward = predicted.astype(np.float64) @ pixels
    backward = field.amplitudes.astype(np.float64) @ tested.adjoint(pixels)
    assert abs(forward - backward) < 1e-6 * np.linalg.norm(predicted) * np.linalg.norm(pixels)


@NORMALISATIONS
def test_diagonal_is_that_of_the_normal_matrix_for_one_component(normalisation: float | None):
    field, weights = field_of(normalisation), np.abs(random_pixels(2))
    tested = operator(field, profile="gaussian")
    diagonal = tested.diagonal(weights)
    for j in range(0, field.n_gaussians, 20):
        column = tested.predict(np.eye(field.n_gaussians, dtype=np.float32)[j])
        assert diagonal[j] == pytest.approx(float((weights * column**2).sum()), rel=1e-5, abs=1e-9)


@NORMALISATIONS
def test_pose_derivative_is_the_limit_of_differences(normalisation: float | None):
    field = field_of(normalisation)
    predicted, jacobian = operator(field).pose_derivatives(field.amplitudes)
    np.testing.assert_allclose(predicted, operator(field).predict(field.amplitudes), atol=1e-5)
    for parameter in range(6):
        h = 2e-3 if parameter < 3 else 1e-2
        step = np.zeros((SLICES.n_slices, 6))
        step[:, parameter] = h
        plus, minus = (
            operator(field, moved_poses(SLICES, POSES, sign * step)).predict(field.amplitudes) for sign in (1, -1)
        )
        difference = (plus - minus) / (2 * h)
        # central differences: float32 noise 1e-6 / h, curvature h^2
        assert np.abs(jacobian[parameter] - difference).max() < 2e-3 * np.abs(difference).max(), parameter


@pytest.mark.parametrize("nearest", [None, 20])
@NORMALISATIONS
def test_geometry_gradient_is_that_of_the_definition(normalisation: float | None, nearest: int | None):
    torch = pytest.importorskip("torch", reason="the reference needs PyTorch")
    from gsvr.backends.torch.gaussian_reference import normalised

    from tests.acquisition_matrix import leaves, matrix

    field, pixels, amplitudes = field_of(normalisation), random_pixels(4) * SLICES.mask, field_of(None).amplitudes
    radii = None if nearest is None else nearest_radii(field.means, SLICES, POSES, nearest)
    got = operator(field, squared_radii=radii).geometry_gradient(amplitudes, pixels)
    geometry, steps = leaves(field), torch.zeros(SLICES.n_slices, 6, dtype=torch.float64, requires_grad=True)
    full = matrix(geometry, SLICES, POSES, spread_of(SLICES), normalisation is None, nearest, steps)
    predicted = full @ torch.tensor(amplitudes).double()
    if normalisation is not None:
        predicted = normalised(predicted, full.sum(dim=1), normalisation)
    value = torch.tensor(pixels * SLICES.per_pixel(GAINS)) @ predicted
    wanted = torch.autograd.grad(value, (*geometry, steps))
    for one, tensor in zip((got.means, *field.shape_gradient(got.covariances), got.poses), wanted, strict=True):
        want = tensor.numpy()
        assert np.abs(one - want).max() < 1e-5 * np.abs(want).max()
        assert (one * want).sum() > (1 - 1e-9) * np.linalg.norm(one) * np.linalg.norm(want)


def test_other_poses_and_gains_keep_everything_else():
    field = field_of(DELTA)
    radii = nearest_radii(field.means, SLICES, POSES, 20)
    other_poses = moved_poses(SLICES, POSES, np.full((SLICES.n_slices, 6), 0.05))
    moved = operator(field, squared_radii=radii, profile="gaussian").with_poses(other_poses)
    expected = operator(field, other_poses, squared_radii=radii, profile="gaussian").predict(field.amplitudes)
    np.testing.assert_array_equal(moved.predict(field.amplitudes), expected)
    ones = moved.with_gains(np.ones(SLICES.n_slices)).predict(field.amplitudes)
    np.testing.assert_allclose(moved.without_gains(expected), ones, rtol=1e-6)


def test_what_a_lattice_has_not_is_refused():
    lattice = small_lattice()
    flat = random_amplitudes(lattice)[lattice.support]
    with pytest.raises(TypeError, match="only free Gaussians"):
        AcquisitionOperator(lattice, SLICES, POSES).geometry_gradient(flat, random_pixels(5))
    with pytest.raises(ValueError, match="for free Gaussians"):
        AcquisitionOperator(lattice, SLICES, POSES, squared_radii=np.ones(len(SLICES.values), np.float32))


def averaged(field: GaussianField, pixel: int) -> float:
    """The field averaged over the point spread function around a pixel, by quadrature."""
    s, spread = int(SLICES.per_pixel(np.arange(SLICES.n_slices))[pixel]), spread_of(SLICES)
    step = 0.4 * np.arange(-12, 13)  # Gaussians wider than this converge beyond float64
    grid = np.stack(np.meshgrid(step, step, step, indexing="ij"), axis=-1).reshape(-1, 3)
    weights = np.exp(-0.5 * (grid[:, :2] ** 2 / spread.in_plane_variances[s]).sum(axis=1))
    weights *= sum(
        weight * np.exp(-0.5 * (grid[:, 2] - offset) ** 2 / variance) / np.sqrt(variance)
        for weight, offset, variance in zip(spread.weights, spread.offsets[s], spread.variances[s], strict=True)
    )
    axes = (POSES[s] @ SLICES.frames[s])[:3, :3]
    centre = transform_points(POSES[s], SLICES.pixel_positions()[pixel])
    return float(weights @ field_values(field, centre + grid @ axes.T) / weights.sum())


def test_only_the_additive_field_is_the_convolution_with_the_point_spread_function():
    """The normalised field is far from it, by construction: a quotient of averages is no average of quotients."""
    pixels = np.flatnonzero(SLICES.mask)[20::200]
    errors = {}
    for normalisation in (None, DELTA):
        field = field_of(normalisation)
        predicted = AcquisitionOperator(field, SLICES, POSES, cutoff=WIDE).predict(field.amplitudes)
        true = np.array([averaged(field, pixel) for pixel in pixels])
        errors[normalisation] = np.abs(predicted[pixels] - true).max() / np.abs(true).max()
    assert errors[None] < 1e-5  # float32, see tests/kernels/test_gaussian_kernels.py
    assert errors[DELTA] > 0.05

"""The kernels of free Gaussians against their float64 definition: values, gradients, and the bound of the cut-off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import gaussian_kernel
from gsvr.backends.cpu.gaussians import CpuGaussianKernel
from gsvr.backends.views import nearest_radii, slice_views
from gsvr.errors import InputError
from gsvr.model.fields import GaussianField
from gsvr.operators.acquisition import moved_poses
from tests.acquisitions import small_slices, spread_of
from tests.free_gaussians import random_field

torch = pytest.importorskip("torch", reason="the reference needs PyTorch")
from tests.acquisition_matrix import leaves, matrix  # noqa: E402

# float32: exponentials good to 2e-6, of exponents that are rounded themselves, sums of hundreds; of the largest value
TOLERANCE = 1e-5
# a cut-off that costs nothing (6 standard deviations: 1.5e-8)
WIDE = 6.0
NEAREST = 20

SLICES, POSES = small_slices()
FIELD = random_field(SLICES, POSES)
AMPLITUDES = FIELD.amplitudes.astype(np.float32)
# K nearest neighbours are looked for inside the mask only
KINDS = [(exact, nearest) for exact in (True, False) for nearest in (None, NEAREST)]


def kernel(
    exact: bool = True,
    nearest: int | None = None,
    profile: str = "slab",
    cutoff: float = WIDE,
    field: GaussianField = FIELD,
) -> CpuGaussianKernel:
    radii = None if nearest is None else nearest_radii(field.means, SLICES, POSES, nearest)
    views = slice_views(SLICES, POSES, spread_of(SLICES, profile), cutoff, exact, radii)
    return CpuGaussianKernel(field, views)


def definition(
    exact: bool = True, nearest: int | None = None, profile: str = "slab", poses: np.ndarray = POSES
) -> np.ndarray:
    """The matrix A; of nearest neighbours only where they are looked for."""
    full = matrix(leaves(FIELD), SLICES, poses, spread_of(SLICES, profile), exact, nearest).detach().numpy()
    return full if nearest is None else full * SLICES.mask[:, None]


def random_pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=len(SLICES.values)).astype(np.float32)


def columns(of: CpuGaussianKernel, n: int = len(AMPLITUDES)) -> np.ndarray:
    """The matrix A as the kernel predicts with it."""
    return np.stack([of.predict(unit) for unit in np.eye(n, dtype=np.float32)], axis=1)


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Elementwise, and as one vector: length and direction."""
    assert np.abs(want).max() > 0.1
    assert np.abs(got - want).max() < tolerance * np.abs(want).max()
    got, want = got.ravel().astype(np.float64), want.ravel().astype(np.float64)
    assert abs(np.linalg.norm(got) / np.linalg.norm(want) - 1) < tolerance
    assert got @ want / (np.linalg.norm(got) * np.linalg.norm(want)) > 1 - 1e-9


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize(("exact", "nearest"), KINDS)
def test_prediction_and_adjoint_are_those_of_the_definition(exact: bool, nearest: int | None, profile: str):
    tested, expected = kernel(exact, nearest, profile), definition(exact, nearest, profile)
    pixels = random_pixels(1)
    assert_close(tested.predict(AMPLITUDES), expected @ AMPLITUDES)
    assert_close(tested.adjoint(pixels), expected.T @ pixels)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_squared_adjoint_squares_what_all_components_are_together(profile: str):
    pixels = random_pixels(2)
    expected = (matrix(leaves(FIELD), SLICES, POSES, spread_of(SLICES, profile)).detach().numpy() ** 2).T @ pixels
    assert_close(kernel(profile=profile).squared_adjoint(pixels), expected)


@pytest.mark.parametrize(("exact", "nearest"), KINDS)
def test_adjoint_is_the_transpose(exact: bool, nearest: int | None):
    """Also where Gaussians are cut off. Only sums in another order differ, in float32."""
    tested = kernel(exact, nearest, cutoff=2.0)
    forward = columns(tested)
    pixels = np.random.default_rng(0).choice(np.flatnonzero(SLICES.mask), 30, replace=False)
    backward = np.stack([tested.adjoint(unit) for unit in np.eye(len(SLICES.values), dtype=np.float32)[pixels]])
    assert 0 < np.count_nonzero(backward) < backward.size
    np.testing.assert_array_equal(forward[pixels] != 0, backward != 0)
    np.testing.assert_allclose(forward[pixels], backward, rtol=3e-6)
    residual = random_pixels(3)
    one, other = tested.predict(AMPLITUDES).astype(np.float64) @ residual, AMPLITUDES @ tested.adjoint(residual)
    assert abs(one - other) < 1e-6 * np.linalg.norm(tested.predict(AMPLITUDES)) * np.linalg.norm(residual)


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize("exact", [True, False])
def test_derivative_planes_are_derivatives_by_the_pose(exact: bool, profile: str):
    """A turn by w about the slice's centre changes a pixel by w . ((pixel - centre) x g - torque)."""
    planes = kernel(exact, profile=profile).derivatives(AMPLITUDES).astype(np.float64)
    assert_close(planes[0], definition(exact, profile=profile) @ AMPLITUDES)
    lever = np.concatenate(
        [
            (np.indices(shape).reshape(2, -1).T - (shape - 1) / 2) * spacing
            for shape, spacing in zip(SLICES.shapes, SLICES.pixel_spacings, strict=True)
        ]
    )
    lever = np.column_stack([lever, np.zeros(len(lever))])
    got = np.concatenate([np.cross(lever, planes[1:4].T).T - planes[4:7], planes[1:4]])
    h = 1e-5  # differences of float64 are good to 1e-10 of it
    for parameter in range(6):
        step = np.zeros((SLICES.n_slices, 6))
        step[:, parameter] = h
        plus, minus = (
            definition(exact, profile=profile, poses=moved_poses(SLICES, POSES, sign * step)) @ AMPLITUDES
            for sign in (1, -1)
        )
        assert_close(got[parameter], (plus - minus) / (2 * h))


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
@pytest.mark.parametrize(("exact", "nearest"), KINDS)
def test_gradient_is_that_of_the_definition(exact: bool, nearest: int | None, profile: str):
    """Of <r, A c> + <t, A 1> by means, log-scales, quaternions, amplitudes and poses."""
    tested, residual, density = kernel(exact, nearest, profile), random_pixels(4), random_pixels(5)
    if nearest is not None:
        residual, density = residual * SLICES.mask, density * SLICES.mask
    got = tested.gradient(AMPLITUDES, residual, density)
    geometry, amplitudes = leaves(FIELD), torch.tensor(AMPLITUDES, dtype=torch.float64, requires_grad=True)
    steps = torch.zeros(SLICES.n_slices, 6, dtype=torch.float64, requires_grad=True)
    full = matrix(geometry, SLICES, POSES, spread_of(SLICES, profile), exact, nearest, steps)
    value = torch.tensor(residual).double() @ full @ amplitudes + torch.tensor(density).double() @ full.sum(dim=1)
    wanted = torch.autograd.grad(value, (*geometry, amplitudes, steps))
    by_scale, by_quaternion = FIELD.shape_gradient(got.covariances)
    np.testing.assert_allclose(got.covariances, np.swapaxes(got.covariances, 1, 2), atol=1e-12)
    measured = (got.means, by_scale, by_quaternion, tested.adjoint(residual), got.poses)
    for one, want in zip(measured, wanted, strict=True):
        assert_close(one, want.numpy())


@pytest.mark.parametrize("nearest", [1, NEAREST])
def test_each_pixel_sees_its_nearest_and_nothing_outside_the_mask(nearest: int):
    wide = replace(FIELD, log_scales=FIELD.log_scales + 1)  # so that none is cut off
    tested = kernel(nearest=nearest, field=wide, profile="gaussian", cutoff=9.0)
    seen = np.count_nonzero(columns(tested), axis=1)
    np.testing.assert_array_equal(seen, np.where(SLICES.mask, nearest, 0))


def test_more_neighbours_than_gaussians_are_all():
    few = random_field(SLICES, POSES, n=5)
    limited, free = kernel(nearest=9, field=few), kernel(field=few)
    expected = free.predict(few.amplitudes) * SLICES.mask
    np.testing.assert_allclose(limited.predict(few.amplitudes), expected, atol=1e-6)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("cutoff", [2.0, 3.0])
def test_what_is_cut_off_stays_below_its_bound(cutoff: float, exact: bool):
    """Term by term for a profile of one component, and so for the sum of the terms that are left out."""
    tested, full = kernel(exact, profile="gaussian", cutoff=cutoff), definition(exact, profile="gaussian")
    spread = spread_of(SLICES, "gaussian")
    sigma = FIELD.covariances
    peaks = np.ones_like(full)
    if exact:
        for s in range(SLICES.n_slices):
            axes = (POSES[s] @ SLICES.frames[s])[:3, :3]
            width = np.diag([*spread.in_plane_variances[s], spread.variances[s, 0]])
            blurred = sigma + axes @ width @ axes.T
            peaks[SLICES.pixels_of(s)] = np.sqrt(np.linalg.det(sigma) / np.linalg.det(blurred))
    left_out = columns(tested) == 0
    share = (full / peaks)[left_out] / np.exp(-(cutoff**2) / 2)
    assert 0.9 < share.max() < 1 + 1e-5
    error = np.abs(tested.predict(AMPLITUDES) - full @ AMPLITUDES)
    bound = np.exp(-(cutoff**2) / 2) * (np.abs(AMPLITUDES) * peaks * left_out).sum(axis=1)
    assert np.all(error <= bound + TOLERANCE * np.abs(full @ AMPLITUDES).max())
    assert error.max() > 1e-3 * bound.max()


def test_result_does_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    pixels, results = random_pixels(6), []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("GSVR_THREADS", threads)
        tested, near = kernel(cutoff=3.0), kernel(nearest=NEAREST, cutoff=3.0)
        gradients = [of.gradient(AMPLITUDES, pixels, pixels) for of in (tested, near)]
        results.append(
            [
                tested.predict(AMPLITUDES),
                near.predict(AMPLITUDES),
                tested.adjoint(pixels),
                tested.squared_adjoint(pixels),
                tested.derivatives(AMPLITUDES),
                *(part for g in gradients for part in (g.means, g.covariances, g.poses)),
            ]
        )
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_order_of_the_gaussians_does_not_matter():
    """Up to the order of float32 sums."""
    order = np.random.default_rng(1).permutation(len(AMPLITUDES))
    mixed = GaussianField(FIELD.means[order], FIELD.log_scales[order], FIELD.quaternions[order], AMPLITUDES[order])
    one, other, pixels = kernel(), kernel(field=mixed), random_pixels(7)
    assert_close(other.predict(mixed.amplitudes), one.predict(AMPLITUDES), 1e-6)
    assert_close(other.adjoint(pixels), one.adjoint(pixels)[order], 1e-6)
    got, want = other.gradient(mixed.amplitudes, pixels), one.gradient(AMPLITUDES, pixels)
    assert_close(got.means, want.means[order], 1e-6)
    assert_close(got.covariances, want.covariances[order], 1e-6)
    assert_close(got.poses, want.poses, 1e-6)


def test_a_single_gaussian_and_one_out_of_sight():
    one = replace(random_field(SLICES, POSES, n=1), means=POSES[4:5, :3] @ [*SLICES.centres[4], 1])
    tested = kernel(field=one)
    expected = matrix(leaves(one), SLICES, POSES, spread_of(SLICES)).detach().numpy()
    assert_close(tested.predict(np.ones(1, np.float32)), expected[:, 0])
    far = kernel(field=replace(one, means=one.means + 500))
    assert not np.any(far.predict(np.ones(1, np.float32)))
    assert not np.any(far.adjoint(random_pixels(8)))
    assert not np.any(far.gradient(np.ones(1, np.float32), random_pixels(8)).poses)


def test_what_is_not_there_is_refused_by_name():
    with pytest.raises(InputError, match="'reference' has no kernels for free Gaussians"):
        gaussian_kernel("reference", FIELD, slice_views(SLICES, POSES, spread_of(SLICES)))
    with pytest.raises(ValueError, match="nearest neighbours"):
        kernel(nearest=NEAREST).derivatives(AMPLITUDES)

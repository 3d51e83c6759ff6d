"""Seeds on a device against those of the host, and what they are made with."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import quaternion_from_rotation, rotation_from_vector
from gsvr.solver import seeding
from gsvr.solver.seeding import SeedOptions
from tests.acquisitions import small_lattice

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from torch import Tensor  # noqa: E402

from gsvr.device_solver import device_seeding, rigid  # noqa: E402
from gsvr.device_solver.gaussian_filter import gaussian_filter  # noqa: E402
from gsvr.device_solver.symmetric_matrices import symmetric_eigen  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402

LATTICE = small_lattice(spacing=1.2, sigma=0.8, half_width=14.0)
NOISE = 0.02


def tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values).to(DEVICE)


def wavy_field() -> LatticeField:
    """Waves, an edge, and noise: every shape of Gaussian."""
    x, y, z = np.indices(LATTICE.shape) * LATTICE.spacing
    rng = np.random.default_rng(0)
    values = 1 + 0.5 * np.sin(0.3 * x) * np.cos(0.2 * y + 0.1 * z) + 0.3 * (z > 12) + 0.02 * rng.normal(size=x.shape)
    return LatticeField(LATTICE, (values * LATTICE.support).astype(np.float32))


def seeds_of(field: LatticeField, options: SeedOptions, noise: float = NOISE) -> tuple[GaussianField, GaussianField]:
    """Seeds of the host and of the device."""
    got = device_seeding.seed_from_lattice(tensor(field.amplitudes), field.lattice, noise, options)
    return seeding.seed_from_lattice(field, noise, options), got.on_host()


@pytest.mark.parametrize("shape", [(9, 12, 7), (1, 2, 3)], ids=["usual", "narrower than the filter"])
@pytest.mark.parametrize("orders", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_filters_are_those_of_scipy(shape: tuple[int, ...], orders: tuple[int, int, int], sigma: float):
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    want = ndimage.gaussian_filter(values, sigma, order=orders)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(gaussian_filter(tensor(values), sigma, orders).cpu().numpy(), want, atol=1e-6)


def matrices() -> np.ndarray:
    """Symmetric matrices: any, of few directions, with eigenvalues close to each other, diagonal, and nothing."""
    rng = np.random.default_rng(2)
    parts = rng.normal(size=(400, 3, 3)) * 10.0 ** rng.uniform(-6, 3, size=(400, 1, 1))
    parts[100:200, :, 1:] = 0
    parts[200:300] = rotation_from_vector(rng.normal(size=(100, 3))) * (1 + 1e-7 * rng.normal(size=(100, 1, 3)))
    products = parts @ parts.transpose(0, 2, 1)
    flat = [np.zeros((3, 3)), np.eye(3), np.diag([3.0, 1.0, 2.0]), np.ones((3, 3))]
    return np.concatenate([products, flat])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eigenvalues_and_axes(dtype: type[np.floating]):
    given = matrices().astype(dtype)
    values, axes = (part.cpu().numpy() for part in symmetric_eigen(tensor(given)))
    assert values.dtype == dtype
    rounding = 20 * float(np.finfo(dtype).eps)
    size = np.abs(given).max(axis=(1, 2))
    off = np.abs(values - np.linalg.eigvalsh(given.astype(np.float64))).max(axis=1)
    assert (off <= rounding * size).all()
    assert (np.diff(values, axis=1) >= 0).all()
    np.testing.assert_allclose(axes.transpose(0, 2, 1) @ axes, np.tile(np.eye(3), (len(given), 1, 1)), atol=rounding)
    off = np.abs((axes * values[:, None]) @ axes.transpose(0, 2, 1) - given).max(axis=(1, 2))
    assert (off <= rounding * size).all()


def test_quaternions_are_those_of_the_host():
    rng = np.random.default_rng(3)
    rotations = rotation_from_vector(2 * rng.normal(size=(200, 3)))
    got = rigid.quaternion_from_rotation(tensor(rotations)).cpu().numpy()
    np.testing.assert_allclose(got, quaternion_from_rotation(rotations), atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [
        SeedOptions(),
        SeedOptions(most=1500),
        SeedOptions(contrast=9.0, gradient_power=1.0, floor=0.3, width=0.8, stretch=2.0),
    ],
)
def test_seeds_are_those_of_the_host(options: SeedOptions):
    """In the same cells, but for one in a thousand whose density may lie within rounding of its threshold."""
    want, got = seeds_of(wavy_field(), options)
    places = [
        {tuple(cell): n for n, cell in enumerate(np.rint(1e3 * field.means).astype(int))} for field in (want, got)
    ]
    shared = [(places[0][cell], places[1][cell]) for cell in places[0].keys() & places[1].keys()]
    assert len(shared) > 1000
    assert len(shared) >= 0.999 * max(len(want.means), len(got.means))
    mine, its = np.array(shared).T
    np.testing.assert_allclose(got.means[its], want.means[mine], atol=1e-5)
    np.testing.assert_allclose(got.log_scales[its], want.log_scales[mine], atol=1e-5)
    np.testing.assert_allclose(got.amplitudes[its], want.amplitudes[mine], atol=2e-6 * np.abs(want.amplitudes).max())
    # axes have no sign, and around a round Gaussian no direction
    np.testing.assert_allclose(got.covariances[its], want.covariances[mine], atol=2e-5)
    assert {part.dtype for part in (got.means, got.log_scales, got.quaternions, got.amplitudes)} == {np.dtype("f4")}


def test_densities_are_those_of_the_host():
    """Cells are full here and there, so that what does not fit goes elsewhere, to the last cell of an axis."""
    rng = np.random.default_rng(4)
    density = (4 * rng.random((8, 11, 15)) ** 2).astype(np.float32)
    support = rng.random(density.shape) < 0.8
    density *= support
    sites, places = seeding._draw(density, support, SeedOptions())
    got_sites, got_places = device_seeding._draw(tensor(density), tensor(support), SeedOptions())
    np.testing.assert_array_equal(got_sites.cpu().numpy(), sites)
    np.testing.assert_allclose(got_places.cpu().numpy(), places, rtol=2e-6)
    assert (places > 0.999 / SeedOptions().cell ** 3).any()


def test_an_empty_field_has_the_same_handful():
    want, got = seeds_of(LatticeField(LATTICE, np.zeros(LATTICE.shape, np.float32)), SeedOptions(), 0.0)
    np.testing.assert_array_equal(got.means, want.means)
    np.testing.assert_allclose(got.covariances, want.covariances, atol=1e-5)
    assert not got.amplitudes.any()

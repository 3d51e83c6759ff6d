"""Free Gaussians from a lattice: how many, where, and of what shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gsvr.model.fields import GaussianField, Lattice, LatticeField
from gsvr.solver.seeding import SeedOptions, seed_from_lattice
from tests.solver.oblique import ball_lattice, field_values

OPTIONS = SeedOptions()
LATTICE = ball_lattice(spacing=1.2, sigma=0.8, radius=14.0)
X, Y, Z = np.indices(LATTICE.shape) * LATTICE.spacing + LATTICE.origin[:, None, None, None]
RADIUS = 14.0


def site_level(lattice: Lattice) -> float:
    """Amplitude of a field of intensity one."""
    return float((lattice.spacing / (lattice.sigma * np.sqrt(2 * np.pi))) ** 3)


SITE_LEVEL = site_level(LATTICE)


def field_with(values: np.ndarray) -> LatticeField:
    """A field of about these intensities."""
    return LatticeField(LATTICE, (values * SITE_LEVEL * LATTICE.support).astype(np.float32))


def edge() -> LatticeField:
    """Dark on the left, bright on the right."""
    return field_with(np.where(X > 0, 1.0, 0.3))


def deviations_along_axes(seeds: GaussianField) -> np.ndarray:
    """Standard deviations (mm) along x, y, z."""
    return np.sqrt(np.diagonal(seeds.covariances, axis1=1, axis2=2))


def test_number_grows_with_contrast_over_noise():
    smooth = field_with(1 + 0.05 * np.sin(0.4 * X) * np.cos(0.3 * Y))
    few, many = (len(seed_from_lattice(smooth, noise, OPTIONS).means) for noise in (0.2, 0.1))
    assert many > 1.3 * few
    # contrast counts in units of the noise: twice of both is the same
    brighter = LatticeField(LATTICE, 2 * smooth.amplitudes)
    assert len(seed_from_lattice(brighter, 0.4, OPTIONS).means) == pytest.approx(few, rel=0.01)
    asking = SeedOptions(contrast=2 * OPTIONS.contrast)
    assert len(seed_from_lattice(smooth, 0.1, asking).means) == pytest.approx(few, rel=0.01)


@pytest.mark.parametrize("share", [0.25, 0.6, 3.0])
def test_number_is_what_the_gradient_asks_for(share: float):
    """A ramp: sites that differ by a share of `contrast` x noise count as that share of a Gaussian, one at most."""
    sites = np.moveaxis(np.indices((24, 20, 22)), 0, -1)
    support = np.zeros(sites.shape[:3], bool)
    support[5:-5, 5:-5, 5:-5] = True
    # amplitudes go on outside of the support, so that there is a ramp up to its rim
    lattice = Lattice(np.array([3.0, -4.0, 1.0]), 1.5, 1.0, support)
    ramp = LatticeField(lattice, (site_level(lattice) * (10 + sites @ np.array([0.06, 0.0, -0.08]))).astype(np.float32))
    # the derivative of a narrow Gaussian at whole sites is not quite that of a ramp
    slope = 0.1 * float(ndimage.gaussian_filter1d(np.arange(20.0), OPTIONS.smoothing, order=1)[10])
    noise = slope / (share * OPTIONS.contrast)
    seeds = seed_from_lattice(ramp, noise, OPTIONS)
    assert len(seeds.means) == pytest.approx(min(share, 1) * support.sum(), rel=0.02)


def test_an_empty_field_has_a_handful():
    seeds = seed_from_lattice(field_with(np.zeros(LATTICE.shape)), 0.1, OPTIONS)
    assert len(seeds.means) == pytest.approx(0.1 * LATTICE.n_sites, rel=0.1)
    assert not seeds.amplitudes.any()


def test_edges_have_more_gaussians_than_their_volume():
    seeds = seed_from_lattice(edge(), 0.05, OPTIONS)
    inner = np.linalg.norm(seeds.means, axis=1) < RADIUS - 4
    near, off = (inner & (low <= np.abs(seeds.means[:, 0])) & (np.abs(seeds.means[:, 0]) < high)
                 for low, high in ((0.0, 1.2), (3.0, 6.0)))  # fmt: skip
    radius = np.sqrt(X**2 + Y**2 + Z**2) < RADIUS - 4
    sites_near, sites_off = radius & (np.abs(X) < 1.2), radius & (np.abs(X) >= 3) & (np.abs(X) < 6)
    assert near.sum() / sites_near.sum() > 3 * off.sum() / sites_off.sum()


def test_gaussians_are_thin_across_an_edge_and_long_along_it():
    seeds = seed_from_lattice(edge(), 0.05, OPTIONS)
    near = (np.linalg.norm(seeds.means, axis=1) < RADIUS - 4) & (np.abs(seeds.means[:, 0]) < 0.7)
    assert near.sum() > 50
    across, first, second = deviations_along_axes(seeds)[near].T
    assert np.median(first / across) > 0.8 * OPTIONS.stretch
    assert np.median(second / across) > 0.8 * OPTIONS.stretch
    assert np.median(first / second) == pytest.approx(1, abs=0.15)
    largest = np.exp(np.ptp(seeds.log_scales, axis=1)).max()
    assert largest < 1.05 * OPTIONS.stretch


def test_a_ridge_makes_gaussians_that_are_long_along_it():
    ridge = field_with(0.3 + np.exp(-(X**2 + Y**2) / 3))
    seeds = seed_from_lattice(ridge, 0.05, OPTIONS)
    near = (np.abs(seeds.means[:, 2]) < RADIUS - 4) & (np.hypot(seeds.means[:, 0], seeds.means[:, 1]) < 1.0)
    assert near.sum() > 5
    x, y, z = deviations_along_axes(seeds)[near].T
    assert np.median(z / np.sqrt(x * y)) > 1.5


@pytest.mark.parametrize("intensity", [1.0, 250.0])
def test_a_constant_field_is_reproduced(intensity: float):
    """Far from the rim: where their density changes within a Gaussian, seeds are only about right."""
    lattice = ball_lattice(spacing=1.2, sigma=0.8, radius=24.0)
    constant = LatticeField(lattice, (intensity * SITE_LEVEL * lattice.support).astype(np.float32))
    seeds = seed_from_lattice(constant, 0.01 * intensity, OPTIONS)
    points = np.random.default_rng(0).uniform(-8, 8, (400, 3))
    values = field_values(seeds, points) / intensity
    assert values.mean() == pytest.approx(1, abs=0.02)
    assert values.std() < 0.04


def test_seeds_are_the_same_every_time():
    one, other = (seed_from_lattice(edge(), 0.05, OPTIONS) for _ in range(2))
    for name in ("means", "log_scales", "quaternions", "amplitudes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == np.float32


def test_no_more_than_asked_for():
    noisy = field_with(1 + np.random.default_rng(0).normal(size=LATTICE.shape))
    many = len(seed_from_lattice(noisy, 0.1, OPTIONS).means)
    assert many > 2000
    assert len(seed_from_lattice(noisy, 0.1, SeedOptions(most=1000)).means) == pytest.approx(1000, rel=0.05)
    assert len(seed_from_lattice(noisy, 0.1, SeedOptions(most=10 * many)).means) == many
    with pytest.raises(ValueError, match="at most 0"):
        SeedOptions(most=0)

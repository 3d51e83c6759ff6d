"""Small acquisitions for tests: a few slices of everything that can differ between slices."""

from __future__ import annotations

import numpy as np

from gsvr.model.fields import GaussianField, Lattice
from gsvr.model.geometry import pose_about, rotation_from_vector, transform_points
from gsvr.model.point_spread import PointSpread, point_spread
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks


def small_stack(
    name: str, rotation: np.ndarray, spacing: tuple[float, float, float], thickness: float, seed: int
) -> Stack:
    """An ellipsoidal mask in an 11 x 9 x 5 stack around the world's origin."""
    shape = np.array([11, 9, 5])
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.array(spacing)
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    index = np.moveaxis(np.indices(tuple(int(n) for n in shape)), 0, -1)
    mask = (((index - (shape - 1) / 2) / (shape / 2)) ** 2).sum(-1) < 1
    data = np.random.default_rng(seed).random(tuple(shape)).astype(np.float32)
    return Stack(name, data, affine, thickness, mask, interleaved_times(int(shape[2])))


def small_slices(seed: int = 0) -> tuple[Slices, np.ndarray]:
    """Two stacks, unequal in-plane spacings in one, and random poses."""
    rng = np.random.default_rng(seed)
    turned = np.eye(3)[:, [1, 2, 0]]
    stacks = [
        small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, seed),
        small_stack("b", turned, (1.0, 1.4, 3.3), 2.5, seed + 1),
    ]
    masks = [stack.mask for stack in stacks if stack.mask is not None]
    slices = slices_from_stacks(stacks, masks)
    n = slices.n_slices
    poses = pose_about(rng.normal(size=(n, 3)) * 0.15, rng.normal(size=(n, 3)), slices.centres)
    return slices, poses


def small_lattice(spacing: float = 2.0, sigma: float = 1.5, half_width: float = 9.0) -> Lattice:
    """A ball of sites around the world's origin."""
    n = int(half_width / spacing)
    axis = np.arange(-n, n + 1) * spacing
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return Lattice(np.full(3, axis[0]), spacing, sigma, x**2 + y**2 + z**2 <= half_width**2)


def random_amplitudes(lattice: Lattice, seed: int = 0) -> np.ndarray:
    """Amplitudes between -0.5 and 1 on the support."""
    values = np.random.default_rng(seed).uniform(-0.5, 1.0, lattice.shape).astype(np.float32)
    return values * lattice.support


def spread_of(slices: Slices, profile: str = "slab") -> PointSpread:
    """Point spread function of the slices."""
    return point_spread(slices.spacings, slices.thicknesses, profile, slices.binning)  # pyright: ignore[reportArgumentType]


def random_field(slices: Slices, poses: np.ndarray, n: int = 200, normalisation: float | None = None) -> GaussianField:
    """Stretched, turned Gaussians all around the slices: so many that they fill several of the kernel's buckets."""
    rng = np.random.default_rng(0)
    places = transform_points(poses, slices.centres)
    low, high = places.min(axis=0) - 6, places.max(axis=0) + 6
    return GaussianField(
        means=rng.uniform(low, high, (n, 3)),
        log_scales=np.log(rng.uniform(0.5, 2.0, (n, 3))),
        quaternions=rng.normal(size=(n, 4)),
        amplitudes=rng.normal(size=n).astype(np.float32),
        normalisation=normalisation,
    )


def three_through_plane(slices: Slices) -> PointSpread:
    """A separable mixture whose components differ in weight, place and width."""
    thickness = slices.thicknesses[:, None]
    sigmas = thickness * [0.17, 0.25, 0.2]
    offsets = thickness * [-0.3, 0.1, 0.42]
    in_plane = slices.pixel_spacings**2 * [0.3, 0.45]
    return PointSpread.through_plane(in_plane, np.array([0.5, 0.3, 0.2]), offsets, sigmas**2)


def four_in_space(slices: Slices) -> PointSpread:
    """A mixture that is not separable: turned covariances that differ between slices, offsets in the plane as well.

    The second and the last share their covariance, one behind the other, and may be handled as one.
    """
    rng = np.random.default_rng(5)
    n = slices.n_slices
    turns = rotation_from_vector(rng.normal(size=(n, 4, 3)))
    sigmas = rng.uniform([0.4, 0.6, 0.5], [0.6, 0.9, 1.1], (n, 4, 3))
    covariances = np.einsum("nmij,nmj,nmkj->nmik", turns, sigmas**2, turns)
    offsets = rng.normal(size=(n, 4, 3)) * [0.5, 0.8, 0.7]
    covariances[:, 3] = covariances[:, 1]
    offsets[:, 3] = offsets[:, 1] + [0, 0, 1.2]
    return PointSpread(np.array([0.4, 0.15, 0.25, 0.2]), offsets, (covariances + covariances.transpose(0, 1, 3, 2)) / 2)

"""Two oblique stacks that differ in everything: spacings, sizes, thickness, direction, brightness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from gsvr.backends import Backend
from gsvr.backends.protocol import Array
from gsvr.model.fields import GaussianField, Lattice
from gsvr.model.geometry import identity_poses, pose_about, rotation_from_vector, transform_points
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks
from gsvr.operators.gaussians import GaussianOperator
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.loss import Weights
from gsvr.solver.priors.lattice import LatticePrior
from gsvr.solver.priors.neighbours import NeighbourPrior
from gsvr.solver.seeding import SeedOptions
from gsvr.solver.state import State

TURNS = np.array([[0.2, -0.3, 0.1], [1.3, 0.4, -0.9]])
SHAPES, SPACINGS = ((11, 9, 5), (10, 12, 6)), ((1.1, 1.5, 3.0), (1.3, 0.9, 2.7))
THICKNESSES = (3.0, 3.4)


def oblique_stack(number: int) -> Stack:
    """An ellipsoidal mask around the world's origin; the pixels are random."""
    shape = np.array(SHAPES[number])
    affine = np.eye(4)
    affine[:3, :3] = rotation_from_vector(TURNS[number]) * SPACINGS[number]
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    index = np.moveaxis(np.indices(SHAPES[number]), 0, -1)
    mask = (((index - (shape - 1) / 2) / (shape / 2)) ** 2).sum(-1) < 1
    data = np.random.default_rng(number).random(SHAPES[number]).astype(np.float32)
    return Stack(f"stack-{number}", data, affine, THICKNESSES[number], mask, interleaved_times(int(shape[2])))


@cache
def oblique_slices() -> tuple[Slices, np.ndarray]:
    """Random pixels, and random poses."""
    rng = np.random.default_rng(0)
    stacks = [oblique_stack(number) for number in range(2)]
    slices = slices_from_stacks(stacks, [stack.mask for stack in stacks if stack.mask is not None])
    n = slices.n_slices
    return slices, pose_about(rng.normal(size=(n, 3)) * 0.15, rng.normal(size=(n, 3)), slices.centres)


def unequal_gains(slices: Slices) -> np.ndarray:
    """One gain a slice, from 0.8 to 1.2."""
    return np.random.default_rng(8).permutation(np.linspace(0.8, 1.2, slices.n_slices))


@cache
def recorded_scene() -> Slices:
    """A smooth blob with a ridge, recorded without motion, with unequal gains and a little noise."""
    slices, _ = oblique_slices()
    x, y, z = slices.pixel_positions(identity_poses(slices.n_slices)).T
    values = np.exp(-(x**2 + y**2 + 2 * z**2) / 60) + 0.5 * np.exp(-((x - y) ** 2) / 6)
    values = values * slices.per_pixel(unequal_gains(slices)) + 0.01 * np.random.default_rng(9).normal(size=len(values))
    return replace(slices, values=values.astype(np.float32))


def ball_lattice(spacing: float = 2.0, sigma: float = 1.5, radius: float = 9.0) -> Lattice:
    """A ball of sites, its middle not quite the world's origin."""
    n = int(radius / spacing)
    axis = np.arange(-n, n + 1) * spacing
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return Lattice(axis[0] + np.array([0.3, -0.2, 0.4]), spacing, sigma, x**2 + y**2 + z**2 <= radius**2)


def random_amplitudes(lattice: Lattice, seed: int = 0) -> np.ndarray:
    """Amplitudes between -0.5 and 1 on the support."""
    values = np.random.default_rng(seed).uniform(-0.5, 1.0, lattice.shape).astype(np.float32)
    return values * lattice.support


def random_gaussians(n: int = 40) -> GaussianField:
    """Stretched, turned Gaussians among the slices."""
    slices, poses = oblique_slices()
    rng = np.random.default_rng(1)
    places = transform_points(poses, slices.centres)
    return GaussianField(
        means=rng.uniform(places.min(axis=0) - 2, places.max(axis=0) + 2, (n, 3)).astype(np.float32),
        log_scales=np.log(rng.uniform(1.0, 3.0, (n, 3))).astype(np.float32),
        quaternions=rng.normal(size=(n, 4)).astype(np.float32),
        amplitudes=rng.normal(size=n).astype(np.float32),
    )


def field_values(field: GaussianField, points: np.ndarray) -> np.ndarray:
    """Free Gaussians at points (mm), by their definition."""
    roots = np.linalg.cholesky(np.linalg.inv(field.covariances))
    whitened = np.einsum("...i,nij->...nj", points, roots) - np.einsum("ni,nij->nj", field.means, roots)
    return np.exp(-0.5 * (whitened**2).sum(axis=-1)) @ field.amplitudes


def small_state(backend: Backend, free: bool, noise: float = 0.1) -> State:
    """A field of a few dozen Gaussians, random pixels with random weights, and a prior."""
    slices, poses = oblique_slices()
    gains = unequal_gains(slices)
    if free:
        field = random_gaussians()
        operator = GaussianOperator(field, slices, poses, gains, backend=backend)
        amplitudes, prior = field.amplitudes, NeighbourPrior().on(operator, SeedOptions().level)
    else:
        lattice = ball_lattice(3.0, 2.4)
        operator = LatticeOperator(lattice, slices, poses, gains, backend=backend)
        amplitudes, prior = random_amplitudes(lattice), LatticePrior().on(operator)
    pixels = (np.random.default_rng(2).uniform(0.3, 1, len(slices.values)) * slices.mask).astype(np.float32)
    ones = np.ones(slices.n_slices)
    weights = Weights(backend.array(pixels), ones, 2 * noise, noise, ones)
    start = backend.array(amplitudes)
    return State(start, operator, prior, weights, operator.predict(start))


def dense(
    apply: Callable[[Array], Array], backend: Backend, shape: tuple[int, ...], sites: np.ndarray | None = None
) -> np.ndarray:
    """The matrix of a linear function of amplitudes, column by column (float64), for some or all of them."""
    columns = []
    for site in np.arange(np.prod(shape)) if sites is None else sites:
        unit = np.zeros(shape, np.float32)
        unit.flat[site] = 1
        columns.append(backend.host(apply(backend.array(unit))).ravel())
    return np.stack(columns, axis=1).astype(np.float64)


def sites_of(state: State) -> np.ndarray:
    """Which entries of the (flat) amplitudes belong to a Gaussian."""
    primitives = state.operator.primitives
    return np.flatnonzero(primitives.support) if isinstance(primitives, Lattice) else np.arange(primitives.n_gaussians)


@dataclass(frozen=True)
class NormalEquations:
    """A^T W A, A^T W y and strength x L of a state, dense, without sites that carry nothing."""

    normal: np.ndarray
    right: np.ndarray
    prior: np.ndarray

    @staticmethod
    def of(state: State) -> NormalEquations:
        """Those of `solve_amplitudes` at the weights and the prior of a state."""
        backend, operator, weights = state.operator.backend, state.operator, state.weights
        shape, sites = tuple(state.amplitudes.shape), sites_of(state)
        assert state.prior is not None
        a = dense(operator.predict, backend, shape, sites)
        laplacian = dense(state.prior.at(state.amplitudes).apply, backend, shape, sites)[sites]
        weighted = a * backend.host(weights.pixels)[:, None].astype(np.float64)
        strength = state.prior.strength * weights.white_noise**2
        return NormalEquations(weighted.T @ a, weighted.T @ operator.slices.values, strength * laplacian)


def same_array(one: Array, other: Array, backend: Backend) -> bool:
    """Whether two arrays of a backend are equal to the bit."""
    return np.array_equal(backend.host(one), backend.host(other))

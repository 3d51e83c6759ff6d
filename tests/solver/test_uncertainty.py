"""The posterior of the amplitudes: samples have the covariance that the normal matrix says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from gsvr.solver.weights import Weights

from gsvr.model.fields import LatticeField
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.render.volume import render_deviation
from gsvr.solver.priors.lattice import quadratic_prior
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import State
from gsvr.solver.uncertainty import posterior_deviations
from tests.acquisitions import random_amplitudes, small_lattice, small_slices

NOISE = 0.1


def small_state(seed: int = 0) -> tuple:
    slices, poses = small_slices()
    lattice = small_lattice(spacing=3.0, sigma=2.4, half_width=9.0)
    amplitudes = random_amplitudes(lattice)
    weights = (np.random.default_rng(seed).uniform(0.3, 1, len(slices.values)) * slices.mask).astype(np.float32)
    ones = np.ones(slices.n_slices)
    state = State(
        amplitudes,
        AcquisitionOperator(lattice, slices, poses),
        Weights(weights, ones, NOISE, NOISE, ones),
        np.zeros_like(slices.values),
    )
    return slices, state


def dense_covariance(state: State, options: SolverOptions) -> np.ndarray:
    """noise^2 (A^T W A + strength L)^-1 on the support, column by column."""
    lattice = state.operator.lattice
    prior = quadratic_prior(lattice, state.amplitudes, options.prior.edge)
    strength = options.prior.strength * NOISE**2
    sites = np.argwhere(lattice.support)
    matrix = np.empty((len(sites), len(sites)))
    for column, site in enumerate(sites):
        unit = np.zeros(lattice.shape, np.float32)
        unit[tuple(site)] = 1
        product = state.operator.adjoint(state.weights.pixels * state.operator.predict(unit))
        matrix[:, column] = (product + np.float32(strength) * prior.apply(unit))[lattice.support]
    return NOISE**2 * np.linalg.inv((matrix + matrix.T) / 2)


def test_samples_have_the_posterior_variance() -> None:
    slices, state = small_state()
    options = SolverOptions(uncertainty_samples=150)
    samples = posterior_deviations(slices, state, options)
    drawn = np.stack([part.amplitudes[state.operator.lattice.support] for part in samples])
    expected = np.diag(dense_covariance(state, options))
    # 150 samples know a variance to sqrt(2 / 150) = 12 %; the mean over many sites far better
    ratio = (drawn**2).mean(axis=0) / expected
    assert 0.93 < ratio.mean() < 1.07
    assert ratio.min() > 0.6
    assert ratio.max() < 1.5
    assert np.abs(drawn.mean(axis=0)).max() < 5 * np.sqrt(expected.max() / 150)


def test_seed_decides_the_samples() -> None:
    slices, state = small_state()
    first, again, other = (
        posterior_deviations(slices, state, SolverOptions(uncertainty_samples=2, seed=seed)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first[1].amplitudes, again[1].amplitudes)
    assert not np.array_equal(first[0].amplitudes, first[1].amplitudes)
    assert not np.array_equal(first[0].amplitudes, other[0].amplitudes)


def test_less_data_are_less_certain() -> None:
    slices, state = small_state()
    fewer = replace(state, weights=replace(state.weights, pixels=state.weights.pixels * np.float32(0.01)))
    options = SolverOptions(uncertainty_samples=8)
    spread = [
        np.mean([np.square(part.amplitudes).sum() for part in posterior_deviations(slices, s, options)])
        for s in (state, fewer)
    ]
    assert spread[1] > 1.5 * spread[0]


def test_deviation_is_the_root_mean_square_of_the_samples() -> None:
    lattice = small_lattice()
    samples = [LatticeField(lattice, random_amplitudes(lattice, seed)) for seed in range(3)]
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -4
    volume = Volume(np.ones((9, 9, 9), np.float32), affine)
    deviation = render_deviation(samples, volume, smoothing=1e-6)
    at_centre = []
    for part in samples:
        free = part.to_gaussians()
        at_centre.append(free.amplitudes @ np.exp(-0.5 * (free.means**2).sum(axis=1) / lattice.sigma**2))
    assert np.isclose(deviation.data[4, 4, 4], np.sqrt(np.mean(np.square(at_centre))), rtol=1e-4)

"""The stage with free Gaussians: its solver, its rounds, and what it is worth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.evaluation import compare
from gsvr.evaluation.holdout import predict_unseen
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.slices import Slices
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.render.volume import render_volume
from gsvr.solver.free_amplitudes import solve_free_amplitudes
from gsvr.solver.free_rounds import FreeState, advance_free, begin_free_stage
from gsvr.solver.priors.neighbours import NeighbourPrior, find_neighbours, sharpening
from gsvr.solver.reconstruct import intensity_scale, reconstruct
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result
from gsvr.solver.uncertainty import posterior_deviations
from gsvr.solver.weights import Weights
from gsvr.workflows.pipeline import prepare_slices
from tests.acquisitions import random_field, small_slices
from tests.moving_brain import moving_brain, small_brain, true_poses

OPTIONS = SolverOptions()
COARSE = Stage("coarse", 2.0, 1, 4, 6, "none")
FREE = Stage("free", 1.35, 1, 2, 6, "none", 0.6, agree_on_mask=True, free=True)
LATTICE = Stage("lattice", 1.35, 1, 4, 5, "none", 0.6, agree_on_mask=True)
NOISE = 0.1


def small_state(n: int = 40) -> tuple[Slices, FreeState]:
    """A few Gaussians, fewer than the pixels, with random weights."""
    slices, poses = small_slices()
    field = random_field(slices, poses, n)
    field = replace(
        field, means=field.means.astype(np.float32) * np.float32(0.5), log_scales=field.log_scales + np.log(2.0)
    )
    operator = AcquisitionOperator(field, slices, poses, np.linspace(0.8, 1.2, slices.n_slices))
    pixels = (np.random.default_rng(0).uniform(0.3, 1, len(slices.values)) * slices.mask).astype(np.float32)
    ones = np.ones(slices.n_slices)
    neighbours = find_neighbours(field, OPTIONS.neighbours.count)
    prediction = np.zeros_like(slices.values)
    weights = Weights(pixels, ones, NOISE, NOISE, ones)
    return slices, FreeState(field.amplitudes, operator, weights, prediction, neighbours=neighbours, level=5.0)


def matrices(state: FreeState, prior: NeighbourPrior) -> tuple[np.ndarray, np.ndarray]:
    """A and L, column by column."""
    units = np.eye(len(state.amplitudes), dtype=np.float32)
    a = np.stack([state.operator.predict(unit) for unit in units], axis=1).astype(np.float64)
    return a, np.stack([prior.apply(unit, 1.0) for unit in units], axis=1).astype(np.float64)


def test_a_small_problem_is_solved_exactly():
    slices, state = small_state()
    assert state.neighbours is not None
    weights, strength, prior = state.weights.pixels, 3e-3, state.prior(OPTIONS.neighbours.edge)
    a, laplacian = matrices(state, prior)
    eigenvalues, vectors = np.linalg.eigh((laplacian + laplacian.T) / 2)
    root = vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T
    stacked = np.concatenate([np.sqrt(weights)[:, None] * a, np.sqrt(strength) * root])
    right = np.concatenate([np.sqrt(weights) * slices.values, np.zeros(len(root))])
    expected = np.linalg.lstsq(stacked, right)[0]
    precondition = sharpening(
        state.neighbours,
        state.operator.diagonal(weights) + np.float32(strength) * prior.diagonal(),
        OPTIONS.neighbours,
    )
    start = state.amplitudes
    found, prediction = solve_free_amplitudes(
        *(state.operator, slices.values, weights, prior, strength, precondition),
        *(start, state.operator.predict(start), 120),
    )
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=2e-3 * scale)
    np.testing.assert_allclose(prediction, state.operator.predict(found), atol=1e-4)
    assert not np.allclose(start, expected, atol=0.1 * scale)


def test_nothing_to_find_is_found_at_once():
    slices, state = small_state()
    prior = state.prior(OPTIONS.neighbours.edge)
    zeros = np.zeros_like(state.amplitudes)
    found, prediction = solve_free_amplitudes(
        *(state.operator, np.zeros_like(slices.values), state.weights.pixels, prior, 1e-3, lambda g: g),
        *(zeros, np.zeros_like(slices.values), 3),
    )
    assert not found.any()
    assert not prediction.any()


def test_samples_have_the_posterior_variance():
    slices, state = small_state()
    options = replace(OPTIONS, uncertainty_samples=80)
    samples = posterior_deviations(slices, state, options)
    drawn = np.stack([part.amplitudes for part in samples]).astype(np.float64)
    a, laplacian = matrices(state, state.prior(options.neighbours.edge))
    precision = a.T @ (state.weights.pixels[:, None] * a) + options.neighbours.strength * NOISE**2 * laplacian
    expected = np.diag(NOISE**2 * np.linalg.inv((precision + precision.T) / 2))
    # 80 samples know a variance to 16 %
    ratio = (drawn**2).mean(axis=0) / expected
    assert 0.9 < ratio.mean() < 1.1
    assert ratio.min() > 0.4
    assert ratio.max() < 1.8


@cache
def brain() -> tuple[Slices, np.ndarray]:
    slices = prepare_slices(moving_brain().stacks, OPTIONS)[0]
    return slices, true_poses(slices, moving_brain())


@cache
def reconstructed(stage: Stage, samples: int = 0) -> Result:
    """With known poses: what is left is the volume."""
    slices, poses = brain()
    return reconstruct(slices, SolverOptions(stages=(COARSE, stage), uncertainty_samples=samples), poses=poses)


def psnr(result: Result) -> float:
    return compare(render_volume(result.field, 0.8, result.mask), small_brain()).quality.psnr


def test_every_round_lowers_what_it_minimises():
    slices, poses = brain()
    slices = replace(slices, values=slices.values / np.float32(intensity_scale(slices)))
    before = advance(slices, COARSE, OPTIONS, begin_stage(slices, COARSE, OPTIONS, None, poses))
    state = begin_free_stage(slices, FREE, OPTIONS, before)
    np.testing.assert_allclose(state.prediction, state.operator.predict(state.amplitudes), atol=1e-6)
    for _ in range(3):
        after = advance_free(slices, FREE, OPTIONS, state)
        weights, prior = after.weights, state.prior(OPTIONS.neighbours.edge)
        strength = OPTIONS.neighbours.strength * weights.white_noise**2
        costs = []
        for amplitudes in (state.amplitudes, after.amplitudes):
            residual = (slices.values - after.operator.predict(amplitudes)).astype(np.float64)
            energy = float(amplitudes.astype(np.float64) @ prior.apply(amplitudes, strength))
            costs.append(float((weights.pixels * residual**2).sum()) + energy)
        assert costs[1] < 0.999 * costs[0]
        np.testing.assert_allclose(after.prediction, after.operator.predict(after.amplitudes), atol=1e-4)
        np.testing.assert_array_equal(after.poses, poses)
        state = after


def test_free_gaussians_are_at_least_as_good_as_the_lattice():
    free, lattice = reconstructed(FREE, 2), reconstructed(LATTICE)
    assert isinstance(free.field, GaussianField)
    assert isinstance(lattice.field, LatticeField)
    assert psnr(free) > psnr(lattice)


def test_the_posterior_of_free_gaussians_has_samples():
    result = reconstructed(FREE, 2)
    assert isinstance(result.field, GaussianField)
    assert len(result.deviations) == 2
    for part in result.deviations:
        assert isinstance(part, GaussianField)
        assert part.amplitudes.shape == result.field.amplitudes.shape
        assert np.isfinite(part.amplitudes).all()
        assert part.amplitudes.std() > 0
    assert not np.array_equal(result.deviations[0].amplitudes, result.deviations[1].amplitudes)


@pytest.mark.parametrize("stages", [(FREE,), (COARSE, replace(FREE, motion="slices"))])
def test_free_gaussians_need_a_field_to_start_from_and_no_motion(stages: tuple[Stage, ...]):
    with pytest.raises(ValueError, match="free Gaussians need a field on a lattice"):
        reconstruct(small_slices()[0], SolverOptions(stages=stages))


def test_other_backends_leave_free_gaussians_to_the_cpu():
    slices, poses = small_slices()
    coarse, free = replace(COARSE, spacing=3.0, rounds=1), replace(FREE, spacing=2.5, agree_on_mask=False)
    found = {}
    for backend in ("cpu", "reference"):
        options = SolverOptions(stages=(coarse, free), backend=backend)
        result = reconstruct(slices, options, poses=poses)
        assert isinstance(result.field, GaussianField)
        unseen = predict_unseen(slices, [(replace(free, rounds=1), result.field)], options)
        found[backend] = (result.prediction, unseen)
    size = np.abs(found["cpu"][0]).max()
    for got, want in zip(found["reference"], found["cpu"], strict=True):
        assert np.isfinite(got).all()
        assert np.abs(got - want)[slices.mask].mean() < 0.05 * size

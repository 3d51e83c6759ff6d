"""Standard deviations of poses are what the errors turn out to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gsvr.model.geometry import transform_points, vector_from_rotation
from gsvr.solver.pose_uncertainty import pose_deviations, shared_by_neighbours
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import State
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import QUICK_STAGES, errors_of_poses, moving_brain, true_poses


@pytest.fixture(scope="module")
def ended() -> State:
    options, states = SolverOptions(stages=QUICK_STAGES), list[State]()
    slices = prepare_slices(moving_brain().stacks, options)
    reconstruct(slices, options, lambda progress: states.append(progress.state))
    return states[-1]


def test_errors_are_as_large_as_stated(ended: State):
    slices, simulation = ended.slices, moving_brain()
    shown = slices.sum_per_slice(slices.mask) > 100
    aligned = errors_of_poses(slices, ended.poses, simulation).global_rigid @ ended.poses[shown]
    true, centres = true_poses(slices, simulation)[shown], slices.centres[shown]
    away = np.linalg.norm(transform_points(aligned, centres) - transform_points(true, centres), axis=1)
    turn = np.rad2deg(np.linalg.norm(vector_from_rotation(aligned[:, :3, :3] @ true[:, :3, :3].swapaxes(1, 2)), axis=1))
    scores = np.stack([away, turn], axis=1) / pose_deviations(ended)[shown]
    # some fifty slices of one brain: their joint errors make the mean uncertain by more than its sampling error
    assert np.all(np.sqrt((scores**2).mean(axis=0)) > 0.5)
    assert np.all(np.sqrt((scores**2).mean(axis=0)) < 2.0)


def test_more_noise_is_less_certain_and_no_pixel_is_as_uncertain_as_the_stack_spreads(ended: State):
    weights, shown = ended.weights, ended.slices.sum_per_slice(ended.slices.mask) > 300
    # with so little noise the pixels alone decide
    quiet, louder = (replace(ended, weights=replace(weights, noise=share * weights.noise)) for share in (0.05, 0.1))
    np.testing.assert_allclose(pose_deviations(louder)[shown] / pose_deviations(quiet)[shown], 2, rtol=0.02)
    blind = replace(ended, weights=replace(weights, pixels=0 * weights.pixels))
    assert np.all(pose_deviations(blind)[shown] > pose_deviations(ended)[shown])
    assert np.all(pose_deviations(blind)[:, 0] >= np.sqrt(3))


def test_errors_that_neighbours_share_count(ended: State):
    operator, rng = ended.operator, np.random.default_rng(0)
    white = rng.standard_normal(len(operator.slices.values)).astype(np.float32)
    smooth = np.concatenate(
        [ndimage.gaussian_filter(operator.slices.image(s, white), 3).ravel() for s in range(operator.slices.n_slices)]
    )
    found = []
    for error in (white, smooth):
        values = operator.backend.host(ended.prediction) + error
        other = operator.with_slices(replace(operator.slices, values=values))
        found.append(shared_by_neighbours(other, ended.amplitudes, operator.pixels.coverage))
    assert found[0] == pytest.approx(1, abs=0.1)
    assert found[1] > 5

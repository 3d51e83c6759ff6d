"""Optimising the geometry of free Gaussians: what improves, what stays, and what splitting keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.slices import Slices
from gsvr.solver.free_rounds import FreeState, advance_free, begin_free_stage, solve_round
from gsvr.solver.geometry_refinement import halves, refine_geometry, split_and_pruned
from gsvr.solver.rounds import advance, begin_stage
from gsvr.solver.schedule import RefinementOptions, SolverOptions, Stage
from gsvr.solver.stages import begin_on_host
from tests.acquisitions import random_field, small_slices
from tests.oracle import field_values

LATTICE = Stage("lattice", 2.0, 1, 1, 5, "none")
FREE = Stage("free", 2.0, 1, 2, 6, "none", free=True)
# no Gaussians beyond those near pixels, where residuals say nothing
OPTIONS = SolverOptions(stages=(LATTICE, FREE), gap=0.0)


@pytest.fixture(scope="module")
def slices() -> Slices:
    """A smooth blob with a ridge, recorded without motion."""
    slices, _ = small_slices()
    x, y, z = slices.pixel_positions().T
    values = np.exp(-(x**2 + y**2 + 2 * z**2) / 60) + 0.5 * np.exp(-((x - y) ** 2) / 6)
    return replace(slices, values=values.astype(np.float32))


@pytest.fixture(scope="module")
def state(slices: Slices) -> FreeState:
    """Free Gaussians after a round."""
    lattice = advance(slices, LATTICE, OPTIONS, begin_stage(slices, LATTICE, OPTIONS, None))
    return advance_free(slices, FREE, OPTIONS, begin_free_stage(slices, FREE, OPTIONS, lattice))


def misfit(slices: Slices, state: FreeState) -> float:
    return float(np.sum(state.weights.pixels * (state.prediction - slices.values) ** 2))


def test_geometry_explains_what_amplitudes_alone_cannot(slices: Slices, state: FreeState):
    refined = refine_geometry(slices, state, OPTIONS, 10)
    steps = 10 // OPTIONS.refinement.amplitudes_every * OPTIONS.refinement.iterations
    amplitudes_only = solve_round(slices, OPTIONS, state, steps)
    assert misfit(slices, refined) < 0.98 * misfit(slices, amplitudes_only)
    for name in ("means", "log_scales", "quaternions"):
        assert np.abs(getattr(refined.free_field, name) - getattr(state.free_field, name)).max() > 1e-3


def test_scales_stay_in_the_range_they_had(slices: Slices, state: FreeState):
    fast = replace(OPTIONS, refinement=RefinementOptions(scale_rate=0.5))
    before, after = (s.free_field.log_scales for s in (state, refine_geometry(slices, state, fast, 3)))
    assert np.abs(after - before).max() > 0.1
    assert after.min() >= before.min()
    assert after.max() <= before.max()


def test_without_steps_nothing_changes(slices: Slices, state: FreeState):
    assert refine_geometry(slices, state, OPTIONS, 0) is state


def test_halves_have_the_integral_the_mean_and_the_covariance_of_the_whole():
    slices, poses = small_slices()
    whole = random_field(slices, poses, n=20)
    parts = halves(whole)
    mass = (parts.amplitudes * np.sqrt(np.linalg.det(parts.covariances))).reshape(2, -1)
    np.testing.assert_allclose(
        mass.sum(axis=0), whole.amplitudes * np.sqrt(np.linalg.det(whole.covariances)), rtol=1e-5
    )
    means = parts.means.reshape(2, -1, 3)
    np.testing.assert_allclose(means.mean(axis=0), whole.means, rtol=1e-6)
    apart = (means[1] - means[0]) / 2
    spread = parts.covariances.reshape(2, -1, 3, 3).mean(axis=0) + apart[:, :, None] * apart[:, None]
    np.testing.assert_allclose(spread, whole.covariances, rtol=1e-5, atol=1e-6)
    at_means = np.abs(field_values(parts, whole.means) - field_values(whole, whole.means))
    assert at_means.max() < 0.1 * np.abs(whole.amplitudes).max()


def test_idle_gaussians_go_and_those_near_residuals_split(slices: Slices, state: FreeState):
    options = replace(OPTIONS, refinement=RefinementOptions(split_share=0.1, prune_below=0.5))
    idle = replace(state, amplitudes=state.amplitudes * (np.arange(len(state.amplitudes)) % 4 > 0))
    place = slices.pixel_positions(state.poses)[slices.mask][0]
    wrong = slices.values.copy()
    wrong[np.flatnonzero(slices.mask)[0]] += 100
    field = split_and_pruned(replace(slices, values=wrong), idle, options)
    same = (field.means[:, None] == state.free_field.means).all(axis=2)
    kept, new = same.any(axis=0), ~same.any(axis=1)
    assert kept[1::4].any()
    assert not kept[::4].any()
    assert new.sum() == 2 * int(0.1 * len(state.amplitudes))
    distances = np.linalg.norm(field.means - place, axis=1)
    assert np.median(distances[new]) < 0.6 * np.median(distances)


def test_geometry_steps_need_free_gaussians_and_two_rounds(slices: Slices, state: FreeState):
    for stage in (replace(LATTICE, geometry_steps=3), replace(FREE, rounds=1, geometry_steps=3)):
        with pytest.raises(ValueError, match="geometry steps need"):
            begin_on_host(slices, stage, OPTIONS, state, state.poses)

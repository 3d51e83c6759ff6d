"""Optimising the geometry of free Gaussians: what improves, what stays, and what splitting keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.backends import Backend
from gsvr.model.fields import GaussianField
from gsvr.solver.amplitudes import refit
from gsvr.solver.geometry_refinement import RefinementOptions, halves, refine_geometry, split_and_pruned
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from tests.solver.oblique import field_values, random_gaussians, recorded_scene

LATTICE = Stage("lattice", 2.0, 1, 1, 5, "none")
FREE = Stage("free", 2.0, 1, 2, 6, "none", free=True)
# no Gaussians beyond those near pixels, where residuals say nothing
OPTIONS = SolverOptions(stages=(LATTICE, FREE), gap=0.0)
SLICES = recorded_scene()


@pytest.fixture(scope="module")
def on_lattice(backend: Backend) -> State:
    options = replace(OPTIONS, backend=backend.name)
    return advance(LATTICE, options, begin_stage(SLICES, LATTICE, options))


@pytest.fixture(scope="module")
def state(backend: Backend, on_lattice: State) -> State:
    """Free Gaussians after an outer iteration."""
    options = replace(OPTIONS, backend=backend.name)
    return advance(FREE, options, begin_stage(SLICES, FREE, options, on_lattice))


def refined(state: State, steps: int, options: RefinementOptions | None = None) -> State:
    return refine_geometry(state, steps, options or OPTIONS.refinement, OPTIONS.neighbours, OPTIONS.seeds.level)


def field_of(state: State) -> GaussianField:
    field = state.field
    assert isinstance(field, GaussianField)
    return field


def misfit(state: State) -> float:
    return float((state.weights.pixels * (state.prediction - state.operator.pixels.values) ** 2).sum())


def test_geometry_explains_what_amplitudes_alone_cannot(state: State):
    steps = 10 // OPTIONS.refinement.amplitudes_every * OPTIONS.refinement.iterations
    moved, amplitudes_only = refined(state, 10), refit(state, steps)
    assert misfit(moved) < 0.98 * misfit(amplitudes_only)
    for name in ("means", "log_scales", "quaternions"):
        assert np.abs(getattr(field_of(moved), name) - getattr(field_of(state), name)).max() > 1e-3


def test_what_comes_out_belongs_together(state: State):
    """Amplitudes, operator, prediction and prior are all of the new Gaussians."""
    after = refined(state, 5, RefinementOptions(split_share=0.1, prune_below=0.1))
    at_end = after.operator.predict(after.amplitudes)
    assert float(abs(after.prediction - at_end).max()) < 1e-5 * float(abs(at_end).max())
    assert after.prior is not None
    assert len(after.amplitudes) != len(state.amplitudes)
    assert misfit(refit(after, 3)) < misfit(after)


def test_scales_stay_in_the_range_they_had(state: State):
    before, after = (field_of(s).log_scales for s in (state, refined(state, 3, RefinementOptions(scale_rate=0.5))))
    assert np.abs(after - before).max() > 0.1
    assert after.min() >= before.min()
    assert after.max() <= before.max()


def test_without_steps_nothing_changes(state: State):
    assert refined(state, 0) is state


def test_halves_have_the_integral_the_mean_and_the_covariance_of_the_whole():
    whole = random_gaussians(20)
    parts = halves(whole)
    mass = (parts.amplitudes * np.sqrt(np.linalg.det(parts.covariances))).reshape(2, -1)
    np.testing.assert_allclose(
        mass.sum(axis=0), whole.amplitudes * np.sqrt(np.linalg.det(whole.covariances)), rtol=1e-5
    )
    means = parts.means.reshape(2, -1, 3)
    np.testing.assert_allclose(means.mean(axis=0), whole.means, atol=1e-5)
    apart = (means[1] - means[0]) / 2
    spread = parts.covariances.reshape(2, -1, 3, 3).mean(axis=0) + apart[:, :, None] * apart[:, None]
    np.testing.assert_allclose(spread, whole.covariances, rtol=1e-5, atol=1e-6)
    at_means = np.abs(field_values(parts, whole.means) - field_values(whole, whole.means))
    assert at_means.max() < 0.1 * np.abs(whole.amplitudes).max()


def test_idle_gaussians_go_and_those_near_residuals_split(state: State):
    backend, field = state.operator.backend, field_of(state)
    idle = backend.array(field.amplitudes * (np.arange(field.n_gaussians) % 4 > 0))
    pixel = np.flatnonzero(SLICES.mask)[0]
    wrong = backend.host(state.prediction).copy()
    wrong[pixel] += 100
    after = split_and_pruned(
        replace(state, amplitudes=idle, prediction=backend.array(wrong)),
        RefinementOptions(split_share=0.1, prune_below=0.5),
    )
    same = (after.means[:, None] == field.means).all(axis=2)
    kept, new = same.any(axis=0), ~same.any(axis=1)
    assert kept[1::4].any()
    assert not kept[::4].any()
    assert new.sum() == 2 * int(0.1 * field.n_gaussians)
    distances = np.linalg.norm(after.means - SLICES.pixel_positions(state.poses)[pixel], axis=1)
    assert np.median(distances[new]) < 0.6 * np.median(distances)


def test_a_contribution_is_measured_in_deviations_of_the_white_noise(state: State):
    backend, field = state.operator.backend, field_of(state)
    diagonal = backend.host(state.operator.diagonal(state.weights.pixels))
    share = np.sqrt(diagonal) * np.abs(field.amplitudes) / state.weights.white_noise
    threshold = float(np.median(share))
    kept = split_and_pruned(state, RefinementOptions(prune_below=threshold))
    np.testing.assert_array_equal(kept.means, field.means[share >= threshold])


def test_a_lattice_has_no_geometry_to_refine(on_lattice: State):
    with pytest.raises(TypeError, match="only free Gaussians"):
        refined(on_lattice, 3)

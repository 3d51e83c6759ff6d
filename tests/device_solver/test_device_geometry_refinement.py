"""Optimising the geometry of free Gaussians on a device against the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.model.fields import GaussianField
from gsvr.model.slices import Slices
from gsvr.solver import geometry_refinement as host
from gsvr.solver.free_rounds import FreeState, advance_free
from gsvr.solver.priors.neighbours import find_neighbours
from gsvr.solver.schedule import RefinementOptions, SolverOptions

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from torch import Tensor  # noqa: E402

from gsvr.backends.torch.gaussians import DeviceGaussianKernel  # noqa: E402
from gsvr.backends.torch.lattice_tiles import exact_type  # noqa: E402
from gsvr.device_solver.device_field import DeviceField  # noqa: E402
from gsvr.device_solver.device_free_rounds import DeviceFreeStage  # noqa: E402
from gsvr.device_solver.device_geometry_refinement import (  # noqa: E402
    RefinedRounds,
    refine_geometry,
    split_and_pruned,
)
from gsvr.device_solver.device_stages import DeviceStages  # noqa: E402
from tests.backends.test_gaussian_tiles import random_field  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402
from tests.device_solver.test_device_free_rounds import FREE, OPTIONS, begun, lattice_state  # noqa: E402, F401

PARTS = ("means", "log_scales", "quaternions")


def exact(values: np.ndarray) -> Tensor:
    return torch.as_tensor(values).to(exact_type(DEVICE)).to(DEVICE)


def after_a_round(slices: Slices, state: FreeState, options: SolverOptions) -> tuple[FreeState, DeviceFreeStage]:
    """The host and the device, each after a round of its own."""
    running = DeviceFreeStage(slices, FREE, options, state, DEVICE)
    running.advance()
    return advance_free(slices, FREE, options, state), running


def sorted_parts(field: GaussianField) -> np.ndarray:
    """All numbers of a field, Gaussians in the order of their places."""
    order = np.lexsort(np.round(field.means, 2).T)
    return np.concatenate([getattr(field, name)[order] for name in PARTS] + [field.amplitudes[order, None]], axis=1)


def test_gradients_and_halves_are_those_of_the_host():
    field = random_field(200, seed=4)
    device = DeviceField.of(field, DEVICE)
    by_covariance = np.random.default_rng(2).normal(size=(200, 3, 3))
    by_covariance = by_covariance + by_covariance.transpose(0, 2, 1)
    for got, want in zip(device.shape_gradient(exact(by_covariance)), field.shape_gradient(by_covariance), strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want, rtol=1e-10, atol=1e-10)
    got, want = device.halves().on_host(), host.halves(field)
    for name in (*PARTS, "amplitudes"):
        assert getattr(got, name).dtype == np.float32
        np.testing.assert_allclose(getattr(got, name), getattr(want, name), rtol=2e-7, atol=1e-6)


def test_a_kernel_with_other_gaussians_is_the_kernel_of_them(begun: tuple[Slices, FreeState]):  # noqa: F811
    slices, state = begun
    kernel = DeviceFreeStage(slices, FREE, OPTIONS, state, DEVICE).operator.kernel
    field = state.free_field.subset(np.arange(0, len(state.amplitudes), 2))
    field = replace(field, means=field.means + np.float32(0.3), log_scales=field.log_scales * np.float32(0.9))
    want = DeviceGaussianKernel(field, kernel.views, DEVICE, needed=slices.mask)
    device = DeviceField.of(field, DEVICE)
    got = kernel.with_gaussians(device.means, device.log_scales, device.quaternions)
    assert (got.n_gaussians, len(got.lists.splats)) == (want.n_gaussians, len(want.lists.splats))
    assert kernel.n_gaussians > got.n_gaussians
    torch.testing.assert_close(got.predict(device.amplitudes), want.predict(device.amplitudes))


def test_geometry_is_optimised_as_on_the_host(begun: tuple[Slices, FreeState]):  # noqa: F811
    slices, before = begun
    want, running = after_a_round(slices, before, OPTIONS)
    steps = OPTIONS.refinement.amplitudes_every + 1  # with amplitudes in between
    want = host.refine_geometry(slices, want, OPTIONS, steps)
    refine_geometry(running, steps)
    got = running.state()
    for name in PARTS:
        start, end, found = (getattr(state.free_field, name) for state in (before, want, got))
        assert np.abs(end - start).max() > 0.02
        assert np.abs(found - end).max() < 1e-5
    assert np.abs(got.amplitudes - want.amplitudes).max() < 1e-5 * np.abs(want.amplitudes).max()
    assert np.abs(got.prediction - want.prediction)[slices.mask].max() < 1e-5 * np.abs(want.prediction).max()
    np.testing.assert_array_equal(got.neighbours.first, want.neighbours.first)


def test_without_steps_nothing_changes(begun: tuple[Slices, FreeState]):  # noqa: F811
    running = DeviceFreeStage(begun[0], FREE, OPTIONS, begun[1], DEVICE)
    field, operator = running.field, running.operator
    refine_geometry(running, 0)
    assert running.operator is operator
    assert running.field.means is field.means


def test_split_and_pruned_are_those_of_the_host(begun: tuple[Slices, FreeState]):  # noqa: F811
    slices, before = begun
    options = replace(OPTIONS, refinement=RefinementOptions(split_share=0.1, prune_below=0.5))
    state, running = after_a_round(slices, before, options)
    want, got = host.split_and_pruned(slices, state, options), split_and_pruned(running).on_host()
    n, split = len(state.amplitudes), int(0.1 * len(state.amplitudes))
    assert split < len(want.means) != n + split  # some have gone
    assert len(got.means) == len(want.means)
    np.testing.assert_allclose(sorted_parts(got), sorted_parts(want), atol=1e-3)


def test_after_splitting_the_stage_goes_on(begun: tuple[Slices, FreeState]):  # noqa: F811
    slices, before = begun
    options = replace(OPTIONS, refinement=RefinementOptions(split_share=0.1, prune_below=0.5))
    _, running = after_a_round(slices, before, options)
    refine_geometry(running, 1)
    running.advance()
    state = running.state()
    assert len(state.amplitudes) == len(state.free_field.means) != len(before.amplitudes)
    want = find_neighbours(state.free_field, options.neighbours.count)
    assert state.neighbours.n_gaussians == want.n_gaussians
    np.testing.assert_array_equal(state.neighbours.first, want.first)
    again = DeviceFreeStage(slices, FREE, options, state, DEVICE)
    difference = np.abs(again.prediction.cpu().numpy() - state.prediction)
    assert difference.max() < 1e-5 * np.abs(state.prediction).max()


def test_a_stage_optimises_the_geometry_before_its_last_round():
    slices, state = lattice_state()
    stage = replace(FREE, geometry_steps=2)
    running = DeviceStages(OPTIONS, DEVICE).begin(slices, stage, state, state.poses)
    assert isinstance(running, RefinedRounds)
    means = []
    for _ in range(stage.rounds):
        assert running.advance() == 0
        means.append(running.running.state().free_field.means)
    np.testing.assert_array_equal(means[0], means[1])
    assert np.abs(means[2] - means[1]).max() > 1e-3
    with pytest.raises(ValueError, match="geometry steps need"):
        DeviceStages(OPTIONS, DEVICE).begin(slices, replace(stage, rounds=1), state, state.poses)

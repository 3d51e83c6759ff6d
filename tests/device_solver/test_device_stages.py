"""Masks, binning and lattices on a device against those of the host."""

from __future__ import annotations

import numpy as np
import pytest

from gsvr.masks import consensus as masking
from gsvr.model import morphology
from gsvr.model.fields import LatticeField
from gsvr.model.geometry import pose_about
from gsvr.model.slices import Slices
from gsvr.solver.rounds import begin_stage, refined_amplitudes, stage_lattice
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.workflows.pipeline import prepare_slices
from tests.acquisitions import random_amplitudes, small_lattice, small_slices
from tests.moving_brain import moving_brain

torch = pytest.importorskip("torch", reason="the solver on a device needs PyTorch")
from gsvr.device_solver import device_binning, device_lattice, device_masks  # noqa: E402
from gsvr.device_solver.device_stages import DeviceStages  # noqa: E402
from gsvr.device_solver.pixel_grid import PixelGrid, placed_pixels  # noqa: E402
from gsvr.model.geometry import transform_points  # noqa: E402
from tests.backends.tiled_kernels import DEVICE  # noqa: E402

OPTIONS = SolverOptions()


@pytest.fixture(scope="module")
def brain() -> tuple[Slices, np.ndarray]:
    """Slices of a moving brain with random poses of some degrees and millimetres."""
    slices, _ = prepare_slices(moving_brain().stacks, OPTIONS)
    rng = np.random.default_rng(0)
    turns, shifts = 0.05 * rng.normal(size=(slices.n_slices, 3)), rng.normal(size=(slices.n_slices, 3))
    return slices, pose_about(turns, shifts, slices.centres)


def test_pixels_are_where_the_host_has_them(brain: tuple[Slices, np.ndarray]):
    slices, poses = brain
    grid = PixelGrid.of(slices.shapes, DEVICE)
    owner = np.repeat(np.arange(slices.n_slices), np.diff(slices.offsets))
    np.testing.assert_array_equal(grid.owner.cpu().numpy(), owner)
    want = transform_points(poses[owner], slices.pixel_positions())
    np.testing.assert_allclose(placed_pixels(slices, poses, grid).cpu().numpy(), want, atol=1e-10)
    chosen = torch.as_tensor([0, 5, len(owner) - 1]).to(DEVICE)
    some = placed_pixels(slices, poses, grid, chosen).cpu().numpy()
    np.testing.assert_allclose(some, want[[0, 5, -1]], atol=1e-10)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_binned_slices_are_those_of_the_host(brain: tuple[Slices, np.ndarray], factor: int):
    slices, _ = brain
    want, got = slices.binned(factor), device_binning.binned(slices, factor, DEVICE)
    for name in ("shapes", "offsets", "mask", "coverage", "binning"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)
    np.testing.assert_allclose(got.frames, want.frames, atol=1e-12)
    # float32 sums of nine pixels in another order
    np.testing.assert_allclose(got.values, want.values, rtol=1e-6)
    assert got.values.dtype == want.values.dtype == np.float32


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.5, 3.7])
def test_sites_within_a_distance(distance: float):
    mask = np.random.default_rng(1).random((14, 9, 11)) < 0.01
    got = device_lattice.within(torch.as_tensor(mask).to(DEVICE), distance).cpu().numpy()
    np.testing.assert_array_equal(got, morphology.within(mask, distance, 1.0))


def test_lattices_and_amplitudes_are_those_of_the_host(brain: tuple[Slices, np.ndarray]):
    slices, poses = brain
    stage = Stage("test", 2.0, 1, 1, 1)
    want = stage_lattice(slices, poses, stage, OPTIONS)
    chosen = torch.as_tensor(np.flatnonzero(slices.mask)).to(DEVICE)
    placed = placed_pixels(slices, poses, PixelGrid.of(slices.shapes, DEVICE), chosen)
    got = device_lattice.lattice_covering(placed, 2.0, stage.sigma_ratio * 2.0, OPTIONS.margin, OPTIONS.gap)
    np.testing.assert_array_equal(got.support, want.support)
    np.testing.assert_array_equal(got.origin, want.origin)
    assert (got.spacing, got.sigma) == (want.spacing, want.sigma)
    coarse = small_lattice(3.0, 2.0, 20.0)
    field = LatticeField(coarse, random_amplitudes(coarse))
    finer = small_lattice(2.0, 1.3, 18.0)
    expected = refined_amplitudes(field, finer)
    found = device_lattice.refined_amplitudes(field, finer, DEVICE).cpu().numpy()
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())


def test_distances_are_exact():
    mask = np.random.default_rng(2).random((12, 9, 15)) < 0.02
    spacing = np.array([2.0, 1.5, 3.0])
    got = device_masks.distance_to(torch.as_tensor(mask).to(DEVICE), spacing).cpu().numpy()
    np.testing.assert_allclose(got, morphology.distance_to(mask, spacing.tolist()), rtol=1e-6)


def test_masks_are_those_of_the_host(brain: tuple[Slices, np.ndarray]):
    """But for pixels just on the margin, and sites just on half of the votes: kernels cut off a little differently."""
    slices, poses = brain
    want = masking.agreed_mask(slices, slices.mask, poses, OPTIONS.masks)
    got = device_masks.agreed_mask(slices, slices.mask, poses, OPTIONS, DEVICE)
    np.testing.assert_allclose(got.affine, want.affine)
    assert (got.mask != want.mask).mean() < 1e-4
    assert np.mean(np.asarray(want.mask)) > 0.05
    expected = masking.project_mask(want, slices, poses, 2.5)
    found = device_masks.project_mask(want, slices, poses, 2.5, DEVICE)
    assert (found != expected).mean() < 1e-5
    assert 0.1 < expected.mean() < 0.9
    # where slices lie beyond the mask's grid nothing is near it
    far = poses.copy()
    far[0, :3, 3] += 500
    assert not device_masks.project_mask(want, slices, far, 2.5, DEVICE)[slices.pixels_of(0)].any()


def test_a_stage_begins_as_on_the_host():
    slices, poses = small_slices()
    stages = DeviceStages(OPTIONS, DEVICE)
    coarse, fine = Stage("coarse", 4.0, 1, 1, 3, "none", 0.7), Stage("fine", 3.0, 1, 1, 3, "none")
    running = stages.begin(slices, coarse, None, poses)
    running.advance()
    state = running.state()
    want = begin_stage(slices, fine, OPTIONS, state)
    got = stages.begin(slices, fine, state, poses).state()
    np.testing.assert_array_equal(got.operator.lattice.support, want.operator.lattice.support)
    np.testing.assert_allclose(got.amplitudes, want.amplitudes, atol=2e-6 * np.abs(want.amplitudes).max())
    np.testing.assert_allclose(got.gains, want.gains)
    inside = slices.mask
    # cut off at 3 standard deviations by the CPU's kernels, a little later by those of tiles
    assert np.abs(got.prediction - want.prediction)[inside].max() < 0.02 * np.abs(want.prediction).max()

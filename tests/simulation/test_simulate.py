"""Simulated acquisitions: physics against quadrature, truth that holds, artefacts of stated size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from scipy.special import ndtr

from gsvr.errors import InputError
from gsvr.io.nifti import read_volume
from gsvr.model.geometry import transform_points
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import Simulation, SimulationOptions, simulate

# Coarse, so that a whole acquisition takes about a second.
PERFECT = SimulationOptions(
    n_stacks=3, in_plane_spacing=3.0, thickness=6.0, motion="none", noise=0.0, gain=0.0, signal_loss=0.0
)


@pytest.fixture(scope="module")
def volume() -> Volume:
    return brain_phantom(spacing=3.0)


@pytest.fixture(scope="module")
def perfect(volume: Volume) -> Simulation:
    return simulate(volume, PERFECT)


def stack_positions(stack: Stack) -> np.ndarray:
    """Acquired world positions of all pixels, (slices, pixels, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in stack.data.shape), indexing="ij"), axis=-1)
    ordered = np.moveaxis(index, 2, 0).reshape(stack.n_slices, -1, 3)
    return transform_points(stack.affine, ordered.astype(np.float64))


def quadrature(volume: Volume, stack: Stack, pose: np.ndarray, pixel: np.ndarray, profile: str) -> float:
    """Integral of the spline-interpolated volume over the point spread function, on a 0.4 mm lattice."""
    axes = stack.affine[:3, :3] / stack.spacing
    sigma_plane = 1.2 * stack.spacing[0] / 2.3548
    in_plane = np.arange(-4 * sigma_plane, 4 * sigma_plane, 0.4)
    through = np.arange(-1.6 * stack.thickness, 1.6 * stack.thickness, 0.4)
    if profile == "slab":
        edge = 0.1 * stack.thickness
        weight = ndtr((through + stack.thickness / 2) / edge) - ndtr((through - stack.thickness / 2) / edge)
    else:
        weight = np.exp(-0.5 * (through * 2.3548 / stack.thickness) ** 2)
    u, v, w = np.meshgrid(in_plane, in_plane, through, indexing="ij")
    weights = np.exp(-0.5 * (u**2 + v**2) / sigma_plane**2) * weight
    centre = stack.affine[:3] @ [*pixel, 1]
    world = transform_points(pose, centre + np.stack([u, v, w], axis=-1).reshape(-1, 3) @ axes.T)
    index = transform_points(np.linalg.inv(volume.affine), world)
    values = ndimage.map_coordinates(volume.data.astype(np.float64), index.T, order=3)
    return float(values @ weights.ravel() / weights.sum())


@pytest.mark.parametrize("profile", ["slab", "gaussian"])
def test_pixels_are_integrals_over_the_point_spread_function(volume: Volume, profile: str):
    options = replace(PERFECT, n_stacks=4, thickness=4.0, motion="uniform", profile=profile, seed=2)
    simulation = simulate(volume, options)
    rng = np.random.default_rng(0)
    for stack, poses in zip(simulation.stacks, simulation.poses, strict=True):
        assert stack.mask is not None
        inside = np.argwhere(stack.mask)
        for pixel in inside[rng.integers(len(inside), size=5)]:
            expected = quadrature(volume, stack, poses[pixel[2]], pixel, profile)
            # 0.1 % of the range: sub-planes and sub-pixels of the sampler against a finer lattice
            assert stack.data[tuple(pixel)] == pytest.approx(abs(expected), abs=1.0)


def test_signal_is_neither_made_nor_lost(volume: Volume, perfect: Simulation):
    total = volume.data.sum(dtype=np.float64) * np.prod(volume.spacing)
    for stack in perfect.stacks:
        assert stack.data.sum(dtype=np.float64) * np.prod(stack.spacing) == pytest.approx(total, rel=0.01)


def test_stacks_cycle_through_orientations_tilted_and_shifted():
    radii, affine = np.array([16.0, 20.0, 14.0]), np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = [-12.0, -30.0, 4.0]
    place = np.moveaxis(np.indices((20, 24, 18)), 0, -1) * 2.0 - [19, 23, 17]
    mask = np.linalg.norm(place / radii, axis=-1) < 1
    volume = Volume(mask.astype(np.float32), affine, mask)
    options = replace(PERFECT, n_stacks=9, in_plane_spacing=8.0, thickness=10.0, slice_spacing=12.0)
    stacks = simulate(volume, options).stacks
    axes = [stack.affine[:3, :3] / stack.spacing for stack in stacks]
    for matrix in axes:
        np.testing.assert_allclose(matrix.T @ matrix, np.eye(3), atol=1e-12)
    assert [int(np.argmax(np.abs(matrix[:, 2]))) for matrix in axes] == 3 * [2, 1, 0]
    assert {np.sign(np.linalg.det(matrix)) for matrix in axes} == {-1.0, 1.0}
    for first, tilted in zip(2 * axes[:3], axes[3:], strict=True):
        assert 10 <= np.degrees(np.arccos(first[:, 2] @ tilted[:, 2])) <= 20
    brain, shifts = volume.voxel_positions(volume.mask), []
    for stack, matrix in zip(stacks, axes, strict=True):
        middle = stack.affine[:3] @ [*(np.array(stack.data.shape) - 1) / 2, 1]
        along = brain @ matrix
        shifts.append(middle @ matrix - (along.min(axis=0) + along.max(axis=0)) / 2)
    # slices of the repeated stacks lie between those of the first, half a distance of slices away
    np.testing.assert_allclose(shifts, np.outer(np.arange(9) // 3 % 2, [0, 0, 6.0]), atol=1e-9)


def test_field_of_view_covers_the_brain(volume: Volume, perfect: Simulation):
    brain = volume.voxel_positions(volume.mask)
    for stack in perfect.stacks:
        index = transform_points(np.linalg.inv(stack.affine), brain)
        assert np.all(index >= 0)
        assert np.all(index <= np.array(stack.data.shape) - 1)


@pytest.fixture(scope="module")
def moved(volume: Volume) -> Simulation:
    return simulate(volume, replace(PERFECT, n_stacks=4, motion="severe", seed=1))


def test_true_poses_carry_masked_pixels_into_the_anatomy(volume: Volume, moved: Simulation):
    assert volume.mask is not None
    outside = np.asarray(ndimage.distance_transform_edt(~volume.mask, sampling=volume.spacing))
    for stack, poses in zip(moved.stacks, moved.poses, strict=True):
        world = transform_points(poses[:, None], stack_positions(stack))
        index = np.rint(transform_points(np.linalg.inv(volume.affine), world)).astype(int)
        index = np.clip(index, 0, np.array(volume.data.shape) - 1)
        distance = outside[tuple(np.moveaxis(index, -1, 0))]
        assert stack.mask is not None
        mask = np.moveaxis(stack.mask, 2, 0).reshape(stack.n_slices, -1)
        assert np.all(mask[distance == 0])
        # Two pixels of dilation, half a slice, and the diagonals of the two grids' cells.
        assert distance[mask].max() < 2 * 3.0 + 6.0 / 2 + 2.0 * 3**0.5


def test_true_poses_make_stacks_agree(volume: Volume, moved: Simulation):
    # A thick slice is nearest to the volume blurred likewise where the true pose puts it.
    blurred = ndimage.gaussian_filter(volume.data, 2.4 / volume.spacing)  # 2.4 mm
    for stack, poses in zip(moved.stacks, moved.poses, strict=True):
        assert stack.mask is not None
        mask = np.moveaxis(stack.mask, 2, 0).ravel()
        recorded = np.moveaxis(stack.data, 2, 0).ravel()[mask]
        correlation = []
        for pose in (poses, np.tile(np.eye(4), (stack.n_slices, 1, 1))):
            world = transform_points(pose[:, None], stack_positions(stack))
            index = transform_points(np.linalg.inv(volume.affine), world).reshape(-1, 3)[mask]
            correlation.append(np.corrcoef(recorded, ndimage.map_coordinates(blurred, index.T, order=1))[0, 1])
        assert correlation[0] > 0.97
        assert correlation[1] < 0.93


def test_same_seed_same_bits_and_noise_leaves_the_motion(volume: Volume):
    options = SimulationOptions(n_stacks=2, in_plane_spacing=4.0, thickness=8.0, signal_loss=0.1, bias=0.2, seed=5)
    first, again = simulate(volume, options), simulate(volume, options)
    quiet, other = simulate(volume, replace(options, noise=0.0)), simulate(volume, replace(options, seed=6))
    for number in range(2):
        np.testing.assert_array_equal(first.stacks[number].data, again.stacks[number].data)
        np.testing.assert_array_equal(first.stacks[number].mask, again.stacks[number].mask)
        np.testing.assert_array_equal(first.poses[number], quiet.poses[number])
        np.testing.assert_array_equal(first.signal_losses[number], quiet.signal_losses[number])
        assert not np.allclose(first.poses[number], other.poses[number])


def test_noise_is_rician(volume: Volume, perfect: Simulation):
    noisy = simulate(volume, replace(PERFECT, noise=0.05))
    assert volume.mask is not None
    assert noisy.noise_sigma == pytest.approx(0.05 * np.percentile(volume.data[volume.mask], 99))
    clean = np.concatenate([stack.data.ravel() for stack in perfect.stacks])
    recorded = np.concatenate([stack.data.ravel() for stack in noisy.stacks])
    background, bright = clean < 0.1, clean > 500
    # Rayleigh where there is no signal, nearly Gaussian where there is much.
    assert recorded[background].mean() == pytest.approx(noisy.noise_sigma * np.sqrt(np.pi / 2), rel=0.02)
    assert (recorded - clean)[bright].std() == pytest.approx(noisy.noise_sigma, rel=0.03)
    assert (recorded - clean)[bright].mean() == pytest.approx(noisy.noise_sigma**2 / 2 / clean[bright].mean(), rel=0.5)


def test_gains_and_signal_losses_scale_slices(volume: Volume, perfect: Simulation):
    spoilt = simulate(volume, replace(PERFECT, gain=0.1, signal_loss=0.1))
    gains, kept = np.concatenate(spoilt.gains), np.concatenate(spoilt.signal_losses)
    assert gains.mean() == pytest.approx(1.0)
    assert np.log(gains).std() == pytest.approx(0.1, rel=0.25)
    assert np.count_nonzero(kept < 1) == round(0.1 * len(kept))
    assert np.all((kept == 1) | ((kept >= 0.2) & (kept <= 0.6)))
    for number, stack in enumerate(spoilt.stacks):
        expected = perfect.stacks[number].data * spoilt.gains[number] * spoilt.signal_losses[number]
        np.testing.assert_allclose(stack.data, expected, rtol=1e-4, atol=1e-3)


def test_coil_field_is_smooth_and_stays_with_the_scanner(volume: Volume, perfect: Simulation):
    biased = simulate(volume, replace(PERFECT, bias=0.2))
    coefficients = []
    for stack, clean in zip(biased.stacks, perfect.stacks, strict=True):
        bright = clean.data > 300
        logarithm = np.log(stack.data[bright] / clean.data[bright])
        position = transform_points(stack.affine, np.argwhere(bright).astype(np.float64)) / 50
        design = np.column_stack([np.ones(len(position)), position, position**2])
        fit, *_ = np.linalg.lstsq(design, logarithm, rcond=None)
        assert np.abs(design @ fit - logarithm).max() < 1e-4
        assert logarithm.std() == pytest.approx(0.2, rel=0.2)
        coefficients.append(fit)
    assert not np.allclose(coefficients[0], coefficients[1], atol=0.02)


def test_progress_ends_at_the_number_of_slices(volume: Volume):
    calls: list[tuple[int, int]] = []
    options = replace(PERFECT, in_plane_spacing=4.0, thickness=10.0)
    simulation = simulate(volume, options, lambda done, total: calls.append((done, total)))
    n_slices = sum(stack.n_slices for stack in simulation.stacks)
    assert calls == [(done, n_slices) for done in range(1, n_slices + 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_stacks": 0}, "n_stacks"),
        ({"thickness": -3.0}, "thickness"),
        ({"in_plane_spacing": float("nan")}, "in_plane_spacing"),
        ({"noise": -0.1}, "noise"),
        ({"signal_loss": 1.5}, "signal_loss"),
        ({"motion": "wild"}, "unknown motion"),
        ({"profile": "round"}, "unknown slice profile"),
    ],
)
def test_impossible_options_are_refused(changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        SimulationOptions(**changes)


def test_an_empty_volume_is_refused(volume: Volume):
    with pytest.raises(InputError, match="no signal"):
        simulate(Volume(np.zeros_like(volume.data), volume.affine, volume.mask), PERFECT)


@pytest.mark.slow
def test_atlas_brain(shared_data: Path):
    folder = shared_data / "atlas-crl"
    if not (folder / "STA33.nii.gz").exists():
        pytest.skip("the CRL atlas is absent")
    volume = read_volume(folder / "STA33.nii.gz", folder / "STA33_mask_dil.nii.gz")
    options = replace(PERFECT, n_stacks=1, in_plane_spacing=3.0, thickness=8.0)
    stack = simulate(volume, options).stacks[0]
    total = volume.data.sum(dtype=np.float64) * np.prod(volume.spacing)
    assert stack.data.sum(dtype=np.float64) * np.prod(stack.spacing) == pytest.approx(total, rel=0.01)
    assert stack.mask is not None
    assert stack.data[~stack.mask].max() < 0.05 * stack.data.max()

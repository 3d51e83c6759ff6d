"""Reconstruction from slices to a volume: true motion is erased, then found again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from gsvr.evaluation import compare
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import identity_poses
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.render.points import values_at
from gsvr.render.volume import render_deviation, render_volume
from gsvr.solver.brightness import field_as_bright_as_slices
from gsvr.solver.gains import intensity_scale
from gsvr.solver.motion import displacements
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import (
    QUICK_STAGES,
    SHORTEST_STAGES,
    errors_before,
    errors_of_poses,
    moving_brain,
    small_brain,
    true_poses,
)

FREE_STAGE = replace(QUICK_STAGES[-1], name="free", spacing=1.35, inner_iterations=6, free=True)
COARSE = Stage("coarse", 2.0, 1, 4, 6, "none")
QUICK, SHORTEST = SolverOptions(stages=QUICK_STAGES), SolverOptions(stages=SHORTEST_STAGES)
# lattice, then free Gaussians
BOTH = SolverOptions(stages=(*SHORTEST_STAGES, replace(SHORTEST_STAGES[-1], name="free", free=True)))


@pytest.fixture(scope="module")
def slices() -> Slices:
    """What the scanner recorded of the moving brain: nothing of its motion."""
    return prepare_slices(moving_brain().stacks, QUICK)


@pytest.fixture(scope="module")
def heard() -> list[Progress]:
    """What the callback of `result` was told."""
    return []


@pytest.fixture(scope="module")
def result(slices: Slices, heard: list[Progress]) -> Result:
    return reconstruct(slices, QUICK, heard.append)


def ncc(result: Result) -> float:
    return compare(render_volume(result.field, 1.0, result.mask), small_brain()).quality.ncc


def test_known_motion_is_recovered(slices: Slices, result: Result):
    before = errors_before(slices, moving_brain())
    after = errors_of_poses(result.slices, result.poses, moving_brain())
    assert before.median > 1.3
    assert after.median < 0.3
    assert after.p90 < 0.7


def test_volume_beats_the_uncorrected_one_and_nears_that_of_the_true_poses(slices: Slices, result: Result):
    last = SolverOptions(stages=QUICK_STAGES[-1:])
    uncorrected, ideal = reconstruct(slices, last), reconstruct(slices, last, poses=true_poses(slices, moving_brain()))
    np.testing.assert_array_equal(uncorrected.poses, identity_poses(slices.n_slices))
    assert ncc(result) > ncc(uncorrected) + 0.2
    assert ncc(result) > ncc(ideal) - 0.06


def test_result_is_in_the_units_of_the_input_and_consistent(slices: Slices, result: Result):
    inside = result.slices.mask
    assert np.corrcoef(result.prediction[inside], slices.values[inside])[0, 1] > 0.97
    residual = (result.slices.values - result.prediction)[inside]
    assert np.abs(residual.mean()) < 0.02 * slices.values[inside].mean()
    assert result.noise == pytest.approx(1.4826 * np.median(np.abs(residual)), rel=0.1)
    n = slices.n_slices
    assert result.poses.shape == (n, 4, 4)
    for values in (result.gains, result.slice_weights, result.residuals):
        assert values.shape == (n,)
        assert np.isfinite(values).all()
    assert 0 <= result.slice_weights.min() <= result.slice_weights.max() <= 1
    used = result.slices.sum_per_slice(result.slices.mask) > 0
    np.testing.assert_array_equal(result.slice_weights > 0, used)


def test_mask_is_the_brain(result: Result):
    volume = render_volume(result.field, 0.8, result.mask)
    truth = small_brain()
    sizes = [float(np.asarray(v.mask).sum()) * float(np.prod(v.spacing)) for v in (volume, truth)]
    # masks of the stacks are two pixels wider than the brain
    assert 1.0 < sizes[0] / sizes[1] < 1.6
    centres = [v.voxel_positions(v.mask).mean(axis=0) for v in (volume, truth)]
    assert np.linalg.norm(centres[0] - centres[1]) < 2


def test_pixels_that_a_mask_crops_are_used_in_the_end(slices: Slices):
    middle = int(np.argmax(slices.sum_per_slice(slices.mask)))
    mask = slices.mask.copy()
    mask[slices.pixels_of(middle)] &= np.arange(np.prod(slices.shapes[middle])) % slices.shapes[middle][1] > 15
    lost = slices.mask & ~mask
    assert lost.sum() > 100
    result = reconstruct(slices.with_mask(mask), SHORTEST)
    assert result.slices.mask[lost].mean() > 0.9


def test_callback_hears_every_outer_iteration_in_order(heard: list[Progress], result: Result):
    total = sum(stage.outer_iterations for stage in QUICK_STAGES)
    assert {progress.total for progress in heard} == {total}
    assert list(dict.fromkeys(progress.stage for progress in heard)) == list(QUICK_STAGES)
    passed = 0
    for stage in QUICK_STAGES:
        of_stage = [progress for progress in heard if progress.stage == stage]
        assert [progress.iteration for progress in of_stage] == list(range(1, len(of_stage) + 1))
        assert [progress.stage_done for progress in of_stage] == [False] * (len(of_stage) - 1) + [True]
        # iterations that a stage did not need count as done
        done = [passed + progress.iteration for progress in of_stage[:-1]]
        passed += stage.outer_iterations
        assert [progress.done for progress in of_stage] == [*done, passed]
    seconds = [progress.seconds for progress in heard]
    assert seconds == sorted(seconds)
    last = heard[-1]
    np.testing.assert_array_equal(last.state.poses, result.poses)
    np.testing.assert_array_equal(
        field_as_bright_as_slices(last.state).scaled(last.scale).amplitudes, result.field.amplitudes
    )
    np.testing.assert_array_equal(last.mask, result.slices.mask)


def test_a_stage_ends_early_once_half_of_the_slices_have_settled(slices: Slices):
    """Half of them: the mean of all still moves farther. A stage that moves nothing takes all its iterations."""

    def run(settled: float) -> list[np.ndarray]:
        """How far every slice moves in each iteration (mm)."""
        moving = replace(QUICK_STAGES[1], outer_iterations=6, settled=settled)
        last = replace(SHORTEST_STAGES[-1], outer_iterations=2, settled=1e6)
        heard: list[Progress] = []
        reconstruct(slices, SolverOptions(stages=(moving, last)), heard.append)
        assert sum(progress.stage == last for progress in heard) == 2
        poses = [identity_poses(slices.n_slices), *(p.state.poses for p in heard if p.stage == moving)]
        return [displacements(slices, one, other) for one, other in pairwise(poses)]

    whole = run(0.0)
    assert len(whole) == 6
    median, mean = np.median(whole[3]), np.mean(whole[3])
    assert mean > 1.1 * median
    settled = (median + mean) / 2 / QUICK_STAGES[1].spacing
    enough = [bool(np.median(moved) < settled * QUICK_STAGES[1].spacing) for moved in whole]
    assert 0 < enough.index(True) < 5
    assert len(run(settled)) == enough.index(True) + 1
    assert len(run(1e6)) == 1


def test_residual_falls_from_stage_to_stage(heard: list[Progress]):
    of_stage = [[p.state.weights.noise for p in heard if p.stage == stage] for stage in QUICK_STAGES[1:3]]
    for noise in of_stage:
        assert noise[-1] < noise[0]
    assert of_stage[1][-1] < of_stage[0][-1]


def test_callback_may_stop(slices: Slices):
    class Stop(Exception):  # noqa: N818
        pass

    calls = []

    def stop(progress: Progress) -> None:
        calls.append(progress.done)
        if progress.done == 2:
            raise Stop

    with pytest.raises(Stop):
        reconstruct(slices, SHORTEST, stop)
    assert calls == [1, 2]


def arrays_of(result: Result) -> list[np.ndarray]:
    """All that could differ."""
    field = result.field.to_gaussians()
    place = [field.means, field.log_scales, field.quaternions]
    deviations = [part.amplitudes for part in result.deviations]
    numbers = [result.poses, result.gains, result.slice_weights, result.residuals, result.prediction]
    masks = [result.slices.mask, np.asarray(result.mask.mask), result.mask.data]
    return [field.amplitudes, *place, *numbers, *masks, *deviations, np.array(result.noise)]


@pytest.mark.parametrize("geometry_steps", [None, 3])
def test_equal_input_gives_equal_bits_on_any_number_of_threads(
    slices: Slices, monkeypatch: pytest.MonkeyPatch, geometry_steps: int | None
):
    """On a lattice, and for free Gaussians that move."""
    options = replace(SHORTEST, uncertainty_samples=1)
    if geometry_steps is not None:
        free = replace(BOTH.stages[-1], outer_iterations=2, geometry_steps=geometry_steps)
        options = replace(options, stages=(*SHORTEST_STAGES, free))
    runs = []
    for threads in ("1", "2", "7"):
        monkeypatch.setenv("GSVR_THREADS", threads)
        result = reconstruct(slices, options)
        assert isinstance(result.field, LatticeField if geometry_steps is None else GaussianField)
        runs.append(arrays_of(result))
    for other in runs[1:]:
        for first, second in zip(runs[0], other, strict=True):
            np.testing.assert_array_equal(second, first)


def test_input_is_left_as_it_was(slices: Slices):
    kept = [slices.values.copy(), slices.mask.copy(), slices.frames.copy()]
    reconstruct(slices, SHORTEST)
    for before, after in zip(kept, (slices.values, slices.mask, slices.frames), strict=True):
        np.testing.assert_array_equal(after, before)


def test_scale_of_the_intensities_does_not_matter(slices: Slices):
    bright = replace(slices, values=slices.values * np.float32(1024))  # a power of two: no other rounding
    first, second = reconstruct(slices, SHORTEST), reconstruct(bright, SHORTEST)
    np.testing.assert_allclose(second.poses, first.poses, atol=1e-6)
    np.testing.assert_allclose(second.field.amplitudes, 1024 * first.field.amplitudes, rtol=1e-4, atol=0.1)
    assert second.noise == pytest.approx(1024 * first.noise, rel=1e-4)


def test_empty_and_constant_slices_are_weighed_down_and_not_fatal(slices: Slices):
    values = slices.values.copy()
    pixels = slices.sum_per_slice(slices.mask)
    ruined = np.argsort(pixels)[::-1][[3, 9]]
    values[slices.pixels_of(int(ruined[0]))] = 0
    values[slices.pixels_of(int(ruined[1]))] = 1.2 * intensity_scale(slices)
    result = reconstruct(replace(slices, values=values), QUICK)
    assert np.isfinite(result.field.amplitudes).all()
    assert np.isfinite(result.poses).all()
    others = np.setdiff1d(np.flatnonzero(pixels > 0.3 * pixels.max()), ruined)
    assert result.slice_weights[ruined].max() < 0.2
    assert np.median(result.slice_weights[others]) > 0.9


def test_one_slice_a_hundred_times_brighter_changes_little(slices: Slices, result: Result):
    """It lies in the middle of the brain."""
    pixels = slices.sum_per_slice(slices.mask)
    bright = int(np.argmax(np.where(slices.stack_index == 0, pixels, 0)))
    factor = np.where(np.arange(slices.n_slices) == bright, 100.0, 1.0)
    found = reconstruct(replace(slices, values=slices.values * slices.per_pixel(factor.astype(np.float32))), QUICK)
    assert found.gains[bright] / result.gains[bright] == pytest.approx(100, rel=0.05)
    shown = pixels > 0.3 * pixels.max()
    assert np.median(displacements(slices, found.poses, result.poses)[shown]) < 0.1
    points = slices.pixel_positions(result.poses, slices.mask)[::7]
    assert np.corrcoef(values_at(found.field, points), values_at(result.field, points))[0, 1] > 0.99


def test_nothing_to_reconstruct_is_said(slices: Slices):
    with pytest.raises(ValueError, match="all zero"):
        reconstruct(replace(slices, values=0 * slices.values), SHORTEST)
    with pytest.raises(ValueError, match=r"^2 poses for 61 slices: give one a slice$"):
        reconstruct(slices, SHORTEST, poses=identity_poses(2))
    with pytest.raises(ValueError, match=r"^poses_are_good needs poses$"):
        reconstruct(slices, SHORTEST, poses_are_good=True)


def test_stacks_of_different_scale_are_believed_alike(slices: Slices, result: Result) -> None:
    """A receiver gain or rescale slope that differs from stack to stack changes gains and nothing else."""
    members = slices.stack_index == 1
    factor = np.where(members, 6.0, 1.0).astype(np.float32)
    scaled = reconstruct(replace(slices, values=slices.values * slices.per_pixel(factor)), QUICK)
    assert np.allclose(scaled.slice_weights, result.slice_weights, atol=0.05)
    ratio = scaled.gains / result.gains
    assert 5.9 < np.median(ratio[members]) / np.median(ratio[~members]) < 6.1
    assert np.abs(scaled.poses - result.poses).max() < 0.05


@pytest.mark.parametrize("free", [False, True])
def test_the_volume_goes_on_where_no_slice_has_been(slices: Slices, free: bool):
    """Slices that move apart leave gaps in every stack; where the gaps meet there was once a black hole."""
    poses = true_poses(slices, moving_brain())
    brain = small_brain()
    assert brain.mask is not None
    centre = brain.voxel_positions(brain.mask).mean(axis=0)
    distance = np.linalg.norm(slices.pixel_positions(poses) - centre, axis=1)
    stages = tuple(replace(stage, motion="none", consensus_mask=False) for stage in QUICK_STAGES[1:])
    options = replace(QUICK, stages=(*stages[:-1], replace(stages[-1], free=free)))
    whole = reconstruct(slices, options, poses=poses)
    sampled = replace(options, uncertainty_samples=8)
    holed = reconstruct(slices.with_mask(slices.mask & (distance > 5.0)), sampled, poses=poses)
    grid = Volume(brain.data, brain.affine, brain.mask)
    expected, got = (render_volume(result.field, 0.8, grid) for result in (whole, holed))
    away = np.linalg.norm(expected.voxel_positions() - centre, axis=-1).reshape(expected.data.shape)
    assert (away < 4.0).sum() > 100
    assert got.data[away < 4.0].min() > 0.5 * np.median(expected.data[away < 4.0])
    # and says that it is less sure there
    doubt = render_deviation(holed.deviations, got).data
    assert np.median(doubt[away < 3.0]) > 1.1 * np.median(doubt[(away > 8.0) & (away < 14.0)])


# --- a restart, and free Gaussians


@pytest.mark.parametrize("last", [QUICK_STAGES[-1], FREE_STAGE])
def test_good_poses_stay_where_they_are(slices: Slices, result: Result, last: Stage):
    """Going on from where a reconstruction ended moves slices by what its last iterations of motion left to do.

    Their median step was below `settled`, 2 % of 2 mm, and that of the restart is below it after one to four more.
    """
    options = SolverOptions(stages=(*QUICK_STAGES[:-1], last))
    heard: list[Progress] = []
    again = reconstruct(slices, options, heard.append, result.poses, poses_are_good=True)
    assert [stage.spacing for stage in dict.fromkeys(p.stage for p in heard)] == [2.0, 2.0, last.spacing]
    moved = displacements(slices, result.poses, again.poses)
    assert np.median(moved) < 0.1
    assert moved.max() < 0.25
    before, after = (errors_of_poses(slices, r.poses, moving_brain()) for r in (result, again))
    assert after.median < before.median + 0.02
    # from there on there is less still to do
    third = reconstruct(slices, options, poses=again.poses, poses_are_good=True)
    assert np.median(displacements(slices, again.poses, third.poses)) < 0.8 * np.median(moved)


@cache
def with_true_poses(last: Stage) -> Result:
    """What is left is the volume."""
    slices = prepare_slices(moving_brain().stacks, QUICK)
    options = SolverOptions(stages=(COARSE, last), uncertainty_samples=2)
    return reconstruct(slices, options, poses=true_poses(slices, moving_brain()))


def test_free_gaussians_are_at_least_as_good_as_the_lattice():
    free, lattice = with_true_poses(FREE_STAGE), with_true_poses(replace(FREE_STAGE, free=False))
    assert isinstance(free.field, GaussianField)
    assert isinstance(lattice.field, LatticeField)
    quality = [compare(render_volume(r.field, 0.8, r.mask), small_brain()).quality.psnr for r in (free, lattice)]
    assert quality[0] > quality[1]


@pytest.mark.parametrize("free", [False, True])
def test_the_posterior_has_as_many_samples_as_asked_for(free: bool):
    result = with_true_poses(replace(FREE_STAGE, free=free))
    assert len(result.deviations) == 2
    for part in result.deviations:
        assert type(part) is type(result.field)
        assert part.amplitudes.shape == result.field.amplitudes.shape
        assert np.isfinite(part.amplitudes).all()
        # in the units of the input, but smaller than the field
        assert 0.001 < part.amplitudes.std() / result.field.amplitudes.std() < 1
    assert not np.array_equal(result.deviations[0].amplitudes, result.deviations[1].amplitudes)

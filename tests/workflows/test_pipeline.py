"""From files to a job, and to a volume; acquisitions that do not hang together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gsvr.workflows.pipeline
from gsvr.errors import InputError
from gsvr.io.nifti import stack_name
from gsvr.io.transforms import SlicePose, write_poses_json
from gsvr.masks.first import StackMasks
from gsvr.model.geometry import identity_poses, pose_about
from gsvr.model.slices import Stack
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import (
    Job,
    StackInputs,
    fitting_options,
    prepare,
    prepare_masks,
    prepare_slices,
    run,
    slices_of,
    with_margin,
)
from tests.moving_brain import SHORTEST_STAGES, moving_brain
from tests.stack_files import masks_of, write_simulation

OPTIONS = SolverOptions(stages=SHORTEST_STAGES)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_simulation(tmp_path_factory.mktemp("pipeline"), moving_brain())


def test_stages_suit_the_pixels():
    stacks = moving_brain().stacks
    fine = [replace(stack, affine=stack.affine * [0.5, 0.5, 1, 1]) for stack in stacks]
    spacings = [fitting_options(given, SolverOptions()).stages[-1].spacing for given in (fine, stacks)]
    assert spacings[0] < spacings[1]
    assert 0.5 < spacings[0] < 1.0
    assert fitting_options(stacks, SolverOptions(seed=3)).seed == 3
    refined = SolverOptions(stages=default_stages(geometry_steps=7))
    assert [stage.geometry_steps for stage in fitting_options(stacks, refined).stages][-2:] == [0, 7]
    thick = [replace(stack, thickness=4.5) for stack in stacks]
    assert [fitting_options(given, SolverOptions()).stages[-1].told_apart for given in (thick, stacks)] == [1.5, 1.0]


def test_prepare_fits_stages_unless_told_not_to(paths: list[Path]):
    inputs = StackInputs(paths, masks_of(paths), [])
    fitted, kept = prepare(inputs, OPTIONS), prepare(inputs, OPTIONS, fit_stages=False)
    assert fitted.options == fitting_options(fitted.stacks, OPTIONS)
    assert kept.options == OPTIONS
    assert fitted.options != default_stages()
    assert fitted.timings.keys() == {"read", "masks"}


def test_poses_to_start_with_come_from_a_file(paths: list[Path], tmp_path: Path):
    """Of each slice, or of the nearest one in time that has any in its stack."""
    slices = prepare(StackInputs(paths, masks_of(paths)), OPTIONS).slices
    pose = pose_about(np.array([0.1, 0.0, 0.0]), np.array([1.0, 2.0, 3.0]), np.zeros(3))
    known = np.ones(slices.n_slices, bool)
    second = np.flatnonzero(slices.stack_index == 1)
    first, last = second[np.argsort(slices.times[second])[[0, -1]]]
    known[second] = False
    known[[first, last]] = True
    records = [
        SlicePose(*key, pose if number == last else np.eye(4))
        for number, key in enumerate(slices.keys)
        if known[number]
    ]
    write_poses_json(tmp_path / "poses.json", records)
    job = prepare(StackInputs(paths, masks_of(paths), poses=tmp_path / "poses.json"), OPTIONS)
    assert job.poses is not None
    late = np.zeros(slices.n_slices, bool)
    late[second] = slices.times[second] > (slices.times[first] + slices.times[last]) / 2
    assert 1 < late.sum() < len(second) - 1
    np.testing.assert_allclose(job.poses[late], np.broadcast_to(pose, (late.sum(), 4, 4)))
    np.testing.assert_array_equal(job.poses[~late], identity_poses(int((~late).sum())))
    assert prepare(StackInputs(paths, masks_of(paths)), OPTIONS).poses is None


def test_poses_of_other_stacks_are_refused(paths: list[Path], tmp_path: Path):
    write_poses_json(tmp_path / "poses.json", [SlicePose(stack_name(paths[0]), 8, np.eye(4))])
    with pytest.raises(InputError, match=rf"poses.json has no poses for slices of .*{stack_name(paths[1])}.*only for"):
        prepare(StackInputs(paths, masks_of(paths), poses=tmp_path / "poses.json"), OPTIONS)


def test_a_stack_that_others_do_not_predict_is_searched_for_once_more(caplog: pytest.LogCaptureFixture):
    """Here it is noise, and the search finds no better place; without a search all is done once."""
    stacks = moving_brain("none").stacks
    noise = np.random.default_rng(0).rayleigh(100.0, stacks[1].data.shape).astype(np.float32)
    stacks = [stacks[0], replace(stacks[1], data=noise), stacks[2]]
    total = sum(stage.outer_iterations for stage in SHORTEST_STAGES)
    for search, times in (("none", 1), ("lost", 2)):
        options, calls = replace(OPTIONS, search=search), []
        masks = prepare_masks(stacks, options)
        job = Job(stacks, masks, slices_of(stacks, masks), options, {})
        done = run(job, 2.0, lambda progress, calls=calls: calls.append(progress.done))
        assert calls == list(range(1, 1 + total)) * times
        assert done.verdict.grade != "good"
    assert "not where other stacks predict" in caplog.text


@pytest.mark.parametrize(
    ("drawn", "found", "margin"),
    [
        ([True, True], [True, True], 5.0),
        ([True, False], [True, False], 5.0),
        ([True, True], [True, False], 2.5),
        ([False, False], [False, False], 2.5),
    ],
)
def test_masks_that_nobody_drew_have_a_wider_margin(drawn: list[bool], found: list[bool], margin: float):
    options = with_margin(OPTIONS, StackMasks([], [], drawn, found))
    assert options.masks.margin == margin
    assert options.masks.shown == margin - 0.5


def test_a_job_runs_to_a_volume(paths: list[Path]):
    calls = []
    job = prepare(StackInputs(paths, masks_of(paths), []), OPTIONS, fit_stages=False)
    done = run(job, 1.5, lambda progress: calls.append(progress.done))
    assert calls == list(range(1, 1 + sum(stage.outer_iterations for stage in SHORTEST_STAGES)))
    np.testing.assert_allclose(done.volume.spacing, 1.5)
    assert done.volume.mask is not None
    assert done.volume.mask.any()
    assert done.job.options == OPTIONS
    assert done.timings.keys() == {"read", "masks", "reconstruction", "verdict", "rendering"}
    with pytest.raises(InputError, match="output resolution"):
        run(job, 0.0)


@pytest.mark.parametrize("number", [0, np.nan])
def test_a_volume_that_shows_nothing_is_no_success(paths: list[Path], monkeypatch: pytest.MonkeyPatch, number: float):
    def spoilt(*arguments: Any, **named: Any) -> Result:
        result = reconstruct(*arguments, **named)
        amplitudes = result.field.amplitudes
        amplitudes[:] = number  # in place: a field of NaN is refused where it is made
        return result

    job = prepare(StackInputs(paths, masks_of(paths), []), OPTIONS, fit_stages=False)
    monkeypatch.setattr(gsvr.workflows.pipeline, "reconstruct", spoilt)
    with pytest.raises(InputError, match="the reconstruction came to nothing"):
        run(job, 4.0)


def moved(stack: Stack, distance: float) -> Stack:
    affine = stack.affine.copy()
    affine[0, 3] += distance
    return replace(stack, affine=affine)


def test_stacks_must_hang_together():
    stacks = moving_brain().stacks
    prepare_slices([stacks[0], moved(stacks[1], 20), moved(stacks[2], -20)], OPTIONS)
    with pytest.raises(InputError, match="stack-1: no overlap"):
        prepare_slices([stacks[0], moved(stacks[1], 300), stacks[2]], OPTIONS)
    pairs = [stacks[0], stacks[1], moved(stacks[2], 300), moved(replace(stacks[0], name="stack-3"), 300)]
    with pytest.raises(InputError, match="no overlap"):
        prepare_slices(pairs, OPTIONS)
    # a chain is enough: the first and the last need not meet
    prepare_slices([stacks[0], moved(stacks[1], 50), moved(stacks[2], 100)], OPTIONS)


def test_masks_must_show_something():
    stacks = list(moving_brain().stacks)
    dark = replace(stacks[1], data=np.where(np.asarray(stacks[1].mask), 0, stacks[1].data))
    with pytest.raises(InputError, match="stack-1 is zero everywhere inside its mask"):
        prepare_slices([stacks[0], dark, stacks[2]], OPTIONS)
    tiny = []
    for stack in stacks:
        mask = np.zeros(stack.data.shape, bool)
        mask[tuple(np.array(mask.shape) // 2)] = True
        tiny.append(replace(stack, mask=mask))
    with pytest.raises(InputError, match="too little for a brain"):
        prepare_slices(tiny, OPTIONS)
    # one poor mask among good ones is no reason to stop
    prepare_slices([*stacks[:2], tiny[2]], OPTIONS)


def test_what_will_take_long_says_so_first(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    job = prepare(StackInputs(paths, masks_of(paths)), OPTIONS)
    assert caplog.messages == []
    monkeypatch.setattr(gsvr.workflows.pipeline, "_MANY_PIXELS", 0.9 * job.slices.n_pixels / 1e6)
    job = prepare(StackInputs(paths, masks_of(paths)), OPTIONS)
    assert len(caplog.messages) == 1
    assert "this takes minutes and some 0 GB of memory; give masks of the brain alone" in caplog.text
    assert list(job.provenance.warnings) == caplog.messages

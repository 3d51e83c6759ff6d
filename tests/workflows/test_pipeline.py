"""From files to a job: names, masks and their stacks, and acquisitions that do not hang together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

import gsvr.workflows.pipeline
from gsvr.errors import InputError
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.workflows.pipeline import StackInputs, fitting_options, prepare, prepare_slices, read_stacks, run
from tests.moving_brain import SHORTEST_STAGES, moving_brain
from tests.stack_files import masks_of, write_simulation, write_stack

OPTIONS = SolverOptions(stages=SHORTEST_STAGES)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_simulation(tmp_path_factory.mktemp("pipeline"), moving_brain())


def test_stacks_masks_and_thicknesses_are_read(paths: list[Path]):
    stacks = read_stacks(StackInputs(paths, masks_of(paths), [2.5, 3.0, 3.5]))
    for stack, expected, thickness in zip(stacks, moving_brain().stacks, (2.5, 3.0, 3.5), strict=True):
        np.testing.assert_array_equal(stack.data, expected.data)
        np.testing.assert_array_equal(stack.mask, expected.mask)
        assert stack.thickness == thickness
        assert stack.name == expected.name


def test_names_of_files_are_enough(paths: list[Path]):
    stacks = read_stacks(StackInputs([str(path) for path in paths], thicknesses=3.0))
    assert [stack.thickness for stack in stacks] == [3.0] * 3
    assert [stack.mask for stack in stacks] == [None] * 3
    inputs = StackInputs(iter(paths), None, None)
    assert (inputs.stacks, inputs.masks, inputs.thicknesses) == (paths, [], [])
    assert replace(inputs, masks=[str(paths[0])]).masks == paths[:1]


def test_what_is_no_list_of_files_is_refused(paths: list[Path]):
    jaxtyping.config.update("jaxtyping_disable", True)  # as outside the tests
    try:
        for given, match in (
            ({"stacks": str(paths[0])}, "`stacks` must be a list of files, not '"),
            ({"stacks": None}, "`stacks` must be a list of files, not None"),
            ({"stacks": [paths[0], None]}, "`stacks` must be a list of files, and None is none"),
            ({"stacks": paths, "masks": paths[0]}, "`masks` must be a list of files"),
            ({"stacks": paths, "thicknesses": "thick"}, "`thicknesses` must be numbers of mm, not 'thick'"),
            ({"stacks": paths, "thicknesses": [None]}, "`thicknesses` must be numbers"),
        ):
            with pytest.raises(InputError, match=match):
                StackInputs(**given)  # pyright: ignore[reportArgumentType]
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_stacks_are_refused(paths: list[Path], count: int):
    with pytest.raises(InputError, match="cannot be corrected for motion: give two or more `stacks`"):
        read_stacks(StackInputs(paths[:count]))


def test_a_single_mask_finds_its_stack(paths: list[Path]):
    stacks = read_stacks(StackInputs(paths, masks_of(paths)[2:], []))
    assert [stack.mask is not None for stack in stacks] == [False, False, True]


def test_masks_in_any_order_find_their_stacks_if_there_are_fewer(paths: list[Path]):
    first, _, third = masks_of(paths)
    stacks = read_stacks(StackInputs(paths, [third, first], []))
    assert [stack.mask is not None for stack in stacks] == [True, False, True]
    np.testing.assert_array_equal(stacks[0].mask, moving_brain().stacks[0].mask)


def test_a_mask_that_fits_two_stacks_is_told_about(paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    again = write_stack(tmp_path, replace(moving_brain().stacks[0], mask=None), "again")
    stacks = read_stacks(StackInputs([*paths, again], masks_of(paths)[:1], []))
    assert [stack.mask is not None for stack in stacks] == [True, False, False, False]
    assert "taken for the mask of stack-0, though again has the same grid" in caplog.text


def test_names_are_distinct_even_where_numbering_would_clash(tmp_path: Path):
    stacks = moving_brain().stacks
    paths = []
    for number, name in enumerate(("brain", "brain", "brain-1", "brain-0")):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths.append(write_stack(folder, replace(stacks[number % 3], mask=None), name))
    names = [stack.name for stack in read_stacks(StackInputs(paths, [], []))]
    assert len(set(names)) == 4
    assert names[2:] == ["brain-1", "brain-0"]
    assert all(name.startswith("brain-") for name in names)


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


def test_a_job_runs_to_a_volume(paths: list[Path]):
    calls = []
    job = prepare(StackInputs(paths, masks_of(paths), []), OPTIONS, fit_stages=False)
    done = run(job, 1.5, lambda progress: calls.append(progress.done))
    assert calls == list(range(1, 1 + sum(stage.outer_iterations for stage in SHORTEST_STAGES)))
    np.testing.assert_allclose(done.volume.spacing, 1.5)
    assert done.volume.mask is not None
    assert done.volume.mask.any()
    assert done.job.options == OPTIONS
    assert done.timings.keys() == {"read", "masks", "reconstruction", "rendering"}
    with pytest.raises(InputError, match="output resolution"):
        run(job, 0.0)


def test_a_volume_that_shows_nothing_is_no_success(paths: list[Path], monkeypatch: pytest.MonkeyPatch):
    job = prepare(StackInputs(paths, masks_of(paths), []), OPTIONS, fit_stages=False)
    for number in (0, np.nan):
        spoilt = lambda *words, number=number, **more: spoil(render_volume(*words, **more), number)  # noqa: E731
        monkeypatch.setattr(gsvr.workflows.pipeline, "render_volume", spoilt)
        with pytest.raises(InputError, match="the reconstruction came to nothing"):
            run(job, 4.0)


def spoil(volume: Volume, number: float) -> Volume:
    return replace(volume, data=np.full_like(volume.data, number))


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

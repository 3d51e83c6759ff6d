"""The files of an acquisition: names, masks and their stacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.nifti import write_volume
from gsvr.workflows.inputs import StackInputs, read_stacks
from tests.moving_brain import moving_brain, small_brain
from tests.stack_files import masks_of, write_simulation, write_stack


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_simulation(tmp_path_factory.mktemp("inputs"), moving_brain())


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
    with pytest.raises(InputError, match="give two or more `stacks`"):
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


def test_one_mask_in_the_world_serves_all_stacks(paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """As it comes from a reconstruction or an atlas: on a grid of its own."""
    truth = small_brain()
    write_volume(tmp_path / "world.nii.gz", np.asarray(truth.mask), truth.affine)
    stacks = read_stacks(StackInputs(paths, [tmp_path / "world.nii.gz"]))
    assert caplog.text.count("world.nii.gz is on the grid of none of the stacks") == 1
    for stack, drawn in zip(stacks, moving_brain().stacks, strict=True):
        assert stack.mask is not None
        assert drawn.mask is not None
        # drawn masks are two pixels wider, and follow the motion
        assert (stack.mask & drawn.mask).sum() > 0.95 * stack.mask.sum()
        assert stack.mask.sum() > 0.5 * drawn.mask.sum()
    # the one that a stack has of its own wins
    stacks = read_stacks(StackInputs(paths, [tmp_path / "world.nii.gz", masks_of(paths)[2]]))
    np.testing.assert_array_equal(stacks[2].mask, moving_brain().stacks[2].mask)
    with pytest.raises(InputError, match="give one mask for all stacks"):
        read_stacks(
            StackInputs(
                [*paths, write_stack(tmp_path, moving_brain().stacks[0], "again")], [tmp_path / "world.nii.gz"] * 2
            )
        )


def test_a_mask_on_another_grid_is_resampled_onto_its_stack(
    paths: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    masks = masks_of(paths)
    fine = moving_brain().stacks[1]
    affine = fine.affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    affine[:3, 3] -= affine[:3, :3] @ [0.5, 0.5, 0.5]
    doubled = np.kron(np.asarray(fine.mask), np.ones((2, 2, 2), bool))
    write_volume(tmp_path / "fine.nii.gz", doubled, affine)
    stacks = read_stacks(StackInputs(paths, [masks[0], tmp_path / "fine.nii.gz", masks[2]]))
    assert "fine.nii.gz is on another grid than stack-1, and was resampled onto it" in caplog.text
    np.testing.assert_array_equal(stacks[1].mask, fine.mask)


def test_masks_out_of_order_are_refused(paths: list[Path]):
    first, second, third = masks_of(paths)
    with pytest.raises(InputError, match=r"stack-1_mask\.nii\.gz is on the grid of stack-1, not of stack-0"):
        read_stacks(StackInputs(paths, [second, first, third]))


def test_none_holds_the_place_of_a_mask(tmp_path: Path):
    simulation = moving_brain()
    paths = write_simulation(tmp_path, simulation)
    mask = masks_of(paths)[1]
    stacks = read_stacks(StackInputs(paths, [None, mask, None]))
    assert [stack.mask is not None for stack in stacks] == [False, True, False]
    with pytest.raises(InputError, match="2 `masks`, None among them, for 3 stacks"):
        StackInputs(paths, [None, mask])


def test_masks_that_a_pattern_took_with_the_stacks_are_known_at_once(paths: list[Path]):
    taken = sorted([*paths, *masks_of(paths)])
    with pytest.raises(InputError, match=r"stack-0_mask\.nii\.gz and 2 other files are masks, .* with `masks`"):
        read_stacks(StackInputs(taken))
    with pytest.raises(InputError, match=r"stack-1_mask\.nii\.gz is a mask"):
        read_stacks(StackInputs([*paths, masks_of(paths)[1]]))

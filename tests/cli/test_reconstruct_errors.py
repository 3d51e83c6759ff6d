"""``gsvr reconstruct`` and bad files: one sentence that names the culprit, exit code 2, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.cli.bad_files import SHAPE, Files, Refused, blob
from tests.cli.conftest import Command
from tests.stack_files import masks_of


def test_the_good_stacks_are_good(files: Files, gsvr_command: Command, monkeypatch: pytest.MonkeyPatch):
    """Else nothing below would be worth much."""

    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("everything was accepted")

    monkeypatch.setattr("gsvr.workflows.pipeline.run", stop)
    with pytest.raises(RuntimeError, match="everything was accepted"):
        gsvr_command(
            *("reconstruct", "--input-stacks", files.paths, "--stack-masks", files.masks),
            *("--output-volume", files.output / "v.nii.gz"),
        )


# --- stacks


def test_missing_file(files: Files, refused: Refused):
    files.path(2).unlink()
    assert "s2.nii.gz does not exist" in refused()


def test_folder_instead_of_a_file(files: Files, refused: Refused):
    assert "is a folder" in refused(stacks=[files.path(0), files.folder], masks=[])


@pytest.mark.parametrize("size", [0, 100, 2000])
def test_truncated_file(files: Files, refused: Refused, size: int):
    files.path(2).write_bytes(files.path(2).read_bytes()[:size])
    assert "s2.nii.gz is not a readable NIfTI image" in refused()


def test_not_an_image(files: Files, refused: Refused):
    files.path(2).write_text("hello")
    assert "s2.nii.gz is not a readable NIfTI image" in refused()


def test_four_dimensions(files: Files, refused: Refused):
    files.save(files.path(2), np.ones((*SHAPE, 3), np.float32))
    assert "s2.nii.gz is 4-D" in refused()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "1 NaN"), (np.inf, "1 infinite"), (-np.inf, "1 infinite")])
def test_values_that_are_not_finite(files: Files, refused: Refused, value: float, word: str):
    data = blob(2, files.affines[2])
    data[3, 4, 5] = value
    files.save(files.path(2), data)
    sentence = refused()
    assert "s2.nii.gz" in sentence
    assert word in sentence


def test_empty_stack(files: Files, refused: Refused):
    files.save(files.path(2), np.zeros(SHAPE, np.float32))
    assert "s2.nii.gz is empty" in refused()


def test_single_slice(files: Files, refused: Refused):
    files.save(files.path(2), np.ones((*SHAPE[:2], 1), np.float32))
    assert "s2.nii.gz is a single slice" in refused()


def test_affine_of_no_space(files: Files, refused: Refused):
    affine = files.affines[2].copy()
    affine[:3, 2] = affine[:3, 1]
    image = nibabel.Nifti1Image(blob(2, affine), None)
    image.header.set_sform(affine, code=1)
    nibabel.save(image, files.path(2))
    assert "s2.nii.gz has an unusable affine" in refused()


def test_one_stack_only(files: Files, refused: Refused):
    assert "one stack cannot be corrected for motion" in refused(stacks=[files.path(0)], masks=[])


def test_a_stack_given_twice(files: Files, refused: Refused):
    assert "s0.nii.gz is given twice" in refused(stacks=[*files.paths, files.path(0)], masks=[])
    detour = files.folder / "." / ".." / files.folder.name / "s0.nii.gz"
    assert "is given twice" in refused(stacks=[files.path(0), files.path(1), detour], masks=[])


def move(files: Files, number: int, distance: float) -> None:
    affine = files.affines[number].copy()
    affine[0, 3] += distance
    data = blob(number, affine)
    files.save(files.path(number), data, affine)
    files.save(files.mask(number), (data > 0).astype(np.uint8), affine)


@pytest.mark.parametrize("with_masks", [True, False])
def test_a_stack_apart_from_the_others(files: Files, refused: Refused, with_masks: bool):
    move(files, 2, 300.0)
    sentence = refused(masks=None if with_masks else [])
    assert "s2: no overlap with the other stacks" in sentence


def test_two_examinations(files: Files, refused: Refused, tmp_path: Path):
    """Every stack has a neighbour, but they do not all hang together."""
    move(files, 2, 300.0)
    data = blob(3, files.affines[0])
    affine = files.affines[0].copy()
    affine[0, 3] += 300
    files.save(files.folder / "s3.nii.gz", data, affine)
    files.save(files.folder / "s3_mask.nii.gz", (data > 0).astype(np.uint8), affine)
    (files.folder / "s3.json").write_text(json.dumps({"SliceThickness": 4.0}))
    paths = [*files.paths, files.folder / "s3.nii.gz"]
    assert "no overlap with the other stacks" in refused(stacks=paths, masks=masks_of(paths))


# --- masks


def test_missing_mask(files: Files, refused: Refused):
    files.mask(1).unlink()
    assert "s1_mask.nii.gz does not exist" in refused()


def test_empty_mask(files: Files, refused: Refused):
    files.save(files.mask(2), np.zeros(SHAPE, np.uint8))
    assert "s2_mask.nii.gz is empty" in refused()


def test_mask_of_another_size(files: Files, refused: Refused):
    files.save(files.mask(2), np.ones((24, 20, 11), np.uint8))
    sentence = refused()
    assert "s2_mask.nii.gz" in sentence
    assert "24 x 20 x 11" in sentence


def test_mask_of_another_place(files: Files, refused: Refused):
    affine = files.affines[2].copy()
    affine[1, 3] += 5
    files.save(files.mask(2), np.ones(SHAPE, np.uint8), affine)
    sentence = refused()
    assert "s2_mask.nii.gz lies up to 5 mm away" in sentence


def test_masks_in_the_wrong_order(files: Files, refused: Refused):
    assert "s1_mask.nii.gz" in refused(masks=[files.mask(1), files.mask(0), files.mask(2)])


def test_one_mask_that_fits_no_stack(files: Files, refused: Refused):
    affine = files.affines[2].copy()
    affine[1, 3] += 5
    files.save(files.mask(2), np.ones(SHAPE, np.uint8), affine)
    assert "s2_mask.nii.gz is on the grid of none of the stacks" in refused(masks=[files.mask(2)])
    assert "s2_mask.nii.gz is on the grid of none" in refused(masks=[files.mask(0), files.mask(2)])


def test_more_masks_than_stacks(files: Files, refused: Refused):
    assert "3 masks for 2 stacks" in refused(stacks=files.paths[:2], masks=files.masks)


def test_mask_where_the_stack_is_zero(files: Files, refused: Refused):
    corner = np.zeros(SHAPE, np.uint8)
    corner[:3, :3, :3] = 1
    files.save(files.mask(2), corner)
    assert "s2 is zero everywhere inside its mask" in refused()


def test_masks_too_small_for_a_brain(files: Files, refused: Refused):
    for number in range(3):
        few = np.zeros(SHAPE, np.uint8)
        few[11:14, 9:12, 5:7] = 1
        files.save(files.mask(number), few, files.affines[number])
    assert "too little for a brain" in refused()

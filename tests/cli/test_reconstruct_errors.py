"""``gsvr reconstruct`` and bad files: one sentence that names the culprit, exit code 2, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.cli.bad_files import SHAPE, Files, Refused, blob
from tests.cli.conftest import Command
from tests.stack_files import masks_of

# Spoils the files, and may say which stacks and masks to give.
Spoil = Callable[[Files], dict[str, Any] | None]


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


def truncate(size: int) -> Spoil:
    return lambda files: void(files.path(2).write_bytes(files.path(2).read_bytes()[:size]))


def void(_: object) -> None:
    """Nothing but the files has changed."""


def with_value(value: float) -> Spoil:
    def spoil(files: Files) -> None:
        data = blob(2, files.affines[2])
        data[3, 4, 5] = value
        files.save(files.path(2), data)

    return spoil


def without_space(files: Files) -> None:
    affine = files.affines[2].copy()
    affine[:3, 2] = affine[:3, 1]
    image = nibabel.Nifti1Image(blob(2, affine), None)
    image.header.set_sform(affine, code=1)
    nibabel.save(image, files.path(2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.path(2).unlink(), "s2.nii.gz does not exist"),
        (lambda files: {"stacks": [files.path(0), files.folder], "masks": []}, "is a folder"),
        *((truncate(size), "s2.nii.gz is not a readable NIfTI image") for size in (0, 100, 2000)),
        (lambda files: void(files.path(2).write_text("hello")), "s2.nii.gz is not a readable NIfTI image"),
        (lambda files: files.save(files.path(2), np.ones((*SHAPE, 3), np.float32)), "s2.nii.gz is 4-D"),
        (with_value(np.nan), "s2.nii.gz holds 1 NaN"),
        (with_value(np.inf), "1 infinite"),
        (with_value(-np.inf), "1 infinite"),
        (lambda files: files.save(files.path(2), np.zeros(SHAPE, np.float32)), "s2.nii.gz is empty"),
        (lambda files: files.save(files.path(2), np.ones((*SHAPE[:2], 1), np.float32)), "s2.nii.gz is a single slice"),
        (without_space, "s2.nii.gz has an unusable affine"),
        (lambda files: {"stacks": [files.path(0)], "masks": []}, "one stack cannot be corrected for motion"),
        (lambda files: {"stacks": [*files.paths, files.path(0)], "masks": []}, "s0.nii.gz is given twice"),
        (
            lambda files: {
                "stacks": [*files.paths, files.folder / ".." / files.folder.name / "s0.nii.gz"],
                "masks": [],
            },
            "is given twice",
        ),
    ],
)
def test_a_bad_stack(files: Files, refused: Refused, spoil: Spoil, message: str):
    assert message in refused(**(spoil(files) or {}))


def move(files: Files, number: int, distance: float) -> None:
    affine = files.affines[number].copy()
    affine[0, 3] += distance
    data = blob(number, affine)
    files.save(files.path(number), data, affine)
    files.save(files.mask(number), (data > 0).astype(np.uint8), affine)


@pytest.mark.parametrize("with_masks", [True, False])
def test_a_stack_apart_from_the_others(files: Files, refused: Refused, with_masks: bool):
    move(files, 2, 300.0)
    assert "s2: no overlap with the other stacks" in refused(masks=None if with_masks else [])


def test_two_examinations(files: Files, refused: Refused):
    """Every stack has a neighbour, but they do not all hang together."""
    move(files, 2, 300.0)
    affine = files.affines[0].copy()
    affine[0, 3] += 300
    data = blob(3, affine)
    files.save(files.folder / "s3.nii.gz", data, affine)
    files.save(files.folder / "s3_mask.nii.gz", (data > 0).astype(np.uint8), affine)
    (files.folder / "s3.json").write_text(json.dumps({"SliceThickness": 4.0}))
    paths = [*files.paths, files.folder / "s3.nii.gz"]
    assert "no overlap with the other stacks" in refused(stacks=paths, masks=masks_of(paths))


def shifted_mask(files: Files) -> None:
    affine = files.affines[2].copy()
    affine[1, 3] += 200
    files.save(files.mask(2), np.ones(SHAPE, np.uint8), affine)


def ones_in(box: tuple[slice, ...], *numbers: int) -> Spoil:
    def spoil(files: Files) -> None:
        few = np.zeros(SHAPE, np.uint8)
        few[box] = 1
        for number in numbers:
            files.save(files.mask(number), few, files.affines[number])

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.mask(1).unlink(), "s1_mask.nii.gz does not exist"),
        (ones_in(np.s_[:0, :0, :0], 2), "s2_mask.nii.gz is empty"),
        (shifted_mask, "s2_mask.nii.gz does not meet s2: give the masks in the order of the stacks"),
        (
            lambda files: {"masks": [files.mask(1), files.mask(0), files.mask(2)]},
            "s1_mask.nii.gz is on the grid of s1, not of s0: give the masks in the order of the stacks",
        ),
        (lambda files: {"stacks": files.paths[:2], "masks": files.masks}, "3 masks for 2 stacks"),
        (ones_in(np.s_[:3, :3, :3], 2), "s2 is zero everywhere inside its mask"),
        (ones_in(np.s_[11:14, 9:12, 5:7], 0, 1, 2), "too little for a brain"),
    ],
)
def test_a_bad_mask(files: Files, refused: Refused, spoil: Spoil, message: str):
    assert message in refused(**(spoil(files) or {}))


def test_a_mask_that_fits_no_stack(files: Files, refused: Refused):
    shifted_mask(files)
    for masks in ([files.mask(2)], [files.mask(0), files.mask(2)]):
        assert "s2_mask.nii.gz does not meet s" in refused(masks=masks)

"""Choices of ``gsvr reconstruct``: thicknesses, masks, names of stacks and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsvr.io.nifti import read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.model.volume import Volume
from tests.cli.conftest import Command
from tests.moving_brain import small_brain
from tests.stack_files import masks_of

pytestmark = pytest.mark.usefixtures("_short")


def centroid(volume: Volume) -> np.ndarray:
    return volume.voxel_positions(volume.mask).mean(axis=0)


def stack_records(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "v.json").read_text())["stacks"]


def copied(stacks: list[Path], folder: Path, sidecars: bool = True) -> list[Path]:
    """The stacks with their sidecars in a folder of their own."""
    folder.mkdir(exist_ok=True)
    paths = []
    for stack in stacks:
        for path in (stack, *([stack.with_name(stack.name.replace(".nii.gz", ".json"))] if sidecars else [])):
            (folder / path.name).write_bytes(path.read_bytes())
        paths.append(folder / stack.name)
    return paths


def test_thickness_comes_from_option_then_sidecar_then_spacing(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-resolution", 2)
    masks = ["--stack-masks", *masks_of(stacks)]
    mixed = copied(stacks, tmp_path / "mixed", sidecars=False)
    (tmp_path / "mixed" / "stack-1.json").write_text(json.dumps({"SliceThickness": 2.5}))
    assert gsvr_command("reconstruct", "--input-stacks", mixed, masks, output).exit_code == 0
    assert [stack["thickness"] for stack in stack_records(tmp_path)] == pytest.approx([3.0, 2.5, 3.0])
    told = [line for line in caplog.messages if "slice thickness not known" in line]
    assert len(told) == 1
    assert told[0].startswith(f"{tmp_path / 'mixed' / 'stack-0.nii.gz'}, stack-2.nii.gz: slice thickness")
    given = ["--thicknesses", "2.8", "2.9", "3.1"]
    assert gsvr_command("reconstruct", "--input-stacks", mixed, masks, given, output).exit_code == 0
    assert [stack["thickness"] for stack in stack_records(tmp_path)] == pytest.approx([2.8, 2.9, 3.1])
    assert gsvr_command("reconstruct", "--input-stacks", mixed, masks, "--thicknesses", 3.2, output).exit_code == 0
    assert [stack["thickness"] for stack in stack_records(tmp_path)] == pytest.approx([3.2] * 3)


@pytest.mark.parametrize("owner", [None, 1])
def test_one_mask_or_none_is_enough(
    stacks: list[Path],
    gsvr_command: Command,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    owner: int | None,
):
    masks = [] if owner is None else ["--stack-masks", masks_of(stacks)[owner]]
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-resolution", 2)
    assert gsvr_command("reconstruct", "--input-stacks", stacks, masks, output).exit_code == 0
    assert [stack["mask_given"] for stack in stack_records(tmp_path)] == [number == owner for number in range(3)]
    assert ("no masks given" if owner is None else ": no mask, borrowing") in caplog.text
    volume = read_volume(tmp_path / "v.nii.gz", tmp_path / "v_mask.nii.gz")
    assert np.linalg.norm(centroid(volume) - centroid(small_brain())) < 3.0
    sizes = [float(np.asarray(v.mask).sum() * np.prod(v.spacing)) for v in (volume, small_brain())]
    assert 0.8 < sizes[0] / sizes[1] < 1.8


def test_stacks_of_one_name_are_told_apart(stacks: list[Path], gsvr_command: Command, tmp_path: Path):
    paths = []
    for number, stack in enumerate(stacks):
        folder = tmp_path / f"series-{number}"
        folder.mkdir()
        # the third has the name that the second would be given
        name = "brain-1.nii.gz" if number == 2 else "brain.nii.gz"
        (folder / name).write_bytes(stack.read_bytes())
        paths.append(folder / name)
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-resolution", 2)
    result = gsvr_command("reconstruct", "--input-stacks", paths, "--thicknesses", 3, output)
    assert result.exit_code == 0
    records = read_poses_json(tmp_path / "v_poses.json")
    names = [stack["name"] for stack in stack_records(tmp_path)]
    assert len(set(names)) == 3
    assert {record.stack for record in records} == set(names)
    assert len(list((tmp_path / "v_transforms").iterdir())) == len(records)


def test_every_output_can_be_named(stacks: list[Path], gsvr_command: Command, tmp_path: Path):
    names = {
        "--output-volume": "volume.nii",
        "--output-mask": "a/mask.nii",
        "--output-poses": "b/poses.json",
        "--output-transforms": "c",
        "--output-model": "d/field.safetensors",
        "--output-json": "e/record.json",
        "--output-picture": "f/picture.png",
    }
    options = [word for option, name in names.items() for word in (option, str(tmp_path / name))]
    result = gsvr_command("reconstruct", "--input-stacks", stacks, options, "--output-resolution", 2)
    assert result.exit_code == 0
    for name in names.values():
        assert (tmp_path / name).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d", "e", "f", "volume.nii"]


def test_equal_runs_write_equal_bytes(stacks: list[Path], gsvr_command: Command, tmp_path: Path):
    for name in ("first", "second"):
        output = ("--output-volume", tmp_path / name / "v.nii.gz", "--output-resolution", 2)
        assert gsvr_command("reconstruct", "--input-stacks", stacks, output).exit_code == 0
    for name in ("v.nii.gz", "v_mask.nii.gz", "v_poses.json", "v_field.safetensors", "v.png"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_leftovers_of_an_earlier_run_are_told(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    output = (
        "--output-volume",
        tmp_path / "v.nii.gz",
        "--output-resolution",
        2,
        "--output-slices",
        tmp_path / "slices",
    )
    assert gsvr_command("reconstruct", "--input-stacks", stacks, output).exit_code == 0
    assert gsvr_command("reconstruct", "--input-stacks", stacks, output).exit_code == 0
    assert "earlier run" not in caplog.text
    assert gsvr_command("reconstruct", "--input-stacks", stacks[:2], output).exit_code == 0
    for folder in ("slices", "v_transforms"):
        assert any(folder in record.message and "earlier run" in record.message for record in caplog.records)


def test_outputs_of_an_earlier_run_are_replaced_and_that_is_said(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path
):
    inputs = ("reconstruct", "--input-stacks", *stacks, "--stack-masks", *masks_of(stacks))
    words = (*inputs, "--output-volume", tmp_path / "v.nii.gz", "--output-resolution", 2)
    first = gsvr_command(*words, "--no-overwrite")
    assert first.exit_code == 0, first.output
    assert "replaced" not in first.stderr
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    refused = gsvr_command(*words, "--no-overwrite")
    assert refused.exit_code == 2
    assert "other files would be replaced: choose another name, or leave out --no-overwrite" in refused.stderr
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    again = gsvr_command(*words)
    assert again.exit_code == 0
    assert "other files will be replaced (--no-overwrite refuses that)" in again.stderr
    assert (tmp_path / "v.nii.gz").stat().st_mtime_ns > before["v.nii.gz"]

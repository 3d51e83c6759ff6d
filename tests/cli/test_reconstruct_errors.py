"""``gsvr reconstruct`` and bad input: one sentence that names the culprit, exit code 2, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from gsvr.io.nifti import write_volume
from tests.cli.conftest import Command
from tests.stack_files import masks_of

SHAPE = (24, 20, 12)


def blob(seed: int, affine: np.ndarray) -> np.ndarray:
    """An ellipsoid of noise in nothing."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    inside = (((index - (np.array(SHAPE) - 1) / 2) / (np.array(SHAPE) / 2.5)) ** 2).sum(-1) < 1
    return (inside * np.random.default_rng(seed).uniform(50, 100, SHAPE)).astype(np.float32)


class Files:
    """Two good stacks, and a third of which everything can be wrong."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output"
        self.affines = []
        for number, axes in enumerate((np.eye(3), np.eye(3)[:, [1, 2, 0]], np.eye(3)[:, [2, 0, 1]])):
            affine = np.eye(4)
            affine[:3, :3] = axes * [2.0, 2.0, 4.0]
            affine[:3, 3] = -affine[:3, :3] @ (np.array(SHAPE) - 1) / 2
            self.affines.append(affine)
            data = blob(number, affine)
            write_volume(self.path(number), data, affine)
            write_volume(self.mask(number), data > 0, affine)
            self.path(number).with_name(f"s{number}.json").write_text(json.dumps({"SliceThickness": 4.0}))

    def path(self, number: int) -> Path:
        return self.folder / f"s{number}.nii.gz"

    def mask(self, number: int) -> Path:
        return self.folder / f"s{number}_mask.nii.gz"

    @property
    def paths(self) -> list[Path]:
        return [self.path(number) for number in range(3)]

    @property
    def masks(self) -> list[Path]:
        return [self.mask(number) for number in range(3)]

    def save(self, path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> None:
        """Write without the checks of the code under test."""
        nibabel.save(nibabel.Nifti1Image(data, self.affines[2] if affine is None else affine), path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def refused(files: Files, gsvr_command: Command) -> Callable[..., str]:
    """Run on the stacks with these options; the one sentence that refuses."""

    def run(*options: Any, stacks: list[Path] | None = None, masks: list[Path] | None = None) -> str:
        before = sorted(files.folder.rglob("*"))
        masks = files.masks if masks is None else masks
        mask_options = ["--stack-masks", *masks] if masks else []
        inputs = ("--input-stacks", files.paths if stacks is None else stacks, mask_options)
        output = () if "--output-volume" in options else ("--output-volume", files.output / "v.nii.gz")
        result = gsvr_command("reconstruct", inputs[0], inputs[1], inputs[2], output, *options)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        assert len(lines) == 1, result.stderr
        assert lines[0].startswith("gsvr: error: ")
        assert sorted(files.folder.rglob("*")) == before
        return lines[0]

    return run


Refused = Callable[..., str]


def test_the_good_stacks_are_good(files: Files, gsvr_command: Command, monkeypatch: pytest.MonkeyPatch):
    """Else nothing below would be worth much."""

    def stop(*_: Any) -> None:
        raise RuntimeError("everything was accepted")

    monkeypatch.setattr("gsvr.cli.progress.load_kernels", stop)
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


# --- options


@pytest.mark.parametrize("thickness", ["0", "-3", "nan", "400"])
def test_thickness_that_cannot_be(refused: Refused, thickness: str):
    sentence = refused("--thicknesses", thickness)
    assert "s0.nii.gz" in sentence
    assert "thickness" in sentence


def test_thickness_of_the_sidecar_that_cannot_be(files: Files, refused: Refused):
    (files.folder / "s1.json").write_text(json.dumps({"SliceThickness": 0}))
    assert "s1.json: SliceThickness must be a positive number" in refused()
    (files.folder / "s1.json").write_text("{")
    assert "s1.json is not readable JSON" in refused()


def test_number_of_thicknesses(refused: Refused):
    assert "2 thicknesses for 3 stacks" in refused("--thicknesses", 4, 4)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--profile", "triangle", "--profile triangle: choose one of slab"),
        ("--device", "tpu", "--device tpu: choose one of auto, cpu"),
        ("--slice-order", "random", "unknown slice order 'random'"),
        ("--output-resolution", "0", "output resolution between 0.2 and 10"),
        ("--output-resolution", "-0.8", "output resolution between 0.2 and 10"),
        ("--output-resolution", "nan", "output resolution between 0.2 and 10"),
        ("--output-resolution", "0.001", "output resolution between 0.2 and 10"),
    ],
)
def test_options_that_mean_nothing(refused: Refused, option: str, value: str, message: str):
    assert message in refused(option, value)


@pytest.mark.parametrize(
    "option", [("--seed", "-1"), ("--seed", "x"), ("--thicknesses", "thick"), ("--no-such-option",)]
)
def test_usage_errors_write_nothing_either(files: Files, gsvr_command: Command, option: tuple[str, ...]):
    output = ("--output-volume", files.output / "v.nii.gz")
    result = gsvr_command("reconstruct", "--input-stacks", files.paths, output, option)
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert "Traceback" not in result.stderr
    assert not files.output.exists()


# --- outputs


def test_output_folder_that_cannot_be(files: Files, refused: Refused):
    """Below a file no folder can be made, whoever asks."""
    in_the_way = files.folder / "file"
    in_the_way.write_text("")
    for option in ("--output-volume", "--output-mask", "--output-slices", "--output-transforms"):
        assert f"{in_the_way} is a file" in refused(option, in_the_way / "v.nii.gz")


def test_output_volume_that_is_a_folder(files: Files, refused: Refused):
    folder = files.folder / "v.nii.gz"
    folder.mkdir()
    assert "is a folder" in refused("--output-volume", folder)


@pytest.mark.parametrize(
    ("option", "name"),
    [("--output-volume", "v.mgz"), ("--output-mask", "mask"), ("--output-picture", "p.jpg")],
)
def test_output_of_an_unknown_format(files: Files, refused: Refused, option: str, name: str):
    assert name in refused(option, files.output / name)


def test_outputs_never_overwrite_the_input(files: Files, refused: Refused):
    for option, path in (
        ("--output-volume", files.path(1)),
        ("--output-mask", files.mask(1)),
        ("--output-json", files.folder / "s1.json"),
        ("--output-volume", files.folder / "s1.nii"),  # whose record would be the sidecar of s1.nii.gz
    ):
        assert "would overwrite the input" in refused(option, path)


def test_two_outputs_of_one_name(files: Files, refused: Refused):
    sentence = refused("--output-poses", files.output / "x.json", "--output-json", files.output / "x.json")
    assert "x.json would overwrite another output" in sentence


# --- gsvr render


@pytest.mark.parametrize("resolution", ["0", "nan", "-1"])
def test_render_refuses_a_voxel_size(tmp_path: Path, gsvr_command: Command, resolution: str):
    output = ("--output-volume", tmp_path / "out" / "v.nii.gz", "--output-resolution", resolution)
    result = gsvr_command("render", tmp_path / "f.safetensors", *output)
    assert result.exit_code == 2
    assert "output resolution between" in result.stderr
    assert not (tmp_path / "out").exists()


def test_render_refuses_files_and_names(tmp_path: Path, gsvr_command: Command):
    for arguments, message in (
        (
            ("missing.safetensors", "--output-volume", tmp_path / "out" / "v.nii.gz"),
            "missing.safetensors does not exist",
        ),
        ((tmp_path / "f", "--output-volume", tmp_path / "out" / "v.png"), "must end in .nii"),
        ((tmp_path / "f", "--output-volume", tmp_path / "o.nii", "--output-mask", tmp_path / "o.nii"), "two names"),
    ):
        result = gsvr_command("render", *arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_render_without_a_mask_writes_no_volume_first(tmp_path: Path, gsvr_command: Command):
    from gsvr.field import LatticeField
    from gsvr.io.model import write_field
    from tests.acquisitions import random_amplitudes, small_lattice

    lattice = small_lattice()
    write_field(tmp_path / "f.safetensors", LatticeField(lattice, random_amplitudes(lattice)))
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-mask", tmp_path / "m.nii.gz")
    result = gsvr_command("render", tmp_path / "f.safetensors", *output)
    assert result.exit_code == 2
    assert "holds no brain mask" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]
    assert gsvr_command("render", tmp_path / "f.safetensors", *output[:2]).exit_code == 0

"""``gsvr evaluate`` on files: what it prints, writes and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gsvr.cli import app
from gsvr.io.nifti import read_volume, write_volume
from gsvr.io.transforms import read_poses_json, write_poses_json
from gsvr.model.geometry import pose_about
from gsvr.simulation.phantom import brain_phantom

MOTION = pose_about(np.radians([5.0, -8.0, 4.0]), np.array([6.0, -3.0, 4.0]), np.zeros(3))


def evaluate(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated acquisition with its truth, and the truth with noise in a world of its own as reconstruction."""
    folder = tmp_path_factory.mktemp("simulation")
    phantom = brain_phantom(spacing=2.5)
    assert phantom.mask is not None
    write_volume(folder / "phantom.nii.gz", phantom.data, phantom.affine)
    write_volume(folder / "phantom_mask.nii.gz", phantom.mask, phantom.affine)
    options = ("--n-stacks", "2", "--in-plane-spacing", "3", "--thickness", "6")
    arguments = ("simulate", folder / "phantom.nii.gz", "--mask", folder / "phantom_mask.nii.gz", *options)
    result = CliRunner().invoke(app, [*map(str, arguments), "--output-dir", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    noisy = phantom.data + 20 * np.random.default_rng(0).standard_normal(phantom.data.shape)
    write_volume(folder / "reconstruction.nii.gz", 0.5 * noisy + 20, MOTION @ phantom.affine)
    return folder


@pytest.fixture
def against_truth(folder: Path) -> list[str | Path]:
    return [
        folder / "reconstruction.nii.gz",
        "--truth",
        folder / "truth.nii.gz",
        "--truth-mask",
        folder / "truth_mask.nii.gz",
    ]


def write_estimates(folder: Path, path: Path) -> None:
    """True poses in another world, the first slice that shows much of the brain 5 mm off."""
    records = [
        replace(record, matrix=MOTION @ record.matrix) for record in read_poses_json(folder / "truth_poses.json")
    ]
    middle = next(number for number, record in enumerate(records) if record.slice_index == 9)
    wrong = records[middle].matrix.copy()
    wrong[:3, 3] += [0, 0, 5]
    records[middle] = replace(records[middle], matrix=wrong)
    write_poses_json(path, records[:-1])


def test_table_and_record_tell_the_same(folder: Path, against_truth: list[str | Path], tmp_path: Path):
    result = evaluate(*against_truth, "--output-json", tmp_path / "quality.json")
    assert result.exit_code == 0
    record = json.loads((tmp_path / "quality.json").read_text())
    assert (record["reconstruction"], record["truth"]) == ("reconstruction.nii.gz", "truth.nii.gz")
    assert f"{record['quality']['psnr']:.2f} dB" in result.output
    assert f"{record['quality']['ssim']:.4f}" in result.output
    assert record["quality"]["ncc"] > 0.95
    assert record["alignment"]["gain"] == pytest.approx(2, rel=0.1)
    assert record["coverage"] == 1
    np.testing.assert_allclose(np.array(record["alignment"]["matrix"]) @ MOTION, np.eye(4), atol=0.1)
    rotation = np.degrees(np.linalg.norm(np.radians([5.0, -8.0, 4.0])))
    assert record["alignment"]["rotation_degrees"] == pytest.approx(rotation, abs=0.1)


def test_without_alignment_a_moved_volume_is_bad(folder: Path, against_truth: list[str | Path], tmp_path: Path):
    result = evaluate(*against_truth, "--no-align", "--output-json", tmp_path / "quality.json")
    assert result.exit_code == 0
    record = json.loads((tmp_path / "quality.json").read_text())
    assert record["quality"]["ncc"] < 0.8
    assert record["alignment"]["rotation_degrees"] == 0


def test_picture_shows_truth_reconstruction_and_difference(
    folder: Path, against_truth: list[str | Path], tmp_path: Path
):
    assert evaluate(*against_truth, "--output-picture", tmp_path / "picture.png").exit_code == 0
    with Image.open(tmp_path / "picture.png") as image:
        assert image.height > image.width
        assert np.asarray(image).std() > 20


@pytest.mark.parametrize("with_stacks", [True, False])
def test_poses_are_judged_slice_by_slice(
    folder: Path, against_truth: list[str | Path], tmp_path: Path, with_stacks: bool
):
    write_estimates(folder, tmp_path / "poses.json")
    true_poses = folder / "truth_poses.json"
    if not with_stacks:
        true_poses = tmp_path / "truth_poses.json"
        true_poses.write_bytes((folder / "truth_poses.json").read_bytes())
    options = ("--poses", tmp_path / "poses.json", "--true-poses", true_poses)
    result = evaluate(*against_truth, *options, "--output-json", tmp_path / "quality.json")
    assert result.exit_code == 0
    poses = json.loads((tmp_path / "quality.json").read_text())["poses"]
    assert poses["median"] < 1e-3
    displacements = {(entry["stack"], entry["slice_index"]): entry["displacement"] for entry in poses["slices"]}
    assert displacements.pop(("stack-0", 9)) == pytest.approx(5, abs=1e-2)
    assert max(displacements.values()) < 1e-2
    assert poses["points"].startswith("pixels" if with_stacks else "mask's centre")
    assert poses["points"] in " ".join(result.output.split())
    n_slices = len(read_poses_json(folder / "truth_poses.json"))
    assert poses["n_slices"] + poses["n_without_anatomy"] + poses["n_not_estimated"] == n_slices
    assert (poses["n_without_anatomy"] > 0) == with_stacks


def test_poses_are_compared_without_a_volume(folder: Path, against_truth: list[str | Path], tmp_path: Path):
    write_estimates(folder, tmp_path / "poses.json")
    options = ("--poses", tmp_path / "poses.json", "--true-poses", folder / "truth_poses.json")
    entries = []
    for words in ((), against_truth[1:], against_truth):
        result = evaluate(*words, *options, "--output-json", tmp_path / "poses_only.json")
        assert result.exit_code == 0, result.output
        record = json.loads((tmp_path / "poses_only.json").read_text())
        assert ("quality" in record) == (words == against_truth)
        entries.append(record["poses"])
    assert entries[1] == entries[2]
    assert entries[0]["median"] < 1e-3
    assert entries[0]["n_slices"] > entries[1]["n_slices"]  # masks of stacks are wider than that of the truth
    assert entries[0]["points"] == "pixels inside the masks of stacks"


def test_poses_alone_need_to_know_where_the_brain_is(folder: Path, tmp_path: Path):
    for name in ("poses.json", "truth_poses.json"):
        (tmp_path / name).write_bytes((folder / "truth_poses.json").read_bytes())
    options = ("--poses", tmp_path / "poses.json", "--true-poses", tmp_path / "truth_poses.json")
    result = evaluate(*options)
    assert result.exit_code == 2
    assert "give --truth as well" in " ".join(result.output.split())
    result = evaluate(*options, "--output-picture", tmp_path / "p.png")
    assert result.exit_code == 2
    assert "RECONSTRUCTION is missing" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--poses", "x.json"], "--true-poses"),
        (["--output-picture", "x.jpg"], "must end in .png"),
        (["--poses", "missing.json", "--true-poses", "missing.json"], "does not exist"),
    ],
)
def test_bad_options_are_one_sentence(against_truth: list[str | Path], options: list[str], message: str):
    result = evaluate(*against_truth, *options)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_poses_of_other_stacks_are_refused(folder: Path, against_truth: list[str | Path], tmp_path: Path):
    records = [
        replace(record, stack=f"other-{record.stack}") for record in read_poses_json(folder / "truth_poses.json")
    ]
    write_poses_json(tmp_path / "poses.json", records)
    options = ("--poses", tmp_path / "poses.json", "--true-poses", folder / "truth_poses.json")
    result = evaluate(*against_truth, *options)
    assert result.exit_code == 2
    assert "share no slice" in " ".join(result.output.split())


def test_what_the_grid_leaves_out_is_told(folder: Path, tmp_path: Path):
    truth = read_volume(folder / "truth.nii.gz")
    write_volume(tmp_path / "half.nii.gz", truth.data[: truth.data.shape[0] // 2], truth.affine)
    record = tmp_path / "quality.json"
    arguments = (
        tmp_path / "half.nii.gz",
        "--truth",
        folder / "truth.nii.gz",
        "--no-align",
        "--output-json",
        record,
    )
    assert evaluate(*arguments).exit_code == 0
    assert 0.4 < json.loads(record.read_text())["coverage"] < 0.6

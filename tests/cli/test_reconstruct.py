"""``gsvr reconstruct`` and ``gsvr render`` on files: what they write, and where in the world it lies."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from gsvr.cli import app
from gsvr.evaluation import compare, pose_errors
from gsvr.io.field import read_field
from gsvr.io.nifti import read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.model.geometry import transform_points
from gsvr.model.volume import Volume
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.workflows.pipeline import StackInputs, fitting_options
from gsvr.workflows.provenance import file_hash, run_hash
from tests.cli.conftest import Command
from tests.io.itk import read_itk_pose
from tests.moving_brain import moving_brain, small_brain
from tests.stack_files import masks_of

RESOLUTION = 0.8
OUTPUTS = ("v.json", "v.nii.gz", "v.png", "v_field.safetensors", "v_mask.nii.gz", "v_poses.json", "v_transforms")


@pytest.fixture(scope="session")
def folder(stacks: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that one run can write."""
    folder = tmp_path_factory.mktemp("reconstruction") / "new" / "folder"
    words = ["reconstruct", "--input-stacks", *stacks, "--stack-masks", *masks_of(stacks)]
    words += ["--output-volume", folder / "v.nii.gz", "--output-resolution", RESOLUTION, "--seed", 7]
    words += ["--output-slices", folder / "slices", "--simulated-slices", folder / "simulated"]
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "verdict: good: " in result.output
    for name in OUTPUTS[:-1]:
        assert str(folder / name) in result.output.replace("\n", "")
    return folder


@pytest.fixture(scope="session")
def record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "v.json").read_text())


@pytest.fixture(scope="session")
def volume(folder: Path) -> Volume:
    return read_volume(folder / "v.nii.gz", folder / "v_mask.nii.gz")


def load(path: Path) -> nibabel.Nifti1Image:
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image


def affine_of(image: nibabel.Nifti1Image) -> np.ndarray:
    assert image.affine is not None
    return np.asarray(image.affine)


def centroid(volume: Volume) -> np.ndarray:
    return volume.voxel_positions(volume.mask).mean(axis=0)


def test_all_outputs_are_there_and_nothing_else(folder: Path):
    assert sorted(path.name for path in folder.iterdir()) == sorted([*OUTPUTS, "simulated", "slices"])
    with Image.open(folder / "v.png") as picture:
        assert np.asarray(picture).std() > 20


@pytest.mark.parametrize("name", ["v.nii.gz", "v_mask.nii.gz"])
def test_headers_say_where_the_brain_is(folder: Path, name: str):
    image = load(folder / name)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.header.get_zooms(), RESOLUTION, rtol=1e-6)
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(np.asarray(affine), affine_of(image), atol=1e-4)
    data = np.asarray(image.dataobj)
    assert np.isfinite(data).all()
    assert data.dtype == (np.uint8 if "mask" in name else np.float32)


def test_brain_lies_where_it_was(volume: Volume):
    truth = small_brain()
    assert np.linalg.norm(centroid(volume) - centroid(truth)) < 2.0
    near = np.asarray(ndimage.binary_dilation(np.asarray(volume.mask), iterations=4), dtype=bool)
    assert not volume.data[~near].any()


def test_left_is_left(volume: Volume):
    """The phantom is larger on its left: mirrored, it agrees with the reconstruction less."""
    truth = small_brain()
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 2 * centroid(truth)[0]
    right, wrong = (
        compare(volume, Volume(truth.data, affine, truth.mask)) for affine in (truth.affine, mirror @ truth.affine)
    )
    assert right.quality.ncc > wrong.quality.ncc + 0.1


def test_the_whole_chain_scores_well_against_the_truth(
    folder: Path, stacks: list[Path], gsvr_command: Command, tmp_path: Path
):
    truth = stacks[0].parent
    result = gsvr_command(
        *("evaluate", folder / "v.nii.gz", "--truth", truth / "truth.nii.gz"),
        *("--truth-mask", truth / "truth_mask.nii.gz", "--poses", folder / "v_poses.json"),
        *("--true-poses", truth / "truth_poses.json", "--output-json", tmp_path / "score.json"),
    )
    assert result.exit_code == 0
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["quality"]["ncc"] > 0.7
    assert score["poses"]["median"] < 0.35
    assert score["poses"]["n_slices"] > 30


@pytest.mark.parametrize("spacing", [0.4, 0.8, 1.6])
def test_render_agrees_where_the_grids_coincide(
    folder: Path, volume: Volume, gsvr_command: Command, tmp_path: Path, spacing: float
):
    path, mask_path = tmp_path / "again.nii.gz", tmp_path / "again_mask.nii.gz"
    result = gsvr_command(
        *("render", folder / "v_field.safetensors", "--output-volume", path),
        *("--output-resolution", spacing, "--output-mask", mask_path),
    )
    assert result.exit_code == 0
    again = read_volume(path, mask_path)
    np.testing.assert_allclose(again.spacing, spacing, rtol=1e-6)
    index = np.argwhere(np.asarray(volume.mask))
    there = transform_points(np.linalg.inv(again.affine) @ volume.affine, index.astype(float))
    common = np.all(np.abs(there - np.rint(there)) < 1e-3, axis=1)
    assert common.sum() > 0.1 * len(index)
    values = again.data[tuple(np.rint(there[common]).astype(int).T)]
    np.testing.assert_allclose(values, volume.data[tuple(index[common].T)], atol=1e-4 * volume.data.max())
    assert again.mask is not None
    assert again.mask.sum() * spacing**3 == pytest.approx(np.asarray(volume.mask).sum() * RESOLUTION**3, rel=0.03)


def test_poses_agree_in_both_formats(folder: Path, stacks: list[Path]):
    records = read_poses_json(folder / "v_poses.json")
    files = {path.name for path in (folder / "v_transforms").iterdir()}
    assert files == {f"{record.stack}_slice-{record.slice_index:03d}.tfm" for record in records}
    for record in records:
        matrix = read_itk_pose(folder / "v_transforms" / f"{record.stack}_slice-{record.slice_index:03d}.tfm")
        np.testing.assert_allclose(matrix, record.matrix, atol=1e-9)
    assert {record.stack for record in records} == {"stack-0", "stack-1", "stack-2"}
    moved = [record for record in records if not np.allclose(record.matrix, np.eye(4), atol=1e-3)]
    assert len(moved) > 0.9 * len(records)


def test_record_tells_what_was_done(folder: Path, record: dict[str, Any], stacks: list[Path], volume: Volume):
    assert record["format"] == "gsvr-record"
    assert {"gsvr", "numpy", "python"} <= record["versions"].keys()
    assert record["settings"]["input_stacks"] == [path.name for path in stacks]
    assert record["settings"]["seed"] == record["options"]["seed"] == 7
    assert record["options"]["profile"] == "slab"
    stages = fitting_options(moving_brain().stacks, SolverOptions()).stages
    assert stages != default_stages()
    assert [stage["spacing"] for stage in record["options"]["stages"]] == [stage.spacing for stage in stages]
    assert [(stack["thickness"], stack["thickness_from"]) for stack in record["stacks"]] == [(3.0, "sidecar")] * 3
    assert all(stack["mask_given"] for stack in record["stacks"])
    assert record["timings_seconds"].keys() == {"read", "masks", "reconstruction", "rendering", "verdict"}
    assert min(record["timings_seconds"].values()) >= 0
    assert record["volume_shape"] == list(volume.data.shape)
    assert record["outputs"]["volume"] == "v.nii.gz"
    poses = read_poses_json(folder / "v_poses.json")
    assert len(record["slices"]) == len(poses)
    for entry, pose in zip(record["slices"], poses, strict=True):
        assert (entry["stack"], entry["slice_index"]) == (pose.stack, pose.slice_index)
        assert entry["weight"] == pytest.approx(float(pose.details["weight"]))
        assert 0 <= entry["weight"] <= 1
        assert (entry["weight"] > 0) == entry["used"]
        assert entry["gain"] > 0
        assert entry["residual"] >= 0
        assert entry["used"] == (entry["pixels"] > 0)
    assert sum(entry["pixels"] for entry in record["slices"]) == record["pixels"]


def test_record_tells_of_what_it_was_made(folder: Path, record: dict[str, Any], stacks: list[Path]):
    assert record["command"].startswith("gsvr reconstruct --input-stacks stack-0.nii.gz stack-1.nii.gz stack-2.nii.gz")
    assert record["command"].endswith("--output-slices slices --simulated-slices simulated")
    age = datetime.now(UTC) - datetime.fromisoformat(record["date"])
    assert timedelta(seconds=record["wall_seconds"] - 2) < age < timedelta(hours=2)
    assert record["wall_seconds"] >= sum(record["timings_seconds"].values())
    roles = {role: [file for file in record["inputs"] if file["role"] == role] for role in ("stack", "mask", "sidecar")}
    assert [file["name"] for file in roles["stack"]] == [path.name for path in stacks]
    assert [file["sha256"] for file in roles["mask"]] == [file_hash(path) for path in masks_of(stacks)]
    assert len(roles["sidecar"]) == 3
    assert record["run_hash"] == run_hash(StackInputs(stacks, masks_of(stacks)), SolverOptions(seed=7), RESOLUTION)
    assert record["warnings"] == []
    assert str(folder.parent) not in (folder / "v.json").read_text()
    assert str(stacks[0].parent) not in (folder / "v.json").read_text()


def test_slices_that_were_written_are_taken_up_again(folder: Path, gsvr_command: Command, tmp_path: Path):
    words = ("reconstruct", "--input-slices", folder / "slices", "--output-volume", tmp_path / "w.nii.gz")
    result = gsvr_command(*words, "--output-resolution", 2, "--output-slices", tmp_path / "slices", "--preset", "fast")
    assert result.exit_code == 0, result.output
    before = {(pose.stack, pose.slice_index): pose for pose in read_poses_json(folder / "v_poses.json")}
    after = read_poses_json(tmp_path / "w_poses.json")
    assert before.keys() == {(pose.stack, pose.slice_index) for pose in after}
    assert all(before[pose.stack, pose.slice_index].details["time"] == pose.details["time"] for pose in after)
    used = [pose for pose in after if pose.details["used"]]
    moved = pose_errors(
        np.stack([pose.matrix for pose in used]),
        np.stack([before[pose.stack, pose.slice_index].matrix for pose in used]),
        [small_brain().voxel_positions(small_brain().mask)[::100]] * len(used),
    )
    assert moved.median < 0.1
    assert sorted(path.name for path in (tmp_path / "slices").iterdir()) == sorted(
        path.name for path in (folder / "slices").iterdir()
    )
    roles = [file["role"] for file in json.loads((tmp_path / "w.json").read_text())["inputs"]]
    assert roles == ["slice"] * (2 * len(before) + 1)


def test_field_carries_its_mask(folder: Path, record: dict[str, Any]):
    stored = read_field(folder / "v_field.safetensors")
    assert stored.mask is not None
    assert stored.metadata["noise"] == pytest.approx(record["noise"])


def test_corrected_slices_lie_in_the_volume(folder: Path, record: dict[str, Any], volume: Volume, stacks: list[Path]):
    poses = read_poses_json(folder / "v_poses.json")
    assert len(list((folder / "slices").iterdir())) == 2 * len(poses) + 1
    agreement, unexplained = [], []
    for number, pose in enumerate(poses):
        image, predicted = (load(folder / kind / f"{number}.nii.gz") for kind in ("slices", "simulated"))
        mask = np.asarray(load(folder / "slices" / f"mask_{number}.nii.gz").dataobj) > 0
        values, simulated = (np.asarray(one.dataobj) for one in (image, predicted))
        assert values.shape == simulated.shape == mask.shape
        assert values.shape[2] == 1
        np.testing.assert_array_equal(affine_of(image), affine_of(predicted))
        np.testing.assert_allclose(image.header.get_zooms(), (1.5, 1.5, 3.0), rtol=1e-5)
        if mask.sum() < 200:
            continue
        # the affine holds the pose: undone, every pixel is where its stack has it
        stack = load(stacks[int(pose.stack[-1])])
        back = np.linalg.inv(affine_of(stack)) @ np.linalg.inv(pose.matrix) @ affine_of(image)
        first = np.rint(back[:3, 3]).astype(int)
        np.testing.assert_allclose(back[:3, 3], first, atol=2e-3)
        assert first[2] == pose.slice_index
        box = tuple(slice(int(a), int(a) + n) for a, n in zip(first, values.shape, strict=True))
        np.testing.assert_allclose(values, np.asarray(stack.dataobj)[box], rtol=1e-5)
        # and done, it shows what the volume shows there
        at = transform_points(np.linalg.inv(volume.affine) @ affine_of(image), np.argwhere(mask).astype(float))
        seen = ndimage.map_coordinates(volume.data, at.T, order=1)
        agreement.append((np.corrcoef(seen, values[mask])[0, 1], np.corrcoef(simulated[mask], values[mask])[0, 1]))
        misfit = float(np.sqrt(np.mean((simulated - values)[mask] ** 2)))
        unexplained.append(misfit / record["slices"][number]["residual"])
    in_volume, in_prediction = np.median(agreement, axis=0)
    assert in_prediction > 0.95
    # the record has the residuals that the last outer iteration began with: a little larger than those it ended with
    assert 0.8 < np.median(unexplained) < 1.05
    assert in_volume > 0.85

"""``gsvr simulate``: what it writes can be read back and holds the truth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import gsvr.simulation.phantom
from gsvr.cli import app
from gsvr.io.nifti import read_stack, read_volume, write_volume
from gsvr.io.transforms import read_poses_json
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate

COARSE = ["--n-stacks", "2", "--in-plane-spacing", "4.0", "--thickness", "8.0", "--slice-spacing", "9.0"]


@pytest.fixture(autouse=True)
def _coarse_phantom(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gsvr.simulation.phantom, "brain_phantom", lambda seed: brain_phantom(3.0, seed))


def test_files_hold_the_acquisition_and_its_truth(tmp_path: Path):
    folder = tmp_path / "new" / "simulated"
    result = CliRunner().invoke(app, ["simulate", "phantom", "--output-dir", str(folder), "--seed", "3", *COARSE])
    assert result.exit_code == 0, result.output
    options = SimulationOptions(n_stacks=2, in_plane_spacing=4.0, thickness=8.0, slice_spacing=9.0, seed=3)
    expected = simulate(brain_phantom(3.0, 3), options)
    records = read_poses_json(folder / "truth_poses.json")
    for number, stack in enumerate(expected.stacks):
        written = read_stack(folder / f"stack-{number}.nii.gz", folder / f"stack-{number}_mask.nii.gz")
        np.testing.assert_array_equal(written.data, stack.data)
        np.testing.assert_array_equal(written.mask, stack.mask)
        np.testing.assert_allclose(written.affine, stack.affine, atol=1e-4)
        assert written.thickness == 8.0
        np.testing.assert_array_equal(np.argsort(written.slice_times), np.argsort(stack.slice_times))
        own = [record for record in records if record.stack == f"stack-{number}"]
        assert [record.slice_index for record in own] == list(range(stack.n_slices))
        np.testing.assert_allclose([record.matrix for record in own], expected.poses[number])
        np.testing.assert_allclose([float(record.details["gain"]) for record in own], expected.gains[number])
        sidecar = json.loads((folder / f"stack-{number}.json").read_text())
        assert sidecar["SpacingBetweenSlices"] == pytest.approx(9.0)
    truth = read_volume(folder / "truth.nii.gz", folder / "truth_mask.nii.gz")
    np.testing.assert_array_equal(truth.data, expected.volume.data)
    np.testing.assert_array_equal(truth.mask, expected.volume.mask)


def test_a_smaller_simulation_leaves_no_stacks_of_a_larger_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    command = ["simulate", "phantom", "--output-dir", str(tmp_path)]
    (tmp_path / "stack-7.nii.gz").write_text("of the user")
    for count in ("2", "1"):
        result = CliRunner().invoke(app, [*command, *COARSE, "--n-stacks", count])
        assert result.exit_code == 0, result.output
    stacks = sorted(path.name for path in tmp_path.glob("stack-*"))
    assert stacks == ["stack-0.json", "stack-0.nii.gz", "stack-0_mask.nii.gz", "stack-7.nii.gz"]
    assert "also holds 1 files of an earlier run (such as stack-7.nii.gz)" in caplog.text


def test_progress_is_lines_off_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gsvr.cli.progress._SECONDS_BEFORE_PROGRESS", 0.0)
    monkeypatch.setattr("gsvr.cli.progress._SECONDS_BETWEEN_LINES", 0.1)
    result = CliRunner().invoke(app, ["simulate", "phantom", "--output-dir", str(tmp_path), *COARSE])
    total = len(read_poses_json(tmp_path / "truth_poses.json"))
    assert f"simulating slices: {total} of {total}, " in result.stderr.splitlines()[-1]


def test_a_volume_of_the_user(tmp_path: Path):
    phantom = brain_phantom(3.0, 1)
    write_volume(tmp_path / "brain.nii.gz", phantom.data, phantom.affine)
    arguments = [
        "simulate",
        str(tmp_path / "brain.nii.gz"),
        "--output-dir",
        str(tmp_path),
        "--motion",
        "none",
    ]
    result = CliRunner().invoke(app, [*arguments, *COARSE])
    assert result.exit_code == 0, result.output
    for record in read_poses_json(tmp_path / "truth_poses.json"):
        np.testing.assert_array_equal(record.matrix, np.eye(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.nii.gz"], "absent.nii.gz"),
        (["phantom", "--motion", "wild"], "unknown motion"),
        (["phantom", "--profile", "round"], "unknown slice profile"),
        (["phantom", "--thickness", "-1"], "thickness"),
        (["phantom", "--mask", "mask.nii.gz"], "--mask"),
    ],
)
def test_bad_input_is_told_in_a_sentence(tmp_path: Path, arguments: list[str], message: str):
    result = CliRunner().invoke(app, ["simulate", *arguments, "--output-dir", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()


def test_help_states_the_defaults():
    result = CliRunner().invoke(app, ["simulate", "--help"], terminal_width=200, env={"COLUMNS": "200"})
    for field in dataclasses.fields(SimulationOptions):
        line = next(line for line in result.output.splitlines() if "--" + field.name.replace("_", "-") in line)
        if field.default is not None:
            assert f"Default: {field.default}." in line

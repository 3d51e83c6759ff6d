"""``gsvr reconstruct --preset paper`` and ``published-code``: the published settings, from files to files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gsvr.workflows.presets
from gsvr.io.field import read_field
from gsvr.io.nifti import read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.solver.published import PublishedOptions
from gsvr.workflows.presets import chosen_options
from tests.cli.conftest import Command
from tests.stack_files import masks_of


@pytest.fixture
def _few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(*arguments: object) -> PublishedOptions:
        options = chosen_options(*arguments)  # pyright: ignore[reportArgumentType]
        assert isinstance(options, PublishedOptions)
        return replace(options, n_gaussians=2000, epochs=3)

    monkeypatch.setattr(gsvr.workflows.presets, "chosen_options", chosen)


@pytest.mark.parametrize(("preset", "nearest"), [("paper", 50), ("published-code", 64)])
@pytest.mark.usefixtures("_few_epochs")
def test_the_published_settings_from_files_to_files(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, preset: str, nearest: int
):
    words = ("--input-stacks", *stacks, "--stack-masks", *masks_of(stacks), "--output-resolution", 1.5)
    first = tmp_path / "v.nii.gz"
    result = gsvr_command("reconstruct", words, "--preset", preset, "--output-volume", first)
    record = json.loads((tmp_path / "v.json").read_text())
    # so few epochs may well not do: the verdict says so
    assert result.exit_code == (3 if record["verdict"]["grade"] == "failed" else 0), result.stderr
    assert record["settings"]["preset"] == preset
    assert record["gaussians"] == 2000
    assert record["options"]["profile"] == "gaussian"
    stored = read_field(tmp_path / "v_field.safetensors").field
    assert (stored.normalisation, stored.nearest) == (1e-3, nearest)  # pyright: ignore[reportAttributeAccessIssue]
    # the stored field gives the same volume
    again = tmp_path / "again.nii.gz"
    model = tmp_path / "v_field.safetensors"
    rendered = gsvr_command("render", model, "--output-volume", again, "--output-resolution", 1.5)
    assert rendered.exit_code == 0, rendered.stderr
    volume = read_volume(first).data
    assert volume.max() > 0
    np.testing.assert_allclose(read_volume(again).data, volume, rtol=0, atol=1e-4 * volume.max())


@pytest.mark.parametrize(("motion", "moved"), [("stacks", True), ("none", False)])
def test_less_motion_than_that_of_slices(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, motion: str, moved: bool
):
    words = ("--input-stacks", *stacks, "--stack-masks", *masks_of(stacks), "--output-resolution", 1.5)
    result = gsvr_command(
        "reconstruct", words, "--preset", "fast", "--motion", motion, "--output-volume", tmp_path / "v.nii.gz"
    )
    grade = json.loads((tmp_path / "v.json").read_text())["verdict"]["grade"]
    assert result.exit_code == (3 if grade == "failed" else 0), result.stderr
    poses = read_poses_json(tmp_path / "v_poses.json")
    of_stacks = {pose.stack: pose.matrix for pose in poses}
    for pose in poses:
        np.testing.assert_allclose(pose.matrix, of_stacks[pose.stack], atol=1e-6)
    away = max(float(np.abs(matrix - np.eye(4)).max()) for matrix in of_stacks.values())
    assert (away > 1e-3) == moved

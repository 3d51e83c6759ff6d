"""The verdict on the screen, in the record, on the picture, and as exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsvr.io.nifti import read_stack, write_volume
from tests.cli.conftest import Command
from tests.stack_files import masks_of


@pytest.fixture
def noise(stacks: list[Path], tmp_path: Path) -> list[Path]:
    """Stacks of noise on the grids of others."""
    written = []
    for number, path in enumerate(stacks):
        stack, rng = read_stack(path), np.random.default_rng(number)
        written.append(tmp_path / path.name)
        write_volume(written[-1], rng.rayleigh(size=stack.data.shape).astype(np.float32), stack.affine)
    return written


@pytest.mark.usefixtures("_short")
def test_a_failed_run_writes_everything_and_ends_with_exit_code_three(
    stacks: list[Path], noise: list[Path], gsvr_command: Command, tmp_path: Path
):
    words = ("reconstruct", "--stack-masks", masks_of(stacks), "--thicknesses", 3, "--output-resolution", 1.5)
    failed = gsvr_command(*words, "--trust-headers", "--input-stacks", noise, "--output-volume", tmp_path / "v.nii.gz")
    assert failed.exit_code == 3
    assert "verdict: failed: " in failed.stdout
    record = json.loads((tmp_path / "v.json").read_text())
    verdict = record["verdict"]
    assert verdict["grade"] == "failed"
    assert verdict["reasons"][0] in failed.stdout
    assert verdict["advice"]
    assert verdict["evidence"]["predicted_ncc"] < 0.4
    assert len(verdict["evidence"]["stacks"]) == len(stacks)
    for name in ("v.nii.gz", "v_mask.nii.gz", "v_poses.json", "v_field.safetensors", "v.png"):
        assert (tmp_path / name).exists()


@pytest.mark.usefixtures("_short")
def test_a_stack_given_again_under_another_name_is_told(stacks: list[Path], gsvr_command: Command, tmp_path: Path):
    again = tmp_path / "again.nii.gz"
    again.write_bytes(stacks[0].read_bytes())
    words = ("reconstruct", "--thicknesses", 3, "--output-resolution", 1.5, "--output-volume", tmp_path / "v.nii.gz")
    masks = masks_of(stacks)
    done = gsvr_command(*words, "--input-stacks", [*stacks, again], "--stack-masks", [*masks, masks[0]])
    reason = f"again holds the same recording as {stacks[0].name.removesuffix('.nii.gz')}"
    assert reason in done.stdout
    assert reason in " ".join(json.loads((tmp_path / "v.json").read_text())["verdict"]["reasons"])
    assert f"verdict: {'failed' if done.exit_code else 'doubtful'}" in done.stdout
    with Image.open(tmp_path / "v.png") as picture:
        foot = np.asarray(picture.convert("L"))[-20:]
    assert foot.max() > 200  # the sentence stands below the panels

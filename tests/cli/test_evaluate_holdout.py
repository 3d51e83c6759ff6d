"""``gsvr evaluate`` without a truth: a table of how well stacks predict each other, and options that do not mix."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gsvr.cli.evaluate_holdout import _on_grid
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.cli.conftest import Command
from tests.moving_brain import moving_brain
from tests.stack_files import masks_of


@pytest.mark.usefixtures("_short")
def test_table_record_and_picture(stacks: list[Path], gsvr_command: Command, tmp_path: Path):
    result = gsvr_command(
        *("evaluate", "--input-stacks", stacks, "--stack-masks", masks_of(stacks), "--slice-order", "interleaved"),
        *("--output-json", tmp_path / "scores.json", "--output-picture", tmp_path / "slices.png"),
    )
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "scores.json").read_text())
    assert [entry["stack"] for entry in record["stacks"]] == ["stack-0", "stack-1", "stack-2"]
    rows = [line.split() for line in result.stdout.splitlines() if line.split()]
    for entry in record["stacks"]:
        assert entry["ncc"] > 0.6
        assert entry["n_slices"] == len(entry["slices"]) > 5
        row = next(row for row in rows if row[0] == entry["stack"])
        assert row[1:] == [f"{entry['ncc']:.4f}", f"{entry['psnr']:.2f}", "dB", str(entry["n_slices"])]
    mean = next(row for row in rows if row[0] == "mean")
    assert float(mean[1]) == pytest.approx(np.mean([entry["ncc"] for entry in record["stacks"]]), abs=1e-4)
    assert float(mean[2]) == pytest.approx(np.mean([entry["psnr"] for entry in record["stacks"]]), abs=1e-2)
    assert record["mean"]["ncc"] == pytest.approx(float(mean[1]), abs=1e-4)
    assert record["options"]["profile"] == "slab"
    assert "gsvr" in record["versions"]
    with Image.open(tmp_path / "slices.png") as picture:
        assert picture.height > 5 * picture.width / 3  # two rows a stack
        assert np.asarray(picture).std() > 20


def test_slices_go_back_to_the_grid_of_their_stack():
    stacks = moving_brain().stacks
    slices = prepare_slices(stacks, SolverOptions())
    for number, stack in enumerate(stacks):
        own = slices.subset(slices.stack_index == number)
        grid = _on_grid(own, own.values, stack)
        shown = _on_grid(own, np.ones_like(own.values), stack) > 0
        np.testing.assert_array_equal(grid[shown], stack.data[shown])
        assert np.all(shown[np.asarray(stack.mask)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "nothing to evaluate: give a RECONSTRUCTION and --truth, or --poses and --true-poses, or, without a truth, "
            "three or more --input-stacks",
        ),
        (["v.nii"], "--truth is missing"),
        (["--truth", "t.nii"], "RECONSTRUCTION is missing"),
        (["v.nii", "--input-stacks", "a.nii", "b.nii"], "--input-stacks does not go with RECONSTRUCTION"),
        (["--truth", "t.nii", "--no-align", "--input-stacks", "a.nii"], "does not go with --truth and --no-align"),
        (["--poses", "p.json", "--input-stacks", "a.nii"], "does not go with --poses"),
        (["v.nii", "--truth", "t.nii", "--thicknesses", "3"], "--thicknesses given without --input-stacks"),
        (["--stack-masks", "m.nii", "--slice-order", "auto"], "--stack-masks and --slice-order given without"),
        (["v.nii", "--truth", "t.nii", "--poses", "p.json"], "give both --poses and --true-poses"),
        (["--input-stacks", "a.nii", "b.nii"], "takes at least 3"),
        (["--input-stacks", "a.nii", "b.nii", "c.nii"], "a.nii does not exist"),
        (["--input-stacks", "a.nii", "b.nii", "c.nii", "--output-picture", "x.gif"], "x.gif"),
        (["--input-stacks", "a.nii", "b.nii", "c.nii", "--slice-order", "random"], "a.nii does not exist"),
    ],
)
def test_what_does_not_go_together_is_told(
    gsvr_command: Command, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    result = gsvr_command("evaluate", arguments, "--output-json", "out/scores.json")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []

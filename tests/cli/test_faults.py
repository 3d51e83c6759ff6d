"""What a user or a disk may hand to a command by mistake: one sentence, exit code 2, and no long wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gsvr.io.transforms import read_poses_json
from tests.cli.bad_files import Files, Refused, blob
from tests.cli.conftest import Command
from tests.stack_files import masks_of

posix = pytest.mark.skipif(os.name == "nt", reason="there are no such files")


@posix
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder: give one NIfTI file"),
        ("s*.nii.gz", "s*.nii.gz does not exist (a pattern in quotes is not expanded)"),
        ("pipe.nii.gz", "pipe.nii.gz is a device or a pipe"),
        ("loop.nii.gz", "loop.nii.gz does not exist"),
        (250 * "a" + ".nii.gz", "the name is too long"),
    ],
)
def test_what_is_no_file(files: Files, refused: Refused, name: str, message: str):
    os.mkfifo(files.folder / "pipe.nii.gz")
    (files.folder / "loop.nii.gz").symlink_to("loop.nii.gz")
    path = files.folder / name
    assert message in refused(stacks=[path, files.path(1)], masks=[])
    if len(name) < 250:
        assert message in refused(stacks=[path], masks=[])
        assert message in refused(masks=[files.mask(0), path, files.mask(2)])


def test_an_output_without_a_usable_name(files: Files, refused: Refused, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(files.folder)
    assert "is a folder: give the name of the file to write" in refused("--output-volume", "")
    assert "too long for the name of a file" in refused("--output-volume", 250 * "a" + ".nii.gz")


def test_a_sidecar_with_a_number_that_no_float_holds(files: Files, refused: Refused):
    for entry in ('"SliceThickness": ', '"SliceTiming": [0, '):
        end = "]" if "[" in entry else ""
        (files.folder / "s1.json").write_text("{" + entry + "1" + 400 * "0" + end + "}")
        sentence = refused()
        assert "s1.json: Slice" in sentence
        assert len(sentence) < 300


def test_pixels_of_a_size_that_cannot_be(files: Files, refused: Refused):
    for size in (1e-40, 1e-7, 1e5):
        affine = files.affines[1] @ np.diag([size, size, 1, 1])
        files.save(files.path(1), np.random.default_rng(0).random((24, 20, 12), np.float32), affine)
        assert "s1.nii.gz has" in refused(masks=[])


SHORT = """
import gsvr.workflows.pipeline
from gsvr.cli import main
from tests.moving_brain import SHORTEST_STAGES

gsvr.workflows.pipeline.default_stages = lambda *_: SHORTEST_STAGES
main()
"""


@pytest.mark.parametrize("n_masks", [3, 1])
def test_masks_of_a_few_pixels(files: Files, refused: Refused, n_masks: int):
    mask = np.zeros((24, 20, 12), np.uint8)
    mask[11:13, 9:11] = 1
    wide = [affine @ np.diag([3, 3, 3, 1]) for affine in files.affines]
    for number, affine in enumerate(wide):
        files.save(files.path(number), blob(number, affine), affine)
        files.save(files.mask(number), mask, affine)
        (files.folder / f"s{number}.json").write_text('{"SliceThickness": 12}')
    assert "the masks are narrower than 3 pixels" in refused(masks=files.masks[:n_masks])


@posix
def test_names_that_are_not_text(stacks: list[Path], tmp_path: Path):
    """Linux takes any bytes for a name; the record and the poses are UTF-8."""
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes text only")
    odd = [folder / f"{path.name.removesuffix('.nii.gz')}\udce9.nii.gz" for path in stacks]
    for path, copy in zip(stacks, odd, strict=True):
        copy.write_bytes(path.read_bytes())
    inputs = ("reconstruct", "--input-stacks", *odd, "--stack-masks", *masks_of(stacks))
    words = [sys.executable, "-c", SHORT, *inputs, "--output-volume", folder / "v.nii.gz", "--output-resolution", "2"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert r"caf\udce9" in result.stdout
    assert r"\udce9" in json.loads((folder / "v.json").read_text())["settings"]["input_stacks"][0]
    assert r"\udce9" in read_poses_json(folder / "v_poses.json")[0].stack


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_standard_output_that_is_full():
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "gsvr", "--version"]
        result = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == "gsvr: error: standard output cannot be written (No space left on device)\n"


def test_the_home_folder_after_an_equals_sign(tmp_path: Path, gsvr_command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    result = gsvr_command("render", "--output-volume=~/v.nii.gz", tmp_path / "absent")
    assert f"{tmp_path / 'absent'} does not exist" in result.stderr
    result = gsvr_command("render", "--output-volume=~/v.png", tmp_path / "absent")
    assert f"{tmp_path / 'v.png'}: the name of a NIfTI file" in result.stderr


def test_only_options_that_are_alike_are_suggested(gsvr_command: Command):
    result = gsvr_command("reconstruct", "--input-stack", "a", "--output-volume", "b")
    assert result.exit_code == 2
    assert "--input-stacks" in result.stderr
    assert "--output-mask" not in result.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", 10**32), ("--noise", 1e300), ("--gain", 1e300), ("--thickness", 1e-300), ("--n-stacks", 10**9)],
)
def test_simulations_of_what_cannot_be(tmp_path: Path, gsvr_command: Command, option: str, value: float):
    result = gsvr_command("simulate", "phantom", "--output-dir", tmp_path / "d", option, value)
    assert result.exit_code == 2
    assert f"gsvr: error: {option} must be between" in result.stderr
    assert not (tmp_path / "d").exists()

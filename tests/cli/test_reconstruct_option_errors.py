"""``gsvr reconstruct`` and bad options: one sentence that says what to do, exit code 2, and nothing is written."""

from __future__ import annotations

import json

import pytest

from tests.cli.bad_files import Files, Refused
from tests.cli.conftest import Command

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
        ("--preset", "quick", "--preset quick: choose one of default, fast, paper"),
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

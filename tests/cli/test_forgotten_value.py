"""An option is never taken for the value of the one before it."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "reconstruct --input-stacks a.nii --output-report --preset fast",
            "--output-report takes a value, and --preset",
        ),
        (
            "render f.safetensors --output-volume --output-resolution=0.5",
            "--output-volume takes a value, and --output-re",
        ),
        ("live --output-dir --watch in", "--output-dir takes a value, and --watch follows it"),
        ("reconstruct --input-stacks --stack-masks m.nii", "--input-stacks takes a value, and --stack-masks"),
    ],
)
def test_an_option_in_place_of_a_value_is_told(words: str, told: str, gsvr_command: Command):
    result = gsvr_command(*words.split())
    assert result.exit_code == 2
    assert result.stderr.startswith(f"gsvr: error: {told}")


def test_numbers_below_zero_are_values(gsvr_command: Command):
    result = gsvr_command("plane", "missing.safetensors", "--output-image", "p.png", "--normal", "-0.3", "0.2", "-1")
    assert "takes a value" not in result.stderr
    assert "missing.safetensors" in result.stderr

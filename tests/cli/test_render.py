"""``gsvr render`` and what it refuses; that it agrees with the reconstruction is tested there."""

from __future__ import annotations

from pathlib import Path

import pytest

from gsvr.io.field import write_field
from gsvr.model.fields import LatticeField
from tests.acquisitions import random_amplitudes, small_lattice
from tests.cli.conftest import Command


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
    lattice = small_lattice()
    write_field(tmp_path / "f.safetensors", LatticeField(lattice, random_amplitudes(lattice)))
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-mask", tmp_path / "m.nii.gz")
    result = gsvr_command("render", tmp_path / "f.safetensors", *output)
    assert result.exit_code == 2
    assert "holds no brain mask" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]
    assert gsvr_command("render", tmp_path / "f.safetensors", *output[:2]).exit_code == 0


def test_a_volume_that_shows_nothing_is_no_success(tmp_path: Path, gsvr_command: Command):
    lattice = small_lattice()
    nothing = LatticeField(lattice, 0 * random_amplitudes(lattice))
    write_field(tmp_path / "f.safetensors", nothing)
    result = gsvr_command("render", tmp_path / "f.safetensors", "--output-volume", tmp_path / "v.nii.gz")
    assert result.exit_code == 2
    assert "f.safetensors shows nothing" in " ".join(result.stderr.split())
    assert not (tmp_path / "v.nii.gz").exists()

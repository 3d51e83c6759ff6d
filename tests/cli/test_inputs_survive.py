"""No command writes over a file that it reads, whatever the file is called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import gsvr.simulation.phantom
from gsvr.io.field import write_field
from gsvr.model.fields import LatticeField
from gsvr.simulation.phantom import brain_phantom
from tests.acquisitions import random_amplitudes, small_lattice
from tests.cli.bad_files import Files, Refused
from tests.cli.conftest import Command


@pytest.mark.parametrize("option", ["--output-slices", "--simulated-slices"])
@pytest.mark.parametrize("name", ["2.nii.gz", "mask_7.nii.gz"])
def test_slices_do_not_overwrite_stacks_of_their_names(files: Files, refused: Refused, option: str, name: str):
    number = 1
    path = files.path(number).rename(files.folder / name)
    stacks = [files.path(0), path, files.path(2)]
    assert f"{files.folder / name} would overwrite the input" in refused(option, files.folder, stacks=stacks)


def test_masks_and_sidecars_are_inputs_as_well(files: Files, refused: Refused):
    mask = files.mask(1).rename(files.folder / "mask_1.nii.gz")
    masks = [files.mask(0), mask, files.mask(2)]
    assert f"would overwrite the input {mask}" in refused("--output-slices", files.folder, masks=masks)
    link = files.folder / "link.json"
    link.symlink_to(files.folder / "s1.json")
    assert "link.json would overwrite the input" in refused("--output-poses", link)


@pytest.fixture(scope="session")
def acquisition(tmp_path_factory: pytest.TempPathFactory, stacks: list[Path]) -> Path:
    """A copy of the acquisition, with a field and a reconstruction; no test changes it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(stacks[0].parent, folder, dirs_exist_ok=True)
    shutil.copy(folder / "truth.nii.gz", folder / "reconstruction.nii.gz")
    shutil.copy(folder / "truth_poses.json", folder / "poses.json")
    lattice = small_lattice()
    write_field(folder / "field.png", LatticeField(lattice, random_amplitudes(lattice)))
    shutil.copy(folder / "field.png", folder / "field.nii")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "name", ["truth_poses.json", "poses.json", "stack-0.json", "stack-1.nii.gz", "stack-2_mask.nii.gz", "truth.nii.gz"]
)
def test_evaluation_against_a_truth(acquisition: Path, gsvr_command: Command, name: str):
    before = contents(acquisition)
    files = {option: acquisition / f"{option.replace('-', '_')}.nii.gz" for option in ("truth", "truth-mask")}
    poses = {"poses": acquisition / "poses.json", "true-poses": acquisition / "truth_poses.json"}
    words = [word for option, path in (files | poses).items() for word in (f"--{option}", path)]
    output = acquisition / name
    result = gsvr_command("evaluate", acquisition / "reconstruction.nii.gz", words, "--output-json", output)
    assert result.exit_code == 2
    assert f"{output} would overwrite the input {output}" in result.stderr
    assert contents(acquisition) == before


@pytest.mark.parametrize("name", ["stack-0.nii.gz", "stack-1_mask.nii.gz", "stack-2.json"])
def test_evaluation_by_stacks(acquisition: Path, gsvr_command: Command, name: str):
    before = contents(acquisition)
    stacks = [acquisition / f"stack-{number}.nii.gz" for number in range(3)]
    masks = [acquisition / f"stack-{number}_mask.nii.gz" for number in range(3)]
    inputs = ("--input-stacks", *stacks, "--stack-masks", *masks)
    result = gsvr_command("evaluate", *inputs, "--output-json", acquisition / name)
    assert result.exit_code == 2
    assert f"{name} would overwrite the input" in result.stderr
    assert contents(acquisition) == before


@pytest.mark.parametrize("name", ["stack-0.nii.gz", "truth.nii.gz"])
def test_simulation_of_a_stack_beside_it(acquisition: Path, gsvr_command: Command, name: str):
    before = contents(acquisition)
    result = gsvr_command("simulate", acquisition / name, "--output-dir", acquisition)
    assert result.exit_code == 2
    assert f"{name} would overwrite the input" in result.stderr
    assert contents(acquisition) == before


def test_rendering_into_the_field(acquisition: Path, gsvr_command: Command):
    before = contents(acquisition)
    for words in (
        ("render", acquisition / "field.nii", "--output-volume", acquisition / "field.nii"),
        ("plane", acquisition / "field.png", "--output-image", acquisition / "field.png"),
    ):
        result = gsvr_command(*words)
        assert result.exit_code == 2
        assert "would overwrite the input" in result.stderr
    assert contents(acquisition) == before


def test_a_simulation_may_be_repeated(tmp_path: Path, gsvr_command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gsvr.simulation.phantom, "brain_phantom", lambda seed: brain_phantom(4.0, seed))
    for _ in range(2):
        words = ("--n-stacks", 1, "--in-plane-spacing", 6, "--thickness", 12)
        assert gsvr_command("simulate", "phantom", "--output-dir", tmp_path, *words).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []

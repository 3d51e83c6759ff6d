from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest

import gsvr
from gsvr.errors import InputError
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows import provenance
from gsvr.workflows.inputs import StackInputs
from gsvr.workflows.provenance import command_line, hashed_files, heard_warnings, run_hash, without_folders


@pytest.fixture
def inputs(tmp_path: Path) -> StackInputs:
    for name in ("a.nii.gz", "b.nii", "m.nii.gz", "b.json"):
        (tmp_path / name).write_bytes(name.encode())
    return StackInputs([tmp_path / "a.nii.gz", tmp_path / "b.nii"], [tmp_path / "m.nii.gz"], [3.0])


def test_every_file_that_is_read_is_hashed(inputs: StackInputs) -> None:
    files = hashed_files(inputs)
    assert [(file.role, file.name) for file in files] == [
        ("stack", "a.nii.gz"),
        ("stack", "b.nii"),
        ("mask", "m.nii.gz"),
        ("sidecar", "b.json"),
    ]
    assert [file.sha256 for file in files] == [hashlib.sha256(file.name.encode()).hexdigest() for file in files]
    inputs.stacks[0].unlink()
    with pytest.raises(InputError, match=r"a\.nii\.gz does not exist"):
        hashed_files(inputs)


def test_the_hash_of_a_run_is_that_of_all_that_decides_its_result(
    inputs: StackInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_hash(inputs, SolverOptions(), 0.8)
    assert first == run_hash(inputs, SolverOptions(), 0.8, hashed_files(inputs))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in tmp_path.glob("*.*"):
        (elsewhere / path.name).write_bytes(path.read_bytes())
    moved = StackInputs([elsewhere / "a.nii.gz", elsewhere / "b.nii"], [elsewhere / "m.nii.gz"], [3.0])
    assert run_hash(moved, SolverOptions(), 0.8) == first
    others = [
        run_hash(inputs, SolverOptions(seed=1), 0.8),
        run_hash(inputs, SolverOptions(), 0.7),
        run_hash(StackInputs(inputs.stacks, inputs.masks, [4.0]), SolverOptions(), 0.8),
        run_hash(StackInputs(inputs.stacks, inputs.masks, [3.0], "ascending"), SolverOptions(), 0.8),
        run_hash(StackInputs(inputs.stacks[::-1], inputs.masks, [3.0]), SolverOptions(), 0.8),
        run_hash(StackInputs(inputs.stacks, None, [3.0]), SolverOptions(), 0.8),
    ]
    (elsewhere / "b.json").write_text("{}")
    others.append(run_hash(moved, SolverOptions(), 0.8))
    monkeypatch.setattr(provenance, "__version__", gsvr.__version__ + ".1")
    others.append(run_hash(inputs, SolverOptions(), 0.8))
    assert len({first, *others}) == 1 + len(others)


def test_warnings_are_heard_without_folders() -> None:
    logger = logging.getLogger("gsvr.io.nifti")
    with heard_warnings() as heard:
        logger.info("nothing")
        logger.warning("%s: %.1f mm", Path("somebody") / "a.nii.gz", 3.25)
        logger.warning("100 % sure")
        with heard_warnings() as inner:
            logger.warning("both")
    logger.warning("later")
    assert heard == ["a.nii.gz: 3.2 mm", "100 % sure", "both"]
    assert inner == ["both"]


def test_folders_are_left_out() -> None:
    home = Path("home") / "somebody"
    assert without_folders({"a": [home / "b.nii", None], "c": (1, "d/e")}) == {"a": ["b.nii", None], "c": [1, "d/e"]}
    words = ["gsvr", "reconstruct", "--input-stacks", f"{home}/a.nii", "~/b.nii.gz", f"--output-volume={home}/c d.nii"]
    assert command_line([*words, "--output-slices", f"{home}/slices/", "-0.5"]) == (
        'gsvr reconstruct --input-stacks a.nii b.nii.gz "--output-volume=c d.nii" --output-slices slices -0.5'
    )

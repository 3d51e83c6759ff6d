"""Names of BIDS files, and the sidecars that an image inherits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gsvr.io.bids_names import inherited_sidecars, parse_name
from gsvr.io.sidecar import read_sidecar

IMAGE = "sub-01/ses-a/anat/sub-01_ses-a_acq-haste_run-1_T2w.nii.gz"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / IMAGE).parent.mkdir(parents=True)
    (tmp_path / IMAGE).touch()
    (tmp_path / "dataset_description.json").write_text("{}")
    return tmp_path


def write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


def test_a_name_comes_apart():
    name = parse_name("sub-01_ses-a_acq-haste_run-1_T2w.nii.gz")
    assert name is not None
    assert name.entities == (("sub", "01"), ("ses", "a"), ("acq", "haste"), ("run", "1"))
    assert (name.suffix, name.extension) == ("T2w", ".nii.gz")
    assert name.stem == "sub-01_ses-a_acq-haste_run-1"
    assert name.get("run") == "1"
    assert name.get("echo") is None
    assert name.without("run", "acq") == {("sub", "01"), ("ses", "a")}


@pytest.mark.parametrize("name", ["T2w.nii.gz", "sub-01.nii.gz", "sub_T2w.nii.gz", "sub-01_sub-02_T2w.nii.gz", ".x"])
def test_what_is_no_name(name: str):
    assert parse_name(name) is None


def test_the_nearest_sidecar_has_the_last_word(root: Path):
    write(root / "T2w.json", SliceThickness=2.0, SliceTiming=[0, 1])
    write(root / "sub-01" / "sub-01_T2w.json", SliceThickness=3.0)
    write((root / IMAGE).parent / "sub-01_ses-a_acq-haste_T2w.json", SliceThickness=4.0)
    assert [path.name for path in inherited_sidecars(root / IMAGE)] == [
        "T2w.json",
        "sub-01_T2w.json",
        "sub-01_ses-a_acq-haste_T2w.json",
    ]
    assert read_sidecar(root / IMAGE).slice_thickness == 4.0
    assert read_sidecar(root / IMAGE).slice_timing == (0, 1)
    write(root / IMAGE.replace(".nii.gz", ".json"), SliceThickness=5.0)
    assert read_sidecar(root / IMAGE).slice_thickness == 5.0
    assert read_sidecar(root / IMAGE).slice_timing == (0, 1)


def test_sidecars_of_other_images_are_not_inherited(root: Path):
    for name in ("T1w.json", "acq-trufi_T2w.json", "run-2_T2w.json", "sub-02_T2w.json"):
        write(root / name, SliceThickness=9.0)
    write((root / IMAGE).parent / "sub-01_ses-a_acq-haste_run-2_T2w.json", SliceThickness=9.0)
    assert inherited_sidecars(root / IMAGE) == []
    assert read_sidecar(root / IMAGE).slice_thickness is None


def test_nothing_is_inherited_outside_of_a_dataset(root: Path):
    write(root / "T2w.json", SliceThickness=2.0)
    (root / "dataset_description.json").unlink()
    assert inherited_sidecars(root / IMAGE) == []

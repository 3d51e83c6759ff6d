"""Folders as they are: other files, copies, damage, slices missing."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from gsvr.errors import InputError
from gsvr.io.dicom.folder import read_folder
from gsvr.io.dicom.installed import require
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.study import read_study
from gsvr.model.slices import Stack
from tests.io.dicom.exports import SECRETS, export, oblique_stacks


def test_other_files_and_copies_are_passed_over(tmp_path: Path) -> None:
    paths = export(tmp_path, oblique_stacks()[:1])
    (tmp_path / "readme.txt").write_text("exported on a Monday")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "copy.dcm").write_bytes(paths[0].read_bytes())
    report = pydicom.dcmread(paths[0])
    report.Modality, report.SOPInstanceUID = "SR", "1.2.3"
    report.save_as(tmp_path / "report")
    nowhere = pydicom.dcmread(paths[0])
    nowhere.SOPInstanceUID = "1.2.4"
    del nowhere.ImagePositionPatient
    nowhere.save_as(tmp_path / "screen")
    found = read_folder([tmp_path])
    assert len(found.frames) == len(paths)
    assert found.broken == []
    assert dict(found.passed_over) == {
        "no DICOM": 2,
        "copies of other files": 1,
        "SR instead of MR images": 1,
        "images without a position": 1,
    }


def test_broken_files_are_named_and_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = export(tmp_path, oblique_stacks()[:1])
    order = sorted(paths, key=lambda path: int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber))
    short, odd = order[0], order[-1]
    short.write_bytes(short.read_bytes()[:-2])
    dataset = pydicom.dcmread(odd)
    dataset.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    dataset.save_as(odd)
    study = read_study([tmp_path])
    assert study.stacks[0].n_slices == len(paths) - 2
    assert f"{short.name} is broken and was left out (it ends before its pixels do)" in caplog.text
    assert f"{odd.name} is broken and was left out (directions of rows and columns that are none)" in caplog.text


def test_pixels_that_cannot_be_unpacked_cost_their_slice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = export(tmp_path, oblique_stacks()[:1])
    worst = max(paths, key=lambda path: int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber))
    dataset = pydicom.dcmread(worst)
    dataset.compress("1.2.840.10008.1.2.5")
    dataset.PixelData = encapsulate([b"\x00\x01nonsense"])
    dataset.save_as(worst)
    found = read_study([tmp_path]).stacks[0]
    assert found.n_slices == len(paths)
    assert read_dicom_stack(found).n_slices == len(paths) - 1
    assert f"{worst.name} is broken and was left out" in caplog.text


def test_where_a_slice_is_missing_a_new_stack_begins(tmp_path: Path) -> None:
    stack = oblique_stacks()[0]
    paths = export(tmp_path, [stack])
    by_place = sorted(paths, key=lambda path: float(pydicom.dcmread(path, stop_before_pixels=True).SliceLocation))
    by_place[6].unlink()
    found = read_study([tmp_path])
    assert [part.n_slices for part in found.stacks] == [6, stack.n_slices - 7]
    assert [part.name for part in found.stacks] == ["series-003-1-axial", "series-003-2-axial"]
    for part in found.stacks:
        assert part.spacing == pytest.approx(stack.spacing[2])


def test_no_folder_and_nothing_in_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no folder"):
        read_study([tmp_path / "absent"])
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(InputError, match="no MR images among the files \\(1 with no DICOM\\)"):
        read_study([tmp_path])


def test_a_missing_package_names_the_extra() -> None:
    with pytest.raises(ImportError, match=r"absent_package is not installed: pip install 'gsvr\[dicom\]'"):
        require("absent_package")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_file_holds_it_is_read_or_left_out(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, caplog: pytest.LogCaptureFixture
) -> None:
    enhanced = data.draw(st.booleans())
    content = bytearray(example(tmp_path_factory, enhanced).read_bytes())
    end = content.rindex(b"\xe0\x7f\x10\x00")  # the header
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(132, end))] = data.draw(st.integers(0, 255))
    folder = example(tmp_path_factory, enhanced).parent.with_name("damaged")
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(content)
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        frames = read_folder([folder]).frames
    assert not [secret for secret in SECRETS if secret in caplog.text]
    for frame in frames:
        assert np.isfinite(frame.position).all()


_EXAMPLES: dict[bool, Path] = {}


def example(factory: pytest.TempPathFactory, enhanced: bool) -> Path:
    if enhanced not in _EXAMPLES:
        stack = oblique_stacks()[0]
        few = Stack(stack.name, stack.data[:8, :8, :5], stack.affine, stack.thickness, slice_times=np.arange(5.0))
        _EXAMPLES[enhanced] = export(factory.mktemp("examples") / "good", [few], enhanced=enhanced)[0]
    return _EXAMPLES[enhanced]

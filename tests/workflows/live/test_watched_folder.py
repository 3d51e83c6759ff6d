"""Stacks are delivered once they are whole."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.io.nifti import read_stack
from gsvr.model.slices import Stack
from gsvr.workflows.live.arrival import Arrival, Refusal, SliceArrival
from gsvr.workflows.live.dicom_series import DicomSeries, SeriesOptions
from gsvr.workflows.live.watched_folder import WatchedFolder, WatchOptions, folder_name
from tests.acquisitions import small_stack
from tests.moving_brain import coarse_brain
from tests.stack_files import write_stack

QUICK = WatchOptions(interval=0.01, patience=0.2)


class Looks:
    """A watched folder, and what it delivered."""

    def __init__(self, folder: Path, options: WatchOptions = QUICK, series: DicomSeries | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.got: list[Any] = []
        self._watched = WatchedFolder(folder, series, options)

    def look(self, times: int = 2) -> list[Any]:
        """What some looks deliver."""
        before = len(self.got)
        for _ in range(times):
            self._watched.look(self.got.append)
        return self.got[before:]


@pytest.fixture
def looks(tmp_path: Path) -> Looks:
    return Looks(tmp_path / "watched")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A stack with mask and sidecar, elsewhere."""
    folder = tmp_path / "made"
    folder.mkdir()
    return write_stack(folder, small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0))


def test_a_whole_stack_is_delivered_once_with_its_mask(looks: Looks, made: Path):
    for path in made.parent.iterdir():
        shutil.copy(path, looks.folder)
    assert looks.look(1) == []
    (arrival,) = looks.look(1)
    assert arrival.path == looks.folder / "a.nii.gz"
    assert arrival.mask == looks.folder / "a_mask.nii.gz"
    assert arrival.examination == "watched"
    assert abs(arrival.time - time.time()) < 5
    assert looks.look(3) == []


def test_a_stack_that_is_being_written_is_waited_for(looks: Looks, made: Path):
    content, copy = made.read_bytes(), looks.folder / "a.nii.gz"
    for part in (4, 2):
        copy.write_bytes(content[: len(content) // part])
        assert looks.look(3) == []
    copy.write_bytes(content)
    assert [arrival.path for arrival in looks.look(2)] == [copy]


def test_a_copy_that_is_dated_back_arrived_now(looks: Looks, made: Path):
    copy = looks.folder / "a.nii.gz"
    shutil.copy(made, copy)
    os.utime(copy, (1e9, 1e9))
    (arrival,) = looks.look()
    assert abs(arrival.time - time.time()) < 5


def test_a_broken_stack_is_refused_once_after_a_while(looks: Looks):
    (looks.folder / "b.nii.gz").write_bytes(b"no image")
    assert looks.look(3) == []
    time.sleep(0.3)
    (refusal,) = looks.look(3)
    assert isinstance(refusal, Refusal)
    assert "b.nii.gz is not a readable NIfTI image" in refusal.reason


def test_what_is_repaired_is_delivered(looks: Looks, made: Path):
    copy = looks.folder / "a.nii.gz"
    copy.write_bytes(b"no image")
    looks.look(2)
    time.sleep(0.3)
    looks.look(1)
    shutil.copy(made, copy)
    assert [type(one) for one in looks.look(3)] == [Arrival]


@pytest.mark.parametrize(
    ("stack", "mask"),
    [
        ("a.nii.gz", "a_mask.nii.gz"),
        ("sub-01_run-1_T2w.nii.gz", "sub-01_run-1_desc-brain_mask.nii.gz"),
        ("sub-01_run-1_T2w.nii.gz", "sub-01_run-1_mask.nii.gz"),
        ("a.nii", "a_mask.nii.gz"),
    ],
)
def test_a_mask_that_comes_later_delivers_the_stack_again(looks: Looks, made: Path, stack: str, mask: str):
    import nibabel

    nibabel.load(made).to_filename(looks.folder / stack)  # pyright: ignore[reportAttributeAccessIssue]
    assert [one.mask for one in looks.look()] == [None]
    shutil.copy(made.with_name("a_mask.nii.gz"), looks.folder / mask)
    assert [one.mask for one in looks.look(3)] == [looks.folder / mask]


def test_each_folder_inside_is_an_examination(looks: Looks, made: Path):
    for name in ("one", "two (2)"):
        (looks.folder / name).mkdir()
        shutil.copy(made, looks.folder / name)
    (looks.folder / ".hidden").mkdir()
    shutil.copy(made, looks.folder / ".hidden")
    shutil.copy(made, looks.folder / ".partial.nii.gz")
    assert sorted(one.examination for one in looks.look()) == ["one", "two_2"]


def test_a_folder_that_cannot_be_read_does_not_hold_up_the_others(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    looks = Looks(tmp_path / "watched", series=DicomSeries(tmp_path / "out"))
    locked = looks.folder / "locked"
    locked.mkdir()
    shutil.copy(made, looks.folder)
    real = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder) == locked:
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [arrival.path.name for arrival in looks.look(4)] == [made.name]
    assert caplog.text.count("Permission denied") == 1


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path, made: Path):
    looks = Looks(tmp_path / "watched", WatchOptions(patience=0.0, largest=100))
    shutil.copy(made, looks.folder)
    (refusal,) = looks.look(3)
    assert "larger than any stack" in refusal.reason


def test_names_lose_what_means_something():
    assert folder_name("../a b;c") == "a_b_c"
    assert folder_name("...") == "examination"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is no folder"):
        WatchedFolder(tmp_path / "missing")


def dicom_files(stack: Stack, folder: Path) -> list[Path]:
    """A stack as DICOM files under names that say nothing, in the order of acquisition."""
    pytest.importorskip("pydicom", reason="pydicom is not installed: pip install 'gsvr[dicom]'")
    from gsvr.io.dicom.acquired import ExaminationLabels, SeriesLabels, classic_series

    paths = []
    for number, instance in enumerate(classic_series(stack, ExaminationLabels.new(), SeriesLabels(4))):
        paths.append(folder / f"IM{number:04d}")
        instance.save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture
def instances(tmp_path: Path) -> list[Path]:
    return dicom_files(small_stack("a", np.eye(3), (1.1, 1.1, 3.0), 3.0, 0), tmp_path)


def test_dicom_slices_are_delivered_as_they_come_and_the_stack_once_complete(tmp_path: Path, instances: list[Path]):
    series = DicomSeries(tmp_path / "out", SeriesOptions(0.3, 0.3))
    looks = Looks(tmp_path / "watched", series=series)
    inner = looks.folder / "export" / "DICOM"
    inner.mkdir(parents=True)
    half = len(instances) // 2
    for path in instances[:half]:
        shutil.copyfile(path, inner / path.name)
    slices = looks.look()
    assert len(slices) == half
    assert all(isinstance(one, SliceArrival) for one in slices)
    assert len({(one.examination, one.stack) for one in slices}) == 1
    assert [one.acquired for one in slices] == sorted(one.acquired for one in slices)
    content = instances[half].read_bytes()
    (inner / "growing").write_bytes(content[: len(content) // 2])
    assert looks.look(3) == []  # its header is whole, its pixels are not
    (inner / "growing").write_bytes(content)
    for path in instances[half + 1 :]:
        shutil.copyfile(path, inner / path.name)
    shutil.copyfile(instances[0], inner / "once more")
    assert len(looks.look()) == len(instances) - half
    assert looks.look() == []
    time.sleep(0.35)
    (arrival,) = looks.look(1)
    assert isinstance(arrival, Arrival)
    assert (arrival.examination, arrival.path.name) == (slices[0].examination, f"{slices[0].stack}.nii.gz")
    stack = read_stack(arrival.path)
    assert stack.n_slices == len(instances)
    for one in slices:  # where and what they are in the stack
        index = np.linalg.inv(stack.affine) @ one.image.affine[:, 3]
        np.testing.assert_allclose(index[:2], 0, atol=1e-3)
        np.testing.assert_allclose(stack.data[:, :, round(index[2])], one.image.data[:, :, 0], rtol=1e-5)
    assert looks.look(3) == []


def test_broken_dicom_is_told_and_other_files_are_passed_over(tmp_path: Path, instances: list[Path]):
    looks = Looks(tmp_path / "watched", series=DicomSeries(tmp_path / "out", SeriesOptions(9.0, 9.0)))
    (looks.folder / "readme.txt").write_text("nothing " * 100)
    shutil.copyfile(instances[0], looks.folder / "whole")
    assert len(looks.look()) == 1
    (looks.folder / "patient^name").write_bytes(instances[1].read_bytes()[:-100])
    assert looks.look(3) == []
    time.sleep(0.3)
    (refusal,) = looks.look(3)
    assert "it ends before its pixels do" in refusal.reason
    assert "patient" not in refusal.reason


def test_studies_that_are_long_over_are_forgotten_and_never_become_half_a_stack(tmp_path: Path, instances: list[Path]):
    from gsvr.io.dicom.folder import read_frames

    series = DicomSeries(tmp_path / "out")
    first, *rest = (read_frames(path) for path in instances)
    assert len(series.sort(first, 0.0)) == 1
    for number in range(20):
        for frames in rest[:2]:
            series.sort([replace(frame, study=f"1.2.{number}") for frame in frames], 1.0 + number)
    assert series.sort(rest[2], 100.0) == []
    assert len(series.sort([replace(frame, study="1.2.19") for frame in rest[3]], 100.0)) == 1
    got: list[Any] = []
    series.deliver_complete(got.append)
    assert got == []  # too few slices for a stack


def test_parts_of_a_series_that_paused_count_no_longer_when_it_is_complete(tmp_path: Path):
    series = DicomSeries(tmp_path / "out", SeriesOptions(0.3, 0.3))
    looks = Looks(tmp_path / "watched", series=series)
    instances = dicom_files(coarse_brain().stacks[0], tmp_path)
    late = instances.pop(3)  # in the middle of the stack
    for path in instances:
        shutil.copyfile(path, looks.folder / path.name)
    looks.look()
    time.sleep(0.4)
    parts = [one for one in looks.look() if isinstance(one, Arrival)]
    assert len(parts) > 1
    assert not any(part.replaces for part in parts)
    shutil.copyfile(late, looks.folder / late.name)
    looks.look()
    time.sleep(0.4)
    (whole,) = [one for one in looks.look() if isinstance(one, Arrival)]
    assert read_stack(whole.path).n_slices == len(instances) + 1
    assert set(whole.replaces) == {part.path for part in parts} - {whole.path}

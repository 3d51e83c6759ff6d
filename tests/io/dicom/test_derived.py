"""The volume as a derived series: geometry, labels, the patient only on request; dcm2niix and Orthanc read it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import dcm2niix
import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pixel_array

from gsvr.io.dicom.derived import DicomOrigin, derived_series, origin_of, write_derived_series
from gsvr.io.dicom.folder import read_folder
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.stacks import stacks_of
from gsvr.io.dicom.study import read_study
from gsvr.model.geometry import rotation_from_vector
from gsvr.model.volume import Volume
from tests.io.dicom.exports import SECRETS, export, oblique_stacks
from tests.io.dicom.orthanc import running_orthanc
from tests.moving_brain import small_brain


def oblique(volume: Volume) -> Volume:
    affine = volume.affine.copy()
    affine[:3, :3] = rotation_from_vector(np.array([0.2, -0.3, 0.25])) @ affine[:3, :3]
    return Volume(volume.data, affine)


@pytest.fixture(scope="module", params=["straight", "oblique"])
def volume(request: pytest.FixtureRequest) -> Volume:
    return oblique(small_brain()) if request.param == "oblique" else small_brain()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    export(folder, oblique_stacks()[:2])
    return folder


@pytest.fixture(scope="module")
def origin(folder: Path) -> DicomOrigin:
    origin = origin_of(read_study([folder]).stacks)
    assert origin is not None
    return origin


def same_image(volume: Volume, data: np.ndarray, affine: np.ndarray) -> None:
    """Every voxel of the image is one of the volume's, at its place."""
    to_index = np.linalg.inv(volume.affine) @ affine
    index = np.einsum("ij,jxyz->ixyz", to_index[:3, :3], np.indices(data.shape)) + to_index[:3, 3, None, None, None]
    nearest = np.rint(index).astype(int)
    assert sorted(data.shape) == sorted(volume.data.shape)
    assert np.abs(index - nearest).max() * volume.spacing.max() < 1e-3
    np.testing.assert_allclose(data, volume.data[tuple(nearest)], atol=volume.data.max() / 60000)


def by_dcm2niix(source: Path, target: Path) -> tuple[np.ndarray, np.ndarray]:
    target.mkdir()
    subprocess.run(
        [dcm2niix.bin, "-f", "image", "-o", str(target), str(source)], check=True, capture_output=True, timeout=60
    )
    (path,) = target.glob("*.nii")
    image = nibabel.load(path)
    assert isinstance(image, nibabel.Nifti1Image)
    return image.get_fdata(), np.asarray(image.affine)


def test_read_back_by_this_package_and_by_dcm2niix(volume: Volume, origin: DicomOrigin, tmp_path: Path) -> None:
    write_derived_series(tmp_path / "series", derived_series(volume, origin))
    (stack,) = stacks_of(read_folder([tmp_path / "series"]).frames)
    read = read_dicom_stack(stack)
    same_image(volume, read.data, read.affine)
    assert stack.thickness == pytest.approx(volume.spacing[2])
    same_image(volume, *by_dcm2niix(tmp_path / "series", tmp_path / "nifti"))


def test_axial_slices_from_the_feet_to_the_head_as_radiologists_see_them(origin: DicomOrigin) -> None:
    instances = derived_series(small_brain(), origin)
    assert [instance.InstanceNumber for instance in instances] == list(range(1, len(instances) + 1))
    assert [float(value) for value in instances[0].ImageOrientationPatient] == [1, 0, 0, 0, 1, 0]
    heights = [float(instance.ImagePositionPatient[2]) for instance in instances]
    assert heights == sorted(heights)


def test_a_new_series_of_the_same_study(folder: Path, origin: DicomOrigin) -> None:
    source = pydicom.dcmread(next(folder.iterdir()))
    instances = derived_series(small_brain(), origin, comment="Verdict: good")
    again = derived_series(small_brain(), origin)
    for instance in instances:
        assert instance.StudyInstanceUID == source.StudyInstanceUID
        assert instance.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert list(instance.ImageType[:2]) == ["DERIVED", "SECONDARY"]
        assert instance.ImageComments.endswith("Verdict: good")
    series = {instance.SeriesInstanceUID for instance in [*instances, *again]}
    assert len(series) == 2
    assert source.SeriesInstanceUID not in series
    uids = {instance.SOPInstanceUID for instance in instances}
    assert len(uids) == len(instances)
    assert uids == {instance.file_meta.MediaStorageSOPInstanceUID for instance in instances}


def test_the_patient_is_named_only_on_request(origin: DicomOrigin, tmp_path: Path) -> None:
    written = write_derived_series(tmp_path / "without", derived_series(small_brain(), origin))
    content = b"".join(path.read_bytes() for path in written)
    assert not [secret for secret in (*SECRETS, "20260105") if secret.encode() in content]
    (path, *_) = write_derived_series(tmp_path / "with", derived_series(small_brain(), replace(origin, named=True)))
    named = pydicom.dcmread(path)
    assert named.PatientName == "HOPPER^GRACE"
    assert (named.PatientID, named.PatientBirthDate, named.StudyDate) == ("PID-4711", "19061209", "20260105")
    assert "PatientIdentityRemoved" not in named


def test_without_an_examination_the_study_is_new() -> None:
    first, second = (derived_series(small_brain())[0] for _ in range(2))
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.PatientName == ""


def test_intensities_below_zero_and_nothing_at_all(tmp_path: Path) -> None:
    data = np.linspace(-1.0, 3.0, 4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)
    write_derived_series(tmp_path, derived_series(Volume(data, np.diag([0.8, 0.8, 0.8, 1]))))
    (stack,) = stacks_of(read_folder([tmp_path]).frames)
    read = read_dicom_stack(stack)
    same_image(Volume(data, np.diag([0.8, 0.8, 0.8, 1])), read.data, read.affine)
    empty = derived_series(Volume(np.zeros((4, 5, 6), np.float32), np.eye(4)))
    assert not pixel_array(empty[0]).any()


def test_a_derived_series_is_not_taken_for_a_stack(folder: Path, origin: DicomOrigin, tmp_path: Path) -> None:
    write_derived_series(tmp_path, derived_series(small_brain(), replace(origin, named=True)))
    study = read_study([folder, tmp_path])
    assert [stack.first.series_number for stack in study.stacks] == [3, 4]
    assert [left.reason for left in study.left_out] == ["computed from other images"]


def test_orthanc_takes_it_and_gives_it_back(origin: DicomOrigin, tmp_path: Path) -> None:
    written = write_derived_series(tmp_path / "series", derived_series(oblique(small_brain()), origin))
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        for path in written:
            assert orthanc.ask("instances", path.read_bytes())["Status"] == "Success"
        (series,) = orthanc.ask("series")
        known = orthanc.ask(f"series/{series}")
        assert len(known["Instances"]) == len(written)
        assert known["MainDicomTags"]["Modality"] == "MR"
        (study,) = orthanc.ask("studies")
        assert orthanc.ask(f"studies/{study}")["MainDicomTags"]["StudyInstanceUID"] == origin.study
        # in the order of its positions, which Orthanc finds by itself
        ordered = orthanc.ask(f"series/{series}/ordered-slices")
        assert ordered["Type"] == "Volume"
        (tmp_path / "back").mkdir()
        for number, instance in enumerate(known["Instances"]):
            content = orthanc.ask(f"instances/{instance}/file")
            (tmp_path / "back" / f"{number}.dcm").write_bytes(content)
    same_image(oblique(small_brain()), *by_dcm2niix(tmp_path / "back", tmp_path / "nifti"))

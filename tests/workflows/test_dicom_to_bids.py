"""``gsvr dicom2bids``: names, sidecars, geometry, and nothing that identifies a patient."""

from __future__ import annotations

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gsvr.cli import app
from gsvr.errors import InputError
from gsvr.io.dicom.acquired import SeriesLabels, classic_series, enhanced_instance
from gsvr.io.dicom.pixels import read_dicom_stack
from gsvr.io.dicom.study import read_study
from gsvr.io.nifti import read_stack
from gsvr.model.slices import Stack
from gsvr.workflows.bids_validation import find_validator, validation_errors
from gsvr.workflows.dicom_to_bids import BidsOptions, dicom_to_bids
from tests.io.dicom.exports import SECRETS, export, labels, oblique_stacks, save

NAMES = ["acq-axial_run-1", "acq-coronal_run-1", "acq-sagittal_run-1", "acq-axial_run-2"]


def slice_positions(stack: Stack) -> np.ndarray:
    """Middle of every slice (mm)."""
    middle = (np.array(stack.data.shape) - 1) / 2
    return np.array([stack.affine[:3, :3] @ [*middle[:2], k] + stack.affine[:3, 3] for k in range(stack.n_slices)])


def content_of(folder: Path) -> bytes:
    """Everything in a folder, unpacked, with the names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    unpacked = [gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes() for path in files]
    return b"\n".join([*(str(path.relative_to(folder)).encode() for path in files), *unpacked])


@pytest.mark.parametrize("enhanced", [False, True])
def test_stacks_read_from_bids_are_those_read_from_dicom(enhanced: bool, tmp_path: Path) -> None:
    export(tmp_path / "export", oblique_stacks(), enhanced=enhanced)
    done = dicom_to_bids([tmp_path / "export"], tmp_path / "bids")
    assert [path for path, _ in done.written] == [Path("sub-01", "anat", f"sub-01_{name}_T2w.nii.gz") for name in NAMES]
    for (path, _), found in zip(done.written, read_study([tmp_path / "export"]).stacks, strict=True):
        from_bids, from_dicom = read_stack(tmp_path / "bids" / path), read_dicom_stack(found)
        assert from_bids.thickness == pytest.approx(from_dicom.thickness)
        one, other = slice_positions(from_bids), slice_positions(from_dicom)
        distances = np.linalg.norm(one[:, None] - other, axis=2)
        assert distances.min(axis=1).max() < 1e-3
        np.testing.assert_allclose(from_bids.slice_times, from_dicom.slice_times[distances.argmin(axis=1)], atol=1e-3)
        assert from_bids.data.sum() == pytest.approx(from_dicom.data.sum(), rel=1e-4)


def test_the_patient_is_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    export(tmp_path / "export", oblique_stacks()[:2])
    with caplog.at_level(logging.DEBUG):
        result = CliRunner().invoke(app, ["dicom2bids", str(tmp_path / "export"), str(tmp_path / "bids"), "-v"])
    assert result.exit_code == 0, result.output
    content = content_of(tmp_path / "bids")
    assert b"SliceTiming" in content
    for secret in (*SECRETS, "20260105"):
        assert secret.encode() not in content
        assert secret not in result.output
        assert secret not in caplog.text


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_official_validator_finds_nothing_wrong(enhanced: bool, tmp_path: Path) -> None:
    validator = find_validator()
    if validator is None:
        pytest.skip("no BIDS validator (pip install bids-validator-deno)")
    export(tmp_path / "export", oblique_stacks()[:2], enhanced=enhanced)
    dicom_to_bids([tmp_path / "export"], tmp_path / "bids")
    assert validation_errors(validator, tmp_path / "bids") == []


def test_where_dcm2niix_makes_two_images_pydicom_makes_one_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of two orientations, as scanners write them for several stacks of one protocol."""
    examination = labels()
    both = [enhanced_instance(stack, examination, SeriesLabels(5)) for stack in oblique_stacks()[:2]]
    for instance in both:  # the direction of each frame with the frame
        for frame in instance.PerFrameFunctionalGroupsSequence:
            frame.PlaneOrientationSequence = instance.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    first, second = both
    if (first.Rows, first.Columns) != (second.Rows, second.Columns):
        rows, columns = max(first.Rows, second.Rows), max(first.Columns, second.Columns)
        for instance in both:
            pixels = np.frombuffer(instance.PixelData, "<u2").reshape(-1, instance.Rows, instance.Columns)
            padding = ((0, 0), (0, rows - instance.Rows), (0, columns - instance.Columns))
            instance.PixelData = np.pad(pixels, padding).tobytes()
            instance.Rows, instance.Columns = rows, columns
    first.PixelData += second.PixelData
    first.NumberOfFrames += second.NumberOfFrames
    first.PerFrameFunctionalGroupsSequence.extend(second.PerFrameFunctionalGroupsSequence)
    del first.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    save([first], tmp_path / "export")
    options = BidsOptions(series=[5])
    done = dicom_to_bids([tmp_path / "export"], tmp_path / "bids", options)
    assert "converted with pydicom" in caplog.text
    assert len(done.written) == 2
    for (path, _), found in zip(done.written, read_study([tmp_path / "export"], [5]).stacks, strict=True):
        from_bids, from_dicom = read_stack(tmp_path / "bids" / path), read_dicom_stack(found)
        np.testing.assert_allclose(from_bids.data, from_dicom.data, rtol=1e-6)
        np.testing.assert_allclose(from_bids.affine, from_dicom.affine, atol=1e-4)
        np.testing.assert_allclose(from_bids.slice_times, from_dicom.slice_times, atol=1e-3)


def test_subjects_and_sessions(tmp_path: Path) -> None:
    stacks = oblique_stacks()[:1]
    for number, date in enumerate(["20260301", "20260201"]):
        export(tmp_path / "export" / f"{number}", stacks, examination=labels(date=date))
    export(tmp_path / "export" / "other", stacks, examination=labels(date="20260215", patient_id="OTHER"))
    bids = tmp_path / "bids"
    done = dicom_to_bids([tmp_path / "export"], bids)
    assert [str(path.parent.parent) for path, _ in done.written] == ["sub-01/ses-01", "sub-01/ses-02", "sub-02"]
    assert (bids / "participants.tsv").read_text() == "participant_id\nsub-01\nsub-02\n"
    assert json.loads((bids / "dataset_description.json").read_text())["DatasetType"] == "raw"
    with pytest.raises(InputError, match="is there already"):
        dicom_to_bids([tmp_path / "export"], bids)
    with pytest.raises(InputError, match="names one patient, and there are 2"):
        dicom_to_bids([tmp_path / "export"], bids, BidsOptions(subject="A1"))
    done = dicom_to_bids([tmp_path / "export" / "other"], bids, BidsOptions(subject="A1", session="term"))
    assert [str(path.parent.parent) for path, _ in done.written] == ["sub-A1/ses-term"]
    assert (bids / "participants.tsv").read_text() == "participant_id\nsub-01\nsub-02\nsub-A1\n"


def test_a_label_that_bids_forbids() -> None:
    with pytest.raises(InputError, match="must be letters and digits"):
        BidsOptions(subject="A_1")


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    examination = labels()
    export(tmp_path / "export", oblique_stacks()[:1], examination=examination)
    localiser = classic_series(oblique_stacks()[1], examination, SeriesLabels(1, "localizer"))
    save(localiser, tmp_path / "export" / "1")
    words = ["dicom2bids", str(tmp_path / "export"), str(tmp_path / "bids"), "--dry-run"]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "sub-01_acq-axial_run-1_T2w.nii.gz: series-003-axial: " in result.output
    assert f"left out: series-001-coronal, {oblique_stacks()[1].n_slices} slices: a localiser" in result.output
    assert not (tmp_path / "bids").exists()

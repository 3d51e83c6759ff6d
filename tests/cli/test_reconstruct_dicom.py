"""``gsvr reconstruct --input-dicom``: the same as from NIfTI, and nothing about the patient in the outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gsvr.errors import InputError
from gsvr.io.nifti import read_volume
from gsvr.io.transforms import read_poses_json
from gsvr.masks.first import StackMasks
from gsvr.model.slices import Slices
from tests.cli.conftest import Command
from tests.io.dicom.exports import SECRETS, export
from tests.moving_brain import moving_brain
from tests.stack_files import masks_of


@pytest.mark.usefixtures("_short")
def test_volume_from_dicom_is_the_volume_from_nifti(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = export(tmp_path / "HOPPER^GRACE", moving_brain().stacks)
    (tmp_path / "HOPPER^GRACE" / "HOPPER").write_bytes(paths[0].read_bytes()[:-9])
    words = ["--stack-masks", masks_of(stacks), "-v"]
    result = gsvr_command(
        "reconstruct", "--input-dicom", tmp_path / "HOPPER^GRACE", "--output-volume", tmp_path / "dicom" / "v.nii.gz",
        "--output-report", tmp_path / "dicom" / "v.html", *words,
    )  # fmt: skip
    assert result.exit_code in (0, 3), result.output
    gsvr_command("reconstruct", "--input-stacks", stacks, "--output-volume", tmp_path / "nifti" / "v.nii.gz", *words)
    volumes = [read_volume(tmp_path / kind / "v.nii.gz") for kind in ("dicom", "nifti")]
    np.testing.assert_allclose(volumes[0].affine, volumes[1].affine, atol=1e-3)
    # intensities are rounded to 12 bits on the way
    assert np.corrcoef(volumes[0].data.ravel(), volumes[1].data.ravel())[0, 1] > 0.999
    names = {pose.stack for pose in read_poses_json(tmp_path / "dicom" / "v_poses.json")}
    assert names == {"series-003-axial", "series-004-coronal", "series-005-sagittal"}
    for path in (tmp_path / "dicom").rglob("*"):
        if path.is_file():
            assert not [secret for secret in SECRETS if secret.encode() in path.read_bytes()], path
    shown = (result.output + caplog.text).replace("HOPPER is broken", "it is broken")  # the name of a file
    assert not [secret for secret in SECRETS if secret in shown]
    record = json.loads((tmp_path / "dicom" / "v.json").read_text())
    assert record["settings"]["input_dicom"] == ["1"]
    assert " --input-dicom ... --output-volume v.nii.gz " in record["command"]
    assert "a DICOM file is broken and was left out (it ends before its pixels do)" in record["warnings"]
    # the page made anew, with the slices of the same files
    words = ["report", tmp_path / "dicom" / "v.json", "--output-report", tmp_path / "again.html", "--input-dicom"]
    assert gsvr_command(*words, tmp_path / "HOPPER^GRACE").output.strip() == str(tmp_path / "again.html")
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("again.html", "dicom/v.html")]
    assert pages[0].count('class="card') == pages[1].count('class="card') > 30
    assert not [secret for secret in SECRETS if secret in pages[0]]
    paths[0].unlink()
    result = gsvr_command(*words, tmp_path / "HOPPER^GRACE")
    assert "the DICOM files are others than those of" in " ".join(result.output.split())
    result = gsvr_command("report", tmp_path / "nifti" / "v.json", *words[2:], tmp_path / "HOPPER^GRACE")
    assert "is of no DICOM files: give its --input-stacks" in " ".join(result.output.split())


def test_masks_and_hold_out_from_dicom(gsvr_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path / "export", moving_brain().stacks)
    found = [StackMasks([np.asarray(stack.mask) for stack in moving_brain().stacks], [], [], [True] * 3)]
    monkeypatch.setattr("gsvr.workflows.stack_masks.masks_to_start_with", lambda *_, **__: found[0])
    result = gsvr_command("mask", "--input-dicom", tmp_path / "export", "--output-dir", tmp_path / "masks")
    assert result.exit_code == 0, result.output
    names = ["series-003-axial", "series-004-coronal", "series-005-sagittal"]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == [f"{name}_mask.nii.gz" for name in names]
    refused = gsvr_command("mask", "--output-dir", tmp_path / "masks")
    assert "nothing to look at: give stacks or --input-dicom" in " ".join(refused.output.split())
    result = gsvr_command("evaluate", "--input-dicom", tmp_path / "export", "--dicom-series", 3, 4)
    assert "2 stacks for --input-dicom: leaving one out takes at least 3" in " ".join(result.output.split())

    def heard(slices: Slices, *_: object) -> None:
        raise InputError(" ".join(slices.stack_names))

    monkeypatch.setattr("gsvr.cli.evaluate_holdout.leave_one_stack_out", heard)
    result = gsvr_command("evaluate", "--input-dicom", tmp_path / "export")
    assert result.stderr.splitlines()[-1] == f"gsvr: error: {' '.join(names)}"


def test_stacks_and_dicom_exclude_each_other(stacks: list[Path], gsvr_command: Command, tmp_path: Path) -> None:
    output = ["--output-volume", tmp_path / "v.nii.gz"]
    result = gsvr_command("reconstruct", "--input-dicom", tmp_path, "--input-stacks", stacks, *output)
    assert result.exit_code == 2
    assert "give either --input-stacks or --input-dicom" in result.output
    result = gsvr_command("reconstruct", "--input-stacks", stacks, "--dicom-series", 3, *output)
    assert "--dicom-series chooses among the series of --input-dicom: give that, too" in " ".join(result.output.split())
    result = gsvr_command("reconstruct", *output)
    assert result.exit_code == 2
    assert "give two or more --input-stacks, a --input-slices, or --input-dicom" in " ".join(result.output.split())


def test_without_pydicom_the_extra_is_named(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from gsvr.cli import main\n"
        f"sys.argv = ['gsvr', 'reconstruct', '--input-dicom', {str(tmp_path)!r}, '--output-volume', 'v.nii.gz']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr == "gsvr: error: pydicom is not installed: pip install 'gsvr[dicom]'\n"


@pytest.mark.usefixtures("_short")
def test_the_volume_as_a_series(gsvr_command: Command, tmp_path: Path) -> None:
    paths = export(tmp_path / "export", moving_brain().stacks)
    volume, series = tmp_path / "v.nii.gz", tmp_path / "series"
    words = ["reconstruct", "--input-dicom", tmp_path / "export", "--output-volume", volume, "--output-dicom", series]
    result = gsvr_command(*words)
    assert f"DICOM series: {series}" in result.output.replace("\n", "")
    written = [pydicom.dcmread(path) for path in sorted(series.iterdir())]
    assert len(written) == read_volume(volume).data.shape[2]
    assert {file.StudyInstanceUID for file in written} == {pydicom.dcmread(paths[0]).StudyInstanceUID}
    assert {str(file.PatientName) for file in written} == {""}
    assert written[0].ImageComments.startswith("Research only, not for clinical use. Verdict: ")
    gsvr_command(*words, "--dicom-patient")
    assert pydicom.dcmread(series / "gsvr-0001.dcm").PatientName == "HOPPER^GRACE"


def test_a_patient_without_an_examination_or_a_series(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path
) -> None:
    words = ["reconstruct", "--output-volume", tmp_path / "v.nii.gz", "--dicom-patient"]
    result = gsvr_command(*words, "--input-stacks", stacks, "--output-dicom", tmp_path / "series")
    assert "--dicom-patient copies the patient from --input-dicom" in " ".join(result.output.split())
    result = gsvr_command(*words, "--input-dicom", tmp_path)
    assert "--dicom-patient is about the series in --output-dicom" in " ".join(result.output.split())

"""Conversion of one stack to NIfTI by dcm2niix, checked against what the headers say.

dcm2niix knows more dialects and encodings than anything else, and writes the sidecars that the field expects. It also
guesses, so that its grid is compared with the positions of the slices, and it copies what it finds, so that of its
sidecar only physics is kept.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from gsvr.io.dicom.installed import require
from gsvr.io.dicom.stacks import DicomStack

logger = logging.getLogger(__name__)

# A stack takes a second.
_SECONDS = 300
# mm between a voxel by dcm2niix and the same by the headers.
_TOLERANCE = 0.01
# What is kept of the sidecar: scanner and sequence, and nothing about the patient, the place or the day.
KEPT = (
    "Modality",
    "MagneticFieldStrength",
    "ImagingFrequency",
    "Manufacturer",
    "ManufacturersModelName",
    "BodyPartExamined",
    "PatientPosition",
    "SoftwareVersions",
    "MRAcquisitionType",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SequenceName",
    "PulseSequenceName",
    "ImageType",
    "NonlinearGradientCorrection",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "NumberOfAverages",
    "EchoTrainLength",
    "PartialFourier",
    "PercentPhaseFOV",
    "PercentSampling",
    "PixelBandwidth",
    "DwellTime",
    "PhaseEncodingSteps",
    "AcquisitionMatrixPE",
    "ReconMatrixPE",
    "ParallelReductionFactorInPlane",
    "ReceiveCoilName",
    "CoilString",
    "InPlanePhaseEncodingDirectionDICOM",
    "ConversionSoftware",
    "ConversionSoftwareVersion",
)


@dataclass(frozen=True)
class Converted:
    """What dcm2niix made of a stack.

    Attributes
    ----------
    content
        A compressed NIfTI file.
    slices
        For every slice of the file, in its order, the index of the slice in the stack.
    sidecar
        What is kept of the sidecar.
    """

    content: bytes
    slices: list[int]
    sidecar: dict[str, Any]


class ConversionFailed(Exception):  # noqa: N818
    """dcm2niix does not make of a stack what its headers say; the message says why, as part of a sentence."""


def convert(stack: DicomStack) -> Converted:
    """Convert a stack, and check that every voxel is where the headers say.

    Raises
    ------
    ConversionFailed
        If there is no image in the end, or another than expected.
    InstallationError
        If dcm2niix is missing.
    """
    require("dcm2niix")
    import dcm2niix

    with tempfile.TemporaryDirectory(prefix="gsvr-") as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.mkdir()
        target.mkdir()
        # numbers in place of names, which may hold the patient's
        for number, file in enumerate(stack.files):
            _place(file, source / f"{number}.dcm")
        command = [str(dcm2niix.bin), "-b", "y", "-ba", "y", "-z", "y", "-f", "image", "-w", "1", "-o", str(target)]
        try:
            done = subprocess.run([*command, str(source)], capture_output=True, timeout=_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ConversionFailed(f"dcm2niix did not run ({type(error).__name__})") from error
        images = sorted(target.glob("*.nii.gz"))
        if done.returncode != 0 or len(images) != 1:
            raise ConversionFailed(f"dcm2niix made {len(images)} images of it, exit code {done.returncode}")
        return Converted(images[0].read_bytes(), _slices(images[0], stack), _sidecar(images[0]))


def _place(file: Path, link: Path) -> None:
    try:
        os.symlink(file.resolve(), link)
    except OSError:  # a system without links
        shutil.copyfile(file, link)


def _slices(image: Path, stack: DicomStack) -> list[int]:
    """The slice of the stack that each slice of the file is."""
    loaded = nibabel.load(image)
    assert isinstance(loaded, nibabel.Nifti1Image)
    shape = loaded.shape
    if sorted(shape) != sorted((*stack.first.shape, stack.n_slices)) or shape[2] != stack.n_slices:
        raise ConversionFailed(f"dcm2niix made {' x '.join(map(str, shape))} voxels of it")
    corners = np.array([[i, j, 0, 1] for i in (0, shape[0] - 1) for j in (0, shape[1] - 1)], dtype=np.float64)
    found: list[int] = []
    for index in range(shape[2]):
        corners[:, 2] = index
        places = np.linalg.solve(stack.affine, np.asarray(loaded.affine) @ corners.T)[:3]
        distances = np.linalg.norm(stack.affine[:3, :3] @ (places - np.rint(places)), axis=0)
        planes = set(np.rint(places[2]).astype(int).tolist())
        if distances.max() > _TOLERANCE or len(planes) != 1:
            raise ConversionFailed(f"dcm2niix puts it {distances.max():.2g} mm beside where its headers do")
        found += planes
    if sorted(found) != list(range(stack.n_slices)):
        raise ConversionFailed("dcm2niix puts its slices elsewhere than its headers do")
    return found


def _sidecar(image: Path) -> dict[str, Any]:
    try:
        content = json.loads(image.with_name("image.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: content[key] for key in KEPT if key in content}

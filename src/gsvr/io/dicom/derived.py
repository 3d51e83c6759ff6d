"""A volume as a derived MR series, for PACS and for the scanner's console.

Axial slices, one an instance, as every viewer reads them. The series is new; study and frame of reference are those of
the examination that the volume was made of, so that both lie in one world and one folder. Nothing about the patient is
written unless asked for.
"""

from __future__ import annotations

import copy
import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel
import numpy as np
from jaxtyping import Int

from gsvr import __version__
from gsvr.io.atomic import atomic_path
from gsvr.io.dicom.decimals import decimal
from gsvr.io.dicom.folder import quietly
from gsvr.io.dicom.frame import LPS_TO_RAS
from gsvr.io.dicom.installed import require
from gsvr.io.dicom.stacks import DicomStack
from gsvr.model.volume import Volume

if TYPE_CHECKING:
    from pydicom import Dataset

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
# After all series of the scanner.
SERIES_NUMBER = 900
DESCRIPTION = "gsvr reconstruction"
INSTANCE_NAMES = r"gsvr-\d{4}\.dcm"
_LARGEST = 32767
# What tells who the patient is and which examination it was, in the words of the examination's own headers.
_PATIENT = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
)


@dataclass(frozen=True)
class DicomOrigin:
    """The examination that a volume was made of.

    Attributes
    ----------
    study, frame_of_reference
        Unique identifiers; no frame of reference: that of what is derived is its own.
    file
        One of its files.
    named
        Whether what is derived from it says who the patient is.
    """

    study: str
    frame_of_reference: str | None
    file: Path
    named: bool = False

    def patient(self) -> Dataset:
        """Who the patient is, and which examination it was."""
        import pydicom

        with quietly():
            return pydicom.dcmread(self.file, stop_before_pixels=True, specific_tags=list(_PATIENT))


def origin_of(stacks: Sequence[DicomStack], named: bool = False) -> DicomOrigin | None:
    """Where stacks come from; of several frames of reference, that of most stacks. None: there are no stacks."""
    if not stacks:
        return None
    frames = Counter(stack.first.frame_of_reference for stack in stacks)
    first = stacks[0].first
    return DicomOrigin(first.study, frames.most_common(1)[0][0], first.file, named)


def derived_series(volume: Volume, origin: DicomOrigin | None = None, comment: str = "") -> list[Dataset]:
    """One instance for every axial slice of a volume, from the feet to the head.

    Intensities are stored in 16 bits, with a slope.

    Parameters
    ----------
    volume
        In the world of the examination (RAS+ mm).
    origin
        The examination; None: a study and a frame of reference of its own.
    comment
        For the reader, such as the verdict.

    Raises
    ------
    InstallationError
        If pydicom is missing.
    """
    require("pydicom")
    from pydicom.uid import generate_uid

    data, affine = _towards_the_head(volume)
    largest = float(np.abs(data).max())
    slope = largest / _LARGEST if largest > 0 else 1.0
    shared = _shared(origin, comment)
    shared.Columns, shared.Rows = data.shape[:2]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    directions = [LPS_TO_RAS @ affine[:3, axis] / spacing[axis] for axis in (0, 1)]
    shared.ImageOrientationPatient = [decimal(value) for value in np.concatenate(directions)]
    shared.PixelSpacing = [decimal(spacing[1]), decimal(spacing[0])]
    shared.SliceThickness = shared.SpacingBetweenSlices = decimal(spacing[2])
    shared.RescaleSlope, shared.RescaleIntercept, shared.RescaleType = decimal(slope), "0", "US"
    bright = float(np.percentile(data[data > 0], 99.5)) if (data > 0).any() else 1.0
    if bright >= 1:  # narrower windows are not allowed; viewers find one themselves
        shared.WindowCenter, shared.WindowWidth = decimal(bright / 2), decimal(bright)
    stored = _stored(data, float(shared.RescaleSlope))
    normal = np.cross(directions[0], directions[1])
    instances = []
    for index in range(data.shape[2]):
        instance = copy.deepcopy(shared)
        instance.SOPInstanceUID = instance.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        instance.InstanceNumber = index + 1
        position = LPS_TO_RAS @ (affine[:3, 2] * index + affine[:3, 3])
        instance.ImagePositionPatient = [decimal(value) for value in position]
        instance.SliceLocation = decimal(float(normal @ position))
        instance.SmallestImagePixelValue = int(stored[:, :, index].min())
        instance.LargestImagePixelValue = int(stored[:, :, index].max())
        instance.PixelData = np.ascontiguousarray(stored[:, :, index].T).tobytes()
        instances.append(instance)
    return instances


def write_derived_series(folder: Path, instances: Sequence[Dataset]) -> list[Path]:
    """Write instances as ``gsvr-0001.dcm``, ...; each whole or not at all."""
    paths = [folder / f"gsvr-{number:04d}.dcm" for number in range(1, len(instances) + 1)]
    for path, instance in zip(paths, instances, strict=True):
        with atomic_path(path) as temporary:
            instance.save_as(temporary, enforce_file_format=True)
    return paths


def _towards_the_head(volume: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Data and affine with columns to the patient's left, rows to the back and slices to the head (still RAS+ mm)."""
    orientations = nibabel.orientations
    now = orientations.io_orientation(volume.affine)
    wanted = orientations.axcodes2ornt(("L", "P", "S"))
    turn = orientations.ornt_transform(now, wanted)
    data = orientations.apply_orientation(volume.data, turn)
    return np.asarray(data), volume.affine @ orientations.inv_ornt_aff(turn, volume.data.shape)


def _stored(data: np.ndarray, slope: float) -> Int[np.ndarray, "columns rows slices"]:
    return np.clip(np.rint(data / slope), -_LARGEST, _LARGEST).astype("<i2")


def _shared(origin: DicomOrigin | None, comment: str) -> Dataset:
    """What all instances share."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    now = datetime.datetime.now()
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(MR_IMAGE)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    named = origin is not None and origin.named
    known = origin.patient() if origin is not None and named else Dataset()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        setattr(dataset, keyword, "")
    dataset.StudyID = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    for element in known:
        if element.keyword in _PATIENT:
            dataset[element.tag] = element
    if not named:
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "never copied"
    dataset.SOPClassUID = MR_IMAGE
    dataset.StudyInstanceUID = generate_uid() if origin is None else origin.study
    dataset.FrameOfReferenceUID = (None if origin is None else origin.frame_of_reference) or generate_uid()
    dataset.PositionReferenceIndicator = dataset.Laterality = ""
    dataset.SeriesInstanceUID, dataset.SeriesNumber = generate_uid(), SERIES_NUMBER
    dataset.Modality, dataset.SeriesDescription = "MR", DESCRIPTION
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = now.strftime("%Y%m%d")
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = now.strftime("%H%M%S")
    dataset.Manufacturer, dataset.ManufacturerModelName = "gsvr", "gsvr"
    dataset.SoftwareVersions = __version__
    dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    dataset.DerivationDescription = f"slice-to-volume reconstruction by gsvr {__version__}"
    dataset.ImageComments = f"Research only, not for clinical use. {comment}".strip()[:10000]
    dataset.ContentQualification = "RESEARCH"
    # a volume has no sequence of its own: types that may be empty are, and the others say so
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "RM", "NONE", ""
    dataset.MRAcquisitionType = dataset.EchoTime = dataset.EchoTrainLength = dataset.RepetitionTime = None
    dataset.AcquisitionNumber = None
    dataset.PatientPosition = ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    return dataset

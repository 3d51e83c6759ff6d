"""Stacks as a scanner would export them: realistic series for tests, demonstrations and a simulated scanner.

Everything that a reader depends on is as the vendors write it: order of instances, acquisition times of interleaved
slices, private timers, functional groups. The patient is an invented one.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from gsvr.io.dicom.decimals import decimal
from gsvr.io.dicom.enhanced_elements import add_required_elements, item
from gsvr.io.dicom.frame import GE_TIMER, LPS_TO_RAS
from gsvr.io.dicom.installed import require
from gsvr.model.slices import Stack

if TYPE_CHECKING:
    from pydicom import Dataset

Vendor = Literal["siemens", "ge", "philips"]
_NAMES = {
    "siemens": ("SIEMENS", "Avanto", "*h2d1_204", "SE", "SK\\SP\\OSP"),
    "ge": ("GE MEDICAL SYSTEMS", "Signa", "ssfse", "SE", "FAST_GEMS\\SS"),
    "philips": ("Philips Medical Systems", "Ingenia", "", "SE", "SK"),
}
# An uncompressed instance must fit 16 bits, of which scanners use 12.
_BRIGHTEST = 4095
_MR_IMAGE, _ENHANCED_MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"


@dataclass(frozen=True)
class ExaminationLabels:
    """What all instances of an examination share.

    Attributes
    ----------
    study, frame_of_reference
        Unique identifiers.
    patient_name, patient_id, birth_date
        Of an invented patient.
    date, time
        When the study began, as DICOM writes it.
    """

    study: str
    frame_of_reference: str
    patient_name: str = "PHANTOM^SIMULATED"
    patient_id: str = "SIM0001"
    birth_date: str = "19900101"
    date: str = "20260105"
    time: str = "101500"

    @staticmethod
    def new(**given: str) -> ExaminationLabels:
        """Labels with new identifiers."""
        require("pydicom")
        from pydicom.uid import generate_uid

        return ExaminationLabels(**{"study": generate_uid(), "frame_of_reference": generate_uid(), **given})


@dataclass(frozen=True)
class SeriesLabels:
    """What the instances of a series share.

    Attributes
    ----------
    number
        Of the series.
    description
        As an operator would type it.
    vendor
        Whose habits to follow.
    seconds_per_slice
        Repetition time.
    begin
        Seconds from the beginning of the study to the first slice.
    echo_time
        ms.
    image_type
        Values of Image Type.
    elements
        More elements of every instance, or others in place of those written.
    """

    number: int
    description: str = "T2 HASTE"
    vendor: Vendor = "siemens"
    seconds_per_slice: float = 1.5
    begin: float = 0.0
    echo_time: float = 90.0
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "M", "NORM", "DIS2D")
    elements: dict[str, object] = field(default_factory=dict)


def classic_series(
    stack: Stack, examination: ExaminationLabels, series: SeriesLabels, scale: float | None = None
) -> list[Dataset]:
    """One instance a slice, in the order of acquisition.

    Parameters
    ----------
    stack
        Slices and when they were acquired (in units of `SeriesLabels.seconds_per_slice`).
    examination, series
        Labels.
    scale
        Intensity of the stored value 1; None: so that the brightest pixel is stored as 4095.
    """
    from pydicom.uid import generate_uid

    scale = _scale_of(stack) if scale is None else scale
    series_uid = generate_uid()
    instances = []
    for index in np.argsort(stack.slice_times, kind="stable"):
        dataset = _common(stack, examination, series, series_uid, _MR_IMAGE)
        # Siemens and GE number instances by place, whatever the order of acquisition
        dataset.InstanceNumber = int(index) + 1
        dataset.AcquisitionNumber = 1
        seconds = float(stack.slice_times[index]) * series.seconds_per_slice
        own = series.begin + (seconds if series.vendor == "siemens" else 0.0)
        dataset.AcquisitionDate, dataset.AcquisitionTime = _moment(examination, own)
        dataset.ContentDate, dataset.ContentTime = _moment(examination, series.begin + seconds + 0.5)
        if series.vendor == "ge":
            block = dataset.private_block(GE_TIMER >> 16, "GEMS_RELA_01", create=True)
            block.add_new(GE_TIMER & 0xFF, "DS", f"{(series.begin + seconds) * 1e4:.0f}")
        position, directions, spacing = _geometry(stack, int(index))
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = position, directions
        normal = np.cross(stack.affine[:3, 0], stack.affine[:3, 1])
        along = normal @ (stack.affine[:3, 2] * index + stack.affine[:3, 3]) / np.linalg.norm(normal)
        dataset.SliceLocation = decimal(float(along))
        dataset.PixelSpacing = spacing
        dataset.SliceThickness = decimal(stack.thickness)
        dataset.SpacingBetweenSlices = decimal(float(stack.spacing[2]))
        dataset.RescaleSlope, dataset.RescaleIntercept = decimal(scale), 0
        dataset.PixelData = _stored(stack, [int(index)], scale)
        dataset.ScanningSequence = _NAMES[series.vendor][3]
        dataset.SequenceVariant = _NAMES[series.vendor][4].split("\\")
        dataset.SequenceName = _NAMES[series.vendor][2]
        dataset.ScanOptions = ""
        dataset.EchoTime, dataset.RepetitionTime = series.echo_time, series.seconds_per_slice * 1000
        dataset.EchoTrainLength, dataset.FlipAngle, dataset.NumberOfAverages = 1, 150, 1
        dataset.MRAcquisitionType, dataset.ImageType = "2D", list(series.image_type)
        for keyword, value in series.elements.items():
            setattr(dataset, keyword, value)
        instances.append(dataset)
    return instances


def enhanced_instance(
    stack: Stack, examination: ExaminationLabels, series: SeriesLabels, scale: float | None = None
) -> Dataset:
    """The whole stack as one enhanced multi-frame instance, frames in the order of acquisition."""
    from pydicom import Dataset
    from pydicom.datadict import tag_for_keyword
    from pydicom.uid import generate_uid

    scale = _scale_of(stack) if scale is None else scale
    dataset = _common(stack, examination, series, generate_uid(), _ENHANCED_MR_IMAGE)
    order = [int(index) for index in np.argsort(stack.slice_times, kind="stable")]
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(order)
    dataset.AcquisitionDateTime = "".join(_moment(examination, series.begin))
    dataset.ContentDate, dataset.ContentTime = _moment(examination, series.begin)
    dataset.ImageType = [*series.image_type[:2], "NONE", "NONE"]
    dataset.VolumetricProperties, dataset.VolumeBasedCalculationTechnique = "VOLUME", "NONE"
    dataset.PixelPresentation, dataset.ComplexImageComponent = "MONOCHROME", "MAGNITUDE"
    dataset.AcquisitionContrast, dataset.MRAcquisitionType = "T2", "2D"
    dataset.EchoPulseSequence, dataset.EchoPlanarPulseSequence = "SPIN", "NO"
    dataset.PulseSequenceName = _NAMES[series.vendor][2] or "TSE"
    organisation = generate_uid()
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=organisation)]
    dataset.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=organisation,
            DimensionIndexPointer=tag_for_keyword(keyword),
            FunctionalGroupPointer=tag_for_keyword("FrameContentSequence"),
        )
        for keyword in ("StackID", "InStackPositionNumber")
    ]
    for keyword, value in series.elements.items():
        setattr(dataset, keyword, value)
    _, directions, spacing = _geometry(stack, 0)
    measures = item(
        PixelSpacing=spacing,
        SliceThickness=decimal(stack.thickness),
        SpacingBetweenSlices=decimal(float(stack.spacing[2])),
    )
    shared = Dataset()
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=directions)]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=decimal(scale), RescaleIntercept=0, RescaleType="US")]
    shared.MREchoSequence = [item(EffectiveEchoTime=series.echo_time)]
    shared.MRTimingAndRelatedParametersSequence = [
        item(RepetitionTime=series.seconds_per_slice * 1000, FlipAngle=150, EchoTrainLength=204)
    ]
    shared.MRImageFrameTypeSequence = [
        item(
            FrameType=list(dataset.ImageType),
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="NONE",
            ComplexImageComponent="MAGNITUDE",
            AcquisitionContrast="T2",
        )
    ]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for index in order:
        seconds = series.begin + float(stack.slice_times[index]) * series.seconds_per_slice
        frame = Dataset()
        content = item(
            StackID="1",
            InStackPositionNumber=index + 1,
            TemporalPositionIndex=1,
            DimensionIndexValues=[1, index + 1],
            FrameAcquisitionNumber=1,
        )
        if series.vendor != "philips":
            content.FrameAcquisitionDateTime = "".join(_moment(examination, seconds))
        frame.FrameContentSequence = [content]
        frame.PlanePositionSequence = [item(ImagePositionPatient=_geometry(stack, index)[0])]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    whole = len(order) * series.seconds_per_slice
    add_required_elements(dataset, whole, whole if series.vendor == "philips" else series.seconds_per_slice)
    dataset.PixelData = _stored(stack, order, scale)
    return dataset


def _common(stack: Stack, examination: ExaminationLabels, series: SeriesLabels, series_uid: str, kind: str) -> Dataset:
    """What both kinds of files share."""
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, generate_uid()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(kind)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = examination.study, series_uid
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = examination.frame_of_reference, ""
    dataset.PatientName, dataset.PatientID = examination.patient_name, examination.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = examination.birth_date, "F"
    dataset.StudyDate, dataset.StudyTime = examination.date, examination.time
    dataset.SeriesDate, dataset.SeriesTime = _moment(examination, series.begin)
    dataset.AccessionNumber, dataset.StudyID, dataset.ReferringPhysicianName = "", "1", ""
    dataset.Modality, dataset.SeriesNumber = "MR", series.number
    dataset.SeriesDescription = dataset.ProtocolName = series.description
    dataset.Manufacturer, dataset.ManufacturerModelName = _NAMES[series.vendor][:2]
    dataset.MagneticFieldStrength, dataset.PatientPosition = 1.5, "HFS"
    dataset.BodyPartExamined = "ABDOMEN"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Columns, dataset.Rows = stack.data.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    return dataset


def _geometry(stack: Stack, index: int) -> tuple[list[str], list[str], list[str]]:
    """Position, directions of rows and columns, and pixel spacing of a slice, as DICOM writes them."""
    affine = stack.affine
    position = LPS_TO_RAS @ (affine[:3, 2] * index + affine[:3, 3])
    directions = [LPS_TO_RAS @ affine[:3, axis] / stack.spacing[axis] for axis in (0, 1)]
    return (
        [decimal(value) for value in position],
        [decimal(value) for value in np.concatenate(directions)],
        [decimal(stack.spacing[1]), decimal(stack.spacing[0])],
    )


def _scale_of(stack: Stack) -> float:
    return float(stack.data.max()) / _BRIGHTEST or 1.0


def _stored(stack: Stack, indices: Sequence[int], scale: float) -> bytes:
    values = np.clip(np.rint(stack.data[:, :, list(indices)] / scale), 0, _BRIGHTEST).astype("<u2")
    return np.ascontiguousarray(values.transpose(2, 1, 0)).tobytes()


def _moment(examination: ExaminationLabels, seconds: float) -> tuple[str, str]:
    """Date and time so many seconds after the study began."""
    begin = datetime.datetime.strptime(examination.date + examination.time, "%Y%m%d%H%M%S")
    moment = begin + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")

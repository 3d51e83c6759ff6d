"""One image plane of a DICOM file: what its header says about place, time and contrast.

Classic files hold one plane, enhanced multi-frame files many, with what they share stated once; both become frames.
"""

from __future__ import annotations

import datetime
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from pydicom import Dataset

# The world of DICOM is LPS+, the one of gsvr RAS+.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
# Time since the start of the examination in units of 0.1 ms, that GE's scanners write for every slice.
GE_TIMER = 0x0021105E
# Counts and lengths beyond which a header is damaged, or made to do damage.
_MOST_FRAMES, _MOST_PIXELS = 10_000, 2**24
# Degrees between directions of rows and columns, as a cosine, up to rounding in the header.
_PERPENDICULAR = 1e-3


class NoPlane(ValueError):  # noqa: N818
    """A file that is no plane of an MR acquisition; the message says what it is, as part of a sentence."""


@dataclass(frozen=True)
class Contrast:
    """What was done to make the image.

    Attributes
    ----------
    image_type
        Values of Image Type, or of the frame's type, such as ``("ORIGINAL", "PRIMARY", "M")``.
    echo_time, inversion_time
        ms, or None.
    sequences
        Values of Scanning Sequence (``"SE"``, ``"GR"``, ``"EP"``, ``"IR"``); of enhanced files what they imply.
    sequence_name
        As the vendor calls it, or empty.
    three_dimensional
        Whether a slab was encoded in three dimensions.
    diffusion
        Whether a b-value above zero is stated.
    words
        Description of series and protocol in lower case, to recognise localisers; may hold anything, and is not shown.
    """

    image_type: tuple[str, ...]
    echo_time: float | None
    inversion_time: float | None
    sequences: frozenset[str]
    sequence_name: str
    three_dimensional: bool
    diffusion: bool
    words: str


@dataclass(frozen=True)
class Frame:
    """One plane.

    Attributes
    ----------
    file, number
        Where it is: the file, and which of its frames, from 0.
    patient
        Digest of what identifies the patient: tells patients apart and nothing else.
    study, series, instance, frame_of_reference
        Unique identifiers.
    study_time
        Date and time of the study as stated, to sort by; or empty.
    series_number
        As the scanner counts, or 0.
    position
        Centre of the first pixel (RAS+ mm).
    axes
        Unit vectors (rows of the array) along which columns and rows of pixels follow each other (RAS+).
    spacing
        Distance of columns and of rows of pixels (mm).
    shape
        Columns and rows.
    thickness
        mm, or None.
    time, timer, trigger
        When it was acquired (s): by the clock, by GE's timer, since the trigger; each None if not stated.
    order
        Temporal position and instance or frame number: tells repetitions apart where no time does.
    manufacturer
        In lower case.
    contrast
        What was done to make the image.
    """

    file: Path
    number: int
    patient: str
    study: str
    study_time: str
    series: str
    series_number: int
    instance: str
    frame_of_reference: str
    position: Float[np.ndarray, " 3"]
    axes: Float[np.ndarray, "2 3"]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float | None
    time: float | None
    timer: float | None
    trigger: float | None
    order: tuple[int, int]
    manufacturer: str
    contrast: Contrast

    @property
    def normal(self) -> Float[np.ndarray, " 3"]:
        """Unit vector across the plane (RAS+)."""
        return np.cross(self.axes[0], self.axes[1])

    @property
    def height(self) -> float:
        """Position along the normal (mm)."""
        return float(self.position @ self.normal)


# What is read of a header: all that follows, and nothing else, so that nothing else can get anywhere.
HEADER_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "Modality",
    "Manufacturer",
    "ImageType",
    "StudyDate",
    "StudyTime",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "InstanceNumber",
    "AcquisitionDate",
    "AcquisitionTime",
    "AcquisitionDateTime",
    "TriggerTime",
    "TemporalPositionIdentifier",
    "ScanningSequence",
    "SequenceName",
    "PulseSequenceName",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "InversionRecovery",
    "MRAcquisitionType",
    "EchoTime",
    "InversionTime",
    "DiffusionBValue",
    "SliceThickness",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    GE_TIMER,
]


def frames_of(header: Dataset, file: Path) -> Iterator[Frame]:
    """The planes of a file.

    Raises
    ------
    NoPlane
        If it holds something else than planes of an MR acquisition.
    ValueError, AttributeError, TypeError
        If the header is damaged.
    """
    modality = _text(header, "Modality")
    if modality != "MR":
        raise NoPlane(f"{modality if modality.isalnum() else 'something'} instead of MR images")
    columns, rows = _whole(header, "Columns"), _whole(header, "Rows")
    if columns == 0 or rows == 0:
        raise NoPlane("no images")
    if columns * rows > _MOST_PIXELS:
        raise ValueError(f"{columns} x {rows} pixels")
    if _whole(header, "SamplesPerPixel", 1) != 1:
        raise NoPlane("colour images")
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None:
        if _whole(header, "NumberOfFrames", 1) != 1:
            raise NoPlane("a film without positions")
        yield _frame(header, [header], file, 0)
        return
    n_frames = _whole(header, "NumberOfFrames", 1)
    if not 1 <= n_frames <= _MOST_FRAMES or len(per_frame) != n_frames:
        raise ValueError(f"{n_frames} frames with {len(per_frame)} headers")
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])[:1]
    for number, own in enumerate(per_frame):
        yield _frame(
            header, [*_groups(own), *(group for item in shared for group in _groups(item)), header], file, number
        )


def _groups(item: Dataset) -> list[Dataset]:
    """The functional groups of a frame, which hold the elements one level down."""
    return [element.value[0] for element in item if element.VR == "SQ" and len(element.value) > 0]


def _frame(header: Dataset, places: list[Dataset], file: Path, number: int) -> Frame:
    """A plane; of several places that state something the first counts: frame, all frames, file."""

    def find(keyword: str) -> Any:
        return next((value for place in places if (value := place.get(keyword)) not in (None, "")), None)

    position, directions = find("ImagePositionPatient"), find("ImageOrientationPatient")
    spacing = find("PixelSpacing")
    if position is None or directions is None or spacing is None:
        raise NoPlane("images without a position")
    rows_and_columns = _numbers(directions, 6).reshape(2, 3)
    lengths = np.linalg.norm(rows_and_columns, axis=1)
    if abs(lengths - 1).max() > 0.01 or abs(rows_and_columns[0] @ rows_and_columns[1]) > _PERPENDICULAR:
        raise ValueError("directions of rows and columns that are none")
    between_rows, between_columns = _numbers(spacing, 2)
    if not (0 < between_rows < 1000 and 0 < between_columns < 1000):
        raise ValueError(f"pixels of {between_rows:g} x {between_columns:g} mm")
    return Frame(
        file=file,
        number=number,
        patient=_patient(header),
        study=_text(header, "StudyInstanceUID"),
        study_time=_text(header, "StudyDate") + _text(header, "StudyTime"),
        series=_text(header, "SeriesInstanceUID"),
        series_number=_whole(header, "SeriesNumber", 0),
        instance=_text(header, "SOPInstanceUID"),
        frame_of_reference=_text(header, "FrameOfReferenceUID"),
        position=LPS_TO_RAS @ _numbers(position, 3),
        axes=(rows_and_columns / lengths[:, None]) @ LPS_TO_RAS,
        spacing=(float(between_columns), float(between_rows)),
        shape=(_whole(header, "Columns"), _whole(header, "Rows")),
        thickness=_positive(find("SliceThickness")),
        time=_clock(find),
        timer=None if (timer := _number(_value(header, GE_TIMER))) is None else timer * 1e-4,
        trigger=None if (trigger := _number(find("TriggerTime"))) is None else trigger * 1e-3,
        order=(
            int(_number(find("TemporalPositionIndex") or find("TemporalPositionIdentifier")) or 0),
            number if len(places) > 1 else _whole(header, "InstanceNumber", 0),
        ),
        manufacturer=_text(header, "Manufacturer").lower(),
        contrast=_contrast(header, find),
    )


def _contrast(header: Dataset, find: Any) -> Contrast:
    sequences = {str(value) for value in _several(find("ScanningSequence"))}
    pulses = str(find("EchoPulseSequence") or "")
    sequences |= {"SPIN": {"SE"}, "GRADIENT": {"GR"}, "BOTH": {"SE", "GR"}}.get(pulses, set())
    sequences |= {"EP"} if find("EchoPlanarPulseSequence") == "YES" else set()
    sequences |= {"IR"} if find("InversionRecovery") == "YES" else set()
    echo = find("EffectiveEchoTime")
    weighting = _number(find("DiffusionBValue"))
    return Contrast(
        image_type=tuple(str(value).upper() for value in _several(find("FrameType") or find("ImageType"))),
        echo_time=_positive(find("EchoTime") if echo is None else echo),
        inversion_time=_positive(find("InversionTime")),
        sequences=frozenset(sequences),
        sequence_name=str(find("PulseSequenceName") or find("SequenceName") or ""),
        three_dimensional="3D" in str(find("MRAcquisitionType") or ""),
        diffusion=weighting is not None and weighting > 0,
        words=f"{_text(header, 'SeriesDescription')} {_text(header, 'ProtocolName')}".lower(),
    )


def _clock(find: Any) -> float | None:
    """Seconds of the acquisition by the scanner's clock, since some day long ago."""
    moment = find("FrameAcquisitionDateTime") or find("AcquisitionDateTime")
    date, time = str(find("AcquisitionDate") or ""), find("AcquisitionTime")
    # of a classic file the time of the slice is more often right than the date with time, which may be the series'
    if find("FrameAcquisitionDateTime") is None and time is not None:
        moment = (date if len(date) == 8 else "19000101") + str(time)
    if moment is None:
        return None
    digits, _, fraction = str(moment).split("+")[0].split("-")[0].partition(".")
    try:
        second = datetime.datetime.strptime(digits[:14], "%Y%m%d%H%M%S")
        return (second - datetime.datetime(1900, 1, 1)).total_seconds() + float(f"0.{fraction.strip() or 0}")
    except ValueError:
        return None


def _patient(header: Dataset) -> str:
    identity = "\n".join(_text(header, name) for name in ("PatientID", "PatientName", "PatientBirthDate"))
    return hashlib.sha256(identity.encode("utf-8", "backslashreplace")).hexdigest()


def _value(header: Dataset, tag: int) -> Any:
    element = header.get(tag)
    return None if element is None else element.value


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else str(value).strip()


def _several(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    found = float(value)
    return found if math.isfinite(found) else None


def _positive(value: Any) -> float | None:
    found = _number(value)
    return found if found is not None and found > 0 else None


def _whole(header: Dataset, keyword: str, default: int = 0) -> int:
    value = header.get(keyword)
    return default if value is None or value == "" else int(value)


def _numbers(values: Any, length: int) -> Float[np.ndarray, " n"]:
    found = np.array([float(value) for value in values])
    if found.shape != (length,) or not np.isfinite(found).all():
        raise ValueError("a position or direction that is none")
    return found

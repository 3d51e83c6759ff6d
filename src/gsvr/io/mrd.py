"""MRD (ISMRMRD) streams, as the open interfaces of scanners send them: images, one after the other.

A stream is a sequence of messages, each with its number first. What is read is bounded, and only read: configurations
are passed over, headers of measurements are XML without entities, raw data are refused.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
from jaxtyping import Float, Float32

from gsvr.errors import InputError

_CONFIG_FILE, _CONFIG_TEXT, _HEADER, _CLOSE, _TEXT = 1, 2, 3, 4, 5
_ACQUISITION, _IMAGE, _WAVEFORM = 1008, 1022, 1026
CLOSE_MESSAGE = struct.pack("<H", _CLOSE)
_CONFIG_FILE_BYTES, _WAVEFORM_BYTES = 1024, 40
# Bytes of a text and of a waveform, pixels along a side, and bytes of an image, beyond which a stream is damaged, or
# made to do damage.
_LONGEST_TEXT, _LARGEST_WAVEFORM, _MOST_PIXELS, _LARGEST_IMAGE = 2**23, 2**23, 4096, 2**28
_LARGEST_INTENSITY = 1e15
# mm from the isocentre, beyond which there is no scanner.
_FARTHEST = 1e4
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Seconds of a tick of the scanner's clock in time stamps.
_TICK = 0.0025
_IMAGE_HEADER = np.dtype(
    [
        ("version", "<u2"), ("data_type", "<u2"), ("flags", "<u8"), ("measurement_uid", "<u4"),
        ("matrix_size", "<u2", 3), ("field_of_view", "<f4", 3), ("channels", "<u2"), ("position", "<f4", 3),
        ("read_dir", "<f4", 3), ("phase_dir", "<f4", 3), ("slice_dir", "<f4", 3), ("table_position", "<f4", 3),
        ("average", "<u2"), ("slice", "<u2"), ("contrast", "<u2"), ("phase", "<u2"), ("repetition", "<u2"),
        ("set", "<u2"), ("acquisition_time_stamp", "<u4"), ("physiology_time_stamp", "<u4", 3),
        ("image_type", "<u2"), ("image_index", "<u2"), ("image_series_index", "<u2"), ("user_int", "<i4", 8),
        ("user_float", "<f4", 8), ("attribute_string_len", "<u4"),
    ]
)  # fmt: skip
_DATA_TYPES = {1: "<u2", 2: "<i2", 3: "<u4", 4: "<i4", 5: "<f4", 6: "<f8", 7: "<c8", 8: "<c16"}
_MAGNITUDES = {0, 1, 5}  # not stated, magnitude, complex
# Elements of the header that tell one examination from another, the first that is there.
_STUDY = ("studyInstanceUID", "frameOfReferenceUID", "studyID")

ReadExactly = Callable[[int], bytes]


@dataclass(frozen=True, eq=False)
class MrdMeasurement:
    """What the header of a measurement says.

    Attributes
    ----------
    study
        What tells examinations apart; empty if nothing does. May be an identifier of the patient's study.
    """

    study: str


@dataclass(frozen=True, eq=False)
class MrdImage:
    """A slice.

    Attributes
    ----------
    data
        Intensities.
    affine
        Index of column, row and slice -> world (RAS+ mm).
    thickness
        mm.
    acquired
        When it was acquired (s, by the scanner's clock), or None.
    series
        Images that differ in it are of different stacks: number of the series, contrast, phase, set, average and
        repetition.
    """

    data: Float32[np.ndarray, "columns rows"]
    affine: Float[np.ndarray, "4 4"]
    thickness: float
    acquired: float | None
    series: tuple[int, ...]


def read_messages(read: ReadExactly) -> Iterator[MrdMeasurement | MrdImage]:
    """Headers and images until the sender closes the stream.

    Parameters
    ----------
    read
        Returns so many bytes, or raises EOFError.

    Raises
    ------
    EOFError
        If the stream ends before it was closed.
    InputError
        If it is none, or holds what cannot be used.
    """
    while True:
        (kind,) = struct.unpack("<H", read(2))
        if kind == _CLOSE:
            return
        if kind == _CONFIG_FILE:
            read(_CONFIG_FILE_BYTES)
        elif kind in (_CONFIG_TEXT, _TEXT):
            _text(read)
        elif kind == _HEADER:
            yield MrdMeasurement(_study_of(_text(read)))
        elif kind == _WAVEFORM:
            _skip_waveform(read)
        elif kind == _IMAGE:
            image = _image(read)
            if image is not None:
                yield image
        elif kind == _ACQUISITION:
            raise InputError("the MRD stream holds raw data: configure the scanner to send images")
        else:
            raise InputError(f"no MRD stream: there is no message {kind}")


def _text(read: ReadExactly) -> bytes:
    (length,) = struct.unpack("<I", read(4))
    if length > _LONGEST_TEXT:
        raise InputError(f"the MRD stream announces a text of {length / 2**20:.0f} MiB: it is damaged")
    return read(length)


def _study_of(text: bytes) -> str:
    # a document type could define entities that grow without bounds
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise InputError("the header of the MRD stream defines entities: it is none of a scanner")
    try:
        root = ElementTree.fromstring(text.rstrip(b"\0"))
    except ElementTree.ParseError as error:
        raise InputError("the header of the MRD stream cannot be read") from error
    for wanted in _STUDY:
        for element in root.iter():
            if element.tag.rpartition("}")[2] == wanted and element.text and element.text.strip():
                return element.text.strip()
    return ""


def _skip_waveform(read: ReadExactly) -> None:
    header = read(_WAVEFORM_BYTES)
    samples, channels = struct.unpack_from("<HH", header, 28)
    if 4 * samples * channels > _LARGEST_WAVEFORM:
        raise InputError("the MRD stream announces a waveform without end: it is damaged")
    read(4 * samples * channels)


def _image(read: ReadExactly) -> MrdImage | None:
    """None: no magnitude image."""
    header = np.frombuffer(read(_IMAGE_HEADER.itemsize), _IMAGE_HEADER)[0]
    (attributes,) = struct.unpack("<Q", read(8))
    if attributes > _LONGEST_TEXT:
        raise InputError("the MRD stream announces attributes without end: it is damaged")
    read(attributes)
    columns, rows, planes = (int(side) for side in header["matrix_size"])
    channels, kind = int(header["channels"]), _DATA_TYPES.get(int(header["data_type"]))
    if kind is None or not (0 < columns <= _MOST_PIXELS and 0 < rows <= _MOST_PIXELS and planes > 0 and channels > 0):
        raise InputError("the MRD stream holds an image of no size or kind that there is: it is damaged")
    size = columns * rows * planes * channels * np.dtype(kind).itemsize
    if size > _LARGEST_IMAGE:
        raise InputError(f"the MRD stream announces an image of {size / 2**20:.0f} MiB: it is damaged")
    values = np.frombuffer(read(size), kind)
    if int(header["image_type"]) not in _MAGNITUDES:
        return None
    if planes * channels != 1:
        raise InputError("the MRD stream holds volumes or single coils: configure the scanner to send combined slices")
    data = np.abs(values) if np.iscomplexobj(values) else values
    data = data.reshape(rows, columns).T.astype(np.float32)
    if not (np.isfinite(data).all() and np.abs(data).max() < _LARGEST_INTENSITY):
        raise InputError("the MRD stream holds intensities that are none")
    stamp = int(header["acquisition_time_stamp"])
    series = tuple(
        int(header[name]) for name in ("image_series_index", "contrast", "phase", "set", "average", "repetition")
    )
    return MrdImage(data, _affine(header), float(header["field_of_view"][2]), stamp * _TICK if stamp else None, series)


def _affine(header: np.void) -> Float[np.ndarray, "4 4"]:
    """The position of an MRD image is that of the pixel in the middle, counted as Fourier transforms count."""
    sides = header["field_of_view"].astype(np.float64)
    position = header["position"].astype(np.float64)
    axes = np.stack([header[name].astype(np.float64) for name in ("read_dir", "phase_dir", "slice_dir")], axis=1)
    finite = np.isfinite(sides).all() and np.isfinite(position).all() and np.isfinite(axes).all()
    if not (finite and (sides > 0).all() and (sides < _FARTHEST).all() and np.abs(position).max() < _FARTHEST):
        raise InputError("the MRD stream holds an image without size or place")
    if not np.allclose(axes.T @ axes, np.eye(3), atol=1e-3):
        raise InputError("the MRD stream holds an image whose directions are not perpendicular")
    affine = np.eye(4)
    affine[:3, :3] = axes * (sides / np.maximum(header["matrix_size"], 1))
    affine[:3, 3] = position - axes[:, :2] @ (sides[:2] / 2)
    affine[:3] *= _LPS_TO_RAS[:, None]
    return affine

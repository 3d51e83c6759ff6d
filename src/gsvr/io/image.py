"""One NIfTI file as an array and its affine, or one sentence that says why it cannot be used.

Nothing here knows what the image is for; `gsvr.io.nifti` makes stacks, masks and volumes of it.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from jaxtyping import Float, Float32
from nibabel.filebasedimages import ImageFileError, SerializableImage
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from gsvr.errors import InputError
from gsvr.model.validation import as_affine, check_extent

logger = logging.getLogger(__name__)

_UNREADABLE = (
    ImageFileError,
    HeaderDataError,
    HeaderTypeError,
    OSError,
    EOFError,
    zlib.error,
    ValueError,
    OverflowError,
    MemoryError,
)
# The lower three bits of xyzt_units: unknown, metre, millimetre, micrometre. Unknown has always meant mm.
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# No deflated byte stands for more bytes than this.
_BEST_COMPRESSION = 1032
# Bytes after the last voxel that are read, in pieces, and passed over.
_MOST_PADDING, _CHUNK = 2**26, 2**20
# mm between neighbouring voxels beyond which a header is wrong
_SPACINGS = (1e-3, 1e3)
# Intensity beyond which a number is damage: sums of its square still fit float32.
_LARGEST_INTENSITY = 1e15
# mm (or the file's unit) between the header's two affines before it is worth a warning
_FORM_TOLERANCE = 1.0
# How far apart (mm) the corners of two images of one grid may lie.
GRID_TOLERANCE = 0.1


@dataclass(frozen=True)
class Image:
    """Voxels of a file in the order of the file.

    Attributes
    ----------
    path
        The file, for messages.
    data
        Intensities, all finite.
    affine
        Voxel index -> world (RAS+, mm).
    slice_axis
        The axis that the header calls through-plane (``dim_info``), or None if it does not say.
    """

    path: Path
    data: Float32[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    slice_axis: int | None


def load_image(path: str | Path) -> Image:
    """Read a 3-D NIfTI file (``.nii`` or ``.nii.gz``); trailing axes of length one are dropped.

    Raises
    ------
    InputError
        If the file is missing, a folder, not NIfTI, damaged, of complex or colour voxels, of more than three
        dimensions, not finite or beyond all intensities, or its affine is not finite or does not span space.
    """
    path = Path(path)
    image = _open(path)
    shape = _shape(image, path)
    try:
        # Values that float32 cannot hold become infinite and are refused below.
        with np.errstate(over="ignore"):
            data = image.get_fdata(dtype=np.float32, caching="unchanged").reshape(shape)
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    finite = np.isfinite(data)
    if not finite.all():
        n_missing = int(np.isnan(data).sum())
        n_infinite = int(data.size - finite.sum()) - n_missing
        raise InputError(f"{path} holds {n_missing} NaN and {n_infinite} infinite voxels: replace them by numbers")
    largest = float(max(data.max(), -data.min()))
    if largest > _LARGEST_INTENSITY:
        raise InputError(f"{path} holds values up to {largest:.1g}, which no scanner records: replace them by others")
    slice_axis = image.header.get_dim_info()[2]
    return Image(path, np.ascontiguousarray(data), _affine(image, path), slice_axis)


def size(shape: tuple[int, ...]) -> str:
    """Write a grid's shape as messages show it."""
    return " x ".join(str(length) for length in shape)


def grid_distance(first: Float[np.ndarray, "4 4"], second: Float[np.ndarray, "4 4"], shape: tuple[int, ...]) -> float:
    """Largest distance (mm) between a corner voxel under one affine and the same voxel under another."""
    corners = np.stack(np.meshgrid(*[(0, length - 1) for length in shape], [1], indexing="ij"), axis=-1)
    difference = corners.reshape(-1, 4) @ (np.asarray(first) - second).T
    return float(np.linalg.norm(difference[:, :3], axis=1).max())


def check_is_file(path: Path) -> None:
    """Refuse a folder, a pattern, a pipe, or nothing at all in place of an image."""
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give one NIfTI file (.nii or .nii.gz)")
    if not os.path.exists(path):
        pattern = " (a pattern in quotes is not expanded)" if set("*?[") & set(path.name) else ""
        raise InputError(f"{path} does not exist{pattern}: check the name")
    if not os.path.isfile(path):
        raise InputError(f"{path} is a device or a pipe: give one NIfTI file (.nii or .nii.gz)")


def _open(path: Path) -> nibabel.Nifti1Pair:
    check_is_file(path)
    try:
        with LoggingOutputSuppressor():  # what it finds and mends in a header is no message of gsvr's
            image = nibabel.load(path)
        if isinstance(image, nibabel.Nifti1Pair):
            _refuse_missing_content(image, path)
            if path.suffix == ".gz" and isinstance(image, SerializableImage):
                image = type(image).from_bytes(_decompressed(path, _stored_size(image)))  # decompressed only once
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise InputError(f"{path} is not a NIfTI image: convert it to .nii.gz (from DICOM: dcm2niix)")
    dtype = np.dtype(image.get_data_dtype())
    if dtype.kind not in "iuf":
        kind = "complex" if dtype.kind == "c" else "colour"
        raise InputError(f"{path} has {kind} voxels: give an image of one real number a voxel (magnitude)")
    return image


def _stored_size(image: nibabel.Nifti1Pair) -> int:
    """Bytes up to the end of the voxels, as the header has it; or of the header, if it claims none."""
    offset = image.dataobj.offset  # pyright: ignore[reportAttributeAccessIssue]
    length = int(offset) + math.prod(map(int, image.shape)) * np.dtype(image.get_data_dtype()).itemsize
    return max(length, len(image.header.binaryblock))


def _refuse_missing_content(image: nibabel.Nifti1Pair, path: Path) -> None:
    """A header may claim anything: look before memory is asked for."""
    content = Path(image.file_map["image"].filename or path)
    most = os.path.getsize(content) * (_BEST_COMPRESSION if content.suffix == ".gz" else 1)
    if _stored_size(image) > most:
        raise InputError(f"{path} ends before the {size(image.shape)} voxels of its header: export or copy it again")


def _decompressed(path: Path, length: int) -> bytes:
    """Read so many bytes, and on to the end: only there is the checksum that tells damage from intensities."""
    with gzip.open(path) as file:
        content = file.read(length)
        for _ in range(_MOST_PADDING // _CHUNK):
            if not file.read(_CHUNK):
                return content
    raise InputError(f"{path} goes on long after the last voxel of its header: export or copy it again")


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return InputError(f"{path} is not a readable NIfTI image ({reason}): export or copy it again")


def _shape(image: nibabel.Nifti1Pair, path: Path) -> tuple[int, int, int]:
    shape = tuple(int(length) for length in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise InputError(f"{path} is {len(shape)}-D ({size(shape)}): split it and give one 3-D image a file")
    if min(shape, default=0) < 1:
        raise InputError(f"{path} holds no voxels ({size(shape)}): export it again")
    columns, rows, slices = (*shape, 1, 1)[:3]
    return columns, rows, slices


def _affine(image: nibabel.Nifti1Pair, path: Path) -> Float[np.ndarray, "4 4"]:
    header = image.header
    if int(header["qform_code"]) == 0 and int(header["sform_code"]) == 0:
        logger.warning(
            "%s: the header has no orientation (qform and sform code 0); left and right and the position "
            "relative to other images cannot be trusted",
            path,
        )
    affine = np.array(image.affine, dtype=np.float64)
    _warn_if_forms_disagree(image, path)
    affine[:3] *= _MM_PER_UNIT.get(int(header["xyzt_units"]) & 7, 1.0)
    try:
        affine = as_affine("the affine", affine)
        check_extent("the image", affine)
    except ValueError as error:
        raise InputError(
            f"{path} has an unusable affine (zero, parallel or not finite axes): export it again"
        ) from error
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths.min() >= _SPACINGS[0] and lengths.max() <= _SPACINGS[1]):
        spacing = " x ".join(f"{length:.3g}" for length in lengths)
        raise InputError(f"{path} has voxels of {spacing} mm, which cannot be: correct its header, or export it again")
    return affine


def _warn_if_forms_disagree(image: nibabel.Nifti1Pair, path: Path) -> None:
    """Other tools may read the qform where this one reads the sform, and see another geometry."""
    header = image.header
    if int(header["qform_code"]) == 0 or int(header["sform_code"]) == 0:
        return
    try:
        qform = header.get_qform()
    except (HeaderDataError, ValueError):
        return
    distance = grid_distance(np.asarray(qform), np.asarray(header.get_sform()), image.shape[:3])
    if distance > _FORM_TOLERANCE:
        logger.warning("%s: sform and qform differ by up to %.3g mm; using the sform", path, distance)

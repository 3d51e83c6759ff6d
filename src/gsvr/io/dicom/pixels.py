"""The pixels of a stack, in the units of its header."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from gsvr.errors import InputError
from gsvr.io.dicom.folder import UNREADABLE, quietly, warn_of_broken
from gsvr.io.dicom.frame import Frame
from gsvr.io.dicom.stacks import DicomStack, without
from gsvr.io.image import Image
from gsvr.io.nifti import stack_from_image
from gsvr.io.sidecar import Sidecar, SliceOrder
from gsvr.model.slices import Stack

logger = logging.getLogger(__name__)

_MOST_PIXELS = 2**29
_LARGEST_INTENSITY = 1e15
# mm; of a slice whose header does not say, and that has no neighbours yet.
_USUAL_THICKNESS = 3.0


def read_dicom_stack(found: DicomStack, thickness: float | None = None, order: SliceOrder | str = "auto") -> Stack:
    """The stack with its pixels; thickness and order of acquisition from the headers if not given.

    Slices that cannot be read are named in a warning; then the longest run of slices that are next to each other is
    what is left.

    Parameters
    ----------
    found
        Sorted slices.
    thickness
        Slice thickness (mm), in place of the headers'.
    order
        Order of acquisition, see `gsvr.io.sidecar.acquisition_times`.

    Raises
    ------
    InputError
        If fewer than two slices can be read, or the image is none (see `gsvr.io.nifti.read_stack`).
    """
    data, broken = _pixels(found.frames)
    if broken:
        rest = max(without(found, broken), key=lambda part: part.n_slices, default=None)
        if rest is None or rest.n_slices < 2:
            raise InputError(f"{found.name} cannot be read: export the series again, or leave it out")
        logger.warning("%s: %d of %d slices are left", found.name, rest.n_slices, found.n_slices)
        kept = {(frame.file, frame.number) for frame in rest.frames}
        data = data[:, :, [(frame.file, frame.number) in kept for frame in found.frames]]
        found = rest
    times = found.times
    sidecar = Sidecar(found.thickness, None if times is None else tuple(times.tolist()), Path(found.name))
    if times is None and order == "auto":
        logger.info("%s: the headers do not tell when each slice was acquired; taken for interleaved", found.name)
    image = Image(Path(found.name), np.ascontiguousarray(data), found.affine, slice_axis=2)
    return stack_from_image(image, thickness, order, sidecar)


def read_dicom_slice(frame: Frame) -> Stack:
    """A slice alone, as a stack of one.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    found = DicomStack((frame,))
    data, broken = _pixels(found.frames)
    if broken:
        raise InputError(f"a slice of {found.name} cannot be read: send it again")
    return Stack(found.name, data, found.affine, found.thickness or _USUAL_THICKNESS, slice_times=np.zeros(1))


def _pixels(frames: Sequence[Frame]) -> tuple[Float32[np.ndarray, "columns rows slices"], list[Frame]]:
    """Intensities of all planes, and those planes that cannot be read."""
    columns, rows = frames[0].shape
    if columns * rows * len(frames) > _MOST_PIXELS:
        raise InputError(f"{len(frames)} slices of {columns} x {rows} pixels are no stack: leave the series out")
    data = np.zeros((columns, rows, len(frames)), np.float32)
    broken: list[Frame] = []
    by_file: dict[Path, list[int]] = {}
    for index, frame in enumerate(frames):
        by_file.setdefault(frame.file, []).append(index)
    for file, indices in by_file.items():
        try:
            planes = _planes(file, [frames[index].number for index in indices])
            for index, plane in zip(indices, planes, strict=True):
                data[:, :, index] = plane.T
        except UNREADABLE as error:
            broken += [frames[index] for index in indices]
            warn_of_broken(file.name, error)
    return data, broken


def _planes(file: Path, numbers: Sequence[int]) -> list[Float32[np.ndarray, "rows columns"]]:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    with quietly():
        dataset = pydicom.dcmread(file)
        several = "PerFrameFunctionalGroupsSequence" in dataset
        planes = []
        for number in numbers:
            stored = pixel_array(dataset, index=number) if several else pixel_array(dataset)
            slope, intercept = _scale(dataset, number if several else None)
            plane = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
            if not (np.isfinite(plane).all() and np.abs(plane).max(initial=0.0) <= _LARGEST_INTENSITY):
                raise ValueError("intensities that are none")
            if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
                raise ValueError("dark is bright in it")
            planes.append(plane)
    return planes


def _scale(dataset: Any, number: int | None) -> tuple[float, float]:
    """Slope and intercept from stored values to intensities."""
    places = [dataset]
    if number is not None:
        groups = [dataset.PerFrameFunctionalGroupsSequence[number], *dataset.SharedFunctionalGroupsSequence[:1]]
        found = [group.PixelValueTransformationSequence[0] for group in groups if _has_scale(group)]
        places = [*found, dataset]
    for place in places:
        slope = place.get("RescaleSlope")
        if slope is not None:
            return float(slope), float(place.get("RescaleIntercept") or 0.0)
    return 1.0, 0.0


def _has_scale(group: Any) -> bool:
    return len(group.get("PixelValueTransformationSequence") or []) > 0

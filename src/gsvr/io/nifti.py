"""NIfTI files as stacks, masks and volumes, and back. All affines are voxel index -> world (RAS+, mm)."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace
from pathlib import Path
from typing import Literal

import nibabel
import numpy as np
from jaxtyping import Float, Float32, Shaped

from gsvr.errors import InputError
from gsvr.io.atomic import atomic_path, check_writable_file
from gsvr.io.image import GRID_TOLERANCE, Image, grid_distance, load_image, size
from gsvr.io.mask import read_mask
from gsvr.io.sidecar import Sidecar, SliceOrder, acquisition_times, read_sidecar, resolve_thickness
from gsvr.model.slices import Stack
from gsvr.model.validation import LARGEST_SHEAR
from gsvr.model.volume import Volume

logger = logging.getLogger(__name__)

# An axis is taken for through-plane when its spacing exceeds both others by this factor.
_CLEARLY_LARGER = 1.2
# NIfTI's names of worlds: that of the scanner, and one that an image was aligned with.
_CODES = {"scanner": 1, "anatomical": 2}
# How many times brighter than most slices one of them may be.
_LARGEST_OUTLIER = 1e6


def read_stack(
    path: str | Path,
    mask_path: str | Path | None = None,
    thickness: float | None = None,
    order: SliceOrder | str = "auto",
) -> Stack:
    """Read one stack of slices, with its mask, slice thickness and acquisition order.

    The through-plane axis is the slice axis of the header's ``dim_info`` if set, else the axis whose spacing
    is clearly the largest, else the last. It comes last in the result: other axis orders are permuted, data
    and affine together, so every voxel keeps its position in the world.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``; a JSON sidecar beside it is read if present.
    mask_path
        Mask, see `gsvr.io.mask.read_mask`, or None.
    thickness
        Slice thickness (mm); None: from the sidecar, else the slice spacing with a warning.
    order
        Acquisition order of the slices, see `gsvr.io.sidecar.acquisition_times`.

    Raises
    ------
    InputError
        If a file cannot be used (see also `gsvr.io.image.load_image`): fewer than two slices, a constant
        image, a value that is no intensity, in-plane axes that are not perpendicular, a mask that is empty or
        elsewhere, a thickness that cannot be right.
    """
    stack = stack_from_image(load_image(path), thickness, order)
    if mask_path is None:
        return stack
    return replace(stack, mask=read_mask(mask_path, stack))


def stack_from_image(
    image: Image, thickness: float | None = None, order: SliceOrder | str = "auto", sidecar: Sidecar | None = None
) -> Stack:
    """The stack in an image, without a mask; see `read_stack`.

    What a sidecar says may be given; default: the file beside the image.
    """
    path = image.path
    _three_dimensional(image)
    _refuse_constant(image)
    axis = _through_plane_axis(image)
    if axis != 2:
        logger.info("%s: through-plane is axis %d of %s; moved last", path, axis + 1, size(image.data.shape))
    columns = [*(other for other in range(3) if other != axis), axis]
    affine = image.affine[:, [*columns, 3]]
    sidecar = read_sidecar(path) if sidecar is None else sidecar
    thickness, source = resolve_thickness(thickness, sidecar, _slice_spacing(affine, image.path), path)
    logger.info("%s: slice thickness %.3g mm (%s)", path, thickness, source)
    data = np.ascontiguousarray(image.data.transpose(columns))
    refuse_outliers(data, path)
    return Stack(
        name=stack_name(path),
        data=data,
        affine=affine,
        thickness=thickness,
        mask=None,
        slice_times=acquisition_times(order, data.shape[2], sidecar),
        thickness_source=source,
    )


def read_volume(path: str | Path, mask_path: str | Path | None = None) -> Volume:
    """Read a volume and, if given, its mask.

    Raises
    ------
    InputError
        If a file cannot be used, see `gsvr.io.image.load_image`; if it is constant or has a single slice; if
        the mask is empty or elsewhere.
    """
    image = _three_dimensional(load_image(path))
    _refuse_constant(image)
    volume = Volume(data=image.data, affine=image.affine)
    if mask_path is None:
        return volume
    return Volume(image.data, image.affine, read_mask(mask_path, volume))


def write_volume(
    path: str | Path,
    data: Shaped[np.ndarray, "x y z"],
    affine: Float[np.ndarray, "4 4"],
    space: Literal["scanner", "anatomical"] = "scanner",
) -> None:
    """Write a NIfTI image, whole or not at all; equal images give equal bytes.

    Units are mm and both qform and sform hold `affine`, as scanner or as aligned coordinates. A sheared affine, which
    a qform cannot hold, goes into the sform alone.

    Parameters
    ----------
    path
        Ends in ``.nii`` or ``.nii.gz``.
    data
        Booleans and uint8 are written as uint8 (masks), everything else as float32.
    affine
        Voxel index -> world (RAS+, mm).
    space
        Which world that is.

    Raises
    ------
    InputError
        If the name has another suffix, or the file cannot be written.
    """
    path = _named_as_nifti(path)
    dtype = np.uint8 if data.dtype in (np.bool_, np.uint8) else np.float32
    image = nibabel.Nifti1Image(np.asarray(data, dtype=dtype), affine)
    image.header.set_xyzt_units(xyz="mm")
    image.set_sform(affine, code=_CODES[space])
    image.set_qform(affine, code=_CODES[space])
    if grid_distance(image.get_qform(), affine, data.shape) > GRID_TOLERANCE:
        image.set_qform(None)
    content = image.to_bytes()
    if path.suffix == ".gz":
        content = gzip.compress(content, compresslevel=6, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def check_volume_path(path: str | Path) -> None:
    """Refuse, before any work is done, a name under which no NIfTI file could be written.

    Raises
    ------
    InputError
        If the name does not end in ``.nii`` or ``.nii.gz``, is that of a folder, or its folder cannot be written.
    """
    check_writable_file(_named_as_nifti(path))


def _named_as_nifti(path: str | Path) -> Path:
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path}: the name of a NIfTI file must end in .nii or .nii.gz")
    return path


def stack_name(path: str | Path) -> str:
    """Name a stack after its file: the file's name without ``.nii`` or ``.nii.gz``."""
    return Path(path).name.removesuffix(".gz").removesuffix(".nii")


def _three_dimensional(image: Image) -> Image:
    if min(image.data.shape) < 2:
        raise InputError(
            f"{image.path} is a single slice ({size(image.data.shape)} voxels): give a 3-D image of two slices or more"
        )
    return image


def _refuse_constant(image: Image) -> None:
    low, high = float(image.data.min()), float(image.data.max())
    if low == high:
        what = "is empty (every voxel is zero)" if low == 0 else f"is constant (every voxel is {low:g})"
        raise InputError(f"{image.path} {what}: export it again or leave it out")


def refuse_outliers(data: Float32[np.ndarray, "x y z"], path: Path) -> None:
    """Robust weights deal with artefacts of any brightness, but not with numbers that are none.

    Raises
    ------
    InputError
        If a slice holds such a number, or none holds anything.
    """
    brightest = np.maximum(data.max(axis=(0, 1)), -data.min(axis=(0, 1)))
    if not brightest.any():
        raise InputError(f"{path} is empty (every voxel is zero): export it again or leave it out")
    usual = float(np.quantile(brightest[brightest > 0], 0.75, method="lower"))
    worst = int(np.argmax(brightest))
    if brightest[worst] > _LARGEST_OUTLIER * usual:
        raise InputError(
            f"{path} holds a value of {brightest[worst]:.2g} in slice {worst}, where most slices have none above "
            f"{usual:.2g}: replace it, or leave the stack out"
        )


def _through_plane_axis(image: Image) -> int:
    if image.slice_axis is not None:
        return image.slice_axis
    spacing = np.linalg.norm(image.affine[:3, :3], axis=0)
    largest = int(np.argmax(spacing))
    others = np.delete(spacing, largest)
    return largest if spacing[largest] > _CLEARLY_LARGER * others.max() else 2


def _slice_spacing(affine: np.ndarray, path: Path) -> float:
    """Distance between neighbouring slice planes (mm) of an affine whose last axis is through-plane."""
    axis_u, axis_v = (affine[:3, k] / np.linalg.norm(affine[:3, k]) for k in (0, 1))
    shear = abs(float(axis_u @ axis_v))
    if shear > LARGEST_SHEAR:
        angle = np.degrees(np.arccos(shear))
        raise InputError(
            f"{path}: the in-plane axes meet at {angle:.1f} degrees instead of 90: resample it without shear"
        )
    return abs(float(np.cross(axis_u, axis_v) @ affine[:3, 2]))

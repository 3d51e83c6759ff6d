"""Masks of stacks and volumes, on the grid of their image or on another one."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32
from nibabel import orientations
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.io.image import GRID_TOLERANCE, grid_distance, load_image
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume

logger = logging.getLogger(__name__)


def read_mask(path: str | Path, like: Stack | Volume) -> Bool[np.ndarray, "x y z"]:
    """Read the mask of a stack or volume, on its grid.

    A file of the same voxels in another axis order or direction is reordered, one of other voxels is resampled, with a
    warning.

    Raises
    ------
    InputError
        If the file cannot be read, is empty, or lies elsewhere.
    """
    mask = load_mask(path)
    same = reordered(mask, like)
    if same is not None:
        return same
    found = resampled(mask, like)
    if not found.any():
        raise InputError(f"{path} does not meet its image: give the mask that belongs to it")
    logger.warning("%s is on another grid than its image, and was resampled onto it", path)
    return found


def load_mask(path: str | Path) -> Volume:
    """Read a mask as it is stored.

    True where the file's value exceeds 0.5 if no value exceeds 1 (a label, a probability), else where it is above 0.

    Raises
    ------
    InputError
        If the file cannot be read, or is empty.
    """
    image = load_image(path)
    mask = is_inside(image.data)
    if not mask.any():
        raise InputError(f"{path} is empty (no voxel is inside the mask): draw it again or leave it out")
    return Volume(image.data, image.affine, mask)


def is_mask(values: Float32[np.ndarray, "x y z"]) -> bool:
    """Whether an image has two values alone, one of them zero."""
    largest = values.max()
    return bool(largest > 0 and values.min() == 0 and ((values == 0) | (values == largest)).all())


def is_inside(values: Float32[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Values above 0.5 if none exceeds 1 (labels, probabilities), else those above 0."""
    return values > (0.5 if values.max() <= 1.0 else 0.0)


def reordered(mask: Volume, like: Stack | Volume) -> Bool[np.ndarray, "x y z"] | None:
    """The mask in the order of the voxels of an image; None if these are others (by more than 0.1 mm)."""
    # axes and directions of the mask as seen from the grid of `like`
    orientation = orientations.io_orientation(np.linalg.solve(like.affine, mask.affine))
    affine = mask.affine @ orientations.inv_ornt_aff(orientation, mask.data.shape)
    found = orientations.apply_orientation(mask.mask, orientation)
    if found.shape != like.data.shape or grid_distance(affine, like.affine, found.shape) > GRID_TOLERANCE:
        return None
    return np.ascontiguousarray(found, dtype=bool)


def resampled(mask: Volume, like: Stack | Volume) -> Bool[np.ndarray, "x y z"]:
    """Voxels of an image whose centres lie inside the mask, wherever that has its own."""
    to_index = np.linalg.inv(mask.affine) @ like.affine
    inside = np.asarray(mask.mask, dtype=np.float32)
    shape = like.data.shape
    found = ndimage.affine_transform(inside, to_index, output_shape=shape, order=1, mode="grid-constant")
    return np.asarray(found > 0.5)

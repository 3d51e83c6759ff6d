"""Shapes of masks and points: the boxes around them, the distance to a mask, and its largest part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped
from scipy import ndimage

from gsvr.model.validation import as_mask

# Up to this many voxels, squared distances by steps are cheaper than a distance transform, and fit into 16 bits.
_MOST_STEPS = 24


def bounding_box(mask: Bool[np.ndarray, "*shape"], margin: int | np.ndarray = 0) -> tuple[slice, ...]:
    """Smallest box that holds every True, of which there is one at least, and `margin` elements around it."""
    (found,) = ndimage.find_objects(mask.view(np.uint8))
    margins = np.broadcast_to(margin, mask.ndim).tolist()
    return tuple(slice(max(part.start - m, 0), part.stop + m) for part, m in zip(found, margins, strict=True))


def box_near(
    points: Float[np.ndarray, "n 3"], affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...], margin: float
) -> tuple[slice, ...]:
    """Smallest box of a grid that holds what lies within `margin` of the box around some points; all if that is none.

    Parameters
    ----------
    points
        In world (mm).
    affine, shape
        Of the grid, voxel index -> world (mm).
    margin
        mm.
    """
    ends = np.stack([points.min(axis=0) - margin, points.max(axis=0) + margin])
    corners = np.array([[ends[i, 0], ends[j, 1], ends[k, 2]] for i, j, k in np.ndindex(2, 2, 2)])
    index = (corners - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    first = np.clip(np.ceil(index.min(axis=0)).astype(int), 0, shape)
    last = np.clip(np.floor(index.max(axis=0)).astype(int) + 1, 0, shape)
    if (last <= first).any():
        return tuple(slice(0, n) for n in shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(first, last, strict=True))


def distance_to(mask: Shaped[np.ndarray, "x y z"], spacing: float | Sequence[float]) -> Float[np.ndarray, "x y z"]:
    """Distance (mm) of every voxel's centre to the nearest voxel inside the mask; zero inside.

    `spacing` is the voxel size (mm). An empty mask is infinitely far away.
    """
    mask = as_mask("the mask", mask, (None, None, None))
    if not mask.any():
        return np.full(mask.shape, np.inf)
    sampling = [float(size) for size in np.broadcast_to(spacing, 3)]
    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=sampling))


def within(
    mask: Shaped[np.ndarray, "x y z"], distance: float, spacing: float | Sequence[float]
) -> Bool[np.ndarray, "x y z"]:
    """Voxels whose centre lies at most `distance` (mm) from the nearest voxel inside the mask."""
    mask = as_mask("the mask", mask, (None, None, None))
    near = np.zeros_like(mask)
    if not mask.any():
        return near
    # only the neighbourhood of the mask can be near: a brain fills a hundredth of a stack
    box = bounding_box(mask, np.ceil(distance / np.broadcast_to(spacing, 3)).astype(int) + 1)
    inner = mask[box]
    size = float(np.max(spacing))
    if np.min(spacing) == size and distance / size < _MOST_STEPS:
        near[box] = _within_steps(inner, distance / size)
    else:
        near[box] = distance_to(inner, spacing) <= distance
    return near


def closed(mask: Shaped[np.ndarray, "x y z"], distance: float, spacing: float) -> Bool[np.ndarray, "x y z"]:
    """The mask and its gaps: all that no ball of radius `distance` (mm) reaches without touching the mask.

    That is, all voxels farther than `distance` from every voxel that is itself farther than that from the mask.
    """
    mask = as_mask("the mask", mask, (None, None, None))
    room = int(np.ceil(distance / spacing)) + 1  # beyond the array there is no mask
    wide = within(np.pad(mask, room), distance, spacing)
    inner = (slice(room, -room),) * 3
    return mask | ~within(~wide, distance, spacing)[inner]


def _within_steps(mask: Bool[np.ndarray, "x y z"], distance: float) -> Bool[np.ndarray, "x y z"]:
    """`within` in units of isotropic voxels: squared distances up to the limit, one axis after the other.

    Small integers and whole-array minima: several times faster than a distance transform for short distances.
    """
    limit = int(distance**2 + 1e-6)
    beyond = limit + 1
    steps = int(np.sqrt(limit))
    squared = np.where(mask, 0, beyond).astype(np.uint8 if beyond + steps**2 < 256 else np.uint16)
    for axis in range(3):
        lines = np.moveaxis(squared, axis, 0)
        nearest = squared.copy()
        moved = np.moveaxis(nearest, axis, 0)
        for step in range(1, min(steps, len(lines) - 1) + 1):
            cost = lines.dtype.type(step**2)
            np.minimum(moved[step:], lines[:-step] + cost, out=moved[step:])
            np.minimum(moved[:-step], lines[step:] + cost, out=moved[:-step])
        squared = np.minimum(nearest, beyond, out=nearest)
    return squared <= limit


def largest_part(mask: Shaped[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Largest connected part of a mask, holes filled; empty if the mask is."""
    mask = as_mask("the mask", mask, (None, None, None))
    labels = np.empty(mask.shape, dtype=np.int32)
    if not ndimage.label(mask, output=labels):
        return np.zeros_like(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes(labels == sizes.argmax()), dtype=bool)

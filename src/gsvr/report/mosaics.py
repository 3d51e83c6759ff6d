"""Planes of a volume side by side, and the same planes of the stacks as they were acquired.

A volume of gsvr lies along the world's axes, so that its planes are those of the world and nothing is interpolated. The
stacks are averaged where their headers put them: what one would have without motion correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy import ndimage

from gsvr.model.morphology import bounding_box
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.report.colours import grey, outlined, sequential, window
from gsvr.report.inline_images import InlineImage, inline_image

# Name, axis that the planes are perpendicular to, and the letters at the left, the right, the top and the bottom of a
# radiological view.
_VIEWS = (("axial", 2, "RLAP"), ("coronal", 1, "RLSI"), ("sagittal", 0, "APSI"))
# Voxels around the brain.
_MARGIN = 4
# How far from the ends of the brain the first and the last plane of a row are, as a share of its extent.
_END = 0.14
_ENLARGED = 2.0


@dataclass(frozen=True)
class View:
    """Planes in one direction.

    Attributes
    ----------
    name
        Axial, coronal or sagittal.
    letters
        What lies at the left, the right, the top and the bottom.
    images
        Each with what it shows, as one picture.
    """

    name: str
    letters: str
    images: list[tuple[str, InlineImage]]


def middle_planes(volume: Volume, mask: Bool[np.ndarray, "x y z"], uncertainty: Volume | None = None) -> list[View]:
    """The three planes through the middle of the brain, as they are, with its outline, and how uncertain they are."""
    middle = middle_voxel(mask)
    low, high = window(volume.data[mask])
    views = []
    for name, axis, letters in _VIEWS:
        planes = [_plane(data, axis, middle[axis]) for data in (volume.data, mask)]
        crop = _crop(mask, axis)
        picture, inside = grey((planes[0] - low) / (high - low))[crop], planes[1][crop]
        images = [("volume", inline_image(picture, _ENLARGED))]
        images += [("brain mask", inline_image(outlined(picture, inside, 1), _ENLARGED))]
        if uncertainty is not None:
            most = window(uncertainty.data[mask])[1]
            shown = sequential(_plane(uncertainty.data, axis, middle[axis])[crop] / most)
            images += [("uncertainty", inline_image(np.where(inside[..., None], shown, np.uint8(0)), _ENLARGED))]
        views.append(View(name, letters, images))
    return views


def before_and_after(
    volume: Volume, mask: Bool[np.ndarray, "x y z"], stacks: Sequence[Stack], n_planes: int = 6
) -> list[View]:
    """Rows of planes through all of the brain: the average of the stacks as acquired, and the volume."""
    low, high = window(volume.data[mask])
    average = averaged(stacks, volume.affine)
    views = []
    for name, axis, letters in _VIEWS:
        crop, places = _crop(mask, axis), _places(mask, axis, n_planes)
        after = np.concatenate([_plane(volume.data, axis, place)[crop] for place in places], axis=1)
        before = np.concatenate(
            [_viewed(average(_plane_index(volume.data.shape, axis, place)))[crop] for place in places], axis=1
        )
        inside = np.concatenate([_plane(mask, axis, place)[crop] for place in places], axis=1)
        start, end = window(before[inside])
        images = [
            ("before", inline_image(grey((before - start) / (end - start)))),
            ("after", inline_image(grey((after - low) / (high - low)))),
        ]
        views.append(View(name, letters, images))
    return views


def middle_voxel(mask: Bool[np.ndarray, "x y z"]) -> tuple[int, int, int]:
    """Voxel nearest to the centre of mass."""
    x, y, z = (round(float(places.mean())) for places in np.nonzero(mask))
    return x, y, z


def averaged(
    stacks: Sequence[Stack], affine: Float[np.ndarray, "4 4"]
) -> Callable[[Float[np.ndarray, "3 h w"]], Float32[np.ndarray, "h w"]]:
    """Average of stacks that lie where their headers say, brought to one level.

    Parameters
    ----------
    affine
        Of the grid whose voxel indices the function that is returned takes.
    """
    seen = [stack.data[stack.data > 0] if stack.mask is None else stack.data[stack.mask] for stack in stacks]
    levels = [max(float(np.median(values)), 1e-12) if len(values) else 1.0 for values in seen]
    typical = float(np.median(levels))

    def average(index: np.ndarray) -> np.ndarray:
        total, covered = np.zeros(index.shape[1:], np.float32), np.zeros(index.shape[1:], np.float32)
        for stack, level in zip(stacks, levels, strict=True):
            to_stack = np.linalg.inv(stack.affine) @ affine
            at = np.tensordot(to_stack[:3, :3], index, axes=1) + to_stack[:3, 3, None, None]
            values = ndimage.map_coordinates(stack.data, at, order=1, output=np.float32)
            ends = np.array(stack.data.shape)[:, None, None] - 0.5
            inside = ((at > -0.5) & (at < ends)).all(axis=0)
            total += values * inside * np.float32(typical / level)
            covered += inside
        return total / np.maximum(covered, 1)

    return average


def _viewed(plane: np.ndarray) -> np.ndarray:
    """A plane as a picture: the first axis runs to the left, the second upwards."""
    return plane[::-1, ::-1].T


def _plane(data: np.ndarray, axis: int, place: int) -> np.ndarray:
    return _viewed(np.take(data, place, axis=axis))


def _plane_index(shape: tuple[int, ...], axis: int, place: int) -> np.ndarray:
    """Voxel indices of a plane."""
    sides = [np.arange(n) if number != axis else np.array([place]) for number, n in enumerate(shape)]
    return np.take(np.stack(np.meshgrid(*sides, indexing="ij")), 0, axis=axis + 1).astype(np.float64)


def _crop(mask: np.ndarray, axis: int) -> tuple[slice, ...]:
    """The part of a picture that shows the brain."""
    return bounding_box(_viewed(np.asarray(mask.any(axis=axis))), _MARGIN)


def _places(mask: np.ndarray, axis: int, n_planes: int) -> list[int]:
    occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    first, last = occupied[[0, -1]]
    inset = _END * (last - first)
    return [round(place) for place in np.linspace(first + inset, last - inset, n_planes)]

"""Images inside a page, and NiiVue to look at them plane by plane."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel
import numpy as np

from gsvr.model.morphology import box_near
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.report.colours import window
from gsvr.report.niivue import BUNDLE

# Of the levels of grey that are kept; of compression, from 1 to 9.
_LEVELS, _EFFORT = 255, 4
# Space (mm) around the brain that is kept of a stack: it may lie elsewhere by as much as the subject moved.
_AROUND = 25.0


@dataclass(frozen=True)
class ViewedImage:
    """An image for the viewer.

    Attributes
    ----------
    name
        What the reader may choose.
    role
        ``"volume"``, ``"uncertainty"``, ``"mask"`` (both are laid over the volume) or ``"stack"``.
    content
        NIfTI, compressed, in base64.
    low, high
        What is black and what is white.
    """

    name: str
    role: str
    content: str
    low: float
    high: float


def viewed_images(volume: Volume, uncertainty: Volume | None = None, stacks: Sequence[Stack] = ()) -> list[ViewedImage]:
    """A volume, what is laid over it, and stacks around it as they were acquired, in 255 levels of grey."""
    brain = volume.data[volume.data != 0 if volume.mask is None else volume.mask]
    low, high = window(brain if len(brain) else volume.data.ravel())
    images = [_quantised("volume", "volume", volume, low, high)]
    if uncertainty is not None:
        most = window(uncertainty.data[uncertainty.data > 0])[1] if (uncertainty.data > 0).any() else 1.0
        images.append(_quantised("uncertainty", "uncertainty", uncertainty, 0.0, most))
    if volume.mask is not None:
        mask = Volume(volume.mask.astype(np.float32), volume.affine)
        images.append(_quantised("brain mask", "mask", mask, 0.0, 1.0))
    for stack in stacks:
        shown = _around(stack, volume)
        low, high = window(shown.data.ravel())
        images.append(_quantised(stack.name, "stack", shown, low, high))
    return images


def bundle() -> str:
    """NiiVue, compressed, in base64."""
    return base64.b64encode(BUNDLE.read_bytes()).decode()


def _quantised(name: str, role: str, volume: Volume, low: float, high: float) -> ViewedImage:
    """Intensities from zero (or the least) to somewhat above `high`, which are all that one can tell apart."""
    start = min(low, 0.0)
    step = max((1.1 if role != "mask" else _LEVELS) * (high - start) / _LEVELS, 1e-30)
    levels = np.clip(np.round((volume.data - start) / step), 0, _LEVELS).astype(np.uint8)
    image = nibabel.Nifti1Image(levels, volume.affine)
    image.header.set_xyzt_units(xyz="mm")
    image.header.set_slope_inter(step, start)
    content = gzip.compress(image.to_bytes(), _EFFORT, mtime=0)
    return ViewedImage(name, role, base64.b64encode(content).decode(), low, high)


def _around(stack: Stack, volume: Volume) -> Volume:
    """The part of a stack that is near the brain."""
    inside = volume.data != 0 if volume.mask is None else volume.mask
    points = volume.outline(inside) if inside.any() else volume.voxel_positions()[[0, -1]]
    box = box_near(points, stack.affine, stack.data.shape, _AROUND)
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [float(part.start) for part in box]
    return Volume(stack.data[box], affine)

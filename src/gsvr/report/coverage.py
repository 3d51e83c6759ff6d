"""How many stacks see each place of the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from scipy import ndimage

from gsvr.model.volume import Volume
from gsvr.report.colours import sequential
from gsvr.report.examination import Acquisition, Examination, is_doubted, is_used
from gsvr.report.inline_images import InlineImage, inline_image
from gsvr.report.mosaics import middle_voxel

# Side (mm) of the cells that are counted; slices with gaps still touch neighbouring ones.
_CELL = 4.0
_ENLARGED = 6.0


@dataclass(frozen=True)
class Coverage:
    """Shares of the brain.

    Attributes
    ----------
    shares
        Of the brain that is seen by at least 0, 1, 2, ... stacks with slices that count.
    n_stacks
        How many there are.
    images
        Name and picture of the plane through the middle, in each direction: dark where few stacks see it.
    """

    shares: list[float]
    n_stacks: int
    images: list[tuple[str, InlineImage]]


def coverage(examination: Examination) -> Coverage | None:
    """Count stacks cell by cell; None without the stacks."""
    acquisition, mask = examination.acquisition, examination.volume.mask
    if acquisition is None or mask is None:
        return None
    counts, inside = _counts(examination, acquisition)
    n = len(acquisition.stacks)
    seen = counts[inside]
    shares = [float((seen >= number).mean()) for number in range(n + 1)]
    images, middle = [], middle_voxel(inside)
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        plane, where = (np.take(part, middle[axis], axis=axis)[::-1, ::-1].T for part in (counts, inside))
        picture = np.where(where[..., None], sequential(plane / max(n, 1)), np.uint8(0))
        images.append((name, inline_image(picture, _ENLARGED)))
    return Coverage(shares, n, images)


def _counts(examination: Examination, acquisition: Acquisition) -> tuple[Int[np.ndarray, "x y z"], np.ndarray]:
    """Stacks that see each cell, and which cells are of the brain."""
    volume: Volume = examination.volume
    step = max(1, round(_CELL / float(volume.spacing.mean())))
    mask = examination.mask
    shape = [-(-n // step) for n in mask.shape]
    padded = np.zeros([n * step for n in shape], bool)
    padded[tuple(slice(n) for n in mask.shape)] = mask
    cells = padded.reshape(shape[0], step, shape[1], step, shape[2], step).mean(axis=(1, 3, 5)) >= 0.5
    believed = {(p.stack, p.slice_index) for p in examination.slices if is_used(p) and not is_doubted(p)}
    keep = np.array([key in believed for key in acquisition.place])
    slices = acquisition.slices
    coarse = slices.binned(max(1, int(_CELL / 2 / float(np.median(slices.spacings)))))
    used = coarse.mask & coarse.per_pixel(keep)
    index = coarse.pixel_positions(acquisition.poses, used) - volume.affine[:3, 3]
    index = np.round(index @ np.linalg.inv(volume.affine[:3, :3]).T / step - (step - 1) / 2 / step).astype(int)
    stacks = coarse.per_pixel(slices.stack_index)[used]
    within = ((index >= 0) & (index < shape)).all(axis=1)
    counts = np.zeros(shape, np.int64)
    for stack in range(len(acquisition.stacks)):
        seen = np.zeros(shape, bool)
        seen[tuple(index[within & (stacks == stack)].T)] = True
        counts += ndimage.binary_closing(seen, np.ones((3, 3, 3))) | seen
    return counts, cells

"""How many stacks see each place of the brain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gsvr.evaluation.views import views_of_cells
from gsvr.report.colours import sequential
from gsvr.report.examination import Examination, is_doubted, is_used
from gsvr.report.inline_images import InlineImage, inline_image
from gsvr.report.mosaics import middle_voxel

_ENLARGED = 4.0


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
    """Count stacks cell by cell, as the verdict does; None without the stacks."""
    acquisition, volume = examination.acquisition, examination.volume
    if acquisition is None or volume.mask is None:
        return None
    believed = {(p.stack, p.slice_index) for p in examination.slices if is_used(p) and not is_doubted(p)}
    keep = np.array([key in believed for key in acquisition.place])
    counts, voxels = views_of_cells(acquisition.slices, acquisition.poses, keep, volume)
    n, inside = len(acquisition.slices.stack_names), voxels > 0
    shares = [float(np.average(counts >= number, weights=voxels)) for number in range(n + 1)]
    images, middle = [], middle_voxel(inside)
    for name, axis in (("axial", 2), ("coronal", 1), ("sagittal", 0)):
        plane, where = (np.take(part, middle[axis], axis=axis)[::-1, ::-1].T for part in (counts, inside))
        picture = np.where(where[..., None], sequential(plane / max(n, 1)), np.uint8(0))
        images.append((name, inline_image(picture, _ENLARGED)))
    return Coverage(shares, n, images)

"""Tells stacks that show a mother from those already cut down to the brain or the head."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from gsvr.masks.automatic.regions import connected_parts

# a newborn's head with its scalp fits in here; what is larger shows more than a head
LARGEST_HEAD = 140.0  # mm, the shorter side of the foreground's bounding box in the slices
CUT_AWAY = 0.35  # part of the pixels that is exactly zero where the surroundings have been removed


def shows_more_than_a_brain(data: Float[np.ndarray, "_c _r _s"], affine: Float[np.ndarray, "4 4"]) -> bool:
    """Whether a stack shows more than a brain or a head.

    False for stacks whose surroundings have been set to zero and that hold one compact part, and for those whose
    foreground is small enough to be only a head: the foreground is their mask.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    values = np.nan_to_num(np.asarray(data, np.float32))
    top = float(np.percentile(values[::2, ::2], 99))
    if top <= 0:
        return False
    # large bright parts only: ghosts and folded limbs beside the body do not count
    step = [max(1, round(3.0 / s)) for s in spacing[:2]]
    coarse = values[:: step[0], :: step[1]]
    bright = coarse > 0.08 * top
    bright = np.stack([ndimage.binary_opening(plane) for plane in np.moveaxis(bright, 2, 0)], axis=2)
    if not bright.any():
        return False
    labels, _ = connected_parts(bright)
    sizes = np.bincount(labels.ravel())[1:]
    largest = labels == int(np.argmax(sizes)) + 1
    pixel = [s * n for s, n in zip(spacing[:2], step, strict=True)]
    sides = [
        float(np.ptp(np.flatnonzero(largest.any(axis=tuple(a for a in range(3) if a != axis)))) + 1) * pixel[axis]
        for axis in (0, 1)
    ]
    removed = float((values == 0).mean()) > CUT_AWAY and float(sizes.max()) > 0.9 * float(sizes.sum())
    fits = max(sides) < LARGEST_HEAD * (1.4 if removed else 1.0)
    return not fits

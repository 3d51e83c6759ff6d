"""Masks of other stacks, carried through the world."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.model.geometry import transform_points
from gsvr.model.morphology import bounding_box, box_near, distance_to
from gsvr.model.slices import Stack

logger = logging.getLogger(__name__)


def borrowed_mask(stack: Stack, stacks: list[Stack], extra: float) -> Bool[np.ndarray, "columns rows slices"]:
    """Union of the masks of all stacks, carried through the world and widened.

    Raises
    ------
    InputError
        If the stack does not overlap them.
    """
    mask = carried_mask(stack, stacks, extra)
    if not mask.any():
        raise InputError(
            f"{stack.name} does not overlap the masks of the other stacks: give it a mask of its own, or leave it out"
        )
    logger.warning("%s: no mask, borrowing those of the other stacks, %g mm wider", stack.name, extra)
    return mask


def carried_mask(stack: Stack, stacks: list[Stack], extra: float) -> Bool[np.ndarray, "columns rows slices"]:
    """Pixels within `extra` mm of the masks of all stacks."""
    near = np.zeros(stack.data.shape, bool)
    for other in stacks:
        if other.mask is None or not other.mask.any():
            continue
        # a brain fills a hundredth of a stack: farther away than this nothing is near it, in either grid
        room = np.ceil(extra / other.spacing).astype(int) + 2
        around = bounding_box(other.mask, room)
        corners = np.array([[part.start, part.stop] for part in around]).T
        ends = np.array([[corners[i, 0], corners[j, 1], corners[k, 2]] for i, j, k in np.ndindex(2, 2, 2)])
        box = box_near(transform_points(other.affine, ends.astype(float)), stack.affine, stack.data.shape, 0.0)
        first = np.array([part.start for part in box])
        index = np.indices(near[box].shape).reshape(3, -1).T + first
        at = transform_points(np.linalg.inv(other.affine) @ stack.affine, index.astype(float)) - corners[0]
        outside = distance_to(other.mask[around], other.spacing.tolist())
        distance = ndimage.map_coordinates(outside, at.T, order=1, mode="constant", cval=np.inf)
        near[box] |= (distance <= extra).reshape(near[box].shape)
    return near

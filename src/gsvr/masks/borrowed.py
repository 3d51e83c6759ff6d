"""Masks of other stacks, carried through the world."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.model.geometry import transform_points
from gsvr.model.morphology import distance_to
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
    index = np.indices(stack.data.shape).reshape(3, -1).T
    world = index @ stack.affine[:3, :3].T + stack.affine[:3, 3]
    nearest = np.full(len(index), np.inf)
    for other in stacks:
        if other.mask is None:
            continue
        outside = distance_to(other.mask, other.spacing.tolist())
        at = transform_points(np.linalg.inv(other.affine), world)
        distance = ndimage.map_coordinates(outside, at.T, order=1, mode="constant", cval=np.inf)
        nearest = np.minimum(nearest, np.where(np.isfinite(distance), distance, np.inf))
    return (nearest <= extra).reshape(stack.data.shape)

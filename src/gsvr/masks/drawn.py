"""Masks to start with: drawn ones, those of other stacks carried over, or the foreground."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gsvr.compiled.threads import parallel_map
from gsvr.errors import InputError
from gsvr.masks.options import MaskOptions
from gsvr.model.geometry import transform_points
from gsvr.model.morphology import distance_to, largest_part, within
from gsvr.model.slices import Stack

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StackMasks:
    """First masks of all stacks.

    Attributes
    ----------
    masks
        Pixels to start with.
    fields_of_view
        Pixels to keep at hand.
    drawn
        Whether the mask was drawn on this stack.
    """

    masks: list[np.ndarray]
    fields_of_view: list[np.ndarray]
    drawn: list[bool]


def first_masks(stacks: list[Stack], options: MaskOptions | None = None) -> StackMasks:
    """Masks to start with: drawn ones, else those of other stacks carried over, else the foreground.

    Raises
    ------
    InputError
        If a stack does not overlap the masks of the others.
    """
    options = options or MaskOptions()
    drawn = [stack.mask is not None for stack in stacks]
    if not any(drawn):
        logger.warning("no masks given: using the foreground of every stack")
        masks = [foreground(stack) for stack in stacks]
    else:
        masks = [_borrowed_mask(s, stacks, options.borrowed) if s.mask is None else s.mask for s in stacks]
    views = parallel_map(
        lambda number: within(masks[number], options.reach, stacks[number].spacing.tolist()), range(len(stacks))
    )
    return StackMasks(masks, views, drawn)


def foreground(stack: Stack) -> Bool[np.ndarray, "columns rows slices"]:
    """Pixels that show anything: the non-zero ones where the background is zero, else those above a threshold.

    The threshold is Otsu's on the logarithm of smoothed intensities; the largest connected part counts, holes filled.

    Raises
    ------
    InputError
        If no pixel is above zero.
    """
    if not stack.data.max() > 0:
        raise InputError(f"{stack.name} has no positive intensities: give it a mask, or leave it out")
    if (stack.data == 0).mean() > 0.2:
        shown = stack.data != 0
        # closing takes the world beyond the image for background: what was shown there stays
        mask = ndimage.binary_closing(shown, iterations=2) | shown
    else:
        level = np.log(ndimage.gaussian_filter(np.maximum(stack.data, 0), (2, 2, 0)) + 1e-3 * stack.data.max())
        mask = level > _otsu(level)
    if not mask.any():
        raise InputError(f"{stack.name} has no foreground: give it a mask, or leave it out")
    return largest_part(np.asarray(mask, dtype=bool))


def _otsu(values: np.ndarray) -> float:
    counts, edges = np.histogram(values, bins=256)
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    mean_below = np.cumsum(counts * centres) / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)) / np.maximum(above, 1)
    return float(centres[np.argmax(below * above * (mean_below - mean_above) ** 2)])


def _borrowed_mask(stack: Stack, stacks: list[Stack], extra: float) -> Bool[np.ndarray, "columns rows slices"]:
    """Union of the masks of all stacks, carried through the world and widened."""
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
    mask = (nearest <= extra).reshape(stack.data.shape)
    if not mask.any():
        raise InputError(
            f"{stack.name} does not overlap the masks of the other stacks: give it a mask of its own, or leave it out"
        )
    logger.warning("%s has no mask: borrowing those of the other stacks, %g mm wider", stack.name, extra)
    return mask

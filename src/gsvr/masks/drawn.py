"""Masks to start with: drawn ones, found ones, those of other stacks carried over, or the foreground."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from gsvr.compiled.threads import parallel_map, thread_count
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
        Whether the mask was made on this stack, by hand or automatically, so that it may vote.
    found
        Whether it was found automatically.
    """

    masks: list[np.ndarray]
    fields_of_view: list[np.ndarray]
    drawn: list[bool]
    found: list[bool]


def first_masks(stacks: list[Stack], options: MaskOptions | None = None) -> StackMasks:
    """Masks to start with: drawn ones, else those found automatically, else those of other stacks, else the foreground.

    Raises
    ------
    InputError
        If no brain is found where one is looked for, or a stack does not overlap the masks of the others.
    """
    options = options or MaskOptions()
    searched = [stack.mask is None and _is_searched(stack, options) for stack in stacks]
    found = _found_masks(stacks, searched, options) if any(searched) else [None] * len(stacks)
    own = [
        replace(stack, mask=mask) if stack.mask is None else stack for stack, mask in zip(stacks, found, strict=True)
    ]
    if not any(stack.mask is not None for stack in own):
        logger.warning("no masks given: using the foreground of every stack")
        masks = [foreground(stack) for stack in stacks]
    else:
        masks = [_borrowed_mask(s, own, options.borrowed) if s.mask is None else s.mask for s in own]
    views = parallel_map(
        lambda number: within(masks[number], options.reach, stacks[number].spacing.tolist()), range(len(stacks))
    )
    return StackMasks(masks, views, [stack.mask is not None for stack in own], [mask is not None for mask in found])


def _is_searched(stack: Stack, options: MaskOptions) -> bool:
    """Whether the brain is looked for in a stack."""
    if options.automatic != "auto":
        return options.automatic == "always"
    from gsvr.masks.automatic import shows_more_than_a_brain

    return shows_more_than_a_brain(stack.data, stack.affine)


def _found_masks(
    stacks: list[Stack], searched: list[bool], options: MaskOptions
) -> list[Bool[np.ndarray, "columns rows slices"] | None]:
    """The brain in each of the stacks that are searched; None where it is not, or where the brain is doubtful.

    Raises
    ------
    InputError
        If it is doubtful everywhere, and there is no drawn mask either.
    """
    from gsvr.masks.automatic import FindOptions, find_brains

    looked_at = [stack for stack, wanted in zip(stacks, searched, strict=True) if wanted]
    volumes, names = [(stack.data, stack.affine) for stack in looked_at], [stack.name for stack in looked_at]
    brains = iter(find_brains(volumes, names, FindOptions(threads=thread_count())))
    any_drawn = any(stack.mask is not None for stack in stacks)
    masks: list[np.ndarray | None] = []
    for stack, wanted in zip(stacks, searched, strict=True):
        if not wanted:
            masks.append(None)
            continue
        brain = next(brains)
        doubt = brain.doubt
        if doubt is None and any_drawn and not _agrees(brain.mask, _carried_mask(stack, stacks, options.borrowed)):
            doubt = f"{stack.name}: what looks like a brain is not where the drawn masks are"
        if doubt is None:
            logger.info("%s: brain found, confidence %.2f", stack.name, brain.confidence)
        else:
            logger.warning("%s", doubt)
        masks.append(brain.mask if doubt is None else None)
    if not any_drawn and not any(mask is not None for mask in masks):
        raise InputError(
            "no brain was found with confidence in any stack: draw the mask of one of them (`masks`), and the others "
            "follow; or crop the stacks to the brain"
        )
    return masks


def _agrees(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether most of what was found lies where it is expected."""
    return bool((found & expected).sum() > 0.5 * found.sum())


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
    """Union of the masks of all stacks, carried through the world and widened.

    Raises
    ------
    InputError
        If the stack does not overlap them.
    """
    mask = _carried_mask(stack, stacks, extra)
    if not mask.any():
        raise InputError(
            f"{stack.name} does not overlap the masks of the other stacks: give it a mask of its own, or leave it out"
        )
    logger.warning("%s has no mask: borrowing those of the other stacks, %g mm wider", stack.name, extra)
    return mask


def _carried_mask(stack: Stack, stacks: list[Stack], extra: float) -> Bool[np.ndarray, "columns rows slices"]:
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

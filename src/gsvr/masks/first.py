"""Masks to start with: drawn ones, found ones, those of other stacks carried over, or the foreground."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from gsvr.compiled.threads import parallel_map
from gsvr.masks.borrowed import borrowed_mask
from gsvr.masks.foreground import foreground
from gsvr.masks.found import found_masks, is_searched
from gsvr.masks.options import MaskOptions
from gsvr.model.morphology import within
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
    probabilities
        Of brain, by each stack alone, where it was found; None where it was not, or nobody kept it.
    """

    masks: list[np.ndarray]
    fields_of_view: list[np.ndarray]
    drawn: list[bool]
    found: list[bool]
    probabilities: list[np.ndarray | None] = field(default_factory=list)


def first_masks(
    stacks: list[Stack],
    options: MaskOptions | None = None,
    searching: Callable[[int, int], None] | None = None,
) -> StackMasks:
    """Masks to start with: drawn ones, else those found automatically, else those of other stacks, else the foreground.

    Parameters
    ----------
    searching
        Told of the search for brains how many steps are done, and how many there are.

    Raises
    ------
    InputError
        If no brain is found where one is looked for, or a stack does not overlap the masks of the others.
    """
    options = options or MaskOptions()
    searched = [stack.mask is None and is_searched(stack, options) for stack in stacks]
    if any(searched):  # among stacks of the mother, those cut closely around the head: better found than borrowed
        searched = [stack.mask is None for stack in stacks]
    found = found_masks(stacks, searched, options, searching) if any(searched) else [None] * len(stacks)
    own = [
        replace(stack, mask=None if brain is None else brain.mask) if stack.mask is None else stack
        for stack, brain in zip(stacks, found, strict=True)
    ]
    if not any(stack.mask is not None for stack in own):
        logger.warning("no masks given: using the foreground of every stack")
        masks = [foreground(stack) for stack in stacks]
    else:
        masks = [borrowed_mask(s, own, options.borrowed) if s.mask is None else s.mask for s in own]
    views = fields_of_view(stacks, masks, options)
    return StackMasks(
        masks,
        views,
        drawn=[stack.mask is not None for stack in own],
        found=[brain is not None for brain in found],
        probabilities=[None if brain is None else brain.probability for brain in found],
    )


def fields_of_view(stacks: list[Stack], masks: list[np.ndarray], options: MaskOptions) -> list[np.ndarray]:
    """Pixels within reach of the masks."""
    return parallel_map(
        lambda number: within(masks[number], options.reach, stacks[number].spacing.tolist()), range(len(stacks))
    )

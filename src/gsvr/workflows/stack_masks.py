"""Masks of stacks to start with; those that were found are drawn anew once it is known how the fetus turned.

The network sees one stack at a time. A short, coarse reconstruction tells how the stacks lie to one another; then what
the network says of every slice is a vote where that slice belongs, and all slices decide.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from gsvr.masks.consensus import consensus_mask, project_mask
from gsvr.masks.first import StackMasks, fields_of_view, first_masks
from gsvr.masks.options import MaskOptions
from gsvr.model.morphology import bounding_box, distance_to, largest_part
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import Search, SolverOptions, default_stages

logger = logging.getLogger(__name__)

# Stages of the short reconstruction: more of them make no better masks.
_STAGES = 2
# Overlap (Dice) of a stack's mask with what all slices make of it. Below the first, some stack lies in a wrong place,
# and is searched for; below the second, it was not found, and its mask stays.
_IN_PLACE, _LOST = 0.91, 0.6
# What no ball of this radius (mm) fits into is no brain: a leak into fluid, face or neck.
_BALL = 6.0


def masks_to_start_with(
    stacks: list[Stack],
    options: MaskOptions,
    search: Search = "lost",
    searching: Callable[[int, int], None] | None = None,
) -> StackMasks:
    """`first_masks`, and then `refined_masks`."""
    return refined_masks(stacks, first_masks(stacks, options, searching), options, search)


def refined_masks(
    stacks: list[Stack], masks: StackMasks, options: MaskOptions | None = None, search: Search = "lost"
) -> StackMasks:
    """Masks that were found, as all slices see them where they belong. Drawn ones vote, too, and stay as they are.

    Parameters
    ----------
    search
        Which stacks are tried at all orientations where masks do not agree, see `SolverOptions.search`.
    """
    options = options or MaskOptions()
    voting = [number for number, drawn in enumerate(masks.drawn) if drawn]
    if len(voting) < 2 or not any(masks.found):
        return masks
    some = [stacks[number] for number in voting]
    before = [masks.masks[number] for number in voting]
    views = [masks.fields_of_view[number] for number in voting]
    opinions = [_opinion(masks, number) for number in voting]
    slices = slices_from_stacks(some, before, views, [True] * len(some))
    votes = slices_from_stacks(
        [replace(stack, data=opinion, mask=None) for stack, opinion in zip(some, opinions, strict=True)], views
    ).values
    after, overlaps = _agreed(slices, votes, before, views, options, "none")
    if min(overlaps) < _IN_PLACE and search != "none":
        after, overlaps = _agreed(slices, votes, before, views, options, search)
    refined = list(masks.masks)
    for number, mask, overlap in zip(voting, after, overlaps, strict=True):
        logger.info("%s: overlap %.2f of its mask with what all slices say", stacks[number].name, overlap)
        if masks.found[number] and overlap > _LOST:
            refined[number] = mask
    return replace(masks, masks=refined, fields_of_view=fields_of_view(stacks, refined, options), probabilities=[])


def _opinion(masks: StackMasks, number: int) -> np.ndarray:
    """What a stack says of each of its pixels, from 0 to 1."""
    probability = masks.probabilities[number] if masks.found[number] else None
    return masks.masks[number].astype(np.float32) if probability is None else probability


def _agreed(
    slices: Slices,
    votes: np.ndarray,
    before: list[np.ndarray],
    views: list[np.ndarray],
    options: MaskOptions,
    search: Search,
) -> tuple[list[Bool[np.ndarray, "columns rows slices"]], list[float]]:
    """The masks that all slices agree on, on the grids of the stacks, and their overlap with the masks before."""
    poses = reconstruct(slices, SolverOptions(stages=default_stages()[:_STAGES], search=search)).poses
    inside = project_mask(_rounded(consensus_mask(slices, votes, poses, options)), slices, poses, 0.0)
    masks = [np.zeros(mask.shape, bool) for mask in before]
    for number, (stack, k) in enumerate(zip(slices.stack_index, slices.slice_index, strict=True)):
        box = bounding_box(views[stack][:, :, k])
        masks[stack][:, :, k][box] = inside[slices.pixels_of(number)].reshape(slices.shapes[number])
    return masks, [_overlap(*pair) for pair in zip(before, masks, strict=True)]


def _rounded(mask: Volume) -> Volume:
    """The mask without what sticks out."""
    inside, spacing = np.pad(np.asarray(mask.mask), 1), mask.spacing.tolist()
    core = distance_to(~inside, spacing) > _BALL
    if not core.any():
        return mask
    return Volume(mask.data, mask.affine, largest_part((distance_to(core, spacing) <= _BALL)[1:-1, 1:-1, 1:-1]))


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / max(float(first.sum() + second.sum()), 1.0)

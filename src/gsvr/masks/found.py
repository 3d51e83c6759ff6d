"""Masks of the brain that is found in stacks with a mother around it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from gsvr.compiled.threads import thread_count
from gsvr.errors import InputError
from gsvr.masks.borrowed import carried_mask
from gsvr.masks.options import MaskOptions
from gsvr.model.slices import Stack

if TYPE_CHECKING:
    from gsvr.masks.automatic import FoundMask

logger = logging.getLogger(__name__)


def is_searched(stack: Stack, options: MaskOptions) -> bool:
    """Whether the brain is looked for in a stack."""
    if options.automatic != "auto":
        return options.automatic == "always"
    from gsvr.masks.automatic import shows_more_than_a_brain

    return shows_more_than_a_brain(stack.data, stack.affine)


def found_masks(
    stacks: list[Stack],
    searched: list[bool],
    options: MaskOptions,
    searching: Callable[[int, int], None] | None = None,
) -> list[FoundMask | None]:
    """The brain in each of the stacks that are searched; None where it is not, or where the brain is doubtful.

    Parameters
    ----------
    searching
        Told how many steps are done, and how many there are.

    Raises
    ------
    InputError
        If it is doubtful everywhere, and there is no drawn mask either.
    """
    from gsvr.masks.automatic import FindOptions, find_brains

    looked_at = [stack for stack, wanted in zip(stacks, searched, strict=True) if wanted]
    volumes, names = [(stack.data, stack.affine) for stack in looked_at], [stack.name for stack in looked_at]
    brains = iter(find_brains(volumes, names, FindOptions(threads=thread_count()), searching))
    any_drawn = any(stack.mask is not None for stack in stacks)
    masks: list[FoundMask | None] = []
    for stack, wanted in zip(stacks, searched, strict=True):
        if not wanted:
            masks.append(None)
            continue
        brain = next(brains)
        doubt = brain.doubt
        if doubt is None and any_drawn and not _agrees(brain.mask, carried_mask(stack, stacks, options.borrowed)):
            doubt = "what looks like a brain is not where the drawn masks are"
        if doubt is None:
            logger.info("%s: brain found, confidence %.2f", stack.name, brain.confidence)
        else:
            logger.warning("%s: %s", stack.name, doubt)
        masks.append(brain if doubt is None else None)
    if not any_drawn and not any(mask is not None for mask in masks):
        raise InputError(
            "no brain was found with confidence in any stack: draw the mask of one of them (`masks`), and the others "
            "follow; or crop the stacks to the brain"
        )
    return masks


def _agrees(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether most of what was found lies where it is expected."""
    return bool((found & expected).sum() > 0.5 * found.sum())

"""Masks that were found are drawn anew where the slices belong: leaks are outvoted, and headers may be wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gsvr.masks.first import StackMasks, fields_of_view
from gsvr.masks.options import MaskOptions
from gsvr.model.slices import Stack
from gsvr.workflows import stack_masks
from gsvr.workflows.stack_masks import refined_masks
from tests.masks.ball_stacks import overlap
from tests.moving_brain import moving_brain

STACKS = moving_brain().stacks
BRAINS = [np.asarray(stack.mask) for stack in STACKS]
# Overlap (Dice) of a brain of 42 mm with itself, after motion was found on a coarse field and a vote on voxels of 2 mm.
AGREES = 0.93


def found(masks: list[np.ndarray], stacks: list[Stack] = STACKS, by_hand: int | None = None) -> StackMasks:
    """As the network may find them: 0.8 inside, 0.2 around."""
    views = fields_of_view(stacks, masks, MaskOptions())
    are_found = [number != by_hand for number in range(len(stacks))]
    probabilities = [
        np.where(mask, 0.8, 0.2).astype(np.float32) if one else None for mask, one in zip(masks, are_found, strict=True)
    ]
    return StackMasks(masks, views, [True] * len(stacks), are_found, probabilities)


def with_leak(brain: np.ndarray) -> np.ndarray:
    """A part of the brain once more, beside it."""
    core = ndimage.binary_erosion(brain, iterations=4)
    return brain | np.roll(ndimage.binary_dilation(core, iterations=2), 12, axis=0)


def test_a_leak_is_outvoted_though_a_header_is_wrong():
    affine = STACKS[1].affine.copy()
    affine[:3, 3] += [6.0, 0, 0]
    stacks = [STACKS[0], replace(STACKS[1], affine=affine), STACKS[2]]
    leaking = [with_leak(BRAINS[0]), *BRAINS[1:]]
    assert overlap(leaking[0], BRAINS[0]) < AGREES - 0.01
    refined = refined_masks(stacks, found(leaking, stacks), search="none")
    for mask, brain in zip(refined.masks, BRAINS, strict=True):
        assert overlap(mask, brain) > AGREES
    for stack, mask, view in zip(stacks, refined.masks, refined.fields_of_view, strict=True):
        np.testing.assert_array_equal(view, fields_of_view([stack], [mask], MaskOptions())[0])


def test_a_drawn_mask_votes_and_stays():
    drawn = with_leak(BRAINS[0])
    refined = refined_masks(STACKS, found([drawn, *BRAINS[1:]], by_hand=0), search="none")
    assert refined.masks[0] is drawn
    assert overlap(refined.masks[1], BRAINS[1]) > AGREES


def test_a_mask_somewhere_else_stays_as_it_was_found(monkeypatch: pytest.MonkeyPatch):
    """And the stacks are searched for, which takes several times as long as all else, and is not done otherwise."""
    asked: list[str] = []
    reconstruct = stack_masks.reconstruct

    def quick(slices, options):
        asked.append(options.search)
        return reconstruct(slices, replace(options, search="none"))

    monkeypatch.setattr(stack_masks, "reconstruct", quick)
    away = np.zeros(BRAINS[2].shape, bool)
    away[:8, :8, :4] = True
    refined = refined_masks(STACKS, found([*BRAINS[:2], away]))
    assert asked == ["none", "lost"]
    assert refined.masks[2] is away
    asked.clear()
    refined_masks(STACKS, found(BRAINS))
    assert asked == ["none"]


@pytest.mark.parametrize("number", [1, 3])
def test_what_was_not_found_or_is_alone_is_left_alone(number: int):
    masks = found(BRAINS[:number], STACKS[:number])
    if number > 1:
        masks = replace(masks, found=[False] * number)
    assert refined_masks(STACKS[:number], masks) is masks

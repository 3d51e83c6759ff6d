"""What is refused before anything is reconstructed: empty masks, crumbs, and stacks that lie apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.errors import InputError
from gsvr.masks.checks import check_content, check_overlap
from gsvr.masks.first import StackMasks
from gsvr.model.slices import Stack
from tests.masks.ball_stacks import CENTRE, ball_stack

SPACINGS = ((2.0, 2.8, 4.0), (1.4, 1.75, 3.5), (2.0, 2.0, 5.6))


def three_balls() -> list[Stack]:
    """Oblique, with voxels of three sizes."""
    return [ball_stack(number, spacing=spacing) for number, spacing in enumerate(SPACINGS)]


def masks_of(stacks: list[Stack]) -> StackMasks:
    masks = [np.array(stack.mask) for stack in stacks]
    ones = [True] * len(masks)
    return StackMasks(masks, [mask.copy() for mask in masks], ones, found=[not one for one in ones])


def shifted(stack: Stack, x: float, name: str | None = None) -> Stack:
    affine = stack.affine.copy()
    affine[0, 3] += x
    return replace(stack, affine=affine, name=name or stack.name)


def test_stacks_of_one_examination_pass():
    stacks = three_balls()
    check_content(stacks, masks_of(stacks))
    check_overlap(stacks, masks_of(stacks))


# --- content


def test_a_mask_that_shows_nothing_is_refused_by_name():
    stacks = three_balls()
    inside = np.asarray(stacks[1].mask)
    stacks[1] = replace(stacks[1], data=np.where(inside, 0, stacks[1].data + 1).astype(np.float32))
    with pytest.raises(InputError, match=r"^stack-1 is zero everywhere inside its mask"):
        check_content(stacks, masks_of(stacks))


def test_a_mask_that_shows_next_to_nothing_is_refused():
    stacks = three_balls()
    inside = np.flatnonzero(np.asarray(stacks[1].mask))
    data = np.zeros_like(stacks[1].data)
    data.flat[inside[:5]] = 1
    stacks[1] = replace(stacks[1], data=data)
    with pytest.raises(InputError, match=r"^stack-1 is zero nearly everywhere inside its mask"):
        check_content(stacks, masks_of(stacks))


def test_masks_of_a_giant_are_refused():
    """A header in centimetres."""
    large = np.diag([20.0, 20.0, 20.0, 1.0])
    giants = [replace(stack, affine=stack.affine @ large) for stack in three_balls()]
    with pytest.raises(InputError, match=r"^the masks of stack-0 and the others hold \d+ litres, .* correct the voxel"):
        check_content(giants, masks_of(giants))


@pytest.mark.parametrize("small", [1, 2])
def test_masks_that_hold_too_little_for_a_brain_are_refused(small: int):
    """The typical one counts: a single crumb among three is a matter for the vote."""
    stacks = three_balls()
    masks = masks_of(stacks)
    for number in range(small):
        mask = masks.masks[number]
        mask.flat[np.flatnonzero(mask)[int(900 / np.prod(SPACINGS[number])) :]] = False
    if small == 1:
        check_content(stacks, masks)
        return
    with pytest.raises(InputError, match=r"^the masks of stack-0 and the others hold 0\.(8[5-9]|9)\d* ml, too little"):
        check_content(stacks, masks)


def test_volumes_are_counted_in_millimetres():
    """As many voxels as of a brain, but small ones."""
    small = np.diag([0.25, 0.25, 0.25, 1.0])
    tiny = [replace(stack, affine=stack.affine @ small) for stack in three_balls()]
    with pytest.raises(InputError, match="too little for a brain"):
        check_content(tiny, masks_of(tiny))


# --- overlap


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_stack_that_lies_apart_is_named(number: int):
    stacks = three_balls()
    stacks[number] = shifted(stacks[number], 60)
    with pytest.raises(InputError, match=rf"^stack-{number}: no overlap with the other stacks"):
        check_overlap(stacks, masks_of(stacks))


def test_the_smaller_part_is_the_one_to_look_at():
    stacks = three_balls()
    stacks += [shifted(stacks[0], 90, "far-0"), shifted(stacks[1], 95, "far-1")]
    for order in (stacks, stacks[::-1]):
        with pytest.raises(InputError, match=r"^(far-0 and far-1|far-1 and far-0): no overlap"):
            check_overlap(order, masks_of(order))


def test_stacks_that_hang_together_through_others_are_one_examination():
    """The first two meet only the third."""
    one, other, between = three_balls()
    order = [shifted(one, -25), shifted(other, 25), between]
    check_overlap(order, masks_of(order))
    with pytest.raises(InputError, match="no overlap"):
        check_overlap(order[:2], masks_of(order[:2]))


def test_what_overlaps_are_the_pixels_at_hand_not_the_whole_stacks():
    """Two halves of the ball, apart along the world's x, in stacks that lie one upon the other."""
    stacks = three_balls()[:2]
    masks = masks_of(stacks)
    for side, stack, view in zip((-1, 1), stacks, masks.fields_of_view, strict=True):
        x = np.moveaxis(np.indices(view.shape), 0, -1) @ stack.affine[0, :3] + stack.affine[0, 3] - CENTRE[0]
        view &= side * x > 1
    with pytest.raises(InputError, match="no overlap"):
        check_overlap(stacks, masks)
    check_overlap(stacks, masks_of(stacks))

"""First masks: what is used without any, and how one serves all stacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.masks.automatic import FoundMask
from gsvr.masks.first import first_masks
from gsvr.masks.options import MaskOptions
from tests.masks.ball_stacks import RADIUS, ball_stack, inside_ball, overlap


def test_no_masks_at_all_is_said(caplog: pytest.LogCaptureFixture):
    stacks = [ball_stack(number, mask=False) for number in range(3)]
    masks = first_masks(stacks)
    assert "no masks given" in caplog.text
    assert not any(masks.drawn)  # nobody drew one: every foreground votes
    for stack, mask in zip(stacks, masks.masks, strict=True):
        assert overlap(mask, inside_ball(stack)) > 0.95


def test_one_mask_serves_all_stacks(caplog: pytest.LogCaptureFixture):
    stacks = [ball_stack(number, mask=number == 1) for number in range(3)]
    masks = first_masks(stacks, MaskOptions(borrowed=6.0))
    assert masks.drawn == [False, True, False]
    np.testing.assert_array_equal(masks.masks[1], stacks[1].mask)
    for number in (0, 2):
        assert f"stack-{number}: no mask" in caplog.text
        assert np.all(masks.masks[number][inside_ball(stacks[number])])
        # as wide as stated, but for the size of a slice of the stack that lent it
        assert not np.any(masks.masks[number] & ~inside_ball(stacks[number], RADIUS + 6.0 + 4.0))


def test_a_borrowed_mask_is_widened_in_mm_of_the_lender():
    """Voxels of lender and borrower have no side in common."""
    lender, borrower = (
        ball_stack(number, mask=number == 1, spacing=spacing)
        for number, spacing in ((1, (1.4, 1.75, 3.5)), (2, (2.0, 2.8, 5.6)))
    )
    mask = first_masks([lender, borrower], MaskOptions(borrowed=10.0)).masks[1]
    edge = 0.5 * float(np.linalg.norm(lender.spacing))  # how far the mask of the lender is from the ball it is drawn on
    assert np.all(mask[inside_ball(borrower, RADIUS + 10.0 - edge)])
    assert not np.any(mask & ~inside_ball(borrower, RADIUS + 10.0 + edge))


def test_stacks_cut_around_the_head_are_searched_among_others(monkeypatch: pytest.MonkeyPatch):
    from gsvr.masks import first

    stacks, asked = [ball_stack(number, mask=number == 2) for number in range(3)], []

    def nothing(stacks, searched, options, searching):
        asked.append(searched)
        return [None] * len(stacks)

    monkeypatch.setattr(first, "found_masks", nothing)
    monkeypatch.setattr(first, "is_searched", lambda stack, _: stack.name == "stack-1")
    first_masks(stacks)
    assert asked == [[True, True, False]]
    monkeypatch.setattr(first, "is_searched", lambda *_: False)
    first_masks(stacks)
    assert len(asked) == 1


def test_a_doubtful_stack_is_named_and_borrows(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    def pretended(volumes, names, *_):
        ball = inside_ball(ball_stack(0))
        return [
            FoundMask(ball, 0.9, "it has horns" if name == "stack-2" else None, ball.astype(np.float32))
            for name in names
        ]

    monkeypatch.setattr("gsvr.masks.automatic.find_brains", pretended)
    stacks = [ball_stack(number, mask=False) for number in range(3)]
    masks = first_masks(stacks, MaskOptions(automatic="always"))
    assert masks.found == masks.drawn == [True, True, False]
    assert masks.probabilities[2] is None
    assert "stack-2: it has horns" in caplog.text
    assert "stack-2: no mask, borrowing" in caplog.text


def test_slices_keep_more_at_hand_than_they_use():
    stacks = [ball_stack(number) for number in range(2)]
    masks = first_masks(stacks, MaskOptions(reach=8.0))
    for stack, mask, view in zip(stacks, masks.masks, masks.fields_of_view, strict=True):
        assert np.all(view[mask])
        distance = np.asarray(ndimage.distance_transform_edt(~mask, sampling=stack.spacing))
        np.testing.assert_array_equal(view, distance <= 8.0)


def test_a_stack_far_from_every_mask_is_refused():
    stacks = [ball_stack(number, mask=number == 1) for number in range(3)]
    affine = stacks[2].affine.copy()
    affine[:3, 3] += 200
    with pytest.raises(InputError, match="stack-2 does not overlap"):
        first_masks([*stacks[:2], replace(stacks[2], affine=affine)])

"""Masks: what is used without any, how one serves all stacks, and how slices outvote a mask that crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gsvr.errors import InputError
from gsvr.masks.consensus import MaskOptions, StackMasks, agreed_mask, first_masks, foreground, project_mask
from gsvr.model.geometry import identity_poses, pose_about, transform_points
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume

CENTRE, RADIUS = np.array([10.0, -5.0, 3.0]), 16.0
AXES = (np.eye(3), np.eye(3)[:, [1, 2, 0]], np.eye(3)[:, [2, 0, 1]])


def ball_stack(
    number: int,
    noise: float = 0.0,
    background: float = 0.0,
    mask: bool = True,
    spacing: tuple[float, float, float] = (2.0, 2.0, 4.0),
) -> Stack:
    """A ball of radius 16 mm, of a texture, in a field of view of 56 mm; the number decides the orientation."""
    shape = np.rint(56 / np.array(spacing)).astype(int)
    affine = np.eye(4)
    affine[:3, :3] = AXES[number] * spacing
    affine[:3, 3] = CENTRE - affine[:3, :3] @ (shape - 1) / 2
    points = transform_points(affine, np.moveaxis(np.indices(tuple(shape)), 0, -1).astype(float))
    inside = np.linalg.norm(points - CENTRE, axis=-1) < RADIUS
    rng = np.random.default_rng(number)
    data = np.where(inside, 100 + 20 * np.sin(points.sum(axis=-1) / 4), background)
    data = np.abs(data + noise * rng.normal(size=data.shape))
    return Stack(
        f"stack-{number}", data.astype(np.float32), affine, spacing[2], inside if mask else None, np.arange(float(shape[2]))
    )


def inside_ball(stack: Stack, radius: float = RADIUS) -> np.ndarray:
    index = np.moveaxis(np.indices(stack.data.shape), 0, -1).astype(float)
    return np.linalg.norm(transform_points(stack.affine, index) - CENTRE, axis=-1) < radius


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / float(first.sum() + second.sum())


# --- without a mask


def test_foreground_of_a_masked_stack_is_what_is_not_zero():
    stack = ball_stack(0)
    assert overlap(foreground(stack), inside_ball(stack)) > 0.99


def test_foreground_of_a_noisy_stack_is_what_is_bright():
    stack = ball_stack(0, noise=4.0, background=8.0)
    assert stack.data.min() > 0
    mask = foreground(stack)
    assert np.all(mask[inside_ball(stack)])
    # a halo of two or three pixels: intensities are smoothed before they are judged
    assert not np.any(mask & ~inside_ball(stack, RADIUS + 7.0))


def test_foreground_reaches_the_first_and_the_last_slice():
    stack = ball_stack(0)
    data = np.ascontiguousarray(stack.data[:, :, 4:-4])
    cut = replace(stack, data=data, mask=None, slice_times=np.arange(6.0))
    shown = cut.data > 0
    assert shown[:, :, 0].any()
    assert np.all(foreground(cut)[shown])


def test_foreground_has_no_holes_and_one_part():
    stack = ball_stack(1)
    data = stack.data.copy()
    middle = tuple(np.array(data.shape) // 2)
    data[middle] = 0
    data[:2, :2, :2] = 50
    mask = foreground(replace(stack, data=data))
    assert mask[middle]
    assert not mask[:2, :2, :2].any()


def test_without_positive_intensities_there_is_no_foreground():
    stack = ball_stack(0)
    with pytest.raises(InputError, match="stack-0"):
        foreground(replace(stack, data=-stack.data))


def test_no_masks_at_all_is_said(caplog: pytest.LogCaptureFixture):
    stacks = [ball_stack(number, mask=False) for number in range(3)]
    masks = first_masks(stacks)
    assert "no masks given" in caplog.text
    assert not any(masks.drawn)  # nobody drew one: every foreground votes
    for stack, mask in zip(stacks, masks.masks, strict=True):
        assert overlap(mask, inside_ball(stack)) > 0.95


# --- one mask for all


def test_one_mask_serves_all_stacks(caplog: pytest.LogCaptureFixture):
    stacks = [ball_stack(number, mask=number == 1) for number in range(3)]
    masks = first_masks(stacks, MaskOptions(borrowed=6.0))
    assert masks.drawn == [False, True, False]
    np.testing.assert_array_equal(masks.masks[1], stacks[1].mask)
    for number in (0, 2):
        assert f"stack-{number} has no mask" in caplog.text
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
    edge = 0.5 * np.linalg.norm(lender.spacing)  # how far the mask of the lender is from the ball it is drawn on
    assert np.all(mask[inside_ball(borrower, RADIUS + 10.0 - edge)])
    assert not np.any(mask & ~inside_ball(borrower, RADIUS + 10.0 + edge))


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


# --- agreement


def slices_of(stacks: list[Stack], masks: StackMasks) -> Slices:
    return slices_from_stacks(stacks, masks.masks, masks.fields_of_view, masks.drawn)


def ball_in(volume: Volume) -> np.ndarray:
    distance = np.linalg.norm(volume.voxel_positions() - CENTRE, axis=1)
    return (distance < RADIUS).reshape(volume.data.shape)


def pixel_distance(slices: Slices) -> np.ndarray:
    return np.linalg.norm(slices.pixel_positions() - CENTRE, axis=1)


def test_slices_agree_on_the_ball():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    mask = agreed_mask(slices, slices.mask, identity_poses(slices.n_slices))
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.93
    assert mask.data.min() >= 0
    assert mask.data.max() <= 1.001


def test_agreement_moves_with_the_slices():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    shift = pose_about(np.zeros(3), np.array([14.0, 6.0, -8.0]), np.zeros(3))
    mask = agreed_mask(slices, slices.mask, np.tile(shift, (slices.n_slices, 1, 1)))
    middle = mask.voxel_positions(np.asarray(mask.mask)).mean(axis=0)
    np.testing.assert_allclose(middle, CENTRE + np.array([14, 6, -8]), atol=0.7)


def test_a_cropped_mask_is_outvoted():
    stacks = [ball_stack(number) for number in range(3)]
    cropped = np.asarray(stacks[0].mask).copy()
    cropped[:14, :, 7] = False  # half of a slice
    cropped[:, :, 5] = False  # and all of another one
    stacks[0] = replace(stacks[0], mask=cropped)
    slices = slices_of(stacks, first_masks(stacks))
    poses = identity_poses(slices.n_slices)
    recovered = project_mask(agreed_mask(slices, slices.mask, poses), slices, poses, margin=2.5)
    lost = ~slices.mask & (pixel_distance(slices) < RADIUS - 1)
    assert lost.sum() > 200
    assert recovered[lost].mean() > 0.99
    # and no pixel is far outside
    assert pixel_distance(slices)[recovered].max() < RADIUS + 2.5 + 3.0


def test_what_one_stack_alone_calls_anatomy_is_outvoted():
    stacks = [ball_stack(number) for number in range(3)]
    generous = np.asarray(stacks[0].mask).copy()
    generous[2:6, 10:16, 5:9] = True  # a blob beside the ball
    stacks[0] = replace(stacks[0], mask=generous)
    masks = first_masks(stacks, MaskOptions(reach=20.0))
    slices = slices_of(stacks, masks)
    mask = agreed_mask(slices, slices.mask, identity_poses(slices.n_slices))
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.93


def test_borrowed_masks_do_not_vote_unless_nobody_else_does():
    stacks = [ball_stack(number, mask=number == 1) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    poses = identity_poses(slices.n_slices)
    mask = agreed_mask(slices, slices.mask, poses)
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.9
    rest = slices.subset(slices.stack_index != 1)
    wide = agreed_mask(rest, rest.mask, identity_poses(rest.n_slices))
    assert np.asarray(wide.mask).sum() > np.asarray(mask.mask).sum()
    assert np.all(np.asarray(wide.mask)[ball_in(wide)])


def test_where_nobody_agrees_the_most_believed_place_is_the_mask():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    votes = slices.mask.copy()
    # of each stack only the first slices through the ball vote: three caps that hardly meet
    votes[slices.per_pixel(slices.slice_index > 4)] = False
    mask = np.asarray(agreed_mask(slices, votes, identity_poses(slices.n_slices)).mask)
    assert 0 < mask.sum() < 0.5 * mask.size


def test_projection_keeps_its_margin():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    poses = identity_poses(slices.n_slices)
    agreed = agreed_mask(slices, slices.mask, poses)
    narrow, wide = (project_mask(agreed, slices, poses, margin) for margin in (0.0, 5.0))
    assert np.all(wide[narrow])
    distance = pixel_distance(slices)
    assert np.all(wide[distance < RADIUS + 2])
    assert distance[narrow].max() < RADIUS + 2.5
    assert distance[wide].max() < RADIUS + 7.5

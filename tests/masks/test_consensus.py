"""The consensus mask: how slices outvote a mask that crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.masks.consensus import consensus_mask, project_mask
from gsvr.masks.first import StackMasks, first_masks
from gsvr.masks.options import MaskOptions
from gsvr.model.geometry import identity_poses, pose_about
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.model.volume import Volume
from tests.masks.ball_stacks import CENTRE, RADIUS, ball_stack, overlap


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
    mask = consensus_mask(slices, slices.mask, identity_poses(slices.n_slices))
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.93
    assert mask.data.min() >= 0
    assert mask.data.max() <= 1.001


def test_probabilities_vote_by_their_size():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    unsure = slices.per_pixel(slices.stack_index == 0)
    votes = np.where(slices.mask, np.where(unsure, 0.3, 0.9), 0.0).astype(np.float32)
    mask = consensus_mask(slices, votes, identity_poses(slices.n_slices))
    distance = np.linalg.norm(mask.voxel_positions() - CENTRE, axis=1).reshape(mask.data.shape)
    assert mask.data[distance < RADIUS - 6].mean() == pytest.approx(0.7, abs=0.02)
    assert not (np.asarray(mask.mask) & (distance > RADIUS + 1)).any()


def test_agreement_moves_with_the_slices():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    shift = pose_about(np.zeros(3), np.array([14.0, 6.0, -8.0]), np.zeros(3))
    mask = consensus_mask(slices, slices.mask, np.tile(shift, (slices.n_slices, 1, 1)))
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
    recovered = project_mask(consensus_mask(slices, slices.mask, poses), slices, poses, margin=2.5)
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
    mask = consensus_mask(slices, slices.mask, identity_poses(slices.n_slices))
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.93


def test_borrowed_masks_do_not_vote_unless_nobody_else_does():
    stacks = [ball_stack(number, mask=number == 1) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    poses = identity_poses(slices.n_slices)
    mask = consensus_mask(slices, slices.mask, poses)
    assert overlap(np.asarray(mask.mask), ball_in(mask)) > 0.9
    rest = slices.subset(slices.stack_index != 1)
    wide = consensus_mask(rest, rest.mask, identity_poses(rest.n_slices))
    assert np.asarray(wide.mask).sum() > np.asarray(mask.mask).sum()
    assert np.all(np.asarray(wide.mask)[ball_in(wide)])


def test_where_nobody_agrees_the_most_believed_place_is_the_mask():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    votes = slices.mask.copy()
    # of each stack only the first slices through the ball vote: three caps that hardly meet
    votes[slices.per_pixel(slices.slice_index > 4)] = False
    mask = np.asarray(consensus_mask(slices, votes, identity_poses(slices.n_slices)).mask)
    assert 0 < mask.sum() < 0.5 * mask.size


def test_projection_keeps_its_margin():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    poses = identity_poses(slices.n_slices)
    agreed = consensus_mask(slices, slices.mask, poses)
    narrow, wide = (project_mask(agreed, slices, poses, margin) for margin in (0.0, 5.0))
    assert np.all(wide[narrow])
    distance = pixel_distance(slices)
    assert np.all(wide[distance < RADIUS + 2])
    assert distance[narrow].max() < RADIUS + 2.5
    assert distance[wide].max() < RADIUS + 7.5


def test_the_share_of_votes_is_what_the_mask_is_cut_from():
    stacks = [ball_stack(number) for number in range(3)]
    slices = slices_of(stacks, first_masks(stacks))
    mask = consensus_mask(slices, slices.mask, identity_poses(slices.n_slices))
    inside = np.asarray(mask.mask)
    # holes are filled, and crumbs beside the largest part left out
    assert (mask.data[inside] > 0.5).mean() > 0.99
    assert (mask.data[~inside] > 0.5).sum() < 0.01 * inside.sum()
    np.testing.assert_allclose(mask.spacing, MaskOptions().spacing)

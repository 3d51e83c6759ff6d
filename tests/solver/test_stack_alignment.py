"""A stack that starts far from where it belongs is found."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.model.geometry import identity_poses, invert, pose_about, transform_points
from gsvr.model.slices import Slices, Stack
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.stack_alignment import first_poses, with_lost_stacks
from gsvr.solver.state import State
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import QUICK_STAGES, moving_brain, small_brain

STAGE = replace(QUICK_STAGES[0], outer_iterations=4)
OPTIONS = SolverOptions(stages=(STAGE,))
LOST = 2


def brain_centre() -> np.ndarray:
    brain = small_brain()
    return brain.voxel_positions(np.asarray(brain.mask)).mean(axis=0)


@cache
def still_stacks() -> list[Stack]:
    return moving_brain("none", n_stacks=4).stacks


def turned(stacks: list[Stack], degrees: float) -> tuple[list[Stack], np.ndarray]:
    """The stacks as if the subject had turned before the third one; what undoes it."""
    axis = np.array([0.48, 0.6, 0.64])
    turn = pose_about(np.deg2rad(degrees) * axis, np.array([4.0, -3.0, 5.0]), brain_centre())
    third = stacks[LOST]
    return [*stacks[:LOST], replace(third, affine=turn @ third.affine), *stacks[LOST + 1 :]], invert(turn)


def align_stacks(stacks: list[Stack]) -> tuple[Slices, State]:
    slices = prepare_slices(stacks, OPTIONS)
    binned = slices.binned(STAGE.binning)
    binned = replace(binned, values=binned.values / np.float32(np.percentile(binned.values[binned.mask], 99)))
    state = begin_stage(binned, STAGE, OPTIONS)
    for _ in range(STAGE.outer_iterations):
        state = advance(STAGE, OPTIONS, state)
    return binned, state


def misplacement(slices: Slices, poses: np.ndarray, undo: np.ndarray) -> float:
    """How far points of the brain lie from where the other stacks have them (mm)."""
    first, last = (poses[slices.stack_index == k][0] for k in (0, LOST))
    points = transform_points(invert(undo), brain_centre() + 15 * np.concatenate([np.eye(3), -np.eye(3)]))
    relative = invert(first) @ last
    return float(np.linalg.norm(transform_points(relative, points) - transform_points(undo, points), axis=1).mean())


@pytest.mark.parametrize("degrees", [60.0, 180.0])
def test_a_turned_stack_is_found(degrees: float):
    stacks, undo = turned(still_stacks(), degrees)
    slices, state = align_stacks(stacks)
    found = with_lost_stacks(STAGE, OPTIONS, state)
    assert misplacement(slices, state.poses, undo) > 5  # alignment alone was not enough
    assert misplacement(slices, found.poses, undo) < 1.0
    assert found.has_field


def test_no_search_if_none_is_asked_for():
    _, state = align_stacks(turned(still_stacks(), 90.0)[0])
    assert with_lost_stacks(STAGE, replace(OPTIONS, search="none"), state) is state


def test_all_stacks_turned_against_each_other_are_found():
    stacks, undo = [], []
    for number, stack in enumerate(still_stacks()):
        axis, direction = np.random.default_rng(number).standard_normal((2, 3))
        turn = np.deg2rad(100.0) * axis / np.linalg.norm(axis)
        pose = pose_about(turn, 20 * direction / np.linalg.norm(direction), brain_centre())
        stacks.append(replace(stack, affine=pose @ stack.affine))
        undo.append(invert(pose))
    slices, state = align_stacks(stacks)
    found = with_lost_stacks(STAGE, OPTIONS, state).poses
    first = [found[slices.stack_index == k][0] for k in range(len(stacks))]
    points = brain_centre() + 15 * np.concatenate([np.eye(3), -np.eye(3)])
    for own, pose in zip(first, undo, strict=True):
        # where the brain's points, seen in this stack, come to lie relative to the first stack's
        placed = transform_points(own @ invert(pose), points) - transform_points(first[0] @ invert(undo[0]), points)
        assert np.linalg.norm(placed, axis=1).mean() < 1.5


def test_reconstruction_goes_on_from_where_it_was_found():
    stacks, undo = turned(still_stacks(), 60.0)
    options = SolverOptions(stages=(STAGE, replace(QUICK_STAGES[1], outer_iterations=1)))
    slices = prepare_slices(stacks, options)
    assert misplacement(slices, reconstruct(slices, options).poses, undo) < 1.0


def test_stacks_in_their_place_are_left_there():
    _, state = align_stacks(still_stacks())
    assert with_lost_stacks(STAGE, OPTIONS, state) is state


def test_of_two_stacks_one_is_brought_to_the_other():
    stacks, undo = turned(still_stacks(), 60.0)
    slices, state = align_stacks([stacks[1], stacks[LOST]])
    found = with_lost_stacks(STAGE, OPTIONS, state).poses
    first, last = (found[slices.stack_index == k][0] for k in (0, 1))
    points = transform_points(invert(undo), brain_centre() + 15 * np.concatenate([np.eye(3), -np.eye(3)]))
    relative = invert(first) @ last
    placed = transform_points(relative, points) - transform_points(undo, points)
    assert np.linalg.norm(placed, axis=1).mean() < 1.5


def test_a_stack_that_lies_far_off_is_brought_to_the_others() -> None:
    """Its mask says where it is; without a start there, a second brain would grow beside the first."""
    stacks = moving_brain("none").stacks
    affine = stacks[1].affine.copy()
    affine[0, 3] += 45.0
    slices = prepare_slices([stacks[0], replace(stacks[1], affine=affine), stacks[2]], OPTIONS)
    poses = first_poses(slices)
    moved = slices.stack_index == 1
    assert np.abs(poses[moved, :3, 3] - [-45.0, 0, 0]).max() < 6
    assert np.array_equal(poses[~moved], identity_poses(int((~moved).sum())))
    # but where nothing is to move, nothing does
    still = replace(OPTIONS, stages=(replace(STAGE, motion="none", outer_iterations=1),))
    np.testing.assert_array_equal(reconstruct(slices, still).poses, identity_poses(slices.n_slices))


def test_stacks_of_a_part_of_the_brain_stay_where_their_headers_put_them():
    """The centres of their masks lie apart, but the masks overlap."""
    stacks = still_stacks()
    for number in (0, 3):
        mask = np.asarray(stacks[number].mask).copy()
        shown = np.flatnonzero(mask.any(axis=(0, 1)))
        mask[:, :, : shown[len(shown) * 6 // 10]] = False
        stacks = [*stacks[:number], replace(stacks[number], mask=mask), *stacks[number + 1 :]]
    slices = prepare_slices(stacks, OPTIONS)
    np.testing.assert_array_equal(first_poses(slices), identity_poses(slices.n_slices))
    slices, state = align_stacks(stacks)
    poses = with_lost_stacks(STAGE, OPTIONS, state).poses
    points = brain_centre() + 15 * np.concatenate([np.eye(3), -np.eye(3)])
    first = poses[slices.stack_index == 1][0]
    for number in (0, 3):
        own = poses[slices.stack_index == number][0]
        assert np.linalg.norm(transform_points(own, points) - transform_points(first, points), axis=1).mean() < 1.0

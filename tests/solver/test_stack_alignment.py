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
from gsvr.solver.stack_alignment import find_lost_stacks, first_poses
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
    return moving_brain("none", n_stacks=5).stacks


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


@pytest.mark.parametrize("degrees", [60.0, 80.0])
def test_a_turned_stack_is_found(degrees: float):
    stacks, undo = turned(still_stacks(), degrees)
    slices, state = align_stacks(stacks)
    found = find_lost_stacks(STAGE, OPTIONS, state)
    assert misplacement(slices, state.poses, undo) > 5  # alignment alone was not enough
    assert misplacement(slices, found, undo) < 0.5
    others = slices.stack_index != LOST
    np.testing.assert_array_equal(found[others], state.poses[others])


def test_reconstruction_goes_on_from_where_it_was_found():
    stacks, undo = turned(still_stacks(), 60.0)
    options = SolverOptions(stages=(STAGE, replace(QUICK_STAGES[1], outer_iterations=1)))
    slices = prepare_slices(stacks, options)
    assert misplacement(slices, reconstruct(slices, options).poses, undo) < 1.0


def test_stacks_in_their_place_are_left_there():
    _, state = align_stacks(still_stacks())
    np.testing.assert_array_equal(find_lost_stacks(STAGE, OPTIONS, state), state.poses)


def test_with_two_stacks_nobody_is_lost():
    stacks, _ = turned(still_stacks(), 60.0)
    _, state = align_stacks(stacks[1:3])
    np.testing.assert_array_equal(find_lost_stacks(STAGE, OPTIONS, state), state.poses)


@pytest.mark.parametrize("millimetres", [30.0, 45.0])
def test_a_stack_that_lies_far_off_is_brought_to_the_others(millimetres: float) -> None:
    """Its mask says where it is; without a start there, a second brain would grow beside the first."""
    stacks = moving_brain("none").stacks
    affine = stacks[1].affine.copy()
    affine[0, 3] += millimetres
    slices = prepare_slices([stacks[0], replace(stacks[1], affine=affine), stacks[2]], OPTIONS)
    poses = first_poses(slices)
    moved = slices.stack_index == 1
    assert np.abs(poses[moved, :3, 3] - [-millimetres, 0, 0]).max() < 6
    assert np.array_equal(poses[~moved], identity_poses(int((~moved).sum())))
    # but where nothing is to move, nothing does
    still = replace(OPTIONS, stages=(replace(STAGE, motion="none", outer_iterations=1),))
    np.testing.assert_array_equal(reconstruct(slices, still).poses, identity_poses(slices.n_slices))

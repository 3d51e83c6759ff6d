"""Slices that went astray come back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.masks.consensus import consensus_mask
from gsvr.model.geometry import pose_about, transform_points
from gsvr.model.slices import Slices
from gsvr.solver.lost_slices import poses_with_lost_slices
from gsvr.solver.motion import displacements
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import State
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain, true_poses

STAGE = Stage("slices", 2.2, 1, 3, 6, "none")
OPTIONS = SolverOptions(stages=(STAGE,))


@pytest.fixture(scope="module")
def slices() -> Slices:
    slices = prepare_slices(moving_brain(n_stacks=4).stacks, OPTIONS)
    return replace(slices, values=slices.values / np.percentile(slices.values[slices.mask], 99))


def fitted(slices: Slices, poses: np.ndarray) -> State:
    state = begin_stage(slices, STAGE, OPTIONS, None, poses)
    for _ in range(STAGE.outer_iterations):
        state = advance(STAGE, OPTIONS, state)
    return state


def astray(slices: Slices, poses: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Far from where Gauss-Newton finds back by itself."""
    wrong = poses.copy()
    for number in numbers:
        pivot = transform_points(poses[number], slices.centres[number])
        wrong[number] = pose_about(np.array([0.3, -0.2, 0.2]), np.array([6.0, -7.0, 5.0]), pivot) @ poses[number]
    return wrong


def test_slices_that_went_astray_come_back_and_others_stay(slices: Slices):
    true = true_poses(slices, moving_brain(n_stacks=4))
    pixels = slices.sum_per_slice(slices.mask)
    full = np.flatnonzero(pixels > 0.5 * np.median(pixels[pixels > 0]))
    numbers = full[:: len(full) // 5]
    state = fitted(slices, astray(slices, true, numbers))
    mask = consensus_mask(slices, slices.mask, true, OPTIONS.masks, OPTIONS.profile)
    found = poses_with_lost_slices(state, slices, mask, OPTIONS)
    errors = displacements(slices, true, found)
    before = displacements(slices, true, state.poses)
    assert before[numbers].min() > 8
    # some look alike in two places: the others, and time, have to tell
    assert (errors[numbers] < 1.0).mean() > 0.6
    assert (errors[numbers] < before[numbers] - 5).all()
    others = np.setdiff1d(full, numbers)
    assert errors[others].max() < 1.5


def test_where_none_is_lost_nothing_moves(slices: Slices):
    true = true_poses(slices, moving_brain(n_stacks=4))
    mask = consensus_mask(slices, slices.mask, true, OPTIONS.masks, OPTIONS.profile)
    found = poses_with_lost_slices(fitted(slices, true), slices, mask, OPTIONS)
    pixels = slices.sum_per_slice(slices.mask)
    assert displacements(slices, true, found)[pixels > 0.3 * np.median(pixels[pixels > 0])].max() < 1.5

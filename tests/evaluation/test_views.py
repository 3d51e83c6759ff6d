"""Directions of slices, and how much of the brain two stacks see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.evaluation.views import coverage, directions
from gsvr.masks.consensus import consensus_mask
from gsvr.model.fields import GaussianField
from gsvr.model.geometry import identity_poses, pose_about
from gsvr.model.slices import Slices, slices_from_stacks
from gsvr.solver.state import Result
from tests.moving_brain import moving_brain


def result_of(slices: Slices, poses: np.ndarray | None = None) -> Result:
    """A result whose field nobody looks at."""
    poses = identity_poses(slices.n_slices) if poses is None else poses
    one = np.ones(slices.n_slices)
    zeros = np.zeros((1, 3))
    field = GaussianField(zeros, zeros, np.eye(4)[:1], np.zeros(1, np.float32))
    mask = consensus_mask(slices, slices.mask, identity_poses(slices.n_slices))
    return Result(
        field=field, slices=slices, mask=mask, poses=poses, gains=one, slice_weights=one, noise=1.0, residuals=one,
        prediction=slices.values, pose_deviations=np.zeros((slices.n_slices, 2)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def slices() -> Slices:
    """Axial, coronal and sagittal slices of a brain that lies still."""
    return slices_from_stacks(moving_brain("none").stacks)


def of_stacks(slices: Slices, *stacks: int) -> np.ndarray:
    """Which slices are of these stacks."""
    return np.isin(slices.stack_index, stacks)


@pytest.mark.parametrize(("stacks", "number"), [((0,), 1.0), ((0, 1), 2.0), ((0, 1, 2), 3.0)])
def test_orthogonal_stacks_count_as_directions(slices: Slices, stacks: tuple[int, ...], number: float):
    assert directions(result_of(slices), of_stacks(slices, *stacks)) == pytest.approx(number, abs=0.05)


def test_a_subject_that_turned_was_seen_from_another_side(slices: Slices):
    poses = identity_poses(slices.n_slices)
    quarter = pose_about(np.array([np.pi / 2, 0, 0]), np.zeros(3), np.zeros(3))
    first = np.flatnonzero(of_stacks(slices, 0))
    poses[first[::2]] = quarter @ poses[first[::2]]
    assert directions(result_of(slices, poses), of_stacks(slices, 0)) == pytest.approx(2.0, abs=0.05)


def test_all_of_a_brain_is_seen_by_whole_stacks_and_half_of_it_by_a_half(slices: Slices):
    everything = np.ones(slices.n_slices, bool)
    assert coverage(result_of(slices), everything) > 0.9
    middle = np.median(slices.slice_index[of_stacks(slices, 0)])
    half = of_stacks(slices, 1) | (of_stacks(slices, 0) & (slices.slice_index < middle))
    assert coverage(result_of(slices), half) == pytest.approx(0.5, abs=0.12)
    assert coverage(result_of(slices), of_stacks(slices, 1)) == 0


def test_thick_slices_with_gaps_leave_no_holes(slices: Slices):
    thick = replace(slices, thicknesses=2 * slices.thicknesses)
    other = slices.slice_index % 2 == 0
    assert coverage(result_of(thick), other) > 0.85

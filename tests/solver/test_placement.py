"""New slices find their place in a field that exists."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gsvr.model.fields import LatticeField, lattice_values
from gsvr.model.geometry import identity_poses, pose_about
from gsvr.model.slices import Slices
from gsvr.operators.lattice import LatticeOperator
from gsvr.solver.motion import displacements
from gsvr.solver.placement import SLICE_LEVELS, coarser, place
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.workflows.pipeline import prepare_slices
from tests.acquisitions import small_lattice
from tests.moving_brain import moving_brain

OPTIONS = SolverOptions(stages=(Stage("still", 2.0, 1, 4, 6, "none"),))


@cache
def still_slices() -> Slices:
    """Three stacks of a brain that did not move."""
    return prepare_slices(moving_brain("none").stacks, OPTIONS)


@cache
def still_field() -> LatticeField:
    """The volume that they show."""
    field = reconstruct(still_slices(), OPTIONS).field
    assert isinstance(field, LatticeField)
    return field


@cache
def moved_field() -> tuple[LatticeField, Slices]:
    """One stack of the acquisition."""
    slices = still_slices()
    return still_field(), slices.subset(slices.stack_index == 1)


def test_coarser_field_is_the_field_smoothed():
    lattice = small_lattice(1.0, 0.7, 14.0)
    x, _, _ = np.meshgrid(*lattice.axes, indexing="ij")
    wave = np.cos(2 * np.pi * x / 40) * lattice.support
    field = LatticeField(lattice, wave.astype(np.float32))
    coarse = coarser(field, 4.0)
    axis = np.array([-4.0, 0.0, 4.0])
    fine, smooth = (lattice_values(one, (axis, axis, axis)) for one in (field, coarse))
    assert coarse.lattice.spacing == 4.0
    np.testing.assert_allclose(smooth, 0.876 * fine, rtol=0.04)  # smoothing by 3.3 mm leaves so much of such a wave


def test_a_field_that_is_coarse_enough_stays():
    assert coarser(still_field(), 1.0) is still_field()


def test_a_stack_that_was_displaced_returns():
    field, slices = moved_field()
    centre = slices.centres.mean(axis=0)
    wrong = np.repeat(
        pose_about(np.deg2rad([8.0, -6.0, 5.0]), np.array([3.0, -4.0, 2.0]), centre)[None], len(slices.shapes), 0
    )
    seen = slices.sum_per_slice(slices.mask) > 150
    found = place(field, slices, wrong, OPTIONS)
    left = displacements(slices, identity_poses(slices.n_slices), found.poses)[seen]
    assert np.median(displacements(slices, identity_poses(slices.n_slices), wrong)) > 5
    assert np.median(left) < 0.3
    assert found.total_agreement > 0.9
    assert np.nanmedian(found.agreement) > 0.9


def test_agreement_tells_a_stack_of_something_else():
    field, slices = moved_field()
    rng = np.random.default_rng(0)
    noise = Slices(**{**vars(slices), "values": rng.random(len(slices.values)).astype(np.float32)})
    assert place(field, noise, identity_poses(slices.n_slices), OPTIONS).total_agreement < 0.5


def test_one_slice_that_moved_is_found_and_its_movement_told():
    field, slices = moved_field()
    order = np.argsort(slices.times)
    order = order[slices.sum_per_slice(slices.mask)[order] > 150][:6]
    some = slices.subset(order)
    truth = identity_poses(some.n_slices)
    truth[-1] = pose_about(np.deg2rad([0.0, 0.0, 4.0]), np.array([1.5, 1.0, 0.0]), some.centres[-1])
    # what the scanner would have recorded of the last one: the field where it truly was
    operator = LatticeOperator(field.lattice, some, truth)
    some = Slices(**{**vars(some), "values": np.asarray(operator.predict(field.amplitudes))})
    found = place(field, some, identity_poses(some.n_slices), OPTIONS, SLICE_LEVELS)
    wanted = displacements(some.subset(np.array([-1])), identity_poses(1), truth[-1:])[0]
    assert np.isnan(found.movement[0])
    assert found.movement[-1] == pytest.approx(wanted, abs=0.6)
    assert found.movement[1:-1].max() < 0.6


def test_slices_that_show_nothing_have_no_agreement_and_stay_near():
    field, slices = moved_field()
    blind = slices.with_mask(slices.mask & slices.per_pixel(slices.slice_index > np.median(slices.slice_index)))
    found = place(field, blind, identity_poses(slices.n_slices), OPTIONS, SLICE_LEVELS)
    nothing = blind.sum_per_slice(blind.mask) == 0
    assert nothing.any()
    assert np.isnan(found.agreement[nothing]).all()
    assert np.isfinite(found.poses).all()
    assert displacements(slices, identity_poses(slices.n_slices), found.poses).max() < 3

"""Stacks that join one by one end in the volume of all stacks at once."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.evaluation import compare
from gsvr.model.fields import GaussianField, LatticeField, SumField
from gsvr.model.slices import Slices, Stack
from gsvr.render.volume import render_volume
from gsvr.solver.motion import displacements
from gsvr.solver.online import reconstruction
from gsvr.solver.online.arriving import ArrivingStack
from gsvr.solver.online.reconstruction import (
    OnlineState,
    finish,
    predicted_poses,
    update,
)
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage, default_stages
from gsvr.solver.state import FieldChoice, Result, State, Thickness
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import errors_of_poses, moving_brain, small_brain

# as by default, but less coarse for the smaller brain
QUICK = SolverOptions(
    stages=(
        Stage("stacks", 4.0, 2, 3, 5, "stacks", 0.8),
        Stage("slices, 3 mm", 3.0, 2, 4, 5),
        Stage("slices, 2.2 mm", 2.2, 1, 3, 5, consensus_mask=True),
        Stage("slices, 1.8 mm", 1.8, 1, 3, 5),
        Stage("final", 1.5, 1, 2, 6, "none", 0.6, consensus_mask=True),
    )
)
N_STACKS = 4


@cache
def slices_of_first(count: int) -> Slices:
    return prepare_slices(moving_brain(n_stacks=N_STACKS).stacks[:count], QUICK)


@cache
def online() -> tuple[OnlineState, OnlineState, Result, OnlineState, Result]:
    """Three stacks, and a fourth: the state before the last, and what became of it."""
    before, _ = update(None, slices_of_first(3), QUICK)
    state, quick = update(before, slices_of_first(4), QUICK)
    return before, state, quick, *finish(state, slices_of_first(4), QUICK)


def psnr(result: Result) -> float:
    return compare(render_volume(result.field, 1.0, result.mask), small_brain()).quality.psnr


def test_the_end_is_as_good_as_all_stacks_at_once():
    slices = slices_of_first(4)
    batch = reconstruct(slices, QUICK)
    *_, last = online()
    errors = [errors_of_poses(r.slices, r.poses, moving_brain(n_stacks=N_STACKS)).median for r in (last, batch)]
    assert errors[0] < errors[1] + 0.03
    assert psnr(last) > psnr(batch) - 0.15


def test_a_quick_volume_shows_the_brain():
    _, _, quick, _, last = online()
    assert isinstance(quick.field, LatticeField)
    assert quick.slices.n_slices == slices_of_first(4).n_slices
    assert (
        compare(render_volume(quick.field, 1.0, quick.mask), small_brain()).quality.ncc > 0.6
    )  # of a brain of half size in Gaussians 2.2 mm apart
    assert psnr(last) > psnr(quick)


def test_the_state_holds_every_slice_and_the_field_in_units_of_the_input():
    before, after, *_, last_state, last = online()
    assert before.n_stacks == 3
    assert after.n_stacks == 4
    assert set(last_state.poses) == set(slices_of_first(4).keys)
    bright = np.percentile(last.slices.values[last.slices.mask], 90)
    values = render_volume(last_state.field, 2.0, last_state.mask)
    assert np.percentile(values.data[values.mask], 90) == pytest.approx(bright, rel=0.2)


def test_arriving_slices_are_placed_where_the_finished_stack_has_them():
    before, *_, last = online()
    slices, simulation = slices_of_first(4), moving_brain(n_stacks=N_STACKS)
    stack = simulation.stacks[3]
    arriving = ArrivingStack(stack.name, np.eye(4))
    order = np.argsort(stack.slice_times)
    pieces = np.split(order, [1, 2, 5, 6, 20])  # one by one, or some at once
    told = [
        placed
        for piece in pieces
        for placed in arriving.place(
            before, [one_slice(stack, k) for k in piece], stack.slice_times[piece].tolist(), QUICK
        )
    ]
    assert [one.number for one in told] == list(range(stack.n_slices))
    known = arriving.poses_of(stack)
    assert set(known) == {(stack.name, k) for k in range(stack.n_slices)}
    new = slices.subset(slices.stack_index == 3)
    poses = np.stack([known[key] for key in new.keys])
    ends = last.poses[slices.stack_index == 3]
    seen = last.slices.sum_per_slice(last.slices.mask)[slices.stack_index == 3] > 150
    assert np.median(displacements(new, ends, poses)[seen]) < 0.8
    agreement = {int(order[one.number]): one.agreement for one in told}
    assert np.median([agreement[int(k)] for k in new.slice_index[seen]]) > 0.8
    assert np.isnan(agreement[int(order[0])])  # the first slice is beside the brain
    _, quick = update(before, slices, QUICK, known)
    assert errors_of_poses(quick.slices, quick.poses, simulation).median < 0.5


def one_slice(stack: Stack, k: int) -> Stack:
    affine = stack.affine.copy()
    affine[:3, 3] += affine[:3, 2] * k
    return Stack("a slice", stack.data[:, :, [k]], affine, stack.thickness, slice_times=np.zeros(1))


def test_a_slice_that_shows_nothing_at_all_is_carried_along():
    before, *_ = online()
    stack = moving_brain(n_stacks=N_STACKS).stacks[3]
    dark = [replace(one_slice(stack, k), data=np.zeros((*stack.data.shape[:2], 1), np.float32)) for k in (9, 10)]
    placed = ArrivingStack(stack.name, np.eye(4)).place(before, dark, [0.0, 1.0], QUICK)
    assert all(np.isfinite(one.pose).all() for one in placed)


def test_one_stack_alone_stays_where_its_header_puts_it():
    state, result = update(None, slices_of_first(1), QUICK)
    np.testing.assert_array_equal(result.poses, np.broadcast_to(np.eye(4), result.poses.shape))
    assert state.n_stacks == 1
    assert result.field.amplitudes.any()
    _, *_, fine = reconstruction._parts(QUICK, 1)
    assert {stage.motion for stage in fine} == {"none"}


def test_without_motion_nothing_moves():
    still = SolverOptions(stages=default_stages(3.0, free=False, motion="none"))
    state, first = update(None, slices_of_first(2), still)
    state, quick = update(state, slices_of_first(3), still)
    for result in (first, quick, finish(state, slices_of_first(3), still)[1]):
        np.testing.assert_array_equal(result.poses, np.broadcast_to(np.eye(4), result.poses.shape))


def test_unknown_slices_start_where_their_neighbour_in_time_is():
    slices = slices_of_first(2)
    keys, order = slices.keys, np.argsort(slices.times[slices.stack_index == 0])
    moved = np.eye(4)
    moved[:3, 3] = [1.0, 2.0, 3.0]
    known = {keys[order[0]]: np.eye(4), keys[order[-1]]: moved}
    poses = predicted_poses(slices, known)
    np.testing.assert_array_equal(poses[order[1]], np.eye(4))
    np.testing.assert_array_equal(poses[order[-2]], moved)
    np.testing.assert_array_equal(poses[slices.stack_index == 1][0], np.eye(4))


def test_stacks_that_do_not_fit_are_looked_for_in_intensities_near_one(monkeypatch: pytest.MonkeyPatch):
    """Priors are in units of bright tissue: in those of a scanner no stack would seem to fit another."""
    before, *_ = online()
    slices = slices_of_first(4)
    bright = replace(slices, values=slices.values * np.float32(700))
    brighter = replace(before.field, amplitudes=before.field.amplitudes * np.float32(700))
    state = replace(before, earlier=replace(before.earlier, field=brighter))
    checked: list[State] = []
    monkeypatch.setattr(reconstruction, "with_lost_stacks", lambda _, __, state: checked.append(state) or state)
    still = replace(QUICK, stages=(*QUICK.stages[:2], QUICK.stages[-1]))
    with pytest.raises(AskedEnoughError):
        update(state, bright, still, callback=stop)
    assert np.percentile(checked[0].slices.values[checked[0].slices.mask], 99) == pytest.approx(1, abs=0.3)
    prediction = np.asarray(checked[0].prediction)[checked[0].slices.mask]
    assert np.percentile(prediction, 99) == pytest.approx(1, abs=0.3)


class AskedEnoughError(Exception):
    pass


def stop(_: object) -> None:
    raise AskedEnoughError


def test_the_bias_of_stacks_is_carried_along():
    before, *_ = online()
    name = moving_brain(n_stacks=N_STACKS).stacks[0].name
    state = replace(before, earlier=replace(before.earlier, bias={name: np.array([0.01, *np.zeros(8)])}))
    heard: list[np.ndarray] = []

    def callback(progress: Progress) -> None:
        heard.append(progress.bias)
        raise AskedEnoughError

    with pytest.raises(AskedEnoughError):
        finish(state, slices_of_first(4), QUICK, callback)
    assert heard[0][0, 0] != 0
    assert not heard[0][1:].any()


# with a final field to decide on
LATTICE = replace(QUICK.stages[-1], outer_iterations=4)
DECIDING = replace(QUICK, stages=(*QUICK.stages[:-1], replace(LATTICE, free=True, alternative=LATTICE)))


def test_what_a_final_volume_decided_holds_until_there_are_a_quarter_more_stacks_again():
    before, *_ = online()
    found = Thickness(1.1, 0.01, True, {"1": 0.2, "1.18": 0.1})
    choice = FieldChoice(0.35, 0.5, 7, {})
    known = replace(before, earlier=replace(before.earlier, choice=choice, thickness=found), decided_by=4)
    state, result = finish(known, slices_of_first(4), DECIDING)
    assert result.choice == choice == state.earlier.choice
    assert result.thickness == found == state.earlier.thickness
    assert result.slices.thicknesses == pytest.approx(1.1 * slices_of_first(4).thicknesses)
    assert isinstance(result.field, SumField)
    assert state.decided_by == 4

    anew, other = finish(replace(known, decided_by=3), slices_of_first(4), DECIDING)
    assert other.choice is not None
    assert other.choice.errors
    assert anew.earlier.choice == other.choice
    assert anew.decided_by == 4
    quick, result = update(anew, slices_of_first(4), DECIDING)
    assert result.choice is None
    assert quick.earlier.choice == other.choice
    assert psnr(other) > psnr(online()[-1]) - 0.1


@pytest.mark.parametrize(("share", "kind"), [(0.0, LatticeField), (1.0, GaussianField)])
def test_one_kind_of_field_alone_may_have_been_decided(share: float, kind: type):
    before, *_ = online()
    choice = FieldChoice(share, 1.0, 7, {})
    known = replace(before, earlier=replace(before.earlier, choice=choice), decided_by=4)
    _, result = finish(known, slices_of_first(4), replace(DECIDING, estimate_thickness=False))
    assert isinstance(result.field, kind)
    assert psnr(result) > psnr(online()[2])

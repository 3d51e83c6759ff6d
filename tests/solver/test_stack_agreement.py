"""A field predicts slices that it was not made of, where it is determined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gsvr.model.geometry import identity_poses, pose_about
from gsvr.model.slices import Slices
from gsvr.solver.outer_iteration import advance, begin_stage
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.stack_agreement import Agreement, agreement, determined_pixels, operator_on
from gsvr.solver.state import State
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import moving_brain

STAGE = Stage("stacks", 4.0, 2, 2, 5, "none", 0.8)
OPTIONS = SolverOptions(stages=(STAGE,))


def still_slices() -> Slices:
    slices = prepare_slices(moving_brain("none").stacks, OPTIONS)
    return slices.binned(STAGE.binning)


def field_of(slices: Slices) -> State:
    state = begin_stage(slices, STAGE, OPTIONS, None, identity_poses(slices.n_slices))
    for _ in range(STAGE.outer_iterations):
        state = advance(STAGE, OPTIONS, state)
    return state


def test_stacks_predict_each_other_where_they_lie_and_nowhere_else():
    slices = still_slices()
    first, second = slices.subset(slices.stack_index == 0), slices.subset(slices.stack_index == 1)
    field, here = field_of(first), identity_poses(second.n_slices)
    operator = operator_on(field, second, here)
    right = agreement(field, operator)
    known, predicted = determined_pixels(field, operator), operator.predict(field.amplitudes)
    # slice by slice, which leaves out how slices differ
    of_slices = [second.pixels_of(number) for number in range(second.n_slices)]
    pairs = [(predicted[part][known[part]], second.values[part][known[part]]) for part in of_slices]
    pairs = [pair for pair in pairs if len(pair[0]) >= 12]
    each, count = [np.corrcoef(*pair)[0, 1] for pair in pairs], [len(pair[0]) for pair in pairs]
    np.testing.assert_allclose(right.correlation, np.average(each, weights=count), atol=1e-5)
    assert right.correlation > 0.7  # from where on stacks count as agreeing
    assert right.compared > 0.9
    turn = pose_about(np.array([0.0, 0.0, np.pi / 2]), np.zeros(3), second.centres.mean(axis=0))
    wrong = agreement(field, operator_on(field, second, turn @ here))
    assert wrong.correlation < 0.6
    assert wrong.evidence < right.evidence


def test_gains_of_slices_do_not_count():
    slices = still_slices()
    first, second = slices.subset(slices.stack_index == 0), slices.subset(slices.stack_index == 1)
    field, here = field_of(first), identity_poses(second.n_slices)
    gains = np.random.default_rng(0).uniform(0.5, 2, second.n_slices).astype(np.float32)
    dimmed = operator_on(field, second, here)
    as_recorded = agreement(field, dimmed)
    changed = replace(second, values=second.values * second.per_pixel(gains))
    np.testing.assert_allclose(
        agreement(field, operator_on(field, changed, here)).correlation, as_recorded.correlation, atol=1e-6
    )


def test_only_what_is_seen_is_compared():
    slices = still_slices()
    first, second = slices.subset(slices.stack_index == 0), slices.subset(slices.stack_index == 1)
    half = first.subset(first.slice_index > np.median(first.slice_index))
    field, here = field_of(half), identity_poses(second.n_slices)
    operator = operator_on(field, second, here)
    known = determined_pixels(field, operator)
    share = known.sum() / second.mask.sum()
    assert 0.3 < share < 0.65
    assert np.isclose(agreement(field, operator).compared, share)
    assert not (known & ~second.mask).any()
    far = pose_about(np.zeros(3), np.array([300.0, 0, 0]), np.zeros(3)) @ here
    assert agreement(field, operator_on(field, second, far)) == Agreement(0.0, 0.0)

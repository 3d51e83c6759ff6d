"""The verdict tells good runs from bad ones, and why."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gsvr.evaluation.cross_prediction import cross_prediction
from gsvr.evaluation.verdict import Evidence, Limits, StackEvidence, Verdict, graded, judge
from gsvr.model.copies import copies
from gsvr.model.geometry import pose_about
from gsvr.model.slices import Stack, slices_from_stacks
from gsvr.solver.reconstruct import reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.state import Result
from tests.moving_brain import QUICK_STAGES, moving_brain

OPTIONS = SolverOptions(stages=QUICK_STAGES)
GOOD = Evidence(
    compared=90,
    agreeing=0.97,
    displacement=0.3,
    unexplained=0.02,
    predicted_ncc=0.96,
    believed=0.95,
    pose_deviation=0.2,
    coverage=0.99,
    directions=2.9,
    anisotropy=2.0,
    stacks=tuple(StackEvidence(name, 30, 0.97, 0.3, 0.02) for name in "abc"),
)


@cache
def found(*stacks: int) -> Result:
    """Stacks of the moving brain, reconstructed."""
    recorded = moving_brain().stacks
    return reconstruct(slices_from_stacks([recorded[k] for k in stacks]), OPTIONS)


def noise(stack: Stack, seed: int) -> Stack:
    """What the scanner records of nothing."""
    rng = np.random.default_rng(seed)
    return replace(stack, data=np.hypot(*rng.normal(size=(2, *stack.data.shape))).astype(np.float32))


def test_a_good_run_is_good():
    verdict = judge(found(0, 1, 2))
    assert min(stack.predicted_ncc for stack in verdict.evidence.stacks) > 0.9
    assert verdict.grade == "good", verdict
    assert verdict.advice == ()
    assert verdict.evidence.agreeing > 0.9
    assert [stack.name for stack in verdict.evidence.stacks] == list(found(0, 1, 2).slices.stack_names)


def test_noise_has_failed():
    stacks = [noise(stack, seed) for seed, stack in enumerate(moving_brain().stacks)]
    verdict = judge(reconstruct(slices_from_stacks(stacks), OPTIONS))
    assert verdict.grade == "failed", verdict
    assert verdict.evidence.predicted_ncc < 0.3


def test_a_stack_in_the_wrong_place_is_named():
    result = found(0, 1, 2)
    members = result.slices.stack_index == 1
    poses = result.poses.copy()
    away = pose_about(np.array([0.2, 0, 0]), np.array([0.0, 6.0, 0.0]), np.array([12.0, -7.0, 20.0]))
    poses[members] = away @ poses[members]
    verdict = judge(replace(result, poses=poses))
    correlations = {stack.name: stack.predicted_ncc for stack in verdict.evidence.stacks}
    assert min(correlations, key=lambda name: correlations[name]) == result.slices.stack_names[1]
    assert verdict.grade != "good", verdict
    others = [stack.displacement for k, stack in enumerate(verdict.evidence.stacks) if k != 1]
    assert verdict.evidence.stacks[1].displacement > max(others)


def test_a_verdict_says_how_far_a_stack_lies_from_the_others():
    result = found(0, 1, 2)
    members = result.slices.stack_index == 1
    assert result.mask.mask is not None
    centre = result.mask.centre(result.mask.mask)
    before = judge(result).evidence.stacks[1]
    assert before.apart < 6
    assert before.turned < 12
    poses = result.poses.copy()
    poses[members] = poses[members] @ pose_about(np.deg2rad([40.0, 0, 0]), np.array([0.0, 30.0, 0.0]), centre)
    verdict = judge(replace(result, poses=poses))
    moved = verdict.evidence.stacks[1]
    assert moved.apart == pytest.approx(30, abs=8)
    assert moved.turned == pytest.approx(40, abs=12)
    turned = judge(replace(result, poses=poses).turned(pose_about(np.array([0.3, 1, 0.2]), np.ones(3), np.zeros(3))))
    assert turned.evidence.stacks[1].apart == pytest.approx(moved.apart, abs=0.3)
    assert turned.evidence.stacks[1].turned == pytest.approx(moved.turned, abs=0.1)


def test_what_slices_are_moved_by_is_what_the_prediction_wants_back():
    result = found(0, 1, 2)
    before = cross_prediction(result)
    pixels = result.slices.sum_per_slice(result.slices.mask)
    lost = int(np.argmax(pixels * (result.slices.stack_index == 0)))
    poses = result.poses.copy()
    poses[lost, :3, 3] += result.poses[lost, :3, :3] @ result.slices.frames[lost, :3, 0] * 3.0
    after = cross_prediction(replace(result, poses=poses))
    assert before.displacement[lost] < 1.0
    assert after.displacement[lost] == pytest.approx(3.0, abs=1.0)


def test_one_stack_alone_has_nothing_to_compare_with():
    result = found(0, 1, 2)
    mask = result.slices.mask & result.slices.per_pixel(result.slices.stack_index == 0)
    verdict = judge(replace(result, slices=result.slices.with_mask(mask)))
    assert verdict.grade == "failed"
    assert "no two stacks show the same part of the brain" in verdict.reasons


def test_one_recording_under_three_names_is_doubtful():
    stack = moving_brain().stacks[0]
    stacks = [replace(stack, name=name) for name in ("one", "two", "three")]
    verdict = judge(reconstruct(slices_from_stacks(stacks), OPTIONS), copies=copies(stacks))
    assert verdict.grade != "good"
    assert "two holds the same recording as one" in verdict.reasons
    assert any("parallel" in reason for reason in verdict.reasons)


def _far(agreeing: float, apart: float, turned: float) -> StackEvidence:
    return StackEvidence("a", 30, agreeing, 2.0, 0.1, 0.9, apart, turned)


@pytest.mark.parametrize(
    ("change", "grade", "word"),
    [
        ({}, "good", "97 %"),
        ({"compared": 0, "agreeing": np.nan, "predicted_ncc": np.nan}, "failed", "no two stacks"),
        ({"predicted_ncc": np.nan}, "failed", "correlate"),
        ({"predicted_ncc": 0.1}, "failed", "correlate"),
        ({"agreeing": 0.3}, "failed", "30 %"),
        ({"agreeing": 0.8}, "doubtful", "80 %"),
        ({"displacement": 0.7}, "doubtful", "0.7 mm"),
        ({"displacement": 1.2}, "failed", "1.2 mm"),
        ({"displacement": 1.2, "stacks": GOOD.stacks[:2]}, "doubtful", "1.2 mm"),
        ({"coverage": 0.4}, "doubtful", "40 % of the brain"),
        ({"directions": 1.0}, "doubtful", "parallel"),
        ({"directions": 1.0, "anisotropy": 1.0}, "good", "97 %"),
        ({"copies": (("a", "b"),)}, "doubtful", "b holds the same recording as a"),
        ({"stacks": (StackEvidence("a", 9, 0.2, 9.0, 0.5), *GOOD.stacks[1:])}, "doubtful", "a disagrees"),
        ({"stacks": (_far(0.2, 38.0, 12.0), *GOOD.stacks[1:])}, "doubtful", "the brain lay 38 mm and 12 degrees from"),
        ({"stacks": (_far(0.9, 38.0, 62.0), *GOOD.stacks[1:])}, "good", "97 %"),
        ({"stacks": (StackEvidence("a", 0, np.nan, np.nan, np.nan), *GOOD.stacks[1:])}, "good", "97 %"),
    ],
)
def test_the_numbers_decide(change: dict, grade: str, word: str):
    verdict = graded(replace(GOOD, **change))
    assert verdict.grade == grade
    assert word in verdict.sentence
    assert bool(verdict.advice) == (grade != "good")


def test_limits_can_be_set():
    assert graded(GOOD, Limits(agreeing=(0.98, 0.5))).grade == "doubtful"


def test_a_verdict_is_one_sentence():
    verdict = Verdict("doubtful", ("this", "that"), ("do so",), GOOD)
    assert verdict.sentence == "doubtful: this; that; do so"

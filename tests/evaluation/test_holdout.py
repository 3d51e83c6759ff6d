"""Leave-one-stack-out: the stack left out is predicted, and nothing of it leaks into its prediction."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gsvr.evaluation import slice_agreement
from gsvr.evaluation.holdout import HoldoutScore, leave_one_stack_out, predict_unseen
from gsvr.model.slices import Slices, Stack
from gsvr.operators.acquisition import PoseEquations
from gsvr.solver.reconstruct import Progress
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import QUICK_STAGES, moving_brain

# the stages up to 2 mm: what they predict is enough to tell right from wrong
OPTIONS = SolverOptions(stages=(*QUICK_STAGES[:2], replace(QUICK_STAGES[2], outer_iterations=2)))


class NoMotion:
    """Slices that stay where they are."""

    def moved(self, slices: Slices, poses: np.ndarray, equations: PoseEquations, noise_variance: float) -> np.ndarray:
        return poses


def prepare(stacks: list[Stack]) -> Slices:
    return prepare_slices(stacks, OPTIONS)


@pytest.fixture(scope="module")
def heard() -> list[tuple[str, Progress]]:
    return []


@pytest.fixture(scope="module")
def scores(heard: list[tuple[str, Progress]]) -> list[HoldoutScore]:
    return leave_one_stack_out(
        prepare(moving_brain().stacks), OPTIONS, lambda name, progress: heard.append((name, progress))
    )


def test_every_stack_is_predicted_once(scores: list[HoldoutScore]):
    assert [score.stack for score in scores] == ["stack-0", "stack-1", "stack-2"]
    for number, score in enumerate(scores):
        assert set(score.slices.stack_index.tolist()) == {number}
        assert len(score.prediction) == len(score.slices.values)
        assert score.agreement.ncc > 0.93
        assert score.agreement.gain == pytest.approx(1, abs=0.05)


def test_progress_tells_which_stack_is_left_out(heard: list[tuple[str, Progress]], scores: list[HoldoutScore]):
    total = sum(stage.outer_iterations for stage in OPTIONS.stages)
    assert list(dict.fromkeys(name for name, _ in heard)) == [score.stack for score in scores]
    for number, score in enumerate(scores):
        of_stack = [progress for name, progress in heard if name == score.stack]
        assert of_stack[-1].done == of_stack[-1].total == total
        assert set(of_stack[-1].state.slices.stack_index.tolist()) == {0, 1, 2} - {number}


def test_moving_the_slices_is_what_makes_the_prediction(scores: list[HoldoutScore], heard: list[tuple[str, Progress]]):
    of_first = [progress for name, progress in heard if name == "stack-0"]
    last, scale = of_first[-1].state.field, of_first[-1].scale
    slices = scores[0].slices
    scaled = replace(slices, values=slices.values / np.float32(scale))
    # gains alone: the slices stay where the scanner had them
    still = predict_unseen(scaled, [(OPTIONS.stages[-1], last)], replace(OPTIONS, motion=NoMotion()))
    assert slice_agreement(still, slices.values, slices.mask).ncc < scores[0].agreement.ncc - 0.02


def test_the_scale_of_a_stack_does_not_matter(scores: list[HoldoutScore], heard: list[tuple[str, Progress]]):
    """Gains are fitted before poses, so a stack from another scanner protocol is as well predicted."""
    fields = {progress.stage: progress.state.field for name, progress in heard if name == "stack-1"}
    scale = next(progress.scale for name, progress in heard if name == "stack-1")
    slices = scores[1].slices
    bright = replace(slices, values=slices.values * np.float32(5 / scale))
    prediction = predict_unseen(bright, list(fields.items()), OPTIONS)
    agreement = slice_agreement(prediction, bright.values, bright.mask)
    assert agreement.gain == pytest.approx(1, abs=0.05)
    assert agreement.ncc == pytest.approx(scores[1].agreement.ncc, abs=0.005)


def test_nothing_leaks_from_the_stack_left_out(heard: list[tuple[str, Progress]], scores: list[HoldoutScore]):
    stacks = list(moving_brain().stacks)
    noise = np.abs(np.random.default_rng(0).normal(scale=300, size=stacks[2].data.shape)).astype(np.float32)
    stacks[2] = replace(stacks[2], data=noise)
    short = replace(OPTIONS, stages=OPTIONS.stages[:1])
    fields = []
    for given in (stacks, moving_brain().stacks):
        of_last: list[Progress] = []

        def keep(name: str, progress: Progress, kept: list[Progress] = of_last) -> None:
            if name == "stack-2":
                kept.append(progress)

        last = leave_one_stack_out(prepare(given), short, keep)[-1]
        fields.append((of_last[-1].state.field.amplitudes, last.agreement.ncc))
    np.testing.assert_array_equal(fields[0][0], fields[1][0])
    # noise cannot be predicted
    assert fields[0][1] < 0.3 < fields[1][1]


def test_one_drawn_mask_may_belong_to_the_stack_left_out():
    stacks = [replace(stack, mask=stack.mask if k == 1 else None) for k, stack in enumerate(moving_brain().stacks)]
    stages = (OPTIONS.stages[0], replace(QUICK_STAGES[-1], spacing=3.0, binning=2, outer_iterations=1))
    scores = leave_one_stack_out(prepare(stacks), replace(OPTIONS, stages=stages))
    assert all(np.isfinite(score.agreement.ncc) for score in scores)
    assert scores[1].agreement.ncc > 0.8


def test_two_stacks_are_too_few():
    with pytest.raises(ValueError, match="at least three"):
        leave_one_stack_out(prepare(moving_brain().stacks[:2]), OPTIONS)

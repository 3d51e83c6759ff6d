"""An examination goes on, whatever its parts do."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.live import examination as module
from gsvr.workflows.live.arrival import Arrival, SliceArrival
from gsvr.workflows.live.examination import LiveExamination, LiveOptions
from tests.moving_brain import coarse_brain
from tests.stack_files import write_stack


@pytest.fixture
def new(tmp_path: Path) -> LiveExamination:
    return LiveExamination(tmp_path / "study", LiveOptions(SolverOptions(), 2.0))


def receive(examination: LiveExamination, folder: Path, number: int) -> None:
    path = write_stack(folder, coarse_brain().stacks[number])
    examination.receive(Arrival("study", path, None, time.time(), path.name))


def slice_arrival(stack: str, number: int) -> SliceArrival:
    whole = coarse_brain().stacks[0]
    image = replace(whole, data=whole.data[:, :, [number]], mask=None, slice_times=np.zeros(1))
    return SliceArrival("study", stack, image, float(number), time.time())


def events(examination: LiveExamination, kind: str) -> list[dict]:
    return [event for event in examination.events.so_far if event["event"] == kind]


def test_an_error_of_the_solver_is_told_and_the_next_stack_has_its_chance(
    new: LiveExamination, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> None:
        raise FloatingPointError("not the user's business")

    monkeypatch.setattr(module, "update", broken)
    receive(new, tmp_path, 0)
    assert new.waits == "quick"
    new.work()
    assert events(new, "error")[-1]["reason"] == "the reconstruction failed (FloatingPointError)"
    assert new.is_idle
    monkeypatch.undo()
    receive(new, tmp_path, 1)
    new.work()
    assert events(new, "volume")[-1]["stacks"] == ["stack-0", "stack-1"]  # nothing was lost


def test_slices_before_the_first_volume_are_told_without_a_pose(new: LiveExamination, tmp_path: Path):
    for number in range(3):
        new.see(slice_arrival("series-1", number))
    assert new.has_slices
    new.place()
    assert not new.has_slices
    told = events(new, "slice")
    assert [event["pose"] for event in told] == [None] * 3
    assert all(event["arriving"] and 0 <= event["latency_seconds"] < 60 for event in told)
    receive(new, tmp_path, 0)
    new.see(slice_arrival("stack-0", 1))  # its stack is here already
    assert not new.has_slices


def test_slices_that_cannot_be_placed_cost_nothing(new: LiveExamination, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(new, "_state", object())
    new.see(slice_arrival("series-1", 0))
    new.place()
    assert "could not be placed" in events(new, "error")[-1]["reason"]
    assert not new.has_slices


def test_more_slices_than_any_stack_has_are_not_kept(new: LiveExamination):
    for number in range(600):
        new.see(slice_arrival("series-1", number % 3))
    new.place()
    assert len(events(new, "slice")) == 500


def test_parts_give_way_to_the_whole_also_after_a_restart(new: LiveExamination, tmp_path: Path):
    receive(new, tmp_path, 0)
    receive(new, tmp_path, 1)
    part, again = (one.path for one in new.arrivals)
    receive(new, tmp_path, 2)
    new.receive(Arrival("study", again, None, time.time(), "whole", replaces=(part,)))
    assert [one.path.name for one in new.arrivals] == ["stack-1.nii.gz", "stack-2.nii.gz"]
    restarted = LiveExamination(new.folder, LiveOptions(SolverOptions(), 2.0))
    assert {one.path.name for one in restarted.arrivals} == {"stack-1.nii.gz", "stack-2.nii.gz"}

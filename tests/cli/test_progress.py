"""What a long command shows: on a terminal bars that go on, off it lines."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from gsvr.cli.progress import count_progress, iteration_progress
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import prepare_slices
from tests.moving_brain import SHORTEST_STAGES, moving_brain

OPTIONS = SolverOptions(stages=SHORTEST_STAGES, uncertainty_samples=3)


@pytest.fixture(scope="module")
def heard() -> list[Progress | tuple[int, int]]:
    """All that is told of a reconstruction and of the three samples after it."""
    told: list[Progress | tuple[int, int]] = []
    slices = prepare_slices(moving_brain().stacks, OPTIONS)
    reconstruct(slices, OPTIONS, told.append, sampling=lambda *counted: told.append(counted))
    return told


def shown(heard: list[Progress | tuple[int, int]], terminal: bool) -> list[str]:
    """How that looks, line by line."""
    text = io.StringIO()
    with iteration_progress(Console(file=text, force_terminal=terminal, width=100)) as (show, sampling):
        for told in heard:
            show(told, "") if isinstance(told, Progress) else sampling(*told)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.getvalue()).splitlines()


def test_the_uncertainty_has_a_bar_of_its_own(heard: list[Progress | tuple[int, int]]):
    first, last = shown(heard, terminal=True)[-2:]
    assert re.match(r"final .* iteration +4 of 4 residual", first)
    assert re.match(r"uncertainty .* sample +3 of 3", last)
    without = shown([told for told in heard if isinstance(told, Progress)], terminal=True)
    assert not any("uncertainty" in line for line in without)


def test_off_a_terminal_there_is_a_line_for_every_stage_and_for_the_uncertainty(heard):
    lines = shown(heard, terminal=False)
    names = [stage.name for stage in SHORTEST_STAGES]
    assert [line.partition(":")[0] for line in lines] == [*names, "uncertainty"]
    assert all(re.fullmatch(r".*: \d+\.\d s, residual \d+\.\d %", line) for line in lines[:-1])
    assert lines[-1] == "uncertainty: 3 of 3 samples"


def test_a_stage_is_told_when_it_ends_and_not_when_the_next_one_is_heard_of(heard):
    """What comes before the first iteration of a stage is its own time."""
    text, told = io.StringIO(), [progress for progress in heard if isinstance(progress, Progress)]
    with iteration_progress(Console(file=text, force_terminal=False)) as (show, _):
        for progress in told:
            show(progress, "")
            assert (f"{progress.stage.name}:" in text.getvalue()) == progress.stage_done


def test_what_is_quick_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    console = Console(file=io.StringIO(), force_terminal=False)
    with count_progress(console, "looking") as show:
        show(1, 1)
    monkeypatch.setattr("gsvr.cli.progress._SECONDS_BEFORE_PROGRESS", 0.0)
    with count_progress(console, "looking") as show:
        show(1, 2)
        show(2, 2)
    assert isinstance(console.file, io.StringIO)
    assert re.fullmatch(r"looking: 2 of 2, \d\.\d s\n", console.file.getvalue())

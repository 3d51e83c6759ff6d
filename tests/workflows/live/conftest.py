"""An examination of two stacks that is made once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.live.arrival import Arrival
from gsvr.workflows.live.examination import LiveExamination, LiveOptions
from tests.moving_brain import moving_brain
from tests.stack_files import write_stack


def arrive(examination: LiveExamination, folder: Path, number: int) -> None:
    """A stack arrives, and what is due is made."""
    path = write_stack(folder, moving_brain().stacks[number])
    mask = path.with_name(path.name.replace(".nii", "_mask.nii"))
    examination.receive(Arrival(examination.name, path, mask, time.time(), path.name))
    while examination.waits:
        examination.work()


@pytest.fixture(scope="session")
def examination(tmp_path_factory: pytest.TempPathFactory) -> LiveExamination:
    """Two stacks are there; the files of the stacks are in the folder beside it."""
    folder = tmp_path_factory.mktemp("live")
    examination = LiveExamination(folder / "mother 1", LiveOptions(SolverOptions(), 2.0))
    (folder / "in").mkdir()
    for number in range(2):
        arrive(examination, folder / "in", number)
    return examination

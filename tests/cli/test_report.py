"""``gsvr report`` on records that somebody, or a disk, has changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gsvr
from gsvr.solver.schedule import SolverOptions
from tests.cli.conftest import Command
from tests.moving_brain import SHORTEST_STAGES, moving_brain


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    options = SolverOptions(stages=SHORTEST_STAGES)
    result = gsvr.reconstruct(gsvr.slices_from_stacks(moving_brain().stacks), options)
    gsvr.write_result(folder / "v.nii.gz", result, options, moving_brain().stacks, output_resolution=2.0)
    return folder / "v.json"


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a spacing of words": lambda record: record["stacks"][0].update(spacing=["a", "b", "c"]),
    "a verdict that is a number": lambda record: record.update(verdict=1.5),
    "an input that is no file": lambda record: record.update(inputs=[{"role": "stack"}]),
    "a number beyond all": lambda record: record.update(timings_seconds={"reading": 0.5, "rest": 10**400}),
    "half a character": lambda record: record.update(command="\ud800"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_record_is_one_sentence(record: Path, gsvr_command: Command, tmp_path: Path, change: str):
    assert gsvr_command("report", record).exit_code == 0
    content = json.loads(record.read_text(encoding="utf-8"))
    CHANGES[change](content)
    changed = record.with_name("changed.json")
    changed.write_text(json.dumps(content), encoding="utf-8")
    page = tmp_path / "changed.html"
    result = gsvr_command("report", changed, "--output-report", page)
    assert result.exit_code == 2
    assert "changed.json is damaged (" in " ".join(result.stderr.split())
    assert len(result.stderr.splitlines()) == 1
    assert not page.exists()

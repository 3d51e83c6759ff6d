"""The moving brain as files, and commands on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import gsvr.workflows.pipeline
from gsvr.cli import app
from tests.cli.bad_files import Files, Refused, refusal
from tests.moving_brain import SHORTEST_STAGES, moving_brain
from tests.stack_files import write_simulation

Command = Callable[..., Any]


@pytest.fixture(scope="session")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three stacks with masks and sidecars beside them; not to be changed."""
    return write_simulation(tmp_path_factory.mktemp("acquisition"), moving_brain())


@pytest.fixture
def gsvr_command() -> Command:
    """Run ``gsvr`` with these arguments; lists are spread."""

    def run(*arguments: str | float | Path | Sequence[str | Path]) -> Any:
        words: list[str] = []
        for argument in arguments:
            words += [str(word) for word in argument] if isinstance(argument, list | tuple) else [str(argument)]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    return run


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconstruct in four quick rounds: for tests of everything but the quality."""
    monkeypatch.setattr(gsvr.workflows.pipeline, "default_stages", lambda *_: SHORTEST_STAGES)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Three good stacks with masks, to be spoilt."""
    return Files(tmp_path)


@pytest.fixture
def refused(files: Files, gsvr_command: Command) -> Refused:
    """Run ``gsvr reconstruct`` on the files with these options; the one sentence that refuses."""
    return refusal(files, gsvr_command)

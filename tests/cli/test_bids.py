"""``gsvr bids``: options, messages, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bids_datasets import write_dataset
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("bids") / "dataset", [("01", "a"), ("01", "b")])


@pytest.mark.usefixtures("_short")
def test_a_selected_session_is_reconstructed_once(root: Path, tmp_path: Path, gsvr_command: Command):
    options = ("--session-label", "b", "--output-resolution", 2, "--skip-bids-validation")
    words = ("bids", root, tmp_path / "out", "participant", *options)
    first = gsvr_command(*words)
    assert first.exit_code == 0
    assert "sub-01_ses-b: " in first.stdout
    assert (tmp_path / "out" / "sub-01_ses-b.html").is_file()
    assert not (tmp_path / "out" / "sub-01_ses-a.html").exists()
    assert gsvr_command(*words).stdout == "sub-01_ses-b: done before\n"


def test_refusals_speak_of_options(root: Path, tmp_path: Path, gsvr_command: Command):
    result = gsvr_command("bids", root, tmp_path / "out", "participant", "--participant-label", "09")
    assert result.exit_code == 2
    assert "--participant-label 09: the dataset has no T2-weighted run with sub-09" in result.stderr
    assert not (tmp_path / "out").exists()

"""``gsvr bids``: options, messages, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bids_datasets import write_dataset
from tests.cli.conftest import Command


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("bids") / "dataset", [("01", "a"), ("01", "b")])


OPTIONS = ("--preset", "fast", "--output-resolution", 2, "--skip-bids-validation")


@pytest.mark.slow
def test_a_selected_session_is_reconstructed_once_and_shown(root: Path, tmp_path: Path, gsvr_command: Command):
    output = tmp_path / "out"
    words = ("bids", root, output, "participant", "--session-label", "b", *OPTIONS, "--n-procs", 1)
    first = gsvr_command(*words)
    assert first.exit_code == 0
    assert first.stdout.startswith("sub-01_ses-b: good: ")
    assert first.stdout.endswith("1 session: 1 good\n")
    assert not (output / "sub-01_ses-a.html").exists()
    assert gsvr_command(*words).stdout == "1 session (1 of them done before): 1 good\n"
    record = json.loads((output / "sub-01/ses-b/anat/sub-01_ses-b_rec-gsvr_record.json").read_text())
    assert record["command"].startswith("gsvr bids dataset out participant --session-label b")
    assert "motion" in (output / "logs" / "sub-01_ses-b.log").read_text()
    group = gsvr_command("bids", root, output, "group")
    assert group.exit_code == 0
    assert "group.html: 2 sessions, 1 of them not reconstructed" in group.stdout
    rows = (output / "group.tsv").read_text().splitlines()
    assert [row.split("\t")[2] for row in rows[1:]] == ["not reconstructed", "good"]
    assert rows[1].endswith("not run yet")
    assert 'href="sub-01_ses-b.html"' in (output / "group.html").read_text()


@pytest.mark.slow
def test_what_cannot_be_reconstructed_is_listed_and_the_others_go_on(tmp_path: Path, gsvr_command: Command):
    root = write_dataset(tmp_path / "dataset", [("01", None), ("02", None), ("03", None)])
    (root / "sub-01" / "anat" / "sub-01_run-2_T2w.nii.gz").write_bytes(b"no image")
    for number in (2, 3):
        (root / "sub-02" / "anat" / f"sub-02_run-{number}_T2w.nii.gz").unlink()
    result = gsvr_command("bids", root, tmp_path / "out", "participant", *OPTIONS)
    assert result.exit_code == 1
    summary = result.stdout[result.stdout.index("3 sessions: ") :].splitlines()
    assert summary[0] == "3 sessions: 1 good, 2 not reconstructed"
    assert summary[1].startswith("  sub-01: not reconstructed: ")
    assert "sub-01_run-2_T2w.nii.gz" in summary[1]
    assert summary[2].startswith("  sub-02: not reconstructed: one stack cannot be corrected for motion")
    assert summary[3] == f"logs: {tmp_path / 'out' / 'logs'}"
    assert gsvr_command("bids", root, tmp_path / "out", "group").exit_code == 0
    assert "one stack cannot be corrected" in (tmp_path / "out" / "group.tsv").read_text()


def test_without_any_reconstruction_there_is_nothing_to_show(root: Path, tmp_path: Path, gsvr_command: Command):
    result = gsvr_command("bids", root, tmp_path / "out", "group")
    assert result.exit_code == 2
    assert "run the level participant first" in result.stderr


def test_refusals_speak_of_options(root: Path, tmp_path: Path, gsvr_command: Command):
    result = gsvr_command("bids", root, tmp_path / "out", "participant", "--participant-label", "09")
    assert result.exit_code == 2
    assert "--participant-label 09: the dataset has no T2-weighted run with sub-09" in result.stderr
    assert not (tmp_path / "out").exists()

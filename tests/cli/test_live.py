"""Options of ``gsvr live`` that would do nothing are refused before anything is listened to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("", "nothing to listen to: give --watch, --dicom-port or --mrd-port"),
        ("--mrd-port 0 --allow-peer A@b C@d", "--allow-peer is for --dicom-port: give that, too"),
        ("--watch in --mrd-peer 10.0.0.5", "--mrd-peer is for --mrd-port: give that, too"),
        ("--watch in --dicom-patient", "--dicom-patient is for --send-to: give that, too"),
        ("--mrd-port 0 --mrd-peer 10.0.0.5 scanner", "--mrd-peer 'scanner' is no address: give one such as 10.0.0.5"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: str, told: str, gsvr_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    result = gsvr_command("live", "--output-dir", "out", *words.split())
    assert (result.exit_code, result.stderr) == (2, f"gsvr: error: {told}\n")

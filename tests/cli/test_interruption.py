"""Ctrl-C or SIGTERM, whenever it comes: one line, exit code 130 or 143, and no half file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import pytest

import gsvr.workflows.outputs
import gsvr.workflows.pipeline
from tests.cli.conftest import Command

INTERRUPTED, TERMINATED = 130, 143


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("step", ["read_stacks", "prepare_masks", "reconstruct", "render_volume"])
def test_before_writing_nothing_is_written(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    monkeypatch.setattr(gsvr.workflows.pipeline, step, interrupt)
    output = tmp_path / "output"
    result = gsvr_command("reconstruct", "--input-stacks", stacks, "--output-volume", output / "v.nii.gz")
    assert result.exit_code == INTERRUPTED
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.output
    assert not output.exists()


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("step", ["write_poses_json", "write_itk_transform", "write_field", "write_record"])
def test_while_writing_every_file_is_whole_and_there_is_no_record(
    stacks: list[Path], gsvr_command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    """An older record would describe files that are no longer there."""
    (tmp_path / "v.json").write_text("{}")
    monkeypatch.setattr(gsvr.workflows.outputs, step, interrupt)
    output = ("--output-volume", tmp_path / "v.nii.gz", "--output-resolution", 2)
    result = gsvr_command("reconstruct", "--input-stacks", stacks, output)
    assert result.exit_code == INTERRUPTED
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if "partial" in path.name]
    assert not (tmp_path / "v.json").exists()
    for path in written:
        if path.name.endswith(".nii.gz"):
            nibabel.load(path).get_fdata()  # pyright: ignore[reportAttributeAccessIssue]
        if path.suffix == ".json":
            json.loads(path.read_text())


# Says when the solver is at work, and begins anew whenever it is done. A shell may have started the tests in the
# background, where signals from the keyboard are ignored.
WITHOUT_END = """
import signal
import gsvr.workflows.pipeline
from gsvr.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)

def reconstruct(slices, options, callback, *more, original=gsvr.workflows.pipeline.reconstruct, **named):
    def told(progress):
        print("working", flush=True)
        callback(progress)

    while True:
        original(slices, options, told, *more, **named)

gsvr.workflows.pipeline.reconstruct = reconstruct
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no signals to send to a process")
@pytest.mark.parametrize(
    ("sent", "code", "word"), [("SIGINT", INTERRUPTED, "interrupted"), ("SIGTERM", TERMINATED, "terminated")]
)
def test_a_real_signal_stops_the_solver(stacks: list[Path], tmp_path: Path, sent: str, code: int, word: str):
    output = tmp_path / "output"
    arguments = ["reconstruct", "--input-stacks", *stacks, "--output-volume", output / "v.nii.gz", "--verbose"]
    words = [sys.executable, "-c", WITHOUT_END, *map(str, arguments)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.Signals[sent])
        _, errors = process.communicate(timeout=300)  # seconds at most, but the machine may be busy with other things
    finally:
        process.kill()
    assert process.returncode == code
    assert f"gsvr: {word}, no half-written file is left" in errors
    assert "Traceback" not in errors
    assert not output.exists()
    # what --verbose is for
    told = " ".join(errors.split())
    assert "device auto: " in told
    assert " kernels on " in told
    assert "slice thickness 3 mm (sidecar)" in told

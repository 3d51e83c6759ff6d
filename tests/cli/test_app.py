"""The command as installed: it answers at once and knows its commands."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from gsvr import __version__
from gsvr.cli import app

SLOW_PACKAGES = {"jaxtyping", "nibabel", "numpy", "PIL", "safetensors", "scipy", "torch"}


def test_help_needs_no_slow_package():
    # a process of its own: here they are long imported
    code = f"import sys, gsvr.cli; print(*({SLOW_PACKAGES!r} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"gsvr {__version__}\n"


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert {"reconstruct", "render", "plane", "evaluate", "simulate"} <= set(result.output.split())


@pytest.mark.parametrize("command", ["reconstruct", "render", "plane", "evaluate", "simulate"])
def test_every_command_has_help(command: str):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_help_answers_at_once():
    """Half a second on an idle machine, of which Python itself takes a tenth; a busy one gets three times as long."""
    code = "from gsvr.cli import main; main()"
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 1.5

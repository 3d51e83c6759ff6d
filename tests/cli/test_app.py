"""The command as installed: it answers at once and knows its commands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from gsvr import __version__
from gsvr.cli import app

SLOW_PACKAGES = {"jaxtyping", "nibabel", "numpy", "PIL", "safetensors", "scipy", "torch"}


def test_help_needs_no_slow_package():
    # a process of its own: here they are long imported
    code = f"""
import sys
from gsvr.cli import app
app(["reconstruct", "--help"], standalone_mode=False)
print("slow:", *({SLOW_PACKAGES!r} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1].split() == ["slow:"]


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output == f"gsvr {__version__}\n"


def test_python_runs_the_package_as_the_command():
    result = subprocess.run([sys.executable, "-m", "gsvr", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"gsvr {__version__}\n"


def test_shells_can_complete():
    result = CliRunner().invoke(app, ["--help"])
    assert "--install-completion" in result.output


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert {"reconstruct", "render", "plane", "evaluate", "simulate"} <= set(result.output.split())


@pytest.mark.parametrize("command", ["reconstruct", "render", "plane", "evaluate", "simulate"])
def test_every_command_has_help(command: str):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


NOTHING = "import typer; app = typer.Typer(); app.command()(lambda: None); app.command('b')(lambda: None); app()"


@pytest.mark.skipif(os.name == "nt", reason="the system does not tell what its children cost")
def test_help_can_be_read_on_a_narrow_terminal():
    """Names of options are whole, and no line is wider than the terminal, but for a word that is."""
    words = [sys.executable, "-m", "gsvr", "reconstruct", "--help"]
    environment = {**os.environ, "COLUMNS": "40"}
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=environment).stdout
    assert "--output-volume" in told
    assert "--output-stack-masks" in told
    assert "\N{HORIZONTAL ELLIPSIS}" not in told
    assert all(len(line) <= 40 or len(line.split()) == 1 for line in told.splitlines())


def test_help_costs_little_more_than_that_of_an_empty_command():
    """Seconds of the processor, which others that are busy do not change much; the least of five, in turn."""
    seconds: dict[str, list[float]] = {NOTHING: [], "from gsvr.cli import main; main()": []}
    for code in 5 * list(seconds):
        before = processor_seconds()
        subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, check=True)
        seconds[code].append(processor_seconds() - before)
    nothing, ours = map(min, seconds.values())
    assert ours < 1.7 * nothing + 0.02


def processor_seconds() -> float:
    """What all children so far have cost."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime

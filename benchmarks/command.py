"""Run a program to its end and learn what it cost: CPU seconds, wall seconds, peak memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# The gsvr that belongs to this interpreter, whatever else is installed.
GSVR = (sys.executable, "-c", "from gsvr.cli import main; main()")


def module_command(module: str, *arguments: str | Path) -> list[str | Path]:
    """Words that run a module of the benchmarks as a program."""
    return [sys.executable, "-m", module, *arguments]


@dataclass(frozen=True)
class Cost:
    """What a process and its children used, from start to end, imports included.

    Attributes
    ----------
    cpu_seconds
        User and system time.
    wall_seconds
        Elapsed time; means little on a machine that does other work as well.
    peak_megabytes
        Largest resident memory.
    """

    cpu_seconds: float
    wall_seconds: float
    peak_megabytes: float


class CommandError(Exception):
    """A program ended with an error; the message holds the end of what it printed."""


def run_command(words: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None) -> Cost:
    """Run a program and wait for it.

    Parameters
    ----------
    words
        Program and arguments.
    log
        Takes what the program prints.
    environment
        Added to the environment of this process.

    Raises
    ------
    CommandError
        If the program does not end with exit code 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in words],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        end = log.read_text(encoding="utf-8")[-1500:]
        raise CommandError(f"exit code {process.returncode}: {' '.join(map(str, words))}\n{end}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Cost(usage.ru_utime + usage.ru_stime, wall, kilobytes / 1024)

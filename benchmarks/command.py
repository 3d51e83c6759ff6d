"""Run a program to its end and learn what it cost; and the command line of gsvr, of this checkout or another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESOLUTION = 0.8  # of every volume that is scored (mm)


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

    @staticmethod
    def least(costs: Sequence[Cost]) -> Cost:
        """The least of several runs, number by number: other programs can only add to it."""
        return Cost(*(min(getattr(cost, name) for cost in costs) for name in Cost.__dataclass_fields__))


class CommandError(Exception):
    """A program ended with an error; the message holds the end of what it printed."""


# ``gsvr reconstruct``: done, and done but judged as failed; a benchmark measures both.
_RECONSTRUCTED = (0, 3)


def run_command(
    words: Sequence[object],
    log: Path,
    environment: Mapping[str, str] | None = None,
    accepted: Sequence[int] = (0,),
) -> Cost:
    """Run a program and wait for it.

    Parameters
    ----------
    words
        Program and arguments.
    log
        Takes what the program prints.
    environment
        Added to the environment of this process.
    accepted
        Exit codes of success.

    Raises
    ------
    CommandError
        If the program ends with another exit code.
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
    if process.returncode not in accepted:
        end = log.read_text(encoding="utf-8")[-1500:]
        raise CommandError(f"exit code {process.returncode}: {' '.join(map(str, words))}\n{end}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return Cost(usage.ru_utime + usage.ru_stime, wall, kilobytes / 1024)


@dataclass(frozen=True)
class Gsvr:
    """A gsvr to run: by default the one that belongs to this interpreter, whatever else is installed.

    Attributes
    ----------
    python
        Its interpreter.
    environment
        Added to the environment, such as a PYTHONPATH.
    """

    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, words: Sequence[object], log: Path, accepted: Sequence[int] = (0,)) -> Cost:
        """``gsvr`` with these arguments."""
        command = [self.python, "-c", "from gsvr.cli import main; main()", *words]
        return run_command(command, log, self.environment, accepted)

    def home(self, log: Path) -> str:
        """Where its package lies."""
        run_command([self.python, "-c", "import gsvr; print(gsvr.__file__)"], log, self.environment)
        return log.read_text(encoding="utf-8").strip()

    def reconstruct(
        self, stacks: Sequence[Path], masks: Sequence[Path], volume: Path, preset: str = "default"
    ) -> tuple[Cost, dict[str, Any]]:
        """``gsvr reconstruct``, from files to files: its cost, and its own record."""
        volume.parent.mkdir(parents=True, exist_ok=True)
        words: list[object] = ["reconstruct", "--preset", preset, *stack_words(stacks, masks)]
        words += ["--output-volume", volume, "--output-resolution", RESOLUTION]
        cost = self.run(words, volume.with_name("log.txt"), _RECONSTRUCTED)
        return cost, json.loads(beside(volume, ".json").read_text(encoding="utf-8"))


def stack_words(stacks: Sequence[Path], masks: Sequence[Path]) -> list[object]:
    """The options that name stacks and masks."""
    words: list[object] = [word for path in stacks for word in ("--input-stacks", path)]
    return [*words, *(word for path in masks for word in ("--stack-masks", path))]


def beside(volume: Path, ending: str) -> Path:
    """What a reconstruction writes beside its volume."""
    return volume.with_name(volume.name.removesuffix(".nii.gz") + ending)

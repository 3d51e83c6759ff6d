"""Runs that are stopped while older outputs lie there: ``python -m benchmarks.interruptions`` (minutes).

A reconstruction of a tiny acquisition, over the outputs of another one, is killed (SIGKILL), interrupted (SIGINT),
terminated (SIGTERM), or finds the disk full, while it writes its outputs: at a moment drawn from the time that writing
takes, counted from the output that came last before it, so that a busy machine makes no difference. What comes too late
all the same is not counted. Then: a record may only stand beside the files it describes, every file is whole, and after
the next run there are the files of that run and nothing else.
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gsvr.workflows.outputs
import gsvr.workflows.pipeline
from benchmarks.machine import provenance
from benchmarks.tables import table
from gsvr.cli import main as gsvr_main
from gsvr.cli.reconstruct import FAILED_EXIT_CODE
from gsvr.io.nifti import load_image, write_volume
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.solver.schedule import Stage

RESULTS = Path(__file__).parent / "results" / "interruptions.json"
KINDS = ("SIGKILL", "SIGINT", "SIGTERM", "full disk")
# A few outer iterations and samples: what is measured here is how files are written.
_STAGES = (Stage("stacks", 6.0, 1, 1, 2, "stacks"), Stage("final", 4.0, 1, 1, 2, "none", free=True))
_RECORD = "v.json"
# Interruptions, and runs that had ended before theirs came.
_COUNTS = ("interruptions", "too late")
_FAILURES = ("record beside other files", "broken file", "left over", "other exit code")
# whatever the verdict
_DONE = (0, FAILED_EXIT_CODE)
_EXIT_CODES = {"SIGKILL": -signal.SIGKILL, "SIGINT": 130, "SIGTERM": 143, "full disk": 2}


@dataclass(frozen=True)
class Run:
    """A command that is run again and again.

    Attributes
    ----------
    words
        Arguments of ``gsvr``.
    contents
        What its outputs hold when nothing stops it: a hash for each file but the record, whose times differ.
    moments
        Seconds from the beginning of writing to each step of it, the first at zero and the end of the run the last.
    """

    words: list[str]
    contents: dict[str, str]
    moments: list[float]


def _stacks(folder: Path, seed: int) -> list[Path]:
    options = SimulationOptions(n_stacks=2, in_plane_spacing=5.0, thickness=8.0, motion="mild", seed=seed)
    paths = []
    folder = folder / str(seed)
    folder.mkdir()
    for stack in simulate(brain_phantom(spacing=4.0), options).stacks:
        paths.append(folder / f"{stack.name}.nii.gz")
        write_volume(paths[-1], stack.data, stack.affine)
    return paths


def _words(stacks: Sequence[Path], out: Path, seed: int) -> list[str]:
    """Every output there is; the seed tells in the record which run it is of."""
    folders = ("output-slices", "simulated-slices", "output-stack-masks")
    more = [word for name in folders for word in (f"--{name}", out / name)]
    more += ["--output-uncertainty", out / "u.nii.gz", "--trust-headers"]
    inputs = ["--input-stacks", *stacks, "--thicknesses", 8, "--output-resolution", 4, "--seed", seed]
    return [str(word) for word in ("reconstruct", *inputs, "--output-volume", out / "v.nii.gz", *more)]


def start(words: Sequence[str]) -> tuple[int, int]:
    """Run ``gsvr`` in a process forked from this one, which has everything imported; tells of the steps of writing.

    Returns
    -------
    process, pipe
        The pipe has a byte once outputs are about to be replaced, and another one for each that has been.
    """
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    os.close(reading)
    begin_writing, replace = gsvr.workflows.outputs.begin_writing, os.replace

    def told(*arguments: Any) -> None:
        os.write(writing, b"w")
        begin_writing(*arguments)

    def replaced(*arguments: Any) -> None:
        replace(*arguments)
        os.write(writing, b"w")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    code = 1
    try:
        with (
            patch.object(sys, "argv", ["gsvr", *words]),
            patch.object(gsvr.workflows.pipeline, "default_stages", lambda *_: _STAGES),
            patch.object(gsvr.workflows.outputs, "UNCERTAINTY_SAMPLES", 1),
            patch.object(gsvr.workflows.outputs, "begin_writing", told),
            patch.object(os, "replace", replaced),
        ):
            gsvr_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """Exit code of a process, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def timed_run(words: Sequence[str]) -> list[float]:
    """Run to the end: the moments of `Run`."""
    process, pipe = start(words)
    times = []
    while os.read(pipe, 1):
        times.append(time.perf_counter())
    os.close(pipe)
    if wait(process) not in _DONE:
        raise RuntimeError(f"gsvr {' '.join(words)} failed")
    return [moment - times[0] for moment in (*times, time.perf_counter())]


def contents(folder: Path) -> dict[str, str]:
    """A hash for every file below a folder, by its name there, but for the record."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / _RECORD]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _stop(kind: str, run: Run, rng: random.Random, out: Path) -> int:
    """Run, and stop it somewhere while it writes: its exit code."""
    if kind == "full disk":
        return _fill_disk(run.words, rng, out)
    moment = rng.uniform(0, run.moments[-1])
    steps = bisect.bisect_right(run.moments[:-1], moment)
    process, pipe = start(run.words)
    for _ in range(steps):
        os.read(pipe, 1)
    time.sleep(moment - run.moments[steps - 1])
    os.kill(process, signal.Signals[kind])
    code = wait(process)
    os.close(pipe)
    return code


def _fill_disk(words: Sequence[str], rng: random.Random, out: Path) -> int:
    """Leave less room on the disk of the outputs than they take."""
    filler = out.parent / "filler"
    free = shutil.disk_usage(out).free
    needed = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    room = int(rng.uniform(0, 0.3) * needed)
    filler.write_bytes(bytes(max(free - room, 0)))
    process, pipe = start(words)
    code = wait(process)
    os.close(pipe)
    filler.unlink()
    return code


def _problems(out: Path, runs: Mapping[int, Run]) -> list[str]:
    """What is wrong with the outputs as an interruption left them."""
    found = []
    now = contents(out)
    whole = {name: now[name] for name in now if not Path(name).name.startswith(".")}
    if (out / _RECORD).exists():
        seed = json.loads((out / _RECORD).read_text(encoding="utf-8"))["settings"]["seed"]
        if whole != runs[seed].contents:
            found.append("record beside other files")
    known = {(name, value) for run in runs.values() for name, value in run.contents.items()}
    if set(whole.items()) - known:
        found.append("broken file")
    return found


def measure(n: int, seed: int, disk: Path | None) -> dict[str, dict[str, int]]:
    """Interrupt `n` runs; `disk` is a small file system of its own, without which the disk is never full."""
    rng = random.Random(seed)
    kinds = [kind for kind in KINDS if kind != "full disk" or disk is not None]
    rows: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name)
        out = (disk or inputs) / "out"
        out.mkdir()
        runs = {}
        for number in (1, 2):
            words = _words(_stacks(inputs, number), out, number)
            shutil.rmtree(out)
            timed_run(words)
            runs[number] = Run(words, contents(out), timed_run(words))
            load_image(out / "v.nii.gz")
        before = 2
        for kind in itertools.cycle(kinds):
            row = rows[kind]
            if row["interruptions"] == n // len(kinds):
                break  # kinds take turns, and this one was the first
            what = "too late"
            while what == "too late":
                run = runs[3 - before]
                code = _stop(kind, run, rng, out)
                what = _COUNTS[code in _DONE]
                row[what] += 1
                before = 3 - before if code in _DONE else before
            problems = _problems(out, runs)
            if code != _EXIT_CODES[kind]:
                problems.append("other exit code")
            timed_run(run.words)
            if contents(out) != run.contents or not (out / _RECORD).exists():
                problems.append("left over")
            for problem in problems:
                row[problem] += 1
            print(f"{row['interruptions']} {kind}: exit code {code} {problems or ''}", flush=True)
            before = 3 - before
    return {kind: {name: row[name] for name in (*_COUNTS, *_FAILURES)} for kind, row in rows.items()}


def tables(record: Mapping[str, Any]) -> str:
    """The results as a Markdown table."""
    names = (*_COUNTS, *_FAILURES)
    rows = record["rows"] | {"all": {name: sum(row[name] for row in record["rows"].values()) for name in names}}
    return table("what stops the run", {name: f"{{{name}}}" for name in names}, rows.items())


def _small_disk() -> Path | None:
    """A file system of a few megabytes in memory, if this user may make one."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if shutil.which("mount") and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        return folder
    folder.rmdir()
    return None


def main(words: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--interruptions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--tables", action="store_true", help="print the table of the results, measure nothing")
    options = parser.parse_args(words)
    if options.tables:
        print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return 0
    logging.basicConfig(handlers=[logging.NullHandler()])
    disk = _small_disk()
    if disk is None:
        print("no full disk: making a small one takes the rights of root")
    try:
        rows = measure(options.interruptions, options.seed, disk)
    finally:
        if disk is not None:
            subprocess.run(["umount", str(disk)], check=True)
            disk.rmdir()
    record = {"machine": provenance(), "seed": options.seed, "rows": rows}
    if not options.dry:
        RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(tables(record))
    return int(any(row[problem] for row in rows.values() for problem in _FAILURES))


if __name__ == "__main__":
    sys.exit(main())

"""Thousands of damaged files for every reader: ``python -m benchmarks.fuzz`` (minutes; ``--tables`` prints results).

Each file goes through a command as a user would give it, in a process that is left behind when it dies. What may
happen: one sentence and exit code 2, or a result that is finite and not empty. What must not: a traceback, a crash,
more than 10 s of CPU time, more than 1 GB of memory, or a result that is neither.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel
import numpy as np
import typer.main
import typer.testing
from typer.testing import CliRunner

import gsvr.workflows.pipeline
from benchmarks.machine import provenance
from benchmarks.mutations import (
    Mutation,
    changed_bytes,
    changed_header,
    changed_json,
    changed_tensors,
    changed_voxels,
    compressed,
)
from benchmarks.tables import table
from gsvr.cli import app
from gsvr.cli.reconstruct import FAILED_EXIT_CODE
from gsvr.errors import InputError
from gsvr.io.checkpoint import read_checkpoint, write_checkpoint
from gsvr.io.field import write_field
from gsvr.io.nifti import write_volume
from gsvr.io.slice_folder import write_slice_folder
from gsvr.io.transforms import SlicePose, write_poses_json
from gsvr.model.fields import Field, SumField
from gsvr.model.slices import Slices
from gsvr.simulation.phantom import brain_phantom
from gsvr.simulation.simulate import SimulationOptions, simulate
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.state import Result

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
MOST_SECONDS, MOST_MEGABYTES = 10, 1000
# A process that does nothing at all any more (s of wall time, on a machine that may be busy).
_STUCK = 300
_BATCH = 100
# Of the stacks, masks and sidecars that can be read, one in so many is reconstructed.
_RECONSTRUCTED = 20
_STAGES = (Stage("stacks", 8.0, 2, 1, 2, "stacks"), Stage("final", 6.0, 1, 1, 2, "none", free=True))
_GSVR = typer.main.get_command(app)
_MUST_NOT = ("traceback", "crash", "too long", "too much memory", "not finite or empty", "several sentences")


class UnexpectedError(Exception):
    """What must not happen; the first word of a row's column, and details."""


class _ReadError(Exception):
    """The input has been read and found usable."""


@dataclass(frozen=True)
class Subject:
    """A kind of file, how it is damaged, and what reads it.

    Attributes
    ----------
    name
        For the table.
    path
        Of the good file; damaged ones take its place.
    mutations
        One is drawn for every file.
    use
        Reads the file, in a folder for outputs; the last argument says whether to go all the way. Returns whether the
        file was taken.
    n
        Damaged files of 10,000.
    """

    name: str
    path: Path
    mutations: tuple[Mutation, ...]
    use: Callable[[Path, bool], bool]
    n: int


def subjects(folder: Path) -> list[Subject]:
    """Good files in a folder, and what reads them."""
    files = _good_files(folder)
    stacks, masks, poses = files["stacks"], files["masks"], files["poses"]
    nifti = (changed_bytes, changed_header, changed_voxels)
    text, tensors = (changed_bytes, changed_json), (changed_bytes, changed_tensors)
    zipped = (changed_bytes, *map(compressed, nifti))
    unmasked = ("--input-stacks", *stacks)
    with_masks = partial(_reconstructed, (*unmasked, "--stack-masks", *masks))
    evaluated = ("evaluate", files["volume"], "--truth", files["truth"], "--no-align")
    with_poses = (*evaluated, "--poses", poses, "--true-poses", files["true poses"])
    from_slices = partial(_reconstructed, ("--input-slices", files["single slices"]))
    gone_on = partial(_gone_on, files["checkpoint"], files["slices"])
    return [
        Subject("stack, .nii", stacks[0], nifti, with_masks, 1000),
        Subject("stack without masks, .nii", stacks[0], nifti, partial(_reconstructed, unmasked), 500),
        Subject("stack, .nii.gz", stacks[1], zipped, with_masks, 1100),
        Subject("mask", masks[1], zipped, with_masks, 1000),
        Subject("sidecar", files["sidecar"], text, with_masks, 1000),
        Subject("volume", files["volume"], zipped, partial(_evaluated, evaluated), 800),
        Subject("poses", poses, text, partial(_evaluated, with_poses), 800),
        Subject("field, lattice", files["lattice"], tensors, partial(_shown, files["lattice"]), 1000),
        Subject("field, sum", files["sum"], tensors, partial(_shown, files["sum"]), 1000),
        Subject("field, free Gaussians", files["gaussians"], tensors, partial(_shown, files["gaussians"]), 1000),
        Subject("checkpoint", files["checkpoint"], tensors, gone_on, 600),
        Subject("single slice", files["single slices"] / "7.nii.gz", zipped, from_slices, 400),
        Subject("list of slices", files["single slices"] / "slices.json", text, from_slices, 400),
        Subject("record", files["record"], text, partial(_told, files["record"], stacks), 400),
    ]


def _good_files(folder: Path) -> dict[str, Any]:
    """A tiny brain: three stacks of pixels of 6 mm, one of them not compressed, and all that is made of them."""
    phantom = brain_phantom(spacing=4.0)
    options = SimulationOptions(n_stacks=3, in_plane_spacing=6.0, thickness=9.0, motion="mild")
    simulation = simulate(phantom, options)
    endings = (".nii", ".nii.gz", ".nii.gz")
    stacks = [folder / f"stack-{number}{ending}" for number, ending in enumerate(endings)]
    masks = [folder / f"mask-{number}.nii.gz" for number in range(3)]
    records = []
    for number, stack in enumerate(simulation.stacks):
        write_volume(stacks[number], stack.data, stack.affine)
        write_volume(masks[number], np.asarray(stack.mask), stack.affine)
        sidecar = {"SliceThickness": stack.thickness, "SliceTiming": stack.slice_times.tolist(), "EchoTime": 0.1}
        (folder / f"stack-{number}.json").write_text(json.dumps(sidecar))
        records += [SlicePose(stack.name, k, pose, {"gain": 1.0}) for k, pose in enumerate(simulation.poses[number])]
    files: dict[str, Any] = {"stacks": stacks, "masks": masks, "sidecar": folder / "stack-0.json"}
    for name in ("truth", "volume"):
        files[name] = folder / f"{name}.nii.gz"
        write_volume(files[name], phantom.data, phantom.affine)
    for name in ("poses", "true poses"):
        files[name] = folder / f"{name}.json"
        write_poses_json(files[name], records)
    kept: list[Progress] = []
    files["slices"] = slices = gsvr.workflows.pipeline.slices_of(
        simulation.stacks, gsvr.workflows.pipeline.prepare_masks(simulation.stacks, SolverOptions())
    )
    result = reconstruct(slices, _solver_options(), kept.append)
    fields: dict[str, Field] = {
        "lattice": kept[0].state.field,
        "gaussians": result.field.to_gaussians(),
        "sum": SumField((result.field.to_gaussians(),)),
    }
    for name, field in fields.items():
        files[name] = folder / f"{name}.safetensors"
        write_field(files[name], field, {"noise": result.noise}, result.mask)
    files["single slices"] = folder / "slices"
    write_slice_folder(files["single slices"], result.slices, result.poses, result.slices.values)
    files["record"] = folder / "run" / "v.json"
    if not _reconstructed(("--input-stacks", *stacks, "--stack-masks", *masks), files["record"].parent, True):
        raise RuntimeError("the good stacks are not taken")
    files["checkpoint"] = folder / "checkpoint.safetensors"
    write_checkpoint(files["checkpoint"], kept[0].checkpoint())
    return files


def _solver_options() -> SolverOptions:
    return SolverOptions(stages=_STAGES)


def _command(*words: object) -> bool:
    """Run ``gsvr``: whether it did what it was asked for; refusals in one sentence are fine, too."""
    with patch.object(typer.testing, "_get_command", lambda _: _GSVR):  # which takes as long as reading a file
        result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, _ReadError):
        return True
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise UnexpectedError(f"traceback: {_where(result.exception)}")
    if result.exit_code in (0, FAILED_EXIT_CODE):  # everything was written
        return True
    sentences = [line for line in result.stderr.splitlines() if line.startswith("gsvr: ")]
    if result.exit_code != 2:
        raise UnexpectedError(f"traceback: exit code {result.exit_code}: {sentences}")
    if len(sentences) != 1 or len(sentences[0]) > 600:
        raise UnexpectedError(f"several sentences: {result.stderr[-500:]}")
    return False


def _where(error: BaseException) -> str:
    """The error, and the innermost line of gsvr that it passed."""
    lines, step = [], error.__traceback__
    while step is not None:
        lines.append(f"{Path(step.tb_frame.f_code.co_filename).name}:{step.tb_lineno}")
        step = step.tb_next
    return f"{type(error).__name__}: {str(error)[:200]} ({' '.join(lines[-4:])})"


def _reconstructed(inputs: Sequence[object], out: Path, all_the_way: bool) -> bool:
    def check(slices: Slices, *_: Any, **__: Any) -> Result:
        _check_numbers("slices", slices.values)
        raise _ReadError

    pipeline = gsvr.workflows.pipeline
    with (
        patch.object(pipeline, "default_stages", lambda *_: _STAGES),
        patch.object(pipeline, "reconstruct", reconstruct if all_the_way else check),
    ):
        words = ("reconstruct", *inputs, "--output-volume", out / "v.nii.gz", "--output-resolution", 8)
        if not _command(*words):
            return False
    if all_the_way:
        _check_numbers("volume", _voxels(out / "v.nii.gz"))
    return True


def _evaluated(words: Sequence[object], out: Path, _: bool) -> bool:
    return _command(*words, "--output-json", out / "e.json")


def _shown(field: Path, out: Path, _: bool) -> bool:
    if not _command("render", field, "--output-volume", out / "r.nii", "--output-resolution", 6):
        return False
    _check_numbers("volume", _voxels(out / "r.nii"))
    plane = ("--size", 32, "--spacing", 6, "--thickness", 6)
    if _command("plane", field, "--output-image", out / "p.nii", *plane):
        _check_numbers("plane", _voxels(out / "p.nii"))
    return True


def _told(record: Path, stacks: Sequence[Path], out: Path, _: bool) -> bool:
    return _command("report", record, "--input-stacks", *stacks, "--output-report", out / "r.html")


def _gone_on(path: Path, slices: Slices, *_: object) -> bool:
    try:
        result = reconstruct(slices, _solver_options(), checkpoint=read_checkpoint(path))
    except (InputError, ValueError) as error:
        if len(str(error).splitlines()) != 1:
            raise UnexpectedError(f"several sentences: {error}") from error
        return False
    except Exception as error:
        raise UnexpectedError(f"traceback: {_where(error)}") from error
    _check_numbers("amplitudes", result.field.amplitudes)
    return True


def _voxels(path: Path) -> np.ndarray:
    """What was written, whether gsvr would take it for input or not."""
    return np.asarray(nibabel.load(path).dataobj)  # pyright: ignore[reportAttributeAccessIssue]


def _check_numbers(what: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise UnexpectedError(f"not finite or empty: {what} not finite")
    if not values.any():
        raise UnexpectedError(f"not finite or empty: {what} all zero")


def damaged(subject: Subject, good: bytes, number: int, seed: int) -> bytes:
    """A damaged file, the same for the same number and seed."""
    rng = np.random.default_rng([seed, number, *subject.name.encode()])
    return subject.mutations[int(rng.integers(len(subject.mutations)))](good, rng)


def _try(subject: Subject, content: bytes, folder: Path, all_the_way: bool) -> str:
    """Outcome of one file, in words."""
    out = folder / "out"
    out.mkdir(exist_ok=True)
    subject.path.write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    signal.alarm(_STUCK)
    try:
        taken = subject.use(out, all_the_way)
    except UnexpectedError as error:
        return str(error)
    except Exception as error:  # the process is a copy of the one that counts: nothing may go further up in it
        return f"traceback: {_where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
        shutil.rmtree(out, ignore_errors=True)
    if _peak_megabytes() > MOST_MEGABYTES:
        return f"too much memory: {_peak_megabytes():.0f} MB"
    return "taken" if taken else "refused"


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _batches(subject: Subject, good: bytes, n: int, seed: int, folder: Path) -> Iterator[tuple[int, str]]:
    """Number and outcome of every file, from processes that are forked for some of them each."""
    done = 0
    while done < n:
        last = min(n, done + _BATCH)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_AS, (16 * 2**30, 16 * 2**30))
            for sent in (signal.SIGPROF, signal.SIGALRM):
                signal.signal(sent, signal.SIG_DFL)
            for number in range(done, last):
                outcome = _try(subject, damaged(subject, good, number, seed), folder, number % _RECONSTRUCTED == 0)
                os.write(write, json.dumps(outcome).encode() + b"\n")
                if outcome.startswith("too much memory"):  # it would be that of all that follow
                    break
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as lines:
            for line in lines:
                yield done, json.loads(line)
                done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            sent = signal.Signals(os.WTERMSIG(status))
            late = sent in (signal.SIGPROF, signal.SIGALRM)
            yield done, f"too long: {sent.name}" if late else f"crash: {sent.name}"
            done += 1


def measure(n: int, seed: int, keep: Path | None = None, only: str = "") -> dict[str, Any]:
    """Try some `n` damaged files over all readers; keeps those with which happens what must not."""
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for subject in subjects(folder):
            if only not in subject.name:
                continue
            good = subject.path.read_bytes()
            if _try(subject, good, folder, True) != "taken":  # which also imports everything, for all that are forked
                raise RuntimeError(f"the good file is not taken: {subject.name}")
            before = os.times()
            counts: Counter[str] = Counter()
            for number, outcome in _batches(subject, good, round(subject.n * n / 10_000), seed, folder):
                kind = outcome.partition(":")[0]
                counts[kind] += 1
                if kind in _MUST_NOT:
                    print(f"{subject.name} {number}: {outcome}", flush=True)
                    if keep is not None:
                        keep.mkdir(parents=True, exist_ok=True)
                        place = keep / f"{subject.name.replace(', ', '-').replace(' ', '-')}-{number}"
                        place.write_bytes(damaged(subject, good, number, seed))
            subject.path.write_bytes(good)
            after = os.times()
            seconds = after.children_user + after.children_system - before.children_user - before.children_system
            rows[subject.name] = {"files": counts.total(), "cpu_seconds": round(seconds, 1), **_outcomes(counts)}
            print(subject.name, rows[subject.name], flush=True)
    return rows


def _outcomes(counts: Mapping[str, int]) -> dict[str, int]:
    return {kind: counts.get(kind, 0) for kind in ("refused", "taken", *_MUST_NOT)}


def tables(record: Mapping[str, Any]) -> str:
    """The results as a Markdown table."""
    names = ("files", "refused", "taken", *_MUST_NOT)
    rows = record["rows"] | {"all": {name: sum(row[name] for row in record["rows"].values()) for name in names}}
    return table("file", {name: f"{{{name}:,}}" for name in names}, rows.items())


def main(words: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--files", type=int, default=10_000, help="damaged files in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only files whose kind holds this word; the results of others stay")
    parser.add_argument("--keep", type=Path, help="folder for the files with which happens what must not")
    parser.add_argument("--tables", action="store_true", help="print the table of the results, measure nothing")
    options = parser.parse_args(words)
    if options.tables:
        print(tables(json.loads(RESULTS.read_text(encoding="utf-8"))))
        return 0
    os.environ["GSVR_THREADS"] = "1"  # CPU time is wall time, then
    logging.basicConfig(handlers=[logging.NullHandler()])
    rows = measure(options.files, options.seed, options.keep, options.only)
    kept = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if options.only and RESULTS.exists() else {}
    record = {"machine": provenance(), "seed": options.seed, "rows": kept | rows}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(tables(record))
    return int(any(row[kind] for row in rows.values() for kind in _MUST_NOT))


if __name__ == "__main__":
    sys.exit(main())

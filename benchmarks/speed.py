"""``make bench-speed``: how fast the parts are, what the machine could do, and how time and memory scale.

Micro-benchmarks take the least CPU time of several repetitions; every reconstruction is a process of its own. Results
go to benchmarks/results/speed.json, part by part, and as plots to docs/images. Ten million pixels take minutes and some
gigabytes: ``--full``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.acquisitions import Acquisition
from benchmarks.clock import timed
from benchmarks.command import Cost, Gsvr, run_command
from benchmarks.core import REAL, find_examination
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.speed_acquisitions import SIZES, USUAL, SpeedAcquisition, make_stacks, write_stacks
from benchmarks.speed_ceilings import measure_ceilings
from benchmarks.speed_operator import measure_stage, measure_threads, slices_of
from benchmarks.speed_plots import draw
from benchmarks.speed_tables import speed_tables
from benchmarks.subjects import OUTPUT, SubjectMissingError
from gsvr.compiled import instructions
from gsvr.compiled.threads import thread_count
from gsvr.io.field import StoredField, read_field
from gsvr.io.record import write_record
from gsvr.render.plane import plane_frame, render_plane
from gsvr.render.volume import render_volume
from gsvr.solver.schedule import default_stages

logger = logging.getLogger("benchmarks.speed")  # also when run as a program

RESULTS = REPOSITORY / "benchmarks" / "results" / "speed.json"
IMAGES = REPOSITORY / "docs" / "images"
_FOLDER = OUTPUT / "speed"
_REPEATS = 5


def measure_operator() -> dict[str, Any]:
    """Ceilings, every stage of the usual schedule, cost against slices and Gaussians, and threads."""
    slices = slices_of(make_stacks(USUAL))
    stages = default_stages(0.9 * USUAL.in_plane_spacing)
    fewer = [slices.subset(slices.stack_index < count) for count in (1, 2, 3, 6)]
    return {
        "ceilings": measure_ceilings(_REPEATS),
        "stages": [measure_stage(slices, stage, _REPEATS) for stage in stages[1:]],
        "by_stacks": [measure_stage(some, stages[4], _REPEATS) for some in fewer],
        "threads": measure_threads(slices, stages[-1], thread_count(), 6 * _REPEATS),
    }


def files_of(size: SpeedAcquisition) -> Acquisition:
    """Stacks and masks of an acquisition, made once."""
    folder = _FOLDER / f"{size.n_stacks}-stacks_{size.in_plane_spacing:g}-mm"
    if not (folder / "complete").exists():
        logger.info("making %s pixels", size.name)
        write_stacks(make_stacks(size), folder)
        (folder / "complete").touch()
    return Acquisition(folder)


def _volume(name: str) -> Path:
    return _FOLDER / "reconstructions" / name / "volume.nii.gz"


def measure_reconstruction(size: SpeedAcquisition) -> dict[str, Any]:
    """``gsvr reconstruct``, from files to files, in a process of its own."""
    files, measured = files_of(size), provenance()  # of what the process starts with, however long it takes
    cost, record = Gsvr().reconstruct(files.stacks, files.masks, _volume(f"{size.n_stacks}-stacks"))
    counts = {"pixels": record["pixels"], "gaussians": record["gaussians"], "slices": len(record["slices"])}
    return {**asdict(size), **counts, **asdict(cost), "measured": measured}


def measure_scaling(full: bool) -> list[dict[str, Any]]:
    """All sizes; a size that is not measured now keeps what was found last."""
    known = {row["name"]: row for row in read_results().get("scaling", [])}
    for size in SIZES if full else SIZES[:-1]:
        logger.info("%s pixels", size.name)
        known[size.name] = measure_reconstruction(size)
    return [known[size.name] for size in SIZES if size.name in known]


def measure_presets(repeats: int = 3) -> dict[str, Any]:
    """``gsvr reconstruct`` with both presets: least and most of the usual acquisition's cost, and a real one's."""
    usual = files_of(USUAL)
    files: dict[str, tuple[Sequence[Path], Sequence[Path]]] = {f"{USUAL.name} pixels": (usual.stacks, usual.masks)}
    try:
        real = find_examination(REAL[0], "", 0)
        files[real.name] = (real.stacks, real.masks)
    except SubjectMissingError as reason:
        logger.warning("no real examination: %s", reason)
    found: dict[str, Any] = {}
    for name, (stacks, masks) in files.items():
        for preset in ("default", "fast"):
            costs = [asdict(Gsvr().reconstruct(stacks, masks, _volume(preset), preset)[0]) for _ in range(repeats)]
            spans = {key: sorted(cost[key] for cost in costs) for key in costs[0]}
            found[f"{name}, {preset}"] = {key: [values[0], values[-1]] for key, values in spans.items()}
    return found


def measure_profile() -> dict[str, Any]:
    """CPU seconds by stage and function of the usual acquisition."""
    output = _FOLDER / "profile.json"
    words = [sys.executable, "-m", "benchmarks.speed_profile", output, files_of(USUAL).folder]
    run_command(words, OUTPUT / "logs" / "speed-profile.txt")
    return json.loads(output.read_text(encoding="utf-8"))


def measure_rendering(stored: StoredField, repeats: int = 20) -> dict[str, Any]:
    """Least and median wall and CPU milliseconds of a 0.5 mm volume and of oblique planes of 256 x 256 pixels."""
    field, mask = stored.field, stored.mask
    assert mask is not None
    frame = plane_frame(mask.voxel_positions(mask.mask).mean(axis=0), np.array([0.3, 0.5, -1.0]))
    works: dict[str, tuple[Callable[[], object], int]] = {
        "volume, 0.5 mm": (lambda: render_volume(field, 0.5, mask), max(repeats // 4, 1)),
        "oblique plane, 256 x 256": (lambda: render_plane(field, frame), repeats),
        "oblique plane, 3 mm slab": (lambda: render_plane(field, frame, thickness=3.0), repeats),
    }
    found: dict[str, Any] = {"gaussians": field.n_gaussians}
    for name, (work, times) in works.items():
        spent = timed(work, times)
        parts = {"least_wall": spent.wall, "median_wall": spent.median_wall, "least_cpu": spent.cpu}
        found[name] = {part: 1000 * seconds for part, seconds in parts.items()}
    return found


def measure_start() -> dict[str, Any]:
    """``gsvr --help``, and a small reconstruction before and after Python's own files are compiled."""
    small, log = files_of(SIZES[0]), _FOLDER / "log.txt"
    shown = Cost.least([Gsvr().run(["--help"], log) for _ in range(_REPEATS)])
    with tempfile.TemporaryDirectory() as cache:
        cold = Gsvr(environment={"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""})
        first, second = (cold.reconstruct(small.stacks, small.masks, _volume("small"))[0] for _ in range(2))
    return {
        "help_wall_seconds": shown.wall_seconds,
        "instruction_sets": measure_instruction_sets(),
        "first": asdict(first),
        "second": asdict(second),
    }


def measure_instruction_sets() -> dict[str, dict[str, float]]:
    """Nanoseconds a splat of the kernels that are chosen on this processor, and of those that run on any."""
    code = (
        "import json; from benchmarks.speed import *; slices = slices_of(make_stacks(SIZES[0])); "
        "print(json.dumps(measure_stage(slices, default_stages()[-1], 5)['nanoseconds_per_splat']))"
    )
    found, log = {}, _FOLDER / "log.txt"
    for name, environment in ((instructions(), {}), ("portable", {"GSVR_INSTRUCTIONS": "portable"})):
        run_command([sys.executable, "-c", code], log, environment)
        found[name] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return found


def read_results() -> dict[str, Any]:
    """All that was found so far."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def main() -> None:
    """Measure, keep part by part, draw."""
    field = _volume(f"{USUAL.n_stacks}-stacks").with_name("volume_field.safetensors")
    parts: dict[str, Callable[[], Any]] = {
        "operator": measure_operator,
        "profile": measure_profile,
        "presets": measure_presets,
        "scaling": lambda: measure_scaling(asked.full),
        "rendering": lambda: measure_rendering(read_field(field)),
        "start": measure_start,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--full", action="store_true", help="with ten million pixels")
    asked = parser.parse_args()
    logging.basicConfig(format="bench-speed: %(message)s")
    logger.setLevel(logging.INFO)
    for part in asked.parts:
        logger.info("%s", part)
        found = parts[part]()
        if isinstance(found, dict):
            found |= {"measured": provenance()}
        write_record(RESULTS, read_results() | {part: found})
    draw(read_results(), IMAGES)
    print(speed_tables(read_results()))


if __name__ == "__main__":
    main()

"""``make bench-speed``: how fast the parts are, what the machine could do, and how time and memory scale.

Micro-benchmarks take the least CPU time of several repetitions; every reconstruction is a process of its own. Results
go to benchmarks/results/speed.json, part by part, and as plots to docs/images. Ten million pixels take minutes and some
gigabytes: ``--full``.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import GSVR, run_command
from benchmarks.core import measure_cold_start, reconstruct_files
from benchmarks.leave_one_out import bids_inputs
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.speed_acquisitions import SIZES, USUAL, SpeedAcquisition, make_stacks, write_stacks
from benchmarks.speed_ceilings import measure_ceilings
from benchmarks.speed_operator import measure_stage, measure_threads, slices_of
from benchmarks.speed_plots import draw
from benchmarks.speed_tables import speed_tables
from benchmarks.subjects import OUTPUT, SubjectMissingError, data_folder
from gsvr.compiled import instructions
from gsvr.compiled.threads import thread_count
from gsvr.io.field import StoredField, read_field
from gsvr.io.record import write_record
from gsvr.model.volume import Volume
from gsvr.render.plane import plane_frame, render_plane
from gsvr.render.volume import render_volume
from gsvr.solver.schedule import default_stages

logger = logging.getLogger("benchmarks.speed")  # also when run as a program

RESULTS = REPOSITORY / "benchmarks" / "results" / "speed.json"
IMAGES = REPOSITORY / "docs" / "images"
PARTS = ("operator", "profile", "presets", "scaling", "rendering", "start")
_FULL_ONLY = SIZES[-1]
_FOLDER = OUTPUT / "speed"


def measure_operator(repeats: int = 5) -> dict[str, Any]:
    """Ceilings, every stage of the usual schedule, cost against slices and Gaussians, and threads."""
    slices = slices_of(make_stacks(USUAL))
    stages = default_stages(0.9 * USUAL.in_plane_spacing)
    by_stacks = []
    for count in (1, 2, 3, 6):
        fewer = slices.subset(slices.stack_index < count)
        by_stacks.append(measure_stage(fewer, stages[4], repeats))
    return {
        "ceilings": measure_ceilings(repeats),
        "stages": [measure_stage(slices, stage, repeats) for stage in stages[1:]],
        "by_stacks": by_stacks,
        "threads": measure_threads(slices, stages[-1], thread_count(), 6 * repeats),
    }


def files_of(acquisition: SpeedAcquisition) -> tuple[list[Path], list[Path]]:
    """Stacks and masks of an acquisition, made once."""
    folder = _FOLDER / f"{acquisition.n_stacks}-stacks_{acquisition.in_plane_spacing:g}-mm"
    if not (folder / "complete").exists():
        logger.info("making %s pixels", acquisition.name)
        write_stacks(make_stacks(acquisition), folder)
        (folder / "complete").touch()
    masks = [folder / f"stack-{number}_mask.nii.gz" for number in range(acquisition.n_stacks)]
    return [mask.with_name(mask.name.replace("_mask", "")) for mask in masks], masks


def measure_reconstruction(acquisition: SpeedAcquisition) -> dict[str, Any]:
    """``gsvr reconstruct``, from files to files, in a process of its own."""
    stacks, masks = files_of(acquisition)
    measured = provenance()  # of what the process starts with, however long it takes
    volume = _FOLDER / "reconstructions" / f"{acquisition.n_stacks}-stacks" / "volume.nii.gz"
    cost, record = reconstruct_files(stacks, masks, volume)
    return {
        "name": acquisition.name,
        **{key: value for key, value in asdict(acquisition).items() if key != "name"},
        "pixels": record["pixels"],
        "gaussians": record["gaussians"],
        "slices": len(record["slices"]),
        **asdict(cost),
        "measured": measured,
    }


def measure_presets(repeats: int = 3) -> dict[str, Any]:
    """``gsvr reconstruct``, from files to files: the usual acquisition and a real one, with both presets."""
    acquisitions = {f"{USUAL.name} pixels": files_of(USUAL)}
    try:
        real = bids_inputs(data_folder() / "fetal-mial-sub-01")
    except SubjectMissingError as reason:
        logger.warning("no real examination: %s", reason)
    else:
        acquisitions["fetal-mial-sub-01"] = (real.stacks, real.masks)
    found: dict[str, Any] = {}
    for name, (stacks, masks) in acquisitions.items():
        for preset in ("default", "fast"):
            volume = _FOLDER / "reconstructions" / preset / "volume.nii.gz"
            costs = [asdict(reconstruct_files(stacks, masks, volume, preset=preset)[0]) for _ in range(repeats)]
            found[f"{name}, {preset}"] = {
                key: [min(cost[key] for cost in costs), max(cost[key] for cost in costs)] for key in costs[0]
            }
    return found


def measure_profile() -> dict[str, Any]:
    """CPU seconds by stage and function of the usual acquisition."""
    stacks, _ = files_of(USUAL)
    output = _FOLDER / "profile.json"
    words = [sys.executable, "-m", "benchmarks.speed_profile", output, stacks[0].parent]
    run_command(words, OUTPUT / "logs" / "speed-profile.txt")
    return json.loads(output.read_text(encoding="utf-8"))


def measure_rendering(stored: StoredField, repeats: int = 20) -> dict[str, Any]:
    """Least and median wall and CPU milliseconds of a 0.5 mm volume and of oblique planes of 256 x 256 pixels."""
    field = stored.field
    assert stored.mask is not None
    assert stored.mask_affine is not None
    mask = Volume(stored.mask.astype(np.float32), stored.mask_affine, stored.mask)
    middle = mask.voxel_positions(stored.mask).mean(axis=0)
    frame = plane_frame(middle, np.array([0.3, 0.5, -1.0]))
    works = {
        "volume, 0.5 mm": (lambda: render_volume(field, 0.5, mask), max(repeats // 4, 1)),
        "oblique plane, 256 x 256": (lambda: render_plane(field, frame), repeats),
        "oblique plane, 3 mm slab": (lambda: render_plane(field, frame, thickness=3.0), repeats),
    }
    found: dict[str, Any] = {"gaussians": field.n_gaussians}
    for name, (work, times) in works.items():
        work()
        walls, cpus = [], []
        for _ in range(times):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls.append(1000 * (time.perf_counter() - wall))
            cpus.append(1000 * (time.process_time() - cpu))
        found[name] = {"least_wall": min(walls), "median_wall": float(np.median(walls)), "least_cpu": min(cpus)}
    return found


def measure_start(repeats: int = 5) -> dict[str, Any]:
    """``gsvr --help``, and the first run after an installation against the second."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([*GSVR, "--help"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - started)
    with tempfile.TemporaryDirectory() as folder:
        imports = run_command([sys.executable, "-c", "import gsvr.solver.reconstruct"], Path(folder) / "log.txt")
    return {
        "help_wall_seconds": min(seconds),
        "import_cpu_seconds": imports.cpu_seconds,
        "instruction_sets": measure_instruction_sets(),
        **measure_cold_start(),
    }


def measure_instruction_sets() -> dict[str, dict[str, float]]:
    """Nanoseconds a splat of the kernels that are chosen on this processor, and of those that run on any."""
    code = (
        "import json; from benchmarks.speed import *; slices = slices_of(make_stacks(SIZES[0])); "
        "print(json.dumps(measure_stage(slices, default_stages()[-1], 5)['nanoseconds_per_splat']))"
    )
    found = {}
    for name, environment in ((instructions(), {}), ("portable", {"GSVR_INSTRUCTIONS": "portable"})):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log.txt"
            run_command([sys.executable, "-c", code], log, environment)
            found[name] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return found


def keep(part: str, value: Any) -> dict[str, Any]:
    """Write one part into the file at once, and return all that is in it."""
    record = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    record[part] = value
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_record(RESULTS, record)
    return record


def measure_scaling(full: bool) -> None:
    """All sizes; a size that is not measured now keeps what was found last."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")).get("scaling", []) if RESULTS.exists() else []
    rows = {row["name"]: row for row in known}
    for acquisition in SIZES:
        if full or acquisition is not _FULL_ONLY:
            logger.info("%s pixels", acquisition.name)
            rows[acquisition.name] = measure_reconstruction(acquisition)
            keep("scaling", [rows[size.name] for size in SIZES if size.name in rows])


def main() -> None:
    """Measure, keep, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--full", action="store_true", help="with ten million pixels")
    asked = parser.parse_args()
    logging.basicConfig(format="bench-speed: %(message)s")
    logger.setLevel(logging.INFO)
    if "operator" in asked.parts:
        logger.info("operator")
        keep("operator", {**measure_operator(), "measured": provenance()})
    if "profile" in asked.parts:
        logger.info("profile")
        keep("profile", {**measure_profile(), "measured": provenance()})
    if "presets" in asked.parts:
        logger.info("presets")
        keep("presets", {**measure_presets(), "measured": provenance()})
    if "scaling" in asked.parts:
        measure_scaling(asked.full)
    if "rendering" in asked.parts:
        logger.info("rendering")
        stored = read_field(_FOLDER / "reconstructions" / f"{USUAL.n_stacks}-stacks" / "volume_field.safetensors")
        keep("rendering", {**measure_rendering(stored), "measured": provenance()})
    if "start" in asked.parts:
        logger.info("start")
        keep("start", measure_start())
    record = json.loads(RESULTS.read_text(encoding="utf-8"))
    draw(record, IMAGES)
    print(speed_tables(record))


if __name__ == "__main__":
    main()

"""``make bench-core``: quality, speed and memory of ``gsvr reconstruct``, from files to files, as a user runs it.

Every reconstruction is a process of its own, so that CPU seconds (user and system, imports included), wall seconds and
peak memory are those of the whole command with warm kernels. Results go to benchmarks/results/core.json, part by
part; pictures of subjects that may not be published go to benchmarks/output/.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.acquisitions import Acquisition, acquire
from benchmarks.command import GSVR, Cost, module_command, run_command
from benchmarks.leave_one_out import bids_inputs
from benchmarks.limits import LIMITS, RESOLUTION
from benchmarks.machine import REPOSITORY, provenance
from benchmarks.scoring import read_truth, volume_scores
from benchmarks.subjects import OUTPUT, Subject, SubjectMissingError, data_folder, find_subject
from benchmarks.tables import core_tables
from gsvr.cli.evaluate_poses import compare_pose_files
from gsvr.evaluation import compare
from gsvr.io.nifti import read_volume
from gsvr.io.record import write_record
from gsvr.model.volume import Volume
from gsvr.report.picture import save_mid_slices

logger = logging.getLogger("benchmarks.core")  # also when run as a program

RESULTS = REPOSITORY / "benchmarks" / "results"
CORE = RESULTS / "core.json"
_PARTS = ("simulated", "cold", "real")
_SUBJECTS = ("phantom", "atlas-33", "atlas-27")


def reconstruct_files(
    stacks: list[Path],
    masks: list[Path],
    volume: Path,
    environment: dict[str, str] | None = None,
    preset: str = "default",
) -> tuple[Cost, dict[str, Any]]:
    """``gsvr reconstruct``, by default with its defaults: its cost, and its own record."""
    volume.parent.mkdir(parents=True, exist_ok=True)
    words = [*GSVR, "reconstruct", *(word for path in stacks for word in ("--input-stacks", path))]
    words += [word for path in masks for word in ("--stack-masks", path)]
    words += ["--output-volume", volume, "--output-resolution", str(RESOLUTION), "--preset", preset]
    cost = run_command(words, OUTPUT / "logs" / f"{volume.parent.name}.txt", environment)
    record = json.loads(_beside(volume, ".json").read_text(encoding="utf-8"))
    return cost, record


def _beside(volume: Path, ending: str) -> Path:
    return volume.with_name(volume.name.removesuffix(".nii.gz") + ending)


def measure_simulated(subject: Subject, motion: str, seed: int) -> dict[str, Any]:
    """Reconstruction, uncorrected volume and known-poses limit of one simulated acquisition."""
    acquisition = acquire(subject, motion, seed)
    truth = read_truth(acquisition)
    folder = OUTPUT / "core" / acquisition.name
    volume = folder / "reconstruction.nii.gz"
    cost, record = reconstruct_files(acquisition.stacks, acquisition.masks, volume)
    scores, comparison = volume_scores(read_volume(volume), truth)
    poses = compare_pose_files(_beside(volume, "_poses.json"), acquisition.true_poses, truth, comparison.mask)
    rows: dict[str, Any] = {
        "reconstruction": {
            **scores,
            **{f"pose_{key}": poses[key] for key in ("median", "mean", "p90", "p95")},
            "slices_not_estimated": poses["n_not_estimated"],
            **asdict(cost),
        }
    }
    pictures = {"reconstruction": comparison.aligned}
    for limit in LIMITS:
        output = folder / f"{limit}.nii.gz"
        words = module_command("benchmarks.limits", limit, acquisition.folder, output)
        cost = run_command(words, OUTPUT / "logs" / f"{limit}_{acquisition.name}.txt")
        scores, limit_comparison = volume_scores(read_volume(output), truth)
        rows[limit] = {**scores, **asdict(cost)}
        pictures[limit] = limit_comparison.aligned
    _draw(subject, acquisition, truth, pictures)
    return {
        "acquisition": {
            "mean_displacement": acquisition.facts["mean_displacement"],
            "pixels": record["pixels"],
            "gaussians": record["gaussians"],
            "slices": len(record["slices"]),
        },
        "rows": rows,
        "timings_seconds": record["timings_seconds"],
        "measured": provenance(),
    }


def _draw(subject: Subject, acquisition: Acquisition, truth: Volume, pictures: dict[str, Any]) -> None:
    rows = [("truth", truth)]
    rows += [(name, Volume(pictures[name], truth.affine)) for name in ("uncorrected", "reconstruction")]
    picture = (RESULTS if subject.free else OUTPUT) / f"core_{acquisition.name}.png"
    save_mid_slices(picture, rows)


def measure_real() -> dict[str, Any]:
    """Real and foreign examinations, without special care."""
    data = data_folder()
    svrtk = data / "svrtk-simulated"
    fetal, fetpype = bids_inputs(data / "fetal-mial-sub-01"), bids_inputs(data / "fetpype-simu001")
    examinations = {
        "fetal-mial-sub-01": (fetal.stacks, fetal.masks),
        "svrtk-simulated": (sorted(svrtk.glob("stack-?.nii.gz")), [svrtk / "mask-for-stack-2.nii.gz"]),
        "fetpype-simu001": (fetpype.stacks, fetpype.masks),
    }
    found: dict[str, Any] = {}
    for name, (stacks, masks) in examinations.items():
        logger.info("%s", name)
        volume = OUTPUT / "core" / name / "reconstruction.nii.gz"
        cost, record = reconstruct_files(stacks, masks, volume)
        used = [entry for entry in record["slices"] if entry["used"]]
        found[name] = {
            "stacks": len(stacks),
            "slices": len(used),
            "slices_weighed_down": sum(entry["weight"] < 0.5 for entry in used),
            "pixels": record["pixels"],
            **asdict(cost),
        }
        shutil.copyfile(_beside(volume, ".png"), OUTPUT / f"core_{name}.png")
    expected = read_volume(svrtk / "svrtk-expected-reconstruction.nii.gz")
    ours = read_volume(OUTPUT / "core" / "svrtk-simulated" / "reconstruction.nii.gz")
    found["svrtk-simulated"]["ncc_with_svrtk"] = compare(ours, expected).quality.ncc
    logger.info("fetal-mial-sub-01: leaving one stack out")
    scores = OUTPUT / "core" / "leave-one-out.json"
    words = module_command("benchmarks.leave_one_out", data / "fetal-mial-sub-01", scores)
    cost = run_command(words, OUTPUT / "logs" / "leave-one-out.txt")
    found["fetal-mial-sub-01"]["leave_one_stack_out"] = {
        **json.loads(scores.read_text(encoding="utf-8")),
        "cpu_seconds": cost.cpu_seconds,
    }
    return {**found, "measured": provenance()}


def measure_cold_start() -> dict[str, Any]:
    """A small acquisition twice, the first time without any compiled Python files, as after an installation."""
    folder = OUTPUT / "acquisitions" / "small"
    if not (folder / "truth_poses.json").exists():
        words = ["simulate", "phantom", "--output-dir", folder, "--n-stacks", "3", "--in-plane-spacing", "3"]
        run_command([*GSVR, *words, "--thickness", "6"], OUTPUT / "logs" / "simulate_small.txt")
    small = Acquisition("small", folder, 3)
    costs = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first", "second"):
            volume = OUTPUT / "core" / f"small-{name}" / "reconstruction.nii.gz"
            costs[name], _ = reconstruct_files(
                small.stacks, small.masks, volume, {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
            )
    first, second = costs["first"], costs["second"]
    return {
        "first": asdict(first),
        "second": asdict(second),
        "longer_cpu_seconds": first.cpu_seconds - second.cpu_seconds,
        "longer_wall_seconds": first.wall_seconds - second.wall_seconds,
        "measured": provenance(),
    }


def _keep(part: str, name: str, value: Any) -> None:
    """Write one result into the file at once: what follows may fail or be interrupted."""
    record = json.loads(CORE.read_text(encoding="utf-8")) if CORE.exists() else {}
    record.setdefault(part, {})
    record[part] = value if not name else {**record[part], name: value}
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_record(CORE, record)


def main() -> None:
    """Measure, keep, and show as tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, default=list(_PARTS))
    parser.add_argument("--subjects", nargs="+", default=list(_SUBJECTS))
    parser.add_argument("--motion", default="moderate")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    logging.basicConfig(format="bench-core: %(message)s")
    logger.setLevel(logging.INFO)
    for name in asked.subjects if "simulated" in asked.parts else ():
        try:
            subject = find_subject(name)
        except SubjectMissingError as missing:
            logger.warning("%s left out: %s", name, missing)
            continue
        logger.info("%s, motion %s", name, asked.motion)
        title = f"{name}, {asked.motion}, seed {asked.seed}"
        _keep("simulated", title, measure_simulated(subject, asked.motion, asked.seed))
    if "cold" in asked.parts:
        logger.info("cold start")
        _keep("cold_start", "", measure_cold_start())
    if "real" in asked.parts:
        try:
            _keep("real", "", measure_real())
        except SubjectMissingError as missing:
            logger.warning("real examinations left out: %s", missing)
    print(core_tables(json.loads(CORE.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()

"""``make bench-robustness``: how bad an acquisition may become, and whether the verdict tells.

Small acquisitions of several brains, good and bad (`benchmarks.robustness_acquisitions`), are reconstructed, compared
with the truth, and judged without it. Rows go to benchmarks/results/robustness.jsonl one by one; those that are there
are kept, so an interrupted run goes on where it stopped. ``--fresh`` makes them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import REPOSITORY, provenance
from benchmarks.robustness_acquisitions import BRAINS, Acquired, Case, acquire_case, all_cases
from gsvr.evaluation import pose_errors
from gsvr.io.record import to_plain
from gsvr.model.geometry import invert, transform_points
from gsvr.render.points import values_at
from gsvr.solver.schedule import SolverOptions, default_stages
from gsvr.solver.state import Result
from gsvr.workflows.pipeline import job_of, run

RESULTS = REPOSITORY / "benchmarks" / "results" / "robustness.jsonl"
PICTURE = REPOSITORY / "docs" / "images" / "robustness.png"
# A slice bears content if it truly shows at least this share of the brain that its stack's typical slice shows.
_CONTENT = 0.2
# How near (mm) to its true place a slice is recovered.
_NEAR = 1.0
# Share of slices that near from which on a run succeeded.
SUCCESS = 0.9
# Voxels (mm) of the volume, which is not looked at.
_VOXEL = 2.0
_EVERY = 2  # of the truth's voxels in each direction


def truth_of(acquired: Acquired, result: Result) -> dict[str, float]:
    """Share of content-bearing slices within 1 mm, median error (mm), and correlation of the volume in the brain."""
    slices, truth = result.slices, acquired.truth
    assert truth.mask is not None
    pairs = zip(slices.stack_index, slices.slice_index, strict=True)
    true = np.stack([acquired.poses[stack][number] for stack, number in pairs])
    to_index = np.linalg.inv(truth.affine) @ true
    points = []
    positions = slices.pixel_positions()
    for number in range(slices.n_slices):
        pixels = positions[slices.pixels_of(number)]
        index = np.rint(transform_points(to_index[number], pixels)).astype(int)
        inside = np.all((index >= 0) & (index < truth.mask.shape), axis=1)
        inside[inside] = truth.mask[tuple(index[inside].T)]
        points.append(pixels[inside])
    shown = np.array([len(group) for group in points])
    content = np.zeros(slices.n_slices, bool)
    for stack in np.unique(slices.stack_index):
        members = slices.stack_index == stack
        content[members] = shown[members] >= _CONTENT * np.median(shown[members & (shown > 0)])
    errors = pose_errors(result.poses[content], true[content], [points[k] for k in np.flatnonzero(content)])
    some = np.zeros(truth.mask.shape, bool)
    some[::_EVERY, ::_EVERY, ::_EVERY] = truth.mask[::_EVERY, ::_EVERY, ::_EVERY]
    values = values_at(result.field, transform_points(invert(errors.global_rigid), truth.voxel_positions(some)))
    return {
        "near": float((errors.per_slice < _NEAR).mean()),
        "median": errors.median,
        "ncc": float(np.corrcoef(values, truth.data[some])[0, 1]),
    }


def run_case(case: Case) -> dict[str, Any]:
    """A row: the case, what is true of its result, and the verdict on it."""
    acquired = acquire_case(case)
    started = time.process_time()
    made = run(job_of(acquired.stacks, SolverOptions(stages=default_stages(free=False))), _VOXEL)
    seconds = {"cpu_seconds": time.process_time() - started}
    result, verdict = made.result, made.verdict
    told = to_plain(verdict)
    del told["evidence"]["stacks"]  # a line a row is to stay short
    return {"case": asdict(case), "truth": truth_of(acquired, result), "verdict": told, **seconds}


def kind_of(row: Mapping[str, Any]) -> str:
    """What a verdict ought to tell: a wrong input, or whether the poses were recovered."""
    if row["case"]["wrong"]:
        return row["case"]["wrong"]
    return "recovered" if row["truth"]["near"] >= SUCCESS else "not recovered"


def confusion_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """How often each kind of run was called what."""
    lines = ["| run | good | doubtful | failed |", "|---|---:|---:|---:|"]
    for kind in dict.fromkeys(kind_of(row) for row in rows):
        grades = [row["verdict"]["grade"] for row in rows if kind_of(row) == kind]
        lines.append(f"| {kind} | {' | '.join(str(grades.count(name)) for name in ('good', 'doubtful', 'failed'))} |")
    return "\n".join(lines)


def shares_by_kind(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Of slices within 1 mm, brain by brain, for each kind of acquisition."""
    usual = asdict(Case(""))
    groups: dict[str, list[float]] = {}
    for row in rows:
        if not row["case"]["wrong"]:
            changed = [f"{key} {value}" for key, value in row["case"].items() if key != "brain" and value != usual[key]]
            groups.setdefault(", ".join(changed) or "usual", []).append(row["truth"]["near"])
    return groups


def severity_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For each kind of acquisition the brains in which it succeeded, and the mean share of slices within 1 mm."""
    lines = ["| acquisition | recovered | slices within 1 mm |", "|---|---:|---:|"]
    for name, shares in shares_by_kind(rows).items():
        recovered = sum(share >= SUCCESS for share in shares)
        lines.append(f"| {name} | {recovered} of {len(shares)} | {100 * np.mean(shares):.0f} % |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The share of every brain, a line for each kind of acquisition."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups = shares_by_kind(rows)
    figure, axes = pyplot.subplots(figsize=(8, 0.22 * len(groups) + 1), layout="constrained")
    for line, shares in enumerate(groups.values()):
        axes.plot(100 * np.sort(shares), np.full(len(shares), line), "o", color="#0b6e99", alpha=0.4, markersize=5)
        axes.plot(100 * np.mean(shares), line, "|", color="#d1603d", markersize=11, markeredgewidth=2)
    axes.axvline(100 * SUCCESS, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="slices within 1 mm (%); a dot for each brain, their mean in red", xlim=(-2, 102))
    axes.set_yticks(range(len(groups)), list(groups), fontsize=8)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def read_rows() -> list[dict[str, Any]]:
    """The rows so far."""
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()] if RESULTS.exists() else []


def main() -> None:
    """Make the rows that are missing, and show tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fresh", action="store_true", help="make all rows anew")
    parser.add_argument("--tables", action="store_true", help="only show the tables of the rows that are there")
    parser.add_argument("--workers", type=int, default=1, help="processes, each of which then has one thread")
    asked = parser.parse_args()
    if asked.fresh:
        RESULTS.unlink(missing_ok=True)
    done = [row["case"] for row in read_rows()]
    missing = [] if asked.tables else [case for case in all_cases() if asdict(case) not in done]
    if asked.workers > 1:
        os.environ["GSVR_THREADS"] = "1"
    with ProcessPoolExecutor(asked.workers, get_context("spawn")) as workers:
        for case, made in zip(missing, workers.map(run_case, missing), strict=True):
            row = made | {"measured": provenance()}
            with RESULTS.open("a", encoding="utf-8") as output:
                output.write(json.dumps(to_plain(row)) + "\n")
            print(f"{row['truth']['near']:.2f} {row['verdict']['grade']:8s} {case}", flush=True)
    rows = read_rows()
    draw(rows, PICTURE)
    for title, chosen in (("limits set on", BRAINS[0::2]), ("checked on", BRAINS[1::2])):
        print(f"\n{title} {', '.join(chosen)}\n")
        print(confusion_table([row for row in rows if row["case"]["brain"] in chosen]))
    print(f"\n{severity_table(rows)}")


if __name__ == "__main__":
    main()

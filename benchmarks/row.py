"""One method on one acquisition: ``python -m benchmarks.row METHOD ACQUISITION-FOLDER OUTPUT-JSON [CPU-SECONDS]``.

The clock starts with the slices in memory and stops with the volume in memory; kernels are warm.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

from benchmarks.acquisitions import Acquisition
from benchmarks.machine import provenance
from benchmarks.methods import METHODS
from benchmarks.problem import read_problem
from benchmarks.recorder import BudgetSpentError, Recorder
from gsvr.io.record import write_record


def run_row(method: str, acquisition: Acquisition, budget: float | None) -> dict[str, Any]:
    """Scores, cost and quality over time."""
    problem = read_problem(acquisition)
    recorder = Recorder(problem, budget)
    try:
        volume, poses = METHODS[method].run(problem, recorder)
    except BudgetSpentError as spent:
        return {**recorder.points[-1], "stopped": str(spent), "over_time": recorder.points}
    cost = {"cpu_seconds": recorder.cpu_seconds, "wall_seconds": recorder.wall_seconds}
    scores = problem.score(volume, poses)
    end = {"label": "end", **cost, **{name: scores[name] for name in recorder.points[-1] if name in scores}}
    return {**scores, **cost, "pixels": problem.slices.n_pixels, "over_time": [*recorder.points, end]}


def main() -> None:
    """Run and write the row."""
    logging.basicConfig(level=logging.WARNING)
    method, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    budget = float(sys.argv[4]) if len(sys.argv) > 4 else None
    row = run_row(method, Acquisition(folder), budget)
    write_record(output, row | {"measured": provenance()})


if __name__ == "__main__":
    main()

"""Seconds an epoch of the published settings takes.

``python -m benchmarks.speed_paper ACQUISITION-FOLDER BACKEND DEVICE``: BACKEND is cpu (compiled kernels) or torch,
DEVICE what PyTorch calls it. This is the comparison that kernels for free Gaussians have to win.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.acquisitions import Acquisition
from benchmarks.machine import provenance
from benchmarks.problem import read_problem
from gsvr.model.slices import Slices
from gsvr.solver.published import PaperOptions, PaperProgress, reconstruct_as_published


def seconds_per_epoch(slices: Slices, options: PaperOptions, epochs: int = 8) -> dict[str, float]:
    """Median wall and CPU seconds of an epoch (loss, gradient and step), neighbours found before.

    Results are on the host after each epoch, so that no device is still at work when the clock is read.

    Parameters
    ----------
    epochs
        How many, after two that warm up; at most what neighbours are kept for.
    """
    wall, cpu = [], []

    def read_clocks(_: PaperProgress) -> None:
        wall.append(time.perf_counter())
        cpu.append(time.process_time())

    reconstruct_as_published(slices, replace(options, epochs=epochs + 2), read_clocks)
    return {
        "wall_seconds": float(np.median(np.diff(wall[1:]))),
        "cpu_seconds": float(np.median(np.diff(cpu[1:]))),
        "pixels": slices.n_pixels,
    }


def main() -> None:
    """Measure and print."""
    folder, backend, device = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    n_stacks = len(list(folder.glob("stack-*_mask.nii.gz")))
    problem = read_problem(Acquisition(folder.name, folder, n_stacks))
    measured = seconds_per_epoch(problem.slices, PaperOptions(backend=backend, device=device))
    print(json.dumps(measured | {"backend": backend, "device": device, "measured": provenance()}, default=str))


if __name__ == "__main__":
    main()

"""What automatic masks make of the volume: that of the real stacks with them, compared with that of the drawn masks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from gsvr.evaluation.image import compare
from gsvr.model.slices import Stack
from gsvr.model.volume import Volume
from gsvr.solver.schedule import SolverOptions
from gsvr.workflows.pipeline import job_of, run
from training.brain_mask.cases import DEGRADED, SLICE_THICKNESS, Case, read_real


@dataclass(frozen=True)
class VolumeRow:
    """One examination: the volume of automatic masks inside the brain mask of the other one, and CPU seconds."""

    table: str
    ncc: float
    ssim: float
    manual_cpu_seconds: float
    automatic_cpu_seconds: float


def evaluate_volumes(folder: Path) -> list[VolumeRow]:
    """Real stacks as they are, then degraded: each compared with the drawn masks of the same data."""
    cases = read_real(folder)
    rows = [_compared("volume", cases)]
    for what, degrade in DEGRADED.items():
        rng = np.random.default_rng(7)
        rows.append(_compared(f"volume, {what}", [degrade(case, rng) for case in cases]))
    return rows


def _compared(table: str, cases: list[Case]) -> VolumeRow:
    drawn = [
        Stack(f"run-{number + 1}", image, affine, SLICE_THICKNESS, mask)
        for number, (image, mask, affine) in enumerate(cases)
    ]
    truth, manual = _reconstructed(drawn)
    volume, automatic = _reconstructed([replace(stack, mask=None) for stack in drawn])
    quality = compare(volume, truth).quality
    return VolumeRow(table, quality.ncc, quality.ssim, manual, automatic)


def _reconstructed(stacks: list[Stack]) -> tuple[Volume, float]:
    since = time.process_time()
    volume = run(job_of(stacks, SolverOptions())).volume
    return volume, time.process_time() - since


def print_volumes(rows: list[VolumeRow]) -> None:
    """One line an examination."""
    for row in rows:
        seconds = f"{row.automatic_cpu_seconds:.1f} CPU s, {row.manual_cpu_seconds:.1f} with drawn masks"
        print(f"{row.table:24s} NCC {row.ncc:.4f} SSIM {row.ssim:.4f} {seconds}", flush=True)

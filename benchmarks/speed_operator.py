"""The acquisition operator by itself: nanoseconds a splat, operations and bytes a splat, and scaling with threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.clock import timed
from gsvr.backends.cpu.lattice import CpuLatticeKernel
from gsvr.backends.windows import SliceWindows, slice_windows
from gsvr.compiled import LANES
from gsvr.model.fields import Lattice
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import spread_of
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.solver.outer_iteration import stage_lattice
from gsvr.solver.schedule import SolverOptions, Stage

# Of one window of 8 lanes: powers of the ratio (3 lane-wise products, 3 squarings), then 2 products for each block
_POWERS = 3 * LANES + 3
_EXPONENTIALS_PER_PLAN = 3  # and one for each component of the profile


def threads(count: int) -> Any:
    """Let the kernels use so many threads (a context)."""
    return patch.dict(os.environ, {"GSVR_THREADS": str(count)})


def slices_of(stacks: list[Stack]) -> Slices:
    """All slices of stacks with masks."""
    return slices_from_stacks(stacks, [stack.mask for stack in stacks if stack.mask is not None])


def stage_problem(slices: Slices, stage: Stage) -> tuple[Slices, Lattice, SliceWindows]:
    """What the operator works on in a stage, with nothing moved."""
    options = SolverOptions()
    binned, poses = slices.binned(stage.binning), identity_poses(slices.n_slices)
    lattice = stage_lattice(binned, poses, stage, options)
    return binned, lattice, slice_windows(lattice, binned, poses, spread_of(binned, options.profile))


def work_per_splat(windows: SliceWindows) -> dict[str, float]:
    """Operations and bytes of one splat, counted by hand from the kernels.

    A window has R x C pixels and is evaluated in R rows of B = ceil(C / 8) vectors. Operations count a multiply-add as
    two and every lane, whether its pixel is inside the cut-off or not. Bytes are those of arrays too large for the
    caches (plan and amplitudes); the window's rows are in cache, a load (adjoint) or load and store (others) a vector.
    """
    rows = float(np.mean(np.floor(2 * windows.reach[:, 0]) + 1))
    columns = float(np.mean(np.floor(2 * windows.reach[:, 1]) + 1))
    blocks, row_blocks = -(-windows.n_columns // LANES), -(-windows.n_rows // LANES)
    outer = 2.0 * LANES * rows * blocks
    # short windows: two products for each factor of a row and each lane; long ones: powers first, for each window anew
    short = blocks == row_blocks == 1
    window = 2.0 * (rows + LANES) if short else 2 * _POWERS + 2.0 * LANES * (blocks + row_blocks)
    exponentials = _EXPONENTIALS_PER_PLAN + windows.peaks.shape[1]
    return {
        "window_pixels": rows * columns,
        "window_lanes": LANES * rows * blocks,
        "predict_operations": outer + window,
        "adjoint_operations": outer + window,
        "derivatives_operations": 7 * outer + window + 10.0 * LANES * row_blocks + 3.0 * LANES * blocks,
        "plan_exponentials": exponentials,
        "predict_bytes": 16 + 4,
        "adjoint_bytes": 16 + 8,
        "plan_bytes": 16,
        "cache_bytes_predict": 8.0 * LANES * rows * blocks,
        "cache_bytes_adjoint": 4.0 * LANES * rows * blocks,
    }


def _applications(lattice: Lattice, slices: Slices, windows: SliceWindows) -> dict[str, Callable[[], object]]:
    kernel = CpuLatticeKernel(lattice, windows)
    rng = np.random.default_rng(0)
    amplitudes = rng.random(lattice.shape, dtype=np.float32) * lattice.support
    pixels = rng.random(len(slices.values), dtype=np.float32)

    return {
        "plan and predict": lambda: CpuLatticeKernel(lattice, windows).predict(amplitudes),  # at new poses
        "predict": lambda: kernel.predict(amplitudes),
        "adjoint": lambda: kernel.adjoint(pixels),
        "squared adjoint": lambda: kernel.squared_adjoint(pixels),
        "derivatives": lambda: kernel.derivatives(amplitudes),
    }


def measure_stage(slices: Slices, stage: Stage, repeats: int) -> dict[str, Any]:
    """CPU nanoseconds a splat of every application, on one thread."""
    binned, lattice, windows = stage_problem(slices, stage)
    n_splats = CpuLatticeKernel(lattice, windows).n_splats
    with threads(1):
        seconds = {name: timed(work, repeats).cpu for name, work in _applications(lattice, binned, windows).items()}
    seconds["plan"] = seconds.pop("plan and predict") - seconds["predict"]
    return {
        "stage": stage.name,
        "spacing": stage.spacing,
        "gaussians": lattice.n_sites,
        "slices": binned.n_slices,
        "pixels": binned.n_pixels,
        "splats": n_splats,
        "nanoseconds_per_splat": {name: 1e9 * value / n_splats for name, value in seconds.items()},
        "cpu_seconds": seconds,
        **work_per_splat(windows),
    }


def measure_threads(slices: Slices, stage: Stage, most: int, repeats: int) -> list[dict[str, float]]:
    """Least wall and CPU seconds of prediction and adjoint with 1 to `most` threads."""
    binned, lattice, windows = stage_problem(slices, stage)
    works = _applications(lattice, binned, windows)
    rows = []
    for count in range(1, most + 1):
        with threads(count):
            found = {name: timed(works[name], repeats) for name in ("predict", "adjoint")}
        rows.append(
            {"threads": count}
            | {f"{name}_wall_seconds": times.wall for name, times in found.items()}
            | {f"{name}_cpu_seconds": times.cpu for name, times in found.items()}
        )
    return rows

"""The acquisition operator by itself: nanoseconds a splat, operations and bytes a splat, and scaling with threads."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.speed_ceilings import least_cpu_seconds
from gsvr.backends.cpu.lattice import CpuKernel
from gsvr.backends.windows import SliceWindows, slice_windows
from gsvr.compiled import LANES
from gsvr.model.fields import Lattice
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import point_spread
from gsvr.model.slices import Slices, Stack, slices_from_stacks
from gsvr.solver.rounds import stage_lattice
from gsvr.solver.schedule import SolverOptions, Stage

# Of one window of 8 lanes: powers of the ratio (3 lane-wise products, 3 squarings), then 2 products for each block
_POWERS = 3 * LANES + 3
_EXPONENTIALS_PER_PLAN = 3  # and one for each component of the profile


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let the kernels use so many threads."""
    before = os.environ.get("GSVR_THREADS")
    os.environ["GSVR_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["GSVR_THREADS"]
        else:
            os.environ["GSVR_THREADS"] = before


def slices_of(stacks: list[Stack]) -> Slices:
    """All slices of stacks with masks."""
    return slices_from_stacks(stacks, [stack.mask for stack in stacks if stack.mask is not None])


def stage_problem(slices: Slices, stage: Stage) -> tuple[Slices, Lattice, SliceWindows]:
    """What the operator works on in a stage, with nothing moved."""
    options = SolverOptions()
    binned, poses = slices.binned(stage.binning), identity_poses(slices.n_slices)
    lattice = stage_lattice(binned, poses, stage, options)
    spread = point_spread(binned.spacings, binned.thicknesses, options.profile, binned.binning)
    return binned, lattice, slice_windows(lattice, binned, poses, spread)


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
    kernel = CpuKernel(lattice, windows)
    rng = np.random.default_rng(0)
    amplitudes = rng.random(lattice.shape, dtype=np.float32) * lattice.support
    pixels = rng.random(len(slices.values), dtype=np.float32)

    def plan() -> None:
        # first application at new poses: plan and predict
        CpuKernel(lattice, windows).predict(amplitudes)

    return {
        "plan and predict": plan,
        "predict": lambda: kernel.predict(amplitudes),
        "adjoint": lambda: kernel.adjoint(pixels),
        "squared adjoint": lambda: kernel.squared_adjoint(pixels),
        "derivatives": lambda: kernel.derivatives(amplitudes),
    }


def measure_stage(slices: Slices, stage: Stage, repeats: int) -> dict[str, Any]:
    """CPU nanoseconds a splat of every application, on one thread."""
    binned, lattice, windows = stage_problem(slices, stage)
    n_splats = CpuKernel(lattice, windows).n_splats
    with threads(1):
        seconds = {
            name: least_cpu_seconds(work, repeats) for name, work in _applications(lattice, binned, windows).items()
        }
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
            row: dict[str, float] = {"threads": count}
            for name in ("predict", "adjoint"):
                works[name]()
                walls, cpus = [], []
                for _ in range(repeats):
                    wall, cpu = time.perf_counter(), time.process_time()
                    works[name]()
                    walls.append(time.perf_counter() - wall)
                    cpus.append(time.process_time() - cpu)
                row |= {f"{name}_wall_seconds": min(walls), f"{name}_cpu_seconds": min(cpus)}
            rows.append(row)
    return rows

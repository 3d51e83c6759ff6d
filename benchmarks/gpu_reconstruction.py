"""Whole reconstructions on a card: pixels in memory to a volume of 0.8 mm."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.speed_acquisitions import SpeedAcquisition, make_stacks, phantom_field
from gsvr.device_solver.device_free_rounds import DeviceFreeStage
from gsvr.device_solver.device_rounds import DeviceChoices, DeviceStage
from gsvr.evaluation import compare
from gsvr.masks.consensus import first_masks
from gsvr.model.slices import Slices, slices_from_stacks
from gsvr.model.volume import Volume
from gsvr.render.volume import render_volume
from gsvr.solver.free_rounds import begin_free_stage
from gsvr.solver.motion import displacements
from gsvr.solver.published import PaperOptions, reconstruct_as_published
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.rounds import begin_stage
from gsvr.solver.schedule import SolverOptions, Stage, default_stages
from gsvr.solver.state import Result

VOXEL = 0.8
_WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
_LAUNCHING = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemsetAsync")


def slices_of(acquisition: SpeedAcquisition) -> Slices:
    """The pixels in memory, with room for the mask to grow, as `gsvr reconstruct` has them."""
    stacks = make_stacks(acquisition)
    masks = first_masks(stacks)
    return slices_from_stacks(stacks, masks.masks, masks.fields_of_view, masks.drawn)


def options_for(acquisition: SpeedAcquisition, backend: str, deterministic: bool = False) -> SolverOptions:
    """The defaults, as `gsvr reconstruct` would choose them for these pixels."""
    finest = float(np.clip(0.9 * acquisition.in_plane_spacing, 0.7, 1.5))
    return SolverOptions(stages=default_stages(finest), backend=backend, deterministic=deterministic)


def to_volume(slices: Slices, options: SolverOptions, tell: Callable[[Progress], None] | None = None) -> tuple:
    """Result, volume, and wall seconds until both are there."""
    started = time.perf_counter()
    result = reconstruct(slices, options, tell)
    volume = render_volume(result.field, VOXEL, result.mask, backend=options.backend)
    return result, volume, time.perf_counter() - started


def measure_time(
    slices: Slices, options: SolverOptions, repeats: int = 5
) -> tuple[dict[str, Any], list[Volume], Result]:
    """Seconds by stage and in all, memory, and how far repetitions differ."""
    to_volume(slices, options)  # compiles
    torch.cuda.reset_peak_memory_stats()
    runs = [to_volume(slices, options) for _ in range(repeats)]
    peak = torch.cuda.max_memory_allocated()
    seconds, volumes = [run[2] for run in runs], [run[1] for run in runs]
    ends: list[tuple[str, float, int]] = []

    def tell(progress: Progress) -> None:
        if progress.stage_done:
            ends.append((progress.stage.name, progress.seconds, progress.round))

    to_volume(slices, options, tell)
    starts = [0.0, *(end[1] for end in ends)]
    bright = float(np.percentile(volumes[0].data[volumes[0].data != 0], 99))
    spread = np.std([volume.data for volume in volumes], axis=0) if _one_grid(volumes) else None
    found = {
        "seconds": seconds,
        "median_seconds": float(np.median(seconds)),
        "stages": [
            {"stage": name, "rounds": rounds, "seconds": end - start}
            for (name, end, rounds), start in zip(ends, starts, strict=False)
        ],
        "peak_megabytes": peak / 1e6,
        "equal_bits": all(np.array_equal(volume.data, volumes[0].data) for volume in volumes[1:]),
        "largest_spread": None if spread is None else float(spread.max()) / bright,
        "typical_spread": None
        if spread is None
        else float(np.sqrt(np.mean(spread[volumes[0].data != 0] ** 2))) / bright,
        "gaussians": runs[0][0].field.n_gaussians,
        "pixels": runs[0][0].slices.n_pixels,
    }
    return found, volumes, runs[0][0]


def _one_grid(volumes: list[Volume]) -> bool:
    return all(volume.data.shape == volumes[0].data.shape for volume in volumes)


def measure_quality(volumes: list[Volume], result: Result, slices: Slices, on_cpu: SolverOptions) -> dict[str, Any]:
    """PSNR against the truth on the card and on the CPU, and how far poses differ."""
    truth = phantom_field()[1]
    cpu_result, cpu_volume, cpu_seconds = to_volume(slices, on_cpu)
    cpu = compare(cpu_volume, truth).quality.psnr
    card = [compare(volume, truth).quality.psnr for volume in volumes]
    apart = displacements(slices, cpu_result.poses, result.poses)
    return {
        "cpu_psnr": cpu,
        "card_psnr": card,
        "difference": float(np.mean(card)) - cpu,
        "cpu_wall_seconds": cpu_seconds,
        "median_pose_difference_mm": float(np.median(apart)),
        "percentile_90_pose_difference_mm": float(np.percentile(apart, 90)),
    }


def measure_rounds(slices: Slices, options: SolverOptions, device: torch.device) -> list[dict[str, Any]]:
    """What a round of each stage launches and waits for, with and without graphs, after the rounds that compile."""
    return [
        _measure_round(slices, stage, options, device, graphs) for stage in options.stages for graphs in (True, False)
    ]


def _measure_round(
    slices: Slices, stage: Stage, options: SolverOptions, device: torch.device, graphs: bool
) -> dict[str, Any]:
    binned = slices.binned(stage.binning)
    scale = np.float32(np.percentile(binned.values[binned.mask], 99))
    binned = replace(binned, values=binned.values / scale)
    choices = DeviceChoices(graphs=graphs)
    running = _begun(binned, stage, options, device, choices)
    for _ in range(2):
        running.round()
    torch.cuda.synchronize(device)
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        running.round()
    launched = {name: 0 for name in _LAUNCHING}
    waited = {name: 0 for name in _WAITING}
    for event in profile.key_averages():
        for counts in (launched, waited):
            for name in counts:
                if event.key.startswith(name):
                    counts[name] += event.count
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    for _ in range(5):
        running.round()
    torch.cuda.synchronize(device)
    return {
        "stage": stage.name,
        "graphs": graphs,
        "milliseconds": 200 * (time.perf_counter() - started),
        "launches": sum(launched.values()),
        "launched": launched,
        # the profiler itself synchronises once at its end
        "waits": sum(waited.values()),
        "waited": waited,
    }


def _begun(
    slices: Slices, stage: Stage, options: SolverOptions, device: torch.device, choices: DeviceChoices
) -> DeviceStage | DeviceFreeStage:
    """A stage before its first round; free Gaussians are seeded from a round on a lattice of their spacing."""
    on_lattice = replace(stage, free=False)
    first = DeviceStage(slices, on_lattice, options, begin_stage(slices, on_lattice, options, None), device, choices)
    if not stage.free:
        return first
    first.round()
    return DeviceFreeStage(
        slices, stage, options, begin_free_stage(slices, stage, options, first.state()), device, choices
    )


def measure_paper(slices: Slices, device: torch.device, epochs: int = 6) -> dict[str, float]:
    """Seconds of the published settings in plain PyTorch on the same card: the median epoch, and all of them.

    Two epochs more warm up. Neighbours are found once here, and ten times in a whole run.
    """
    published = PaperOptions(backend="torch", device=str(device), epochs=epochs + 2)
    # small acquisitions have fewer pixels to start at
    options = replace(published, n_gaussians=min(published.n_gaussians, slices.n_pixels // 4))
    clock: list[float] = []
    started = time.perf_counter()
    reconstruct_as_published(slices, options, lambda _: clock.append(time.perf_counter()))
    epoch = float(np.median(np.diff(clock[1:])))
    found = clock[0] - started
    return {
        "seconds_an_epoch": epoch,
        "seconds_of_first_epoch_with_neighbours": found,
        "seconds_of_all_epochs_without_neighbours": PaperOptions().epochs * epoch,
    }

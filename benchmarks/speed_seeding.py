"""Seeds of free Gaussians and their neighbours: seconds on host and device, and how far apart they are.

``python -m benchmarks.speed_seeding ACQUISITION-FOLDER DEVICE``: DEVICE is what PyTorch calls it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from benchmarks.acquisitions import Acquisition
from gsvr.device_solver.device_neighbour_search import find_pairs
from gsvr.device_solver.device_seeding import seed_from_lattice as seed_on_device
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.solver.priors.neighbours import Neighbours, find_neighbours
from gsvr.solver.reconstruct import Progress, reconstruct
from gsvr.solver.rounds import refined_amplitudes, stage_lattice
from gsvr.solver.schedule import SolverOptions
from gsvr.solver.seeding import seed_from_lattice
from gsvr.workflows.pipeline import StackInputs, prepare

R = TypeVar("R")


def previous_field(acquisition: Acquisition) -> tuple[LatticeField, float, SolverOptions]:
    """What the last stage of the default schedule starts from, on its own lattice, and the noise."""
    job = prepare(StackInputs(acquisition.stacks, acquisition.masks, []))
    assert isinstance(job.options, SolverOptions)
    *before, last = job.options.stages
    noises: list[float] = []

    def tell(progress: Progress) -> None:
        noises.append(progress.state.weights.white_noise * progress.scale)

    result = reconstruct(job.slices, replace(job.options, stages=tuple(before)), tell)
    lattice = stage_lattice(result.slices, result.poses, last, job.options)
    assert isinstance(result.field, LatticeField)
    return LatticeField(lattice, refined_amplitudes(result.field, lattice)), noises[-1], job.options


def fastest(name: str, device: torch.device, do: Callable[[], R], repeats: int = 3) -> R:
    """Print the least wall and CPU milliseconds."""
    wall, used, done = [], [], None
    for _ in range(repeats):
        started, at = time.perf_counter(), time.process_time()
        done = do()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall.append(1e3 * (time.perf_counter() - started))
        used.append(1e3 * (time.process_time() - at))
    print(f"{name:24s} {min(wall):8.0f} ms wall {min(used):8.0f} ms CPU")
    assert done is not None
    return done


def compare(host: GaussianField, device: GaussianField, found: Neighbours, pairs: Neighbours) -> None:
    """Print how many seeds are in the same places, and how far those are from each other."""
    places = [
        {tuple(cell): n for n, cell in enumerate(np.rint(1e3 * each.means).astype(int))} for each in (host, device)
    ]
    shared = np.array([(places[0][cell], places[1][cell]) for cell in places[0].keys() & places[1].keys()])
    here, there = host.subset(shared[:, 0]), device.subset(shared[:, 1])
    print(f"seeds: host {host.n_gaussians}, device {device.n_gaussians}, in the same places {len(shared)}")
    size = np.abs(here.covariances).max(axis=(1, 2))
    furthest = {
        "log-scales": np.abs(here.log_scales - there.log_scales).max(),
        "amplitudes, of the largest": np.abs(here.amplitudes - there.amplitudes).max() / np.abs(here.amplitudes).max(),
        "covariances, of their own": (np.abs(here.covariances - there.covariances).max(axis=(1, 2)) / size).max(),
    }
    for name, value in furthest.items():
        print(f"{name:28s} {value:.1e} at most")
    same = np.array_equal(found.first, pairs.first) and np.array_equal(found.second, pairs.second)
    print(f"pairs: host {len(found.first)}, device, on the host's seeds, {'the same' if same else len(pairs.first)}")


def main() -> None:
    """Measure one acquisition on one device."""
    folder, device = Path(sys.argv[1]), torch.device(sys.argv[2])
    n_stacks = len(list(folder.glob("stack-*_mask.nii.gz")))
    field, noise, options = previous_field(Acquisition(folder.name, folder, n_stacks))
    count, cpu, seed_options = options.neighbours.count, torch.device("cpu"), options.seeds_of(options.stages[-1])
    host = fastest("host: seeds", cpu, lambda: seed_from_lattice(field, noise, seed_options))
    found = fastest("host: neighbours", cpu, lambda: find_neighbours(host, count))
    values = torch.as_tensor(field.amplitudes).to(device)
    seeds = fastest("device: seeds", device, lambda: seed_on_device(values, field.lattice, noise, seed_options))
    means, log_scales = (torch.as_tensor(part).to(device) for part in (host.means, host.log_scales))
    pairs = fastest("device: neighbours", device, lambda: find_pairs(means, log_scales, count))
    fastest("device: columns", device, pairs.columns)
    compare(host, seeds.on_host(), found, pairs.on_host())


if __name__ == "__main__":
    main()

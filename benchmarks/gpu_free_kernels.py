"""Kernels of free Gaussians on a card: milliseconds, and what binds them by the measured ceilings.

A pair of a tile and a splat costs an exponential for each pixel of the tile and each component of the slice profile,
and arithmetic (counted in the compiled kernels, see `benchmarks.gpu_compile`). Of memory the least is counted: what is
written of a splat is read once, however many tiles it touches, and so is what belongs to a Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gsvr.device_solver.device_neighbour_search import find_pairs
from gsvr.device_solver.device_neighbours import DeviceNeighbours
from gsvr.device_solver.device_seeding import seed_from_lattice as seed_on_device
from gsvr.solver.rounds import refined_amplitudes, stage_lattice

from benchmarks.gpu_ceilings import card_bounds
from benchmarks.gpu_clock import milliseconds
from benchmarks.speed_acquisitions import NOISE, phantom_field
from gsvr.backends.torch.gaussian_tiles import gaussian_tiles
from gsvr.backends.torch.gaussians import DeviceGaussianKernel
from gsvr.backends.torch.lattice_tiles import TILE
from gsvr.backends.torch.splats import find_splats, geometry_of
from gsvr.backends.views import SliceViews, slice_views
from gsvr.model.fields import GaussianField, LatticeField
from gsvr.model.geometry import identity_poses
from gsvr.model.point_spread import point_spread
from gsvr.model.slices import Slices
from gsvr.render.volume import render_volume
from gsvr.solver.schedule import SolverOptions, Stage
from gsvr.solver.seeding import seed_from_lattice

VOXEL = 0.8


@dataclass(frozen=True)
class _Work:
    """What a pair of a tile and a splat asks for, and a splat.

    Attributes
    ----------
    passes
        How often all exponentials are taken.
    multiply_adds
        Of a pixel, with two components.
    pair_bytes, splat_bytes
        List entry and what is written for it; start of the window (8), form (44), Gaussian (4) and what else is read.
    """

    passes: int
    multiply_adds: float
    pair_bytes: int
    splat_bytes: int


# A chunk of 4 splats is 32 pixels for each thread of a warp, a splat with derivatives 4 for each of 64 threads.
_WORKS = {
    "predict": _Work(1, 212 / 32, 4, 56),
    "adjoint": _Work(1, 212 / 32, 4, 56),
    "squared adjoint": _Work(1, 212 / 32, 4, 56),
    "adjoint, deterministic": _Work(1, 212 / 32, 4, 56),
    "normal product": _Work(2, 424 / 32, 8, 112),
    "moments": _Work(1, 333 / 32, 40, 56),
    "derivatives": _Work(1, 157 / 4, 4, 72),
}
# Bytes that are written of a splat when it is found: numbers, window, form, depths.
_FOUND = 12 + 16 + 44 + 16


@dataclass(frozen=True)
class _Problem:
    """What a stage with free Gaussians works on, with nothing moved and seeds from the phantom itself."""

    slices: Slices
    previous: LatticeField
    noise: float
    field: GaussianField
    views: SliceViews


def free_problem(slices: Slices, stage: Stage) -> _Problem:
    """The stage's pixels, the phantom on its lattice, and the host's seeds from that."""
    options = SolverOptions()
    binned, poses = slices.binned(stage.binning), identity_poses(slices.n_slices)
    phantom, volume = phantom_field()
    lattice = stage_lattice(binned, poses, stage, options)
    bright = float(np.percentile(volume.data[volume.mask], 99))
    previous = LatticeField(lattice, refined_amplitudes(phantom, lattice))
    noise = NOISE * bright
    field = seed_from_lattice(previous, noise, options.seeds_of(stage))
    spread = point_spread(binned.spacings, binned.thicknesses, options.profile, binned.binning)
    return _Problem(binned, previous, noise, field, slice_views(binned, poses, spread))


def measure_free_kernels(
    slices: Slices, stage: Stage, device: torch.device, ceilings: dict[str, float]
) -> dict[str, Any]:
    """Milliseconds of every kernel of free Gaussians, and the share of the ceiling that binds it."""
    problem = free_problem(slices, stage)
    binned, field, views = problem.slices, problem.field, problem.views
    kernel = DeviceGaussianKernel(field, views, device, needed=binned.mask)
    lists, geometry = kernel.lists, geometry_of(field, views, device)
    # tiles without a pixel that is needed have no list
    n_pairs, n_splats, n_listed = len(lists.splats), len(lists.gaussians), len(lists.splats.unique())
    components = len(views.spread.weights)
    times = _kernel_times(kernel, DeviceGaussianKernel(field, views, device, deterministic=True, needed=binned.mask))
    bounds = {
        name: card_bounds(
            ceilings,
            exponentials=work.passes * components * n_pairs * TILE**2,
            multiply_adds=work.multiply_adds * n_pairs * TILE**2,
            moved=n_pairs * work.pair_bytes + n_listed * work.splat_bytes,
        )
        for name, work in _WORKS.items()
    }
    times["splats"] = milliseconds(lambda: find_splats(geometry, views))
    times["splats and lists"] = milliseconds(lambda: gaussian_tiles(geometry, views, binned.mask))
    bounds["splats"] = card_bounds(ceilings, moved=n_splats * _FOUND)
    bounds["splats and lists"] = card_bounds(ceilings, moved=n_splats * _FOUND + 4 * n_pairs)
    times["volume of 0.8 mm, to the host"] = milliseconds(lambda: render_volume(field, VOXEL, backend=str(device)))
    times["seeds"] = _seeding_time(problem, device)
    of_neighbours, bounds_of_neighbours = _neighbour_times(field, device, ceilings)
    times, bounds = times | of_neighbours, bounds | bounds_of_neighbours
    return {
        "stage": stage.name,
        "gaussians": kernel.n_gaussians,
        "pixels": binned.n_pixels,
        "tiles": lists.n_tiles,
        "splats": n_splats,
        "listed_splats": n_listed,
        "pairs": n_pairs,
        "milliseconds": times,
        "bounds_milliseconds": bounds,
        "share_of_what_binds": {name: max(bounds[name].values()) / times[name] for name in bounds},
    }


def _kernel_times(kernel: DeviceGaussianKernel, exact: DeviceGaussianKernel) -> dict[str, float]:
    """Of what works through the lists of tiles; `exact` is the deterministic kernel."""
    device = kernel.device
    amplitudes = torch.rand(kernel.n_gaussians, device=device)
    pixels, weights, more = (torch.rand(kernel.n_pixels, device=device) for _ in range(3))
    along, moments = torch.zeros_like(pixels), torch.empty((len(kernel.lists.splats), 9), device=device)
    works = {
        "predict": lambda: kernel.predict(amplitudes),
        "adjoint": lambda: kernel.adjoint(pixels),
        "squared adjoint": lambda: kernel.squared_adjoint(pixels),
        "adjoint, deterministic": lambda: exact.adjoint(pixels),
        "normal product": lambda: kernel.normal(amplitudes, weights, along),
        "moments": lambda: kernel.kernels.moments(kernel.lists, amplitudes, pixels, more, moments),
        "derivatives": lambda: kernel.derivatives(amplitudes),
        "gradient by geometry and poses": lambda: kernel.gradient(amplitudes, pixels),
    }
    return {name: milliseconds(work) for name, work in works.items()}


def _seeding_time(problem: _Problem, device: torch.device) -> float:
    """Milliseconds of many small operations, which launches bind: there is no other ceiling to compare with."""
    amplitudes = torch.as_tensor(problem.previous.amplitudes).to(device)
    options = SolverOptions().seeds
    return milliseconds(lambda: seed_on_device(amplitudes, problem.previous.lattice, problem.noise, options))


def _neighbour_times(
    field: GaussianField, device: torch.device, ceilings: dict[str, float]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Search; prior and preconditioner: passes over columns of neighbours, which only memory binds."""
    options, n = SolverOptions().neighbours, len(field.means)
    means, log_scales = (torch.as_tensor(part).to(device) for part in (field.means, field.log_scales))
    found = find_pairs(means, log_scales, options.count)
    neighbours = DeviceNeighbours(found, 1.0, options)
    values, strength = torch.rand(n, device=device), torch.ones((), device=device)
    neighbours.reweight(values)
    neighbours.prepare(values, strength)
    works = {
        "neighbours, search": lambda: find_pairs(means, log_scales, options.count),
        "neighbours, columns": found.columns,
        "neighbours, new weights": lambda: neighbours.reweight(values),
        "neighbours, prior": lambda: neighbours.apply(values, strength),
        "neighbours, preconditioner": lambda: neighbours.precondition(values),
    }
    # numbers of 4 bytes for each pair in both directions, without the padding: number and weight (bond or adjacency),
    # and what is written; and for each Gaussian
    ends = 2 * len(found.first)
    moved = {
        "neighbours, new weights": 4 * (3 * ends + 2 * n),
        "neighbours, prior": 4 * (2 * ends + 3 * n),
        "neighbours, preconditioner": 4 * (options.sharpenings * 2 * ends + 3 * n),
    }
    return (
        {name: milliseconds(work) for name, work in works.items()},
        {name: card_bounds(ceilings, moved=bytes_moved) for name, bytes_moved in moved.items()},
    )

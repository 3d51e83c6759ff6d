"""Kernels of lattices on a card stage by stage: milliseconds, and what binds them by the measured ceilings.

A pair of a tile and a site costs 2 x 16 exponentials and one for each component of the slice profile, and for each
matrix product 16 x 16 multiply-adds (two operations each): one product for prediction and adjoint, two (and twice the
exponentials) for the normal product, seven for the derivatives. It moves 4 bytes of list and 4 of the amplitude (8
where it is added to).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from gsvr.device_solver.device_prior import DevicePrior

from benchmarks.gpu_ceilings import card_bounds
from benchmarks.gpu_clock import milliseconds
from benchmarks.speed_operator import stage_problem
from gsvr.backends.torch.lattice import TiledKernel
from gsvr.backends.torch.lattice_tiles import TILE
from gsvr.backends.triton.lattice import Launch, adjoint, differentiate, normal, predict
from gsvr.model.slices import Slices
from gsvr.solver.priors.lattice import PriorOptions
from gsvr.solver.schedule import Stage

# (matrix products, rows and columns of exponentials, bytes) of a pair
_WORK = {
    "predict": (1, 1, 8),
    "adjoint": (1, 1, 12),
    "squared adjoint": (1, 1, 12),
    "normal product": (2, 2, 20),
    "derivatives": (7, 1, 8),
}
_CHUNKS, _WARPS, _PRECISIONS = (16, 32, 64, 128), (1, 2, 4), ("ieee", "tf32x3", "tf32")


def measure_stage_kernels(slices: Slices, stage: Stage, device: torch.device, ceilings: dict[str, float]) -> dict:
    """Milliseconds of every kernel in one stage, and the share of the ceiling that binds it."""
    binned, lattice, windows = stage_problem(slices, stage)
    kernel = TiledKernel(lattice, windows, device, needed=binned.mask)
    amplitudes = torch.rand(lattice.shape, device=device) * kernel.support
    pixels, weights = (torch.rand(kernel.n_pixels, device=device) for _ in range(2))
    along = torch.zeros_like(pixels)
    at = torch.as_tensor(windows.from_lattice).to(kernel.lists.corners.dtype).to(device)
    works = {
        "predict": lambda: kernel.predict(amplitudes),
        "adjoint": lambda: kernel.adjoint(pixels),
        "squared adjoint": lambda: kernel.squared_adjoint(pixels),
        "normal product": lambda: kernel.normal(amplitudes, weights, along),
        "derivatives": lambda: kernel.derivatives(amplitudes),
        "lists at new poses": lambda: kernel.move(at),
    }
    times = {name: milliseconds(work) for name, work in works.items()} | _prior_times(kernel, amplitudes)
    exact = TiledKernel(lattice, windows, device, deterministic=True, needed=binned.mask)
    times["adjoint, deterministic"] = milliseconds(lambda: exact.adjoint(pixels))
    pairs = int(kernel.lists.count.sum())
    bounds = {name: _bounds(pairs, kernel.lists.n_components, *work, ceilings) for name, work in _WORK.items()}
    return {
        "stage": stage.name,
        "gaussians": lattice.n_sites,
        "pixels": binned.n_pixels,
        "tiles": kernel.lists.n_tiles,
        "pairs": pairs,
        "room_for_pairs": len(kernel.lists.sites),
        "milliseconds": times,
        "bounds_milliseconds": bounds,
        "share_of_what_binds": {name: max(bounds[name].values()) / times[name] for name in bounds},
    }


def _bounds(
    pairs: int, components: int, products: int, factors: int, moved: int, ceilings: dict[str, float]
) -> dict[str, float]:
    """Milliseconds that the ceilings allow at least."""
    return card_bounds(
        ceilings,
        exponentials=pairs * factors * (2 * TILE + components),
        multiply_adds=pairs * products * TILE**2,
        moved=pairs * moved,
    )


def _prior_times(kernel: TiledKernel, amplitudes: torch.Tensor) -> dict[str, float]:
    prior = DevicePrior(kernel.lattice, PriorOptions().edge, kernel.device)
    out, one = torch.zeros_like(amplitudes), torch.ones((), device=kernel.device)
    return {
        "prior, new weights": milliseconds(lambda: prior.reweight(amplitudes)),
        "prior": milliseconds(lambda: prior.add(amplitudes, one, out)),
    }


def measure_launches(slices: Slices, stage: Stage, device: torch.device) -> list[dict[str, Any]]:
    """The main kernels compiled in different ways: sites a chunk, warps a tile, precision of matrix products.

    The difference is that of the prediction from the one that is used, as a share of its largest value.
    """
    binned, lattice, windows = stage_problem(slices, stage)
    lists = TiledKernel(lattice, windows, device, needed=binned.mask).lists
    amplitudes = torch.rand(lattice.shape, device=device)
    pixels = torch.rand(len(binned.values), device=device)
    along, out, planes = (
        torch.zeros_like(pixels),
        torch.zeros_like(amplitudes),
        torch.zeros((7, len(pixels)), device=device),
    )
    predict(lists, amplitudes, along)
    usual = along.clone()
    rows = []
    for chunk in _CHUNKS:
        for warps in _WARPS:
            for precision in _PRECISIONS:
                launch = Launch(chunk, warps, precision)
                works = {
                    "predict": partial(predict, lists, amplitudes, along, launch),
                    "adjoint": partial(adjoint, lists, pixels, None, out, launch=launch),
                    "normal product": partial(normal, lists, amplitudes, pixels, along, out, launch),
                    "derivatives": partial(differentiate, lists, amplitudes, planes, launch),
                }
                times = {name: milliseconds(work, 10) for name, work in works.items()}
                works["predict"]()
                row = {"sites": chunk, "warps": warps, "precision": precision, "milliseconds": times}
                rows.append(row | {"difference": float((along - usual).abs().max() / usual.abs().max())})
    return rows

"""Are the kernels right on this card? Before anything is timed, every one of them is compared with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gsvr.backends.torch.reference import ReferenceKernel
from gsvr.device_solver.device_prior import DevicePrior

from benchmarks.gpu_free_correctness import free_errors, largest_error
from gsvr.backends.torch.lattice import TiledKernel, triton_kernels
from gsvr.backends.triton import bonds as triton_prior
from gsvr.backends.windows import slice_windows
from gsvr.model.fields import Lattice, lattice_covering
from gsvr.model.geometry import pose_about
from gsvr.model.point_spread import point_spread
from gsvr.model.slices import Slices, Stack, interleaved_times, slices_from_stacks
from gsvr.solver.priors.lattice import quadratic_prior

# Relative to the largest value, with a cut-off that costs nothing: float32 sums of some thousand terms.
TOLERANCE = 1e-5
_WIDE = 6.0
_EDGE = 0.01


def small_problem(pixels: int) -> tuple[Slices, np.ndarray, Lattice]:
    """Two stacks of three slices of `pixels` x `pixels`, turned and shifted, and a lattice around them."""
    rng = np.random.default_rng(0)
    stacks, masks = [], []
    for number, axes in enumerate((np.eye(3), np.eye(3)[:, [1, 2, 0]])):
        spacing, shape = np.array([1.1, 1.0 + 0.3 * number, 3.0]), (pixels, pixels - 2, 3)
        affine = np.eye(4)
        affine[:3, :3] = axes * spacing
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        masks.append(np.ones(shape, bool))
        data = rng.random(shape, dtype=np.float32)
        stacks.append(Stack(str(number), data, affine, 3.0 - number / 2, masks[-1], interleaved_times(3)))
    slices = slices_from_stacks(stacks, masks)
    n = slices.n_slices
    poses = pose_about(0.15 * rng.normal(size=(n, 3)), rng.normal(size=(n, 3)), slices.centres)
    return slices, poses, lattice_covering(slices.pixel_positions(), 2.5, 1.6, 2.5)


def measure_correctness(device: torch.device, pixels: int = 60) -> dict[str, Any]:
    """Largest errors against the reference in float64, as shares of the largest value, and whether all are in order."""
    slices, poses, lattice = small_problem(pixels)
    spread = point_spread(slices.spacings, slices.thicknesses)
    windows = slice_windows(lattice, slices, poses, spread, _WIDE)
    reference = ReferenceKernel(lattice, windows, torch.float64)
    rng = np.random.default_rng(1)
    c = (rng.uniform(-0.5, 1, lattice.shape) * lattice.support).astype(np.float32)
    r = rng.normal(size=len(slices.values)).astype(np.float32)
    w = rng.random(len(r), dtype=np.float32)

    def move(values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(values).to(device)

    errors: dict[str, float] = {}
    predicted, derivatives = reference.predict(c), reference.derivatives(c)
    for name, deterministic in (("", False), (", deterministic", True)):
        kernel = TiledKernel(lattice, windows, device, triton_kernels(), deterministic)
        along = torch.zeros(len(r), device=device)
        support = lattice.support
        errors["predict"] = largest_error(kernel.predict(move(c)), predicted)
        errors["derivatives"] = largest_error(kernel.derivatives(move(c)), derivatives)
        errors["adjoint" + name] = largest_error(kernel.adjoint(move(r)), reference.adjoint(r))
        errors["squared adjoint" + name] = largest_error(kernel.squared_adjoint(move(r)), reference.squared_adjoint(r))
        normal = kernel.normal(move(c), move(w), along) * move(support)
        errors["normal product" + name] = largest_error(normal, reference.adjoint(w * predicted))
    errors |= _prior_errors(lattice, c, device) | free_errors(slices, poses, spread, _WIDE, device)
    return {"errors": errors, "tolerance": TOLERANCE, "passed": max(errors.values()) <= TOLERANCE}


def _prior_errors(lattice: Lattice, c: np.ndarray, device: torch.device) -> dict[str, float]:
    expected = quadratic_prior(lattice, c, _EDGE)
    prior = DevicePrior(lattice, _EDGE, device, triton_prior)
    values = torch.as_tensor(c).to(device)
    prior.reweight(values)
    out, diagonal = torch.zeros_like(values), torch.zeros_like(values)
    one = torch.ones((), device=device)
    prior.add(values, one, out)
    prior.add_diagonal(one, diagonal)
    return {
        "prior": largest_error(out, expected.apply(c)),
        "diagonal of the prior": largest_error(diagonal, expected.diagonal()),
    }

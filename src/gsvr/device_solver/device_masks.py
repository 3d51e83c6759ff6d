"""The mask that slices agree on, and its projection on them, on a device; see `gsvr.masks.consensus`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gsvr.backends.torch import lattice_tiles as tiles
from gsvr.device_solver.device_binning import binned
from gsvr.device_solver.device_lattice import lattice_covering
from gsvr.device_solver.pixel_grid import PixelGrid, placed_pixels
from gsvr.masks.consensus import mask_from_votes
from gsvr.model.slices import Slices
from gsvr.model.volume import Volume
from gsvr.operators.acquisition import AcquisitionOperator
from gsvr.solver.schedule import SolverOptions


def agreed_mask(
    slices: Slices,
    votes: Bool[np.ndarray, " p"],
    poses: Float[np.ndarray, "n 4 4"],
    options: SolverOptions,
    device: torch.device,
) -> Volume:
    """`gsvr.masks.consensus.agreed_mask`; its connected parts are found on the host."""
    drawn = np.ones(slices.n_slices, bool) if slices.drawn is None or not slices.drawn.any() else slices.drawn
    slices = binned(slices.with_mask(votes), 2, device)
    heard = slices.per_pixel(drawn)
    yes = slices.mask & heard
    chosen = torch.as_tensor(np.flatnonzero(yes)).to(device)
    placed = placed_pixels(slices, poses, PixelGrid.of(slices.shapes, device), chosen)
    spacing = options.masks.spacing
    lattice = lattice_covering(placed, spacing, spacing, 2 * spacing)
    operator = AcquisitionOperator(lattice, slices, poses, profile=options.profile, backend=options.backend)
    in_favour, heard_in_all = (operator.adjoint(part.astype(np.float32)) for part in (yes, heard))
    return mask_from_votes(in_favour, heard_in_all, lattice)


def project_mask(
    mask: Volume, slices: Slices, poses: Float[np.ndarray, "n 4 4"], margin: float, device: torch.device
) -> Bool[np.ndarray, " p"]:
    """`gsvr.masks.consensus.project_mask`."""
    inside = torch.as_tensor(np.pad(np.asarray(mask.mask), 1)).to(device)
    distance = distance_to(inside, mask.spacing) - distance_to(~inside, mask.spacing)
    placed = placed_pixels(slices, poses, PixelGrid.of(slices.shapes, device))
    to_index = torch.as_tensor(np.linalg.inv(mask.affine)).to(tiles.exact_type(device)).to(device)
    index = placed @ to_index[:3, :3].T + to_index[:3, 3] + 1
    return (_interpolated(distance, index) <= margin).cpu().numpy()


def distance_to(mask: Bool[Tensor, "x y z"], spacing: Float[np.ndarray, " 3"]) -> Float[Tensor, "x y z"]:
    """Distance (mm) of every voxel to the nearest one inside the mask: exact, one axis after the other."""
    squared = torch.full(mask.shape, torch.inf, device=mask.device).masked_fill(mask, 0)
    for axis, size in enumerate(spacing):
        n = mask.shape[axis]
        places = torch.arange(n, device=mask.device, dtype=torch.float32).reshape(
            [-1 if i == axis else 1 for i in range(3)]
        )
        nearest = squared.clone()
        for line in range(n):
            cost = ((places - line) * float(size)) ** 2
            nearest = torch.minimum(nearest, squared.narrow(axis, line, 1) + cost)
        squared = nearest
    return squared.sqrt()


def _interpolated(values: Float[Tensor, "x y z"], index: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Linear interpolation at indices; infinite beyond the grid."""
    sizes = torch.tensor(values.shape, device=index.device)
    beyond = ((index < 0) | (index > sizes - 1)).any(1)
    lower = index.floor().long().clamp(min=0).minimum(sizes - 2)
    share = index - lower
    total = torch.zeros(len(index), dtype=index.dtype, device=index.device)
    for corner in range(8):
        bits = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1], device=index.device)
        weight = torch.where(bits == 1, share, 1 - share).prod(1)
        total += weight * values[tuple((lower + bits).unbind(1))]
    return total.masked_fill(beyond, torch.inf)

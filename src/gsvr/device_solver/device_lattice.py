"""Lattices of the stages, and amplitudes handed from one to the next, on a device; see `gsvr.solver.rounds`."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from gsvr.backends.torch.rendering import lattice_values
from gsvr.model.fields import Lattice, LatticeField


def within(mask: Bool[Tensor, "x y z"], distance: float) -> Bool[Tensor, "x y z"]:
    """Sites at most `distance` (in sites) from a site of the mask: squared distances, one axis after the other."""
    limit = int(distance**2 + 1e-6)
    squared = torch.where(mask, torch.zeros_like(mask, dtype=torch.int32), limit + 1)
    for axis in range(3):
        nearest = squared.clone()
        for step in range(1, min(int(limit**0.5), mask.shape[axis] - 1) + 1):
            cost, rest = step**2, mask.shape[axis] - step
            here, there = nearest.narrow(axis, step, rest), squared.narrow(axis, 0, rest)
            here.copy_(torch.minimum(here, there + cost))
            here, there = nearest.narrow(axis, 0, rest), squared.narrow(axis, step, rest)
            here.copy_(torch.minimum(here, there + cost))
        squared = nearest.clamp(max=limit + 1)
    return squared <= limit


def closed(mask: Bool[Tensor, "x y z"], distance: float) -> Bool[Tensor, "x y z"]:
    """`gsvr.model.morphology.closed`, `distance` in sites."""
    room = int(np.ceil(distance)) + 1
    wide = within(torch.nn.functional.pad(mask, (room,) * 6), distance)
    return mask | ~within(~wide, distance)[room:-room, room:-room, room:-room]


def lattice_covering(
    points: Float[Tensor, "n 3"], spacing: float, sigma: float, margin: float, gap: float = 0.0
) -> Lattice:
    """`gsvr.model.fields.lattice_covering`, for points on a device."""
    ends = torch.stack([points.amin(0) - margin, points.amax(0) + margin]).cpu().double().numpy() / spacing
    low, high = np.floor(ends[0]).astype(int), np.ceil(ends[1]).astype(int)
    occupied = torch.zeros(tuple(int(n) for n in high - low + 1), dtype=torch.bool, device=points.device)
    nearest = (points / spacing).round().long() - torch.as_tensor(low).to(points.device)
    occupied[tuple(nearest.unbind(1))] = True
    support = within(occupied, margin / spacing)
    if gap > 0:
        support = closed(support, gap / spacing)
    return Lattice(low * float(spacing), float(spacing), float(sigma), support.cpu().numpy())


def site_axes(lattice: Lattice) -> tuple[np.ndarray, ...]:
    """Coordinates (mm) of the sites on each axis."""
    return tuple(lattice.origin[axis] + lattice.spacing * np.arange(count) for axis, count in enumerate(lattice.shape))


def refined_amplitudes(field: LatticeField, lattice: Lattice, device: torch.device) -> Float32[Tensor, "nx ny nz"]:
    """`gsvr.solver.rounds.refined_amplitudes`."""
    values = lattice_values(torch.as_tensor(field.amplitudes).to(device), field.lattice, site_axes(lattice))
    level = (lattice.spacing / (lattice.sigma * np.sqrt(2 * np.pi))) ** 3
    return values * float(np.float32(level)) * torch.as_tensor(lattice.support).to(device)

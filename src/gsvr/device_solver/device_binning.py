"""Binning of slices on a device, see `gsvr.model.slices.Slices.binned`: sums in a fixed order, always the same bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from gsvr.device_solver.pixel_grid import PixelGrid
from gsvr.model.slices import Slices


def binned(slices: Slices, factor: int, device: torch.device) -> Slices:
    """Average `factor` x `factor` pixels inside the mask."""
    if factor == 1:
        return slices
    shapes = -(-slices.shapes // factor)
    grid = PixelGrid.of(shapes, device)
    mask = torch.as_tensor(slices.mask).to(device)
    values = torch.as_tensor(slices.values).to(device) * mask
    old_shapes = torch.as_tensor(np.ascontiguousarray(slices.shapes)).long().to(device)[grid.owner]
    first = torch.as_tensor(np.ascontiguousarray(slices.offsets[:-1])).long().to(device)[grid.owner]
    total = torch.zeros(len(grid.owner), device=device)
    count = torch.zeros(len(grid.owner), device=device)
    for u in range(factor):
        for v in range(factor):
            row, column = grid.row * factor + u, grid.column * factor + v
            inside = (row < old_shapes[:, 0]) & (column < old_shapes[:, 1])
            at = (first + row * old_shapes[:, 1] + column) * inside
            total += values[at] * inside
            count += (mask[at] & inside).to(torch.float32)
    coverage = (count / factor**2).cpu().numpy()
    frames = slices.frames.copy()
    shift = (factor - 1) / 2 * slices.pixel_spacings
    frames[:, :3, 3] += np.einsum("nij,nj->ni", slices.frames[:, :3, :2], shift)
    return replace(
        slices,
        values=(total / count.clamp(min=1e-6)).cpu().numpy(),
        mask=coverage >= 0.5,
        coverage=coverage,
        shapes=shapes,
        offsets=np.concatenate([[0], np.cumsum(shapes.prod(axis=1))]).astype(np.int64),
        frames=frames,
        binning=slices.binning * factor,
    )

"""Where every pixel of every slice is: its slice, its row and column, and its place in the volume's world."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from gsvr.backends.torch import lattice_tiles as tiles
from gsvr.model.slices import Slices


@dataclass(frozen=True)
class PixelGrid:
    """Pixels of rectangles that are stored one after another.

    Attributes
    ----------
    shapes, first
        Extent of each slice along u and v, and where its pixels start.
    owner, row, column
        Of every pixel.
    """

    shapes: Int64[Tensor, "n 2"]
    first: Int64[Tensor, " n"]
    owner: Int64[Tensor, " p"]
    row: Int64[Tensor, " p"]
    column: Int64[Tensor, " p"]

    @staticmethod
    def of(shapes: np.ndarray, device: torch.device) -> PixelGrid:
        """Lay out slices of the given shapes (n, 2)."""
        sizes = shapes.prod(axis=1)
        total = int(sizes.sum())
        on_device = torch.as_tensor(np.ascontiguousarray(shapes)).long().to(device)
        first = torch.as_tensor(np.cumsum(sizes) - sizes).long().to(device)
        numbers = torch.arange(len(shapes), device=device)
        owner = torch.repeat_interleave(numbers, on_device.prod(1), output_size=total)
        place = torch.arange(total, device=device) - first[owner]
        columns = on_device[owner, 1]
        return PixelGrid(on_device, first, owner, place // columns, place % columns)


def placed_pixels(
    slices: Slices, poses: Float[np.ndarray, "n 4 4"], grid: PixelGrid, chosen: Int64[Tensor, " q"] | None = None
) -> Float[Tensor, "q 3"]:
    """Position (volume world, mm) of pixels, by default of all."""
    device = grid.owner.device
    to_world = poses @ slices.frames
    columns = np.stack(
        [to_world[:, :3, axis] * slices.pixel_spacings[:, axis, None] for axis in (0, 1)] + [to_world[:, :3, 3]], axis=1
    )
    parts = torch.as_tensor(columns).to(tiles.exact_type(device)).to(device)
    owner, row, column = grid.owner, grid.row, grid.column
    if chosen is not None:
        owner, row, column = owner[chosen], row[chosen], column[chosen]
    of_pixel = parts[owner]
    return row[:, None] * of_pixel[:, 0] + column[:, None] * of_pixel[:, 1] + of_pixel[:, 2]

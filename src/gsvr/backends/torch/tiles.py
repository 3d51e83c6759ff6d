"""Tiles of pixels: what kernels on graphics cards work through, one program a tile, its sums in registers.

A tile is `TILE` x `TILE` pixels of one slice; at the slice's end some of its places are no pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int, Int32, Int64
from torch import Tensor

TILE = 16


@dataclass(frozen=True)
class Tiles:
    """The tiles of all slices, slice by slice and row by row.

    Attributes
    ----------
    slices, corners
        Slice of each tile, and its first row and column there.
    pixels
        Flat index of the tile's first pixel, rows and columns of it inside the slice, pixels from row to row.
    """

    slices: Int[np.ndarray, " t"]
    corners: Int[np.ndarray, "t 2"]
    pixels: Int[np.ndarray, "t 4"]


def tiles_of(shapes: Int[np.ndarray, "n 2"], first_pixel: Int[np.ndarray, " n1"]) -> Tiles:
    """Lay tiles over slices of these shapes, whose pixels start at `first_pixel` in flat arrays."""
    counts = -(-shapes // TILE)
    per_slice = counts.prod(axis=1)
    owner = np.repeat(np.arange(len(shapes)), per_slice)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(per_slice) - per_slice, per_slice)
    corner = TILE * np.stack(np.divmod(number, counts[owner, 1]), axis=1)
    rows, columns = np.minimum(shapes[owner] - corner, TILE).T
    stride = shapes[owner, 1]
    start = first_pixel[owner] + corner[:, 0] * stride + corner[:, 1]
    return Tiles(owner, corner, np.stack([start, rows, columns, stride], axis=1))


def pixel_index(pixels: Int32[Tensor, "t 4"]) -> Int64[Tensor, "t i j"]:
    """Flat pixel of every place of tiles (see `Tiles.pixels`), -1 where there is none."""
    lines = torch.arange(TILE, device=pixels.device)
    start, rows, columns, stride = pixels.long()[:, :, None, None].unbind(1)
    inside = (lines[:, None] < rows) & (lines < columns)
    return (start + lines[:, None] * stride + lines).masked_fill(~inside, -1)


def cut_into_tiles(flat: Float32[Tensor, " p"], pixels: Int32[Tensor, "t 4"]) -> Float32[Tensor, "t i j"]:
    """The tiles of flat pixels, zero where there is no pixel."""
    return torch.nn.functional.pad(flat, (0, 1))[pixel_index(pixels)]


def join_tiles(images: Float32[Tensor, "k t i j"], pixels: Int32[Tensor, "t 4"], out: Float32[Tensor, "k p"]) -> None:
    """Write tiles to where their pixels are in flat arrays."""
    index = pixel_index(pixels).reshape(-1)
    inside = index >= 0
    out[:, index[inside]] = images.reshape(len(out), -1)[:, inside]

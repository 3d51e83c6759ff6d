"""Which free Gaussians touch which tile of a slice: the lists that kernels of free Gaussians work through.

The list of a tile holds every splat whose window, the pixels inside the cut-off, meets the tile. The tile sees its
splats whole, not cut to their windows, so what is left out stays below the bound of `gsvr.backends.views`.

Unlike lists of lattice sites these are made by sorting, and making them waits for the device: free Gaussians are
fitted at poses that do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64
from torch import Tensor

from gsvr.backends.torch.splats import Splats
from gsvr.backends.torch.tensors import moved
from gsvr.backends.torch.tiles import TILE, tiles_of
from gsvr.backends.views import SliceViews


@dataclass(frozen=True)
class GaussianTiles:
    """Lists of splats, tile by tile (compressed rows).

    Attributes
    ----------
    pixels, corners
        See `gsvr.backends.torch.tiles.Tiles`.
    constants
        Of each tile's slice: pixel spacing along u and v (mm), then of every component of the point spread function
        its offset (3, mm) and entries uu, uv, uw, vv, vw, ww of its covariance (mm^2).
    first
        Where each tile's list starts in `splats`, and where the last ends.
    splats
        Numbers of splats.
    gaussians, starts, forms, means
        Of every splat: its Gaussian, the first row and column of its window, and as in
        `gsvr.backends.torch.splats.Splats`.
    squared_radii
        How far (mm^2) each pixel sees, see `gsvr.backends.views.SliceViews`; None: no limit. Only
        `gsvr.backends.torch.plain_gaussians` keeps to it.
    """

    pixels: Int32[Tensor, "t 4"]
    corners: Int32[Tensor, "t 2"]
    constants: Float32[Tensor, "t k"]
    first: Int64[Tensor, " t1"]
    splats: Int32[Tensor, " l"]
    gaussians: Int32[Tensor, " n"]
    starts: Int32[Tensor, "n 2"]
    forms: Float32[Tensor, "n m 6"]
    means: Float32[Tensor, "n 3"]
    squared_radii: Float32[Tensor, " p"] | None

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.pixels)


def gaussian_tiles(splats: Splats, views: SliceViews) -> GaussianTiles:
    """Lay tiles over all slices and list their splats, on the device of these."""
    device, radii = splats.slices.device, views.squared_radii
    tiles, counts = tiles_of(views.shapes, views.first_pixel), -(-views.shapes // TILE)
    first_tile = moved(np.cumsum(counts.prod(axis=1)) - counts.prod(axis=1), torch.int64, device)
    listed, tile = _listed(splats, first_tile, moved(counts[:, 1], torch.int64, device))
    tile, order = tile.sort(stable=True)
    lengths = torch.bincount(tile, minlength=len(tiles.slices))
    return GaussianTiles(
        pixels=moved(tiles.pixels, torch.int32, device),
        corners=moved(tiles.corners, torch.int32, device),
        constants=moved(_constants(views)[tiles.slices], torch.float32, device),
        first=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
        splats=listed[order].to(torch.int32),
        gaussians=splats.gaussians.to(torch.int32),
        starts=splats.windows[:, ::2].to(torch.int32).contiguous(),
        forms=splats.forms,
        means=splats.means,
        squared_radii=None if radii is None else moved(radii, torch.float32, device),
    )


def _constants(views: SliceViews) -> np.ndarray:
    spread = views.spread
    entries = spread.covariances[:, :, (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)]
    of_components = np.concatenate([spread.offsets, entries], axis=2)
    return np.concatenate([views.pixel_spacing, of_components.reshape(len(of_components), -1)], axis=1)


def _listed(
    splats: Splats, first_tile: Int64[Tensor, " s"], per_row: Int64[Tensor, " s"]
) -> tuple[Int64[Tensor, " l"], Int64[Tensor, " l"]]:
    """Every pair of a splat and a tile that its window meets."""
    low, last_row, left, last_column = (part // TILE for part in splats.windows.unbind(1))
    width = last_column - left + 1
    count = (last_row - low + 1) * width
    splat = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    step = torch.arange(len(splat), device=splat.device) - (count.cumsum(0) - count)[splat]
    row, column = low[splat] + step // width[splat], left[splat] + step % width[splat]
    s = splats.slices[splat]
    return splat, first_tile[s] + row * per_row[s] + column

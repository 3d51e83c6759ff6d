"""Tiles of all slices and the free Gaussians that touch each: what kernels on graphics cards work through.

A tile is `tiles.TILE` x `tiles.TILE` pixels of one slice, as for a lattice. Its list holds every splat (a Gaussian as
one slice sees it) whose window, the pixels inside the cut-off, meets the tile. The tile sees its splats whole, not cut
to their windows, so what is left out stays below the bound of `gaussian_views`.

Unlike lists of lattice sites these are made by sorting, and making them waits for the device: free Gaussians are
fitted at poses that do not move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int32, Int64
from torch import Tensor

from gsvr.backends.torch.lattice_tiles import TILE, needed_tiles, tiles_of
from gsvr.backends.torch.splats import Geometry, Splats, find_splats
from gsvr.backends.views import SliceViews


@dataclass(frozen=True)
class GaussianTiles:
    """Lists of splats, tile by tile (compressed rows).

    Attributes
    ----------
    pixels
        Flat index of the tile's first pixel, rows and columns of it inside the slice, pixels from row to row.
    corners
        The tile's first row and column in its slice.
    constants
        Of each tile's slice: pixel spacing along u and v (mm), variance of the point spread function along u, v and w
        (mm^2), offset (mm) of the first and of the second component of its profile.
    first
        Where each tile's list starts in `splats`, and where the last ends.
    splats
        Numbers of splats.
    slices, gaussians, starts, forms, depths
        Of every splat: its slice and Gaussian, the first row and column of its window, and as in
        `splat_search.Splats`.
    exact
        Whether peaks are true, see `gaussian_views.SliceViews`.
    squared_radii
        How far (mm^2) each pixel sees, see there; None: no limit. Only `plain_gaussians` keeps to it.
    """

    pixels: Int32[Tensor, "t 4"]
    corners: Int32[Tensor, "t 2"]
    constants: Float32[Tensor, "t 7"]
    first: Int64[Tensor, " t1"]
    splats: Int32[Tensor, " l"]
    slices: Int32[Tensor, " n"]
    gaussians: Int32[Tensor, " n"]
    starts: Int32[Tensor, "n 2"]
    forms: Float32[Tensor, "n k"]
    depths: Float32[Tensor, "n 4"]
    exact: bool
    squared_radii: Float32[Tensor, " p"] | None

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self.pixels)


def gaussian_tiles(
    geometry: Geometry, views: SliceViews, needed: Bool[np.ndarray, " p"] | None = None
) -> GaussianTiles:
    """Lay tiles over all slices and list their splats, on the device of the geometry.

    Parameters
    ----------
    needed
        Pixels somebody asks for; tiles without any are left out. Default: all.
    """
    owner, corner = tiles_of(views.shapes)
    rows, columns = np.minimum(views.shapes[owner] - corner, TILE).T
    start = views.first_pixel[owner] + corner[:, 0] * views.shapes[owner, 1] + corner[:, 1]
    pixels = np.stack([start, rows, columns, views.shapes[owner, 1]], axis=1)
    kept = np.ones(len(owner), bool)
    if needed is not None:
        kept = needed_tiles(views.shapes, views.first_pixel, needed)

    def move(values: np.ndarray, dtype: torch.dtype) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values)).to(dtype).to(geometry.means.device)

    splats = find_splats(geometry, views)
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    counts = -(-views.shapes // TILE)
    first_tile = np.cumsum(counts.prod(axis=1)) - counts.prod(axis=1)
    listed, tile = _listed(splats, move(first_tile, torch.int64), move(counts[:, 1], torch.int64))
    tile = move(number, torch.int64)[tile]
    seen = (tile >= 0).nonzero()[:, 0]
    tile, order = tile[seen].sort(stable=True)
    lengths = torch.bincount(tile, minlength=int(kept.sum()))
    return GaussianTiles(
        pixels=move(pixels[kept], torch.int32),
        corners=move(corner[kept], torch.int32),
        constants=move(_constants(views)[owner[kept]], torch.float32),
        first=torch.nn.functional.pad(lengths.cumsum(0), (1, 0)),
        splats=listed[seen][order].to(torch.int32),
        slices=splats.slices.to(torch.int32),
        gaussians=splats.gaussians,
        starts=splats.windows[:, ::2].contiguous(),
        forms=splats.forms,
        depths=splats.depths,
        exact=views.exact,
        squared_radii=None if views.squared_radii is None else move(views.squared_radii, torch.float32),
    )


def _constants(views: SliceViews) -> np.ndarray:
    spread = views.spread
    ends = spread.offsets[:, (0, -1)]
    return np.concatenate([views.pixel_spacing, spread.in_plane_variances, spread.variances[:, :1], ends], axis=1)


def _listed(
    splats: Splats, first_tile: Int64[Tensor, " s"], per_row: Int64[Tensor, " s"]
) -> tuple[Int64[Tensor, " l"], Int64[Tensor, " l"]]:
    """Every pair of a splat and a tile that its window meets."""
    low, last_row, left, last_column = (part.long() // TILE for part in splats.windows.unbind(1))
    width = last_column - left + 1
    count = (last_row - low + 1) * width
    splat = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
    step = torch.arange(len(splat), device=splat.device) - (count.cumsum(0) - count)[splat]
    row, column = low[splat] + step // width[splat], left[splat] + step % width[splat]
    s = splats.slices[splat]
    return splat, first_tile[s] + row * per_row[s] + column
